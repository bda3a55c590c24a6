"""Requests to a live run: one word in a file beside its journal, which the run polls."""

import contextlib
import time
from pathlib import Path
from typing import Literal, cast, get_args

from ipsrec_bench.errors import BenchError
from ipsrec_bench.files import replace_files

Wanted = Literal["run", "pause", "stop", "stop-now"]
FINAL = ("stop", "stop-now")
"""Requests that later ones do not take back."""
POLL_SECONDS = 0.25
"""Minimum seconds between two reads of the file."""


class Control:
    """The run's side: reads requests.

    Args:
        path: the file; None if there are no requests to read.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._wanted: Wanted = "run"
        self._next = 0.0

    def wanted(self) -> Wanted:
        """Return the latest request, `run` if there is none. Reads the file a few times a second at most."""
        now = time.monotonic()
        if self._path is not None and now >= self._next:
            self._next = now + POLL_SECONDS
            word = asked(self._path, self._wanted)
            if word in FINAL or self._wanted not in FINAL:
                self._wanted = word
        return self._wanted

    def clear(self) -> None:
        """Remove the file: the run is over."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


def asked(path: Path, before: Wanted = "run") -> Wanted:
    """Return the word in the file: `run` if there is no file, `before` if it cannot be read or understood."""
    try:
        word = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return "run"
    except (OSError, ValueError):  # a network disk is away for a moment: a run that was paused stays so
        return before
    return cast("Wanted", word) if word in get_args(Wanted) else before


def ask(path: Path, word: Wanted) -> None:
    """Write a request to a run.

    Raises:
        BenchError: the file cannot be written.
    """
    try:
        replace_files(path.parent, {path.name: f"{word}\n"})
    except OSError as error:
        raise BenchError(f"{path}: cannot be written: {error.strerror}; the run is left as it is") from error
