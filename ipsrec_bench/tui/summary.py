"""The table that ends a run."""

from collections import Counter

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ipsrec_bench.tui.lines import clock, percent
from ipsrec_bench.tui.standings import main_metric, mean, standings, values
from ipsrec_bench.tui.state import RunState


def summary(state: RunState) -> RenderableType | None:
    """Return every row of every dataset with its means, and how many of its cells are done; None without cells.

    Means are over the finished seeds whose metrics are known; the metrics are those at the last cutoff of each kind.
    """
    plan = state.plan
    if not plan.datasets:
        return None
    main = main_metric(state)
    metrics = _shown_metrics(state, main)
    found = {metric: values(state, metric) for metric in metrics}
    ranked = standings(state, plan, main)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    table.add_column("dataset", no_wrap=True, overflow="ellipsis")
    table.add_column("model", no_wrap=True, overflow="ellipsis", min_width=8)
    for metric in metrics:
        table.add_column(metric, justify="right", no_wrap=True)
    for head in ("vs base" if state.baseline not in {"", "best"} else "vs best", "done", "failed", "time"):
        table.add_column(head, justify="right", no_wrap=True)
    for dataset in plan.datasets:
        labels = [label for label in plan.labels if any((dataset, label, seed) in state.places for seed in plan.seeds)]
        ranks = {label: ranked[dataset, label].rank or len(plan.labels) + 1 for label in labels}
        labels.sort(key=ranks.__getitem__)
        for number, label in enumerate(labels):
            standing = ranked[dataset, label]
            keys = {state.places[place] for seed in plan.seeds if (place := (dataset, label, seed)) in state.places}
            marks = Counter(state.cell_states[key] for key in keys)
            means = [found[metric].get((dataset, label)) for metric in metrics]
            difference = "base" if standing.is_baseline else ""
            if standing.difference is not None:
                difference = percent(standing.difference)
            table.add_row(
                Text("" if number else dataset, style="bold"),
                Text(label, style="bold green" if standing.is_best else ""),
                *("" if one is None else f"{mean(list(one.values())):.4f}" for one in means),
                Text(difference, style="dim" if standing.is_baseline else ""),
                f"{marks['done']}/{len(keys)}",
                Text(str(marks["failed"]), style="bold red") if marks["failed"] else "",
                _time(state, keys),
            )
        if dataset != plan.datasets[-1]:
            table.add_row()
    return Group("", table, "", _totals(state))


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
