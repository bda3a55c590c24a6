"""Effect sizes, and what one more training or one more user would see of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ipsrec_bench.stats.differences import rounded
from ipsrec_bench.stats.paired import NOISE

MIN_DIFFERING = 10
"""Smallest number of users with a difference for which d_z has an interval."""
SAME = 1e-12
"""Differences between values of a metric up to this come from rounding."""


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval, whose ends are NaN if nothing varies, or too little."""

    value: float
    low: float
    high: float


def effect_size(differences: NDArray[np.float64], confidence: float = 0.95) -> Estimate:
    """Return d_z of `differences`, `[users]`: their mean over their standard deviation.

    The large-sample interval does not assume a normal distribution, because differences of a metric with a cutoff are
    far from normal: var(d) = (1 - skewness d + (kurtosis - 1) d^2 / 4) / n, by the delta method from the moments; for
    normal differences this is the usual (1 + d^2 / 2) / n.

    Below 10 differing users there is no interval: its standard error is then far too uncertain, and intervals would
    exclude 0 in up to half of all comparisons of equal models (benchmarks/README.md). If all differences are equal,
    d_z is 0 or infinite and has no interval either. Differences are rounded to 12 decimals.
    """
    differences = rounded(differences)
    mean = float(differences.mean())
    centred = differences - mean
    squares = centred**2
    variance = float(squares.mean())
    n = len(differences)
    spread = (variance * n / (n - 1)) ** 0.5
    if spread <= NOISE * abs(mean):
        value = float(np.sign(mean)) * np.inf if mean else 0.0
        return Estimate(value, np.nan, np.nan)
    d = mean / spread
    if np.count_nonzero(differences) < MIN_DIFFERING:
        return Estimate(d, np.nan, np.nan)
    skewness = float(squares @ centred) / n / variance**1.5
    kurtosis = float(squares @ squares) / n / variance**2
    error = (max(1 - skewness * d + (kurtosis - 1) * d**2 / 4, 0.0) / n) ** 0.5
    half = float(special.ndtri((1 + confidence) / 2)) * error
    return Estimate(d, d - half, d + half)


def relative_gain(a: NDArray[np.float64], b: NDArray[np.float64], confidence: float = 0.95) -> Estimate | None:
    """Return mean(a) / mean(b) - 1 for paired `a` and `b`, `[users]`, with Fieller's interval (1954).

    The interval is that of the ratio of two correlated means, both uncertain; dividing the difference's interval by
    mean(b) would treat the reference as known. If mean(b) may be 0, the interval is unbounded and its ends are
    infinite. If `a` is the same multiple of `b` for all users, there is no interval. Neither array has negative values,
    so no end is below -1.

    Returns:
        None where mean(b) is 0.
    """
    mean_a, mean_b = float(a.mean()), float(b.mean())
    if not mean_b:
        return None
    if np.ptp(a - mean_a / mean_b * b) <= SAME:
        return Estimate(mean_a / mean_b - 1, np.nan, np.nan)
    centred_a, centred_b = a - mean_a, b - mean_b
    scale = float(special.stdtrit(len(a) - 1, (1 + confidence) / 2)) ** 2 / (len(a) - 1) / len(a)
    aa, ab, bb = (
        scale * float(x @ y) for x, y in ((centred_a, centred_a), (centred_a, centred_b), (centred_b, centred_b))
    )
    # The ratios r with (mean_a - r mean_b)^2 <= aa - 2 r ab + r^2 bb: between the roots of a quadratic.
    lead, middle, last = mean_b**2 - bb, mean_a * mean_b - ab, mean_a**2 - aa
    ratio = mean_a / mean_b
    if lead <= 0:
        return Estimate(ratio - 1, -np.inf, np.inf)
    root = max(middle**2 - lead * last, 0.0) ** 0.5
    return Estimate(ratio - 1, max((middle - root) / lead, 0.0) - 1, (middle + root) / lead - 1)


