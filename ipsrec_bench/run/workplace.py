"""The folder beside the store that keeps runs apart: who trains which cell, with which files.

    <store>.d/cells/<key>/    a running or resumable cell: its claim, the state of its training, its best weights,
                              its worker's output, and its result until the store has it
    <store>.d/trials/<name>/  the same for the trials of a search
    <store>.d/deaths.json     cells that ended their process
    <store>.d/recorded        one byte per recorded cell; other runs notice new results by its size

A claim is a lock of the operating system, which is released when its owner dies for whatever reason. It belongs to the
process that hands out the cell. The process that works in the folder holds a second lock, so that a folder in which an
orphaned worker still writes is not claimed again.
"""

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from ipsrec_bench.errors import StoreError

KEPT = "record.safetensors"
"""File of a result that the store does not have yet."""
PARENT = "parent.safetensors"
"""File of the best weights of another cell, whose model the cell of the folder ranks."""
STATE = "state.safetensors"
"""File of a training that can be resumed."""
REFIT_STATE = "refit.safetensors"
"""Likewise, of the second training of a cell with `training.refit`."""
LOG = "log"
"""File of a worker's output while it ran a cell."""
MOST_DEATHS = 2
"""How often a cell may end its process before it is skipped."""
_CLAIM, _AT_WORK, _OWNER = "claim", "at-work", "owner.json"
_LOCKS = {_CLAIM, _AT_WORK}


@dataclass(frozen=True, eq=False)
class Claim:
    """A folder that this process owns until it releases it."""

    folder: Path
    _workplace: "Workplace"
    _lock: FileLock

    def give_back(self, *, done: bool = False) -> None:
        """Release the folder for other claims; remove it if it is `done`, or holds nothing to resume.

        Raises:
            StoreError: the folder cannot be written.
        """
        if self._lock.is_locked:
            self._workplace.leave(self, done=done)


@dataclass(frozen=True)
class WorkFolder:
    """The folder of a cell or of a trial."""

    folder: Path
    is_trial: bool
    is_held: bool
    """Whether a living process has claimed it, or works in it."""

    @property
    def is_kept(self) -> bool:
        """Whether it holds a result that the store does not have yet."""
        return (self.folder / KEPT).exists()

    @property
    def goes_on(self) -> bool:
        """Whether it holds something that the next run needs: a result, or the state of a training."""
        return not self.is_trial and _goes_on(self.folder)

    @property
    def title(self) -> str:
        """The title that its last owner gave it; the folder's name if there is none."""
        try:
            title = json.loads((self.folder / _OWNER).read_text(encoding="utf-8"))["title"]
        except (OSError, ValueError, KeyError, TypeError):
            title = ""
        return title or self.folder.name


