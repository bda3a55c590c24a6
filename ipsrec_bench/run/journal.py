"""The journal of a run: its events as JSON lines, one file per run, read by `ipsrec-bench watch`.

    <store>.d/runs/<name>.jsonl      the journal
    <store>.d/runs/<name>.control    what others ask of the run; see `control`
    <store>.d/runs/<name>.log        the output of a run in the background; see `detach`

A name holds the start time (UTC), the suite and the process number, so names sort by time. Each line is one `write`, so
only the last line can be incomplete. Nothing here imports torch or opens the store.
"""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from ipsrec_bench import __version__
from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import Event, RunClosed, RunOpened, RunStarted, StepDone, WorkerSeen, event_of
from ipsrec_bench.run.control import Control

KEPT_JOURNALS = 20
"""Number of journals per store; each new run removes the oldest ones, except those of live runs."""
THINNED_BYTES = 8 << 20
"""Steps are written once a second per worker up to this size, every two seconds at twice the size, and so on.

Eight workers then write about 150 MB in a week instead of more than a gigabyte.
"""
BACKLOG_BYTES = 1 << 20
"""Readers skip steps that lie further than this before the end: they are out of date."""
POLL_SECONDS = 0.25
BEAT_SECONDS = 10.0
"""Interval at which a run touches its journal, as a heartbeat for other machines."""
SILENT_SECONDS = 90.0
"""A run on another machine counts as dead after this long without a heartbeat; network disks show it late."""
_LONGEST_NAME = 60
_LONGEST_REASON = 500
_CHUNK = 1 << 16
_OFTEN = (b'{"event": "step-done"', b'{"event": "worker-seen"')


class Thinner:
    """Rate limit for `StepDone` and `WorkerSeen`, per worker; all other events pass."""

    def __init__(self) -> None:
        self._passed: dict[tuple[type[Event], str], float] = {}

    def passes(self, event: Event, seconds: float = 1.0) -> bool:
        """Return whether `event` is passed on, where `seconds` is the interval."""
        if not isinstance(event, StepDone | WorkerSeen):
            return True
        of = type(event), event.worker
        if 0 <= event.time - self._passed.get(of, -seconds) < seconds:
            return False
        self._passed[of] = event.time
        return True


