"""Comparisons of rows: every statistic of a pair, then the correction over its family."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.report.content import Comparison, Row
from ipsrec_bench.report.results import Results
from ipsrec_bench.stats.correction import Correction, adjust
from ipsrec_bench.stats.crossed import MIN_SEEDS, crossed_test
from ipsrec_bench.stats.differences import mean_differences, over_seeds, rounded
from ipsrec_bench.stats.effect import effect_size, relative_gain
from ipsrec_bench.stats.equivalence import equivalence_p
from ipsrec_bench.stats.paired import MIN_USERS, MeanTest, paired_t_test, wilcoxon_p, win_tie_loss
from ipsrec_bench.stats.power import detectable_difference
from ipsrec_bench.stats.resampling import bootstrap_intervals, sign_flip_p
from ipsrec_bench.suite.schema import Statistics

TESTS = {
    "paired-t": "two-sided paired t-test over users, on the mean over common seeds",
    "crossed": "two-sided t-test over users and seeds (crossed random effects)",
    "randomisation": "two-sided randomisation test over users (random sign flips), on the mean over common seeds",
    "wilcoxon": "two-sided Wilcoxon signed-rank test over users, on the mean over common seeds",
}
CORRECTIONS = {
    "holm": "Holm",
    "benjamini-hochberg": "Benjamini-Hochberg",
    "bonferroni": "Bonferroni",
    "none": "not corrected,",
}
FAMILIES = {
    "metric": "the comparisons of one metric on one dataset",
    "dataset": "all comparisons on one dataset",
    "suite": "all comparisons of the suite",
}


def smallest_adjusted_p(statistics: Statistics, family: int) -> float:
    """Return the smallest p-value that a comparison can have after correction in a family of this size.

    It is 0, except with random sign flips: B flips allow no p below 1 / (B + 1).
    """
    if statistics.test != "randomisation":
        return 0.0
    least = 1 / (statistics.resamples + 1)
    return least if statistics.correction == "none" else min(1.0, family * least)


def interval_rule(statistics: Statistics) -> str:
    """Return what the intervals of differences are, in words."""
    if statistics.interval == "bootstrap":
        return f"bias-corrected and accelerated bootstrap over users, {statistics.resamples:,} samples"
    return (
        "t, over users and seeds, or over users with fewer than three seeds"
        if statistics.test == "crossed"
        else "t, over users"
    )


@dataclass(frozen=True)
class Pair:
    """A row and the reference to compare it with, on all users or on some."""

    dataset: str
    metric: str
    row: Row
    reference: Row
    users: NDArray[np.bool_] | None = None
    """bool `[test users]`; None means all."""


def compare(
    results: Results,
    pairs: Iterable[Pair],
    statistics: Statistics | None = None,
    family: Callable[[Comparison], Hashable] | None = None,
) -> tuple[Comparison, ...]:
    """Compare `pairs` and correct the p-values over families.

    Pairs without common seeds, or with fewer than two users, are left out.

    Args:
        results: the ranks.
        pairs: in the order of the result; it is faster if those of one dataset, metric and reference are neighbours.
        statistics: tests, intervals and correction; by default the suite's.
        family: returns the family of a comparison; by default the declared one.
    """
    statistics = statistics or results.run.suite.statistics
    made: list[Comparison] = []
    differences: dict[str, list[tuple[int, NDArray[np.float64]]]] = defaultdict(list)
    resampled = statistics.test == "randomisation" or statistics.interval == "bootstrap"
    for pair in pairs:
        seeds = results.common_seeds(pair.dataset, pair.row, pair.reference)
        if not seeds:
            continue
        ours, theirs = (results.matrix(pair.dataset, row, seeds, pair.metric) for row in (pair.row, pair.reference))
        if pair.users is not None:
            ours, theirs = ours[pair.users], theirs[pair.users]
        if len(ours) < MIN_USERS:
            continue
        if resampled:
            differences[pair.dataset].append((len(made), mean_differences(ours, theirs)))
        rows = (pair.row, pair.reference)
        deterministic = tuple(row for row in rows if results.is_deterministic(pair.dataset, row))
        cut_off = tuple(row for row in rows if results.is_cut_off(pair.dataset, row))
        compared = compare_arrays(pair, ours, theirs, statistics, deterministic)
        made.append(replace(compared, cut_off=cut_off))
    for indexed in differences.values():
        for index, comparison in _resample(made, indexed, statistics):
            made[index] = comparison
    return _correct(made, family or declared_family(statistics), statistics)


def compare_arrays(
    pair: Pair,
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    statistics: Statistics,
    deterministic: tuple[Row, ...] = (),
) -> Comparison:
    """Compare two arrays `[users, seeds]` of a metric, without resampling and correction.

    If both rows are `deterministic`, only users vary: the test over users is then also the test over users and seeds.

    Raises:
        ValueError: fewer than two users.
    """
    confidence, alpha = statistics.confidence, statistics.alpha
    mean_difference = mean_differences(ours, theirs)
    of_reference = over_seeds(theirs)
    of_users = of_reference + mean_difference
    by_users = possible(paired_t_test(mean_difference, confidence))
    crossed = crossed_test(rounded(ours - theirs), confidence) if ours.shape[1] >= MIN_SEEDS else None
    if crossed is not None:
        crossed = replace(crossed, test=possible(crossed.test))
    declared = crossed.test if statistics.test == "crossed" and crossed is not None else by_users
    p: float | None = declared.p
    if statistics.test == "crossed" and crossed is None and len(deterministic) < 2:  # noqa: PLR2004 (both)
        p = None
    elif statistics.test == "wilcoxon":
        p = wilcoxon_p(mean_difference)
    equivalent = None
    if statistics.margin is not None and p is not None:
        equivalent = (
            equivalence_p(ours, theirs, statistics.margin, lambda d: crossed_test(d).test)
            if declared is not by_users
            else equivalence_p(of_users, of_reference, statistics.margin, paired_t_test)
        )
    return Comparison(
        pair.dataset,
        pair.metric,
        pair.row,
        pair.reference,
        users=len(ours),
        seeds=ours.shape[1],
        mean=float(over_seeds(ours).mean()),
        reference_mean=float(of_reference.mean()),
        by_users=by_users,
        crossed=crossed,
        effect=effect_size(mean_difference, confidence),
        gain=relative_gain(of_users, of_reference, confidence),
        counts=win_tie_loss(mean_difference),
        low=declared.low,
        high=declared.high,
        p=p,
        adjusted_p=p,
        detectable=_detectable(declared, alpha),
        margin=statistics.margin,
        equivalence_p=equivalent,
        alpha=alpha,
        deterministic=deterministic,
    )


def possible(test: MeanTest) -> MeanTest:
    """Return `test` of a difference of metrics with a valid interval.

    The interval is cut to the possible differences, -1 to 1. Where nothing varies, its ends are NaN: a point would
    claim that the difference is known.
    """
    if test.standard_error == 0:
        return replace(test, low=nan, high=nan)
    return replace(test, low=max(test.low, -1.0), high=min(test.high, 1.0))


def _detectable(test: MeanTest, alpha: float) -> float | None:
    """Return the smallest difference that `test` would have found; None if nothing varied or if it is above 1."""
    found = detectable_difference(test.standard_error, test.degrees, alpha)
    return found if 0 < found <= 1 else None


def declared_family(statistics: Statistics) -> Callable[[Comparison], Hashable]:
    """Return the function that gives the family of a comparison, as the suite declares it."""
    return {
        "metric": lambda c: (c.dataset, c.metric),
        "dataset": lambda c: c.dataset,
        "suite": lambda _: None,
    }[statistics.family]


def _resample(
    made: Sequence[Comparison], indexed: Sequence[tuple[int, NDArray[np.float64]]], statistics: Statistics
) -> Iterable[tuple[int, Comparison]]:
    """Yield the comparisons of one dataset with p-values and intervals by resampling, as declared."""
    by_size: dict[int, list[int]] = defaultdict(list)  # comparisons with the same number of users share their draws
    for place, (_, difference) in enumerate(indexed):
        by_size[len(difference)].append(place)
    for places in by_size.values():
        together = np.stack([indexed[place][1] for place in places])
        p = sign_flip_p(together, statistics.resamples) if statistics.test == "randomisation" else None
        ends = (
            bootstrap_intervals(together, statistics.confidence, statistics.resamples)
            if statistics.interval == "bootstrap"
            else None
        )
        for row, place in enumerate(places):
            index = indexed[place][0]
            comparison = made[index]
            if p is not None:
                comparison = replace(comparison, p=float(p[row]))
            if ends is not None and comparison.by_users.standard_error > 0:
                comparison = replace(comparison, low=float(ends[row, 0]), high=float(ends[row, 1]))
            yield index, comparison


def _correct(
    made: Sequence[Comparison], family: Callable[[Comparison], Hashable], statistics: Statistics
) -> tuple[Comparison, ...]:
    families: dict[Hashable, list[int]] = defaultdict(list)
    for index, comparison in enumerate(made):
        if comparison.p is not None:
            families[family(comparison)].append(index)
    adjusted: dict[int, float] = {}
    equivalent: dict[int, float] = {}
    for members in families.values():
        adjusted |= _adjusted(members, [made[index].p for index in members], statistics.correction)
        equivalent |= _adjusted(members, [made[index].equivalence_p for index in members], statistics.correction)
    return tuple(
        replace(comparison, adjusted_p=adjusted.get(index), equivalence_p=equivalent.get(index))
        for index, comparison in enumerate(made)
    )


def _adjusted(members: Sequence[int], p_values: Sequence[float | None], correction: Correction) -> dict[int, float]:
    there = [(index, p) for index, p in zip(members, p_values, strict=True) if p is not None]
    return dict(zip([index for index, _ in there], adjust([p for _, p in there], correction), strict=True))
