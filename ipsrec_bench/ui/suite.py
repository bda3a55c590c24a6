"""The screen of one run of a suite, with a tab for everything that the store has of it."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static, TabbedContent, TabPane

from ipsrec_bench.errors import BenchError
from ipsrec_bench.store.queries import CurvePoint
from ipsrec_bench.store.records import PlannedCell
from ipsrec_bench.ui import listings
from ipsrec_bench.ui.following import Follower
from ipsrec_bench.ui.listings import Listing
from ipsrec_bench.ui.parts import CellScreen, CompareScreen, LogScreen
from ipsrec_bench.ui.plots import LOSS, SEED_STYLES, VALIDATION, Series, curve, kinds_of
from ipsrec_bench.ui.reading import JournalLine, SuitePage, read_content, read_journals, read_suite
from ipsrec_bench.ui.screen import LOOK_SECONDS, StoreScreen
from ipsrec_bench.ui.widgets import Lines, Plot, Progress
from ipsrec_bench.words import visible

if TYPE_CHECKING:
    from ipsrec_bench.report.content import Report

PICTURE_SECONDS = 1.0
"""Interval at which the picture of a live run is drawn."""


class SuiteRead(Message):
    """A run of a suite was read; there is no page while the store has nothing of it."""

    def __init__(self, page: SuitePage | None, journals: list[JournalLine], problem: str) -> None:
        super().__init__()
        self.page, self.journals, self.problem = page, journals, problem


class ContentRead(Message):
    """What a report on the run says was made."""

    def __init__(self, report: "Report") -> None:
        super().__init__()
        self.report = report


TABS = ("progress", "cells", "tables", "comparisons", "curves", "logs", "runs")


class SuiteScreen(StoreScreen):
    """One run of a suite: its newest, or an older one.

    Args:
        suite: its name in the store.
        number: of the run; None for the newest, which is followed while it goes on.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "next_tab(1)", "Tab", priority=True),
        Binding("shift+tab", "next_tab(-1)", "Tab before", show=False, priority=True),
        *(Binding(str(i), f"go({i - 1})", name.capitalize(), show=False) for i, name in enumerate(TABS, start=1)),
        Binding("n", "next_table", "Next table", show=False),
        Binding("l", "switch_curve", "Loss", show=False),
    ]

    def __init__(self, suite: str, number: int | None = None) -> None:
        super().__init__()
        self._suite, self._number = suite, number
        self._page: SuitePage | None = None
        self._journals: list[JournalLine] = []
        self._report: Report | None = None
        self._is_report_old = True
        self._table = 0
        self._kind, self._next_kind = VALIDATION, LOSS
        self._follower: Follower | None = None
        self._ended = 0
        """Cells that had ended when the store was last read."""
        self._seen: tuple[object, ...] = ()

    def body(self) -> Iterable[Widget]:
        """Return the tabs."""
        with TabbedContent(initial="cells"):
            with TabPane("Progress", id="progress"):
                yield Progress("picture")
            with TabPane("Cells", id="cells"):
                yield Lines("cells-lines")
                yield Static(id="cells-caption", classes="caption")
            with TabPane("Tables", id="tables"):
                yield Static(id="tables-caption", classes="caption")
                yield Lines("tables-lines")
            with TabPane("Comparisons", id="comparisons"):
                yield Static(id="comparisons-caption", classes="caption")
                yield Lines("comparisons-lines")
            with TabPane("Curves", id="curves"):
                yield Static(id="curves-caption", classes="caption")
                with Container(id="curves-parts"):
                    yield Lines("curves-lines")
                    yield Plot("curves-plot", "epoch")
            with TabPane("Logs", id="logs"):
                yield Lines("logs-lines")
                yield Static(id="logs-caption", classes="caption")
            with TabPane("Runs", id="runs"):
                yield Lines("runs-lines")
                yield Static(id="runs-caption", classes="caption")

    def on_mount(self) -> None:
        """Read the suite now, and whenever the store has changed."""
        self.entitle(Text(visible(self._suite), "bold"))
        self.say("Reading the store ...")
        self.action_reload()
        self.set_interval(LOOK_SECONDS, self._look)
        self.set_interval(PICTURE_SECONDS, self._draw)

    def on_unmount(self) -> None:
        """Follow nothing any more."""
        if self._follower is not None:
            self._follower.stop()

    def action_reload(self) -> None:
        """Read the store."""
        seen, ended = self.app.looks(), self._follower.ended if self._follower is not None else 0
        if self.in_thread(SuiteRead, self._read_suite):
            self._seen, self._ended = seen, ended

    def _read_suite(self) -> SuiteRead:
        found = read_journals(self.app.store, self._suite)
        try:
            return SuiteRead(read_suite(self.app.store, self._suite, self._number), found, "")
        except BenchError as error:  # the journal of its first run may be there before the store
            return SuiteRead(None, found, str(error))

    def _look(self) -> None:
        if self.is_current and self.app.looks() != self._seen:
            self.action_reload()

    def _draw(self) -> None:
        follower = self._follower
        if follower is None or not self.is_current:
            return
        if follower.problem:
            self.say(follower.problem, problem=True)
        if self._tab == "progress":
            self.query_one("#picture", Progress).refresh()
        else:
            self._draw_cells()
        if follower.ended != self._ended:
            self.action_reload()
        self._entitle()

    def _draw_cells(self) -> None:
        """Show the states of the cells as the journal has them now, if their tab is open and the run goes on."""
        follower = self._follower
        if follower is not None and follower.closed is None and self._tab == "cells" and self._page is not None:
            self._show("cells", listings.cells_listing(self._page, follower.state))

    @property
    def _tab(self) -> str:
        return self.query_one(TabbedContent).active

    def on_suite_read(self, event: SuiteRead) -> None:
        """Show what was read."""
        is_first = self._page is None and self._follower is None
        self._journals = event.journals
        self._follow_newest()
        if event.page is None:
            self.say(
                "" if self._follower is not None and self._follower.closed is None else event.problem, problem=True
            )
        else:
            self._page, self._is_report_old = event.page, True
            if self.app.mark is None and not self.query_one("#filter", Input).value:
                self.say("")
            live = self._follower.state if self._follower is not None and self._follower.closed is None else None
            self._show("cells", listings.cells_listing(event.page, live))
            self._show("curves", listings.curves_listing(event.page))
            self._show("runs", listings.runs_listing(event.page))
        self._show("logs", listings.logs_listing(event.page, event.journals))
        self._entitle()
        is_live = self._number is None and any(one.live for one in event.journals)
        if is_first and is_live and self._tab == "cells":  # the tab it began with
            self._go("progress")
        else:
            self._activated()

    def _follow_newest(self) -> None:
        newest = next(iter(self._journals), None) if self._number is None else None
        if newest is None or (self._follower is not None and self._follower.journal == newest.path):
            return
        if self._follower is not None:
            self._follower.stop()
        self._follower = Follower(newest.path)
        self.query_one("#picture", Progress).follower = self._follower

    def _show(self, tab: str, listing: Listing) -> None:
        self.query_one(f"#{tab}-lines", Lines).show(listing)
        if tab in {"cells", "logs", "runs"} or not listing.lines:
            self.query_one(f"#{tab}-caption", Static).update("" if listing.lines else listing.empty)

    def _entitle(self) -> None:
        page = self._page
        parts: list[str | Text] = [Text(visible(self._suite), "bold")]
        if page is not None:
            keys = {cell.key for cell in page.run.cells}
            states = [page.summaries[key].status for key in keys if key in page.summaries]
            failed = states.count("failed")
            parts += [
                f"run {page.run.run} of {page.run.started:%Y-%m-%d %H:%M} UTC",
                f"{states.count('complete')} of {len(keys)} complete",
                Text(f"{failed} failed", "bold red") if failed else "",
                "" if page.newest else Text("there is a newer run", "yellow"),
            ]
        if self._follower is not None and self._follower.closed is None:
            state = self._follower.state
            parts.append(Text("paused" if state.paused is not None else "running", "bold green"))
        self.entitle(*parts)

    def action_next_tab(self, step: int) -> None:
        """Go to the next tab, or to the one before."""
        self._go(TABS[(TABS.index(self._tab) + step) % len(TABS)])

    def action_go(self, number: int) -> None:
        """Go to a tab by its number."""
        self._go(TABS[number])

    def _go(self, tab: str) -> None:
        self.query_one(TabbedContent).active = tab
        self._activated()

    def on_tabbed_content_tab_activated(self, _: TabbedContent.TabActivated) -> None:
        """Fill the tab, whichever way it was reached."""
        self._activated()

    def _activated(self) -> None:
        tab = self._tab
        self._draw_cells()
        if not self.query_one("#filter", Input).has_focus:
            self.query_one("#picture" if tab == "progress" else f"#{tab}-lines").focus()
        if tab in {"tables", "comparisons"} and self._is_report_old and self._page is not None:
            read = partial(read_content, self.app.store, self._suite, self._page.run.run)
            if self.in_thread(ContentRead, lambda: ContentRead(read())):
                self._is_report_old = False
                self.say("Reading the ranks ...")
        elif self._report is not None:
            self._show_report(self._report)

    def on_content_read(self, event: ContentRead) -> None:
        """Show tables and comparisons."""
        self._report = event.report
        if self.app.mark is None:
            self.say("")
        self._show_report(event.report)

    def _show_report(self, report: "Report") -> None:
        from ipsrec_bench.ui.report_listings import TABLES, comparisons_listing

        tab = self._tab
        if tab == "tables":
            names = list(TABLES)
            name = names[self._table % len(names)]
            listing = TABLES[name](report)
            self._show(tab, listing)
            others = ", ".join(other for other in names if other != name)
            caption = f"{name}; n shows {others}. {report.caution}" if listing.lines else listing.empty
            self.query_one("#tables-caption", Static).update(Text(visible(caption)))
        elif tab == "comparisons":
            listing = comparisons_listing(report)
            self._show(tab, listing)
            rule = f"Against {report.baseline_rule}. Enter shows every statistic. {report.caution}"
            self.query_one("#comparisons-caption", Static).update(
                Text(visible(rule if listing.lines else listing.empty))
            )

    def action_next_table(self) -> None:
        """Show the next table of the tab."""
        if self._tab == "tables" and self._report is not None:
            self._table += 1
            self._show_report(self._report)

    def action_switch_curve(self) -> None:
        """Show the next curve of the row: the validation metric, the training loss, or that of a stage or task."""
        if self._tab == "curves":
            self._kind = self._next_kind
            line = self.query_one("#curves-lines", Lines).current
            if line is not None:
                self._plot(*line.subject)

    def on_lines_moved(self, event: Lines.Moved) -> None:
        """Draw the curves of the row under the cursor."""
        if event.table.id == "curves-lines":
            self._plot(*event.line.subject)

    def _plot(self, dataset: str, label: str) -> None:
        page = self._page
        if page is None:
            return
        found: dict[str, list[tuple[PlannedCell, tuple[CurvePoint, ...]]]] = {}
        for cell in page.run.cells:
            if cell.dataset == dataset and cell.key in page.curves:
                found.setdefault(cell.label, []).append((cell, page.curves[cell.key]))
        own = found.pop(label, [])
        # Losses of other models have another scale, which would leave no room for this one's.
        kinds = kinds_of(point for _, points in own for point in points)
        kind = self._kind if self._kind in kinds else VALIDATION
        self._next_kind = kinds[(kinds.index(kind) + 1) % len(kinds)]
        others = [] if kind != VALIDATION else [[points for _, points in cells] for cells in found.values()]
        series = [Series(_mean(curves), "bright_black") for curves in others]
        styles = {cell.seed: SEED_STYLES[i % len(SEED_STYLES)] for i, (cell, _) in enumerate(own)}
        series += [Series(curve(points, kind), styles[cell.seed]) for cell, points in own]
        self.query_one("#curves-plot", Plot).show(series)
        metrics = {page.summaries[cell.key].stop_metric for cell, _ in own if cell.key in page.summaries}
        metric = " ".join(filter(None, metrics))
        caption = Text(visible(f"{label} on {dataset}, {kind.named(metric)}:"))
        for seed, style in styles.items():
            caption.append(f" seed {seed}", style)
        caption.append("; grey: means of other models" if others else "", "dim")
        following = {VALIDATION: "the validation metric", LOSS: "the loss"}
        caption.append(visible(f"; l shows {following.get(self._next_kind) or self._next_kind.named(metric)}"))
        self.query_one("#curves-caption", Static).update(caption)

    def on_lines_opened(self, event: Lines.Opened) -> None:
        """Open what a line is of: a cell, a comparison, a log, a run."""
        page = self._page
        match event.line.subject:
            case PlannedCell() as cell if page is not None:
                self.app.push_screen(CellScreen(cell, page))
            case JournalLine() as journal:
                self.app.push_screen(LogScreen(journal))
            case int() as number if page is not None:
                is_newest = number == max(one.run for one in page.runs)
                self.app.push_screen(SuiteScreen(self._suite, None if is_newest else number))
            case (str() as dataset, str() as label) if page is not None:
                cells = (cell for cell in page.run.cells if (cell.dataset, cell.label) == (dataset, label))
                self.app.push_screen(CellScreen(next(cells), page))
            case None:
                self.say("There is nothing more to show of this line.")
            case comparison if page is not None and self._report is not None:
                from ipsrec_bench.ui.report_listings import of_row

                made = of_row(self._report, comparison)
                self.app.push_screen(CompareScreen.of(made, page.run.suite.statistics))

    def compared(self) -> tuple[str, int | None]:
        """Return this run."""
        return self._suite, self._page.run.run if self._page is not None else self._number

    def report_of(self) -> str | None:
        """Return this suite, unless an older run of it is shown."""
        return self._suite if self._page is not None and self._page.newest else None


def _mean(curves: Sequence[Sequence[CurvePoint]]) -> tuple[tuple[float, float], ...]:
    """Return the mean of curves at each epoch that some of them have."""
    found: dict[int, list[float]] = {}
    for points in curves:
        for point in points:
            if point.valid is not None:
                found.setdefault(point.epoch, []).append(point.valid)
    return tuple((float(epoch), sum(values) / len(values)) for epoch, values in sorted(found.items()))
