"""Migration of stores with an older schema: their rows are copied into a new store, which then replaces the old one."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb

from ipsrec_bench.errors import StoreError
from ipsrec_bench.store.database import (
    SCHEMA_VERSION,
    Connection,
    OnWait,
    build,
    confine,
    connect_to_none,
    first_line,
    patiently,
    quoted,
    version_of,
)

_log = logging.getLogger(__name__)
_LOSS_COLUMNS = {"cross_entropy": "next-item", "contrastive": "provider-contrast"}
"""Columns of `epochs` up to version 5, and the tasks whose losses they hold."""


def migrate(place: Path, patience: float, on_wait: OnWait | None) -> None:
    """Migrate the store at `place` to this version's schema; the old file is kept beside it, named by its version.

    Every table is copied by the names of its columns. A column that the old store lacks gets its default, which says
    that the value is not known. The replacement is atomic: the old store stays locked until the complete new one has
    its name, and a kill or a full disk leaves the old one unchanged.

    Args:
        place: the store.
        patience: seconds to wait while another process has it open.
        on_wait: callback that receives one sentence about the process that is waited for.

    Raises:
        StoreError: it cannot be written, or its content does not fit.
    """
    for written in (place, place.parent):
        if not os.access(written, os.W_OK):
            raise _not_migrated(place, f"{written} cannot be written")

    def attach() -> Connection:
        connection = connect_to_none()
        connection.execute(f"ATTACH '{quoted(place)}' AS old (TYPE duckdb)")
        return connection

    try:
        with patiently(place, attach, patience, on_wait) as connection:
            version = version_of(connection, place, "old")
            if version is None or version == SCHEMA_VERSION:  # another process was first
                return
            new = place.with_name(f".{place.name}.migrated")  # written only under the lock of the old store
            _remove(new)
            try:
                connection.execute(f"ATTACH '{quoted(new)}' AS new (TYPE duckdb)")
                connection.execute(f"SET temp_directory = '{quoted(new)}.tmp'")
                confine(connection)
                _copy(connection)
                for database in ("new", "old"):  # so that nothing is left in a log beside it
                    connection.execute(f"CHECKPOINT {database}")
                connection.execute("DETACH new")
                kept = _keep(place, version)
                new.replace(place)
            finally:
                _remove(new)
    except (OSError, duckdb.Error) as error:
        raise _not_migrated(place, first_line(error) if isinstance(error, duckdb.Error) else error.strerror) from None
    _log.warning(
        "%s: migrated from schema version %s to %s; the old file is kept as %s",
        place,
        version,
        SCHEMA_VERSION,
        kept.name,
    )


def _copy(connection: Connection) -> None:
    """Fill the empty database `new` with a store's tables and the rows of `old`, in one transaction."""
    connection.begin()
    connection.execute("USE new")
    build(connection)
    for table, columns in _shared_columns(connection):
        names = ", ".join(f'"{column}"' for column in columns)
        connection.execute(f'INSERT INTO new.main."{table}" ({names}) SELECT {names} FROM old.main."{table}"')
    _name_splits(connection)
    _copy_splits(connection)
    _copy_losses(connection)
    for table, column, sequence in _numbered(connection):
        highest = connection.execute(f'SELECT coalesce(max("{column}"), 0) FROM new.main."{table}"').fetchall()
        connection.execute("SELECT max(nextval(?)) FROM range(?)", [f"new.main.{sequence}", highest[0][0]]).fetchall()
    connection.commit()
    connection.execute("USE memory")


def _copy_splits(connection: Connection) -> None:
    """Copy the counts of targets that older stores kept in `datasets`, for leave-one-out whatever the split was."""
    found = connection.execute(
        "SELECT list(column_name) FROM duckdb_columns() WHERE database_name = 'old' AND table_name = 'datasets'"
        " AND column_name IN ('test_users', 'valid_users', 'tied_targets', 'leaked_targets')"
    ).fetchall()
    columns = found[0][0] or []
    if {"test_users", "valid_users"} <= {*columns}:
        names = ", ".join(columns)
        connection.execute(
            f"INSERT INTO new.main.splits (fingerprint, split, {names})"
            f" SELECT fingerprint, 'leave-one-out', {names} FROM old.main.datasets"
        )


