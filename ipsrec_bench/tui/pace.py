"""Remaining time of a run, estimated from the cells that it has finished."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ipsrec_bench.tui.state import RunState

Kind = tuple[str, str]
"""Dataset and label: cells that differ only in their seed cost about the same."""


def remaining_seconds(state: RunState, now: float) -> float | None:
    """Return an estimate of the seconds left; None before one is possible.

    It is an upper bound if only the pace of running cells is known, because early stopping may cut their epochs.
    """
    now = now if state.paused is None else state.paused
    if state.search is not None:
        return _remaining_search(state, now)
    if not state.left:
        return None
    costs = _costs(state, now)
    if costs is None:
        return None
    running = []
    for cell in state.running.values():
        whole = costs.of(cell.dataset, cell.label)
        own = cell.seconds(now)
        learned = whole * (1 - cell.resumed / max(1, cell.epochs)) - max(0.0, now - cell.began)
        pace = whole if own is None else own
        by_pace = pace * (1 - cell.progress)
        running.append(min(by_pace, learned) if learned > 0 else by_pace)
    kinds = {key: (dataset, label) for (dataset, label, _), key in state.places.items()}
    queued = Counter(kinds[key] for key, mark in state.cell_states.items() if mark in {"queued", "stopped"})
    unknown = max(0, state.left - len(state.running) - queued.total())
    waiting = sum(number * costs.of(*kind) for kind, number in queued.items()) + unknown * costs.average
    at_work = sum(worker.reason is None for worker in state.workers.values())
    return max(max(running, default=0.0), (waiting + sum(running)) / max(1, min(at_work, state.left)))


@dataclass(frozen=True)
class _Costs:
    """Estimated seconds of a cell, from those of other cells."""

    by_kind: Mapping[Kind, float]
    by_row: Mapping[str, list[float]]
    """Seconds for each interaction of a dataset, by label."""
    sizes: Mapping[str, int]
    """Interactions by dataset."""
    average: float

    def of(self, dataset: str, label: str) -> float:
        """Return the seconds of cells of the same kind, else of the row by size of dataset, else of all."""
        if (dataset, label) in self.by_kind:
            return self.by_kind[dataset, label]
        size = self.sizes.get(dataset)
        paces = self.by_row.get(label)
        return size * sum(paces) / len(paces) if size and paces else self.average


def _costs(state: RunState, now: float) -> _Costs | None:
    """Return the costs of finished cells and, for rows without one, estimates from the pace of running cells."""
    found: dict[Kind, list[float]] = {}
    for (dataset, label, _), key in state.places.items():
        result = state.results.get(key)
        if result is not None and result.seconds is not None:
            found.setdefault((dataset, label), []).append(result.seconds)
    rows = {label for _, label in found}
    for cell in state.running.values():
        own = cell.seconds(now)
        if cell.label not in rows and own is not None:
            found.setdefault((cell.dataset, cell.label), []).append(own)
    if not found:
        return None
    by_kind = {kind: sum(seconds) / len(seconds) for kind, seconds in found.items()}
    sizes = {d.dataset: d.actions for d in state.datasets}
    by_row: dict[str, list[float]] = {}
    for (dataset, label), seconds in by_kind.items():
        if sizes.get(dataset):
            by_row.setdefault(label, []).append(seconds / sizes[dataset])
    return _Costs(by_kind, by_row, sizes, sum(by_kind.values()) / len(by_kind))


def _remaining_search(state: RunState, now: float) -> float | None:
    search = state.search
    assert search is not None
    assert state.began is not None
    left = []
    if search.seconds is not None and state.running:
        left.append(max(0.0, search.seconds - state.spent(now)) / len(state.running))
    if search.trials is not None and state.counted:  # how long a trial takes is known once one has ended
        pace = (now - state.began) / (state.counted + len(state.running) / 2)
        left.append(pace * max(0.0, search.trials - search.ended - state.counted - len(state.running) / 2))
    return min(left, default=None)
