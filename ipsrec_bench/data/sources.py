"""Raw rows as DuckDB relations of one shape: `user`, `item`, `provider`, `time` (text) and `row`.

`row` counts the source's data rows from 1; it breaks ties of equal times and names the place of a mistake.
"""

import os
import re
from pathlib import Path

import duckdb

from ipsrec_bench.data.synthetic import generate
from ipsrec_bench.errors import DataError, did_you_mean, listed
from ipsrec_bench.suite.schema import DatasetSpec, SyntheticSource, TableSource

ATOMIC_COLUMNS = {"user": "user_id", "item": "item_id", "provider": "provider_id", "time": "timestamp"}
"""Names that RecBole's atomic files give to the columns where a suite does not name others."""


def source_paths(source: DatasetSpec, data_dir: Path) -> list[Path]:
    """Return the raw files that `source` reads, checked to be there.

    Raises:
        DataError: a file is missing, or an environment variable in its path is not set.
    """
    if isinstance(source, SyntheticSource):
        return []
    written = [source.path, *([source.items.path] if source.items else [])]
    return [_resolve(path, data_dir) for path in written]


def load_raw(connection: duckdb.DuckDBPyConnection, source: DatasetSpec, data_dir: Path) -> None:
    """Create the table `raw` from `source`: `user`, `item`, `provider`, `time` as text, and `row`.

    An unknown provider is NULL. Rows keep the order of the file.

    Raises:
        DataError: a file cannot be read, lacks a column, or its item table is ambiguous.
    """
    if isinstance(source, SyntheticSource):
        log = vars(generate(source))  # noqa: F841  (DuckDB finds the dictionary of arrays by its name)
        connection.execute(
            "CREATE TABLE raw AS SELECT user::VARCHAR AS user, item::VARCHAR AS item,"
            " provider::VARCHAR AS provider, time::VARCHAR AS time, row_number() OVER () AS row FROM log"
        )
        return
    paths = source_paths(source, data_dir)
    table = _open(connection, paths[0], source.delimiter)
    names = _column_names(source, paths[0])
    if source.items is not None:
        names.pop("provider")
    columns = {role: _find(table, name, f"{role} column", paths[0]) for role, name in names.items()}
    provider = columns.get("provider", "NULL")
    rows = table.project(
        ", ".join(f"CAST({columns[role]} AS VARCHAR) AS {role}" for role in ("user", "item", "time"))
        + f", nullif(CAST({provider} AS VARCHAR), '') AS provider"
    )
    try:
        rows.create_view("numberless")
        connection.execute("CREATE TABLE raw AS SELECT *, row_number() OVER () AS row FROM numberless")
        _refuse_bad_lines(connection)
        if source.items is not None:
            _join_items(connection, source, paths[1])
            _refuse_bad_lines(connection)
    except duckdb.Error as error:
        raise DataError(f"{paths[0]}: {_reason(error)}") from None


def _join_items(connection: duckdb.DuckDBPyConnection, source: TableSource, path: Path) -> None:
    assert source.items is not None
    table = _open(connection, path, source.items.delimiter)
    item = _find(table, source.items.item, "item column", path)
    provider = _find(table, source.items.provider, "provider column", path)
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
        "CREATE OR REPLACE TABLE raw AS SELECT raw.user, raw.item, raw.time, item_providers.provider, raw.row"
        " FROM raw LEFT JOIN (SELECT item, max(provider) AS provider FROM item_providers GROUP BY item)"
        " AS item_providers USING (item)"
    )


def _open(connection: duckdb.DuckDBPyConnection, path: Path, delimiter: str | None) -> duckdb.DuckDBPyRelation:
    """Return the file as a relation of text columns (delimited, atomic) or typed columns (Parquet)."""
    literal = re.sub(r"([*?\[])", r"[\1]", str(path))  # a path is one file, not a pattern
    try:
        if path.suffix == ".parquet":
            return connection.read_parquet(literal)
        suffix = Path(path.name.removesuffix(".gz")).suffix
        atomic = suffix in (".inter", ".item")
        delimiter = delimiter or {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t"}.get(suffix)
        quote = "" if atomic else '"'  # atomic files quote nothing; others quote as RFC 4180 says
        # Bad lines are set aside and refused afterwards, which names them better than the reader's own error does.
        return connection.read_csv(
            literal,
            header=True,
            all_varchar=True,
            delimiter=delimiter,
            quotechar=quote,
            escapechar=quote,
            store_rejects=True,
        )
    except duckdb.Error as error:
        raise DataError(f"{path}: cannot be read as a table: {_reason(error)}") from None


def _refuse_bad_lines(connection: duckdb.DuckDBPyConnection) -> None:
    """Raise an error on the first line that the reader of delimited files had to set aside."""
    try:
        first = connection.execute(
            "SELECT file_path, line, error_message FROM reject_errors JOIN reject_scans USING (scan_id, file_id)"
            " ORDER BY line LIMIT 1"
        ).fetchone()
    except duckdb.CatalogException:
        return  # no delimited file was read
    if first is not None:
        path, line, message = first
        raise DataError(f"{path}:{line}: {message}; correct the line or remove it")


def _column_names(source: TableSource, path: Path) -> dict[str, str]:
    """Return the wanted column of each role; in atomic files the defaults are RecBole's names."""
    wanted = {"user": source.user, "item": source.item, "time": source.time}
    if source.provider:
        wanted["provider"] = source.provider
    if path.name.removesuffix(".gz").endswith(".inter"):
        wanted |= {role: ATOMIC_COLUMNS[role] for role in wanted if role not in source.model_fields_set}
    return wanted


def _find(table: duckdb.DuckDBPyRelation, wanted: str, role: str, path: Path) -> str:
    """Return the quoted name of the column `wanted`; an atomic file's `name:type` answers to `name`."""
    columns = {column.partition(":")[0]: column for column in reversed(table.columns)}
    columns |= {column: column for column in table.columns}
    if wanted not in columns:
        raise DataError(
            f"{path}: there is no column '{wanted}' ({role}); the file has {listed(table.columns)}"
            f"{did_you_mean(wanted, columns)}"
        )
    return '"' + columns[wanted].replace('"', '""') + '"'


def _resolve(written: str, data_dir: Path) -> Path:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if not os.environ.get(name):
            raise DataError(
                f"{written}: the environment variable {name} is not set; set it to the folder that holds the"
                " file, or give another path in the suite or by --set"
            )
        return os.environ[name]

    path = data_dir / "raw" / re.sub(r"\$\{(\w+)\}", value, written)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    if not path.stat().st_size:
        raise DataError(f"{path}: the file is empty")
    return path


def _reason(error: duckdb.Error) -> str:
    """Return what DuckDB says went wrong, without its advice on reader options."""
    return str(error).splitlines()[0]
