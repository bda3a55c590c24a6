"""Raw rows as DuckDB relations of one shape: `user`, `item`, `provider`, `time` (text) and `row`.

`row` counts the source's data rows from 1; it breaks ties of equal times and names the place of a mistake.
"""

import ast
import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from textwrap import shorten

import duckdb

from ipsrec_bench.data.lifetimes import FROM, UNTIL
from ipsrec_bench.data.raw_files import (
    BOM,
    DAMAGED,
    bad_line,
    check_packed,
    dialect_of,
    header_of,
    is_json_array,
    is_packed,
    kind_of,
    line_at,
    line_of,
    open_bytes,
    open_text,
    refuse_other_encodings,
    refuse_other_kinds,
)
from ipsrec_bench.data.staging import is_full
from ipsrec_bench.data.synthetic import generate
from ipsrec_bench.errors import DataError, MissingDataError, did_you_mean, listed
from ipsrec_bench.suite.schema import Column, DatasetSpec, SyntheticSource, TableFile, TableSource
from ipsrec_bench.words import visible

ATOMIC_COLUMNS = {"user": "user_id", "item": "item_id", "provider": "provider_id", "time": "timestamp"}
"""Names of the columns in RecBole's atomic files, unless a suite names others."""
JSON_SAMPLE = 100_000
"""Number of lines that are searched for the names of columns."""
JOINED = " + "
"""Separator between the names of columns whose texts are concatenated."""
MAX_LISTED = 30
"""Maximum number of column names in an error message."""
MEMORY = "2GB"
"""DuckDB's memory limit; beyond it, DuckDB spills to disk."""
MOST_FLOAT = 2**24
"""Up to this, a 32-bit float represents every whole number."""
SAMPLE_SPACE = 2**32
BEYOND = "may read only the file's columns"
"""Message for a condition that tries to read more."""
SEVERAL = ("token_seq", "float_seq")
"""RecBole's types of columns with several values in each row."""
NESTED = {"list", "array", "struct", "map", "union", "variant"}
"""Likewise, Parquet's."""


