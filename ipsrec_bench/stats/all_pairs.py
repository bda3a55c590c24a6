"""All pairs of rows at once: the largest t of all pairs under resampling (maxT), and letters that show the result."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.stats.differences import rounded
from ipsrec_bench.stats.paired import MIN_USERS, NOISE
from ipsrec_bench.stats.resampling import resampled_sums, varying

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class AllPairs:
    """Every pair of rows: all arrays but `maxima` are float `[rows, rows]`, first row minus second."""

    difference: NDArray[np.float64]
    """Mean difference over users."""
    standard_error: NDArray[np.float64]
    t: NDArray[np.float64]
    """Difference over standard error; 0 if nobody differs, infinite if all differ by the same."""
    p: NDArray[np.float64]
    """Two-sided p-value, adjusted for all pairs; 1 on the diagonal."""
    maxima: NDArray[np.float64]
    """Largest |t| of all pairs in every resample, `[resamples]`, ascending."""

    def critical(self, alpha: float) -> float:
        """Return the |t| above which a pair is significant at `alpha`, after the adjustment."""
        return float(np.quantile(self.maxima, 1 - alpha))


def max_t(metric: NDArray[np.float64], resamples: int = 10_000, seed: int = 0) -> AllPairs:
    """Test all k (k - 1) / 2 pairs of rows over users, with the probability of any false alarm bounded at once.

    The single-step maxT adjustment of Westfall and Young (1993): users are drawn with replacement, the same ones for
    all rows, and T* is the largest |d* - d| / se of all pairs, where d* is the mean difference of the sample. Then
    p_ij = (1 + #{T* >= |t_ij|}) / (B + 1). Pairs that share a row or resemble each other are correlated, so this
    is stronger than a correction that only knows the number of pairs. One matrix product per block of samples gives the
    means of all rows; memory is bounded by the block.

    Only users are resampled: the test is about these trained models.

    Args:
        metric: mean over seeds of every row, float `[rows, users]`.
        resamples: B; no p is below 1 / (B + 1).
        seed: seed of the draws.

    Raises:
        ValueError: fewer than two rows or users.
    """
    if metric.ndim != 2 or len(metric) < 2 or metric.shape[1] < MIN_USERS:  # noqa: PLR2004 (a pair)
        raise ValueError(f"expected a metric of at least two rows x two users, found shape {metric.shape}")
    rows, users = metric.shape
    first, second = np.triu_indices(rows, 1)
    found = np.empty((2, len(first)))
    for place, (i, j) in enumerate(zip(first, second, strict=True)):
        difference = rounded(metric[i] - metric[j])
        found[:, place] = difference.mean(), difference.std(ddof=1) / users**0.5
    mean, error = found
    varies = error > NOISE * np.abs(mean)
    t = np.where(mean == 0, 0.0, np.copysign(np.inf, mean))
    t[varies] = mean[varies] / error[varies]
    between = rounded(metric - metric.mean(axis=0))  # users whom all rows serve alike change no difference
    centre = between.mean(axis=1)
    ones, others, errors = first[varies], second[varies], error[varies]

    def largest(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        moved = sums / users - centre
        return np.asarray(np.abs((moved[:, ones] - moved[:, others]) / errors).max(axis=1, initial=0.0))

    maxima = np.sort(
        np.concatenate([largest(sums) for sums in resampled_sums(varying(between), users, resamples, seed)])
    )
    reached = np.abs(t) * (1 - 1e-7)  # sums of samples are those of float32 products
    p = (1 + resamples - np.searchsorted(maxima, reached)) / (resamples + 1)
    p[~varies] = np.where(mean[~varies] == 0, 1.0, np.maximum(p[~varies], 2.0 ** (1 - users)))
    return AllPairs(
        _square(mean, rows, -1),
        _square(np.where(varies, error, 0.0), rows, 1),
        _square(t, rows, -1),
        _square(p, rows, 1) + np.eye(rows),
        maxima,
    )


def letters(different: NDArray[np.bool_], means: NDArray[np.float64]) -> tuple[str, ...]:
    """Return letters for every row, such that two rows share a letter if and only if they are not `different`.

    The compact letter display by insertion and absorption (Piepho, 2004). Letters follow the means: the best row has
    an `a`. After `z` comes `a1`.

    Args:
        different: whether two rows differ significantly, symmetric bool `[rows, rows]`.
        means: mean of every row, `[rows]`; higher is better.
    """
    order = np.argsort(-means, kind="stable").tolist()
    groups = [frozenset(order)]
    for place, i in enumerate(order):
        for j in order[place + 1 :]:
            if different[i, j]:
                split = [part for group in groups for part in (_without(group, i, j) if {i, j} <= group else [group])]
                distinct = list(dict.fromkeys(split))
                groups = [group for group in distinct if not any(group < other for other in distinct)]
    position = {row: place for place, row in enumerate(order)}
    groups.sort(key=lambda group: sorted(position[row] for row in group))
    names = [ALPHABET[n % 26] + (str(n // 26) if n >= 26 else "") for n in range(len(groups))]  # noqa: PLR2004
    return tuple(
        "".join(name for name, group in zip(names, groups, strict=True) if row in group) for row in range(len(order))
    )


def _without(group: frozenset[int], i: int, j: int) -> list[frozenset[int]]:
    return [group - {i}, group - {j}]


def _square(values: NDArray[np.float64], rows: int, sign: int) -> NDArray[np.float64]:
    """Return the matrix of values of all pairs, the lower triangle with this sign."""
    square = np.zeros((rows, rows))
    first, second = np.triu_indices(rows, 1)
    square[first, second], square[second, first] = values, sign * values
    return square
