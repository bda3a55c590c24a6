"""Atomic writes of files for people to read: a file is replaced only once the new one is complete."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

_PREFIX, _SUFFIX = ".ipsrec-bench-", ".part"


def replace_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write `files` into `folder`, creating it if necessary; readers never see a partial file.

    All files are first written to a temporary folder inside `folder` and then renamed, in the order of `files`. If the
    disk is full, every old file stays as it was. If the process is killed, each file is either old or new, and the next
    call removes the temporary folder.

    Args:
        folder: the folder of the files.
        files: content by file name; text is written as UTF-8.

    Raises:
        OSError: the folder cannot be created, or a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with scratch(folder) as staging:
        for name, content in files.items():
            new, old = staging / name, folder / name
            new.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
            with contextlib.suppress(OSError):
                shutil.copymode(old, new)
        for name in files:
            (staging / name).replace(folder / name)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path whose file replaces `path` at the end; readers never see a partial file.

    A device or a pipe cannot be replaced, so `path` itself is yielded. After an error the old file is unchanged.

    Raises:
        OSError: the folder cannot be created, or the file cannot be replaced.
    """
    path = path.absolute()
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch(path.parent) as staging:
        new = staging / path.name
        yield new
        with contextlib.suppress(OSError):
            shutil.copymode(path, new)
        new.replace(path)


def left_behind(folder: Path) -> list[Path]:
    """Return the temporary folders that killed processes have left in `folder`."""
    left = []
    for path in sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}")):
        with contextlib.suppress(OSError), _handle(path) as mark:
            if _lock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB):
                left.append(path)
    return left


def sweep(folder: Path) -> None:
    """Remove the temporary folders that killed processes have left in `folder`.

    Raises:
        OSError: the folder cannot be opened.
    """
    with _handle(folder) as parent:
        _lock(parent, fcntl.LOCK_EX)
        _sweep(folder)


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Create a temporary folder in `folder`, locked while its process lives, and remove it at the end."""
    with _handle(folder) as parent:
        _lock(parent, fcntl.LOCK_EX)  # so that no process sweeps a new folder before it is locked
        _sweep(folder)
        staging = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=_SUFFIX, dir=folder))
        mark = os.open(staging, os.O_RDONLY)
        _lock(mark, fcntl.LOCK_EX)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(mark)


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left in `folder`, whose lock the caller holds."""
    for left in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError), _handle(left) as mark:
            if _lock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _handle(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _lock(handle: int, how: int) -> bool:
    """Lock an open folder until it is closed; return False if that fails, as on network file systems without locks."""
    try:
        fcntl.flock(handle, how)
    except OSError:
        return False
    return True
