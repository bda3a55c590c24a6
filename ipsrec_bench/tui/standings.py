"""Standings of the rows on each dataset, from the cells that are finished so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ipsrec_bench.tui.state import Layout, RunState


@dataclass(frozen=True)
class Standing:
    """Standing of a row on a dataset, over its finished seeds."""

    value: float | None
    """Mean of the metric; None before a seed is finished."""
    seeds: int
    """Number of seeds that are finished."""
    rank: int | None
    """Rank among the rows of the dataset, from 1."""
    difference: float | None
    """Relative difference to the baseline, over the seeds that both have finished; None if there are none."""
    is_baseline: bool
    is_best: bool
    """Whether there are other rows, and none is better."""


def main_metric(state: RunState) -> str:
    """Return the metric that rows are compared by; empty before it is known."""
    names = next((list(result.metrics) for result in state.results.values() if result.metrics), [])
    return state.metric if state.metric in names or not names else names[-1]


def values(state: RunState, metric: str) -> dict[tuple[str, str], dict[int, float]]:
    """Return the metric of every finished seed, by dataset and label."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for (dataset, label, seed), key in state.places.items():
        result = state.results.get(key)
        if result is not None and metric in result.metrics:
            found.setdefault((dataset, label), {})[seed] = result.metrics[metric]
    return found


def standings(state: RunState, plan: Layout, metric: str) -> dict[tuple[str, str], Standing]:
    """Return the standing of every row on every dataset of the plan."""
    found = values(state, metric)
    made = {}
    for dataset in plan.datasets:
        rows = {label: found[dataset, label] for label in plan.labels if (dataset, label) in found}
        means = {label: mean(list(by_seed.values())) for label, by_seed in rows.items()}
        order = sorted(means, key=lambda label: -means[label])
        for label in plan.labels:
            by_seed = rows.get(label, {})
            made[dataset, label] = Standing(
                means.get(label),
                len(by_seed),
                order.index(label) + 1 if label in means else None,
                _difference(label, rows, order, state.baseline),
                label == state.baseline,
                len(order) > 1 and label == order[0],
            )
    return made


def mean(numbers: Sequence[float]) -> float:
    """Return the mean of at least one number."""
    return sum(numbers) / len(numbers)


def _difference(
    label: str, rows: Mapping[str, Mapping[int, float]], order: Sequence[str], baseline: str
) -> float | None:
    """Return the relative difference of a row to the baseline, or to the best row that has a seed in common with it."""
    if label not in rows:
        return None
    others = [baseline] if baseline not in {"", "best"} else [other for other in order if other != label]
    for other in others:
        common = rows[label].keys() & rows.get(other, {}).keys()
        if common and other != label:
            base = mean([rows[other][seed] for seed in common])
            return (mean([rows[label][seed] for seed in common]) - base) / base if base else None
    return None
