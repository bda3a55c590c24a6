"""The format of a raw file, by its name and first bytes, and the location of a row in it."""

import contextlib
import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO, Literal, TextIO, TypedDict

from ipsrec_bench.errors import DataError
from ipsrec_bench.suite.schema import TableFile

ATOMIC_FILES = (".inter", ".item")
JSON_FILES = (".json", ".jsonl", ".ndjson")
DELIMITERS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t"}
MAX_HEADER = 1_000_000
"""Maximum number of characters that are read to find the end of the first line."""
DAMAGED = (OSError, EOFError, zlib.error)
"""What Python raises for a compressed file that is truncated or damaged."""
BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_HEAD = 4096
_TO_UTF8 = "convert it to UTF-8, for example with: iconv -f {0} -t UTF-8 FILE > NEW"
# First bytes of files that are not tables, what such a file is, and the remedy.
_KINDS = (
    (b"PK\x03\x04", "a zip archive (or a workbook)", "unpack it, or save the sheet as CSV, and name the file in it"),
    (b"PK\x05\x06", "an empty zip archive", "get it again"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "unpack it, for example with: zstd -d FILE"),
    (b"BZh", "packed with bzip2", "unpack it, for example with: bunzip2 FILE"),
    (b"\xfd7zXZ\0", "packed with xz", "unpack it, for example with: unxz FILE"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"\x04\x22\x4d\x18", "packed with lz4", "unpack it, for example with: lz4 -d FILE"),
    (_GZIP, "packed with gzip twice", "unpack it once, for example with: gunzip FILE"),
    (b"\xff\xfe\0\0", "UTF-32 text", _TO_UTF8.format("UTF-32")),
    (b"\0\0\xfe\xff", "UTF-32 text", _TO_UTF8.format("UTF-32")),
    (b"\xff\xfe", "UTF-16 text", _TO_UTF8.format("UTF-16")),
    (b"\xfe\xff", "UTF-16 text", _TO_UTF8.format("UTF-16")),
    (b"\xd0\xcf\x11\xe0", "a workbook or another document of Microsoft Office", "save the sheet as CSV"),
    (b"\x89HDF", "an HDF5 file", "write the table as Parquet or CSV"),
    (b"SQLite format 3", "an SQLite database", "write the table as Parquet or CSV"),
    (b"\x93NUMPY", "a NumPy array", "write the table as Parquet or CSV"),
    (b"ARROW1", "an Arrow (Feather) file", "write the table as Parquet or CSV"),
    (b"ORC", "an ORC file", "write the table as Parquet or CSV"),
    (b"Obj\x01", "an Avro file", "write the table as Parquet or CSV"),
    (b"\x80\x04", "a Python pickle", "write the table as Parquet or CSV"),
    (b"\x80\x05", "a Python pickle", "write the table as Parquet or CSV"),
    (b"<!doctype html", "a web page, perhaps one that asks for a login", "get the file again"),
    (b"<html", "a web page, perhaps one that asks for a login", "get the file again"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "fetch the file with: git lfs pull"),
)
_WORDS = (b"ORC", b"<!doctype html", b"<html", b"BZh", b"Rar!", b"ARROW1")
"""Those that may also begin the first line of a text; they count only if binary data or markup follows."""


def kind_of(path: Path) -> Literal["parquet", "json", "text"]:
    """Return the format in which the file is read, by its first bytes or else by its name."""
    name = _plain_name(path)
    with contextlib.suppress(*DAMAGED), path.open("rb") as file:
        if file.read(len(_PARQUET)) == _PARQUET:
            return "parquet"
    if name.endswith(".parquet"):
        return "parquet"
    return "json" if name.endswith(JSON_FILES) else "text"


def is_packed(path: Path) -> bool:
    """Return whether the file is packed with gzip, by its name or its first bytes."""
    if path.name.lower().endswith(".gz"):
        return True
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def is_json_array(path: Path) -> bool:
    """Return whether a JSON file holds one array instead of one object per line."""
    with open_bytes(path) as file:
        return file.read(_HEAD).removeprefix(BOM).lstrip().startswith(b"[")


def open_bytes(path: Path) -> BinaryIO:
    """Open the file, unpacked."""
    return gzip.open(path) if is_packed(path) else path.open("rb")  # type: ignore[return-value]


