"""The parts that screens are made of: a table that keeps its place, a chart, the picture of a run."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import ClassVar, NamedTuple

from rich.console import RenderableType
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget
from textual.widgets import DataTable

from ipsrec_bench.tui.dashboard import dashboard
from ipsrec_bench.ui.following import Follower
from ipsrec_bench.ui.listings import Line, Listing, fixed_widths
from ipsrec_bench.ui.plots import Series, chart

FIXED_SHARE = 0.6
"""Share of the terminal's width that columns which stay in place take at most; long names would take all of it."""


class _Column(NamedTuple):
    head: str
    right: bool | None
    width: int | None
    """Characters; None for as many as the longest cell has."""


class Lines(DataTable[Text]):
    """A table of lines, one of them under the cursor; the cursor stays on its line when others appear."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Open"),
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
        Binding("g", "scroll_top", "First", show=False),
        Binding("G", "scroll_bottom", "Last", show=False),
    ]

    class Opened(Message):
        """Enter was pressed on a line."""

        def __init__(self, line: Line) -> None:
            super().__init__()
            self.line = line

    class Moved(Message):
        """The cursor is on another line."""

        def __init__(self, table: "Lines", line: Line) -> None:
            super().__init__()
            self.table, self.line = table, line

    def __init__(self, id: str) -> None:  # noqa: A002 (as Textual has it)
        super().__init__(id=id, cursor_type="row", zebra_stripes=True, cursor_foreground_priority="renderable")
        self._listing: Listing | None = None
        self._words: Sequence[str] = ()
        self._shown: list[Line] = []
        self._columns: Sequence[_Column] = ()

    @property
    def current(self) -> Line | None:
        """The line under the cursor."""
        return self._shown[self.cursor_row] if 0 <= self.cursor_row < len(self._shown) else None

    def show(self, listing: Listing) -> None:
        """Show `listing` in place of what was shown."""
        if listing == self._listing:
            return
        self._listing = listing
        self._fill()

    def on_resize(self) -> None:
        """Give the columns that stay in place their share of the new width."""
        if self._listing is not None and self._columns_of(self._listing) != self._columns:
            self._fill()

    def keep(self, text: str) -> int:
        """Show only lines that have every word of `text`; return how many these are."""
        self._words = text.casefold().split()
        self._fill()
        return len(self._shown)

    def _fill(self) -> None:
        listing = self._listing
        if listing is None:
            return
        before, across, down = self.current, self.scroll_x, self.scroll_y
        columns = self._columns_of(listing)
        self.clear(columns=columns != self._columns)
        if columns != self._columns:
            self._columns = columns
            for column in columns:
                self.add_column(Text(column.head, justify="right" if column.right else "left"), width=column.width)
            self.fixed_columns = listing.fixed
        self._shown = [line for line in listing.lines if line.has(self._words)]
        for line in self._shown:
            self.add_row(*line.cells, key=line.id)
        place = next((i for i, line in enumerate(self._shown) if before is not None and line.id == before.id), 0)
        self.move_cursor(row=place, animate=False)
        self.scroll_to(across, down, animate=False, force=True)

    def _columns_of(self, listing: Listing) -> Sequence["_Column"]:
        widths = fixed_widths(listing, int(self.app.size.width * FIXED_SHARE))
        aligned = [cell.justify == "right" for cell in listing.lines[0].cells] if listing.lines else []
        return [_Column(*found) for found in zip_longest(listing.heads, aligned, widths)]

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Say which line Enter was pressed on."""
        event.stop()
        if self.current is not None:
            self.post_message(self.Opened(self.current))

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Say which line the cursor is on."""
        event.stop()
        if self.current is not None:
            self.post_message(self.Moved(self, self.current))


class Plot(Widget):
    """A line chart that fills its place."""

    def __init__(self, id: str, x_title: str) -> None:  # noqa: A002 (as Textual has it)
        super().__init__(id=id)
        self._series: Sequence[Series] = ()
        self._title = x_title

    def show(self, series: Sequence[Series]) -> None:
        """Draw these series in place of what was drawn."""
        self._series = series
        self.refresh()

    def render(self) -> RenderableType:
        """Return the chart."""
        return chart(self._series, self.size.width, self.size.height, self._title)


class Progress(Widget):
    """The picture of a run that `ipsrec-bench watch` shows."""

    can_focus = True

    def __init__(self, id: str) -> None:  # noqa: A002 (as Textual has it)
        super().__init__(id=id)
        self.follower: Follower | None = None

    def render(self) -> RenderableType:
        """Return the picture of the run as it is now."""
        if self.follower is None:
            return Text("There is no journal of this run beside the store.", "dim")
        return dashboard(self.follower.state, self.follower.now, self.size.height)
