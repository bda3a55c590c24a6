"""Tables without a format: columns, rows of plain text and a note. HTML, Markdown and LaTeX render the same ones."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ipsrec_bench.report.sentences import percent, signed

NONE = "–"
"""Shown for a value that is unknown or does not exist."""


@dataclass(frozen=True)
class Cell:
    """One place of a table, as plain text."""

    text: str = ""
    beside: str = ""
    """Smaller, after the text: a spread, a difference."""
    below: str = ""
    """Smaller, on a line below: an interval, a gain."""
    value: float | str | None = None
    """Sort key of the column; None sorts by the text."""
    tone: str = ""
    """`best`, `second` or a verdict, which styles the text; with `beside`, a verdict styles that instead."""
    link: str = ""
    """Address that the text leads to, in HTML."""


@dataclass(frozen=True)
class Column:
    """One column: its heading, and the cell of every line."""

    heading: str | tuple[str, ...]
    """One or more lines."""
    cell: Callable[[Any], Cell] = field(repr=False)
    """Makes the cell of a line."""
    align: Literal["left", "right"] = "right"
    below: str = ""
    """Heading of the cells' `below`, which Markdown and LaTeX show as a separate column; without it, in brackets."""
    explained: str = ""
    """What the heading means."""
    key: bool = False
    """Whether its value names a group of neighbouring lines. Key columns are the first ones."""
    folded: bool = False
    """Whether HTML shows it in a line of details that a button opens."""
    latex: bool = True
    """Whether LaTeX shows it."""
    long: bool = False
    """Whether its text is a sentence, broken into lines."""
    code: bool = False
    dataset: str = ""
    """The dataset that the whole column is about, by which the HTML page is filtered."""
    metric: str = ""
    """Likewise, the metric."""

    @property
    def title(self) -> str:
        """The heading in one line."""
        return self.heading if isinstance(self.heading, str) else " ".join(self.heading)

    @property
    def lines(self) -> tuple[str, ...]:
        """The heading's lines."""
        return (self.heading,) if isinstance(self.heading, str) else self.heading


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    cells: tuple[Cell, ...]
    begins: bool = False
    """Whether a rule above separates it from the line before."""
    repeated: tuple[bool, ...] = ()
    """For every column, whether it is a key with the same value as in the line before."""
    indent: bool = False
    dataset: str = ""
    """The dataset that it is about, by which the HTML page is filtered."""
    metric: str = ""
    """Likewise, the metric."""


@dataclass(frozen=True)
class Table:
    """One table of a report."""

    name: str
    """For links to it, and for the label in LaTeX."""
    section: str
    """Of the page."""
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    """How to read it, in sentences."""
    lines: str = "rows"
    """What its lines are, in the plural."""
    collapse: Literal["never", "long", "always"] = "long"
    """Whether the HTML page shows it only when asked."""
    sortable: bool = True
    latex: str = ""
    """Name of the LaTeX file that contains it; empty where LaTeX leaves it out."""
    page: int = 40
    """Maximum number of its lines on a page in LaTeX."""
    dataset: str = ""
    """The dataset that the whole table is about, by which the HTML page is filtered."""

    def flat(self, *, latex: bool = False) -> "Table":
        """Return the table with `below` as separate columns; for LaTeX, without the columns that it leaves out."""
        shown = [(place, column) for place, column in enumerate(self.columns) if column.latex or not latex]
        columns: list[Column] = []
        for _, column in shown:
            columns.append(replace(column, below=""))
            if column.below:
                columns.append(Column(column.below, column.cell, metric=column.metric, dataset=column.dataset))
        rows = []
        for row in self.rows:
            cells: list[Cell] = []
            repeated: list[bool] = []
            for place, column in shown:
                cell = row.cells[place]
                cells.append(_on_one_line(replace(cell, below="") if column.below else cell))
                repeated.append(row.repeated[place])
                if column.below:
                    cells.append(Cell(cell.below))
                    repeated.append(False)
            rows.append(replace(row, cells=tuple(cells), repeated=tuple(repeated)))
        return replace(self, columns=tuple(columns), rows=tuple(rows))

    def pages(self) -> Iterator["Table"]:
        """Yield parts of the table that fit on a page; the first line of each has all its keys."""
        for part, start in enumerate(range(0, len(self.rows), self.page), start=1):
            first, *others = self.rows[start : start + self.page]
            first = replace(first, begins=True, repeated=(False,) * len(first.cells))
            yield replace(self, name=self.name + (f"-{part}" if part > 1 else ""), rows=(first, *others))


def _on_one_line(cell: Cell) -> Cell:
    if not cell.below:
        return cell
    return replace(cell, beside=f"({', '.join(filter(None, (cell.beside, cell.below)))})", below="")


def rows_of(
    columns: Sequence[Column],
    lines: Iterable[Any],
    *,
    dataset: Callable[[Any], str] = lambda _: "",
    metric: Callable[[Any], str] = lambda _: "",
    begins: Callable[[Any], bool] | None = None,
    indent: Callable[[Any], bool] = lambda _: False,
) -> tuple[Row, ...]:
    """Return a row for each line.

    Args:
        columns: make the cells.
        lines: what the rows are about, of any type that the columns' functions take.
        dataset: the dataset that a line is about.
        metric: the metric that a line is about.
        begins: whether a line has a rule above; by default where a key changes.
        indent: whether a line's first cell is indented.
    """
    rows: list[Row] = []
    before: tuple[Cell, ...] = ()
    for line in lines:
        cells = tuple(column.cell(line) for column in columns)
        repeated, same = [], bool(before)
        for place, column in enumerate(columns):
            same = same and column.key and cells[place].text == before[place].text
            repeated.append(same)
        changes = any(column.key and not again for column, again in zip(columns, repeated, strict=True))
        begun = bool(before) and (begins(line) if begins else changes)
        rows.append(Row(cells, begun, tuple(repeated), indent(line), dataset(line), metric(line)))
        before = cells
    return tuple(rows)


def exact(value: float | None) -> str:
    """Return a number for programs; empty where there is none."""
    return "" if value is None or not math.isfinite(value) else f"{value:.9g}"


def text(value: object) -> Cell:
    """Return text as a cell."""
    return Cell(str(value))


def number(value: float | None, form: str = ".4f", unit: str = "") -> Cell:
    """Return a number as a cell, with a Python format."""
    return Cell(NONE, value="") if value is None else Cell(f"{value:{form}}{unit}", value=exact(value))


def count(value: int | None) -> Cell:
    """Return a whole number as a cell."""
    return number(value, ",")


def share(value: float | None) -> Cell:
    """Return a share as a cell, in percent."""
    return number(value, ".1%")


def change(value: float | None, below: str = "") -> Cell:
    """Return a difference of a metric as a cell."""
    return Cell(NONE if value is None else signed(value), below=below, value=exact(value))


def gain(value: float | None, below: str = "") -> Cell:
    """Return a relative difference as a cell."""
    return Cell(percent(value), below=below, value=exact(value))


def mebibytes(value: int | None) -> Cell:
    """Return a number of bytes as a cell."""
    return Cell(NONE, value="") if value is None else Cell(f"{value / 2**20:,.0f} MiB", value=exact(value))


def seconds(value: float, decimals: int = 1) -> Cell:
    """Return a time as a cell."""
    return number(value, f".{decimals}f", " s")
