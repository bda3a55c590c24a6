"""Controls of provider information: the same interactions with other providers.

A model that gains from providers may gain from what they say, or only from more weights and another regularisation.
The controls tell these apart: they change who made an item and leave users, items, times and their order as they are.

- `shuffled`: an *offer* is an item with one of its providers. The providers of all offers are permuted, so every
  provider keeps its number of items, every item keeps its number of providers, and the model keeps its number of
  weights. The unknown provider is permuted like the others. Which of its providers an interaction with an item has is
  permuted among the interactions with the item, too. What is left says nothing beside the item.
- `one`: one known provider makes everything.
- `popularity`: the provider is the class of the item's popularity. Each class covers a factor of two: 1 interaction, 2
  to 3, 4 to 7 and so on. The last two interactions of each user, which a leave-one-out split holds out, are not
  counted. An item without counted interactions is in a class of its own.
"""

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER
from ipsrec_bench.errors import DataError

SEED = 22
"""Seed of `shuffled`; equal data are permuted alike on every machine."""
ROUNDS = 10
"""How often `shuffled` draws a partner for each offer, where items have several providers."""
HELD_OUT = 2
"""Interactions at the end of each history that `popularity` does not count."""


def shuffled(items: NDArray[np.int32], providers: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return providers, int32 `[actions]`, that are permuted over the offers of `items`.

    Args:
        items: int32 `[actions]`.
        providers: int32 `[actions]`.

    Raises:
        DataError: no provider is known.
    """
    if not (providers != UNKNOWN_PROVIDER).any():
        raise DataError("no provider is known, so there is nothing to shuffle; remove this control of providers")
    rng = np.random.default_rng(SEED)
    base = int(providers.max()) + 1
    offers, offer_of = np.unique(items.astype(np.int64) * base + providers, return_inverse=True)
    owner, provider = offers // base, offers % base
    if (owner[1:] != owner[:-1]).all():
        return rng.permutation(provider)[offer_of].astype(np.int32)
    provider = _swapped(owner, provider, base, rng)
    by_item = np.argsort(items, kind="stable")
    drawn = np.lexsort((rng.random(len(items)), items))
    changed = np.empty(len(items), dtype=np.int32)
    changed[drawn] = provider[offer_of[by_item]]
    return changed


def _swapped(
    owner: NDArray[np.int64], provider: NDArray[np.int64], base: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the providers of distinct offers after random swaps between pairs of them.

    A swap that would give an item the same provider twice is not made, so the offers stay distinct.
    """
    provider = provider.copy()
    for _ in range(ROUNDS):
        drawn = rng.permutation(len(owner))
        half = len(owner) // 2
        a, b = drawn[:half], drawn[half : 2 * half]
        wanted = np.concatenate([owner[a] * base + provider[b], owner[b] * base + provider[a]])
        _, which, times = np.unique(wanted, return_inverse=True, return_counts=True)
        taken = np.isin(wanted, owner * base + provider) | (times[which] > 1)
        free = ~(taken[:half] | taken[half:])
        a, b = a[free], b[free]
        provider[a], provider[b] = provider[b], provider[a]
    return provider


def popularity(offsets: NDArray[np.int64], items: NDArray[np.int32]) -> tuple[NDArray[np.int32], list[str]]:
    """Return the popularity class of each interaction's item as its provider, and the names of the classes.

    Args:
        offsets: int64 `[users + 1]`.
        items: int32 `[actions]`, in user-then-time order.

    Returns:
        int32 `[actions]`, the classes from the first known provider on; and their names, from the rarest items on.
    """
    lengths = np.diff(offsets)
    place = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
    counted = place < np.repeat(lengths - HELD_OUT, lengths)
    counts = np.bincount(items[counted], minlength=int(items.max()) + 1)
    level = np.frexp(counts)[1]  # 0 for 0, 1 for 1, 2 for 2 and 3, 3 for 4 to 7, ...
    found, classes = np.unique(level[items], return_inverse=True)
    return (UNKNOWN_PROVIDER + 1 + classes).astype(np.int32), [_named(int(one)) for one in found]


def _named(level: int) -> str:
    if level < 2:  # noqa: PLR2004 (classes of a single count)
        return "items with 1 interaction" if level else "items without interactions"
    return f"items with {2 ** (level - 1):,} to {2**level - 1:,} interactions"
