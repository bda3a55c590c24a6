"""Differences of metrics, without the noise of floating-point sums."""

import numpy as np
from numpy.typing import NDArray

DECIMALS = 12
"""A sum's last bits depend on its order: means of the same values over seeds differ by 1e-16 or so. True differences
between two ranks below 10^5 are more than 10^-10."""


def rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `values` rounded to 12 decimals, so that values equal on paper are equal; without negative zeros."""
    return np.round(values, DECIMALS) + 0.0


def over_seeds(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over seeds, float64 `[users]`, of `values [users, seeds]`.

    Values are added in ascending order, so the order of the seeds changes no bit.
    """
    return np.asarray(np.sort(values, axis=1).mean(axis=1))


def mean_differences(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, float64 `[users]`, the rounded difference of the means over seeds of two arrays `[users, seeds]`.

    All statistics over users are computed from these differences.
    """
    return rounded(over_seeds(ours) - over_seeds(theirs))
