"""Opens what a command works with: the configured Router, or only the log."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from optllm_router.cli.output import say, usd
from optllm_router.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from optllm_router.config import Config
    from optllm_router.router import Router
    from optllm_router.store.base import Store

CONFIG = Path("optllm.toml")


def open_config(path: Path | None, store: str | None = None) -> Config:
    """Read the settings. Raises: ConfigError."""
    from optllm_router.config import load_config

    return load_config(path or CONFIG, store=store)


@contextmanager
def open_router(path: Path | None, store: str | None = None) -> Iterator[Router]:
    """Yield the configured router; standard output is kept for the command's result.

    What LiteLLM or a user's grader prints meanwhile goes to standard error. Interrupted, it says
    what of this run is in the log.

    Raises: ConfigError, StoreError.
    """
    config = open_config(path, store)  # first: a mistake there need not wait for LiteLLM
    with working_directory_importable(), redirect_stdout(sys.stderr):
        from optllm_router.completion.litellm_client import keep_stdout_clean
        from optllm_router.router import Router

        keep_stdout_clean()
        started = datetime.now(tz=UTC)
        router = Router(config=config)
        try:
            yield router
        except KeyboardInterrupt:
            say(_logged_since(router, started))
            raise
        finally:
            lost = router.close()
            if lost:
                say(f"warning: {lost} entries could not be written to the log")


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """Let settings name functions of the user's modules, as `python -m` would find them."""
    here = os.getcwd()  # noqa: PTH109  # an entry of `sys.path` is text
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


@contextmanager
def open_log(config: Path | None, store: str | None, db: Path | None) -> Iterator[Store]:
    """Yield the log alone, which is quick: no candidate is looked up, LiteLLM is not loaded.

    Raises: ConfigError where nothing says which log; StoreError where there is none yet.
    """
    url = log_url(config, store, db)
    from optllm_router.store import schema
    from optllm_router.store.faults import shown
    from optllm_router.store.sql import open_store

    if schema.current(url) is None:
        raise StoreError(
            f"there is no log at {shown(url)!r} yet: it is made by the first call, `optllm probe` "
            "or `optllm import`; `--store` or `--db` name another one."
        )
    log = open_store(url)
    try:
        yield log
    finally:
        log.close()


def log_url(config: Path | None, store: str | None, db: Path | None) -> str:
    """Return where the log is: `--store` or `--db`, else as the settings say.

    Without a settings file the environment's `OPTLLM_STORE` will do.

    Raises: ConfigError.
    """
    if store is not None and db is not None:
        raise ConfigError("--store and --db both name the log: give one of them.")
    if db is not None:
        return f"sqlite:///{db}"
    if config is None and not CONFIG.exists():
        store = store or os.environ.get("OPTLLM_STORE") or None
        if store is None:
            raise ConfigError(
                f"there is no '{CONFIG}' here to say where the log is: name the log with "
                "`--db FILE` or `--store URL`, or the settings with `--config FILE`."
            )
    return store if store is not None else open_config(config).store


def _logged_since(router: Router, started: datetime) -> str:
    try:
        rows = router.history.summary("kind", since=started)
    except StoreError as error:
        return f"interrupted; what was answered is in the log, which cannot be read now: {error}"
    n_calls, cost = sum(row.n_attempts for row in rows), sum(row.cost_usd for row in rows)
    return (
        f"interrupted: nothing more is asked. {n_calls} calls of this run, {usd(cost)} in all, are "
        "in the log; `optllm history --by batch` shows them."
    )
