"""Over datasets: a pooled difference, mean ranks and wins, and what a new dataset may bring."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ipsrec_bench.stats.differences import DECIMALS, mean_differences, over_seeds, rounded
from ipsrec_bench.stats.method import MIN_SEEDS, method_test
from ipsrec_bench.stats.paired import MeanTest, mean_test, paired_t_test

RESAMPLES = 1_000
"""Number of bootstrap samples behind the intervals of mean ranks."""
BLOCK = 1 << 21
"""Elements of a block of draws: 16 MB."""
STEPS = 200
"""Maximum number of bisections for the variance between datasets."""


@dataclass(frozen=True)
class RelativeDifference:
    """The difference of two rows on one dataset, as a share of the second row's mean."""

    test: MeanTest
    of_method: bool
    """Whether its error is over users and seeds; False: over users alone, for these trainings."""


@dataclass(frozen=True)
class Pooled:
    """A random-effects meta-analysis."""

    test: MeanTest
    """The mean over all datasets of the kind that these are a sample of, with Hartung and Knapp's interval and test."""
    variance: float
    """tau^2, the variance of true effects between datasets, by Paule and Mandel."""
    scale: float
    """Hartung and Knapp's q. The standard error is sqrt(max(q, 1)) times that of the random-effects model."""
    inconsistency: float
    """I^2, the share of the variation that does not come from the errors of single datasets."""
    weights: tuple[float, ...]
    """Of each dataset; they add up to 1."""
    low: float
    """Prediction interval of the true effect on a new dataset; NaN with fewer than three datasets."""
    high: float


@dataclass(frozen=True)
class Friedman:
    """Friedman's test that all rows are equally good on all datasets, and what it takes to tell two of them apart."""

    datasets: int
    rows: int
    chi2: float
    p: float
    """Of chi^2."""
    f: float
    """Iman and Davenport's F (1980); infinite where all datasets have the same order of rows."""
    f_p: float
    critical_difference: float
    """Nemenyi's: mean ranks that are further apart than this differ."""


