"""The command line, `optllm`: a thin face of the Router and of its log.

`entry` names the commands, `failures` turns errors into lines and exit codes; the rest are the
commands, a room per purpose, over `options`, `opening` and `output`. Whatever is heavy is imported
by the command that needs it: `optllm --help` loads neither LiteLLM, scikit-learn nor SQLAlchemy.
"""

from optllm_router.cli.entry import app, main

__all__ = ["app", "main"]
