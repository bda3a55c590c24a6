"""Raw rows as DuckDB relations of one shape: `user`, `item`, `provider`, `time` (text) and `row`.

`row` counts the source's data rows from 1; it breaks ties of equal times and names the place of a mistake.
"""

import ast
import contextlib
import csv
import gzip
import json
import os
import re
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from textwrap import shorten
from typing import Literal, TextIO, TypedDict

import duckdb

from ipsrec_bench.data.staging import is_full
from ipsrec_bench.data.synthetic import generate
from ipsrec_bench.errors import DataError, MissingDataError, did_you_mean, listed
from ipsrec_bench.suite.schema import Column, DatasetSpec, ItemTable, SyntheticSource, TableSource

ATOMIC_COLUMNS = {"user": "user_id", "item": "item_id", "provider": "provider_id", "time": "timestamp"}
"""Names that RecBole's atomic files give to the columns where a suite does not name others."""
ATOMIC_FILES = (".inter", ".item")
JSON_LINES = (".json", ".jsonl", ".ndjson")
DELIMITERS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t"}
JSON_SAMPLE = 100_000
"""Lines in which the names of columns are looked for."""
JOINED = " + "
"""Between the names of columns whose texts are put together."""
MAX_HEADER = 1_000_000
"""Characters read in search of the first line's end."""
MAX_ID = 1000
"""Characters; what is longer is no id but a mistake, such as a quote that was never closed."""
SAMPLE_SPACE = 2**32
_DAMAGED = (OSError, EOFError, zlib.error)
"""What Python says of a packed file that is cut off or damaged."""


def source_paths(source: DatasetSpec, data_dir: Path) -> list[Path]:
    """Return the raw files that `source` reads, checked to be there.

    Raises:
        MissingDataError: a file is not there, or an environment variable in its path is not set.
        DataError: a file is empty.
    """
    if isinstance(source, SyntheticSource):
        return []
    written = [source.path, *([source.items.path] if source.items else [])]
    paths = [_resolve(path, data_dir) for path in written]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        which = " and ".join(map(str, missing))
        raise MissingDataError(f"{which}: there is no such file{source.origin and f'; {source.origin}'}")
    for path in paths:
        if not path.stat().st_size:
            raise DataError(f"{path}: the file is empty")
    return paths


def load_raw(connection: duckdb.DuckDBPyConnection, source: DatasetSpec, data_dir: Path) -> None:
    """Create the table `raw` from `source`: `user`, `item`, `provider`, `time` as text, and `row`.

    An unknown provider is NULL. Rows keep the order of the file; those outside `where` or the sample of users are
    not read. Columns that duplicates are told by are added as `same0`, `same1`, ...

    Raises:
        DataError: a file cannot be read, lacks a column, or its item table is ambiguous.
    """
    if isinstance(source, SyntheticSource):
        log = vars(generate(source))  # noqa: F841  (DuckDB finds the dictionary of arrays by its name)
        connection.execute(
            'CREATE TABLE raw AS SELECT "user"::VARCHAR AS "user", item::VARCHAR AS item,'
            f" provider::VARCHAR AS provider, time::VARCHAR AS time, row_number() OVER () AS row FROM log"
            f" WHERE {_sampled('user::VARCHAR', source.scale)}"
        )
        return
    paths = source_paths(source, data_dir)
    names = _column_names(source, paths[0])
    if source.items is not None:
        names.pop("provider", None)
    same = source.duplicates.columns if source.duplicates else ()
    table = open_table(connection, paths[0], source, source.columns)
    columns = {role: find_column(table, name, f"{role} column", paths[0]) for role, name in names.items()}
    columns |= {f"same{i}": find_column(table, name, "of duplicates", paths[0]) for i, name in enumerate(same)}
    provider = columns.pop("provider", "NULL")
    numbered = table.project('*, row_number() OVER () AS "row of the file"')
    if source.where:
        numbered = _where(numbered, source.where, paths[0], table.columns)
    rows = numbered.filter(_sampled(f"CAST({columns['user']} AS VARCHAR)", source.scale)).project(
        ", ".join(f'CAST({column} AS VARCHAR) AS "{role}"' for role, column in columns.items())
        + f", nullif(CAST({provider} AS VARCHAR), '') AS provider, \"row of the file\" AS row"
    )
    with ThreadPoolExecutor() as pool:
        checks = [pool.submit(_check_packed, path) for path in paths if path.suffix == ".gz"]
        try:
            rows.create_view("wanted")
            connection.execute("CREATE TABLE raw AS SELECT * FROM wanted")
            refuse_bad_lines(connection)
            if source.items is not None:
                _join_items(connection, source, paths[1])
                refuse_bad_lines(connection)
        except (DataError, duckdb.Error, *_DAMAGED) as error:
            for check in checks:  # a damaged file explains whatever else is wrong
                check.result()
            if not isinstance(error, duckdb.Error) or is_full(error):
                raise
            raise DataError(_bad_line(paths[0]) or f"{paths[0]}: {_reason(error)}") from None
        for check in checks:
            check.result()


