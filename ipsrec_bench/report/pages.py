"""Where the pages of a report lie, and whether they are up to date; light, for a run with nothing to do asks it."""

import re
from os import SEEK_END
from pathlib import Path

from ipsrec_bench import __version__

SUFFIXES = {"html": "html", "md": "md", "latex": "tex", "json": "json"}


def file_name(name: str) -> str:
    """Return `name` with nothing in it that is more than a letter of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)


def page_path(folder: Path, suite: str, kind: str) -> Path:
    """Return the place, below `folder`, of the page on `suite` in the format `kind`."""
    name = file_name(suite)
    return folder / name / f"{name}.{SUFFIXES[kind]}"


def signature(basis: str) -> str:
    """Return the last line of an HTML page that this version made of `basis`."""
    return f"<!-- ipsrec-bench {__version__}, made of {basis} -->"


def is_current(folder: Path, suite: str, basis: str) -> bool:
    """Return whether the HTML and Markdown pages on `suite` are complete, and made of `basis` by this version."""
    last = f"{signature(basis)}\n".encode()
    try:
        with page_path(folder, suite, "html").open("rb") as page:
            page.seek(-len(last), SEEK_END)
            return page.read() == last and page_path(folder, suite, "md").exists()
    except OSError:  # there is no page, or it is shorter than that line
        return False
