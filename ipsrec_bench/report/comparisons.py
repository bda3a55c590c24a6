"""Comparisons of rows: every statistic of a pair, then the correction over its family."""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.report.content import Comparison, Row
from ipsrec_bench.report.results import Results
from ipsrec_bench.stats.correction import Correction, adjust, worst_step
from ipsrec_bench.stats.differences import mean_differences, over_seeds
from ipsrec_bench.stats.effect import effect_size, next_training_beats, relative_gain
from ipsrec_bench.stats.equivalence import equivalence_p, method_equivalence_p
from ipsrec_bench.stats.method import MIN_SEEDS, MethodTest, method_test
from ipsrec_bench.stats.paired import MIN_USERS, MeanTest, paired_t_test, wilcoxon_p, win_tie_loss
from ipsrec_bench.stats.power import SeedsNeeded, detectable_difference, seeds_needed
from ipsrec_bench.stats.practical import practical
from ipsrec_bench.stats.resampling import bootstrap_intervals, sign_flip_p
from ipsrec_bench.suite.schema import Statistics

TESTS = {
    "auto": "two-sided t-test over users and the seeds of each row, or over users alone where a row has fewer than"
    " three seeds",
    "method": "two-sided t-test over users and the seeds of each row",
    "paired-t": "two-sided paired t-test over users, on the means over seeds",
    "randomisation": "two-sided randomisation test over users (random sign flips), on the means over seeds",
    "wilcoxon": "two-sided Wilcoxon signed-rank test over users, on the means over seeds",
}
CORRECTIONS = {
    "holm": "Holm",
    "benjamini-hochberg": "Benjamini-Hochberg",
    "bonferroni": "Bonferroni",
    "none": "not corrected",
}
FAMILIES = {
    "metric": "the comparisons of one metric on one dataset (proposed rows and others apart)",
    "dataset": "all comparisons on one dataset (proposed rows and others apart)",
    "suite": "all comparisons of the suite (proposed rows and others apart)",
    "all-pairs": "all pairs of whole models of one metric on one dataset (variants apart; p of the paired t-test over"
    " users: maxT over the same pairs)",
}


