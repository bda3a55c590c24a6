"""The screens that others open: a cell, a comparison, a log, the keys, the place of a report."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.table import Table
from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Footer, Input, RichLog, Static

from ipsrec_bench.errors import BenchError
from ipsrec_bench.report.failures import log_of
from ipsrec_bench.store.records import PlannedCell
from ipsrec_bench.suite.schema import Statistics
from ipsrec_bench.ui import listings
from ipsrec_bench.ui.following import LogReader
from ipsrec_bench.ui.plots import SEED_STYLES, Series, curve, kinds_of
from ipsrec_bench.ui.reading import JournalLine, SuitePage, read_comparison
from ipsrec_bench.ui.widgets import Plot
from ipsrec_bench.words import visible

if TYPE_CHECKING:
    from ipsrec_bench.report.compared import ComparedPair
    from ipsrec_bench.report.content import Comparison

MOST_LINES = 5_000
"""Lines of a log that are kept: the newest."""
APPEND_SECONDS = 0.25
"""Interval at which new lines of a log appear."""


class Compared(Message):
    """Two rows were compared."""

    def __init__(self, made: "list[Comparison]", statistics: Statistics) -> None:
        super().__init__()
        self.made, self.statistics = made, statistics


class NotCompared(Message):
    """Two rows cannot be compared."""

    def __init__(self, sentence: str) -> None:
        super().__init__()
        self.sentence = sentence


class PartScreen(Screen[None]):
    """A screen with a text to scroll, over the screen it was opened from."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "Back"),
        Binding("down,j", "scroll(1)", "Down", show=False),
        Binding("up,k", "scroll(-1)", "Up", show=False),
    ]

    def body(self) -> Iterable[Widget]:
        """Return what is scrolled."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        """Return the parts, from top to bottom."""
        yield Static(id="title")
        with VerticalScroll(id="body"):
            yield from self.body()
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Let the arrow keys scroll."""
        self.query_one("#body").focus()


class CellScreen(PartScreen):
    """What the store knows of one cell: its facts, its learning curve, and, if it failed, its log."""

    def __init__(self, cell: PlannedCell, page: SuitePage) -> None:
        super().__init__()
        self._cell, self._page = cell, page

    def body(self) -> Iterable[Widget]:
        """Return facts, curve and log."""
        facts = Table.grid(padding=(0, 2, 0, 0))
        facts.add_column(style="dim")
        facts.add_column(overflow="fold")
        for name, value in listings.facts_of(self._cell, self._page).items():
            facts.add_row(Text(name), Text(value))
        yield Static(facts)
        points = self._page.curves.get(self._cell.key, ())
        found = self._page.summaries.get(self._cell.key)
        if points:
            metric = (found.stop_metric if found is not None else None) or "metric"
            for number, kind in enumerate(kinds_of(points)):
                yield Static(Text(visible(kind.named(metric))), classes="head")
                plot = Plot(f"plot-{number}", "epoch")
                plot.show([Series(curve(points, kind), SEED_STYLES[min(number, len(SEED_STYLES) - 1)])])
                yield plot
        if found is not None and found.error:
            yield Static("log", classes="head")
            yield Static(Text("\n".join(visible(line) for line in log_of(found.error))))

    def on_mount(self) -> None:
        """Say whose facts these are."""
        super().on_mount()
        cell = self._cell
        self.query_one("#title", Static).update(
            Text(visible(f"{cell.label} · {cell.dataset} · seed {cell.seed}"), "bold")
        )


class CompareScreen(PartScreen):
    """Every statistic of one row against another, as `ipsrec-bench compare` prints it.

    Args:
        store: the store's file.
        suite: name of the suite whose statistics are taken.
        number: of its run; None for the newest.
        a: the first name, as `compare` takes it.
        b: the second name.
    """

    def __init__(self, store: Path, suite: str, number: int | None, a: str, b: str) -> None:
        super().__init__()
        self._read = partial(read_comparison, store, suite, number, a, b)
        self._title = f"{a} against {b}"
        self._made: Compared | None = None

    @classmethod
    def of(cls, made: "list[Comparison]", statistics: Statistics) -> "CompareScreen":
        """Return the screen of comparisons that are made already."""
        first = made[0]
        screen = cls(Path(), "", None, first.row.display, first.reference.display)
        screen._made = Compared(made, statistics)
        return screen

    def body(self) -> Iterable[Widget]:
        """Return the place of the tables."""
        yield Static("Comparing ...", id="waiting")

    def on_mount(self) -> None:
        """Compare, in a thread, unless that is done."""
        super().on_mount()
        self.query_one("#title", Static).update(Text(visible(self._title), "bold"))
        if self._made is not None:
            self.on_compared(self._made)
        else:
            self._compare()

    @work(thread=True)
    def _compare(self) -> None:
        try:
            self.post_message(Compared(*self._read()))
        except BenchError as error:
            self.post_message(NotCompared(str(error)))

    def on_not_compared(self, event: NotCompared) -> None:
        """Show why they cannot be compared."""
        self.query_one("#waiting", Static).update(Text(visible(event.sentence), "bold red"))

    def on_compared(self, event: Compared) -> None:
        """Show a sentence and a table for each pair."""
        from ipsrec_bench.report.compared import compared_pairs, verdict_rule

        self.query_one("#waiting").remove()
        body = self.query_one("#body")
        for pair in compared_pairs(event.made, event.statistics):
            body.mount(Static(Text(visible(pair.finding))), Static(_compared_table(pair), classes="wide"))
        body.mount(Static(Text(verdict_rule(event.statistics), "dim")))


