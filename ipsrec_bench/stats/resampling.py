"""Randomisation tests and bootstrap intervals over users, of many comparisons at once, in bounded memory.

Comparisons of one dataset share their users, so they share the draws, too: a block of draws is one matrix, and one
matrix product gives the sums of all comparisons. Users without a difference in any comparison (most users, with a
cutoff) change no sum and are left out.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ipsrec_bench.stats.differences import rounded

S = TypeVar("S", bound=np.generic)
BLOCK = 1 << 22
"""Elements of a block of draws: 16 MB."""
THREADS = 2
PART = 128
"""Number of draws per generator, whatever the threads: the same seed gives the same result on any machine."""


def sign_flip_p(differences: NDArray[np.float64], resamples: int = 10_000, seed: int = 0) -> NDArray[np.float64]:
    """Return the two-sided p-value of every comparison by random sign flips.

    If two models are exchangeable for each user, every difference could equally well have had the other sign. p is
    (1 + k) / (B + 1), where k of B random flips of all signs give a mean at least as far from 0 as the one found
    (Phipson and Smyth, 2010): never 0, and exact for every B.

    Args:
        differences: float `[comparisons, users]`; rounded to 12 decimals.
        resamples: B.
        seed: seed of the flips.

    Returns:
        float `[comparisons]`.
    """
    there = varying(rounded(differences))
    total = there.sum(axis=1, dtype=np.float64)
    # A sum in another order may differ in its last digits, so equality with the observed one has a tolerance.
    reached = np.abs(total) - 1e-7 * np.abs(there).sum(axis=1, dtype=np.float64)

    def count(draws: int, generator: np.random.Generator) -> NDArray[np.int64]:
        sums = np.zeros((draws, len(there)))
        for begin, end in _blocks(there.shape[1], draws):
            bits = np.frombuffer(generator.bytes(draws * ((end - begin + 7) // 8)), dtype=np.uint8)
            flips = np.unpackbits(bits.reshape(draws, -1), axis=1, count=end - begin).astype(np.float32)
            sums += flips @ there[:, begin:end].T
        return np.asarray((np.abs(2 * sums - total) >= reached).sum(axis=0))

    reaching = np.sum(_in_parts(count, resamples, seed), axis=0)
    return np.asarray((1 + reaching) / (resamples + 1))


def bootstrap_intervals(
    differences: NDArray[np.float64], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> NDArray[np.float64]:
    """Return the bias-corrected and accelerated (BCa) bootstrap interval of every comparison's mean difference.

    Users are drawn with replacement, the same ones in every comparison (Efron and Tibshirani, 1993, chapter 14; the
    acceleration of a mean is its skewness over 6 sqrt(n)).

    Args:
        differences: float `[comparisons, users]`; rounded to 12 decimals.
        confidence: confidence level of the intervals.
        resamples: number of samples drawn.
        seed: seed of the draws.

    Returns:
        float `[comparisons, 2]`: lower and upper ends.
    """
    differences = rounded(differences)
    users = differences.shape[1]
    means = np.concatenate(resampled_sums(varying(differences), users, resamples, seed)) / users
    mean = differences.mean(axis=1)
    intervals = np.empty((len(differences), 2))
    for index, drawn in enumerate(means.T):
        centred = differences[index] - mean[index]
        variance = float(centred @ centred) / users
        if variance == 0:
            intervals[index] = mean[index]
            continue
        acceleration = float(centred**2 @ centred) / users / variance**1.5 / (6 * users**0.5)
        below = ((drawn < mean[index]).sum() + (drawn == mean[index]).sum() / 2 + 0.5) / (resamples + 1)
        bias = special.ndtri(below)
        shifted = bias + special.ndtri([(1 - confidence) / 2, (1 + confidence) / 2])
        intervals[index] = np.quantile(drawn, special.ndtr(bias + shifted / (1 - acceleration * shifted)))
    return intervals


def resampled_sums(there: NDArray[np.float32], users: int, resamples: int, seed: int) -> list[NDArray[np.float64]]:
    """Return the sums of all rows over users drawn with replacement, the same users for every row.

    Args:
        there: float32 `[rows, some users]`, as `varying` returns them.
        users: number of users, of whom `there` leaves out those with 0 in all rows.
        resamples: number of samples.
        seed: seed of the draws.

    Returns:
        Arrays float64 `[samples, rows]` of the parts of all samples.
    """
    some = there.shape[1]

    def sums(draws: int, generator: np.random.Generator) -> NDArray[np.float64]:
        result = np.zeros((draws, len(there)))
        if not some:
            return result
        chosen = generator.binomial(users, some / users, size=draws)
        step = max(1, BLOCK // some)
        counts = np.empty((min(step, draws), some), dtype=np.float32)
        for begin in range(0, draws, step):
            sizes = chosen[begin : begin + step]
            for row, size in enumerate(sizes):
                counts[row] = np.bincount(generator.integers(0, some, size), minlength=some)
            result[begin : begin + step] = counts[: len(sizes)] @ there.T
        return result

    return _in_parts(sums, resamples, seed)


def varying(differences: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the columns of the users with a difference in some comparison.

    They are float32: factors of products that are summed in float64, block by block.
    """
    return np.ascontiguousarray(differences[:, differences.any(axis=0)], dtype=np.float32)


def _blocks(users: int, draws: int) -> list[tuple[int, int]]:
    step = max(8, BLOCK // draws)
    return [(begin, min(begin + step, users)) for begin in range(0, users, step)]


def _in_parts(work: Callable[[int, np.random.Generator], NDArray[S]], resamples: int, seed: int) -> list[NDArray[S]]:
    """Return the results of `work` for every part of the draws, in order; each part has a separate generator."""
    sizes = [min(PART, resamples - begin) for begin in range(0, resamples, PART)]
    generators = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(len(sizes)))
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, sizes, generators))
