"""The lock under which a study's journal is written."""

from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import JournalFileOpenLock


class SystemLock(JournalFileOpenLock):  # the base class of both has no public name
    """A lock of the operating system, which is free at once when its owner is killed.

    Optuna's own locks are files that a killed owner leaves behind, and that the next process waits 30 seconds for.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        """Wait until the lock is free, and take it."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        """Let processes that share a study each open the lock anew."""
        return SystemLock, (self._path,)
