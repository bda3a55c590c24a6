"""The lock under which a study's journal is written."""

import os
from pathlib import Path

from filelock import FileLock
from optuna.storages.journal import JournalFileOpenLock

BLOCK = 1 << 16
"""Bytes that are read at a time in the search for the last line end."""


class SystemLock(JournalFileOpenLock):  # the base class of both has no public name
    """A lock of the operating system, which is released at once when its owner is killed.

    Optuna's own locks are files. A killed owner leaves its file behind, and the next process waits 30 seconds for it.
    An owner that was killed while it wrote, or whose disk was full, leaves an incomplete line. The next owner cuts it:
    a line appended to it would make both unreadable.
    """

    def __init__(self, journal: Path) -> None:
        lock = journal.with_name(f".{journal.name}.lock")
        super().__init__(str(lock))
        self._journal = journal
        self._lock = FileLock(lock)

    def acquire(self) -> bool:
        """Wait for the lock, take it, and cut what follows the journal's last complete line."""
        self._lock.acquire()
        try:
            cut_torn_end(self._journal)
        except BaseException:
            self._lock.release()
            raise
        return True

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


def cut_torn_end(journal: Path) -> None:
    """Cut what follows the last line end of `journal`: an incomplete line, or the zeros that a power cut leaves."""
    with journal.open("r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - BLOCK)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                end = begin + found + 1
                break
            end = begin
        if end < size:
            file.truncate(end)