def _compared_table(pair: "ComparedPair") -> Table:
    table = Table(
        title=Text(visible(pair.title)), title_justify="left", title_style="bold", header_style="bold", box=None
    )
    for number, name in enumerate(pair.columns):
        table.add_column(Text(visible(name)), justify="right" if number else "left", no_wrap=True)
    for line in pair.lines:
        table.add_row(*(Text(visible(value)) for value in line))
    return table


class LogScreen(Screen[None]):
    """The lines that a run wrote, as its plain log has them; new ones appear while it goes on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back"),
        Binding("slash", "filter", "Filter"),
    ]

    def __init__(self, journal: JournalLine) -> None:
        super().__init__()
        self._journal = journal
        self._lines: list[str] = []
        self._words: list[str] = []
        self._is_open = True

    def compose(self) -> ComposeResult:
        """Return the parts, from top to bottom."""
        yield Static(id="title")
        yield RichLog(id="log", wrap=True, min_width=0, max_lines=MOST_LINES)
        yield Input(id="filter", placeholder="Words that a line must have; Enter keeps them, Escape forgets them")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Read the journal, and go on while its run does."""
        opened = self._journal.opened
        self.query_one("#title", Static).update(
            Text(visible(f"{opened.suite} · process {opened.pid} on {opened.host}"), "bold")
        )
        self.query_one("#log").focus()
        self._events = LogReader(self._journal.path)
        self.set_interval(APPEND_SECONDS, self._append)

    def on_unmount(self) -> None:
        """Read no further."""
        self._events.stop()

    def _append(self) -> None:
        new = self._events.lines[len(self._lines) :]
        self._lines += new
        self._write(new)

    def _write(self, lines: Sequence[str]) -> None:
        log = self.query_one("#log", RichLog)
        for line in lines:
            if all(word in line.casefold() for word in self._words):
                log.write(Text(line, "red" if "failed" in line else ""))

    def action_filter(self) -> None:
        """Ask for the words that lines must have."""
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def action_back(self) -> None:
        """End the filter, or leave."""
        field = self.query_one("#filter", Input)
        if field.display or field.value:
            field.value = ""
            field.display = False
            self.query_one("#log").focus()
        else:
            self.app.pop_screen()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show the lines that have the words typed so far."""
        self._words = event.value.casefold().split()
        self.query_one("#log", RichLog).clear()
        self._write(self._lines)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the filter, and go back to the lines."""
        event.input.display = False
        self.query_one("#log").focus()


KEYS = (
    ("Move", ("arrows, j, k", "to another line, or sideways"), ("g, G", "to the first line, or the last")),
    (
        "Look",
        ("Enter", "opens the suite, cell, comparison, run or log under the cursor"),
        ("Tab, 1 to 7", "go to another tab of a suite"),
        ("n", "shows the next table; l switches between validation metric and loss"),
        ("/", "shows only lines with certain words"),
        ("Escape", "goes back, and undoes a filter or a mark"),
    ),
    (
        "Do",
        ("c", "marks a row; on a second row, compares the two as ipsrec-bench compare does"),
        ("o", "writes the report if it is missing or out of date, and opens it"),
        ("r", "reads the store again, which also happens when it changes"),
        ("t", "switches between dark and light"),
        ("q", "quits; a run that is followed goes on"),
    ),
)


class HelpScreen(ModalScreen[None]):
    """The keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,enter", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        """Return a table of keys."""
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for head, *keys in KEYS:
            table.add_row(Text(head, "dim"), "")
            for key, what in keys:
                table.add_row(Text(f" {key}"), Text(what))
        with VerticalScroll(classes="box"):
            yield Static(table)


class PathScreen(ModalScreen[None]):
    """Where a report lies, to be opened elsewhere.

    Args:
        page: the report's first page.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "dismiss", "Close")]

    def __init__(self, page: Path) -> None:
        super().__init__()
        self._page = page

    def compose(self) -> ComposeResult:
        """Return the path."""
        text = Text("Report\n\n", "bold").append(Text(visible(str(self._page)), "not bold"))
        text.append("\n\nThere is no display here to open it on: copy the file, or open it where the disk is seen.", "")
        with VerticalScroll(classes="box"):
            yield Static(text)
