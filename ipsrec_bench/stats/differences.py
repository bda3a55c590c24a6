"""Differences of metrics, without the noise of floating-point sums."""

import numpy as np
from numpy.typing import NDArray

DECIMALS = 12
"""A sum's last bits depend on its order: means of the same values over seeds differ by 1e-16 or so. What two ranks
below 10^5 truly differ by is more than 10^-10."""


def rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `values` to 12 decimals, so that what is equal on paper is equal; without negative zeros."""
    return np.round(values, DECIMALS) + 0.0


def over_seeds(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over seeds, float64 `[users]`, of `values [users, seeds]`.

    Values are added in ascending order: numbering the seeds otherwise changes no bit.
    """
    return np.asarray(np.sort(values, axis=1).mean(axis=1))


def mean_differences(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, float64 `[users]`, the rounded difference of the means over seeds of two arrays `[users, seeds]`.

    Every statistic over users is of these differences.
    """
    return rounded(over_seeds(ours) - over_seeds(theirs))
