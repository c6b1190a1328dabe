"""Reads parquet, CSV and JSONL files into columns of cells, and remembers where each row stands.

Only the form of the file is judged here (encoding, syntax, ragged rows, headers); what the cells
mean is the business of `check` and `requests`.
"""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from optllm_router.errors import ConfigError
from optllm_router.records import Bools, Floats, Ints

if TYPE_CHECKING:
    import pyarrow as pa

N_LISTED = 10  # so many row numbers stand in a message
_CSV_LIMIT = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Columns of a file: object arrays (text, None, JSON values) or float arrays, length n.

    `at` says where each row stands, counted from 1 in `unit`s: lines of a text file, rows of a
    parquet file. `names` are all columns of the file, read or not.
    """

    names: list[str]
    cells: Mapping[str, NDArray[Any]]
    at: Ints
    unit: Literal["line", "row"]

    @property
    def n_rows(self) -> int:
        """How many rows were read."""
        return int(self.at.shape[0])


def read_columns(path: Path, wanted: Collection[str]) -> Columns:
    """Read the wanted columns, as far as the file has them.

    Raises:
        ConfigError: the file is missing, of no known form, malformed, or has no rows.
    """
    refuse_folder(path, ".parquet, .csv or .jsonl")
    suffix = path.suffix.lower()
    if suffix in {".parquet", ".pq"}:
        columns = _read_parquet(path, wanted)
    elif suffix == ".csv":
        columns = _read_csv(path, wanted)
    elif suffix in {".jsonl", ".ndjson"}:
        columns = _read_jsonl(path, wanted)
    else:
        raise ConfigError(
            f"'{path}': files ending in {suffix!r} are not read: write .parquet, .csv or .jsonl"
        )
    if columns.n_rows == 0:
        raise ConfigError(f"'{path}' has no rows: it needs at least one below its header")
    return columns


def refuse_folder(path: Path, endings: str) -> None:
    """Refuse a folder, whatever it is called. Raises: ConfigError."""
    if path.is_dir():
        raise ConfigError(
            f"'{path}' is a folder, not a file: name a file in it that ends in {endings}"
        )


def read_text(path: Path) -> str:
    """Read a text file as UTF-8, with or without a byte order mark.

    Raises:
        ConfigError: the file is missing, unreadable, empty, or in another encoding.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"there is no file '{path}': check its path") from None
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {error.strerror}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"'{path}' line {line}: not UTF-8 text: save it as UTF-8") from None
    if not text.strip():
        raise ConfigError(f"'{path}' is empty: it needs a line per row")
    return text


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the number, from 1, and the value of each line that is not blank.

    Raises:
        ConfigError: some lines are not JSON; the first of them are listed.
    """
    values: list[tuple[int, Any]] = []
    wrong: list[int] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values.append((number, json.loads(line)))
        except (ValueError, RecursionError):
            wrong.append(number)
    if wrong:
        raise ConfigError(f"'{path}': not JSON, one value per line: {listed(wrong, 'line')}")
    yield from values


def listed(numbers: Sequence[int], unit: str) -> str:
    """Name the first rows of a list: "lines 2, 5, 9 and 12 more"."""
    first = ", ".join(str(number) for number in numbers[:N_LISTED])
    more = f" and {len(numbers) - N_LISTED} more" if len(numbers) > N_LISTED else ""
    return f"{unit}{'s' if len(numbers) > 1 else ''} {first}{more}"


def as_numbers(cells: NDArray[Any]) -> tuple[Floats, Bools, Bools]:
    """Return a column's values, which cells are empty, and which hold no number.

    NaN and infinity count as no number. Texts are read as decimal numbers, booleans as 0 and 1.
    """
    if cells.dtype != object:
        values = cells.astype(np.float64)
        return values, np.zeros(cells.shape, bool), ~np.isfinite(values)
    empty = np.fromiter((cell is None for cell in cells), bool, len(cells))
    filled = np.where(empty, 0.0, cells)
    try:
        values = filled.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.fromiter((_number(cell) for cell in filled), np.float64, len(filled))
    return np.where(empty, np.nan, values), empty, ~np.isfinite(values)


def as_texts(cells: NDArray[Any]) -> tuple[NDArray[np.object_], Bools]:
    """Return a column's texts (None where empty) and which cells hold something else.

    Whole numbers are read as texts, since identifiers are often numbers.
    """
    if set(map(type, cells)) <= {str, type(None)}:  # nearly always, and ten times as fast
        return cells.copy(), np.zeros(len(cells), bool)
    texts = np.empty(len(cells), dtype=object)
    texts[:] = [_text(cell) for cell in cells]
    wrong = np.fromiter(
        (text is None and cell is not None for text, cell in zip(texts, cells, strict=True)),
        bool,
        len(cells),
    )
    return texts, wrong


def _number(cell: object) -> float:
    try:
        return float(cell)  # type: ignore[arg-type]  # anything that is no number raises
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _text(cell: object) -> str | None:
    if isinstance(cell, str):
        return cell
    is_whole = isinstance(cell, int | np.integer) and not isinstance(cell, bool)
    return str(cell) if is_whole else None


def _objects(values: Sequence[object]) -> NDArray[np.object_]:
    cells = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):  # slice assignment would unpack nested lists
        cells[row] = value
    return cells


def _read_csv(path: Path, wanted: Collection[str]) -> Columns:
    header, rows, at = _csv_rows(path, read_text(path))
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise ConfigError(f"'{path}' line 1: column `{twice}` stands twice: rename one of them")
    ragged = [line for row, line in zip(rows, at, strict=True) if len(row) != len(header)]
    if ragged:
        raise ConfigError(
            f"'{path}': not {len(header)} cells as in the header: {listed(ragged, 'line')}: "
            "quote cells that contain commas or line breaks"
        )
    cells = {
        name: _objects([row[place] or None for row in rows])  # an empty cell is unknown
        for place, name in enumerate(header)
        if name in wanted
    }
    return Columns(names=header, cells=cells, at=np.array(at, np.int64), unit="line")


def _csv_rows(path: Path, text: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Split a CSV text into its header, its rows, and the line on which each row begins."""
    rows: list[list[str]] = []
    at: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    with _CSV_LIMIT:  # the limit on a cell's length is the process's, and prompts can be long
        before = csv.field_size_limit(2**31 - 1)
        try:
            begin = 1
            for row in reader:
                if row:
                    rows.append(row)
                    at.append(begin)
                begin = reader.line_num + 1
        except csv.Error as error:
            raise ConfigError(f"'{path}' line {reader.line_num}: not CSV: {error}") from None
        finally:
            csv.field_size_limit(before)
    return [name.strip() for name in rows[0]], rows[1:], at[1:]


