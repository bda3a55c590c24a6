"""The folder beside the store that keeps runs apart: who trains which cell, with which files.

    <store>.d/cells/<key>/    the claim of a cell's owner, its best weights, and its result until the store has it
    <store>.d/trials/<name>/  the same for the trials of a search
    <store>.d/deaths.json     cells that ended their process

A claim is a lock of the operating system, which ends with its owner, however that dies.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from ipsrec_bench.errors import StoreError

KEPT = "record.safetensors"
"""File of a result that the store does not have yet."""
MOST_DEATHS = 2
"""How often a cell may end its process before it is passed over."""
_CLAIM, _OWNER = "claim", "owner.json"


@dataclass(frozen=True)
class Orphan:
    """What a dead process was at: a cell, or a trial of a search."""

    key: str
    title: str
    is_trial: bool


class Workplace:
    """The working files of all runs on one store."""

    def __init__(self, store: Path) -> None:
        self.checkpoints = store.with_name("checkpoints")
        """Folder of the best weights of all cells that ended, one file per key."""
        place = Path(os.path.realpath(store))  # a link and the file itself share their claims
        self._folder = place.with_name(f"{place.name}.d")
        self._cells, self._trials = self._folder / "cells", self._folder / "trials"
        self._deaths = self._folder / "deaths.json"

    @contextlib.contextmanager
    def claim(self, key: str, title: str) -> Iterator[Path | None]:
        """Claim a cell and give its folder; None while another process has it.

        What a dead owner left there is removed, unless a result lies there: that and its weights stay. At the end the
        folder is removed, unless a result still lies there.

        Args:
            key: of the cell.
            title: what a person calls it.

        Raises:
            StoreError: the folder cannot be written.
        """
        with self._held(self._cells / key, title) as folder:
            yield folder

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder of this process alone, which is removed at the end.

        Raises:
            StoreError: the folder cannot be written.
        """
        with self._held(self._trials / uuid4().hex, "") as folder:
            assert folder is not None  # nobody else knows the name
            yield folder

    @contextlib.contextmanager
    def _held(self, folder: Path, title: str) -> Iterator[Path | None]:
        with self._alone():
            lock = self._take(folder)
            if lock is not None:
                owner = {"pid": os.getpid(), "title": title}
                (folder / _OWNER).write_text(json.dumps(owner), encoding="utf-8")
        if lock is None:
            yield None
            return
        try:
            yield folder
        finally:
            with self._alone():
                self._leave(folder, lock)

    def sweep(self) -> None:
        """Remove what dead processes left, apart from results.

        Raises:
            StoreError: the folder cannot be written.
        """
        if not self._folder.exists():
            return
        with self._alone():
            for folder in self._folders():
                if (lock := self._take(folder)) is not None:
                    self._leave(folder, lock)

    def kept(self) -> list[str]:
        """Return the keys of the cells whose results wait for the store."""
        return sorted(path.parent.name for path in self._cells.glob(f"*/{KEPT}"))

    def orphan_of(self, pid: int) -> Orphan | None:
        """Return what the dead process `pid` was at; None if it was at nothing."""
        if not self._folder.exists():
            return None
        with self._alone():
            for folder in self._folders():
                lock = self._try(folder)
                if lock is None:
                    continue
                try:
                    owner = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
                    if owner["pid"] == pid and not (folder / KEPT).exists():
                        return Orphan(folder.name, owner["title"], folder.parent == self._trials)
                except (OSError, ValueError):
                    continue
                finally:
                    lock.release()
        return None

    def note_death(self, key: str, cause: str) -> int:
        """Write down that the cell `key` ended its process, and why; return how often it has done so."""
        with self._alone():
            deaths = self.deaths()
            deaths.setdefault(key, []).append(cause)
            self._write_deaths(deaths)
        return len(deaths[key])

    def deaths(self) -> dict[str, list[str]]:
        """Return why processes ended while they were at a cell, by its key."""
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

    def _folders(self) -> list[Path]:
        return [*self._cells.glob("*"), *self._trials.glob("*")]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other process make, take or remove folders meanwhile: a lock in a removed folder would hold nobody."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / "lock"):
                yield
        except OSError as error:
            raise StoreError(f"{self._folder}: cannot be written: {error.strerror or error}") from error

    def _take(self, folder: Path) -> FileLock | None:
        """Lock `folder`, made if need be, and empty it unless it has a result; None if another process has it."""
        folder.mkdir(parents=True, exist_ok=True)
        lock = self._try(folder)
        if lock is not None and not (folder / KEPT).exists():
            for path in folder.iterdir():
                if path.name == _CLAIM:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        return lock

    def _leave(self, folder: Path, lock: FileLock) -> None:
        if not (folder / KEPT).exists():
            shutil.rmtree(folder)
        lock.release()

    @staticmethod
    def _try(folder: Path) -> FileLock | None:
        lock = FileLock(folder / _CLAIM)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return lock