@dataclass(frozen=True)
class MeanRank:
    """The mean rank of a row over datasets, 1 is best, with its bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Wins:
    """For each pair of rows, on how many datasets the first one has the higher mean, and on how many they are equal."""

    wins: NDArray[np.int64]
    """int64 `[rows, rows]`."""
    ties: NDArray[np.int64]
    """int64 `[rows, rows]`."""


def relative_difference(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    confidence: float = 0.95,
    *,
    a_random: bool = True,
    b_random: bool = True,
) -> RelativeDifference | None:
    """Return mean(a) / mean(b) - 1 with its standard error.

    The error is the delta method's, with both means uncertain: that of the mean of a - (mean(a) / mean(b)) b, divided
    by mean(b). The error of this mean is `method_test`'s, over users and the seeds of each row. If a row has fewer than
    three seeds, it is the paired t-test's, over users alone, and `of_method` is False.

    Args:
        a: metric of the first row, float `[users, seeds]`.
        b: metric of the second row for the same users, float `[users, seeds]`; the number of seeds may be another one.
        confidence: confidence level of the interval.
        a_random: False for a row without randomness, `[users, 1]`.
        b_random: likewise.

    Returns:
        None where mean(b) is 0.

    Raises:
        ValueError: fewer than two users.
    """
    mean_a, mean_b = float(over_seeds(a).mean()), float(over_seeds(b).mean())
    if not mean_b:
        return None
    ratio = mean_a / mean_b
    of_method = all(not random or values.shape[1] >= MIN_SEEDS for values, random in ((a, a_random), (b, b_random)))
    contrast = (
        method_test(a, ratio * b, confidence, a_random=a_random, b_random=b_random).test
        if of_method
        else paired_t_test(mean_differences(a, ratio * b), confidence)
    )
    error = contrast.standard_error / mean_b
    return RelativeDifference(mean_test(round(ratio - 1, DECIMALS), error, contrast.degrees, confidence), of_method)


def pooled(effects: Sequence[float], errors: Sequence[float], confidence: float = 0.95) -> Pooled:
    """Pool the effects of several datasets by a random-effects meta-analysis.

    The true effect may differ from dataset to dataset, by a normal distribution with variance tau^2; what is estimated
    is its mean. tau^2 is Paule and Mandel's (1982): the value at which the weighted squares around the mean are as
    large as expected, or 0. Interval and test are Hartung and Knapp's, with k - 1 degrees of freedom. As they advise
    (2003), their factor q is not taken below 1: two datasets that agree by chance would otherwise give a pooled effect
    that is far more certain than the errors of both allow. Everything else equals `combine_effects` of statsmodels.

    The prediction interval is that of the true effect on one more dataset, mean -+ t sqrt(tau^2 + se^2) with k - 2
    degrees of freedom (Higgins, Thompson and Spiegelhalter, 2009).

    Args:
        effects: of k datasets.
        errors: their standard errors, all above 0.
        confidence: confidence level of both intervals.

    Raises:
        ValueError: fewer than two datasets, or an error that is not positive.
    """
    effect, variances = np.asarray(effects, dtype=np.float64), np.asarray(errors, dtype=np.float64) ** 2
    k = len(effect)
    if k < 2 or len(variances) != k or not np.all(variances > 0):  # noqa: PLR2004 (a spread needs two)
        raise ValueError("expected at least two effects, each with a standard error above 0")
    fixed, tau2 = _squares(effect, variances, 0.0), _between(effect, variances)
    weights = 1 / (variances + tau2)
    mean = float(weights @ effect / weights.sum())
    scale = _squares(effect, variances, tau2) / (k - 1)
    error = float((max(scale, 1.0) / weights.sum()) ** 0.5)
    low = high = float("nan")
    if k > 2:  # noqa: PLR2004 (k - 2 degrees of freedom)
        half = float(special.stdtrit(k - 2, (1 + confidence) / 2)) * (tau2 + error**2) ** 0.5
        low, high = mean - half, mean + half
    return Pooled(
        mean_test(mean, error, k - 1, confidence),
        tau2,
        scale,
        inconsistency=max(0.0, 1 - (k - 1) / fixed) if fixed else 0.0,
        weights=tuple((weights / weights.sum()).tolist()),
        low=low,
        high=high,
    )


def _squares(effect: NDArray[np.float64], variances: NDArray[np.float64], tau2: float) -> float:
    """Return the weighted sum of squares around the weighted mean."""
    weights = 1 / (variances + tau2)
    mean = weights @ effect / weights.sum()
    return float(weights @ (effect - mean) ** 2)


def _between(effect: NDArray[np.float64], variances: NDArray[np.float64]) -> float:
    """Return the tau^2 at which `_squares` is k - 1, by bisection: it falls as tau^2 grows."""
    wanted = len(effect) - 1
    if _squares(effect, variances, 0.0) <= wanted:
        return 0.0
    low, high = 0.0, float(((effect - effect.mean()) ** 2).sum())  # at `high` the squares are at most 1
    for _ in range(STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _squares(effect, variances, middle) > wanted else (low, middle)
    return (low + high) / 2


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks along the last axis: 1 for the highest value, the mean of their places for equal ones."""
    near = rounded(values)
    higher = (near[..., None, :] > near[..., :, None]).sum(axis=-1)
    equal = (near[..., None, :] == near[..., :, None]).sum(axis=-1)
    return np.asarray(higher + (equal + 1) / 2)


