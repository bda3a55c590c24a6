"""Logs of failed cells, as a report shows them."""

import re

from ipsrec_bench.store.records import OUTPUT_FOLLOWS

MOST_LINES = 12
"""Maximum number of lines that a page shows of the traceback, and of the output."""
_OF_A_LIBRARY = re.compile(r'"[^"\n]*/(?:(?:site|dist)-packages|lib/python3[.]\d+)/([^"\n]+)"')
_OF_THE_PACKAGE = re.compile(r'"[^"\n]*/(ipsrec_bench/[^"\n]+)"')
_HOME = re.compile(r"(?<![\w./-])(?:/home/[^/\s\"':]+|/Users/[^/\s\"':]+|/root)(?=[/\s\"':]|$)")


def log_of(error: str) -> tuple[str, ...]:
    """Return the lines of a failed cell's `error`, without the folders that name the machine or the user.

    Files of this package and of libraries are named from the package on. Another path below a home begins with `~`.
    """
    for pattern in (_OF_A_LIBRARY, _OF_THE_PACKAGE):
        error = pattern.sub(r'"\1"', error)
    return tuple(_HOME.sub("~", error).strip("\n").splitlines())


def last_lines(log: tuple[str, ...]) -> tuple[str, ...]:
    """Return the end of the traceback and the end of the output in `log`, with a mark where lines are left out."""
    cut = log.index(OUTPUT_FOLLOWS) if OUTPUT_FOLLOWS in log else len(log)
    return (*_end(log[:cut]), *log[cut : cut + 1], *_end(log[cut + 1 :]))


def _end(lines: tuple[str, ...]) -> tuple[str, ...]:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines if len(lines) <= MOST_LINES else ("[...]", *lines[-MOST_LINES:])
