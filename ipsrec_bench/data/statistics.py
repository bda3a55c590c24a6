"""What a dataset looks like: the columns of the paper's Table 1, and what providers could tell."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_TEST_LENGTH = 3
"""Interactions that a user needs to have a test target under leave-one-out."""
MIN_VALID_LENGTH = 4
"""Interactions that a user needs to have a validation target as well."""
LENGTH_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class DatasetStatistics:
    """Counts and shares of one dataset; a share over nothing is None.

    "Neighbours" are two interactions of one user that follow each other.
    """

    users: int
    items: int
    actions: int
    """Interactions with items; every one is also an interaction with its provider."""
    providers: int
    """Known providers."""
    known_provider_actions: int
    mean_length: float
    length_quantiles: dict[str, int]
    """Interactions per user at the quantiles of `LENGTH_QUANTILES`."""
    repeat_share: float | None
    """Share of interactions, a user's first excepted, with an item that the user had before."""
    tie_share: float | None
    """Share of neighbours with equal times, whose order is the source's."""
    stickiness: float | None
    """Share, among neighbours with different items and known providers, that have the same provider."""
    shuffled_stickiness: float | None
    """The same, expected after a random shuffle of each user's order: what remains without sequence."""
    untied_stickiness: float | None
    """Stickiness without the neighbours that have equal times."""
    test_users: int
    """Users with a held-out test target (3 interactions or more)."""
    valid_users: int
    """Users with a held-out validation target (4 interactions or more)."""


def describe(
    offsets: NDArray[np.int64],
    items: NDArray[np.int32],
    providers: NDArray[np.int32],
    tied: NDArray[np.bool_],
    unknown_provider: int,
) -> DatasetStatistics:
    """Compute the statistics of sequences.

    Args:
        offsets: int64 `[users + 1]`.
        items: int32 `[actions]`, in user-then-time order.
        providers: int32 `[actions]`, likewise.
        tied: bool `[actions]`, whether the interaction has the same time as the one before it.
        unknown_provider: the id that stands for an unknown provider.
    """
    lengths = np.diff(offsets)
    user = np.repeat(np.arange(len(lengths)), lengths)
    together = user[1:] == user[:-1]

    seen = np.unique(user * (int(items.max()) + 1) + items).size
    later = len(items) - len(lengths)
    return DatasetStatistics(
        users=len(lengths),
        items=np.unique(items).size,
        actions=len(items),
        providers=int(np.unique(providers[providers != unknown_provider]).size),
        known_provider_actions=int((providers != unknown_provider).sum()),
        mean_length=float(lengths.mean()),
        length_quantiles={
            f"{quantile:g}": int(np.quantile(lengths, quantile, method="lower")) for quantile in LENGTH_QUANTILES
        },
        repeat_share=_share(len(items) - seen, later),
        tie_share=_share(int((tied[1:] & together).sum()), int(together.sum())),
        stickiness=_stickiness(items, providers, together, unknown_provider),
        shuffled_stickiness=_shuffled_stickiness(user, items, providers, lengths, unknown_provider),
        untied_stickiness=_stickiness(items, providers, together & ~tied[1:], unknown_provider),
        test_users=int((lengths >= MIN_TEST_LENGTH).sum()),
        valid_users=int((lengths >= MIN_VALID_LENGTH).sum()),
    )


def _stickiness(
    items: NDArray[np.int32], providers: NDArray[np.int32], pairs: NDArray[np.bool_], unknown: int
) -> float | None:
    known = providers != unknown
    counted = pairs & (items[1:] != items[:-1]) & known[1:] & known[:-1]
    return _share(int((counted & (providers[1:] == providers[:-1])).sum()), int(counted.sum()))


def _shuffled_stickiness(
    user: NDArray[np.int64],
    items: NDArray[np.int32],
    providers: NDArray[np.int32],
    lengths: NDArray[np.int64],
    unknown: int,
) -> float | None:
    """Return the ratio of the two counts of `_stickiness`, each in expectation over all orders.

    In a random order of n interactions every ordered pair of them is adjacent with probability 1 / n. Ordered
    pairs with the same provider are sums of squared multiplicities; those with the same item are taken off.
    """
    known = providers != unknown
    user, items, providers = user[known], items[known].astype(np.int64), providers[known]
    weight = 1.0 / lengths

    def pairs(*keys: NDArray[np.integer]) -> float:
        """Sum, over groups of one user's interactions with equal keys, of squared size / n."""
        order = np.lexsort((*keys, user))
        new = np.zeros(len(user), dtype=bool)
        for key in (user, *keys):
            new[1:] |= key[order][1:] != key[order][:-1]
        starts = np.flatnonzero(new | (np.arange(len(user)) == 0))
        sizes = np.diff(starts, append=len(user))
        return float((sizes.astype(np.float64) ** 2 * weight[user[order][starts]]).sum())

    different = pairs() - pairs(items)
    return (pairs(providers) - pairs(items, providers)) / different if different > 0 else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
