"""How stable the order of rows is: rank correlation between two orders, and a bootstrap of users and seeds."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ipsrec_bench.stats.differences import DECIMALS

PART = 128
"""Number of resamples per generator, whatever the threads: the same seed gives the same result on any machine."""
THREADS = 2
FLOAT32_DECIMALS = 6
"""Means of a resample are sums of float32 products; those that agree to this many decimals are equal."""


def rank_correlation(
    a: Sequence[float] | NDArray[np.float64], b: Sequence[float] | NDArray[np.float64]
) -> float | None:
    """Return Kendall's tau-b of the orders of the same rows by two values (Kendall, 1945).

    Values that are equal to 12 decimals are ties.

    Returns:
        From -1, the reverse order, to 1, the same one; None with fewer than two rows, or where all rows tie.
    """
    if len(a) < 2:  # noqa: PLR2004 (an order needs two)
        return None
    tau = float(stats.kendalltau(np.round(a, DECIMALS), np.round(b, DECIMALS)).statistic)
    return tau if isfinite(tau) else None


@dataclass(frozen=True, eq=False)
class OrderStability:
    """The order of rows by their means, and how it varies over resamples of users and seeds; arrays `[rows]`."""

    order: NDArray[np.int64]
    """Indices of the rows from the largest mean to the smallest."""
    ranks: NDArray[np.int64]
    """Rank by the mean, 1 for the largest; rows with equal means share the better rank."""
    low: NDArray[np.int64]
    """Lower end of the interval of the rank: the quantile of the ranks over the resamples."""
    high: NDArray[np.int64]
    """Its upper end."""
    above: NDArray[np.float64]
    """Share of the resamples in which a row is above another, `[rows, rows]`; equal means count half."""


def order_stability(
    metrics: Sequence[NDArray[np.float64]], confidence: float = 0.95, resamples: int = 4000, seed: int = 0
) -> OrderStability:
    """Return how stable the order of rows is if users and trainings are drawn again.

    A resample draws users with replacement, the same ones for all rows, and within each row its seeds with replacement.
    It is the pigeonhole bootstrap of Owen (2007), whose variance of a crossed design is conservative.

    Args:
        metrics: for each of two rows or more, a metric per user and seed, float64 `[users, seeds of the row]`.
        confidence: confidence level of the intervals.
        resamples: number of resamples.
        seed: seed of the draws.

    Raises:
        ValueError: there are fewer than two rows.
    """
    if len(metrics) < 2:  # noqa: PLR2004 (an order needs two)
        raise ValueError("an order needs at least two rows")
    sizes = [one.shape[1] for one in metrics]
    columns = np.concatenate(metrics, axis=1)
    users = len(columns)
    # Users for whom every row has 0 change no sum: with a cutoff, they are many.
    varying = np.ascontiguousarray(columns[columns.any(axis=1)], dtype=np.float32)
    begins = np.cumsum([0, *sizes[:-1]])

    def drawn(draws: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """Return the rows' means in each of some resamples, float64 `[draws, rows]`."""
        counts = np.zeros((draws, len(varying)), dtype=np.float32)
        if len(varying):
            for row, size in enumerate(generator.binomial(users, len(varying) / users, size=draws)):
                counts[row] = np.bincount(generator.integers(0, len(varying), size), minlength=len(varying))
        sums = (counts @ varying).astype(np.float64)
        weights = np.concatenate(
            [generator.multinomial(size, np.full(size, 1 / size), size=draws) / size for size in sizes], axis=1
        )
        return np.round(np.add.reduceat(sums * weights, begins, axis=1) / users, FLOAT32_DECIMALS)

    parts = [min(PART, resamples - begin) for begin in range(0, resamples, PART)]
    generators = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(len(parts)))
    with ThreadPoolExecutor(THREADS) as pool:
        means = np.concatenate(list(pool.map(drawn, parts, generators)))
    ranks, found = _ranks(means), np.round([one.mean() for one in metrics], DECIMALS)
    low, high = np.quantile(ranks, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0, method="inverted_cdf")
    pairs = [np.mean((means > one) + (means == one) / 2, axis=0) for one in means.T[:, :, None]]
    return OrderStability(
        order=np.argsort(-found, kind="stable"),
        ranks=_ranks(found[None])[0],
        low=low.astype(np.int64),
        high=high.astype(np.int64),
        above=np.stack(pairs, axis=1),
    )


def _ranks(means: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rank of each row in each resample, int64 `[resamples, rows]`; equal means share the better rank."""
    rows = means.shape[1]
    ranks = np.ones(means.shape, dtype=np.int64)
    for other in range(rows):
        ranks += means[:, other : other + 1] > means
    return ranks
