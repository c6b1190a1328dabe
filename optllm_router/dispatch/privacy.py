"""How much of a prompt the log keeps, and the key under which it is hashed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optllm_router.core.embedding import Dense
from optllm_router.core.features import SparseText, hash_text, pack, salt_of, text_key
from optllm_router.records import Candidate, Prompts

_SECRETS = re.compile(
    r"(?i)(bearer\s+|api[-_ ]?key[\"'=:\s]+|authorization[\"'=:\s]+)[^\s\"',;}]{6,}"
    r"|\b(?:sk|pk|rk|gsk|xai|key|hf|ghp|AKIA|AIza)[-_]?[A-Za-z0-9*_-]{10,}"
)
MAX_ERROR_TEXT = 500
MIN_QUOTED = 12  # a shorter prompt is a word that error texts may have by themselves


@dataclass(frozen=True, slots=True)
class Kept:
    """What the log keeps of one text; None where the privacy level keeps nothing."""

    text_key: str | None
    features: bytes | None
    prompt: str | None


@dataclass(frozen=True, slots=True)
class Privacy:
    """The privacy level and the key (`OPTLLM_FEATURE_KEY`) of a log."""

    level: Prompts
    key: bytes = b""

    @property
    def keeps_features(self) -> bool:
        """Whether the log keeps hashed features, and embeddings where there are any."""
        return self.level in {"features", "full"}

    def sparse(self, text: str, embedding: Dense | None = None) -> SparseText:
        """Hash a text under the log's key; the embedding is put beside it."""
        hashed = hash_text(text, salt=salt_of(self.key))
        return hashed if embedding is None else replace(hashed, dense=embedding)

    def keep(self, text: str, features: SparseText | None, embedding: Dense | None = None) -> Kept:
        """Return what is kept of a text; `features` saves hashing it again."""
        if self.level == "none":
            return Kept(None, None, None)
        hashed = None
        if self.keeps_features:
            hashed = pack(features if features is not None else self.sparse(text, embedding))
        return Kept(text_key(text, key=self.key), hashed, text if self.level == "full" else None)


def key_values(candidate: Candidate, arguments: Mapping[str, Any]) -> list[str]:
    """Return the keys that a call may have been made with."""
    variable = candidate.api_key_env
    keys = [
        os.environ.get(variable) if variable else None,
        candidate.arguments.get("api_key"),
        arguments.get("api_key"),
    ]
    return [key for key in keys if isinstance(key, str) and key]


def scrub(text: str, *, prompt: str = "", keys: Sequence[str] = ()) -> str:
    """Remove credentials, and a prompt that is quoted, from an error text; cut it to length."""
    for key in keys:
        text = text.replace(key, "[removed]")
    if len(prompt) >= MIN_QUOTED:
        text = text.replace(prompt, "[prompt]")
    return _SECRETS.sub("[removed]", text)[:MAX_ERROR_TEXT]
