"""Where the pages of a report lie, and whether they are up to date; light, for a run with nothing to do asks it."""

import re
from pathlib import Path

import ipsrec_bench

SUFFIXES = {"html": "html", "md": "md", "latex": "tex", "json": "json"}
CURRENT = ("html", "md")
"""Formats that `run` writes."""


def file_name(name: str) -> str:
    """Return `name` with nothing in it that is more than a letter of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)


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
