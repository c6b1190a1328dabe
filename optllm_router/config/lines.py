"""Where in a TOML text each key stands: the standard parser does not say, and users need to know.

The text is known to be valid (`tomllib` read it), so this scanner only has to find keys, not to
judge them. Paths are those of the parsed document: ("candidates", 0, "model").
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TEXT = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'  # up to two quotes may precede the closing three
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}\n#]+")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, on which each key, table and array entry of a valid TOML stands."""
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[KeyPath, int] = {}
        self._sizes: dict[KeyPath, int] = {}  # entries so far of each array of tables

    def scan(self) -> dict[KeyPath, int]:
        """Walk through headers and key/value pairs."""
        table: KeyPath = ()
        self._skip()
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip()
        return self._lines

    def _skip(self) -> None:
        blank = _BLANK.match(self._text, self._at)
        self._at = blank.end() if blank else self._at

    def _take(self, token: str) -> bool:
        found = self._text.startswith(token, self._at)
        self._at += len(token) * found
        return found

    def _read(self, *patterns: re.Pattern[str]) -> str:
        for pattern in patterns:
            if match := pattern.match(self._text, self._at):
                self._at = match.end()
                return match[0]
        raise ValueError("not a valid TOML text: parse it with tomllib first")

    def _line(self) -> int:
        return bisect_right(self._breaks, self._at - 1) + 1

    def _mark(self, path: KeyPath, line: int) -> None:
        for end in range(1, len(path) + 1):
            self._lines.setdefault(path[:end], line)

    def _header(self) -> KeyPath:
        line = self._line()
        is_entry = self._take("[[")
        self._take("[")
        parts = self._key()
        path = self._resolve(parts[:-1]) + parts[-1:]
        if is_entry:
            self._sizes[path] = self._sizes.get(path, 0) + 1
        path = self._resolve(parts)
        self._mark(path, line)
        self._take("]]" if is_entry else "]")
        return path

    def _resolve(self, parts: tuple[str, ...]) -> KeyPath:
        """Add to each array of tables on the way the index of its newest entry."""
        path: KeyPath = ()
        for part in parts:
            path = (*path, part)
            if path in self._sizes:
                path = (*path, self._sizes[path] - 1)
        return path

    def _key(self) -> tuple[str, ...]:
        parts = [self._key_part()]
        while self._take("."):
            parts.append(self._key_part())
        return tuple(parts)

    def _key_part(self) -> str:
        self._skip()
        part = self._read(_BARE_KEY, _TEXT)
        self._skip()
        return next(iter(tomllib.loads(f"{part} = 0")))  # decodes quoted keys

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        path = table + self._key()
        self._mark(path, line)
        self._take("=")
        self._skip()
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        if self._take("["):
            self._array(path)
        elif self._take("{"):
            self._inline_table(path)
        else:
            self._read(_TEXT, _SCALAR)

    def _array(self, path: KeyPath) -> None:
        index = 0
        self._skip()
        while not self._take("]"):
            self._mark((*path, index), self._line())
            self._value((*path, index))
            index += 1
            self._skip()
            self._take(",")
            self._skip()

    def _inline_table(self, path: KeyPath) -> None:
        self._skip()
        while not self._take("}"):
            self._pair(path)
            self._skip()
            self._take(",")
            self._skip()