class Journal:
    """The journal of a run of this process; a context manager.

    Args:
        store: the store's file; the journal lies beside it.
        suite: name of the suite, or of whatever else is run.
    """

    def __init__(self, store: Path, suite: str) -> None:
        self._store, self._suite = store, suite
        self.control = Control(None)
        """Requests from other terminals; polls nothing until the journal is open."""
        self.path: Path | None = None
        self._error: OSError | None = None
        self._file = -1
        self._size = 0
        self._is_torn = False
        """Whether a line was begun that could not be ended."""
        self._thinner = Thinner()
        self._has_nothing = False
        """Whether the run trains nothing: its journal would hide that of the run that did."""
        self._closing = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        """Open the journal; an error is raised by the first `write` instead, where listeners are isolated."""
        try:
            folder = runs_folder(self._store)
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            self._open(folder)
            self._append(_opened(self._store, self._suite))
            self._heart.start()
        except OSError as error:
            self._error = error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write how the run ended, and close the file."""
        self._closing.set()
        if self._heart.is_alive():
            self._heart.join()
        if self._file >= 0:
            with contextlib.suppress(OSError):
                self._append(RunClosed(_reason(error)))
            os.close(self._file)
            self._file = -1
            if self._has_nothing and self.path is not None:
                self.path.unlink(missing_ok=True)
        self.control.clear()

    def write(self, event: Event) -> None:
        """Append an event, unless the rate limit drops it.

        Raises:
            OSError: the journal could not be opened, or cannot be written.
        """
        if self._error is not None:
            raise self._error
        if isinstance(event, RunStarted):
            self._has_nothing = event.cells == event.skipped
        if self._thinner.passes(event, max(1.0, self._size / THINNED_BYTES)):
            self._append(event)

    def _open(self, folder: Path) -> None:
        now = datetime.now(UTC)
        suite = re.sub(r"[^\w-]+", "-", self._suite, flags=re.ASCII)[:_LONGEST_NAME].strip("-") or "suite"
        name = f"{now:%Y%m%d-%H%M%S.%f}-{suite}-{os.getpid()}"
        others = 0  # on another machine, a process of the same number may begin a run at the same time
        while True:
            self.path = folder / f"{name}{f'-{others}' if others else ''}.jsonl"
            try:
                self._file = os.open(
                    self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666
                )
            except FileExistsError:
                others += 1
                continue
            self.control = Control(control_path(self.path))
            return

    def _append(self, event: Event) -> None:
        line = (b"\n" if self._is_torn else b"") + event.to_json().encode("ascii") + b"\n"
        self._size += len(line)
        self._is_torn = True
        while line:
            line = line[os.write(self._file, line) :]  # on a full disk, part of a line, and then an error
        self._is_torn = False

    def _beat(self) -> None:
        while not self._closing.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._file)


def runs_folder(store: Path) -> Path:
    """Return where the journals of the runs on `store` lie."""
    place = Path(os.path.realpath(store))  # a link and the file itself share their journals
    return place.with_name(f"{place.name}.d") / "runs"


def control_path(journal: Path) -> Path:
    """Return the file by which others reach the run of `journal`."""
    return journal.with_suffix(".control")


def journals(store: Path) -> list[Path]:
    """Return the journals of the runs on `store`, the newest last."""
    return sorted(runs_folder(store).glob("*.jsonl"))


def newest(store: Path, suite: str | None = None, *, live: bool = False) -> Path | None:
    """Return the journal of the newest run on `store`.

    Args:
        store: the store's file.
        suite: name of the suite that is meant; any if None.
        live: consider live runs only.

    Returns:
        The journal; None if there is no such run.
    """
    for path in reversed(journals(store)):
        opened = header(path)
        if (suite is None or (opened is not None and opened.suite == suite)) and (not live or is_live(path)):
            return path
    return None


def header(journal: Path) -> RunOpened | None:
    """Return the first line of a journal; None if there is none yet, or it is damaged."""
    with contextlib.suppress(OSError), journal.open("rb") as file:
        first = event_of(file.readline())
        return first if isinstance(first, RunOpened) else None
    return None


def is_live(journal: Path) -> bool:
    """Return whether the run of a journal is still going on."""
    try:
        with journal.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _CHUNK))
            last = event_of(file.read().rpartition(b"\n")[0].rpartition(b"\n")[2])
    except OSError:
        return False
    return not isinstance(last, RunClosed) and _Pulse(journal).beats()


def follow(
    journal: Path, begin: int = 0, seconds: float | None = None, stop: threading.Event | None = None
) -> Iterator[Event]:
    """Yield the events of a journal as they are appended to it.

    Ends with a `RunClosed`: the run's own, or, if its process is gone without one, one made here that says so.

    Args:
        journal: the journal's file.
        begin: offset in bytes at which to start.
        seconds: stop after this long in any case; None for no limit.
        stop: ends the iteration when it is set.

    Raises:
        BenchError: the journal cannot be read.
    """
    pulse, reader, since = _Pulse(journal), _Reader(journal, begin), time.monotonic()
    stop = stop or threading.Event()
    while not stop.is_set():
        is_alive = pulse.beats()  # before reading: what was written until then is read below
        before = reader.place
        try:
            for event in reader.events():
                yield event
                if isinstance(event, RunClosed):
                    return
        except FileNotFoundError:
            yield RunClosed("its journal was removed")
            return
        except OSError as error:
            raise BenchError(f"{journal}: cannot be read: {error.strerror}; check its permissions") from error
        if reader.place == before and not is_alive:
            yield RunClosed(_lost(header(journal)))
            return
        if seconds is not None and time.monotonic() - since >= seconds:
            return
        if reader.place == before:
            stop.wait(POLL_SECONDS)


class _Reader:
    """Reads a journal from where it last stopped."""

    def __init__(self, journal: Path, begin: int) -> None:
        self.place = begin
        """Offset up to which it was read, in bytes."""
        self._journal = journal
        self._rest = b""

    def events(self) -> Iterator[Event]:
        """Yield the events of all complete new lines."""
        with self._journal.open("rb") as file:  # opened anew, or a network disk may show what it was
            end = file.seek(0, os.SEEK_END)
            file.seek(self.place)
            while chunk := file.read(_CHUNK):
                self.place += len(chunk)
                is_old = end - self.place > BACKLOG_BYTES
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                for line in lines:
                    event = None if is_old and line.startswith(_OFTEN) else event_of(line)
                    if event is not None:
                        yield event


class _Pulse:
    """Whether the process that writes a journal is alive, as far as this machine can tell."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._opened: RunOpened | None = None
        self._touched: int | None = None
        self._since = 0.0

    def beats(self) -> bool:
        """Return whether it is alive: by its number on this machine, by its heartbeat on another one."""
        self._opened = self._opened or header(self._journal)
        if self._opened is not None and self._opened.machine == machine():
            return process_start(self._opened.pid) == self._opened.started
        try:
            touched = self._journal.stat()
        except OSError:
            return False
        now = time.monotonic()
        if touched.st_mtime_ns != self._touched:  # from the second look on, only this machine's clock counts
            age = 0.0 if self._touched is not None else max(0.0, time.time() - touched.st_mtime)
            self._touched, self._since = touched.st_mtime_ns, now - age
        return now - self._since < SILENT_SECONDS


@cache
def machine() -> str:
    """Return what identifies the booted system and its namespace, in which process numbers are valid."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return socket.gethostname()  # not Linux


def process_start(pid: int) -> str | None:
    """Return the start time of process `pid` in its system's own units; None if there is no such process."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # the name may hold blanks
        except OSError:
            return None
        return None if fields[0] in (b"Z", b"X") else fields[19].decode("ascii")
    asked = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or None  # noqa: S603


def _opened(store: Path, suite: str) -> RunOpened:
    return RunOpened(
        suite=suite,
        store=os.path.realpath(store),
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=machine(),
        started=process_start(os.getpid()) or "",
        command=shlex.join(sys.argv),
        version=__version__,
    )


def _lost(opened: RunOpened | None) -> str:
    if opened is None:
        return f"its process has given no sign of life for {SILENT_SECONDS:g} s"
    process = f"its process, {opened.pid} on {opened.host},"
    if opened.machine == machine():
        return f"{process} was killed"
    return f"{process} has given no sign of life for {SILENT_SECONDS:g} s"


def _reason(error: BaseException | None) -> str:
    if error is None:
        return ""
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted"
    text = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
    return text[:_LONGEST_REASON]


def _sweep(folder: Path) -> None:
    """Remove the oldest journals, with the files beside them."""
    for path in sorted(folder.glob("*.jsonl"))[: -KEPT_JOURNALS + 1]:
        if not is_live(path):
            for suffix in (".control", ".log", ".jsonl"):
                with contextlib.suppress(OSError):  # another user's, or another run was faster
                    path.with_suffix(suffix).unlink()
