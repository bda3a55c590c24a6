"""Paired comparison of two models over the same users."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats


@dataclass(frozen=True)
class PairedComparison:
    """How much better `a` is than `b` over n users, by the paired t-test."""

    users: int
    difference: float
    """Mean of a - b."""
    low: float
    high: float
    """Confidence interval of the mean difference."""
    t: float
    p: float
    """Two-sided, uncorrected."""
    effect_size: float
    """d_z: mean difference over the standard deviation of the differences."""
    wins: int
    """Users for whom a is better; likewise `ties` and `losses`."""
    ties: int
    losses: int


def paired_t_test(a: NDArray[np.float64], b: NDArray[np.float64], confidence: float = 0.95) -> PairedComparison:
    """Compare `a` with `b`, each `[users]`, higher is better, by a two-sided paired t-test.

    The test is over users: it says whether *these trained models* differ on users like these. Where all
    differences are equal the t statistic does not exist; p is then 1 if they are zero, else 0, and d_z is 0
    or infinite.

    Raises:
        ValueError: fewer than two users, or arrays of different shapes.
    """
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:  # noqa: PLR2004 (a variance takes two)
        raise ValueError(f"expected two arrays of at least two users each, found shapes {a.shape} and {b.shape}")
    d = a - b
    mean = float(d.mean())
    spread = float(d.std(ddof=1))
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    if spread <= 1e-15 * abs(mean):
        low = high = mean
        t = effect = float(np.sign(mean) * np.inf) if mean else 0.0
        p = 0.0 if mean else 1.0
    else:
        result = stats.ttest_1samp(d, 0.0)
        interval = result.confidence_interval(confidence)
        low, high = float(interval.low), float(interval.high)
        t, p, effect = float(result.statistic), float(result.pvalue), mean / spread
    return PairedComparison(len(d), mean, low, high, t, p, effect, wins, len(d) - wins - losses, losses)
