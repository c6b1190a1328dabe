"""`optllm init` writes the settings, `optllm check` judges them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optllm_router.cli import output
from optllm_router.cli.failures import FAILED, MISTAKEN
from optllm_router.cli.opening import CONFIG, open_router
from optllm_router.cli.options import AsJson, ConfigFile, StoreUrl
from optllm_router.errors import ConfigError, NotTrainedError, RouterError

if TYPE_CHECKING:
    from optllm_router.records import Candidate
    from optllm_router.router import Router

Models = Annotated[
    list[str] | None,
    typer.Argument(metavar="MODEL", help="LiteLLM's model names, from cheap to good."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")]


def init(
    models: Models = None,
    *,
    config: ConfigFile = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a first optllm.toml."""
    from optllm_router.config import starter_toml

    path = config or CONFIG
    text = starter_toml(models) if models else starter_toml()
    _write_new(path, text, force=force)
    if as_json:
        output.print_json({"path": str(path)})
    else:
        output.show(f"wrote {path}; next: edit it, then `optllm check`")


def check(*, config: ConfigFile = None, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Judge settings, prices, keys, labels and privacy.

    Ends with 1 when something makes the router unusable, with 2 for a mistake in the settings.
    """
    candidates: list[dict[str, Any]] = []
    remarks: list[str] = []
    code = FAILED
    try:
        with open_router(config, store) as router:
            candidates = _candidates(router)
            remarks = router.check()
        problems = _problems(candidates)
    except RouterError as error:
        problems = str(error).splitlines()
        code = MISTAKEN if isinstance(error, ConfigError) else FAILED
    if as_json:
        usable = not problems
        found = {"candidates": candidates, "remarks": remarks, "problems": problems}
        output.print_json({"usable": usable, **found})
    else:
        _show(candidates, remarks, problems)
    if problems:
        raise typer.Exit(code)


def _write_new(path: Path, text: str, *, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(
            f"'{path}' exists and is left as it is: `--config FILE` writes another one, `--force` "
            "replaces it."
        ) from None


def _candidates(router: Router) -> list[dict[str, Any]]:
    try:
        labels = {one.name: one.n_labels for one in router.front().candidates}
    except NotTrainedError:
        labels = {}
    return [_candidate(one, labels) for one in router.candidates]


def _candidate(candidate: Candidate, labels: Mapping[str, int]) -> dict[str, Any]:
    price, key = candidate.price, candidate.api_key_env
    return {
        "name": candidate.name,
        "model": candidate.model,
        "input_usd_per_1m": None if price is None else float(price.input_per_1m),
        "output_usd_per_1m": None if price is None else float(price.output_per_1m),
        "context_window": candidate.capabilities.context_window,
        "max_output_tokens": candidate.max_output_tokens,
        "api_key_env": key,
        "has_key": None if key is None else bool(os.environ.get(key)),
        "n_labels": labels.get(candidate.name, 0),
    }


def _problems(candidates: list[dict[str, Any]]) -> list[str]:
    """Return what makes a router that could be opened unusable: nobody has a key."""
    if candidates and all(one["has_key"] is False for one in candidates):
        return ["no candidate can be called: none of their `api_key_env` variables is set"]
    return []


def _show(candidates: list[dict[str, Any]], remarks: list[str], problems: list[str]) -> None:
    if candidates:
        headers = ("candidate", "key", "input / 1M", "output / 1M", "window", "output", "labels")
        output.show(output.table(headers, map(_row, candidates), left=2))
    for remark in remarks:
        output.say(f"remark: {remark}")
    for problem in problems:
        output.say(f"problem: {problem}")
    output.show("not usable" if problems else "usable")


def _row(one: Mapping[str, Any]) -> list[str]:
    key = {None: "LiteLLM's own", True: one["api_key_env"], False: f"{one['api_key_env']} not set"}
    return [
        one["name"],
        str(key[one["has_key"]]),
        output.usd(one["input_usd_per_1m"]),
        output.usd(one["output_usd_per_1m"]),
        f"{one['context_window'] or 0:,}" if one["context_window"] else "-",
        f"{one['max_output_tokens']:,}",
        f"{one['n_labels']:,}",
    ]
