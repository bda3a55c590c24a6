"""Metrics of one held-out item per user, as functions of its rank.

- Rank: 1 plus the number of items with a higher score, plus half of the other items with the same score, rounded up.
  The target takes the middle of its ties (the realistic rank), so a model that gives every item the same score gets
  the middle rank, not the first. Its metrics with a cutoff are 0 then, while a random order would have a few hits.
- HR@N (hit rate): 1 if the rank is at most N, else 0.
- MRR@N (mean reciprocal rank): 1 / rank if the rank is at most N, else 0.
- NDCG@N (normalised discounted cumulative gain): 1 / log2(rank + 1) if the rank is at most N, else 0. With one relevant
  item per user the ideal gain is 1.

A metric of a model is the mean over users. Where a user has several targets, that of the user is the mean over them.

With `protocol.ties = "expected"`, the gain of a target that ties with others is its mean over all orders of the ties,
which are equally likely (McSherry and Najork, ECIR 2008): of the gains at the ranks from h + 1 to h + t + 1, where h
items score higher and t others the same. A model that gives every item the same score then gets the metric of chance.
"""

import numpy as np
from numpy.typing import NDArray


def realistic_rank(higher: NDArray[np.integer], ties: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return int64 ranks, from 1, of targets outscored by `higher` items and tied with `ties` others; same shape."""
    return np.asarray(higher, dtype=np.int64) + 1 + (np.asarray(ties, dtype=np.int64) + 1) // 2


def higher_of(realistic: NDArray[np.integer], ties: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return how many items outscore each target, given its realistic rank and its ties; same shape."""
    return np.asarray(realistic, dtype=np.int64) - 1 - (np.asarray(ties, dtype=np.int64) + 1) // 2


def gains(name: str, largest: int) -> NDArray[np.float64]:
    """Return the gain of every rank from 0 (no rank, gain 0) to the cutoff, then the gain 0 of all ranks beyond it.

    Args:
        name: a metric like `hr@10`, `mrr@5` or `ndcg@10`.
        largest: the largest rank that occurs; gains end there, so a cutoff beyond the catalogue takes no memory.
    """
    kind, _, cutoff = name.partition("@")
    ranks = np.arange(1.0, min(int(cutoff), largest) + 1)
    gain = {"hr": np.ones_like(ranks), "mrr": 1.0 / ranks, "ndcg": 1.0 / np.log2(ranks + 1.0)}[kind]
    return np.concatenate([[0.0], gain, [0.0]])


def of_users(users: NDArray[np.integer], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of `values` over the targets of each user, float64 `[distinct users]`.

    Args:
        users: the user of each target, ascending, `[targets]`; several targets of a user are neighbours.
        values: a metric of each target, `[targets]`. It is returned itself if no user has several.
    """
    begins = np.flatnonzero(np.diff(users, prepend=-1))
    if len(begins) == len(users):
        return values
    return np.asarray(np.add.reduceat(values, begins) / np.diff(begins, append=len(users)))


def metric(name: str, rank: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the metric `name`, like `ndcg@10`, of every rank: float64, of the shape of `rank`."""
    table = gains(name, int(rank.max(initial=0)))
    return np.asarray(table[np.minimum(rank, len(table) - 1)])


def expected_metric(name: str, higher: NDArray[np.integer], ties: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the mean of a metric over all orders of the ties of every target: float64, of the shape of `higher`.

    E = (C(min(h + t + 1, k)) - C(min(h, k))) / (t + 1), where C are the cumulated gains and k is the cutoff.

    Args:
        name: a metric like `ndcg@10`.
        higher: number of items that score higher than each target.
        ties: number of other items that score the same.
    """
    first, last = np.asarray(higher, dtype=np.int64), np.asarray(higher, dtype=np.int64) + ties + 1
    cumulated = np.cumsum(gains(name, int(last.max(initial=0))))
    most = len(cumulated) - 1
    return np.asarray((cumulated[np.minimum(last, most)] - cumulated[np.minimum(first, most)]) / (last - first))


def expected_histogram(
    higher: NDArray[np.integer], ties: NDArray[np.integer], weights: NDArray[np.float64] | float = 1.0
) -> NDArray[np.float64]:
    """Return how many targets are expected at each rank, from rank 0 (none) on: each is spread over its ties.

    Args:
        higher: number of items that score higher than each target.
        ties: number of other items that score the same.
        weights: how much each target counts.
    """
    first, last = np.asarray(higher, dtype=np.int64) + 1, np.asarray(higher, dtype=np.int64) + ties + 2
    share = weights / (last - first)
    size = int(last.max(initial=1)) + 1
    return np.cumsum(np.bincount(first, share, size) - np.bincount(last, share, size))[:-1]