def open_text(path: Path) -> TextIO:
    """Open the file, unpacked, without a byte order mark; bytes that are not UTF-8 are replaced."""
    if is_packed(path):
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def refuse_other_kinds(path: Path) -> None:
    """Refuse a file whose first bytes show that it is not a table; the error names its kind and the remedy.

    Raises:
        DataError: it is an archive, a web page, text in another encoding, ...; or it is damaged.
    """
    if kind_of(path) == "parquet":
        if is_packed(path):
            raise DataError(f"{path}: a Parquet file cannot be read packed; unpack it, for example with: gunzip FILE")
        return
    try:
        with open_bytes(path) as file:
            head = file.read(_HEAD)
    except DAMAGED as error:
        raise _damaged(path, error) from None
    for begin, what, remedy in _KINDS:
        if head[: len(begin)].lower() == begin.lower() and (begin not in _WORDS or _is_no_text(head)):
            raise DataError(f"{path}: the file is {what}; {remedy}")
    if head[257:262] == b"ustar":
        raise DataError(f"{path}: the file is a tar archive; unpack it, and name the file in it")
    if b"\0" in head:
        raise DataError(
            f"{path}: the file contains zero bytes, so it is not UTF-8; if it is UTF-16, {_TO_UTF8.format('UTF-16')}"
        )
    line = head.partition(b"\n")[0]
    if len(line) < len(head):
        refuse_other_encodings(path, 1, line)


def _is_no_text(head: bytes) -> bool:
    return head.lstrip().startswith(b"<") or any(byte < 9 for byte in head[:64])  # noqa: PLR2004 (control characters)


def refuse_other_encodings(path: Path, number: int, line: bytes) -> None:
    """Raise an error if `line` is not UTF-8."""
    try:
        line.decode()
    except UnicodeDecodeError:
        raise DataError(
            f"{path}:{number}: the line is not UTF-8; if the file is Latin-1, {_TO_UTF8.format('LATIN1')}"
        ) from None


def check_packed(path: Path) -> None:
    """Read a gzip file to its end to verify its checksum, which DuckDB ignores; it takes no longer than DuckDB.

    Raises:
        DataError: the file is truncated or damaged.
    """
    try:
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass
    except DAMAGED as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    if isinstance(error, gzip.BadGzipFile) and "Not a gzipped file" in str(error):
        return DataError(f"{path}: the name ends in .gz, but the file is not packed with gzip; rename it")
    return DataError(f"{path}: the gzip file is truncated or damaged: {error}; get it again")


class Dialect(TypedDict):
    """Format of a delimited file, as arguments of Python's csv module."""

    delimiter: str
    quotechar: str | None
    quoting: Literal[0, 3]


def dialect_of(path: Path, written: TableFile) -> Dialect:
    """Return the file's dialect. If tabs are the delimiter, quotes are plain characters; otherwise, RFC 4180 holds."""
    name = _plain_name(path)
    delimiter = written.delimiter or DELIMITERS.get(Path(name).suffix) or max(",\t;|", key=_first_line(path).count)
    quoting = written.quoting
    if quoting == "auto":
        quoting = "none" if delimiter == "\t" or name.endswith(ATOMIC_FILES) else "double"
    if quoting == "none":
        return {"delimiter": delimiter, "quotechar": None, "quoting": csv.QUOTE_NONE}
    return {"delimiter": delimiter, "quotechar": '"', "quoting": csv.QUOTE_MINIMAL}


def header_of(path: Path, dialect: Dialect) -> list[str]:
    """Return the names of the columns; empty names are replaced by the position, repeated ones numbered.

    Raises:
        DataError: there is no first line, or it is empty.
    """
    names: dict[str, str] = {}
    first = _first_line(path)
    for place, written in enumerate(next(_records(iter([first]), dialect), [])):
        name = unnumbered = written.strip() or f"column{place}"
        for number in count(1):
            if name.lower() not in names:  # SQL ignores case
                break
            name = f"{unnumbered}_{number}"
        names[name.lower()] = name
    if not names:
        what = "the first line is empty; expected the names of the columns" if first else "the file is empty"
        raise DataError(f"{path}: {what}")
    return list(names.values())


