"""The comparisons that a report makes: with the baseline, of variants with their whole model, of all pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from ipsrec_bench.report.comparisons import Pair, compare
from ipsrec_bench.report.content import AllPairsTable, Comparison, Row
from ipsrec_bench.report.results import Results
from ipsrec_bench.stats.all_pairs import letters, max_t
from ipsrec_bench.stats.differences import over_seeds
from ipsrec_bench.stats.paired import MIN_USERS

ALL_PAIRS = "all-pairs"


def against_baseline(results: Results) -> tuple[Comparison, ...]:
    """Compare every row with its baseline, on the report's metric first, tuned rows first."""
    metrics = sorted(results.run.suite.protocol.shown, key=lambda name: name != results.metric)
    rows = sorted(results.rows, key=lambda row: not row.tuned)
    pairs = [
        Pair(dataset, name, row, reference)
        for dataset in results.datasets
        for name in metrics
        for row in rows
        if (reference := results.reference(dataset, name, row)) is not None and row != reference
    ]
    if results.run.suite.statistics.family != ALL_PAIRS:
        return compare(results, pairs)
    others = [
        Pair(dataset, name, a, b)
        for dataset in results.datasets
        for name in metrics
        for a, b in combinations([row for row in rows if row.whole], 2)
        if not any(
            (pair.dataset, pair.metric) == (dataset, name) and {pair.row, pair.reference} == {a, b} for pair in pairs
        )
    ]
    asked = {(pair.dataset, pair.metric, pair.row, pair.reference) for pair in pairs}
    made = compare(results, [*pairs, *others])
    return tuple(c for c in made if (c.dataset, c.metric, c.row, c.reference) in asked)


def ablation_columns(results: Results) -> list[tuple[str, str]]:
    """Return the datasets and metrics of the ablation: every kind of metric at the smallest cutoff."""
    protocol = results.run.suite.protocol
    return [(dataset, f"{name}@{min(protocol.cutoffs)}") for dataset in results.datasets for name in protocol.metrics]


def findings_of(results: Results, comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Return the comparisons of whole models on the report's metric: the proposed ones, or all if there are none.

    If a model has a tuned row, its untuned row is left out.
    """
    whole = [c for c in comparisons if c.metric == results.metric and c.row.whole]
    found = [c for c in whole if c.row.model in results.proposed] or whole
    tuned = {(c.dataset, c.row.model) for c in found if c.row.tuned}
    return tuple(c for c in found if c.row.tuned or (c.dataset, c.row.model) not in tuned)


def of_ablation(results: Results, columns: Sequence[tuple[str, str]]) -> tuple[Comparison, ...]:
    """Compare every variant with its whole model, for each dataset and metric of `columns`."""
    whole = {row.model: row for row in results.rows if not row.variant}
    return compare(
        results,
        [
            Pair(dataset, name, row, whole[row.model])
            for dataset, name in columns
            for row in results.rows
            if row.variant and row.model in whole  # an imported variant may lack its whole model
        ],
    )


def all_pairs_of(results: Results) -> tuple[AllPairsTable, ...]:
    """Return the tests of all pairs of whole models by dataset and metric, if the suite declares that family."""
    if results.run.suite.statistics.family != ALL_PAIRS:
        return ()
    return tuple(
        table
        for dataset in results.datasets
        for name in results.run.suite.protocol.shown
        if (table := _all_pairs(results, dataset, name)) is not None
    )


def _all_pairs(results: Results, dataset: str, name: str) -> AllPairsTable | None:
    statistics = results.run.suite.statistics
    rows = [row for row in results.rows if row.whole and results.seeds(dataset, row)]
    if len(rows) < 2 or len(results.users(dataset)) < MIN_USERS:  # noqa: PLR2004 (a pair)
        return None
    values = np.stack([over_seeds(results.matrix(dataset, row, name)) for row in rows])
    found = max_t(values, statistics.resamples)
    return AllPairsTable(
        dataset,
        name,
        tuple(rows),
        tuple(tuple(line) for line in found.p.tolist()),
        letters(found.p < statistics.alpha, values.mean(axis=1)),
        statistics.resamples,
        found.critical(statistics.alpha),
    )


def of_baseline(results: Results) -> tuple[Comparison, ...]:
    """Compare every row with its baseline, with the p-values of all pairs where the suite declares that family."""
    return with_all_pairs(against_baseline(results), all_pairs_of(results))


def with_all_pairs(comparisons: Sequence[Comparison], tables: Sequence[AllPairsTable]) -> tuple[Comparison, ...]:
    """Return the comparisons with the p-values over users of their pairs in `tables`, where p-values are corrected."""
    known = {(table.dataset, table.metric, *pair): p for table in tables for pair, p in _by_pair(table)}
    return tuple(
        replace(c, adjusted_users_p=p, adjusted_p=p if c.test == "paired-t" else c.adjusted_p)
        if p is not None and c.family > 1
        else c
        for c in comparisons
        for p in (known.get((c.dataset, c.metric, c.row, c.reference)),)
    )


def _by_pair(table: AllPairsTable) -> Iterator[tuple[tuple[Row, Row], float]]:
    for a, line in zip(table.rows, table.p, strict=True):
        for b, p in zip(table.rows, line, strict=True):
            yield (a, b), p