def _check_packed(path: Path) -> None:
    """Read a gzip file to its end, whose checksum DuckDB does not look at; that takes no longer than it does.

    Raises:
        DataError: the file is cut off or damaged.
    """
    try:
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass
    except _DAMAGED as error:
        raise DataError(f"{path}: the gzip file is cut off or damaged: {error}; get it again") from None


def _bad_line(path: Path) -> str:
    """Return where and what is wrong with a file in which DuckDB names no line, or another one; empty if not found.

    That is, lines of JSON that are none, and lines of text that end in different ways.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return ""
    with contextlib.suppress(*_DAMAGED), _text(path) as lines:
        if name.endswith(JSON_LINES):
            for number, line in enumerate(lines, start=1):
                try:
                    json.loads(line.strip() or "{}")
                except ValueError:
                    return f"{path}:{number}: the line is no JSON"
            return ""
        first = next(lines, "").endswith("\r\n")
        for number, line in enumerate(lines, start=2):
            if line.endswith("\n") and line.endswith("\r\n") != first:
                ends = ("\\r\\n", "\\n") if first else ("\\n", "\\r\\n")
                return f"{path}: line 1 ends in {ends[0]} and line {number} in {ends[1]}; make them alike"
    return ""


def place_of(path: Path, row: int, *, header: bool, delimiter: str | None) -> str:
    """Return where data row `row` (from 1) of the file stands: by line in text, else by its number."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return f"{path}: row {row}"
    if name.endswith(JSON_LINES):
        return f"{path}:{row}"
    with _text(path) as lines:
        records = csv.reader(lines, **_dialect(path, delimiter))
        left = row + header
        line = 1
        try:
            for record in records:
                left -= bool(record)  # empty lines are no rows
                if not left:
                    break
                line = records.line_num + 1  # a quoted value may hold line breaks
        except csv.Error:
            pass  # a value too long for this reader begins on the line that is looked for, or on one before it
    return f"{path}:{line}"


def _sampled(user: str, scale: float | None) -> str:
    """Return the condition that picks a share of users, the same ones in every file and on every machine."""
    if scale is None or scale >= 1:
        return "true"
    chosen = f"md5_number_lower('sample ' || {user}) % {SAMPLE_SPACE} < {round(scale * SAMPLE_SPACE)}"
    return f"coalesce({user}, '') = '' OR {chosen}"  # who has no name is not sampled away but refused


def _where(
    table: duckdb.DuckDBPyRelation, condition: str, path: Path, columns: Sequence[str]
) -> duckdb.DuckDBPyRelation:
    try:
        return table.filter(f"({condition})")
    except duckdb.Error as error:
        raise DataError(
            f"{path}: where = {condition!r} cannot be asked of this file: {_reason(error)}; its columns, all text, are"
            f" {listed(columns)}"
        ) from None