def friedman(values: NDArray[np.float64], alpha: float = 0.05) -> Friedman:
    """Test whether rows are equally good over datasets, by their ranks (Demsar, JMLR 2006).

    Friedman's chi^2 is corrected for ties. Iman and Davenport's F is (N - 1) chi^2 / (N (k - 1) - chi^2) for N datasets
    and k rows. Nemenyi's critical difference is q sqrt(k (k + 1) / (6 N)), with q the quantile of the studentised range
    over sqrt(2). Only the order of rows on each dataset counts: with few datasets the tests find next to nothing, and
    their distributions are rough approximations.

    Args:
        values: float `[datasets, rows]`, higher is better.
        alpha: level of the critical difference.

    Raises:
        ValueError: fewer than two datasets or rows.
    """
    if values.ndim != 2 or min(values.shape) < 2:  # noqa: PLR2004
        raise ValueError(f"expected values of at least two datasets x two rows, found shape {values.shape}")
    from scipy import stats  # takes a second to import

    n, k = values.shape
    places = ranks(values)
    spread = float(((places.mean(axis=0) - (k + 1) / 2) ** 2).sum())
    varying = float(((places - (k + 1) / 2) ** 2).sum()) / (n * (k - 1))  # k (k + 1) / 12 without ties
    chi2 = n * spread / varying if varying else 0.0
    left = n * (k - 1) - chi2
    f = (n - 1) * chi2 / left if left > 1e-9 * n * k else float("inf")
    return Friedman(
        n,
        k,
        chi2,
        float(special.chdtrc(k - 1, chi2)),
        f,
        float(special.fdtrc(k - 1, (k - 1) * (n - 1), f)) if np.isfinite(f) else 0.0,
        float(stats.studentized_range.ppf(1 - alpha, k, np.inf)) / 2**0.5 * (k * (k + 1) / (6 * n)) ** 0.5,
    )


def mean_ranks(
    datasets: Sequence[Sequence[NDArray[np.float64]]],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[MeanRank, ...]:
    """Return each row's mean rank over these datasets, with a bootstrap interval.

    Every sample draws the users of each dataset with replacement, the same ones for all rows, and the seeds of each row
    on each dataset. The datasets stay: the interval says how sure the mean rank is on *these* datasets, not on others.

    Args:
        datasets: for each dataset, for each row a metric, float `[users, seeds]`; all datasets have the same rows.
        confidence: confidence level of the intervals.
        resamples: number of samples.
        seed: seed of the draws.
    """
    found = np.mean([ranks(np.array([over_seeds(row).mean() for row in rows])) for rows in datasets], axis=0)
    generators = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(len(datasets)))
    drawn = np.mean(
        [ranks(_means(rows, resamples, rng)) for rows, rng in zip(datasets, generators, strict=True)], axis=0
    )
    ends = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return tuple(MeanRank(float(m), float(low), float(high)) for m, low, high in zip(found, *ends, strict=True))


def _means(rows: Sequence[NDArray[np.float64]], draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the means of bootstrap samples, float `[draws, rows]`."""
    users, columns = len(rows[0]), np.concatenate(rows, axis=1)
    there = columns[columns.any(axis=1)]  # with a cutoff, many users have 0 everywhere and add nothing
    sums = np.zeros((draws, columns.shape[1]))
    if len(there):
        step = max(1, BLOCK // len(there))
        chosen = rng.binomial(users, len(there) / users, size=draws)
        for begin in range(0, draws, step):
            counts = np.stack(
                [
                    np.bincount(rng.integers(0, len(there), n), minlength=len(there))
                    for n in chosen[begin : begin + step]
                ]
            )
            sums[begin : begin + step] = counts.astype(np.float64) @ there
    means, first = np.empty((draws, len(rows))), 0
    for place, row in enumerate(rows):
        seeds = row.shape[1]
        of_seed = rng.integers(0, seeds, (draws, seeds)) + first
        means[:, place] = np.take_along_axis(sums, of_seed, axis=1).mean(axis=1) / users
        first += seeds
    return means


def wins(values: NDArray[np.float64]) -> Wins:
    """Count on how many datasets each row has a higher mean than each other row.

    Args:
        values: float `[datasets, rows]`, NaN where a row lacks a dataset, which then counts for none of its pairs.
    """
    near = rounded(values)
    first, second = near[:, :, None], near[:, None, :]
    return Wins((first > second).sum(axis=0), (first == second).sum(axis=0))
