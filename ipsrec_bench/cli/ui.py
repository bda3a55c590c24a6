"""`ipsrec-bench ui`: browse a store in the terminal."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ipsrec_bench.cli.options import STORE, StoreOption
from ipsrec_bench.cli.watch import WatchedArgument
from ipsrec_bench.errors import BenchError
from ipsrec_bench.extras import require
from ipsrec_bench.words import visible

if TYPE_CHECKING:
    from ipsrec_bench.ui.app import WriteReport

NOT_A_TERMINAL = {"", "dumb", "unknown"}
"""Values of TERM where a cursor cannot be placed."""


def ui(suite: WatchedArgument = None, store: StoreOption = STORE) -> None:
    """Browse the store by keyboard: suites, runs, cells, curves, tables, comparisons, logs.

    A running suite is followed. The key ? shows all keys.
    """
    require("ui", "ui")
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "") in NOT_A_TERMINAL:
        raise BenchError(
            "the browser needs a terminal with a cursor; ipsrec-bench ls, watch, compare and report print the same to"
            " any output"
        )
    from ipsrec_bench.suite.load import suite_name
    from ipsrec_bench.ui.app import Browser

    browser = Browser(store, _writer(store), suite and suite_name(suite))
    browser.run()
    if browser.return_code:  # it has printed the traceback
        raise typer.Exit(browser.return_code)
    typer.echo(f"Store: {visible(str(store))}")


def _writer(store: Path) -> "WriteReport":
    from ipsrec_bench.cli.main import current_page, report_on
    from ipsrec_bench.store.connect import reading
    from ipsrec_bench.store.queries import find_run

    def write(suite: str) -> Path:
        with reading(store) as connection:
            number = find_run(connection, suite).run
        return current_page(store, number) or report_on(store, store.parent, number=number)

    return write