def _join_items(connection: duckdb.DuckDBPyConnection, source: TableSource, path: Path) -> None:
    assert source.items is not None
    table = open_table(connection, path, source.items)
    item = find_column(table, source.items.item, "item column", path)
    provider = find_column(table, source.items.provider, "provider column", path)
    table.project(f"CAST({item} AS VARCHAR) AS item, nullif(CAST({provider} AS VARCHAR), '') AS provider").filter(
        "item <> ''"
    ).distinct().create("item_providers")
    ambiguous = connection.execute(
        "SELECT item, count(provider) AS providers FROM item_providers GROUP BY item HAVING providers > 1"
        " ORDER BY item LIMIT 1"
    ).fetchone()
    if ambiguous is not None:
        raise DataError(
            f"{path}: item '{ambiguous[0]}' has {ambiguous[1]} different providers; an item table must name one"
        )
    connection.execute(
        "CREATE OR REPLACE TABLE raw AS SELECT raw.* REPLACE (item_providers.provider AS provider)"
        " FROM raw LEFT JOIN (SELECT item, max(provider) AS provider FROM item_providers GROUP BY item)"
        " AS item_providers USING (item)"
    )


def open_table(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    written: TableSource | ItemTable,
    columns: Sequence[str] = (),
) -> duckdb.DuckDBPyRelation:
    """Return the file as a relation of text columns (delimited, atomic, JSON lines) or typed columns (Parquet).

    Args:
        connection: where the relation lives; its temporary folder takes what must be rewritten first.
        path: the file.
        written: how it is written.
        columns: names of the columns of a delimited file without a header.
    """
    literal = re.sub(r"([*?\[])", r"[\1]", str(path))  # a path is one file, not a pattern
    name = path.name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            return connection.read_parquet(literal)
        if name.endswith(JSON_LINES):
            if written.lines == "python":
                literal = str(_as_json(connection, path))
            found = connection.read_json(literal, format="newline_delimited", sample_size=JSON_SAMPLE).columns
            return connection.read_json(literal, format="newline_delimited", columns=dict.fromkeys(found, "VARCHAR"))
        dialect = _dialect(path, written.delimiter)
        # Nothing is left to guess: the reader's own detection may take lines for comments. Bad lines are set aside
        # and refused afterwards, which names them better than the reader's own error does.
        return connection.read_csv(
            literal,
            auto_detect=False,
            header=not columns,
            columns=dict.fromkeys(columns or _header(path, dialect), "VARCHAR"),
            delimiter=dialect["delimiter"],
            quotechar=dialect["quotechar"] or "",
            escapechar=dialect["quotechar"] or "",
            store_rejects=True,
        )
    except (duckdb.Error, *_DAMAGED) as error:
        raise DataError(_bad_line(path) or f"{path}: cannot be read as a table: {_reason(error)}") from None


def _as_json(connection: duckdb.DuckDBPyConnection, path: Path) -> Path:
    """Write a file of Python dictionaries as JSON lines, and return where."""
    folder = connection.execute("SELECT current_setting('temp_directory')").fetchall()[0][0]
    rewritten = Path(folder) / f"{path.name}.jsonl"
    rewritten.parent.mkdir(parents=True, exist_ok=True)
    with _text(path) as lines, rewritten.open("w", encoding="utf-8") as file:
        for number, line in enumerate(lines, start=1):
            try:
                file.write(json.dumps({**ast.literal_eval(line)}) + "\n")
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                raise DataError(f"{path}:{number}: the line is no dictionary as Python writes it") from None
    return rewritten


def _text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _first_line(path: Path) -> str:
    with _text(path) as file:
        return file.readline(MAX_HEADER)


class _Dialect(TypedDict):
    """How a delimited file is written, as Python's csv module takes it."""

    delimiter: str
    quotechar: str | None
    quoting: Literal[0, 3]