class Workplace:
    """The working files of all runs on one store."""

    def __init__(self, store: Path) -> None:
        self.checkpoints = store.with_name("checkpoints")
        """Folder of the best weights of all cells that ended, one file per key."""
        place = Path(os.path.realpath(store))  # a link and the file itself share their claims
        self.folder = place.with_name(f"{place.name}.d")
        self._cells, self._trials = self.folder / "cells", self.folder / "trials"
        self._deaths = self.folder / "deaths.json"
        self._recorded = self.folder / "recorded"

    def claim(self, key: str, title: str) -> Claim | None:
        """Claim a cell; None while another process has it.

        A result or a training state that a dead owner left is kept, with its best weights; other files are removed.

        Args:
            key: key of the cell.
            title: name of the cell in messages.

        Raises:
            StoreError: the folder cannot be written.
        """
        return self._claim(self._cells / key, title)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a folder for this process alone; it is removed at the end of the block.

        Raises:
            StoreError: the folder cannot be written.
        """
        claim = self._claim(self._trials / uuid4().hex, "")
        assert claim is not None  # nobody else knows the name
        try:
            yield claim.folder
        finally:
            claim.give_back(done=True)

    def _claim(self, folder: Path, title: str) -> Claim | None:
        with self._alone():
            lock = self._take(folder)
            if lock is None:
                return None
            owner = {"host": socket.gethostname(), "pid": os.getpid(), "title": title}
            (folder / _OWNER).write_text(json.dumps(owner), encoding="utf-8")
        return Claim(folder, self, lock)

    def leave(self, claim: Claim, *, done: bool) -> None:
        """Give a claim back; see `Claim.give_back`."""
        with self._alone():
            self._leave(claim.folder, claim._lock, done=done)  # noqa: SLF001 (its own part)

    def sweep(self) -> None:
        """Remove what dead processes left, except for results and trainings that can be resumed.

        Raises:
            StoreError: the folder cannot be written.
        """
        if not self.folder.exists():
            return
        with self._alone():
            for folder in (*self._cells.glob("*"), *self._trials.glob("*")):
                if (lock := self._take(folder)) is not None:
                    self._leave(folder, lock, done=folder.parent == self._trials)

    @contextlib.contextmanager
    def looked_at(self, seconds: float = -1) -> Iterator[list[WorkFolder]]:
        """Yield the folders of all cells and trials, and which are in use; none can be claimed until the block ends.

        Args:
            seconds: how long to wait while another process makes or removes folders; forever if negative.

        Raises:
            StoreError: a folder cannot be written, or the wait timed out.
        """
        if not self.folder.exists():
            yield []
            return
        with self._alone(seconds):
            found = []
            for folder in (*self._cells.glob("*"), *self._trials.glob("*")):
                locks = [_lock(folder / name) for name in _LOCKS]
                for lock in locks:
                    if lock is not None:
                        lock.release()
                found.append(WorkFolder(folder, folder.parent == self._trials, None in locks))
            yield found

    def kept(self) -> list[str]:
        """Return the keys of the cells whose results wait for the store."""
        return sorted(path.parent.name for path in self._cells.glob(f"*/{KEPT}"))

    def tell_recorded(self) -> None:
        """Notify other runs that the store has a new cell. Call this before the claim is released."""
        with self._alone(), self._recorded.open("ab") as file:
            file.write(b".")

    def recorded(self) -> int:
        """Return how many cells runs have recorded so far."""
        try:
            return self._recorded.stat().st_size
        except OSError:
            return 0

    def note_death(self, key: str, cause: str) -> int:
        """Record that the cell `key` ended its process, and why; return how often it has done so."""
        with self._alone():
            deaths = self.deaths()
            deaths.setdefault(key, []).append(cause)
            self._write_deaths(deaths)
        return len(deaths[key])

    def deaths(self) -> dict[str, list[str]]:
        """Return why processes ended while they ran a cell, by its key."""
        try:
            found: dict[str, list[str]] = json.loads(self._deaths.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found

    def forget_deaths(self, keys: Collection[str]) -> None:
        """Forget that cells ended their processes."""
        if keys & self.deaths().keys():
            with self._alone():
                self._write_deaths({key: causes for key, causes in self.deaths().items() if key not in keys})

    def _write_deaths(self, deaths: dict[str, list[str]]) -> None:
        new = self._deaths.with_suffix(".part")
        new.write_text(json.dumps(deaths, indent=2), encoding="utf-8")
        new.replace(self._deaths)

    @contextlib.contextmanager
    def _alone(self, seconds: float = -1) -> Iterator[None]:
        """Keep other processes from making, claiming or removing folders: a lock in a removed folder excludes none."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "lock", timeout=seconds):
                yield
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be written: {error.strerror or error}") from error

    def _take(self, folder: Path) -> FileLock | None:
        """Lock `folder`, made if missing, and remove what cannot be resumed; None if another process is there."""
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder / _CLAIM)
        if lock is None:
            return None
        worker = _lock(folder / _AT_WORK)
        if worker is None:  # an orphan, which is about to end
            lock.release()
            return None
        goes_on = _goes_on(folder)
        for path in folder.iterdir():
            if path.name in _LOCKS or (goes_on and not path.name.endswith(".part")):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        worker.release()
        return lock

    def _leave(self, folder: Path, lock: FileLock, *, done: bool) -> None:
        if done or not _goes_on(folder):
            shutil.rmtree(folder)
        lock.release()


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Show other processes that this one works in a folder that was claimed for it."""
    with FileLock(folder / _AT_WORK):
        yield


def files_of(folder: Path) -> list[Path]:
    """Return the files of a task in its folder, the result last; locks and unfinished files are skipped."""
    passed_over = {*_LOCKS, _OWNER}
    paths = [path for path in folder.iterdir() if path.is_file() and path.name not in passed_over]
    return sorted((path for path in paths if path.suffix != ".part"), key=lambda path: (path.name == KEPT, path.name))


def _goes_on(folder: Path) -> bool:
    return any((folder / name).exists() for name in (KEPT, STATE))


def _lock(path: Path) -> FileLock | None:
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock
