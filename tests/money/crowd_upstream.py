"""An OpenAI-compatible upstream in a process of its own, which keeps its own bill.

It knows nothing of the package: it charges whole nano-USD for every request as it arrives, whether
anybody is left to take the answer or not, and counts who asked what. Many runs share one server,
each under an account of its own.

    with Upstream() as upstream:
        account = upstream.open(Rules(completion_tokens=20, output_nusd=100_000))
        litellm.completion("openai/any", api_base=upstream.url(account), ...)
        upstream.bill(account).nusd
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import subprocess
import sys
import urllib.request
import uuid
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an account is charged, and how long its answers take.

    Prices are nano-USD per token. A request's own `max_tokens` bounds what it is answered with.
    """

    prompt_tokens: int = 10
    completion_tokens: int = 10
    input_nusd: int = 0
    output_nusd: int = 0
    delay_s: tuple[float, float] = (0.02, 0.03)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What an account came to: requests, nano-USD, the most at once, and who asked what how often.

    `asked` counts by the source that stands in the address, and the text of the last message.
    """

    n_calls: int
    nusd: int
    most_at_once: int
    asked: Counter[tuple[str, str]]


class Upstream:
    """The server's process, seen from the process that starts it; a `with` block is its life."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._root = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # the end of its input is its end

    def open(self, rules: Rules) -> str:
        """Open an account; return its name."""
        account = uuid.uuid4().hex[:12]
        self._json(f"/{account}/rules", asdict(rules))
        return account

    def url(self, account: str, source: str = "anybody") -> str:
        """The base address that clients are given."""
        return f"{self._root}/{account}/{source}/v1"

    def bill(self, account: str) -> Bill:
        """Return what an account has come to so far."""
        values = self._json(f"/{account}/bill")
        asked = Counter({(source, text): n for source, text, n in values.pop("asked")})
        return Bill(asked=asked, **values)

    def _json(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(self._root + path, data, timeout=60) as answer:
            return json.load(answer)


class _Account:
    """One run's rules and counts."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.asked: Counter[tuple[str, str]] = Counter()
        self.nusd = 0
        self.n_open = 0
        self.most_at_once = 0

    async def answer(self, source: str, request: dict[str, Any]) -> dict[str, Any]:
        """Charge for a request, then answer it after a while."""
        text = request["messages"][-1]["content"]
        usage = self._charged(source, text, request["max_tokens"])
        self.n_open += 1
        self.most_at_once = max(self.most_at_once, self.n_open)
        try:
            await asyncio.sleep(random.uniform(*self.rules.delay_s))
        finally:
            self.n_open -= 1
        message = {"role": "assistant", "content": f"re: {text}"}
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
        }

    def _charged(self, source: str, text: str, max_tokens: int) -> dict[str, int]:
        rules = self.rules
        n_out = min(rules.completion_tokens, max_tokens)
        self.asked[source, text] += 1
        self.nusd += rules.prompt_tokens * rules.input_nusd + n_out * rules.output_nusd
        return {
            "prompt_tokens": rules.prompt_tokens,
            "completion_tokens": n_out,
            "total_tokens": rules.prompt_tokens + n_out,
        }

    def bill(self) -> dict[str, Any]:
        """The account as JSON values."""
        return {
            "n_calls": self.asked.total(),
            "nusd": self.nusd,
            "most_at_once": self.most_at_once,
            "asked": [[source, text, n] for (source, text), n in self.asked.items()],
        }


async def serve() -> None:
    """Serve on a free loopback port, which is printed, until the input ends."""
    from aiohttp import web

    logging.disable()  # who is killed half-way through a request has asked nothing
    accounts: dict[str, _Account] = {}

    async def rules(request: web.Request) -> web.Response:
        values = await request.json()
        accounts[request.match_info["account"]] = _Account(Rules(**values))
        return web.json_response({})

    async def bill(request: web.Request) -> web.Response:
        return web.json_response(accounts[request.match_info["account"]].bill())

    async def complete(request: web.Request) -> web.Response:
        where, body = request.match_info, await request.json()
        return web.json_response(await accounts[where["account"]].answer(where["source"], body))

    app = web.Application()
    app.router.add_post("/{account}/rules", rules)
    app.router.add_get("/{account}/bill", bill)
    app.router.add_post("/{account}/{source}/v1/chat/completions", complete)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
