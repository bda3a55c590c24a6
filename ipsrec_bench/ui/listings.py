"""What a table of the browser shows: lines of texts, and what each line is of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from ipsrec_bench.settings import in_words
from ipsrec_bench.store.records import PlannedCell, reason_of
from ipsrec_bench.tui.lines import bar, clock, line
from ipsrec_bench.tui.results import MARKS
from ipsrec_bench.tui.state import RunState
from ipsrec_bench.ui.reading import JournalLine, SuiteLine, SuitePage
from ipsrec_bench.words import visible

BAR = 14
KEY = 10
"""Characters of a cell's key that are shown; `compare` takes them for the cell."""


@dataclass(frozen=True)
class Line:
    """A line of a table."""

    id: str
    """Distinct within the table; the cursor stays on it when the table is read again."""
    cells: tuple[Text, ...]
    subject: Any = None
    """What Enter opens; None where there is nothing to open."""
    name: str = ""
    """What `compare` takes it for; empty where it cannot be compared."""

    def has(self, words: Sequence[str]) -> bool:
        """Return whether all `words`, in lower case, occur in the line."""
        whole = " ".join(cell.plain for cell in self.cells).casefold()
        return all(word in whole for word in words)


@dataclass(frozen=True)
class Listing:
    """A table: heads and lines."""

    heads: tuple[str, ...]
    lines: tuple[Line, ...]
    empty: str = ""
    """A sentence that stands in place of the lines, where there are none."""
    fixed: int = 1
    """Columns that stay when the table is scrolled sideways."""


