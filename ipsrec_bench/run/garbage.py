"""Garbage collection: files beside a store that none of its cells needs."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ipsrec_bench.errors import StoreError
from ipsrec_bench.run.workplace import Workplace
from ipsrec_bench.store.health import keys_of, stores_in

_CHECKPOINT = re.compile(r"([0-9a-f]{32})\.safetensors")
CHECKPOINT, STATE, TRIAL = "checkpoint", "unfinished training", "abandoned trial"
LOCK_SECONDS = 10.0
"""Maximum wait for a process that makes or removes folders beside the store."""


@dataclass(frozen=True)
class Unneeded:
    """A file, or a folder with its content."""

    path: Path
    what: str
    files: int
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Garbage:
    """Files that no cell needs, and why some were not checked."""

    found: tuple[Unneeded, ...]
    not_looked_at: str
    """A sentence; empty if everything was checked."""


def collect(store: Path, *, dry_run: bool) -> Garbage:
    """Remove the files beside `store` that none of its cells needs, and return what they were.

    These are checkpoints of keys that are complete in no store of the folder (all of them share `checkpoints/`),
    folders of cells that are complete or that no suite's newest run plans, and folders of trials. Whatever a live
    process has claimed is kept, and so is a result that waits for the store.

    Args:
        store: the store's file.
        dry_run: remove nothing.

    Raises:
        MissingStoreError: the store does not exist, so it is unknown what is needed.
        StoreError: the store cannot be read, or a file cannot be removed.
    """
    workplace = Workplace(store)
    # The order matters for runs on other stores: a cell that is trained meanwhile has its folder before its checkpoint.
    checkpoints = [path for path in workplace.checkpoints.glob("*") if _CHECKPOINT.fullmatch(path.name)]
    before = {path: _inode(path) for path in checkpoints}
    with workplace.looked_at(LOCK_SECONDS) as places:
        at_work = {folder.name for folder in workplace.checkpoints.parent.glob("*.d/cells/*")}
        keys, not_looked_at = keys_of(store), ""
        needed = {*at_work, *keys.complete}
        try:
            for other in stores_in(workplace.checkpoints.parent):
                if not other.samefile(store):
                    needed |= keys_of(other).complete
        except StoreError as error:
            not_looked_at = f"{workplace.checkpoints}: nothing is removed there, since a store may need it: {error}"
            checkpoints = []
        found = [_of_file(path) for path in sorted(checkpoints) if path.stem not in needed]
        for place in sorted(places, key=lambda place: place.folder):
            if place.is_held or place.is_kept:
                continue
            if place.is_trial:
                found.append(_of_folder(place.folder, TRIAL))
            elif place.folder.name in keys.complete or place.folder.name not in keys.planned:
                found.append(_of_folder(place.folder, STATE))
        for one in () if dry_run else found:
            _remove(one.path, before.get(one.path))
    return Garbage(tuple(found), not_looked_at)


def in_words(garbage: Garbage, *, removed: bool) -> str:
    """Return how many files of which kind `garbage` has, and how large they are, as a sentence."""
    if not garbage.found:
        return "There is nothing to remove"
    counts = {what: sum(one.what == what for one in garbage.found) for what in (CHECKPOINT, STATE, TRIAL)}
    kinds = ", ".join(_counted(count, what) for what, count in counts.items() if count)
    files, size = sum(one.files for one in garbage.found), sum(one.size for one in garbage.found)
    return f"{'Removed' if removed else 'Would remove'} {_counted(files, 'file')}, {size / 2**20:,.1f} MiB: {kinds}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _of_file(path: Path) -> Unneeded:
    return Unneeded(path, CHECKPOINT, 1, path.stat().st_size)


def _of_folder(folder: Path, what: str) -> Unneeded:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return Unneeded(folder, what, len(files), sum(path.stat().st_size for path in files))


def _inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def _remove(path: Path, before: tuple[int, int] | None) -> None:
    """Remove a folder, or a file unless it was replaced since it was found."""
    try:
        if path.is_dir():
            shutil.rmtree(path)
        elif _inode(path) == before:
            path.unlink()
    except FileNotFoundError:
        pass  # another process was first
    except OSError as error:
        raise StoreError(f"{path}: cannot be removed: {error.strerror}") from error
