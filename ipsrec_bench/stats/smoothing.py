"""Smoothing for charts: a surface through scattered points."""

import numpy as np
from numpy.typing import NDArray


def smoothed(points: NDArray[np.float64], values: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of `values` around each place, float64 `[places]`, weighted by a Gaussian kernel.

    The estimator is that of Nadaraya (1964) and Watson (1964), with Scott's bandwidth for evenly spread points.

    Args:
        points: float64 `[points, dimensions]`, in the unit cube.
        values: float64 `[points]`.
        at: float64 `[places, dimensions]`, likewise.
    """
    number, dimensions = points.shape
    width = number ** (-1 / (dimensions + 4)) / 12**0.5
    distances = ((at[:, None] - points[None]) ** 2).sum(axis=2) / (2 * width**2)
    weights = np.exp(distances.min(axis=1, keepdims=True) - distances)  # the nearest has weight 1, however far it is
    found: NDArray[np.float64] = weights @ values / weights.sum(axis=1)
    return found
