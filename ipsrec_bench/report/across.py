"""All datasets of a suite together: pooled gains, mean ranks, wins."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ipsrec_bench.report.content import AcrossDatasets, Comparison, RelativeGain, Row, RowAcross, Standing
from ipsrec_bench.report.results import Results
from ipsrec_bench.stats.across import (
    Friedman,
    MeanRank,
    Pooled,
    friedman,
    mean_ranks,
    pooled,
    relative_difference,
    wins,
)
from ipsrec_bench.stats.paired import MeanTest

ENOUGH_DATASETS = 10
"""Friedman's test and Nemenyi's critical difference are made from this number of datasets on (Demsar, JMLR 2006)."""


def across_datasets(results: Results, findings: Sequence[Comparison]) -> AcrossDatasets:
    """Return what all datasets say together, on the report's metric.

    Args:
        results: the ranks.
        findings: comparisons of the rows to pool, on the report's metric.

    """
    datasets = results.datasets
    rows = tuple(sorted(_rows_across(results, findings), key=lambda row: row.gain, reverse=True))
    standings, test = _standings(results) if len(datasets) > 1 else ((), None)
    return AcrossDatasets(results.metric, tuple(datasets), rows, standings, test, ENOUGH_DATASETS)


def _rows_across(results: Results, findings: Sequence[Comparison]) -> Iterator[RowAcross]:
    confidence = results.run.suite.statistics.confidence
    for row in dict.fromkeys(c.row for c in findings):
        compared = [c for c in findings if c.row == row]
        gains = [gain for c in compared if (gain := _gain(results, c, confidence)) is not None]
        missing = {*results.datasets} - {c.dataset for c in compared}
        undefined = {c.dataset for c in compared} - {gain.dataset for gain in gains}
        to_pool = [gain.difference.test for gain in gains if gain.varies]
        together = None
        if len(to_pool) > 1:
            errors = [test.standard_error for test in to_pool]
            together = _possible(pooled([test.mean for test in to_pool], errors, confidence))
        lacks, without = (tuple(name for name in results.datasets if name in names) for names in (missing, undefined))
        of_run = results.row(row.label)  # with where its settings are from on all datasets
        yield RowAcross(of_run, tuple(gains), together, lacks, without)


def _possible(found: Pooled) -> Pooled:
    """Return `found` with intervals of possible gains: no metric is negative, so no gain is below -100%."""
    return replace(found, test=_cut(found.test), low=max(found.low, -1.0))


def _cut(test: MeanTest) -> MeanTest:
    return replace(test, low=max(test.low, -1.0))


def _gain(results: Results, c: Comparison, confidence: float) -> RelativeGain | None:
    ours, theirs = (results.matrix(c.dataset, row, results.metric) for row in (c.row, c.reference))
    random = [not results.is_deterministic(c.dataset, row) for row in (c.row, c.reference)]
    difference = relative_difference(ours, theirs, confidence, a_random=random[0], b_random=random[1])
    if difference is None:
        return None
    difference = replace(difference, test=_cut(difference.test))
    return RelativeGain(c.dataset, c.reference, ours.shape[1], theirs.shape[1], difference)


def _standings(results: Results) -> tuple[tuple[Standing, ...], Friedman | None]:
    """Return all whole models by their mean rank, and the test of the ranks."""
    datasets = results.datasets
    rows = [row for row in results.rows if row.whole and any(results.seeds(name, row) for name in datasets)]
    scores = [[results.score(name, row, results.metric) for row in rows] for name in datasets]
    means = np.array([[np.nan if score is None else score.mean for score in line] for line in scores])
    whole = ~np.isnan(means).any(axis=0)
    complete = [row for row, is_whole in zip(rows, whole, strict=True) if is_whole]
    ranked: dict[Row, MeanRank] = {}
    test = None
    if len(complete) > 1:
        tables = [[results.matrix(name, row, results.metric) for row in complete] for name in datasets]
        found = mean_ranks(tables, results.run.suite.statistics.confidence)
        ranked = dict(zip(complete, found, strict=True))
        if len(datasets) >= ENOUGH_DATASETS:
            test = friedman(means[:, whole], results.run.suite.statistics.alpha)
    order = sorted(range(len(rows)), key=lambda place: (rows[place] not in ranked, _mean(ranked.get(rows[place]))))
    counts = wins(means[:, order])
    standings = (
        Standing(
            rows[place],
            ranked.get(rows[place]),
            tuple(name for name, mean in zip(datasets, means[:, place], strict=True) if np.isnan(mean)),
            any(results.has_one_training(name, rows[place]) for name in datasets),
            tuple(
                (int(counts.wins[own, other]), int(counts.ties[own, other]), int(counts.wins[other, own]))
                for other in range(len(order))
            ),
        )
        for own, place in enumerate(order)
    )
    return tuple(standings), test


def _mean(rank: MeanRank | None) -> float:
    return rank.mean if rank is not None else 0.0
