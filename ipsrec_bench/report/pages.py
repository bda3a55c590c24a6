"""Paths of a report's pages, and whether these are up to date; imports little, so that a finished run answers fast."""

import hashlib
import re
from pathlib import Path

import ipsrec_bench

SUFFIXES = {"html": "html", "md": "md", "latex": "tex", "json": "json"}
CURRENT = ("html", "md")
"""Formats that `run` writes."""


_PLAIN = re.compile(r"(?!(con|prn|aux|nul|com\d|lpt\d)(\.|$))[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*")
"""Names that are valid and distinct on every file system; those left out are devices on Windows."""
_MARKED = re.compile(r"--[0-9a-f]{8}$")
SITE = "site"
"""Folder of the format `site`."""
_TAKEN = {"studies", "checkpoints", SITE}
"""Folders beside the store that are not reports."""
MOST_LETTERS = 40


def file_name(name: str) -> str:
    """Return a file name for `name`, distinct for distinct names on every file system.

    A short name of lower-case letters, digits and inner `-`, `_` and `.` is kept. In any other, other characters are
    replaced, and a digest is appended.
    """
    if len(name) <= MOST_LETTERS and _PLAIN.fullmatch(name) and not _MARKED.search(name) and name not in _TAKEN:
        return name
    spelt = re.sub(r"[^\w-]+", "_", name)[:MOST_LETTERS].strip("_-") or "suite"
    return f"{spelt}--{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def report_folder(folder: Path, suite: str) -> Path:
    """Return the folder, below `folder`, with all files of the report on `suite`."""
    return folder / file_name(suite)


def page_path(folder: Path, suite: str, kind: str) -> Path:
    """Return the path, below `folder`, of the page on `suite` in the format `kind`."""
    return report_folder(folder, suite) / f"{file_name(suite)}.{SUFFIXES[kind]}"


def basis_path(folder: Path, suite: str) -> Path:
    """Return the path of the file that records what the pages on `suite` were made from.

    It is removed before any file of the report is written, and written again after the last one.
    """
    return report_folder(folder, suite) / ".basis"


def signature(basis: str) -> str:
    """Return the content of that file if this code made the pages from `basis`."""
    package = Path(ipsrec_bench.__file__).parent
    files = (path for path in package.rglob("*.*") if "__pycache__" not in path.parts)
    changed = max(path.stat().st_mtime_ns for path in files)
    return f"{basis} ipsrec-bench {ipsrec_bench.__version__} {changed}"


def is_current(folder: Path, suite: str, basis: str) -> bool:
    """Return whether the pages that `run` writes on `suite` exist and were made from `basis` by this code."""
    try:
        made_of = basis_path(folder, suite).read_text(encoding="utf-8")
    except OSError:
        return False
    return made_of == signature(basis) and all(page_path(folder, suite, kind).exists() for kind in CURRENT)
