"""A run's part on another machine: a pool for its tasks, and copies of the files that the machine does not see.

Nothing here knows how calls reach the machine. They arrive one at a time, in the order in which they were made.
"""

import atexit
import contextlib
import hashlib
import json
import os
import pickle
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ipsrec_bench
from ipsrec_bench.data.prepared import PreparedDataset, load_prepared
from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import Emit, Event
from ipsrec_bench.files import scratch
from ipsrec_bench.run.executors.api import Outcome, Place, Slot, Task
from ipsrec_bench.run.executors.pool import Pool
from ipsrec_bench.run.workplace import PARENT, files_of

LISTEN_SECONDS = 0.2
"""How long a call listens to the pool, which is the longest that another call waits."""
CHUNK = 8 << 20
"""Bytes of a file that are sent in one call."""


@dataclass(frozen=True)
class DataAt:
    """A prepared dataset, as the coordinator names it to a node."""

    name: str
    path: Path
    """Absolute path on the coordinator's machine."""
    fingerprint: str


@dataclass(frozen=True)
class Modules:
    """The Python files in the folder from which a user's own models are imported."""

    folder: Path
    """Absolute path on the coordinator's machine."""
    files: Mapping[str, bytes]
    """Content by path within the folder."""


@dataclass(frozen=True)
class Ended:
    """A task of a node has ended."""

    outcome: Outcome
    """The result in a `Done` is pickled."""
    files: list[tuple[str, int]]
    """Names and sizes in bytes of its files that only the node has."""


@dataclass(frozen=True)
class Heard:
    """What happened on a node since the last call."""

    events: list[Event]
    ended: list[Ended]


class Node:
    """A pool of fresh processes on this machine, whose coordinator is elsewhere."""

    def __init__(self) -> None:
        self._pool: Pool
        self._events: list[Event] = []
        self._local: dict[str, Path] = {}
        """Folders that only this machine sees: of tasks by their keys, of data that is being received by its
        fingerprint."""
        self._removal: dict[str, contextlib.ExitStack] = {}
        """Removes these folders."""
        self._lasting = contextlib.ExitStack()

    def versions(self) -> dict[str, str]:
        """Return the versions that ranks depend on, by name."""
        return versions()

    def open(self, slots: Sequence[Slot], modules: Modules, environment: Mapping[str, str | None]) -> None:
        """Make the pool.

        Args:
            slots: slots of the pool.
            modules: copied to this machine, unless it sees the same files in the same folder.
            environment: the coordinator's environment variables; None for those that are unset there.
        """
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        # Processes of a pool import the main module of their parent, which must not be that of a cluster.
        vars(sys.modules["__main__"]).pop("__file__", None)
        folder = modules.folder
        if any(_content(folder / name) != content for name, content in modules.files.items()):
            folder = self._lasting.enter_context(scratch(_room("modules")))
            for name, content in modules.files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        # Processes of a pool inherit `sys.path` from their parent.
        sys.path[:] = [*(place for place in sys.path if place != str(modules.folder)), str(folder)]
        self._pool = Pool(slots, self._events.append, lambda: None)
        atexit.register(self.close)  # or the end of this process would wait for those of the pool

    def sees(self, folder: Path, mark: str, data: DataAt | None) -> tuple[bool, bool]:
        """Return whether this machine sees a task's folder, by the file `mark` in it, and whether it has the data."""
        return (folder / mark).exists(), data is None or _path_of(data) is not None

    def receive(self, name: str, file: str, chunk: bytes) -> None:
        """Append to a file in the folder called `name`, the key of a task or the fingerprint of data."""
        with (self._folder(name) / file).open("ab") as target:
            target.write(chunk)

    def keep_data(self, fingerprint: str) -> None:
        """Keep data whose files have all been received, for this run and later ones."""
        target = _room("data") / fingerprint
        with contextlib.suppress(OSError):  # another run has just put it there
            self._folder(fingerprint).rename(target)
        self.leave(fingerprint)
        if not target.exists():
            raise BenchError(f"{target}: the data cannot be kept there; make room, or set TMPDIR on the nodes")

    def begin(self, slot: Slot, key: str, work: bytes, data: DataAt | None, folder: Path | None) -> None:
        """Begin a task.

        Args:
            slot: an idle slot.
            key: key of the task.
            work: work of the task, pickled.
            data: the data that it works on, which this machine has.
            folder: folder of the task; None for one that only this machine sees.
        """
        loaded: Any = None
        if data is not None:
            path = _path_of(data)
            assert path is not None  # `sees` has found it, or it was received
            loaded = load_prepared(data.name, path)
        place = self._folder(key) if folder is None else folder
        self._pool.begin(slot, Task(key, partial(_do, work), loaded, place))

    def listen(self) -> Heard:
        """Return events and ended tasks, after a moment or as soon as a task ends."""
        ended = [Ended(outcome, self._files(outcome.key)) for outcome in self._pool.outcomes(LISTEN_SECONDS)]
        events = self._events.copy()
        self._events.clear()
        return Heard(events, ended)

    def read(self, key: str, file: str, offset: int) -> bytes:
        """Return the next bytes of a file of a task."""
        with (self._local[key] / file).open("rb") as source:
            source.seek(offset)
            return source.read(CHUNK)

    def leave(self, name: str) -> None:
        """Remove the folder that only this machine sees, if `name` has one."""
        if self._local.pop(name, None) is not None:
            self._removal.pop(name).close()

    def stop(self, key: str) -> None:
        """Ask a task to stop."""
        self._pool.stop(key)

    def kill(self, key: str, cause: str) -> None:
        """Kill the process of a task."""
        self._pool.kill(key, cause)

    def pause(self, *, held: bool) -> None:
        """Pause or resume tasks."""
        self._pool.pause(held=held)

    def close(self) -> None:
        """End all processes and remove what only this run needs here."""
        self._pool.close()
        for name in list(self._local):
            self.leave(name)
        self._lasting.close()

    def _folder(self, name: str) -> Path:
        if name not in self._local:
            removal = self._removal[name] = contextlib.ExitStack()
            self._local[name] = removal.enter_context(scratch(_room("tasks")))
        return self._local[name]

    def _files(self, key: str) -> list[tuple[str, int]]:
        if key not in self._local:
            return []
        return [(path.name, path.stat().st_size) for path in files_of(self._local[key]) if path.name != PARENT]


