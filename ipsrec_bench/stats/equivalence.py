"""Equivalence: two models are the same, up to a margin. That no difference was found does not show it."""

from dataclasses import dataclass

from scipy import stats

from ipsrec_bench.stats.paired import MeanTest, mean_test


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests against a margin."""

    margin: float
    """Largest difference, either way, that counts as none; in units of the metric."""
    p: float
    """The larger of both one-sided p-values."""
    low: float
    high: float
    """Interval of confidence 1 - 2 alpha: equivalence is shown at alpha where it lies within the margin."""


def equivalence_test(test: MeanTest, margin: float, alpha: float = 0.05) -> Equivalence:
    """Return the two one-sided t-tests (TOST; Schuirmann, 1987) that the mean of `test` lies within +-`margin`.

    The margin has to be chosen before the result is seen.
    """
    interval = mean_test(test.mean, test.standard_error, test.degrees, 1 - 2 * alpha)
    nearest = margin - abs(test.mean)
    if test.standard_error == 0:
        p = 0.0 if nearest > 0 else 1.0
    else:
        p = float(stats.t.sf(nearest / test.standard_error, test.degrees))
    return Equivalence(margin, p, interval.low, interval.high)
