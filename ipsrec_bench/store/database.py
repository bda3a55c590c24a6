"""DuckDB below the store: connection settings, waiting for the locks of other processes, and the schema version.

A connection can reach only its store. Views and macros of a foreign store can neither read files nor load extensions.
"""

import re
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import duckdb

from ipsrec_bench.errors import LockedStoreError, StoreError

SCHEMA_VERSION = 9
_PAUSE_SECONDS = 0.05
_NO_EXTENSIONS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_TABLES = {"cells", "datasets", "environments", "epochs", "ranks", "run_cells", "runs", "store"}
"""Tables that every version of the schema has."""

Connection = duckdb.DuckDBPyConnection
OnWait = Callable[[str], None]


def connect(path: Path, *, read_only: bool = False, export_to: Path | None = None) -> Connection:
    """Open the database at `path`; the only other file that SQL on the connection can write is `export_to`.

    Raises:
        duckdb.Error: it cannot be opened.
    """
    connection = duckdb.connect(str(path), read_only=read_only, config=_NO_EXTENSIONS)
    if export_to is not None:
        connection.execute("SET allowed_paths = [?]", [str(export_to)])
    confine(connection)
    return connection


def connect_beside(path: Path, part: Path) -> Connection:
    """Open the database at `path` for writing, and as `part` the one at `part` for reading.

    Raises:
        duckdb.Error: one of them cannot be opened.
    """
    connection = connect_to_none()
    try:
        connection.execute(f"ATTACH '{quoted(part)}' AS part (TYPE duckdb, READ_ONLY)")
        connection.execute(f"ATTACH '{quoted(path)}' AS whole (TYPE duckdb)")
        connection.execute(f"SET temp_directory = '{quoted(path)}.tmp'")
        connection.execute("USE whole")
        confine(connection)
    except duckdb.Error:
        connection.close()  # now: the error's traceback would keep the locks
        raise
    return connection


def connect_to_none() -> Connection:
    """Open an empty database in memory, to which files can be attached until `confine` is called."""
    return duckdb.connect(config=_NO_EXTENSIONS)


def confine(connection: Connection) -> None:
    """Let SQL on `connection` reach only the files that are attached now."""
    connection.execute("SET enable_external_access = false")
    connection.execute("SET enable_progress_bar = false")  # it would go to standard output, which may be piped


def patiently(path: Path, opened: Callable[[], Connection], patience: float, on_wait: OnWait | None) -> Connection:
    """Return `opened()`, which opens the database at `path`, once no other process has it locked.

    The connection is to the file that has this name now. DuckDB opens a file before it locks it, and meanwhile another
    process may have replaced or removed it.

    Raises:
        LockedStoreError: it stays locked for `patience` seconds.
        StoreError: DuckDB cannot open the file.
    """
    deadline = time.monotonic() + patience
    while True:
        before = _file_number(path)
        try:
            connection = opened()
        except duckdb.Error as error:
            locked = re.search(r'Could not set lock on file "(.+?)": ', str(error))
            if locked is None:
                raise StoreError(f"{path}: cannot be opened as a result store: {first_line(error)}") from None
            message = f"{locked[1]}: the store is locked by another process: {_holder(error)}"
            if time.monotonic() >= deadline:
                raise LockedStoreError(f"{message}; close it, or give another place with --store") from None
            if on_wait is not None:
                on_wait(message)
                on_wait = None
            time.sleep(_PAUSE_SECONDS)
        else:
            if before in (None, _file_number(path)):
                return connection
            connection.close()


def build(connection: Connection) -> None:
    """Create the tables, views and macros of a store, and its version, in the current database, which is empty."""
    connection.execute(resources.files("ipsrec_bench.store").joinpath("schema.sql").read_text("utf-8"))
    connection.execute("INSERT INTO store (version, created) VALUES (?, now() AT TIME ZONE 'UTC')", [SCHEMA_VERSION])


def version_of(connection: Connection, path: Path, database: str | None = None) -> int | None:
    """Return the schema version of a store; None if the database is empty.

    Args:
        connection: connection to the store.
        path: its name in errors.
        database: its name on the connection, if it is not the current one.

    Raises:
        StoreError: it is not a result store, or a newer version of the toolkit wrote it.
    """
    found = connection.execute(
        """
        WITH wanted AS (SELECT coalesce(?, current_database()) AS name)
        SELECT wanted.name,
               (SELECT list(table_name) FROM duckdb_tables() WHERE database_name = name AND schema_name = 'main'),
               (SELECT count(*) FROM duckdb_views() WHERE database_name = name AND NOT internal)
        FROM wanted
        """,
        [database],
    ).fetchall()
    name, tables, views = found[0]
    if not tables and not views:
        return None
    version = None
    if set(tables or ()) >= _TABLES:
        try:
            rows = connection.execute(f"SELECT version FROM {_identifier(name)}.main.store").fetchall()
            version = rows[0][0] if len(rows) == 1 else None
        except duckdb.Error:  # a table of this name without such a column
            pass
    if not isinstance(version, int) or version < 1:
        raise StoreError(f"{path}: this DuckDB file is not a result store of ipsrec-bench")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: the store has schema version {version}, this program reads versions up to {SCHEMA_VERSION}; use"
            " the version of ipsrec-bench that wrote it, or give another place with --store"
        )
    return version


def first_line(error: duckdb.Error) -> str:
    """Return the first line of DuckDB's message, without the explanation below it."""
    return str(error).partition("\n")[0]


def quoted(path: Path) -> str:
    """Return `path` escaped for single quotes in SQL."""
    return str(path).replace("'", "''")


def _identifier(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _file_number(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _holder(error: duckdb.Error) -> str:
    """Return which process holds the lock, as far as DuckDB reports it."""
    _, _, holder = first_line(error).partition("Conflicting lock is held in ")
    return holder.partition(". ")[0] or first_line(error)
