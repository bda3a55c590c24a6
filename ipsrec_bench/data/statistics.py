"""Statistics of a dataset: the columns of the paper's Table 1, and how informative providers could be."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LENGTH_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class DatasetStatistics:
    """Counts and shares of one dataset; a share over nothing is None.

    "Neighbours" are two consecutive interactions of one user. Statistics of a split, such as the number of test users,
    are in `SplitStatistics`.
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
    """Share of interactions, excluding each user's first, with an item that the user had before."""
    tie_share: float | None
    """Share of neighbours with equal times, whose order is the source's."""
    stickiness: float | None
    """Share, among neighbours with different items and known providers, that have the same provider."""
    shuffled_stickiness: float | None
    """The same, expected after a random shuffle of each user's order: what remains without sequence."""
    untied_stickiness: float | None
    """Stickiness without the neighbours that have equal times."""


def describe(
    offsets: NDArray[np.int64],
    items: NDArray[np.int32],
    providers: NDArray[np.int32],
    times: NDArray[np.int64] | NDArray[np.float64],
    unknown_provider: int,
) -> DatasetStatistics:
    """Compute the statistics of sequences.

    Args:
        offsets: int64 `[users + 1]`.
        items: int32 `[actions]`, in user-then-time order.
        providers: int32 `[actions]`, likewise.
        times: int64 or float64 `[actions]`, likewise.
        unknown_provider: the id of the unknown provider.
    """
    lengths = np.diff(offsets)
    user = np.repeat(np.arange(len(lengths)), lengths)
    together = user[1:] == user[:-1]
    tied = together & (times[1:] == times[:-1])

    seen = len(_runs(user * (int(items.max()) + 1) + items)[0])
    later = len(items) - len(lengths)
    return DatasetStatistics(
        users=len(lengths),
        items=_distinct(items),
        actions=len(items),
        providers=_distinct(providers[providers != unknown_provider]),
        known_provider_actions=int((providers != unknown_provider).sum()),
        mean_length=float(lengths.mean()),
        length_quantiles={
            f"{quantile:g}": int(np.quantile(lengths, quantile, method="lower")) for quantile in LENGTH_QUANTILES
        },
        repeat_share=_share(len(items) - seen, later),
        tie_share=_share(int(tied.sum()), int(together.sum())),
        stickiness=_stickiness(items, providers, together, unknown_provider),
        shuffled_stickiness=_shuffled_stickiness(user, items, providers, lengths, unknown_provider),
        untied_stickiness=_stickiness(items, providers, together & ~tied, unknown_provider),
    )


def stickiness_without(
    offsets: NDArray[np.int64],
    items: NDArray[np.int32],
    providers: NDArray[np.int32],
    provider: int,
    unknown_provider: int,
) -> float | None:
    """Return the stickiness, as in `DatasetStatistics`, that remains if `provider` counts as unknown."""
    together = np.ones(max(0, len(items) - 1), dtype=np.bool_)
    together[offsets[1:-1] - 1] = False
    return _stickiness(items, np.where(providers == provider, unknown_provider, providers), together, unknown_provider)


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

    In a random order of n interactions every ordered pair of them is adjacent with probability 1 / n. The numbers of
    ordered pairs with the same provider are sums of squared multiplicities; pairs with the same item are subtracted.
    """
    known = providers != unknown
    user, items, providers = user[known], items[known], providers[known]
    maker = np.zeros(int(items.max(initial=0)) + 1, dtype=providers.dtype)
    maker[items] = providers
    if (maker[items] == providers).all():  # an item has one provider, as in most data
        offers: NDArray[np.integer] = items
    else:
        both = items * (int(providers.max()) + 1) + providers.astype(np.int64)
        offers = np.unique(both, return_inverse=True)[1]

    def pairs(keys: NDArray[np.integer] | int) -> float:
        """Sum, over groups of one user's interactions with equal keys, of squared size / n."""
        base = int(np.max(keys, initial=0)) + 1
        sizes, codes = _runs(user * base + keys)
        return float((sizes.astype(np.float64) ** 2 / lengths[codes // base]).sum())

    different = pairs(0) - pairs(items)
    return (pairs(providers) - pairs(offers)) / different if different > 0 else None


def _runs(codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how often each distinct code occurs, and the codes, in ascending order."""
    codes = np.sort(codes)
    starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]])) if len(codes) else codes
    return np.diff(starts, append=len(codes)), codes[starts]


def _distinct(ids: NDArray[np.int32]) -> int:
    return int(np.count_nonzero(np.bincount(ids)))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
