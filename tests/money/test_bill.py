"""The provider's own bill and the ledger, a small run of `check_bill.py` on each database."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("check_bill.py")
N_CALLS = 300
WITHIN = "1"  # of some seventy estimates, made before much is learned: the long run holds a tenth

pytestmark = pytest.mark.slow


def check(folder: Path, *given: str, code: int = 0) -> str:
    """Run the script; return what it printed."""
    arguments = ("--calls", str(N_CALLS), "--within", WITHIN, "--folder", str(folder), *given)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert code == ended.returncode, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="module")
def books(tmp_path_factory) -> Path:
    """A run on SQLite: its log, its bill, and what callers noted."""
    folder = tmp_path_factory.mktemp("books")
    check(folder)
    return folder


def test_the_ledger_equals_the_providers_own_bill(books):
    assert (books / "bill.jsonl").stat().st_size > 0


def test_on_postgresql_too(postgres_url, tmp_path):
    said = check(tmp_path, "--store", postgres_url)

    assert f"{N_CALLS} calls in" in said
    assert "the books agree" in said


def test_whatever_differs_is_noticed(books, tmp_path):
    folder = shutil.copytree(books, tmp_path / "books")
    with sqlite3.connect(folder / "log.db") as log:
        known = "FROM attempts WHERE cost_nusd > 0 AND NOT estimated"
        one, other = (log.execute(f"SELECT {f}(response_id) {known}") for f in ("MIN", "MAX"))
        (dearer,), (unbilled,) = one.fetchone(), other.fetchone()
        log.execute(
            "UPDATE attempts SET cost_nusd = cost_nusd + 1 WHERE response_id = ?", (dearer,)
        )
    bill = folder / "bill.jsonl"
    lines = bill.read_text().splitlines()
    kept = [line for line in lines if f'"{unbilled}"' not in line]
    foreign = json.dumps(json.loads(lines[0]) | {"key": "somebody else's", "id": "other"})
    bill.write_text("\n".join([*kept, foreign]))

    said = check(folder, "--again", code=1)

    assert "budget 'month': Account(" in said
    for difference in ("nano-USD, bill", "is not in the log", "is on no bill"):
        assert difference in said
