"""Atomic creation of folders."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb

from ipsrec_bench.errors import DataError


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path | None]:
    """Yield an empty folder to fill, which is renamed to `target` at the end; yield None if `target` exists.

    One process at a time creates folders beside `target`; the others wait, and then find it complete. What a killed
    process has left of it is removed.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target.parent):
            if target.exists():
                yield None
                return
            folder = target.with_name(f".{target.name}.part")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                yield folder
                folder.rename(target)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except (OSError, duckdb.IOException, duckdb.OutOfMemoryException) as error:
        reason = "the disk is full" if is_full(error) else str(error).splitlines()[0]
        raise DataError(f"{target}: cannot be written: {reason}; nothing was kept") from error


def left_behind(folder: Path) -> list[Path]:
    """Return the unfinished folders that killed processes have left in `folder`; none while one is being created."""
    if not folder.is_dir():
        return []
    with _if_free(folder) as free:
        return sorted(path for path in folder.glob(".*.part") if path.is_dir()) if free else []


def sweep(folder: Path) -> None:
    """Remove what `left_behind` returns.

    Raises:
        OSError: the folder cannot be opened.
    """
    with _if_free(folder) as free:
        for path in folder.glob(".*.part") if free else ():
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _if_free(folder: Path) -> Iterator[bool]:
    """Hold the lock of `folder` unless another process does; yield whether it is held."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        free = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            free = False
        yield free
    finally:
        os.close(handle)


def is_full(error: Exception) -> bool:
    """Return whether `error` is a message of the system, DuckDB or numpy that a disk or a quota is exhausted."""
    words = (os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    return any(word in str(error) for word in (*words, "max_temp_directory_size", "requested and"))


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; the system releases it if the process is killed."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
