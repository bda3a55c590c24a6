"""Opening the store: briefly, waiting for other processes, and with the schema of this version."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb

from ipsrec_bench.data.staging import alone, is_full
from ipsrec_bench.errors import MissingStoreError, StoreError
from ipsrec_bench.store import database
from ipsrec_bench.store.database import Connection, OnWait
from ipsrec_bench.store.migrate import migrate

__all__ = ["Connection", "check_current", "looking", "reading", "writing"]

PATIENCE_SECONDS = 5.0


@contextlib.contextmanager
def reading(
    path: Path,
    patience: float = PATIENCE_SECONDS,
    on_wait: OnWait | None = None,
    export_to: Path | None = None,
) -> Iterator[Connection]:
    """Open the store at `path` for reading. Close it soon: no process can write meanwhile.

    A store with an older schema is migrated first.

    Args:
        path: the store.
        patience: seconds to wait while another process has the store open.
        on_wait: callback that receives one sentence about the process that is waited for.
        export_to: the only other file that SQL on the connection may write.

    Raises:
        MissingStoreError: there is no store yet.
        StoreError: it cannot be read or migrated, it is damaged, or another process keeps it locked.
    """
    place, missing = _place(path), _missing(path)
    if not place.exists() or _is_empty_file(place):
        raise missing

    def connect() -> Connection:
        return database.connect(place, read_only=True, export_to=export_to)

    with _current(place, connect, patience, on_wait) as (connection, version):
        if version is None:
            raise missing
        yield connection


@contextlib.contextmanager
def looking(path: Path, patience: float = PATIENCE_SECONDS) -> Iterator[tuple[Connection, int]]:
    """Open the store at `path` for reading as it is; yield the connection and the version of its schema.

    A store with an older schema is not migrated.

    Raises:
        MissingStoreError: there is no store yet.
        LockedStoreError: another process keeps it locked for `patience` seconds.
        StoreError: it cannot be read, or it is damaged.
    """
    place, missing = _place(path), _missing(path)
    if not place.exists() or _is_empty_file(place):
        raise missing

    def connect() -> Connection:
        return database.connect(place, read_only=True)

    with database.patiently(place, connect, patience, None) as connection, _in_sentences(place):
        version = database.version_of(connection, place)
        if version is None:
            raise missing
        yield connection, version


@contextlib.contextmanager
def writing(
    path: Path,
    patience: float = PATIENCE_SECONDS,
    on_wait: OnWait | None = None,
    part: Path | None = None,
) -> Iterator[Connection]:
    """Open the store at `path` for one transaction, creating the file if needed; commit on success.

    A store with an older schema is migrated first. An empty database becomes a store.

    Args:
        path: the store.
        patience: seconds to wait while another process has the store open.
        on_wait: callback that receives one sentence about the process that is waited for.
        part: another store, which SQL on the connection may read as the database `part`.

    Raises:
        StoreError: the file is not a store, is damaged, cannot be written or migrated, or stays locked.
    """
    place = _place(path)
    try:
        if not place.exists() or _is_empty_file(place):
            _create(place)
    except OSError as error:
        raise StoreError(f"{path}: the store cannot be created there: {error.strerror}") from None

    def connect() -> Connection:
        return database.connect(place) if part is None else database.connect_beside(place, _place(part))

    with _current(place, connect, patience, on_wait) as (connection, version):
        connection.begin()
        if version is None:
            database.build(connection)
        yield connection
        connection.commit()


def check_current(path: Path, patience: float = PATIENCE_SECONDS, on_wait: OnWait | None = None) -> None:
    """Check that there is a store at `path`, with the schema of this version; its file is not changed.

    Raises:
        MissingStoreError: there is no store.
        StoreError: it cannot be read, it has an older schema, or another process keeps it locked.
    """
    place = _place(path)
    version = None
    if place.exists() and not _is_empty_file(place):
        with database.patiently(
            place, lambda: database.connect(place, read_only=True), patience, on_wait
        ) as connection:
            version = database.version_of(connection, place)
    if version is None:
        raise MissingStoreError(f"{path}: there is no result store")
    if version < database.SCHEMA_VERSION:
        raise StoreError(
            f"{path}: the store has the older schema version {version}; bring it to version {database.SCHEMA_VERSION}"
            f" with `ipsrec-bench ls --store {path}`, which keeps the old file beside it"
        )


@contextlib.contextmanager
def _current(
    place: Path, connect: Callable[[], Connection], patience: float, on_wait: OnWait | None
) -> Iterator[tuple[Connection, int | None]]:
    """Yield a connection to the store at `place`, migrated if needed, and its version; None if the file is empty."""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(database.patiently(place, connect, patience, on_wait))
        version = database.version_of(connection, place)
        if version is not None and version < database.SCHEMA_VERSION:
            stack.close()
            migrate(place, patience, on_wait)
            connection = stack.enter_context(database.patiently(place, connect, patience, on_wait))
        with _in_sentences(place):
            yield connection, version


@contextlib.contextmanager
def _in_sentences(place: Path) -> Iterator[None]:
    """Convert an error of DuckDB about the open store at `place` into one sentence.

    Raises:
        StoreError: DuckDB raised an error.
    """
    try:
        yield
    except duckdb.Error as error:
        if is_full(error):
            raise StoreError(f"{place}: the store cannot be written: the disk is full") from error
        if isinstance(error, duckdb.OutOfMemoryException):
            words = database.first_line(error)
            raise StoreError(f"{place}: there is too little memory to read or write the store: {words}") from error
        raise StoreError(
            f"{place}: the store cannot be read or written, it may be damaged: {database.first_line(error)}; restore a"
            " copy, or give another place with --store"
        ) from error


def _place(path: Path) -> Path:
    """Return the file that `path` names, in a form that DuckDB can only interpret as a file's path.

    Raises:
        StoreError: a store cannot have this path.
    """
    try:
        place = path.resolve()
        other = place.exists() and not place.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, a loop of links
        raise StoreError(f"{path}: the store cannot be there: {error}") from None
    if other:
        raise StoreError(f"{path}: cannot be opened as a result store: it is not a file")
    if "?" in str(place):
        raise StoreError(f"{path}: DuckDB cannot keep a store below a name with '?'; give another place with --store")
    return place


def _missing(path: Path) -> MissingStoreError:
    return MissingStoreError(f"{path}: there is no result store yet; run a suite first, or give its place with --store")


def _is_empty_file(place: Path) -> bool:
    return place.stat().st_size == 0


def _create(place: Path) -> None:
    """Build an empty store in a temporary file beside `place` and rename it, so that `place` is always complete.

    One process at a time does so, and first removes what a dead one left. A store that another process has created
    there meanwhile is kept.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".{place.name}.part")
    beside = (new, new.with_name(f"{new.name}.wal"))
    with alone(place.parent):
        if place.exists() and not _is_empty_file(place):
            return
        for left in beside:
            left.unlink(missing_ok=True)
        try:
            with _in_sentences(place), database.connect(new) as connection:
                connection.begin()  # one transaction, not one for each of 300 statements
                database.build(connection)
                connection.commit()
            new.replace(place)
        finally:
            for left in beside:
                left.unlink(missing_ok=True)
