"""Metrics of one held-out item per user, as functions of its rank."""

import numpy as np
from numpy.typing import NDArray


def realistic_rank(higher: NDArray[np.integer], ties: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return ranks from 1: `higher` items score above the target, `ties` others score the same.

    The target takes the middle of its ties, rounded up: a scorer that says the same of every item gets the
    rank of chance, not the first.
    """
    return np.asarray(higher, dtype=np.int64) + 1 + (np.asarray(ties, dtype=np.int64) + 1) // 2


def metric(name: str, rank: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return a metric per user; `name` is like `hr@10`, `mrr@5` or `ndcg@10`.

    With one relevant item: HR@N is 1 if rank <= N, MRR@N is 1 / rank and NDCG@N is 1 / log2(rank + 1) within
    the cutoff, and each is 0 beyond it.
    """
    kind, _, cutoff = name.partition("@")
    r = rank.astype(np.float64)
    gain = {"hr": np.ones_like(r), "mrr": 1.0 / r, "ndcg": 1.0 / np.log2(r + 1.0)}[kind]
    return np.where(rank <= int(cutoff), gain, 0.0)
