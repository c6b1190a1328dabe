"""How `optllm run` goes on after a crash: the name of its batch, and the file of its answers.

A run with `--out` is a batch named after that file: the same command goes on where the last one
ended. The log keeps its answers until the file holds them all. A run with `--batch-id` has the name
it is given, and its answers are kept until somebody forgets them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optllm_router.cli import output
from optllm_router.cli.answers import Line
from optllm_router.errors import ConfigError

if TYPE_CHECKING:
    from optllm_router.router import Router

_LEAST_USD = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a file: where its answers go, and under what name it goes on."""

    out: Path | None
    batch_id: str | None
    force: bool

    @property
    def name(self) -> str | None:
        """The batch that it is; None where nothing says what to go on with."""
        if self.batch_id is not None or self.out is None:
            return self.batch_id
        return f"run {self.out.resolve()}"

    @contextmanager
    def begun(self, router: Router, *, skips: bool) -> Iterator[None]:
        """Say what was answered before, and on an interrupt how to go on.

        Raises: ConfigError where answers of something else stand in the file.
        """
        if self.name is None:
            yield
            return
        if self.force and self.batch_id is None:
            router.forget_answers(self.name)
        batch = router.history.batch(self.name)
        if self._is_in_the_way() and (batch is None or self.batch_id is not None):
            raise ConfigError(
                f"'{self.out}' exists, and answers cost money: give another `--out`, or `--force` "
                "to replace them."
            )
        if batch is not None:
            output.say(f"resumed: {batch.n_answered:,} of {batch.n_items:,} were answered before")
        if batch is not None and batch.n_interrupted:
            then = "they are left out" if skips else "they are asked again"
            output.say(
                f"{batch.n_interrupted:,} were being asked when the run before ended: their calls "
                f"are in the log at their forecast, and {then}"
            )
        try:
            yield
        except KeyboardInterrupt:
            output.say("the same command goes on from here")
            raise

    def write(self, lines: Sequence[Line]) -> None:
        """Write the answers to their file, all of them or none."""
        if self.out is None:
            return
        text = "".join(f"{output.json_line(line)}\n" for line in lines)
        target = self.out.resolve()
        if not target.is_file():  # a pipe, a device
            target.write_text(text, "utf-8")
            return
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            draft.write_text(text, "utf-8")
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)

    def end(self, router: Router, lines: Sequence[Line]) -> list[str]:
        """Return a remark on money that brought no answer; forget what the file holds now."""
        batch = None if self.name is None else router.history.batch(self.name)
        if self.name is None or batch is None:
            return []
        if self.batch_id is None and batch.n_answered == batch.n_items:
            router.forget_answers(self.name)
        more = batch.cost_usd - sum(line["cost_usd"] for line in lines)
        if more < _LEAST_USD:
            return []
        return [f"{output.usd(more)} more went to calls of this batch that brought no answer"]

    def _is_in_the_way(self) -> bool:
        if self.out is None or self.force:
            return False
        return self.out.is_file() and self.out.stat().st_size > 0


@contextmanager
def writable(path: Path | None) -> Iterator[None]:
    """Make sure that answers can be written, before they are paid for. Raises: OSError."""
    if path is None:
        yield
        return
    existed = path.exists()
    path.open("a", encoding="utf-8").close()
    try:
        yield
    finally:
        if not existed and path.exists() and path.stat().st_size == 0:
            path.unlink()
