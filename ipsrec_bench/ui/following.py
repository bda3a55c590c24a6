"""Following a run through its journal, in threads that end with the program."""

import threading
import time
from datetime import datetime
from pathlib import Path

from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import Event, RunClosed, RunFinished
from ipsrec_bench.run.journal import follow
from ipsrec_bench.tui.log import plain_line
from ipsrec_bench.tui.state import RunState, fold
from ipsrec_bench.words import visible


class Follower:
    """The state of the run that a journal is of, as far as it is read; `state` may be read from any thread.

    Args:
        journal: the journal's file; its thread starts at once.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.state = RunState()
        self.closed: str | None = None
        """Why the run ended: empty if it came to its end, None while it goes on."""
        self.problem = ""
        """Why the journal cannot be read."""
        self._last: Event | None = None
        self._stop = threading.Event()
        threading.Thread(target=self._follow, daemon=True).start()

    @property
    def now(self) -> float:
        """The time that the state is shown at, in seconds since 1970: the present, or the end of the run."""
        if isinstance(self._last, RunFinished | RunClosed):
            return self._last.time
        return time.time()

    @property
    def ended(self) -> int:
        """How many cells have ended; the store has news when this changes."""
        return self.state.done + len(self.state.failed)

    def stop(self) -> None:
        """Read no further."""
        self._stop.set()

    def _follow(self) -> None:
        try:
            for event in follow(self.journal, stop=self._stop):
                if isinstance(event, RunClosed):
                    self.closed = event.reason
                self.state, self._last = fold(self.state, event), event
        except BenchError as error:
            self.problem = str(error)


class LogReader:
    """The plain lines of a journal; `lines` only grows, and may be read from any thread.

    Args:
        journal: the journal's file; its thread starts at once.
    """

    def __init__(self, journal: Path) -> None:
        self.lines: list[str] = []
        self._journal = journal
        self._stop = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def stop(self) -> None:
        """Read no further."""
        self._stop.set()

    def _read(self) -> None:
        try:
            for event in follow(self._journal, stop=self._stop):
                at = datetime.fromtimestamp(event.time).astimezone()
                line = plain_line(event, at)
                if line is not None:
                    self.lines.append(line)
                if isinstance(event, RunClosed) and event.reason:
                    self.lines.append(f"The run ended early: {visible(event.reason)}")
        except BenchError as error:
            self.lines.append(visible(str(error)))
