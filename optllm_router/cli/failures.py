"""Errors as one clear line on standard error, and as exit codes.

0: done. 1: it failed. 2: a mistake in the arguments or the settings (`ConfigError`, and what Typer
itself refuses). 130: interrupted. A fault of our own keeps its traceback and ends with 1.
"""

from __future__ import annotations

import errno
import traceback
from typing import Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from optllm_router.cli.output import say
from optllm_router.errors import ConfigError, RouterError

FAILED = 1
MISTAKEN = 2
INTERRUPTED = 130


class Commands(TyperGroup):
    """The group of all commands: what they raise ends here."""

    @override
    def invoke(self, ctx: Any) -> Any:
        """Run a command; translate what it raises."""
        try:
            return super().invoke(ctx)
        except RouterError as error:
            _tell(ctx, error, str(error))
            code = MISTAKEN if isinstance(error, ConfigError) else FAILED
            raise typer.Exit(code) from error
        except KeyboardInterrupt as error:
            say("interrupted")
            raise typer.Exit(INTERRUPTED) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read our output has enough
                raise
            _tell(ctx, error, _described(error))
            raise typer.Exit(FAILED) from error


def _tell(ctx: Any, error: Exception, text: str) -> None:
    if ctx.params.get("debug"):
        traceback.print_exception(error)
    for line in text.splitlines():  # a settings file may have several mistakes
        say(f"error: {line}")


def _described(error: OSError) -> str:
    where = f"'{error.filename}': " if error.filename else ""
    return f"{where}{error.strerror or error}"