def corrected_over(correction: str, family: str) -> str:
    """Return how p-values are corrected, in words: a value of `CORRECTIONS` over a family."""
    return correction if correction == CORRECTIONS["none"] else f"{correction} over {family}"


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
    if statistics.test in {"auto", "method"}:
        return "t, over users and seeds, or over users where a row has fewer than three seeds"
    return "t, over users"


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

    Pairs of which a row has no complete seed, or with fewer than two users, are left out.

    Args:
        results: the ranks.
        pairs: in the order of the result; it is faster if those of one dataset, metric and reference are neighbours.
        statistics: tests, intervals and correction; by default the suite's.
        family: returns the family of a comparison; by default the declared one.
    """
    statistics = statistics or results.run.suite.statistics
    made: list[Comparison] = []
    of_all_users: list[bool] = []
    differences: dict[str, list[tuple[int, NDArray[np.float64]]]] = defaultdict(list)
    resampled = statistics.test == "randomisation" or statistics.interval == "bootstrap"
    for given in pairs:
        rows = tuple(results.on(given.dataset, row) for row in (given.row, given.reference))
        pair = replace(given, row=rows[0], reference=rows[1])
        if not all(results.seeds(pair.dataset, row) for row in rows):
            continue
        ours, theirs = (results.matrix(pair.dataset, row, pair.metric) for row in rows)
        if pair.users is not None:
            ours, theirs = ours[pair.users], theirs[pair.users]
        if len(ours) < MIN_USERS:
            continue
        if resampled:
            differences[pair.dataset].append((len(made), mean_differences(ours, theirs)))
        compared = compare_arrays(
            pair,
            ours,
            theirs,
            statistics,
            deterministic=tuple(row for row in rows if results.is_deterministic(pair.dataset, row)),
        )
        of_all_users.append(pair.users is None)
        made.append(
            replace(
                compared,
                cut_off=tuple(row for row in rows if results.is_cut_off(pair.dataset, row)),
                superiority=results.superiority(pair.dataset, *rows) if pair.users is None else None,
            )
        )
    for indexed in differences.values():
        for index, comparison in _resample(made, indexed, statistics):
            made[index] = comparison
    made = _correct(made, family or declared_family(statistics, results.proposed), statistics)
    return tuple(
        replace(c, seeds_needed=_seeds_needed(c, statistics)) if whole else c
        for c, whole in zip(made, of_all_users, strict=True)
    )


def compare_arrays(
    pair: Pair,
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    statistics: Statistics,
    deterministic: tuple[Row, ...] = (),
) -> Comparison:
    """Compare two arrays `[users, seeds]` of a metric, without resampling and correction.

    The numbers of seeds may differ, and nothing pairs the seeds of one with those of the other.

    Args:
        pair: what the arrays are of.
        ours: of the row.
        theirs: of the reference.
        statistics: tests and intervals.
        deterministic: those of both rows that no seed changes; their arrays have one column.

    Raises:
        ValueError: fewer than two users.
    """
    confidence = statistics.confidence
    random = tuple(row not in deterministic for row in (pair.row, pair.reference))
    mean_difference = mean_differences(ours, theirs)
    of_reference = over_seeds(theirs)
    of_users = of_reference + mean_difference
    by_users = possible(paired_t_test(mean_difference, confidence))
    method = _method_test(ours, theirs, confidence, random)
    declared, test, fell_back = by_users, statistics.test, False
    if test == "auto":
        test, fell_back = ("paired-t", True) if method is None else ("method", False)
    if test == "method" and method is not None:
        declared = method.test
    p: float | None = declared.p
    if test == "method" and method is None:
        p = None
    elif test == "wilcoxon":
        p = wilcoxon_p(mean_difference)
    margin, equivalent, probable = statistics.margin, None, None
    if margin is not None and p is not None:
        if test == "method":
            equivalent = method_equivalence_p(ours, theirs, margin, ours_random=random[0], theirs_random=random[1])
        else:
            equivalent = equivalence_p(of_users, of_reference, margin, paired_t_test)
        rho = margin * float(of_reference.mean())
        probable = practical(declared.mean, declared.standard_error, declared.degrees, rho)
    our_means, their_means = (values.mean(axis=0).tolist() for values in (ours, theirs))
    return Comparison(
        pair.dataset,
        pair.metric,
        pair.row,
        pair.reference,
        users=len(ours),
        seeds=ours.shape[1],
        reference_seeds=theirs.shape[1],
        mean=float(over_seeds(ours).mean()),
        reference_mean=float(of_reference.mean()),
        by_users=by_users,
        method=method,
        effect=effect_size(mean_difference, confidence),
        gain=relative_gain(of_users, of_reference, confidence),
        counts=win_tie_loss(mean_difference),
        test=test,
        low=declared.low,
        high=declared.high,
        p=p,
        margin=margin,
        alpha=statistics.alpha,
        equivalence_p=equivalent,
        practical=probable,
        next_training=next_training_beats(our_means, their_means, confidence, a_random=random[0], b_random=random[1]),
        fell_back=fell_back,
        deterministic=deterministic,
    )


def _method_test(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], confidence: float, random: tuple[bool, ...]
) -> MethodTest | None:
    """Return the test of the methods, None if a row that is `random` has too few seeds."""
    if any(varies and values.shape[1] < MIN_SEEDS for varies, values in zip(random, (ours, theirs), strict=True)):
        return None
    found = method_test(ours, theirs, confidence, a_random=random[0], b_random=random[1])
    return replace(found, test=possible(found.test))


def possible(test: MeanTest) -> MeanTest:
    """Return `test` of a difference of metrics with a valid interval.

    The interval is cut to the possible differences, -1 to 1. Where nothing varies, its ends are NaN: a point would
    claim that the difference is known.
    """
    if test.standard_error == 0:
        return replace(test, low=nan, high=nan)
    return replace(test, low=max(test.low, -1.0), high=min(test.high, 1.0))


def declared_family(statistics: Statistics, proposed: Collection[str]) -> Callable[[Comparison], Hashable]:
    """Return the function that gives the family of a comparison, as the suite declares it.

    Args:
        statistics: the suite's.
        proposed: labels of the proposed models, whose comparisons are families of their own.
    """
    names: dict[str, Callable[[Comparison], Hashable]] = {
        "metric": lambda c: (c.dataset, c.metric),
        "dataset": lambda c: c.dataset,
        "suite": lambda _: None,
        "all-pairs": lambda c: (c.dataset, c.metric),
    }
    if statistics.family == "all-pairs":
        return lambda c: (c.row.whole and c.reference.whole, c.dataset, c.metric)
    return lambda c: (c.row.model in proposed, names[statistics.family](c))


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
) -> list[Comparison]:
    """Return the comparisons with corrected p-values, and what follows from the level of their family."""
    families: dict[Hashable, list[int]] = defaultdict(list)
    for index, comparison in enumerate(made):
        families[family(comparison)].append(index)
    kinds: dict[str, Callable[[Comparison], float | None]] = {
        "adjusted_p": lambda c: c.p,
        "adjusted_users_p": lambda c: c.by_users.p,
        "adjusted_method_p": lambda c: c.method.test.p if c.method else None,
        "equivalence_p": lambda c: c.equivalence_p,
    }
    corrected: list[dict[str, Any]] = [{} for _ in made]
    for members in families.values():
        for name, value in kinds.items():
            for index, p in _adjusted(members, [value(made[index]) for index in members], statistics.correction):
                corrected[index][name] = p
        for index in members:
            c, alpha = made[index], worst_step(statistics.alpha, len(members), statistics.correction)
            of_method = _detectable(c.method.test, alpha) if c.method else None
            corrected[index] |= {
                "family": 1 if statistics.correction == "none" else len(members),
                "detectable": of_method if c.method and c.test == "method" else _detectable(c.by_users, alpha),
                "method_detectable": of_method,
            }
    return [replace(comparison, **changes) for comparison, changes in zip(made, corrected, strict=True)]


def _detectable(test: MeanTest, alpha: float) -> float | None:
    """Return the difference that `test` finds at the level `alpha`; None if nothing varied, or if it is above 1."""
    found = detectable_difference(test.standard_error, test.degrees, alpha)
    return found if 0 < found <= 1 else None


def _seeds_needed(c: Comparison, statistics: Statistics) -> SeedsNeeded | None:
    """Return the seeds that the test of the methods needs for the difference of interest, at the same level.

    Returns:
        None without the test of the methods or without a difference, and where both rows are deterministic.
    """
    wanted = c.difference if c.margin is None else c.margin * c.reference_mean
    if c.method is None or c.without_seeds or not wanted:
        return None
    return seeds_needed(c.method, wanted, worst_step(statistics.alpha, c.family, statistics.correction))


def _adjusted(
    members: Sequence[int], p_values: Sequence[float | None], correction: Correction
) -> Iterable[tuple[int, float]]:
    """Yield the members that have a p-value, with the corrected one; a member without one counts as p = 1."""
    corrected = adjust([1.0 if p is None else p for p in p_values], correction)
    return ((index, new) for index, p, new in zip(members, p_values, corrected, strict=True) if p is not None)
