"""What an attempt goes out with: its arguments, and how long it may take.

All attempts of a call share one total (`[calls] timeout`), each has a limit of its own: what the
caller passed as `timeout`, else what the candidate's `arguments` say, else `attempt_timeout`. A
caller who allows one attempt more than the total has the longer of both. The limit is sent along
where it is shorter than what LiteLLM waits by itself. The total begins with the call; for items of
a batch, which wait for each other's money and slots, with the first attempt that is sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from optllm_router.config import CallSettings
from optllm_router.core.cost import RETRIES, output_limit
from optllm_router.dispatch.breaker import Clock
from optllm_router.dispatch.offers import Offer
from optllm_router.dispatch.requests import Request
from optllm_router.dispatch.watch import Watch
from optllm_router.records import Candidate, Kind

LITELLM_WAITS_S = 600.0


class Outgoing:
    """Prepares the attempts of one call, and knows how much of its time is left.

    Args:
        request: what the caller passed.
        kind: of the decision; pins and shadowed calls go out as they came, without any time limit
            or further attempt of ours.
        is_bound: whether a hard budget binds a call of a candidate.
        calls: the configured limits.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        request: Request,
        kind: Kind,
        *,
        is_bound: Callable[[Candidate], bool],
        calls: CallSettings,
        clock: Clock,
    ) -> None:
        self.is_as_given = kind in {"pin", "shadow"}
        self._request = request
        self._is_bound = is_bound
        self._calls = calls
        self._clock = clock
        self._deadline: float | None = None

    def start(self) -> None:
        """Begin the total time, unless it runs already."""
        if self._deadline is None and not self.is_as_given:
            own_s = _seconds(self._request.arguments.get("timeout"))
            self._deadline = self._clock() + max(self._calls.timeout_s, own_s or 0.0)

    @property
    def left_s(self) -> float:
        """How much of the total time is left; infinite before it begins."""
        return math.inf if self._deadline is None else self._deadline - self._clock()

    def has_time(self, wait_s: float) -> bool:
        """Whether there is time to wait so long."""
        return wait_s < self.left_s

    def may_retry(self, offer: Offer) -> bool:
        """Whether we retry: where neither caller nor candidate has LiteLLM do it, or not do it."""
        return not self._retries_are_set(offer.candidate)

    def was_in_a_hurry(self, offer: Offer, elapsed_s: float) -> bool:
        """Whether an attempt ended at a limit of the caller's own that is shorter than ours."""
        own_s = _seconds(self._request.arguments.get("timeout"))
        return own_s is not None and own_s <= elapsed_s and own_s < self._usual_s(offer)

    def prepare(self, offer: Offer) -> tuple[Watch | None, Mapping[str, Any]]:
        """Return the watch and the arguments of an attempt that is sent now."""
        self.start()
        arguments = self._arguments(offer.candidate)
        if self.is_as_given:
            return None, arguments
        asked = self._request.arguments.get("timeout", offer.candidate.arguments.get("timeout"))
        each_s = _seconds(asked) or (self._calls.each_timeout_s if asked is None else math.inf)
        limit_s = max(min(each_s, self.left_s), 0.001)
        if limit_s < (LITELLM_WAITS_S if asked is None else _seconds(asked) or 0.0):
            arguments["timeout"] = limit_s
        return Watch(each_s=limit_s, left_s=limit_s), arguments

    def _usual_s(self, offer: Offer) -> float:
        return _seconds(offer.candidate.arguments.get("timeout")) or self._calls.each_timeout_s

    def _arguments(self, candidate: Candidate) -> dict[str, Any]:
        """The caller's arguments, with what makes worst cases true where they are needed.

        That is an output limit, and no retries below ours; where no budget binds, a pin goes out as
        it came, and reasoning at some effort has no limit, since nobody knows how much of it that
        takes.
        """
        request, is_bound = self._request, self._is_bound(candidate)
        arguments = dict(request.arguments)
        if (is_bound or not self.is_as_given) and not self._retries_are_set(candidate):
            arguments |= dict.fromkeys(RETRIES, 0)  # they are not seen here, but billed
        is_free = self.is_as_given or "reasoning_effort" in arguments
        as_given = is_free and not is_bound
        if request.query.max_output_tokens is None and not as_given and candidate.price is not None:
            arguments["max_tokens"] = output_limit(candidate, request.query)
        return arguments

    def _retries_are_set(self, candidate: Candidate) -> bool:
        return bool(RETRIES & (self._request.arguments.keys() | candidate.arguments.keys()))


def _seconds(timeout: object) -> float | None:
    """A time limit in seconds; None for anything but a positive number."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        return None
    return float(timeout)
