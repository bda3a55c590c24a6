"""The test ranks of a run, by dataset, row and seed, and the metrics that follow from them."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.ranking.metrics import gains
from ipsrec_bench.report.content import Row, Score
from ipsrec_bench.report.runs import Run
from ipsrec_bench.stats.differences import DECIMALS
from ipsrec_bench.stats.effect import superiority
from ipsrec_bench.store.queries import CellSummary, TestRanks
from ipsrec_bench.store.records import PlannedCell

_TRIALS = re.compile(r"tuned, ([\d,]+) trials?")
MATRICES = 3
"""Number of per-user matrices that are kept: a reference is compared with many rows, one after the other."""


def row_of(cell: PlannedCell) -> Row:
    """Return the row of the tables that `cell` is one seed of."""
    return Row(cell.label, cell.display, cell.model, cell.variant, cell.tuning, cell.control)


def tuning_of(words: Collection[str]) -> str:
    """Return where a row's settings are from, given the words of its cells on all datasets."""
    words = list(dict.fromkeys(word for word in words if word))
    if len(words) < 2:  # noqa: PLR2004 (they differ)
        return "".join(words)
    trials = [_TRIALS.fullmatch(word) for word in words]
    counts = [int(found[1].replace(",", "")) for found in trials if found]
    if len(counts) == len(words):
        return f"tuned, {min(counts):,} to {max(counts):,} trials"
    return "partly tuned" if counts else " or ".join(words)


