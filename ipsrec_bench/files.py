"""Files for people to read: each is replaced only once its successor is whole."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

_PREFIX, _SUFFIX = ".ipsrec-bench-", ".part"


def replace_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write `files` into `folder`, which is made if need be; no reader ever finds half a file.

    All of them are written beside their places first and then renamed, in the order of `files`. A full disk leaves
    every old file as it was. A kill leaves each file either old or new; what it leaves beside them is removed by the
    next call.

    Args:
        folder: where they lie.
        files: content by file name; text is written as UTF-8.

    Raises:
        OSError: the folder cannot be made, or a file cannot be written.
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
    """Yield the path of a new file beside `path`, which takes its place at the end; no reader ever finds half a file.

    A device or a pipe cannot be replaced; then `path` itself is yielded. After an error the old file is as it was.

    Raises:
        OSError: the folder cannot be made, or the file cannot be put there.
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
    """Return what killed processes have left of their writing in `folder`."""
    left = []
    for path in sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}")):
        with contextlib.suppress(OSError), _handle(path) as mark:
            if _lock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB):
                left.append(path)
    return left


def sweep(folder: Path) -> None:
    """Remove what killed processes have left of their writing in `folder`.

    Raises:
        OSError: the folder cannot be opened.
    """
    with _handle(folder) as parent:
        _lock(parent, fcntl.LOCK_EX)
        _sweep(folder)


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Make a folder within `folder` that is locked while its maker lives, and remove it at the end."""
    with _handle(folder) as parent:
        _lock(parent, fcntl.LOCK_EX)  # nobody takes a folder that is not locked yet for a dead process's
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
    """Remove what killed processes have left in `folder`."""
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
    """Lock an open folder until it is closed; return whether that worked: some network file systems have no locks."""
    try:
        fcntl.flock(handle, how)
    except OSError:
        return False
    return True
