"""Where the pages of a report lie, and whether they are up to date; light, for a run with nothing to do asks it."""

import hashlib
import re
from pathlib import Path

import ipsrec_bench

SUFFIXES = {"html": "html", "md": "md", "latex": "tex", "json": "json"}
CURRENT = ("html", "md")
"""Formats that `run` writes."""


_PLAIN = re.compile(r"(?!(con|prn|aux|nul|com\d|lpt\d)(\.|$))[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*")
"""Names that every file system takes as they are and keeps apart; Windows has devices of the names left out."""
_MARKED = re.compile(r"--[0-9a-f]{8}$")
_TAKEN = {"studies", "checkpoints"}
"""Folders beside the store that are no reports."""
MOST_LETTERS = 40


def file_name(name: str) -> str:
    """Return a file's name for `name`, another one for every other name, whatever the file system makes of letters.

    A name of few lower-case letters, digits and inner `-`, `_` and `.` stands as it is; any other is spelt with what
    may stand in a file's name, and ends in a digest.
    """
    if len(name) <= MOST_LETTERS and _PLAIN.fullmatch(name) and not _MARKED.search(name) and name not in _TAKEN:
        return name
    spelt = re.sub(r"[^\w-]+", "_", name)[:MOST_LETTERS].strip("_-") or "suite"
    return f"{spelt}--{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def report_folder(folder: Path, suite: str) -> Path:
    """Return the place, below `folder`, of all files of the report on `suite`."""
    return folder / file_name(suite)


def page_path(folder: Path, suite: str, kind: str) -> Path:
    """Return the place, below `folder`, of the page on `suite` in the format `kind`."""
    return report_folder(folder, suite) / f"{file_name(suite)}.{SUFFIXES[kind]}"


def basis_path(folder: Path, suite: str) -> Path:
    """Return the place of the file that says what the pages on `suite` were made of.

    It is removed before any file of the report is written, and written again after the last one.
    """
    return report_folder(folder, suite) / ".basis"


def signature(basis: str) -> str:
    """Return what stands in that file if this code made the pages of `basis`."""
    package = Path(ipsrec_bench.__file__).parent
    files = (path for path in package.rglob("*.*") if "__pycache__" not in path.parts)
    changed = max(path.stat().st_mtime_ns for path in files)
    return f"{basis} ipsrec-bench {ipsrec_bench.__version__} {changed}"


def is_current(folder: Path, suite: str, basis: str) -> bool:
    """Return whether the pages that `run` writes on `suite` are there, and were made of `basis` by this code."""
    try:
        made_of = basis_path(folder, suite).read_text(encoding="utf-8")
    except OSError:
        return False
    return made_of == signature(basis) and all(page_path(folder, suite, kind).exists() for kind in CURRENT)
