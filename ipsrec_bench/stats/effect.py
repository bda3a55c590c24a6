"""Effect sizes, and the smallest difference that could have been detected."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

SAME = 1e-12
"""Differences between values of a metric up to this come from rounding."""


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval, whose ends are NaN if nothing varies."""

    value: float
    low: float
    high: float


def effect_size(differences: NDArray[np.float64], confidence: float = 0.95) -> Estimate:
    """Return d_z of `differences`, `[users]`: their mean over their standard deviation.

    The large-sample interval does not assume a normal distribution, because differences of a metric with a cutoff are
    far from normal: var(d) = (1 - skewness d + (kurtosis - 1) d^2 / 4) / n, by the delta method from the moments; for
    normal differences this is the usual (1 + d^2 / 2) / n.

    If all differences are equal, d_z is 0 or infinite and has no interval.
    """
    mean = float(differences.mean())
    centred = differences - mean
    squares = centred**2
    variance = float(squares.mean())
    n = len(differences)
    spread = (variance * n / (n - 1)) ** 0.5
    if spread <= 1e-15 * abs(mean):
        value = float(np.sign(mean)) * np.inf if mean else 0.0
        return Estimate(value, np.nan, np.nan)
    d = mean / spread
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


def detectable_difference(standard_error: float, degrees: float, alpha: float, power: float = 0.8) -> float:
    """Return the smallest true difference that a two-sided t-test at `alpha` finds with probability `power`.

    It is a property of the design (the number of users and seeds, and how much their differences vary), not of the
    difference that was found. Both quantiles are taken from the central t distribution.
    """
    return float(special.stdtrit(degrees, 1 - alpha / 2) + special.stdtrit(degrees, power)) * standard_error


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
