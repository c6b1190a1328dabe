"""Where settings come from: arguments, environment, file; and how to name them to users."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

from optllm_router.config.lines import KeyPath
from optllm_router.errors import ConfigError

ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "OPTLLM_STORE": "store",
        "OPTLLM_DEFAULT": "default",
        "OPTLLM_MODE": "mode",
        "OPTLLM_PROMPTS": "prompts",
        "OPTLLM_DURABILITY": "durability",
        "OPTLLM_ROUTE_MODELS": "route_models",  # separated by commas
        "OPTLLM_FEATURE_KEY": "feature_key",
    }
)
"""The environment variables that are read, each with the setting it stands for."""

_MERGED = (
    "retrain",
    "calls",
    "predictor",
    "graders",
)  # tables whose keys an argument sets one by one


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings come from, and so what to tell the user about a wrong one."""

    file: str | None
    document: Mapping[str, Any]
    lines: Mapping[KeyPath, int]
    environment: Mapping[str, Any] = field(repr=False)
    arguments: Mapping[str, Any] = field(repr=False)

    def merged(self) -> dict[str, Any]:
        """Return all settings, the strongest source of each."""
        merged = {**self.document, **self.environment, **self.arguments}
        for key in _MERGED:
            below, above = _table(self.document.get(key)), _table(self.arguments.get(key))
            if isinstance(below, Mapping) and isinstance(above, Mapping):
                merged[key] = {**below, **above}
        if isinstance(merged.get("candidates"), str):
            merged["candidates"] = [merged["candidates"]]
        return merged

    def where(self, path: KeyPath) -> str:
        """Name the source of a setting."""
        key = str(path[0])
        if self._is_argument(path):
            return f"argument `{key}`"
        if key in self.environment:
            names = {setting: name for name, setting in ENVIRONMENT.items()}
            return f"environment variable {names[key]}"
        line = self.line(path)
        return f"{self.file}:{line}" if line else str(self.file)

    def line(self, path: KeyPath) -> int:
        """Return the line of the key, else of the nearest table around it, else 0."""
        ends = range(len(path), 0, -1)
        return next((self.lines[path[:end]] for end in ends if path[:end] in self.lines), 0)

    def _is_argument(self, path: KeyPath) -> bool:
        key = str(path[0])
        if self.file is None and key not in self.environment:
            return True
        given = _table(self.arguments.get(key))
        if key in _MERGED and isinstance(given, Mapping) and len(path) > 1:
            return path[1] in given
        return given is not None


def _table(value: object) -> object:
    """A table, also where a text, its `kind`, stands for it; anything else as it is."""
    return {"kind": value} if isinstance(value, str) else value


def read_environment() -> dict[str, Any]:
    """Read the variables of `ENVIRONMENT`; an empty one is unset."""
    found: dict[str, Any] = {}
    for variable, setting in ENVIRONMENT.items():
        if value := os.environ.get(variable, ""):
            parts = [part.strip() for part in value.split(",") if part.strip()]
            found[setting] = parts if setting == "route_models" else value
    return found


def read_text(path: Path) -> str:
    """Read a config file as UTF-8. Raises: ConfigError."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"there is no config file '{path}': `optllm init` writes one, or give the path of yours"
        ) from None
    except OSError as error:
        raise ConfigError(f"the config file '{path}' cannot be read: {error.strerror}") from error
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text: save the file as UTF-8") from None


def parse_toml(text: str, file: str) -> dict[str, Any]:
    """Parse a config file's text; token prices are exact decimals. Raises: ConfigError."""
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
        line = at[1] if at else text.count("\n") + 1
        reason = str(error)[: at.start()] if at else str(error)
        raise ConfigError(f"{file}:{line}: not valid TOML: {reason}") from None
    return {key: _plain(value, key) for key, value in document.items()}


def _plain(value: Any, key: str) -> Any:
    """Turn decimals into floats, but for token prices, which stay exact."""
    if isinstance(value, dict):
        return {inner: _plain(entry, inner) for inner, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry, key) for entry in value]
    if isinstance(value, Decimal) and not key.endswith("_usd_per_1m"):
        return float(value)
    return value