def place_of(path: Path, row: int, written: TableFile) -> str:
    """Return the location of data row `row` (from 1) of the file: the line in text, else the row number."""
    kind = kind_of(path)
    if kind == "parquet" or (kind == "json" and is_json_array(path)):
        return f"{path}: row {row}"
    with open_text(path) as lines:
        if kind == "json":
            filled = (number for number, line in enumerate(lines, start=1) if line.strip())
            return f"{path}:{next((number for left, number in enumerate(filled, start=1) if left == row), row)}"
        left = row + (not written.columns)
        records = _records(lines, dialect_of(path, written))
        line = 1
        for record in records:
            left -= bool(record)  # empty lines are not rows
            if not left:
                break
            line = records.line_num + 1  # a quoted value may hold line breaks
    return f"{path}:{line}"


class _Records(Iterator[list[str]]):
    """Records of delimited text; `line_num` counts the lines read so far."""

    def __init__(self, lines: Iterator[str], dialect: Dialect) -> None:
        delimiter = dialect["delimiter"]
        if len(delimiter) > 1:  # the csv module takes single characters only
            lines = (line.replace(delimiter, "\0") for line in lines)
            dialect = {**dialect, "delimiter": "\0"}
        self._reader = csv.reader(lines, **dialect)

    def __next__(self) -> list[str]:
        limit = csv.field_size_limit(sys.maxsize)  # of the whole process
        try:
            return next(self._reader)
        finally:
            csv.field_size_limit(limit)

    @property
    def line_num(self) -> int:
        return self._reader.line_num


def _records(lines: Iterator[str], dialect: Dialect) -> _Records:
    return _Records(lines, dialect)


def line_at(path: Path, position: int) -> int:
    """Return the number of the first line with text at or behind byte `position` (from 1) of the unpacked file."""
    number, left = 1, position - 1
    with open_bytes(path) as file:
        while left > 0 and (chunk := file.read(min(left, 1 << 20))):
            number += chunk.count(b"\n")
            left -= len(chunk)
        for byte in iter(lambda: file.read(1), b""):
            if byte not in b"\r\n":
                break
            number += byte == b"\n"
    return number


def line_of(path: Path, number: int) -> bytes:
    """Return line `number` (from 1) of the unpacked file."""
    with open_bytes(path) as file:
        return next((line for at, line in enumerate(file, start=1) if at == number), b"")


def bad_line(path: Path) -> str:
    """Return the location and the problem of a bad line that DuckDB does not name, or names wrongly; empty if none.

    It finds invalid lines of JSON, and lines of text with different line endings.
    """
    kind = kind_of(path)
    if kind == "parquet":
        return ""
    with contextlib.suppress(*DAMAGED):
        if kind == "json":
            return _bad_json(path)
        with open_text(path) as lines:
            first = next(lines, "").endswith("\r\n")
            for number, line in enumerate(lines, start=2):
                if line.endswith("\n") and line.endswith("\r\n") != first:
                    ends = ("\\r\\n", "\\n") if first else ("\\n", "\\r\\n")
                    return f"{path}: line 1 ends in {ends[0]} and line {number} in {ends[1]}; use one line ending"
    return ""


def _bad_json(path: Path) -> str:
    with open_bytes(path) as lines:
        for number, line in enumerate(lines, start=1):
            text = line.removeprefix(BOM) if number == 1 else line
            refuse_other_encodings(path, number, text)
            if text.startswith(BOM):
                return f"{path}:{number}: the line begins with a byte order mark (U+FEFF); remove it"
            try:
                found = json.loads(text.strip() or "{}")
            except ValueError:
                if number == 1 and text.lstrip().startswith(b"{"):
                    return (
                        f"{path}:1: the line is not JSON; expected an object on each line, or an array of objects,"
                        " not one object over several lines"
                    )
                return f"{path}:{number}: the line is not JSON"
            if not isinstance(found, dict):
                return f"{path}:{number}: the line is not a JSON object; expected an object on each line"
    return ""


def _plain_name(path: Path) -> str:
    return path.name.lower().removesuffix(".gz")


def _first_line(path: Path) -> str:
    with open_text(path) as file:
        return file.readline(MAX_HEADER)
