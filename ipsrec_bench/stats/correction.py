"""Correction of p-values for the number of comparisons in a family."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Correction = Literal["holm", "benjamini-hochberg", "bonferroni", "none"]


def adjust(p_values: Sequence[float], method: Correction = "holm") -> list[float]:
    """Return the adjusted p-values of one family of comparisons, in the order given.

    Rejecting where the adjusted value is below alpha controls one error rate at level alpha. With `bonferroni` and
    `holm` (step-down, never weaker; Holm, 1979), it is the probability of any false rejection in the family. With
    `benjamini-hochberg` (step-up; 1995), it is the expected share of false rejections among the rejections, if the
    tests are independent or positively dependent. With `none`, it is the probability of a false rejection in each
    comparison alone.
    """
    p = np.asarray(p_values, dtype=np.float64)
    return [float(value) for value in _METHODS[method](p)]


def worst_step(alpha: float, comparisons: int, method: Correction = "holm") -> float:
    """Return the level at which a difference is found in any case, wherever its p-value stands in its family.

    It is alpha over the number of `comparisons` with `holm`, `bonferroni` and `benjamini-hochberg`, whose smallest
    p-value meets this level, and alpha with `none`.
    """
    return alpha if method == "none" else alpha / max(comparisons, 1)


def _holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def _benjamini_hochberg(p: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(-p, kind="stable")
    scaled = p[order] * len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return adjusted


def _bonferroni(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.minimum(p * len(p), 1.0)


def _none(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return p


_METHODS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "holm": _holm,
    "benjamini-hochberg": _benjamini_hochberg,
    "bonferroni": _bonferroni,
    "none": _none,
}
