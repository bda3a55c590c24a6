"""The live dashboard: a run's state as a Rich renderable."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ipsrec_bench.events import CellFailed, CellFinished, SearchStarted, TrialEnded
from ipsrec_bench.tui.state import RunningCell, RunState

BLOCKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 16
SHOWN_FAILURES = 3
NARROW = 72
"""Columns of a terminal below which a table that does not fit becomes two lines a row."""
FIXED_LINES = 11 + SHOWN_FAILURES
"""Lines of the screen that are taken whatever the run does: header, bar, table heads, gaps, errors."""


@dataclass(frozen=True)
class _Rows:
    """Rows as a table or, on a narrow terminal that has no room for it, as two lines each."""

    table: Table
    head: str
    rows: Sequence[tuple[Text, str]]
    """What each row is about, and the rest of it."""
    most: int
    """Lines to be taken, about."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needed = console.measure(self.table, options=options.update(max_width=1000)).maximum
        if options.max_width >= NARROW or needed <= options.max_width:
            yield self.table
            return
        yield Text(self.head, style="dim")
        for name, rest in self.rows[-max(1, self.most // 2) :]:
            name.truncate(options.max_width, overflow="ellipsis")
            yield name
            yield Text(f"  {rest}", no_wrap=True, overflow="ellipsis")


def dashboard(state: RunState, now: float, height: int) -> RenderableType:
    """Return the picture of `state` at time `now`, fit for a terminal of `height` lines."""
    said = len(state.datasets) + 2 * len(state.left_out) + 2 * sum(len(d.notes) for d in state.datasets)
    room = max(3, height - FIXED_LINES - said - max(1, len(state.running)))
    search = state.search
    parts: list[RenderableType] = [_header(state, now) if search is None else _search_header(state, search, now)]
    parts += [
        Text(
            f"  {d.dataset}: {d.users:,} users, {d.items:,} items, {d.providers:,} providers,"
            f" {d.actions:,} interactions",
            style="dim",
        )
        for d in state.datasets
    ]
    parts += [Text(f"  {d.dataset}: {note}", style="yellow") for d in state.datasets for note in d.notes]
    parts += [Text(f"  {d.dataset}: left out: {d.reason}", style="yellow") for d in state.left_out]
    if state.running:
        parts += ["", _running(list(state.running.values()))]
    if state.ended:
        parts += ["", _ended(state, room)]
    if search is not None and state.trials:
        parts += ["", _trials(state, search, room)]
    failures = [
        *(f"{cell.label}, seed {cell.seed}: {cell.error}" for cell in state.ended if isinstance(cell, CellFailed)),
        *(f"trial {trial.number}: {trial.error}" for trial in state.trials if trial.error),
    ]
    parts += [Text(text, style="red", no_wrap=True, overflow="ellipsis") for text in failures[-SHOWN_FAILURES:]]
    if state.waiting:
        parts += ["", Text(f"  Waiting: {state.waiting}", style="yellow")]
    return Padding(Group(*parts), (1, 1, 0, 1))


def sparkline(values: tuple[float, ...], width: int = SPARK_WIDTH) -> str:
    """Return the newest `width` values as blocks between their least and their greatest."""
    shown = values[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in shown)


def clock(seconds: float) -> str:
    """Return a duration as m:ss, or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _header(state: RunState, now: float) -> RenderableType:
    done = len(state.ended)
    failed = sum(isinstance(cell, CellFailed) for cell in state.ended)
    left = state.remaining_seconds(now)
    facts = [f"{state.skipped + done}/{state.cells} cells", f"{clock(now - state.began)} elapsed"]
    if state.skipped:
        facts.insert(1, f"{state.skipped} already done")
    if left is not None and state.finished is None:
        facts.append(f"about {clock(left)} left")
    line = Text(" · ".join(facts), style="dim")
    if failed:
        line.append(f" · {failed} failed", style="bold red")
    grid = Table.grid(expand=True)
    grid.add_row(Text(state.title, style="bold"))
    if state.cells:
        progress = done + sum(cell.progress for cell in state.running.values())
        grid.add_row(
            ProgressBar(total=max(state.todo, 1), completed=progress if state.todo else 1, complete_style="cyan")
        )
        grid.add_row(line)
    return grid


def _search_header(state: RunState, search: SearchStarted, now: float) -> RenderableType:
    ended = search.ended + state.counted
    facts = [f"{ended}/{search.trials} trials" if search.trials is not None else f"{ended} trials"]
    if search.ended:
        facts.append(f"{search.ended} already there")
    facts += [
        f"{count} {outcome}"
        for outcome in ("pruned", "failed", "killed")
        if (count := sum(trial.outcome == outcome for trial in state.trials))
    ]
    if state.running:
        facts.append(f"{len(state.running)} running")
    facts.append(f"{clock(now - state.began)} elapsed")
    if search.seconds is not None:
        facts.append(f"{clock(state.spent(now))} of {clock(search.seconds)} of training")
    if (left := state.remaining_seconds(now)) is not None:
        facts.append(f"about {clock(left)} left")
    shares = [ended / search.trials] if search.trials else []
    shares += [state.spent(now) / search.seconds] if search.seconds else []
    grid = Table.grid(expand=True)
    grid.add_row(Text(state.title, style="bold"))
    grid.add_row(ProgressBar(total=1.0, completed=min(1.0, max(shares, default=0.0)), complete_style="cyan"))
    grid.add_row(Text(" · ".join(facts), style="dim"))
    if (best := _best(state, search)) is not None:
        value, settings = best
        grid.add_row(Text(f"Best so far: {value:.4f} with {settings}", style="green"))
    return grid


def _best(state: RunState, search: SearchStarted) -> tuple[float, str] | None:
    """Return the best value of the study, as far as this run knows, and its settings."""
    found = [(search.best, search.best_settings)] if search.best is not None else []
    found += [(trial.value, trial.settings) for trial in state.trials if trial.value is not None]
    return max(found, key=lambda one: one[0], default=None)


def _trials(state: RunState, search: SearchStarted, room: int) -> _Rows:
    shown = state.trials[-room:]
    hidden = len(state.trials) - len(shown)
    best = _best(state, search)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    table.add_column("Trial", justify="right")
    table.add_column(f"settings ({hidden} earlier not shown)" if hidden else "settings")
    table.add_column(f"validation {search.metric}", justify="right")
    table.add_column("epochs", justify="right")
    table.add_column("time", justify="right")
    rows = []
    for trial in shown:
        style = {"complete": "", "pruned": "dim"}.get(trial.outcome, "red")
        if best is not None and (trial.value, trial.settings) == best:
            style = "green"
        table.add_row(
            str(trial.number),
            Text(trial.settings),
            _outcome(trial),
            str(trial.epochs),
            clock(trial.seconds),
            style=style,
        )
        rows.append(
            (Text(f"{trial.number}: {trial.settings}", style=style), f"{_outcome(trial)}, {clock(trial.seconds)}")
        )
    return _Rows(table, f"Trials, validation {search.metric}", rows, room)


def _outcome(trial: TrialEnded) -> str:
    return f"{trial.value:.4f}" if trial.value is not None else trial.outcome


def _running(cells: list[RunningCell]) -> _Rows:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    table.add_column("Running", style="cyan", no_wrap=True)
    table.add_column("seed", justify="right")
    table.add_column("epoch", justify="right", no_wrap=True)
    table.add_column("loss", justify="right", min_width=7)
    table.add_column(f"validation {cells[0].stop_metric}", no_wrap=True, min_width=SPARK_WIDTH + 7)
    table.add_column("targets/s", justify="right", min_width=8)
    rows = []
    for cell in cells:
        spark = Text(sparkline(cell.valid).ljust(SPARK_WIDTH), style="green")
        if cell.valid:
            spark.append(f" {cell.valid[-1]:.4f}", style="default")
        epoch = f"{cell.epoch + 1 if cell.epoch < cell.epochs else cell.epoch}/{cell.epochs}"
        table.add_row(
            Text(f"{cell.label} · {cell.dataset}"),
            str(cell.seed),
            epoch,
            "" if cell.loss is None else f"{cell.loss:.4f}",
            spark,
            "" if cell.rate is None else f"{cell.rate:,.0f}",
        )
        rest = [epoch, *(f"{value:.4f}" for value in cell.valid[-1:]), f"seed {cell.seed}"]
        rows.append((Text(f"{cell.label} · {cell.dataset}", style="cyan"), " · ".join(rest)))
    return _Rows(table, f"Running, validation {cells[0].stop_metric}", rows, 2 * len(rows))


def _ended(state: RunState, room: int) -> _Rows:
    shown = state.ended[-room:]
    hidden = len(state.ended) - len(shown)
    names = _shown_metrics(shown)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    table.add_column(f"Finished ({hidden} earlier not shown)" if hidden else "Finished", no_wrap=True)
    table.add_column("seed", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("best epoch", justify="right")
    table.add_column("time", justify="right")
    rows = []
    for cell in shown:
        label = f"{cell.label} · {cell.dataset}"
        if isinstance(cell, CellFailed):
            failed = [Text(text, style="red") for text in (label, str(cell.seed))]
            table.add_row(*failed, *[""] * len(names), Text("failed", style="bold red"), clock(cell.seconds))
            rows.append((Text(label, style="red"), f"failed · seed {cell.seed}"))
        else:
            table.add_row(
                Text(label),
                str(cell.seed),
                *(f"{cell.metrics[name]:.4f}" for name in names),
                str(cell.best_epoch),
                clock(cell.seconds),
            )
            rest = [*(f"{name} {cell.metrics[name]:.4f}" for name in names[-1:]), f"seed {cell.seed}"]
            rows.append((Text(label), " · ".join(rest)))
    return _Rows(table, "Finished", rows, room)


def _shown_metrics(cells: tuple[CellFinished | CellFailed, ...]) -> list[str]:
    """Return the metrics that fit beside each other: those at the last cutoff of each kind."""
    finished = [cell for cell in cells if isinstance(cell, CellFinished)]
    last = {name.partition("@")[0]: name for cell in finished for name in cell.metrics}
    return list(last.values())