def versions() -> dict[str, str]:
    """Return this machine's versions that ranks depend on, by name; the toolkit's includes a hash of its code."""
    root, code = Path(ipsrec_bench.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        code.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    public = {name: version(name).partition("+")[0] for name in ("torch", "numpy")}  # torch+cpu, torch+cu130
    toolkit = f"{ipsrec_bench.__version__} (code {code.hexdigest()[:8]})"
    return {"ipsrec-bench": toolkit, **public, "Python": platform.python_version()}


def modules_in(folder: Path) -> Modules:
    """Return the modules and packages in a folder."""
    paths = [*folder.glob("*.py")]
    for package in folder.glob("*/__init__.py"):
        paths += package.parent.rglob("*.py")
    return Modules(folder.absolute(), {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})


def _do(work: bytes, place: Place, data: PreparedDataset, emit: Emit) -> bytes:
    """Run pickled work in a process of the pool, and return its pickled result: only the two ends know its classes."""
    try:
        do = pickle.loads(work)  # noqa: S301 (from the coordinator, whose code runs here anyway)
    except ModuleNotFoundError as error:
        raise BenchError(
            f"{place.worker}: the module '{error.name}' is missing; install it on every node, or put its file beside"
            " the suite"
        ) from None
    return pickle.dumps(do(place, data, emit))


def _path_of(data: DataAt) -> Path | None:
    """Return the data's path on this machine, the coordinator's or that of a copy; None if the data are not here."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        meta = json.loads((data.path / "meta.json").read_text(encoding="utf-8"))
        if meta.get("fingerprint") == data.fingerprint:
            return data.path
    copy = _room("data") / data.fingerprint
    return copy if copy.exists() else None


def _room(name: str) -> Path:
    """Return a folder on this machine's own disk that belongs to this user.

    Raises:
        BenchError: it belongs to another user.
    """
    root = Path(tempfile.gettempdir()) / f"ipsrec-bench-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise BenchError(f"{root}: belongs to another user; set TMPDIR on the nodes")
    (root / name).mkdir(exist_ok=True)
    return root / name


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
