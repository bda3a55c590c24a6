"""Exports from the store to files."""

from pathlib import Path

import duckdb

from ipsrec_bench.errors import StoreError
from ipsrec_bench.files import replacing
from ipsrec_bench.store.connect import reading
from ipsrec_bench.store.database import first_line, quoted
from ipsrec_bench.store.queries import find_run


def export_ranks(store: Path, path: Path, kind: str, suite: str | None) -> int:
    """Write the view `user_ranks`, of one suite or of all, to a file; return the number of rows.

    Args:
        store: the store.
        path: the file, which is replaced once the new one is complete.
        kind: `parquet` or `csv`.
        suite: name of the suite; all if None.

    Raises:
        StoreError: the store cannot be read, there is nothing to write, or the file cannot be written.
    """
    options = {"parquet": "FORMAT parquet, COMPRESSION zstd", "csv": "FORMAT csv, HEADER"}[kind]
    try:
        with replacing(path) as new, reading(store, export_to=new) as connection:
            if suite is not None:
                find_run(connection, suite)
            ranks = "FROM user_ranks WHERE suite = coalesce(?, suite)"
            count: int = connection.execute(f"SELECT count(*) {ranks}", [suite]).fetchall()[0][0]
            if not count:
                raise StoreError("the store holds no ranks yet; run a suite first")
            try:
                connection.execute(f"COPY (SELECT * EXCLUDE (cell) {ranks}) TO '{quoted(new)}' ({options})", [suite])
            except duckdb.Error as error:
                raise StoreError(f"{path}: the ranks cannot be written there: {first_line(error)}") from None
    except OSError as error:
        raise StoreError(f"{path}: the ranks cannot be written there: {error.strerror}") from None
    return count
