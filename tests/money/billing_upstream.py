"""A provider on loopback, in a process of its own, that misbehaves and keeps its own bill.

Run: python tests/money/billing_upstream.py BILL.jsonl SEED. It prints its port, serves
`/v1/chat/completions` until its standard input closes, and answers `/finish` once nothing is under
way. An answer that is not streamed is made, and billed, as a whole before it is sent; a stream is
made piece by piece, and billed as far as it was when its reader left.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from own_bill import Billed, OwnBill, Tokens, price_nusd
from upstream_answers import Planned, count, key_of, pieces, plan, usage

SLOW_S = 6.0
PACE_S = 0.02  # per three words: faster than real ones
STATUS = {"429": 429, "429 with Retry-After": 429, "500": 500, "503": 503}
NOTHING = Tokens()


class Meeting:
    """One request while it is answered: what was made of the answer, and what was told."""

    def __init__(self, number: int, body: dict[str, Any], planned: Planned) -> None:
        self.taken_at = datetime.now(UTC).isoformat()
        self.id = f"chatcmpl-{number:06d}"
        self.number = number
        self.body = body
        self.planned = planned
        self.went = planned.mishap or "well"
        self.told = False
        self.is_billed = True
        self.made: list[str] = []  # of a stream

    def tokens(self) -> Tokens:
        """What the request has used by now."""
        planned = self.planned
        if not self.is_billed:
            return NOTHING
        if self.told or not self.body.get("stream"):
            return planned.tokens
        made = count("".join(self.made)) + (planned.hidden if self.made else 0)
        used = {**vars(planned.tokens), "completion": made, "reasoning": 0}
        return Tokens(**used)

    def billed(self) -> Billed:
        """The request's line on the bill."""
        tokens = self.tokens()
        return Billed(
            number=self.number,
            key=key_of(self.body),
            id=self.id,
            model=self.body["model"],
            taken_at=self.taken_at,
            streamed=bool(self.body.get("stream")),
            went=self.went,
            told=self.told,
            tokens=tokens,
            nusd=price_nusd(self.body["model"], tokens),
        )

    def head(self, kind: str) -> dict[str, Any]:
        """What every piece of an answer begins with."""
        return {"id": self.id, "object": kind, "created": 1, "model": self.body["model"]}


