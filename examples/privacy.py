"""Privacy: what the log keeps of a prompt at each level, and how to erase.

`none` keeps nothing, `hash` a keyed hash of the text, `features` (the default) hashed features too,
which is what the router learns from, `full` the text itself. Hashes are pseudonymous, not
anonymous; set OPTLLM_FEATURE_KEY, so that nobody without it can test a guess.

The LLMs here are SIMULATED, on this machine: no key, no network, no money. For real ones change
the two lines that are marked.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from optllm_router import Router
from optllm_router.testing.openai_server import FakeOpenAIServer

TEXT = "My account number is 4929-1142."
os.environ["OPTLLM_FEATURE_KEY"] = "keep this where you keep your other secrets"


def ask(level: str, path: Path, url: str) -> None:
    """Ask once, with a log of its own at a privacy level."""
    prices = {"input_usd_per_1m": 1, "output_usd_per_1m": 2}
    there = {"api_base": url, "arguments": {"api_key": "simulated"}}
    with Router(
        candidates=[
            {"model": "openai/simulated", **prices, **there}
        ],  # real: ["openai/gpt-4o-mini", "openai/gpt-4o"]
        default="openai/simulated",  # real: "openai/gpt-4o"
        store=f"sqlite:///{path}",
        prompts=level,
    ) as router:
        router.complete(messages=[{"role": "user", "content": TEXT}], session_id="customer-7")
        (decision,) = router.history.decisions()
        print(f"{level:8} prompt in the log: {decision.prompt!r}, cost ${decision.cost_usd:.6f}")


def found(path: Path) -> bool:
    """Whether the text stands anywhere in the database's files."""
    return any(TEXT.encode() in file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


with tempfile.TemporaryDirectory() as folder, FakeOpenAIServer() as server:
    for level in ("none", "hash", "features", "full"):
        ask(level, Path(folder, f"{level}.db"), server.url)
        print(f"{'':8} text in the database's files: {found(Path(folder, f'{level}.db'))}")

    full = Path(folder, "full.db")
    optllm = [sys.executable, "-m", "optllm_router.cli"]
    command = ["forget", "--session", "customer-7", "--yes", "--store", f"sqlite:///{full}"]
    print("\n$ optllm", *command)
    subprocess.run([*optllm, *command], check=True)  # noqa: S603  # our own command
    print(f"text in the database's files: {found(full)}")
