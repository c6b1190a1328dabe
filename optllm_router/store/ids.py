"""Ids that sort by time: UUID version 7 (RFC 9562, section 5.7), with whole nanoseconds.

Rows with such keys are appended to their index instead of scattered over it, and a list of ids
is a history.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

_NS_PER_MS = 1_000_000
_RANDOM_BITS = 54


def uuid7(now_ns: int, rand: int) -> str:
    """Return the UUID of a moment, as text that sorts like the moment.

    48 bits of milliseconds, then the 20 bits that count nanoseconds in the millisecond where the
    RFC allows a clock of higher precision, then 54 random bits.

    Args:
        now_ns: nanoseconds since 1970.
        rand: 54 random bits; higher ones are ignored.
    """
    milliseconds, nanoseconds = divmod(now_ns, _NS_PER_MS)
    value = (milliseconds & ((1 << 48) - 1)) << 80
    value |= 0x7 << 76 | (nanoseconds >> 8) << 64
    value |= 0b10 << 62 | (nanoseconds & 0xFF) << 54
    value |= rand & ((1 << _RANDOM_BITS) - 1)
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class IdSource:
    """Gives ids, each later than the one before, even when the clock stands or steps back.

    Without a lock on purpose: a lock held while the process forks would be held in the child for
    ever. Two threads at the same nanosecond get ids whose order is chance, never the same id.
    """

    def __init__(
        self,
        clock_ns: Callable[[], int] = time.time_ns,
        randbits: Callable[[int], int] = secrets.randbits,
    ) -> None:
        self._clock_ns = clock_ns
        self._randbits = randbits
        self._last_ns = 0

    def __call__(self) -> str:
        """Return a new id."""
        self._last_ns = now_ns = max(self._clock_ns(), self._last_ns + 1)
        return uuid7(now_ns, self._randbits(_RANDOM_BITS))


new_id = IdSource()
