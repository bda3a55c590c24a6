"""The browser as a Textual application."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType

from ipsrec_bench.run.journal import is_live, journals
from ipsrec_bench.ui.parts import HelpScreen
from ipsrec_bench.ui.screen import Mark
from ipsrec_bench.ui.suite import SuiteScreen
from ipsrec_bench.ui.suites import SuitesScreen

WriteReport = Callable[[str], Path]
"""Writes the report on the newest run of a suite, unless it is up to date, and returns its page.

Called in a thread. Raises a `BenchError` if it cannot be written.
"""
THEMES = ("textual-dark", "textual-light")


class Browser(App[None]):
    """The suites, runs, cells, curves, tables, comparisons and logs of a store.

    Args:
        store: the store's file, which need not be there yet.
        write_report: makes the page that `o` opens.
        suite: name of the suite to begin with; the list of suites if None.
    """

    CSS_PATH = "style.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help"),
        Binding("t", "theme", "Theme", show=False),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
    ]

    def __init__(self, store: Path, write_report: WriteReport, suite: str | None = None) -> None:
        super().__init__()
        self.animation_level = "none"  # over a slow connection, each step of one is a picture to send
        self.store, self.write_report = store, write_report
        self.mark: Mark | None = None
        """The first of two rows to be compared."""
        self._suite = suite

    @property
    def can_open(self) -> bool:
        """Whether there is a display here that a page can be opened on."""
        if any(name in os.environ for name in ("SSH_CONNECTION", "SSH_TTY")):
            return False
        return sys.platform == "darwin" or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY"))

    def on_mount(self) -> None:
        """Show the first screen."""
        self.push_screen(SuitesScreen())
        if self._suite is not None:
            self.push_screen(SuiteScreen(self._suite))

    def looks(self) -> tuple[object, ...]:
        """Return what changes when a cell or a run begins or ends; the store is not opened."""
        found = journals(self.store)
        try:
            touched: object = self.store.stat().st_mtime_ns
        except OSError:
            touched = None
        return touched, tuple(found), bool(found) and is_live(found[-1])

    def action_help(self) -> None:
        """Show the keys."""
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def action_theme(self) -> None:
        """Switch between dark and light."""
        self.theme = THEMES[self.theme == THEMES[0]]