def fixed_widths(listing: Listing, room: int) -> list[int]:
    """Return the widths of the columns that stay in place; the widest are cut where they need more than `room`."""
    needed = {
        number: max(
            cell_len(cell) for cell in (listing.heads[number], *(line.cells[number].plain for line in listing.lines))
        )
        for number in range(listing.fixed)
    }
    widths = [0] * listing.fixed
    for left, number in zip(range(listing.fixed, 0, -1), sorted(needed, key=needed.__getitem__), strict=True):
        widths[number] = min(needed[number], max(1, room // left))
        room -= widths[number]
    return widths


def suites_listing(suites: Sequence[SuiteLine]) -> Listing:
    """Return the suites of a store, with their progress."""
    lines = []
    for one in suites:
        shares = [(one.complete / one.cells, "green"), (one.failed / one.cells, "red")] if one.cells else []
        cells = (
            text(one.suite, "bold"),
            Text("running", "bold green") if one.live else Text(),
            line(*bar(shares, BAR)),
            right(f"{one.complete}/{one.cells}" if one.cells else ""),
            right(str(one.failed or ""), "bold red"),
            Text(_moment(one.started)),
        )
        lines.append(Line(one.suite, cells, one.suite, one.suite))
    heads = ("suite", "", "progress", "complete", "failed", "last run (UTC)")
    return Listing(heads, tuple(lines), "The store has no run yet. Start one with: ipsrec-bench run SUITE")


def cells_listing(page: SuitePage, state: RunState | None) -> Listing:
    """Return the cells of a run; where the run is going on, with the states that its events say."""
    lines = []
    for number, cell in enumerate(page.run.cells):
        found = page.summaries.get(cell.key)
        value = page.values.get(cell.key)
        best = "" if found is None or found.best_epoch is None else str(found.best_epoch)
        cells = (
            text(cell.dataset),
            text(cell.label, "bold"),
            right(str(cell.seed)),
            _state_of(cell, page, state),
            right("" if value is None else f"{value:.4f}"),
            right(best),
            right("" if found is None else clock(found.seconds)),
            Text(cell.key[:KEY], "dim"),
        )
        lines.append(Line(f"{cell.dataset}\0{cell.label}\0{cell.seed}\0{number}", cells, cell, cell.label))
    heads = ("dataset", "model", "seed", "state", page.metric.upper(), "epoch", "time", "key")
    return Listing(heads, tuple(lines), "This run has no cells.", fixed=2)


def _state_of(cell: PlannedCell, page: SuitePage, state: RunState | None) -> Text:
    mark = state.cell_states.get(cell.key) if state is not None else None
    if mark is None:
        found = page.summaries.get(cell.key)
        word = "missing" if found is None else "done" if found.status == "complete" else "failed"
        mark = "queued" if word == "missing" else "done" if word == "done" else "failed"
    else:
        word = mark
    running = state.running.get(cell.key) if state is not None else None
    if running is not None:
        stage, epoch, epochs = running.current
        word = f"{stage or 'epoch'} {epoch}/{epochs}"
    symbol, style = MARKS[mark]
    return Text(f"{symbol} {word}", style)


def curves_listing(page: SuitePage) -> Listing:
    """Return a line for each row and dataset with learning curves."""
    rows: dict[tuple[str, str], list[str]] = {}
    for cell in page.run.cells:
        if cell.key in page.curves:
            rows.setdefault((cell.dataset, cell.label), []).append(cell.key)
    lines = []
    for (dataset, label), keys in rows.items():
        found = [page.summaries[key] for key in keys if key in page.summaries]
        best = [one.best_valid for one in found if one.best_valid is not None]
        cells = (
            text(dataset),
            text(label, "bold"),
            right(str(len(keys))),
            right(f"{sum(best) / len(best):.4f}" if best else ""),
            Text("cut off" if any(one.cut_off for one in found) else "", "yellow"),
        )
        lines.append(Line(f"{dataset}\0{label}", cells, (dataset, label), label))
    empty = "No cell of this run has a learning curve: nothing is trained yet, or its models count."
    return Listing(("dataset", "model", "seeds", "best", ""), tuple(lines), empty, fixed=2)


def logs_listing(page: SuitePage | None, journals: Sequence[JournalLine]) -> Listing:
    """Return the failed cells of a run, then the journals of the suite's runs."""
    lines = []
    for number, cell in enumerate(page.run.cells if page is not None else ()):
        found = page.summaries.get(cell.key) if page is not None else None
        if found is not None and found.error:
            failed = (
                Text("failed cell", "bold red"),
                Text(),
                text(f"{cell.label} · {cell.dataset} · seed {cell.seed}"),
            )
            lines.append(Line(f"cell {number}", (*failed, text(reason_of(found.error))), cell))
    for one in journals:
        state = Text("running", "bold green") if one.live else Text("run")
        where = f"{one.opened.host}, process {one.opened.pid}"
        started = datetime.fromtimestamp(one.opened.time, UTC).replace(tzinfo=None)
        what = (state, Text(_moment(started)), text(where), text(_command(one.opened.command)))
        lines.append(Line(one.path.name, what, one))
    heads = ("log", "started (UTC)", "of", "")
    return Listing(heads, tuple(lines), "No cell has failed, and no run of this suite has a journal beside the store.")


def _command(command: str) -> str:
    """Return a command without the place of the program."""
    return " ".join(["ipsrec-bench", *command.split(" ")[1:]])


def runs_listing(page: SuitePage) -> Listing:
    """Return the runs of the suite."""
    lines = tuple(
        Line(
            str(one.run),
            (
                right(str(one.run), "bold"),
                Text(_moment(one.started)),
                right(f"{one.complete}/{one.cells}"),
                right(str(one.failed or ""), "bold red"),
                text(" ".join(one.overrides)),
            ),
            one.run,
            f"{page.run.suite_name}@{one.run}",
        )
        for one in page.runs
    )
    return Listing(("run", "started (UTC)", "complete", "failed", "with --set"), lines)


def facts_of(cell: PlannedCell, page: SuitePage) -> Mapping[str, str]:
    """Return what the store knows of a cell: name and value."""
    facts = {"dataset": cell.dataset, "model": cell.label, "seed": str(cell.seed), "key": cell.key}
    found = page.summaries.get(cell.key)
    if found is None:
        return facts | {"state": "not run yet"}
    facts["state"] = found.status
    if cell.key in page.values:
        facts[page.metric.upper()] = f"{page.values[cell.key]:.4f} (test)"
    if found.best_valid is not None and found.stop_metric:
        cut = "; still getting better at the last epoch" if found.cut_off else ""
        facts["validation"] = f"{found.stop_metric} {found.best_valid:.4f} at epoch {found.best_epoch}{cut}"
    facts["time"] = clock(found.seconds)
    if found.train_seconds is not None:
        facts["time"] += f", of which training {clock(found.train_seconds)}"
    if found.parameters is not None:
        facts["parameters"] = f"{found.parameters:,}"
    if found.peak_memory is not None:
        facts["memory"] = f"{found.peak_memory / 2**20:,.0f} MiB"
    for name in ("config", "training", "protocol"):
        said = found.settings.get(name, {})
        facts[name] = ", ".join(f"{key} = {value}" for key, value in said.items() if key != "tasks")
        facts.update({f"task {task}": in_words(own) for task, own in said.get("tasks", {}).items()})
    return {name: visible(value) for name, value in facts.items() if value}


def text(value: str, style: str = "") -> Text:
    """Return a cell that stands left; it ends in an ellipsis where its column is narrower."""
    return Text(visible(value), style, no_wrap=True, overflow="ellipsis")


def right(value: str, style: str = "") -> Text:
    """Return a cell that stands right."""
    return Text(visible(value), style, justify="right")


def _moment(value: datetime | None) -> str:
    return "" if value is None else f"{value:%Y-%m-%d %H:%M}"