@dataclass(frozen=True)
class Results:
    """A run with its test ranks and the summaries of its cells, by key."""

    run: Run
    ranks: dict[str, TestRanks]
    summaries: Mapping[str, CellSummary] = field(default_factory=dict)
    """By key; a cell without one counts as trained to its end."""
    valid: Mapping[str, NDArray[np.int64] | NDArray[np.float64]] = field(default_factory=dict)
    """By key, how many validation users have each rank, as `queries.valid_counts` gives it."""

    @cached_property
    def datasets(self) -> list[str]:
        """The suite's labels of the datasets that were run."""
        return list(dict.fromkeys(cell.dataset for cell in self.run.cells))

    @cached_property
    def rows(self) -> list[Row]:
        """All rows, in the suite's order."""
        words: dict[Row, list[str]] = defaultdict(list)
        for cell in self.run.cells:
            words[row_of(cell)].append(cell.tuning)
        return [replace(row, tuning=tuning_of(found)) for row, found in words.items()]

    @cached_property
    def _tunings(self) -> dict[tuple[str, str], str]:
        """Where settings are from, by dataset and label."""
        words: dict[tuple[str, str], list[str]] = defaultdict(list)
        for cell in self.run.cells:
            words[cell.dataset, cell.label].append(cell.tuning)
        return {place: tuning_of(found) for place, found in words.items()}

    def on(self, dataset: str, row: Row) -> Row:
        """Return `row` with where its settings on `dataset` are from, which may differ between datasets."""
        return replace(row, tuning=self._tunings.get((dataset, row.label), row.tuning))

    @cached_property
    def proposed(self) -> frozenset[str]:
        """Labels of the models that are compared with the baseline in the result table."""
        declared = self.run.suite.statistics.proposed
        return frozenset(declared or (cell.model for cell in self.run.cells if cell.type.startswith("ipsrec")))

    @cached_property
    def metric(self) -> str:
        """The report's own metric."""
        return self.run.suite.main_metric

    @cached_property
    def keys(self) -> dict[tuple[str, str], dict[int, str]]:
        """Keys of complete cells by dataset and label, then by seed."""
        keys: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
        for cell in self.run.cells:
            if cell.key in self.ranks:
                keys[cell.dataset, cell.label][cell.seed] = cell.key
        return keys

    @cached_property
    def _histograms(self) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
        return {}

    @cached_property
    def _matrices(self) -> dict[tuple[tuple[str, ...], str], NDArray[np.float64]]:
        return {}

    @cached_property
    def _chosen(self) -> dict[tuple[str, str, bool], Row | None]:
        return {}

    @cached_property
    def _superiorities(self) -> dict[tuple[tuple[str, ...], tuple[str, ...]], float]:
        return {}

    def row(self, label: str) -> Row:
        """Return the row of this label."""
        return next(row for row in self.rows if row.label == label)

    def seeds(self, dataset: str, row: Row) -> list[int]:
        """Return the seeds of `row` that are complete on `dataset`, ascending."""
        return sorted(self.keys[dataset, row.label])

    def is_deterministic(self, dataset: str, row: Row) -> bool:
        """Return whether the ranks of `row` are the same for every seed; False while no cell of it is complete."""
        keys = self.keys.get((dataset, row.label), {}).values()
        return bool(keys) and all(key in self.summaries and self.summaries[key].deterministic for key in keys)

    def has_one_training(self, dataset: str, row: Row) -> bool:
        """Return whether seeds change the ranks of `row`, but one is complete on `dataset`."""
        return len(self.keys.get((dataset, row.label), {})) == 1 and not self.is_deterministic(dataset, row)

    def is_cut_off(self, dataset: str, row: Row) -> bool:
        """Return whether a training of `row` was still improving when its last allowed epoch ended."""
        keys = self.keys.get((dataset, row.label), {}).values()
        return any(key in self.summaries and self.summaries[key].cut_off for key in keys)

    def users(self, dataset: str) -> NDArray[np.int32]:
        """Return the test users of `dataset`, ascending; empty while no cell of it is complete."""
        ranks = self._first_ranks(dataset)
        return np.empty(0, dtype=np.int32) if ranks is None else ranks.distinct

    def has_several_targets(self, dataset: str) -> bool:
        """Return whether a user of `dataset` has several targets, whose mean is the user's metric."""
        ranks = self._first_ranks(dataset)
        return ranks is not None and len(ranks.distinct) < len(ranks.users)

    def _first_ranks(self, dataset: str) -> TestRanks | None:
        keys = [key for (name, _), seeds in self.keys.items() if name == dataset for key in seeds.values()]
        return self.ranks[keys[0]] if keys else None

    def matrix(self, dataset: str, row: Row, name: str) -> NDArray[np.float64]:
        """Return a metric per user and seed, float64 `[users, seeds]`, seeds ascending.

        A deterministic row has one column. Several targets of a user are averaged.
        """
        keys = self._columns(dataset, row)
        found = self._matrices.pop((keys, name), None)
        if found is None:
            found = np.stack([self.ranks[key].metric(name) for key in keys]).T
        self._matrices[keys, name] = found  # now the newest
        while len(self._matrices) > MATRICES:
            self._matrices.pop(next(iter(self._matrices)))
        return found

    def _columns(self, dataset: str, row: Row) -> tuple[str, ...]:
        """Return the keys of a row's seeds, ascending; of a deterministic row, one."""
        of_row = self.keys[dataset, row.label]
        keys = tuple(of_row[seed] for seed in sorted(of_row))
        return keys[:1] if self.is_deterministic(dataset, row) else keys

    def superiority(self, dataset: str, a: Row, b: Row) -> float:
        """Return the probability that a user is better served by a training of `a` than by one of `b`, by rank.

        Each of a user's n targets counts 1 / n.
        """
        keys = self._columns(dataset, a), self._columns(dataset, b)
        if keys not in self._superiorities:
            ours, theirs = (np.stack([self.ranks[key].ranks for key in side]).T for side in keys)
            weights = self.ranks[keys[0][0]].weights if self.has_several_targets(dataset) else None
            self._superiorities[keys] = superiority(ours, theirs, weights)
        return self._superiorities[keys]

    def histogram(self, key: str) -> NDArray[np.int64] | NDArray[np.float64]:
        """Return how many users of a cell have each rank, from rank 0 (none) on."""
        if key not in self._histograms:
            self._histograms[key] = self.ranks[key].histogram()
        return self._histograms[key]

    def by_seed(self, dataset: str, row: Row, name: str) -> list[float]:
        """Return the mean of a metric over users for every complete seed, ascending."""
        keys = self.keys[dataset, row.label]
        return [_mean_of(self.histogram(keys[seed]), name) for seed in self.seeds(dataset, row)]

    def score(self, dataset: str, row: Row, name: str) -> Score | None:
        """Return a metric of `row`, None while no seed of it is complete."""
        means = self.by_seed(dataset, row, name)
        if not means:
            return None
        varies = len(means) > 1 and not self.is_deterministic(dataset, row)
        return Score(float(np.mean(means)), float(np.std(means, ddof=1)) if varies else None, len(means))

    def hit_curve(self, dataset: str, row: Row, cutoffs: Sequence[int]) -> list[float]:
        """Return HR@N, mean over seeds, at every cutoff."""
        curves = []
        for key in self.keys[dataset, row.label].values():
            counts = self.histogram(key)
            within = np.cumsum(counts) / counts.sum()
            curves.append(within[np.minimum(cutoffs, len(within) - 1)])
        return [float(value) for value in np.mean(curves, axis=0)]

    def reference(self, dataset: str, name: str, row: Row) -> Row | None:
        """Return the row that `row` is compared with: the declared or the best baseline; None if there is none yet.

        A tuned row is compared with a tuned baseline if there is one: the tuned row of the declared baseline, or the
        best tuned one.
        """
        declared, row = self.run.suite.statistics.baseline, self.on(dataset, row)
        if declared == "best":
            return self.baseline(dataset, name, tuned=row.tuned)
        baseline = self.row(declared)
        if row.tuned and not self.on(dataset, baseline).tuned and row.model != baseline.model:
            siblings = (one for one in self.rows if one.model == baseline.model and self.on(dataset, one).tuned)
            return next((one for one in siblings if self.seeds(dataset, one)), baseline)
        return baseline

    def baseline(self, dataset: str, name: str, *, tuned: bool = False) -> Row | None:
        """Return the declared baseline, or the best whole model that is not proposed; None if there is none yet.

        The best is chosen on the validation targets, among those with the most of the suite's seeds and, if there are
        any, among those that are tuned, or not, as `tuned` says, and those that have nothing to tune. If one of them
        has no validation ranks, it is chosen on the test targets.
        """
        declared = self.run.suite.statistics.baseline
        if declared != "best":
            return self.row(declared)
        place = (dataset, name, tuned)
        if place not in self._chosen:
            self._chosen[place] = self._best(dataset, name, tuned=tuned)
        return self._chosen[place]

    def _best(self, dataset: str, name: str, *, tuned: bool) -> Row | None:
        rows = self._baselines(dataset, tuned=tuned)
        values = [self._validated(dataset, row, name) for row in rows]
        if None in values:
            values = [score.mean for row in rows if (score := self.score(dataset, row, name))]
        chosen = max(((round(value or 0.0, DECIMALS), -place) for place, value in enumerate(values)), default=None)
        return None if chosen is None else rows[-chosen[1]]

    def without_validation(self, dataset: str) -> list[Row]:
        """Return the baselines because of which the best one is not chosen on the validation targets of `dataset`."""
        if self.run.suite.statistics.baseline != "best":
            return []
        rows = dict.fromkeys(row for tuned in (False, True) for row in self._baselines(dataset, tuned=tuned))
        return [row for row in rows if self._validated(dataset, row, self.metric) is None]

    def _baselines(self, dataset: str, *, tuned: bool) -> list[Row]:
        """Return the rows among which the best baseline is chosen."""
        wanted = set(self.run.suite.seeds)
        rows = [row for row in self.rows if row.model not in self.proposed and row.whole and self.seeds(dataset, row)]
        alike = (self.on(dataset, row) for row in rows)
        rows = [row for row in alike if row.tuned == tuned or not row.tunable] or rows
        # In an unfinished suite, a baseline with few seeds would leave the methods of all others untested.
        complete = [len(wanted & set(self.seeds(dataset, row))) for row in rows]
        return [row for row, seeds in zip(rows, complete, strict=True) if seeds == max(complete) > 0]

    def _validated(self, dataset: str, row: Row, name: str) -> float | None:
        """Return the mean of a metric over the validation users and seeds of `row`; None without such ranks."""
        counts = [self.valid.get(key) for key in self._columns(dataset, row)]
        found = [_mean_of(one, name) for one in counts if one is not None and one.any()]
        return float(np.mean(found)) if len(found) == len(counts) else None

    def unpaired(self) -> list[PlannedCell]:
        """Return the cells that rank other users than the first of their dataset, so that they cannot be paired."""
        return [
            cell
            for cell in self.run.cells
            if cell.key in self.ranks
            and (first := self._first_ranks(cell.dataset)) is not None
            and not np.array_equal(self.ranks[cell.key].users, first.users)
        ]


def _mean_of(counts: NDArray[np.int64] | NDArray[np.float64], name: str) -> float:
    """Return the mean of a metric, from how many users have each rank, from rank 0 (none) on."""
    table = gains(name, len(counts) - 1)[:-1]
    within = counts[: len(table)]
    return float(within @ table[: len(within)]) / float(counts.sum())
