"""What the money tests know of their calls apart from both books: budgets, and callers' notes."""

from __future__ import annotations

from dataclasses import dataclass

BUDGETS = (
    {"name": "month", "usd": 10_000, "per": "month"},
    {"name": "team-a", "usd": 1_000, "per": "day", "match": {"tag": "team-a"}, "warn_at": 1e-6},
    {"name": "chats", "usd": 10, "per": "session", "match": {"tag": "chat"}},
    {"name": "thought", "usd": 1_000, "per": "day", "rolling": True}
    | {"match": {"candidate": "thinking"}},
    {"name": "tight", "usd": 0.02, "per": "total", "match": {"tag": "tight"}, "at_cap": "refuse"},
    {"name": "each", "usd": 1.0, "per": "call"},
)


@dataclass(frozen=True, slots=True)
class Made:
    """One call that was made: what its caller did or got. `is_left` says that it did not wait."""

    key: str
    kind: str
    end: str
    is_left: bool
