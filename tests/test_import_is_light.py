"""Importing the package and asking for help load nothing heavy; every public name is there."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import optllm_router

ROOT = Path(__file__).parents[1]
HEAVY = ("litellm", "sklearn", "sqlalchemy", "alembic", "scipy", "pydantic", "tiktoken", "aiohttp")


def loaded_after(code: str) -> list[str]:
    """Run code in a fresh process; return which of the heavy modules it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return sorted({name.split(".")[0] for name in done.stdout.split()} & set(HEAVY))


def test_import_loads_nothing_heavy():
    assert [] == loaded_after("import optllm_router")


def test_policies_and_errors_load_no_library_that_calls_or_stores():
    code = "from optllm_router import Budget, ConfigError; Budget(usd=1.0)"

    assert [] == [name for name in loaded_after(code) if name in HEAVY[:4]]


def test_help_loads_neither_litellm_nor_sklearn_nor_sqlalchemy():
    code = (
        "from optllm_router.cli import app\n"
        "from typer.testing import CliRunner\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "assert result.exit_code == 0, result.output\n"
        "assert 'demo' in result.output"
    )

    assert [] == [name for name in loaded_after(code) if name in HEAVY[:4]]


def test_no_network_address_is_looked_up_on_import():
    code = (
        "import socket\n"
        "def refuse(*_args, **_kwargs):\n"
        "    raise AssertionError('a socket at import')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import optllm_router\n"
        "[getattr(optllm_router, name) for name in optllm_router.__all__]"
    )

    loaded_after(code)


def test_all_is_sorted_and_complete():
    assert sorted(optllm_router.__all__) == optllm_router.__all__
    assert {*optllm_router._HOMES, "__version__"} == set(optllm_router.__all__)
    assert len(optllm_router.__all__) == len(set(optllm_router.__all__))
    assert optllm_router.__all__ == dir(optllm_router)


@pytest.mark.parametrize("name", optllm_router.__all__)
def test_every_public_name_resolves(name):
    found = getattr(optllm_router, name)

    home = optllm_router._HOMES.get(name)
    if home is not None:
        assert found is getattr(importlib.import_module(f"optllm_router.{home}"), name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Ruter'"):
        optllm_router.Ruter  # noqa: B018
