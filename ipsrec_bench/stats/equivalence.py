"""Equivalence: two models are the same, up to a margin. Finding no difference does not show this."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ipsrec_bench.stats.differences import rounded
from ipsrec_bench.stats.method import method_test
from ipsrec_bench.stats.paired import MeanTest


def equivalence_p(
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    margin: float,
    test: Callable[[NDArray[np.float64]], MeanTest],
) -> float:
    """Return the p-value of two one-sided tests (TOST; Schuirmann, 1987) that mean(ours) is within `margin` of theirs.

    The margin is relative and has to be chosen before the result is seen. Both sides are contrasts of paired values,
    ours - (1 - margin) theirs > 0 and (1 + margin) theirs - ours > 0, so the mean of `theirs` is not treated as known.

    Args:
        ours: float `[users]`, or `[users, seeds]`; higher is better.
        theirs: likewise, of the reference.
        margin: the largest difference, in either direction, that counts as none, as a share of the reference's mean.
        test: the t-test of a contrast's mean.

    Returns:
        The larger of both one-sided p-values.
    """
    contrasts = (ours - (1 - margin) * theirs, (1 + margin) * theirs - ours)
    return max(_one_sided(test(rounded(contrast))) for contrast in contrasts)


def method_equivalence_p(
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    margin: float,
    *,
    ours_random: bool = True,
    theirs_random: bool = True,
) -> float:
    """Return the p-value of two one-sided tests that a *method* is within `margin` of the reference's method.

    The contrasts are those of `equivalence_p`, each tested by `method_test`: scaling a row scales its terms with it.

    Args:
        ours: float `[users, seeds]`; higher is better.
        theirs: likewise, of the reference; the number of seeds may be another one.
        margin: the largest difference that counts as none, as a share of the reference's mean.
        ours_random: False for a row without randomness.
        theirs_random: likewise.

    Raises:
        ValueError: as `method_test`.
    """
    return max(
        _one_sided(method_test(ours, (1 - margin) * theirs, a_random=ours_random, b_random=theirs_random).test),
        _one_sided(method_test((1 + margin) * theirs, ours, a_random=theirs_random, b_random=ours_random).test),
    )


def _one_sided(test: MeanTest) -> float:
    """Return the p-value against the hypothesis that the mean is 0 or less."""
    if test.standard_error == 0:
        return 2.0**-test.degrees if test.mean > 0 else 1.0
    return float(special.stdtr(test.degrees, -test.t))