def next_training(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the prediction interval for the value of one more training: mean +- t sd sqrt(1 + 1 / n).

    It is the yardstick for a published value of a single training on the same users: both share the sample of users.

    Returns:
        None with fewer than two values, or if they do not vary.
    """
    n = len(values)
    if n < 2 or np.ptp(values) <= SAME:  # noqa: PLR2004 (a deviation needs two)
        return None
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * float(np.std(values, ddof=1)) * (1 + 1 / n) ** 0.5
    mean = float(np.mean(values))
    return mean - half, mean + half


@dataclass(frozen=True)
class NextTraining:
    """Difference between one more training of each of two rows."""

    low: float
    high: float
    """Prediction interval."""
    degrees: float
    """Degrees of freedom."""
    probability: float
    """Probability that the first row's next training has the higher value."""


def next_training_beats(
    a_means: Sequence[float],
    b_means: Sequence[float],
    confidence: float = 0.95,
    *,
    a_random: bool = True,
    b_random: bool = True,
) -> NextTraining | None:
    """Predict the difference between one more training of one row and one more of another, on the same users.

    With the variance s^2 of each row's values over its S seeds, the difference of two new values varies by
    v = s_a^2 (1 + 1 / S_a) + s_b^2 (1 + 1 / S_b) around the difference of the means. Degrees of freedom are Welch's:
    (s_a^2 + s_b^2)^2 / (s_a^4 / (S_a - 1) + s_b^4 / (S_b - 1)). The probability that A wins is T(difference / sqrt(v)).

    Args:
        a_means: the first row's value of every training.
        b_means: likewise, of the second row; the number of trainings may be another one.
        confidence: confidence level of the interval.
        a_random: False for a row without randomness, whose next training has the same value.
        b_random: likewise.

    Returns:
        None if a row with randomness has fewer than two values, or if no row's values vary.
    """
    means, variances, seeds = [], [], []
    for values, random in ((np.sort(a_means), a_random), (np.sort(b_means), b_random)):
        if random and len(values) < 2:  # noqa: PLR2004 (a variance needs two)
            return None
        varies = random and np.ptp(values) > SAME
        means.append(float(values.mean()))
        variances.append(float(values.var(ddof=1)) if varies else 0.0)
        seeds.append(len(values))
    if not any(variances):
        return None
    difference = means[0] - means[1]
    spread = sum(s**2 / (n - 1) for s, n in zip(variances, seeds, strict=True) if s)
    degrees = sum(variances) ** 2 / spread
    error = sum(s * (1 + 1 / n) for s, n in zip(variances, seeds, strict=True)) ** 0.5
    half = float(special.stdtrit(degrees, (1 + confidence) / 2)) * error
    probability = float(special.stdtr(degrees, difference / error))
    return NextTraining(difference - half, difference + half, degrees, probability)


def superiority(
    ranks_a: NDArray[np.integer], ranks_b: NDArray[np.integer], weights: NDArray[np.float64] | None = None
) -> float:
    """Return the probability that a user is better served by the first row than by the second.

    It is the mean of [rank_a < rank_b] + [rank_a = rank_b] / 2 over users and all pairs of seeds: the probability of
    superiority (Vargha and Delaney, 2000) within users.

    Args:
        ranks_a: rank of each user's target, `[users, seeds]`; 1 is best.
        ranks_b: likewise, of the second row for the same users; the number of seeds may be another one.
        weights: of each target, `[targets]`, where a user has several, which are rows then; by default all are equal.
    """
    if weights is not None:
        won = ((a < b) + (a == b) / 2 for a in ranks_a.T for b in ranks_b.T)
        return float(np.mean([np.average(one, weights=weights) for one in won]))
    columns_a, columns_b = np.ascontiguousarray(ranks_a.T), np.ascontiguousarray(ranks_b.T)
    better = ties = 0
    for a in columns_a:
        for b in columns_b:
            better += int(np.count_nonzero(a < b))
            ties += int(np.count_nonzero(a == b))
    return (better + ties / 2) / (ranks_a.size * len(columns_b))
