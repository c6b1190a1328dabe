"""What a failed call means: is the same candidate worth another try, or another one, or nobody?

Exceptions are recognised by the names of their classes, by their status and by what caused them:
which HTTP library lies below (httpx, aiohttp) is LiteLLM's own choice, and a cause often says what
the class on top does not. LiteLLM calls a missing key, an unreadable answer and a refused
connection alike `InternalServerError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from optllm_router.completion.base import Failure
from optllm_router.errors import ConfigError

_NEVER_SENT = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "ConnectionRefusedError",
        "ClientConnectorError",
        "ConnectionTimeoutError",
        "gaierror",
    }
)
_DIED_UNDERWAY = frozenset(
    {
        "TransportError",
        "ClientError",
        "ConnectionError",
        "TimeoutError",
        "CancelledError",
        "GeneratorExit",
        "KeyboardInterrupt",
    }
)
_UNREADABLE = frozenset({"JSONDecodeError", "APIResponseValidationError"})
_TIMEOUT = "APITimeoutError"
_LOST = frozenset({_TIMEOUT, "APIConnectionError", "MidStreamFallbackError"})
_UNSUITED = frozenset({"ContentPolicyViolationError", "UnsupportedParamsError"})
_NOBODY = frozenset(  # guardrails and budgets of LiteLLM's own, and images that it cannot fetch
    {
        "BudgetExceededError",
        "RejectedRequestError",
        "ImageFetchError",
        "GuardrailRaisedException",
        "BlockedPiiEntityError",
        "ModifyResponseException",
        "SensitiveDataRouteException",
    }
)
_NO_KEY = re.compile(r"(?i)missing (?:\w+ )?(?:api[ _]key|credentials)|api_key client option must")
_CALLERS = frozenset({400, 422})
_IN_A_MOMENT = frozenset({408, 409, 425, 429})
_BY_ITSELF = 500


def judge(error: BaseException) -> Failure:
    """Say what a failed call means for the next attempt; see `base.Failure`."""
    names = class_names(error)
    if not isinstance(error, Exception) or names & _NOBODY:
        return Failure(remedy="none")
    if isinstance(error, ConfigError) or _lacks_key(error):
        return Failure(remedy="another", is_ill=True)
    if "ContextWindowExceededError" in names or _status(error) == 413:
        return Failure(remedy="another", needs_room=True)
    if names & _UNSUITED:
        return Failure(remedy="another")
    return _by_status(error, _retry_after_s(error))


def maybe_billed(error: BaseException) -> bool:
    """Return whether a failed call may have cost money.

    True for time-outs, cancellations, connections that died after the request was sent, and answers
    that could not be read; False for refused connections, missing keys and every answer with an
    error status.
    """
    surface = class_names(error)
    for link in _chain(error):  # the first low-level cause decides: below it may lie another call
        names = class_names(link)
        if names & _UNREADABLE:
            return True
        if names & _NEVER_SENT:
            return _was_sent_after_all(link)
        if "HTTPStatusError" in names:
            return _TIMEOUT in surface  # a gateway gave up waiting; the model may have answered
        if names & _DIED_UNDERWAY:
            return True
    if _lacks_key(error):
        return False
    return bool(surface & _LOST) or _is_unreadable(error)


def class_names(error: BaseException) -> frozenset[str]:
    """Return the names of an exception's class and of all its bases."""
    return frozenset(cls.__name__ for cls in type(error).__mro__)


def _by_status(error: Exception, retry_after_s: float | None) -> Failure:
    """Judge by the status; without a provider's status, by whether the network failed."""
    status = _status(error)
    if not _has_answered(error) and not _is_network(error):
        return _judged_locally(error)
    if status in _CALLERS:
        return Failure(remedy="none")
    if status in _IN_A_MOMENT or status is None or status >= _BY_ITSELF:
        if any(getattr(link, "code", None) == "insufficient_quota" for link in _chain(error)):
            return Failure(remedy="another", is_ill=True, retry_after_s=retry_after_s)
        return Failure(remedy="retry", is_ill=True, retry_after_s=retry_after_s)
    return Failure(remedy="another", is_ill=True, retry_after_s=retry_after_s)


def _judged_locally(error: Exception) -> Failure:
    """Judge what no provider and no network said: LiteLLM's own refusal, mock, or bug."""
    status = _status(error)
    is_made_up = status is not None and "APIConnectionError" in class_names(error)
    if status is None or is_made_up or status in _CALLERS:
        return Failure(remedy="another")  # perhaps the caller's fault: it breaks nobody's circuit
    is_passing = status in _IN_A_MOMENT or status >= _BY_ITSELF
    return Failure(remedy="retry" if is_passing else "another", is_ill=True)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what caused it, outermost first."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _status(error: BaseException) -> int | None:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def _has_answered(error: BaseException) -> bool:
    """Whether a provider answered with an error status."""
    return any("HTTPStatusError" in class_names(link) for link in _chain(error))


def _is_network(error: BaseException) -> bool:
    """Whether the connection failed, or what came over it could not be read."""
    wanted = _NEVER_SENT | _DIED_UNDERWAY | _UNREADABLE | {_TIMEOUT}
    return any(class_names(link) & wanted for link in _chain(error))


def _is_unreadable(error: BaseException) -> bool:
    """Whether LiteLLM made nothing of an answer that had no error status."""
    is_caused = error.__cause__ is not None or error.__context__ is not None
    return is_caused and "InternalServerError" in class_names(error)


def _lacks_key(error: BaseException) -> bool:
    """Whether LiteLLM found no key to call with."""
    return not _has_answered(error) and _NO_KEY.search(str(error)) is not None


def _was_sent_after_all(link: BaseException) -> bool:
    """Whether a `ConnectError` stands for a connection that was there: LiteLLM's over aiohttp."""
    cause = link.__cause__ or link.__context__
    names = frozenset() if cause is None else class_names(cause)
    return "ClientOSError" in names and not names & _NEVER_SENT


def _retry_after_s(error: BaseException) -> float | None:
    """Return how long the provider asks to wait, in seconds; None where it does not say."""
    for link in _chain(error):
        headers = getattr(link, "litellm_response_headers", None)
        if headers is None:
            headers = getattr(getattr(link, "response", None), "headers", None)
        for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
            wait_s = None if headers is None else _seconds(headers.get(name), unit_s)
            if wait_s is not None:
                return wait_s
    return None


def _seconds(value: object, unit_s: float) -> float | None:
    """Read a number of units, or an HTTP date, as seconds from now; None where it is neither."""
    text = str(value)
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text) * unit_s
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max((date - datetime.now(tz=UTC)).total_seconds(), 0.0)