def _dialect(path: Path, delimiter: str | None) -> _Dialect:
    """Return the file's dialect: atomic files quote nothing, others as RFC 4180 says."""
    name = path.name.removesuffix(".gz")
    delimiter = delimiter or DELIMITERS.get(Path(name).suffix) or max(",\t;|", key=_first_line(path).count)
    if name.endswith(ATOMIC_FILES):
        return {"delimiter": delimiter, "quotechar": None, "quoting": csv.QUOTE_NONE}
    return {"delimiter": delimiter, "quotechar": '"', "quoting": csv.QUOTE_MINIMAL}


def _header(path: Path, dialect: _Dialect) -> list[str]:
    """Return the columns' names; empty ones are named by their place, repeated ones numbered.

    Raises:
        DataError: there is no first line.
    """
    names: dict[str, str] = {}
    for place, written in enumerate(next(csv.reader([_first_line(path)], **dialect), [])):
        name = unnumbered = written.strip() or f"column{place}"
        for number in count(1):
            if name.lower() not in names:  # SQL knows no case
                break
            name = f"{unnumbered}_{number}"
        names[name.lower()] = name
    if not names:
        raise DataError(f"{path}: the file is empty: its first line names no columns")
    return list(names.values())


def refuse_bad_lines(connection: duckdb.DuckDBPyConnection) -> None:
    """Raise an error on the first line that the reader of delimited files had to set aside."""
    try:
        first = connection.execute(
            "SELECT file_path, line, has_header, delimiter, error_message"
            " FROM reject_errors JOIN reject_scans USING (scan_id, file_id) ORDER BY line LIMIT 1"
        ).fetchone()
    except duckdb.CatalogException:
        return  # no delimited file was read
    if first is not None:
        file, line, header, delimiter, message = first
        place = place_of(Path(file), line - header, header=header, delimiter=delimiter)
        raise DataError(f"{place}: {message}; correct the line or remove it")


def _column_names(source: TableSource, path: Path) -> dict[str, Column]:
    """Return the wanted column of each role; in atomic files the defaults are RecBole's names."""
    wanted: dict[str, Column] = {"user": source.user, "item": source.item, "time": source.time}
    if source.provider:
        wanted["provider"] = source.provider
    if path.name.removesuffix(".gz").endswith(".inter"):
        wanted |= {role: ATOMIC_COLUMNS[role] for role in wanted if role not in source.model_fields_set}
    return wanted


def find_column(table: duckdb.DuckDBPyRelation, wanted: Column, role: str, path: Path) -> str:
    """Return the column `wanted` as SQL, quoted; an atomic file's `name:type` answers to `name`."""
    names = _alternatives(wanted)
    columns = {column.partition(":")[0]: column for column in reversed(table.columns)}
    columns |= {column: column for column in table.columns}
    for name in names:
        parts = [name] if name in columns else name.split(JOINED)
        if all(part in columns for part in parts):
            return " || ".join('"' + columns[part].replace('"', '""') + '"' for part in parts)
    raise DataError(
        f"{path}: there is no column {listed(names)} ({role}); the file has {listed(table.columns)}"
        f"{did_you_mean(names[0], columns)}"
    )


def _alternatives(column: Column) -> tuple[str, ...]:
    return (column,) if isinstance(column, str) else column


def _resolve(written: str, data_dir: Path) -> Path:
    """Return where the file is; where it is not packed, or not there at all, under the name that was written."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if not os.environ.get(name):
            raise MissingDataError(
                f"{written}: the environment variable {name} is not set; set it to the folder that holds the"
                " file, or give another path in the suite or by --set"
            )
        return os.environ[name]

    path = Path(os.path.normpath(data_dir / "raw" / re.sub(r"\$\{(\w+)\}", value, written)))
    packed = path.with_name(path.name + ".gz")
    return packed if packed.is_file() and not path.is_file() else path


def _reason(error: Exception) -> str:
    """Return what DuckDB says went wrong, without its advice on reader options."""
    return shorten(str(error).splitlines()[0], 300)
