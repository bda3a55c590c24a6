"""What a metric would have been with sampled negatives, in closed form (Krichene and Rendle, KDD 2020)."""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ipsrec_bench.ranking.metrics import gains

CHUNK = 1 << 20
"""Maximum number of probabilities that are computed at once."""


def sampled_metric(
    name: str, ranks: NDArray[np.integer], population: NDArray[np.integer] | int, draws: int
) -> NDArray[np.float64]:
    """Return the expected metric of targets that are ranked among sampled negatives only.

    `draws` negatives are drawn without replacement from the `population` items that compete with the target. Those that
    outrank it are hypergeometric, X ~ H(population, rank - 1, draws), so its rank in the sample is 1 + X, and the
    expected gain is the sum of P(X = x) gain(1 + x) (Krichene and Rendle, 2020, section 4). With as many draws as the
    population has, it is the full metric.

    Args:
        name: a metric like `hr@10`, `mrr@5` or `ndcg@10`.
        ranks: full ranks from 1, of any shape. A rank above population + 1 is a miss, in a sample as well.
        population: number of items that compete with each target, of a shape that broadcasts to that of `ranks`.
        draws: number of negatives; more than the population means all of it.

    Returns:
        float64, of the shape of `ranks`.
    """
    ranks, population = np.broadcast_arrays(np.asarray(ranks, np.int64), np.asarray(population, np.int64))
    width = int(ranks.max(initial=0)) + 1
    codes, places = np.unique(population.ravel() * width + ranks.ravel(), return_inverse=True)
    pairs = np.stack([codes % width, codes // width])
    # Ranks repeat: the expectation is computed once for each rank and population.
    step = max(1, CHUNK // max(1, int(name.partition("@")[2])))
    parts = [_expected(name, pairs[:, begin : begin + step], draws) for begin in range(0, pairs.shape[1], step)]
    return np.asarray(np.concatenate([*parts, np.empty(0)])[places.ravel()].reshape(ranks.shape))


def _expected(name: str, pairs: NDArray[np.int64], draws: int) -> NDArray[np.float64]:
    """Return the expected gain for each pair of a rank and a population, int64 `[2, pairs]`, as float64 `[pairs]`."""
    ranks, population = pairs
    gain = gains(name, draws + 1)[1:-1]
    drawn = np.minimum(draws, population)[:, None]
    total, better = population[:, None], (ranks - 1)[:, None]
    is_miss = better > total
    better = np.minimum(better, total)
    fewest = np.maximum(0, drawn - (total - better))
    x = fewest + np.arange(len(gain))
    # P(X = x) = C(better, x) C(total - better, drawn - x) / C(total, drawn). The first one comes from logarithms of the
    # beta function, which stay accurate where the factorials of a large catalogue would cancel; the others follow by
    # their ratios, which are 0 from the largest possible x on.
    first = _log_choose(better, fewest) + _log_choose(total - better, drawn - fewest) - _log_choose(total, drawn)
    ratios = (better - x) * (drawn - x) / ((x + 1) * (total - better - drawn + x + 1))
    with np.errstate(divide="ignore"):
        steps = np.log(np.maximum(ratios[:, :-1], 0.0))
    log_p = np.cumsum(np.concatenate([first, steps], axis=1), axis=1)
    of_x = np.concatenate([gain, [0.0]])[np.minimum(x, len(gain))]
    return np.asarray(np.where(is_miss, 0.0, np.exp(log_p) * of_x).sum(axis=1))


def _log_choose(n: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the logarithm of n choose k, for 0 <= k <= n."""
    return np.asarray(-np.log1p(n) - special.betaln(n - k + 1.0, k + 1.0))
