"""Opening the store: briefly, with patience for other processes, and only if it is a store of this version."""

import contextlib
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import duckdb

from ipsrec_bench.data.staging import alone, is_full
from ipsrec_bench.errors import StoreError

SCHEMA_VERSION = 5
PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.05

Connection = duckdb.DuckDBPyConnection


@contextlib.contextmanager
def reading(
    path: Path,
    patience: float = PATIENCE_SECONDS,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[Connection]:
    """Open the store at `path` for reading, for as short as possible: nobody can write meanwhile.

    Args:
        path: the store.
        patience: seconds to wait while another process has the store open.
        on_wait: called once, with a sentence on who is waited for.

    Raises:
        StoreError: there is no store, it is not one of this version, it is damaged, or another process keeps it locked.
    """
    if not path.exists():
        raise StoreError(f"{path}: there is no result store yet; run a suite first, or give its place with --store")
    with _open(path, read_only=True, patience=patience, on_wait=on_wait) as connection:
        _check_version(connection, path)
        yield connection


@contextlib.contextmanager
def writing(
    path: Path,
    patience: float = PATIENCE_SECONDS,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[Connection]:
    """Open the store at `path` for one transaction, making the file if need be; commit on success.

    Args:
        path: the store.
        patience: seconds to wait while another process has the store open.
        on_wait: told once, in a sentence, who is waited for.

    Raises:
        StoreError: the file is not a store of this version, is damaged, cannot be written, or stays locked.
    """
    try:
        if not path.exists():
            _create(path)
    except OSError as error:
        raise StoreError(f"{path}: the store cannot be made there: {error.strerror}") from None
    with _open(path, read_only=False, patience=patience, on_wait=on_wait) as connection:
        connection.begin()
        _check_version(connection, path)
        yield connection
        connection.commit()


@contextlib.contextmanager
def _open(
    path: Path,
    *,
    read_only: bool,
    patience: float,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[Connection]:
    deadline = time.monotonic() + patience
    while True:
        try:
            connection = duckdb.connect(str(path), read_only=read_only)
            break
        except duckdb.Error as error:
            if "Could not set lock on file" not in str(error):
                raise StoreError(f"{path}: cannot be opened as a result store: {_sentence(error)}") from None
            message = f"{path}: the store is locked by another process: {_holder(error)}"
            if time.monotonic() >= deadline:
                raise StoreError(f"{message}; close it, or give another place with --store") from None
            if on_wait is not None:
                on_wait(message)
                on_wait = None
            time.sleep(_PAUSE_SECONDS)
    with _in_sentences(path), connection:
        connection.execute("SET enable_progress_bar = false")  # it goes to standard output, whoever reads that
        yield connection


@contextlib.contextmanager
def _in_sentences(path: Path) -> Iterator[None]:
    """Turn what DuckDB says of the open store at `path` into one sentence.

    Raises:
        StoreError: DuckDB raised an error.
    """
    try:
        yield
    except duckdb.Error as error:
        if is_full(error):
            raise StoreError(f"{path}: the store cannot be written: the disk is full") from error
        raise StoreError(
            f"{path}: the store cannot be read or written, it may be damaged: {_sentence(error)}; restore a copy, or"
            " give another place with --store"
        ) from error


def _create(path: Path) -> None:
    """Make an empty store beside `path` and rename it at the end, so that a store of this name is always complete.

    One process at a time does so, and first removes what a dead one left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.part")
    with alone(path.parent):
        if path.exists():
            return
        for left in (new, new.with_name(f"{new.name}.wal")):
            left.unlink(missing_ok=True)
        try:
            with _in_sentences(path), duckdb.connect(str(new)) as connection:
                connection.execute(resources.files("ipsrec_bench.store").joinpath("schema.sql").read_text("utf-8"))
                connection.execute("INSERT INTO store VALUES (?, (now() AT TIME ZONE 'UTC'))", [SCHEMA_VERSION])
            new.rename(path)
        finally:
            for left in (new, new.with_name(f"{new.name}.wal")):
                left.unlink(missing_ok=True)


def _check_version(connection: Connection, path: Path) -> None:
    try:
        row = connection.execute("SELECT version FROM store").fetchone()
    except duckdb.Error:
        raise StoreError(f"{path}: this DuckDB file is not a result store of ipsrec-bench") from None
    if row is None or row[0] != SCHEMA_VERSION:
        raise StoreError(
            f"{path}: the store has schema version {row and row[0]}, this program reads {SCHEMA_VERSION}; use the"
            " version of ipsrec-bench that wrote it, or give another place with --store"
        )


def _sentence(error: duckdb.Error) -> str:
    return str(error).splitlines()[0]


def _holder(error: duckdb.Error) -> str:
    """Return who holds the lock, as far as DuckDB tells."""
    _, _, holder = _sentence(error).partition("Conflicting lock is held in ")
    return holder.partition(". ")[0] or _sentence(error)
