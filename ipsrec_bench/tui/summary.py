"""The table at the end of a run."""

from collections import Counter
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from ipsrec_bench.tui.lines import clock, percent
from ipsrec_bench.tui.standings import main_metric, mean, standings, values
from ipsrec_bench.tui.state import RunState

OTHERS = ("difference", "done", "failed", "time")
"""Columns beside the metrics."""


def summary(state: RunState) -> RenderableType | None:
    """Return every row of every dataset with its means, and how many of its cells are done; None without any result.

    Means are over the finished seeds whose metrics are known; the metrics are those at the last cutoff of each kind.
    """
    return _Summary(state) if state.plan.datasets and (state.results or state.failed) else None


@dataclass(frozen=True)
class _Summary:
    """The table with as many columns as the terminal has room for."""

    state: RunState

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        main = main_metric(self.state)
        metrics = _shown_metrics(self.state, main)
        last = [main] if main else []
        table = Table()
        for columns, others in ((metrics, OTHERS), (last, OTHERS), (last, OTHERS[:2]), (last, OTHERS[1:2])):
            table = _table(self.state, columns, main, others)
            if console.measure(table, options=options.update(max_width=1000)).maximum <= options.max_width:
                break
        yield ""
        yield table
        yield ""
        yield _totals(self.state)


def _table(state: RunState, metrics: list[str], main: str, others: tuple[str, ...]) -> Table:
    plan = state.plan
    found = {metric: values(state, metric) for metric in metrics}
    ranked = standings(state, plan, main)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    table.add_column("dataset")
    table.add_column("model")
    against = "vs base" if state.baseline not in {"", "best"} else "vs best"
    for head in (*metrics, *others):
        table.add_column(against if head == "difference" else head, justify="right", no_wrap=True)
    for dataset in plan.datasets:
        labels = [label for label in plan.labels if any((dataset, label, seed) in state.places for seed in plan.seeds)]
        ranks = {label: ranked[dataset, label].rank or len(plan.labels) + 1 for label in labels}
        for number, label in enumerate(sorted(labels, key=ranks.__getitem__)):
            standing = ranked[dataset, label]
            keys = {state.places[place] for seed in plan.seeds if (place := (dataset, label, seed)) in state.places}
            marks = Counter(state.cell_states[key] for key in keys)
            means = [found[metric].get((dataset, label)) for metric in metrics]
            difference = "base" if standing.is_baseline else ""
            if standing.difference is not None:
                difference = percent(standing.difference)
            beside: dict[str, str | Text] = {
                "difference": Text(difference, style="dim" if standing.is_baseline else ""),
                "done": f"{marks['done']}/{len(keys)}",
                "failed": Text(str(marks["failed"]), style="bold red") if marks["failed"] else "",
                "time": _time(state, keys),
            }
            table.add_row(
                Text("" if number else dataset, style="bold"),
                Text(label, style="bold green" if standing.is_best else ""),
                *("" if one is None else f"{mean(list(one.values())):.4f}" for one in means),
                *(beside[head] for head in others),
            )
        if dataset != plan.datasets[-1]:
            table.add_row()
    return table


def _time(state: RunState, keys: set[str]) -> str:
    known = [result.seconds for key in keys if (result := state.results.get(key)) and result.seconds is not None]
    known += [state.failed[key].seconds for key in keys if key in state.failed]
    return clock(sum(known)) if known else ""


def _shown_metrics(state: RunState, main: str) -> list[str]:
    """Return the metrics that fit beside each other: those at the last cutoff of each kind, the main one last."""
    last = {name.partition("@")[0]: name for result in state.results.values() for name in result.metrics}
    return [*(name for name in last.values() if name != main), *([main] if main else [])]


def _totals(state: RunState) -> Text:
    made = Text(f"{state.done} of {state.cells} cells done")
    if state.failed:
        made.append(", ").append(f"{len(state.failed)} failed", style="bold red")
    if state.left:
        made.append(f", {state.left} left")
    if state.finished is not None:
        how = "interrupted" if state.finished.interrupted else "finished"
        made.append(f"; {how} after {clock(state.finished.seconds)}")
    return made
