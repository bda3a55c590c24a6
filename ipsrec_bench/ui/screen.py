"""What the screens about the store have in common."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer, Input, Static

from ipsrec_bench.errors import BenchError
from ipsrec_bench.ui.parts import CompareScreen, PathScreen
from ipsrec_bench.ui.widgets import Lines
from ipsrec_bench.words import visible

if TYPE_CHECKING:
    from ipsrec_bench.ui.app import Browser

LOOK_SECONDS = 3.0
"""Interval at which the store's file and its journals are looked at; it is opened only if something has changed."""


class Failed(Message):
    """Something could not be read or written."""

    def __init__(self, sentence: str) -> None:
        super().__init__()
        self.sentence = sentence


class Written(Message):
    """A report was written."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.page = page


@dataclass(frozen=True)
class Mark:
    """The first of two rows that are to be compared."""

    suite: str
    name: str


class StoreScreen(Screen[None]):
    """A screen about the store: a title, tables, a line that says what goes on, a filter and the keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back"),
        Binding("c", "compare", "Compare"),
        Binding("o", "report", "Report"),
        Binding("slash", "filter", "Filter"),
        Binding("r", "reload", "Reload"),
    ]
    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012 (as Textual)
    app: "Browser"

    def __init__(self) -> None:
        super().__init__()
        self._awaited: set[type[Message]] = set()
        """Kinds of messages that threads are making."""

    def body(self) -> Iterable[Widget]:
        """Return what stands between title and status."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        """Return the parts, from top to bottom."""
        yield Static(id="title")
        yield from self.body()
        yield Static(id="status")
        yield Input(id="filter", placeholder="Words that a line must have; Enter keeps them, Escape forgets them")
        yield Footer(compact=True, show_command_palette=False)

    def say(self, sentence: str, *, problem: bool = False) -> None:
        """Show a sentence in the status line."""
        self.query_one("#status", Static).update(Text(visible(sentence), "bold red" if problem else ""))

    def entitle(self, *parts: str | Text) -> None:
        """Show `parts` in the title, with dots between them."""
        shown = [part if isinstance(part, Text) else Text(visible(part)) for part in parts if part]
        self.query_one("#title", Static).update(Text(" · ").join(shown))

    def table(self) -> Lines | None:
        """Return the table that is shown."""
        return next((table for table in self.query(Lines) if table.is_on_screen or table.has_focus), None)

    def compared(self) -> tuple[str, int | None]:
        """Return the suite, and the number of the run, whose statistics a comparison takes."""
        raise NotImplementedError

    def report_of(self) -> str | None:
        """Return the suite whose report `o` opens; None if there is none here."""
        raise NotImplementedError

    def on_failed(self, event: Failed) -> None:
        """Show what is wrong."""
        self.say(event.sentence, problem=True)

    def in_thread(self, kind: type[Message], read: Callable[[], Message]) -> bool:
        """Do what opens the store in a thread; its message, or a sentence on what went wrong, comes back.

        Args:
            kind: of the message, of which one at a time is made.
            read: makes it.

        Returns:
            False if one of its kind is being made already; no other one is begun then.
        """
        if kind in self._awaited:
            return False
        self._awaited.add(kind)
        self._read(kind, read)
        return True

    @work(thread=True)
    def _read(self, kind: type[Message], read: Callable[[], Message]) -> None:
        try:
            message = read()
        except BenchError as error:
            message = Failed(str(error))
        finally:
            self._awaited.discard(kind)
        self.post_message(message)

    def action_back(self) -> None:
        """Undo what was done last: the filter, the mark, the screen."""
        field = self.query_one("#filter", Input)
        if field.display or field.value:
            self._end_filter(field, "")
        elif self.app.mark is not None:
            self.app.mark = None
            self.say("")
        elif len(self.app.screen_stack) > 2:  # noqa: PLR2004 (Textual's own, and the first)
            self.app.pop_screen()
        else:
            self.say("This is the first screen; q quits.")

    def action_filter(self) -> None:
        """Ask for the words that lines must have."""
        if self.table() is not None:
            field = self.query_one("#filter", Input)
            field.display = True
            field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show the lines that have the words typed so far."""
        for table in self.query(Lines):
            kept = table.keep(event.value)
            if table is self.table() and event.value:
                self.say(f"Filter: {kept} {'line has' if kept == 1 else 'lines have'} '{event.value}'; Escape ends it.")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the filter, and go back to the table."""
        self._end_filter(event.input, event.value)

    def _end_filter(self, field: Input, value: str) -> None:
        field.value = value
        field.display = False
        if not value:
            self.say("")
        table = self.table()
        if table is not None:
            table.focus()

    def action_compare(self) -> None:
        """Mark the row under the cursor, or compare the marked one with it."""
        table = self.table()
        line = table.current if table is not None else None
        suite, number = self.compared()
        if line is None or not line.name:
            self.say("There is no row here to compare: go to a table of models or runs.")
            return
        mark = self.app.mark
        if mark is None or mark == Mark(suite, line.name) or mark.suite != suite:
            self.app.mark = Mark(suite, line.name)
            self.say(f"A is '{line.name}'. Go to another row and press c to compare A with it; Escape forgets A.")
            return
        self.app.mark = None
        self.say("")
        self.app.push_screen(CompareScreen(self.app.store, suite or line.name, number, mark.name, line.name))

    def action_report(self) -> None:
        """Write the report if it is missing or out of date, and open it."""
        suite = self.report_of()
        if suite is None:
            self.say("Reports are on the newest run of a suite, and there is none here.")
        elif self.in_thread(Written, lambda: Written(self.app.write_report(suite))):
            self.say(f"Making the report on '{suite}' ...")

    def on_written(self, event: Written) -> None:
        """Open the report; where no browser can be opened, say where it lies."""
        page = event.page.resolve()
        if self.app.can_open:
            self.say(f"Report: {page}")
            self.app.open_url(page.as_uri())
        else:
            self.say("")
            self.app.push_screen(PathScreen(page))
