"""Correction of p-values for the number of comparisons in a family."""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p-values, in the order given (Holm, 1979).

    The i-th smallest of m p-values is multiplied by m - i + 1, and no adjusted value is smaller than one of a
    smaller p-value. Rejecting where the adjusted value is below alpha keeps the family-wise error at alpha.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]