def _name_splits(connection: Connection) -> None:
    """Name the split of cells that older versions left out, where the settings say all of it: leave-one-out."""
    connection.execute(
        """
        UPDATE new.main.cells SET split_name = 'leave-one-out'
        WHERE split_name IS NULL AND json_extract_string(settings, '$.protocol.split') = 'leave-one-out'
          AND json_extract_string(settings, '$.protocol.filter_for') IS NULL
          AND json_extract_string(settings, '$.protocol.mask_history') = 'false'
        """
    )


def _copy_losses(connection: Connection) -> None:
    """Copy the losses that older stores kept as columns of `epochs`, where all epochs are of the main stage."""
    found = connection.execute(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = 'old' AND table_name = 'epochs'"
    ).fetchall()
    for column, name in _LOSS_COLUMNS.items():
        if (column,) in found:
            connection.execute(
                "INSERT INTO new.main.losses (cell, stage, epoch, name, value)"
                f" SELECT cell, 'main', epoch, ?, {column} FROM old.main.epochs WHERE {column} IS NOT NULL",
                [name],
            )


def _shared_columns(connection: Connection) -> Iterator[tuple[str, list[str]]]:
    """Yield each table of the new store that the old one has, with the columns of both."""
    yield from connection.execute(
        """
        SELECT ours.table_name, list(ours.column_name ORDER BY ours.column_index)
        FROM duckdb_columns() AS ours
        JOIN duckdb_tables() AS tables USING (database_name, schema_name, table_name)
        JOIN duckdb_columns() AS theirs USING (schema_name, table_name, column_name)
        JOIN duckdb_tables() AS kept ON kept.database_name = 'old' AND kept.table_name = ours.table_name
        WHERE ours.database_name = 'new' AND theirs.database_name = 'old'
          AND ours.schema_name = 'main' AND kept.schema_name = 'main' AND ours.table_name <> 'store'
        GROUP BY ours.table_name ORDER BY ours.table_name
        """
    ).fetchall()


def _numbered(connection: Connection) -> Iterator[tuple[str, str, str]]:
    """Yield table, column and sequence of every column whose default is a sequence's next number."""
    found = connection.execute(
        "SELECT table_name, column_name, column_default FROM duckdb_columns()"
        " WHERE database_name = 'new' AND starts_with(column_default, 'nextval')"
    ).fetchall()
    for table, column, default in found:
        name = re.search(r"nextval\('([^']+)'\)", default)
        assert name is not None, default
        yield table, column, name[1].rpartition(".")[2]


def _keep(place: Path, version: int) -> Path:
    """Hard-link the old store to a name with its version, and return that."""
    number = 1
    while True:
        backup = place.with_name(f"{place.stem}.schema-{version}{f'.{number}' if number > 1 else ''}{place.suffix}")
        try:
            backup.hardlink_to(place)
        except FileExistsError:
            if backup.samefile(place):  # a migration was killed right after this step
                return backup
            number += 1
        else:
            return backup


def _not_migrated(place: Path, reason: str | None) -> StoreError:
    return StoreError(
        f"{place}: the store has an older schema and cannot be migrated to version {SCHEMA_VERSION} there: {reason};"
        " nothing in it has changed; copy it to a writable folder that has room for it twice, and give that"
        " with --store"
    )


def _remove(new: Path) -> None:
    """Remove a new store that is not needed, or was left by a killed process, and DuckDB's files beside it."""
    for file in (new, new.with_name(f"{new.name}.wal")):
        file.unlink(missing_ok=True)
    shutil.rmtree(new.with_name(f"{new.name}.tmp"), ignore_errors=True)
