"""What a call brings along of its own: an endpoint, a key, headers, in place of its candidate's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from optllm_router.dispatch.requests import CREDENTIALS, Request
from optllm_router.records import Candidate


def as_brought(candidate: Candidate, request: Request) -> Candidate:
    """Return the candidate of a pin as the call wants it; headers alone join its own."""
    brought = [credential for credential in CREDENTIALS if credential in request.arguments]
    if not brought:
        return candidate
    if brought == ["extra_headers"]:
        return replace(candidate, arguments=_with_headers(candidate, request))
    kept = {k: v for k, v in candidate.arguments.items() if k not in CREDENTIALS}
    return replace(candidate, arguments=kept, api_key_env=None)


def _with_headers(candidate: Candidate, request: Request) -> Mapping[str, object]:
    """A candidate's arguments, its headers joined by the caller's, which win."""
    theirs, own = request.arguments["extra_headers"], candidate.arguments.get("extra_headers")
    if not isinstance(theirs, Mapping) or not isinstance(own, Mapping):
        return candidate.arguments
    return {**candidate.arguments, "extra_headers": {**own, **theirs}}