class Upstream:
    """The provider: takes requests, answers them, bills them."""

    def __init__(self, bill: OwnBill, seed: int) -> None:
        self._bill = bill
        self._seed = seed
        self._n_taken = 0
        self._n_under_way = 0
        self._asked: Counter[str] = Counter()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, one way or another, and write it down."""
        body = await request.json()
        asked = f"{body['model']} {body['messages'][-1]['content']}"
        planned = plan(self._seed, body, self._asked[asked])
        self._asked[asked] += 1
        self._n_taken += 1
        self._n_under_way += 1
        meeting = Meeting(self._n_taken, body, planned)
        try:
            return await _answered(request, meeting)
        except (ConnectionError, asyncio.CancelledError):
            meeting.went += ", its reader left"
            raise
        finally:
            self._bill.write(meeting.billed())
            self._n_under_way -= 1

    async def finish(self, _request: web.Request) -> web.Response:
        """Wait until nothing is under way; say how many requests were taken."""
        while self._n_under_way:
            await asyncio.sleep(0.02)
        self._bill.flush()
        return web.json_response({"n_taken": self._n_taken})


async def _answered(request: web.Request, meeting: Meeting) -> web.StreamResponse:
    mishap = meeting.planned.mishap
    if mishap in STATUS:
        meeting.is_billed = False
        wait = {"Retry-After": "0.2"} if "Retry-After" in mishap else {}
        error = {"message": f"mishap {mishap}", "type": "mishap", "param": None, "code": None}
        return web.json_response({"error": error}, status=STATUS[mishap], headers=wait)
    if mishap == "slow":
        await asyncio.sleep(SLOW_S)
    if mishap == "drop":
        _reset(request)
        raise ConnectionResetError("dropped")
    if meeting.body.get("stream"):
        return await _streamed(request, meeting)
    return await _whole(request, meeting)


async def _whole(request: web.Request, meeting: Meeting) -> web.StreamResponse:
    """Send an answer in one piece."""
    planned, mishap = meeting.planned, meeting.planned.mishap
    choices = [] if mishap == "empty" else [_choice(planned, i) for i in range(len(planned.texts))]
    answer = {**meeting.head("chat.completion"), "choices": choices}
    if mishap != "without usage":
        answer["usage"] = usage(planned.tokens)
    text = json.dumps(answer).encode()
    at = 1 + int(planned.share * (len(text) - 2))
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    if mishap == "reset":
        response.content_length = len(text)
    await response.prepare(request)
    await response.write(text[:at] if mishap in {"reset", "truncated", "garbage"} else text)
    if mishap == "reset":
        await asyncio.sleep(PACE_S)
        _reset(request)
        raise ConnectionResetError("reset")
    if mishap == "garbage":
        await response.write(b"\x00{garbage")
    await response.write_eof()
    meeting.told = mishap not in {"truncated", "garbage", "without usage"}
    return response


def _choice(planned: Planned, index: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": planned.texts[index]}
    if planned.reasoning and index == 0:
        message["reasoning_content"] = planned.reasoning
    return {"index": index, "message": message, "finish_reason": planned.finish}


async def _streamed(request: web.Request, meeting: Meeting) -> web.StreamResponse:
    """Send an answer piece by piece, as far as it gets."""
    planned, mishap = meeting.planned, meeting.planned.mishap
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    deltas = _deltas(planned)
    if mishap in {"reset", "truncated", "garbage"}:
        deltas = deltas[: int(planned.share * len(deltas))]
    if mishap == "empty":
        deltas = []
    for index, delta in deltas:
        meeting.made.append(delta.get("content") or delta.get("reasoning_content") or "")
        await _send(response, meeting, [{"index": index, "delta": delta, "finish_reason": None}])
        await asyncio.sleep(PACE_S)
    if mishap == "reset":
        _reset(request)
        raise ConnectionResetError("reset")
    if mishap == "garbage":
        await response.write(b"data: {garbage\n\n")
    elif mishap != "truncated":
        await _ended(response, meeting)
    await response.write_eof()
    return response


async def _ended(response: web.StreamResponse, meeting: Meeting) -> None:
    """Send what stands behind the last word: the finish, the usage, the end mark."""
    planned, mishap = meeting.planned, meeting.planned.mishap
    indices = range(0 if mishap == "empty" else len(planned.texts))
    await _send(
        response,
        meeting,
        [{"index": index, "delta": {}, "finish_reason": planned.finish} for index in indices],
    )
    asked = (meeting.body.get("stream_options") or {}).get("include_usage")
    if asked and mishap not in {"without usage", "empty"}:
        await _send(response, meeting, [], usage=usage(planned.tokens))
        meeting.told = True
    await response.write(b"data: [DONE]\n\n")


def _deltas(planned: Planned) -> list[tuple[int, dict[str, Any]]]:
    """The pieces of all choices, each behind its role."""
    found: list[tuple[int, dict[str, Any]]] = []
    for index, text in enumerate(planned.texts):
        found.append((index, {"role": "assistant", "content": ""}))
        if index == 0:
            found += [(0, {"reasoning_content": piece}) for piece in pieces(planned.reasoning)]
        found += [(index, {"content": piece}) for piece in pieces(text)]
    return found


async def _send(
    response: web.StreamResponse, meeting: Meeting, choices: list[dict[str, Any]], **more: Any
) -> None:
    chunk = {**meeting.head("chat.completion.chunk"), "choices": choices, **more}
    await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


def _reset(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _is_a_fault(record: logging.LogRecord) -> bool:
    """Whether a record speaks of more than a reader that left."""
    return record.exc_info is None or not isinstance(record.exc_info[1], ConnectionError)


async def serve(path: Path, seed: int) -> None:
    """Serve until standard input closes."""
    logging.getLogger("aiohttp.server").addFilter(_is_a_fault)
    bill = OwnBill(path)
    upstream = Upstream(bill, seed)
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/v1/chat/completions", upstream.chat)
    app.router.add_get("/finish", upstream.finish)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()
    bill.flush()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
