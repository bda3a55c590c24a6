"""Metrics of one held-out item per user, as functions of its rank."""

import numpy as np
from numpy.typing import NDArray


def realistic_rank(higher: NDArray[np.integer], ties: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return ranks from 1: `higher` items score above the target, `ties` others score the same.

    The target takes the middle of its ties, rounded up: a scorer that says the same of every item gets the
    rank of chance, not the first.
    """
    return np.asarray(higher, dtype=np.int64) + 1 + (np.asarray(ties, dtype=np.int64) + 1) // 2


def gains(name: str, largest: int) -> NDArray[np.float64]:
    """Return the gain of every rank from 0 (no rank; 0) to the cutoff, and last the 0 of all beyond it.

    `name` is like `hr@10`, `mrr@5` or `ndcg@10`. With one relevant item: HR@N is 1 if rank <= N, MRR@N is 1 / rank and
    NDCG@N is 1 / log2(rank + 1) within the cutoff, and each is 0 beyond it. Ranks above `largest` are not asked for,
    so that a cutoff beyond the catalogue takes no memory.
    """
    kind, _, cutoff = name.partition("@")
    ranks = np.arange(1.0, min(int(cutoff), largest) + 1)
    gain = {"hr": np.ones_like(ranks), "mrr": 1.0 / ranks, "ndcg": 1.0 / np.log2(ranks + 1.0)}[kind]
    return np.concatenate([[0.0], gain, [0.0]])


def metric(name: str, rank: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return a metric per user, see `gains`."""
    table = gains(name, int(rank.max(initial=0)))
    return np.asarray(table[np.minimum(rank, len(table) - 1)])
