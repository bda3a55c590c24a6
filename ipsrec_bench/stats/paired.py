"""Paired comparison of two models over the same users: is this *trained model* better than that one?

All functions round differences to 12 decimals first: sums in another order differ in their last bits, and no test may
take that for a difference.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ipsrec_bench.stats.differences import rounded

MIN_USERS = 2
"""A variance needs two differences."""
NOISE = 1e-15
"""Standard errors up to this share of the mean come from the rounding of sums of equal values."""


@dataclass(frozen=True)
class MeanTest:
    """A mean, its interval, and the t-test of the hypothesis that it is 0."""

    mean: float
    low: float
    high: float
    """Confidence interval of the mean."""
    t: float
    degrees: float
    """Degrees of freedom."""
    p: float
    """Two-sided, uncorrected."""
    standard_error: float


@dataclass(frozen=True)
class WinTieLoss:
    """The numbers of users for whom a model is better, equal and worse."""

    wins: int
    ties: int
    losses: int


def paired_t_test(differences: NDArray[np.float64], confidence: float = 0.95) -> MeanTest:
    """Test the hypothesis that `differences`, `[users]`, have mean 0, by the two-sided paired t-test.

    It is the paper's test. Only users are sampled: it tests whether *these trained models* differ on users like these;
    `method_test` tests the same of the methods that trained them.

    Raises:
        ValueError: fewer than two users.
    """
    if differences.ndim != 1 or len(differences) < MIN_USERS:
        raise ValueError(f"expected differences of at least two users, found shape {differences.shape}")
    differences = rounded(differences)
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5
    return mean_test(float(differences.mean()), error, len(differences) - 1, confidence)


def mean_test(mean: float, standard_error: float, degrees: float, confidence: float) -> MeanTest:
    """Return the t-test of a `mean` with this standard error and degrees of freedom.

    If nothing varies, the statistic does not exist, and p is that of sign flips, 2^-degrees: 1 in 2 for two equal
    differences. It is 1 if the mean is zero.
    """
    if standard_error <= NOISE * abs(mean):
        t = float(np.sign(mean)) * np.inf if mean else 0.0
        return MeanTest(mean, mean, mean, t, degrees, 2.0**-degrees if mean else 1.0, 0.0)
    t = mean / standard_error
    half = float(special.stdtrit(degrees, (1 + confidence) / 2)) * standard_error
    p = 2 * float(special.stdtr(degrees, -abs(t)))
    return MeanTest(mean, mean - half, mean + half, t, degrees, p, standard_error)


def wilcoxon_p(differences: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test on `differences`, `[users]`.

    Zeros are ranked and then left out (Pratt, 1959): with a cutoff most differences are exactly 0. The test is provided
    for comparison with published results and is not the default: its hypothesis is that differences are symmetric
    around 0, not that their mean is 0. Recommenders often have equal means but different shapes, and with thousands of
    users the test then rejects far more often than alpha (Ihemelandu and Ekstrand, SIGIR 2023; measured here in
    benchmarks/README.md).
    """
    differences = rounded(differences)
    if not differences.any():
        return 1.0
    from scipy import stats  # takes a second of processor time to import, and few reports need it

    return float(stats.wilcoxon(differences, zero_method="pratt", method="approx").pvalue)


def win_tie_loss(differences: NDArray[np.float64]) -> WinTieLoss:
    """Count the users whose difference is positive, zero and negative."""
    differences = rounded(differences)
    wins, losses = int(np.count_nonzero(differences > 0)), int(np.count_nonzero(differences < 0))
    return WinTieLoss(wins, len(differences) - wins - losses, losses)
