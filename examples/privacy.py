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

SECRET = "My account number is 4929-1142."
os.environ["OPTLLM_FEATURE_KEY"] = "keep-this-in-your-secret-store"


def ask(level: str, path: Path, url: str) -> str:
    simulated = {"model": "openai/simulated", "api_base": url, "arguments": {"api_key": "none"}}
    simulated |= {"input_usd_per_1m": 1, "output_usd_per_1m": 2}
    with Router(
        candidates=[simulated],  # real: ["openai/gpt-4o-mini", "openai/gpt-4o"]
        default="openai/simulated",  # real: "openai/gpt-4o"
        store=f"sqlite:///{path}",
        prompts=level,
    ) as router:
        message = {"role": "user", "content": SECRET}
        router.complete(messages=[message], session_id="customer-7")
        (decision,) = router.history.decisions()
        (attempt,) = decision.attempts
        return f"prompt {decision.prompt!r}, {attempt.prompt_tokens} tokens, {decision.cost_usd} USD"


with tempfile.TemporaryDirectory() as folder, FakeOpenAIServer() as server:
    for level in ("none", "hash", "features", "full"):
        path = Path(folder, f"{level}.db")
        logged = ask(level, path, server.url)
        print(f"{level:8} {logged}; the text is in the file: {SECRET.encode() in path.read_bytes()}")

    forget = [sys.executable, "-m", "optllm_router.cli", "forget", "--session", "customer-7"]
    store = ["--store", f"sqlite:///{path}", "--yes"]
    print("\n$ optllm", *forget[3:], *store)
    subprocess.run([*forget, *store], check=True)
    print(f"the text is in the file: {SECRET.encode() in path.read_bytes()}")
