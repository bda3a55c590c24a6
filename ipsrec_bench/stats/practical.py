"""Does a difference matter? Its probability of lying below, within or above a region of practical equivalence."""

from dataclasses import dataclass

import numpy as np
from scipy import special


@dataclass(frozen=True)
class Practical:
    """Probabilities that the true mean difference matters, or does not; they add up to 1."""

    worse: float
    """Below -rho."""
    same: float
    """From -rho to rho: too small to matter."""
    better: float
    """Above rho."""


def practical(mean: float, se: float, degrees: float, rho: float) -> Practical:
    """Return the posterior probabilities that a mean difference is below -rho, within -rho to rho, and above rho.

    With a flat prior, the true difference given the data has the t distribution around `mean` with scale `se`
    (the correlated t-test of Benavoli et al., JMLR 2017, for independent users). The same call serves both questions:
    with the standard error and degrees of freedom of the paired t-test the difference is that of two trained models,
    with those of `method_test` that of two methods.

    Args:
        mean: difference that was found.
        se: its standard error; if it is 0, the difference is known.
        degrees: degrees of freedom.
        rho: largest difference, in either direction, that does not matter: the margin times the reference's mean.

    Raises:
        ValueError: `rho` is negative.
    """
    if rho < 0:
        raise ValueError(f"the region of practical equivalence needs rho of at least 0, found {rho}")
    if se == 0:
        return Practical(float(mean < -rho), float(abs(mean) <= rho), float(mean > rho))
    worse, better = special.stdtr(degrees, np.array([-rho - mean, mean - rho]) / se)
    below, beyond = special.stdtr(degrees, np.array([rho - abs(mean), -rho - abs(mean)]) / se)
    return Practical(float(worse), float(below - beyond), float(better))