def _read_jsonl(path: Path, wanted: Collection[str]) -> Columns:
    lines = list(read_json_lines(path))
    wrong = [number for number, value in lines if not isinstance(value, dict)]
    if wrong:
        raise ConfigError(f"'{path}': not a JSON object: {listed(wrong, 'line')}")
    names = list(dict.fromkeys(name for _, value in lines for name in value))
    cells = {
        name: _objects([value.get(name) for _, value in lines]) for name in names if name in wanted
    }
    at = np.array([number for number, _ in lines], np.int64)
    return Columns(names=names, cells=cells, at=at, unit="line")


def _read_parquet(path: Path, wanted: Collection[str]) -> Columns:
    try:
        import pyarrow.lib as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            f"'{path}': reading parquet needs pyarrow, which is not installed: "
            "pip install 'optllm-router[evaluate]', or save the table as CSV or JSONL"
        ) from error
    if not path.exists():
        raise ConfigError(f"there is no file '{path}': check its path")
    try:
        names = list(parquet.read_schema(path).names)
        table = parquet.read_table(path, columns=[name for name in names if name in wanted])
    except (arrow.ArrowException, OSError) as error:
        raise ConfigError(f"'{path}' cannot be read as parquet: {error}") from error
    cells = {name: _arrow_cells(table.column(name)) for name in table.column_names}
    at = np.arange(1, table.num_rows + 1, dtype=np.int64)
    return Columns(names=names, cells=cells, at=at, unit="row")


def _arrow_cells(column: pa.ChunkedArray) -> NDArray[Any]:
    """Turn an arrow column into cells; a number column without empty cells stays one."""
    import pyarrow.types as kinds

    kind = column.type
    if kinds.is_dictionary(kind):
        return _arrow_cells(column.cast(kind.value_type))
    if kinds.is_decimal(kind):
        return _arrow_cells(column.cast("float64"))
    is_number = kinds.is_floating(kind) or kinds.is_integer(kind)
    if column.null_count == 0 and is_number:
        return np.asarray(column.to_numpy())
    if is_number or kinds.is_nested(kind):
        return _objects(column.to_pylist())
    return np.asarray(column.to_numpy(), dtype=object)