@contextlib.contextmanager
def confined(paths: Sequence[Path], folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an in-memory DuckDB that can read `paths` and use `folder`, but access nothing else.

    SQL from a suite runs in it: it cannot read other files, use the network, or install extensions. Times with a zone
    are converted to UTC, whatever zone the machine is in.

    Args:
        paths: files to read.
        folder: where files may be read and written; DuckDB spills to `folder / "spill"`.
    """
    with duckdb.connect(
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    ) as connection:
        with contextlib.suppress(duckdb.CatalogException):  # without the ICU extension, UTC is the only zone
            connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET temp_directory = {_literal(folder / 'spill')}")
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        connection.execute("SET enable_progress_bar = false")  # it would be mixed into standard output
        connection.execute(f"SET allowed_directories = [{_literal(folder)}]")
        connection.execute(f"SET allowed_paths = [{', '.join(map(_literal, paths))}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection


def _literal(path: Path) -> str:
    return "'" + str(path.absolute()).replace("'", "''") + "'"


def source_paths(source: DatasetSpec, data_dir: Path) -> list[Path]:
    """Return the raw files that `source` reads, after checking that they exist.

    Raises:
        MissingDataError: a file does not exist, or an environment variable in its path is not set.
        DataError: a file is empty.
    """
    if isinstance(source, SyntheticSource):
        return []
    written = [source.path, *([source.items.path] if source.items else [])]
    paths = [_resolve(path, data_dir) for path in written]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        which = " and ".join(map(str, missing))
        origin = source.origin and f"; {source.origin}"
        raise MissingDataError(f"{which}: there is no such file{origin}{_of_another_folder(written, paths, data_dir)}")
    for path in paths:
        if not path.stat().st_size:
            raise DataError(f"{path}: the file is empty")
    return paths


def _of_another_folder(written: Sequence[str], paths: Sequence[Path], data_dir: Path) -> str:
    here = [name for name, path in zip(written, paths, strict=True) if not path.is_file() and Path(name).is_file()]
    if not here:
        return ""
    return (
        f"; a path of a suite is relative to {data_dir / 'raw'}, and {here[0]} is in the working directory: move it, or"
        " write its absolute path"
    )


def load_raw(connection: duckdb.DuckDBPyConnection, source: DatasetSpec, data_dir: Path) -> list[str]:
    """Create the table `raw` from `source`: `user`, `item`, `provider`, `time` as text, and `row`.

    An empty provider is NULL. Rows keep the order of the file; those outside `where` or the sample of users are
    not read. Columns by which duplicates are recognised are added as `same0`, `same1`, ...; columns of lifetimes by
    their keys; `providers.join_items` adds the providers of an item table.

    Returns:
        Notes for readers of the results, one sentence each.

    Raises:
        DataError: the file cannot be read or lacks a column.
    """
    if isinstance(source, SyntheticSource):
        connection.register("log", vars(generate(source)))
        connection.execute(
            'CREATE TABLE raw AS SELECT "user"::VARCHAR AS "user", item::VARCHAR AS item,'
            f" provider::VARCHAR AS provider, time::VARCHAR AS time, row_number() OVER () AS row FROM log"
            f" WHERE {_sampled('user::VARCHAR', source.scale)}"
        )
        return []
    paths = source_paths(source, data_dir)
    names = _column_names(source, paths[0])
    table = open_table(connection, paths[0], source)
    notes = []
    if source.items is not None:
        del names["provider"]
    elif "provider" in names and "provider" not in source.model_fields_set:
        unnamed = names["provider"]
        if not _has_column(table, unnamed):
            del names["provider"]
            hint = visible(did_you_mean(str(unnamed), table.columns))
            notes.append(
                f"{paths[0]}: there is no column {listed(_alternatives(unnamed))}, so every provider is unknown; name"
                f" the column with `provider`, or a second file with `items`{hint}"
            )
    columns = {role: find_column(table, name, f"{role} column", paths[0]) for role, name in names.items()}
    same = source.duplicates.columns if source.duplicates else ()
    columns |= {
        f"same{i}": find_column(table, name, "of duplicates", paths[0], several=True) for i, name in enumerate(same)
    }
    columns |= _lifetime_columns(table, source, paths[0])
    provider = columns.pop("provider", "NULL")
    numbered = table.project('*, row_number() OVER () AS "row of the file"')
    numbered = where(connection, numbered, source.where, paths[0], table.columns)
    rows = numbered.filter(_sampled(f"CAST({columns['user']} AS VARCHAR)", source.scale)).project(
        ", ".join(f'CAST({column} AS VARCHAR) AS "{role}"' for role, column in columns.items())
        + f', CAST({provider} AS VARCHAR) AS provider, "row of the file" AS row'
    )
    materialise(connection, paths[0], rows, "raw")
    _refuse_narrow_times(connection, paths[0], table, columns["time"])
    return notes


def _lifetime_columns(table: duckdb.DuckDBPyRelation, source: TableSource, path: Path) -> dict[str, str]:
    """Return the quoted columns of lifetimes by key, without those that only the item table can have.

    Raises:
        DataError: the file lacks a column, and there is no item table.
    """
    wanted = {key: getattr(source, key) for key in (FROM, UNTIL) if getattr(source, key)}
    return {
        key: find_column(table, name, f"{key} column", path)
        for key, name in wanted.items()
        if source.items is None or _has_column(table, name)
    }


def _refuse_narrow_times(
    connection: duckdb.DuckDBPyConnection, path: Path, table: duckdb.DuckDBPyRelation, time: str
) -> None:
    """Refuse times that are 32-bit floats and so large that neighbouring whole numbers coincide."""
    kinds = {
        '"' + name.replace('"', '""') + '"': kind.id for name, kind in zip(table.columns, table.types, strict=True)
    }
    if kinds.get(time) != "float":
        return
    ((largest,),) = connection.execute("SELECT max(abs(TRY_CAST(time AS DOUBLE))) FROM raw").fetchall()
    if largest is not None and largest > MOST_FLOAT:
        raise DataError(
            f"{path}: the column {time} (time column) has 32-bit floats, which cannot distinguish times above"
            f" {MOST_FLOAT:,}; write it as 64-bit numbers, from its source"
        )


def materialise(connection: duckdb.DuckDBPyConnection, path: Path, rows: duckdb.DuckDBPyRelation, table: str) -> None:
    """Read `rows` of the file `path` into `table`.

    Raises:
        DataError: the file is damaged, or a line of it cannot be read.
    """
    with ThreadPoolExecutor(1) as pool:
        check = pool.submit(check_packed, path) if is_packed(path) else None
        try:
            rows.create_view("wanted")
            connection.execute(f"CREATE TABLE {table} AS SELECT * FROM wanted")
            connection.execute("DROP VIEW wanted")
            refuse_bad_lines(connection, path)
        except (DataError, duckdb.Error, *DAMAGED) as error:
            if check is not None:
                check.result()  # a damaged file explains any other error
            if not isinstance(error, duckdb.Error) or is_full(error):
                raise
            if isinstance(error, duckdb.PermissionException):
                raise DataError(f"{path}: `where` {BEYOND}") from None
            raise DataError(bad_line(path) or f"{path}: {_reason(error)}") from None
        if check is not None:
            check.result()


def _sampled(user: str, scale: float | None) -> str:
    """Return the SQL condition that samples a share of users, the same ones in every file and on every machine."""
    if scale is None or scale >= 1:
        return "true"
    chosen = f"md5_number_lower('sample ' || {user}) % {SAMPLE_SPACE} < {round(scale * SAMPLE_SPACE)}"
    return f"coalesce({user}, '') = '' OR {chosen}"  # rows without a user are kept, to be refused


def where(
    connection: duckdb.DuckDBPyConnection,
    table: duckdb.DuckDBPyRelation,
    condition: str,
    path: Path,
    columns: Sequence[str],
) -> duckdb.DuckDBPyRelation:
    """Return the rows for which a suite's `condition` holds; all if it is empty.

    Raises:
        DataError: it cannot be evaluated on the file, whose columns are `columns`, or is not deterministic.
    """
    if not condition:
        return table
    _refuse_changing(connection, condition, path)
    try:
        return table.filter(f"({condition})")
    except duckdb.Error as error:
        beyond = isinstance(error, duckdb.PermissionException)
        reason = f"it {BEYOND}" if beyond else _reason(error)
        raise DataError(
            f"{path}: where = {condition!r} cannot be evaluated on this file: {reason}; its columns, all text, are"
            f" {_columns(columns)}"
        ) from None


def _refuse_changing(connection: duckdb.DuckDBPyConnection, condition: str, path: Path) -> None:
    """Refuse a condition that uses random numbers, the time of day or the state of the process."""
    changing = connection.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
    ).fetchall()
    calls = "|".join(re.escape(name) for (name,) in changing)
    plain = re.sub(r"'[^']*'|\"[^\"]*\"", "''", condition)
    found = re.search(rf"\b(?:({calls})\s*\(|((?:current_|local)(?:date|time|timestamp))\b)", plain, re.IGNORECASE)
    if found:
        raise DataError(
            f"{path}: where = {condition!r}: '{found[1] or found[2]}' gives a different result each time, so"
            " preparation could not be repeated; use `scale` to sample users, and a fixed date instead of today's"
        )


def open_table(connection: duckdb.DuckDBPyConnection, path: Path, written: TableFile) -> duckdb.DuckDBPyRelation:
    """Return the file as a relation of text columns (delimited, atomic, JSON) or typed columns (Parquet).

    Args:
        connection: where the relation lives; files that must be rewritten first go to its temporary folder.
        path: the file.
        written: its format.

    Raises:
        DataError: the file cannot be read as such a table.
    """
    refuse_other_kinds(path)
    kind, packed = kind_of(path), is_packed(path)
    literal = str(path.absolute())
    try:
        if re.search(r"[*?\[]", literal):  # DuckDB would expand it as a pattern
            literal = str(_linked(connection, path))
        if kind == "parquet":
            return connection.read_parquet(literal)
        if kind == "json":
            is_array = is_json_array(path) and written.lines == "json"
            if written.lines == "python":
                literal, packed = str(_as_json(connection, path)), False
            elif _begins_with_mark(path):
                literal, packed = str(_without_mark(connection, path)), False
            if not is_array:
                _refuse_other_json(path)
            read = partial(
                connection.read_json,
                literal,
                format="array" if is_array else "newline_delimited",
                compression="gzip" if packed else "auto_detect",
            )
            return read(columns=dict.fromkeys(read(sample_size=JSON_SAMPLE).columns, "VARCHAR"))
        dialect = dialect_of(path, written)
        # Everything is specified, because the reader's own detection may take lines for comments. Bad lines are
        # collected and refused afterwards, with a better message than the reader's own.
        return connection.read_csv(
            literal,
            auto_detect=False,
            header=not written.columns,
            columns=dict.fromkeys(written.columns or header_of(path, dialect), "VARCHAR"),
            delimiter=dialect["delimiter"],
            quotechar=dialect["quotechar"] or "",
            escapechar=dialect["quotechar"] or "",
            compression="gzip" if packed else "none",
            store_rejects=True,
        )
    except (duckdb.Error, *DAMAGED) as error:
        raise DataError(bad_line(path) or f"{path}: cannot be read as a table: {_reason(error)}") from None


def _scratch(connection: duckdb.DuckDBPyConnection, name: str) -> Path:
    """Return the path for a file in the folder that DuckDB may use."""
    folder = Path(connection.execute("SELECT current_setting('temp_directory')").fetchall()[0][0])
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def _linked(connection: duckdb.DuckDBPyConnection, path: Path) -> Path:
    link = _scratch(connection, f"link-{len(list(_scratch(connection, '').iterdir()))}")
    link.symlink_to(path.absolute())
    return link


def _as_json(connection: duckdb.DuckDBPyConnection, path: Path) -> Path:
    """Rewrite a file of Python dictionaries as JSON lines, and return the new path."""
    rewritten = _scratch(connection, f"{path.name}.jsonl")
    with open_text(path) as lines, rewritten.open("w", encoding="utf-8") as file:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                file.write(json.dumps({**ast.literal_eval(line)}) + "\n")
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                raise DataError(f"{path}:{number}: the line is not a Python dictionary") from None
    return rewritten


def _begins_with_mark(path: Path) -> bool:
    with open_bytes(path) as file:
        return file.read(len(BOM)) == BOM


def _without_mark(connection: duckdb.DuckDBPyConnection, path: Path) -> Path:
    """Copy the file without its byte order mark, which DuckDB's JSON reader refuses, and return the new path."""
    rewritten = _scratch(connection, f"{path.name}.unmarked")
    with open_bytes(path) as file, rewritten.open("wb") as copy:
        file.read(len(BOM))
        shutil.copyfileobj(file, copy, 1 << 20)
    return rewritten


def _refuse_other_json(path: Path) -> None:
    """Refuse a JSON file whose first line is not an object, or whose only line is `{"a": {...}, "b": {...}}`."""
    with open_text(path) as lines:
        first, second = next(lines, ""), next(lines, "")
    try:
        values = json.loads(first.strip() or "{}")
    except ValueError:
        return  # DuckDB refuses it
    if not isinstance(values, dict):
        raise DataError(bad_line(path))
    if not second.strip() and values and all(isinstance(value, dict) for value in values.values()):
        raise DataError(
            f"{path}: the file is one JSON object of objects; expected an object on each line, or an array of objects,"
            " each with its id"
        )


def refuse_bad_lines(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Raise an error on the first line of `path` that the reader of delimited files rejected.

    No other file may have been read through `connection` before.
    """
    try:
        first = connection.execute(
            "SELECT line_byte_position, error_type, error_message FROM reject_errors ORDER BY ALL LIMIT 1"
        ).fetchone()
    except duckdb.CatalogException:
        return  # no delimited file was read
    if first is None:
        return
    position, kind, message = first
    line = line_at(path, position)
    if kind == "INVALID ENCODING":
        refuse_other_encodings(path, line, line_of(path, line))
    remedy = "correct the line or remove it"
    if kind == "UNQUOTED VALUE":
        remedy += '; if quotes are plain characters here, set quoting = "none"'
    raise DataError(f"{path}:{line}: {visible(message)}; {remedy}")


def _column_names(source: TableSource, path: Path) -> dict[str, Column]:
    """Return the wanted column of each role; in atomic files the defaults are RecBole's names."""
    wanted: dict[str, Column] = {"user": source.user, "item": source.item, "time": source.time}
    if source.provider:
        wanted["provider"] = source.provider
    if path.name.lower().removesuffix(".gz").endswith(".inter"):
        wanted |= {role: ATOMIC_COLUMNS[role] for role in wanted if role not in source.model_fields_set}
    return wanted


def find_column(table: duckdb.DuckDBPyRelation, wanted: Column, role: str, path: Path, *, several: bool = False) -> str:
    """Return the column `wanted` as quoted SQL; in an atomic file, `name` finds `name:type`.

    Args:
        table: the file's rows.
        wanted: name of the column.
        role: its purpose, for errors.
        path: the file, for errors.
        several: whether it may hold several values in each row.

    Raises:
        DataError: the file has no such column, or it holds several values in each row.
    """
    names = _alternatives(wanted)
    columns = _columns_by_name(table)
    found = _parts(columns, wanted)
    if found is None:
        raise DataError(
            f"{path}: there is no column {listed(names)} ({role}); the file has {_columns(table.columns)}"
            f"{visible(did_you_mean(names[0], columns)) or _of_one_column(table, path)}"
        )
    for part in found:
        kind = table.types[table.columns.index(part)].id
        if not several and (kind in NESTED or part.partition(":")[2] in SEVERAL):
            what = part.partition(":")[2] if kind not in NESTED else kind
            raise DataError(
                f"{path}: the column '{part}' ({role}) is of type {what}, with several values in a row; name a column"
                " with one value in each row"
            )
    return " || ".join('"' + part.replace('"', '""') + '"' for part in found)


def _of_one_column(table: duckdb.DuckDBPyRelation, path: Path) -> str:
    if len(table.columns) > 1 or kind_of(path) != "text":
        return ""
    marks = {";": "';'", "\t": "a tab", "|": "'|'", ",": "','"}
    seen = next((f" (perhaps {name})" for mark, name in marks.items() if mark in table.columns[0]), "")
    return f"; set `delimiter` if another character{seen} separates the columns, and `columns` if there is no header"


def _has_column(table: duckdb.DuckDBPyRelation, wanted: Column) -> bool:
    return _parts(_columns_by_name(table), wanted) is not None


def _columns_by_name(table: duckdb.DuckDBPyRelation) -> dict[str, str]:
    columns = {column.partition(":")[0]: column for column in reversed(table.columns)}
    return columns | {column: column for column in table.columns}


def _parts(columns: Mapping[str, str], wanted: Column) -> list[str] | None:
    """Return the columns whose texts make up `wanted`; None if the file lacks them."""
    for name in _alternatives(wanted):
        parts = [name] if name in columns else name.split(JOINED)
        if all(part in columns for part in parts):
            return [columns[part] for part in parts]
    return None


def _columns(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return visible(listed(names[:MAX_LISTED])) + more


def _alternatives(column: Column) -> tuple[str, ...]:
    return (column,) if isinstance(column, str) else column


def _resolve(written: str, data_dir: Path) -> Path:
    """Return the path of the file, or of its `.gz` form if only that exists."""

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
    """Return the first line of DuckDB's error, without its advice on reader options."""
    return visible(shorten(str(error).splitlines()[0], 300))
