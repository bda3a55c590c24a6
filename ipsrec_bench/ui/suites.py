"""The first screen: the suites of the store."""

from collections.abc import Iterable

from rich.text import Text
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from ipsrec_bench.ui.listings import suites_listing
from ipsrec_bench.ui.reading import SuiteLine, read_suites
from ipsrec_bench.ui.screen import LOOK_SECONDS, StoreScreen
from ipsrec_bench.ui.suite import SuiteScreen
from ipsrec_bench.ui.widgets import Lines


class SuitesRead(Message):
    """The suites of the store were read."""

    def __init__(self, suites: list[SuiteLine]) -> None:
        super().__init__()
        self.suites = suites


class SuitesScreen(StoreScreen):
    """The suites of the store, with their progress."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: tuple[object, ...] = ()
        """What the store's file and its journals looked like when they were last read."""

    def body(self) -> Iterable[Widget]:
        """Return the table of suites."""
        yield Lines("suites")
        yield Static(id="empty", classes="caption")

    def on_mount(self) -> None:
        """Read the store now, and whenever it has changed."""
        self.entitle(Text("ipsrec-bench", "bold"), str(self.app.store))
        self.action_reload()
        self.set_interval(LOOK_SECONDS, self._look)

    def action_reload(self) -> None:
        """Read the store."""
        seen = self.app.looks()
        if self.in_thread(SuitesRead, lambda: SuitesRead(read_suites(self.app.store))):
            self._seen = seen

    def _look(self) -> None:
        if self.is_current and self.app.looks() != self._seen:
            self.action_reload()

    def on_suites_read(self, event: SuitesRead) -> None:
        """Show the suites."""
        listing = suites_listing(event.suites)
        self.query_one("#suites", Lines).show(listing)
        self.query_one("#empty", Static).update("" if listing.lines else listing.empty)
        if self.app.mark is None:
            self.say("")

    def on_lines_opened(self, event: Lines.Opened) -> None:
        """Open a suite."""
        self.app.push_screen(SuiteScreen(event.line.subject))

    def compared(self) -> tuple[str, int | None]:
        """Suites are compared with one another."""
        return "", None

    def report_of(self) -> str | None:
        """Return the suite under the cursor."""
        line = self.query_one("#suites", Lines).current
        return None if line is None else str(line.subject)
