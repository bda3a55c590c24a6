"""Comparisons on slices of the test users, which show where a difference comes from."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.target_facts import TargetFacts
from ipsrec_bench.report.comparisons import Pair, compare
from ipsrec_bench.report.content import Row, Slice, SliceTable
from ipsrec_bench.report.results import Results
from ipsrec_bench.suite.schema import Statistics

Members = tuple[str, str, NDArray[np.bool_]]
"""Dimension, name and members of a slice; members are bool `[test users]`."""
LENGTH_PARTS = 4
POPULARITY_PARTS = 3
SMALLEST_SLICE = 30
"""Minimum number of users of a slice that is compared: means over fewer are mostly noise."""


def slices_of(facts: TargetFacts) -> list[Members]:
    """Return all non-empty slices of the test users; slices of one dimension are disjoint.

    Lengths and popularities are cut at quantiles of the test users, so that slices are about equally large; equal
    values stay together, and what training never saw is a separate slice. Slices with the same users are one slice in
    the first of their dimensions, and its name lists the others.
    """
    known = facts.provider_count >= 0
    repeat, seen = facts.item_seen, facts.provider_seen
    found = [
        *_cut("history length", facts.history, LENGTH_PARTS),
        *_cut("item in training", facts.item_count, POPULARITY_PARTS, " times"),
        ("provider in training", "unknown", ~known),
        *_cut("provider in training", facts.provider_count, POPULARITY_PARTS, " times", known),
        ("target's provider", "in the history", seen),
        ("target's provider", "not in the history", known & ~seen),
        ("target's provider", "unknown", ~known),
        ("target", "repeat: item in the history", repeat),
        ("target", "new item of a provider in the history", ~repeat & seen),
        ("target", "new item of a provider not in the history", ~repeat & known & ~seen),
        ("target", "new item of an unknown provider", ~repeat & ~known),
    ]
    same: dict[bytes, list[Members]] = {}
    for slice_ in found:
        if slice_[2].any():
            same.setdefault(slice_[2].tobytes(), []).append(slice_)
    return [
        (dimension, "; ".join([name, *(f"{other}: {also}" for other, also, _ in rest)]), members)
        for (dimension, name, members), *rest in same.values()
    ]


def slice_test(statistics: Statistics) -> str:
    """Return the test of slices: the declared one if it is a t-test, else the paired t-test over users."""
    return statistics.test if statistics.test in {"auto", "method"} else "paired-t"


def slice_table(results: Results, facts: TargetFacts, dataset: str, row: Row, reference: Row) -> SliceTable:
    """Compare `row` with `reference` on every slice of `dataset`, on the report's metric; all are one family.

    Slices with too few users, and those of all users, are named and not compared.
    """
    declared = results.run.suite.statistics
    statistics = declared.model_copy(update={"test": slice_test(declared), "interval": "test"})
    members = slices_of(facts)
    large = [member for member in members if member[2].sum() >= SMALLEST_SLICE and not member[2].all()]
    pairs = [Pair(dataset, results.metric, row, reference, chosen) for _, _, chosen in large]
    compared = zip(large, compare(results, pairs, statistics, family=lambda _: None), strict=True)
    return SliceTable(
        dataset,
        row,
        reference,
        results.metric,
        tuple(
            Slice(dimension, name, comparison.users / len(facts.users), comparison)
            for (dimension, name, _), comparison in compared
        ),
        tuple(f"{dimension}: {name}" for dimension, name, chosen in members if chosen.sum() < SMALLEST_SLICE),
        tuple(
            f"{dimension}: {name}"
            for dimension, name, chosen in members
            if chosen.all() and len(chosen) >= SMALLEST_SLICE
        ),
    )


def _cut(
    dimension: str, values: NDArray[np.int32], parts: int, unit: str = "", among: NDArray[np.bool_] | None = None
) -> Iterator[Members]:
    among = np.ones(len(values), dtype=bool) if among is None else among
    never = among & (values == 0)
    yield dimension, "never", never
    counted = among & (values > 0)
    if not counted.any():
        return
    edges = np.unique(np.quantile(values[counted], np.linspace(0, 1, parts + 1)[1:], method="lower"))
    low = int(values[counted].min())
    for high in map(int, edges):
        yield (
            dimension,
            f"{low:,}{unit if low != 1 else unit.removesuffix('s')}" if low == high else f"{low:,} to {high:,}{unit}",
            counted & (low <= values) & (values <= high),
        )
        low = high + 1
