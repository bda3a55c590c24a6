"""How sequential data are: what a shuffle of each user's history does to the rules of what follows what.

A rule of first order is a pair of items that follow each other in a history, a rule of second order three items in a
row. As in Klenitskiy et al. (RecSys 2024, arXiv 2408.12008), a rule is frequent if it occurs at least 5 times and if at
least 10% of the occurrences of its beginning, the items before the last, are followed by its last item. A shuffle of
each user's interactions keeps what users like and breaks its order: the share of frequent rules that it destroys shows
how much the order says.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SUPPORT = 5
"""Minimum number of occurrences of a frequent rule."""
CONFIDENCE = 0.1
"""Minimum share of the occurrences of a rule's beginning that its last item follows."""
SEED = 0
"""Seed of the shuffle."""


@dataclass(frozen=True)
class Rules:
    """Rules of one order, in the data and after a shuffle of each user's history."""

    order: int
    """Number of items before the last one."""
    frequent: int
    """Frequent rules in the data."""
    shuffled: int
    """Frequent rules after the shuffle."""

    @property
    def lost(self) -> float | None:
        """Share of the frequent rules that the shuffle destroys; None without frequent rules.

        It is below 0 if the shuffled data have more.
        """
        return 1 - self.shuffled / self.frequent if self.frequent else None


def rules(offsets: NDArray[np.int64], items: NDArray[np.int32]) -> tuple[Rules, Rules]:
    """Return the rules of first and of second order.

    Args:
        offsets: int64 `[users + 1]`.
        items: int32 `[actions]`, in user-then-time order.
    """
    lengths = np.diff(offsets)
    user = np.repeat(np.arange(len(lengths)), lengths)
    drawn = np.argsort(user + np.random.default_rng(SEED).random(len(user)))  # within each user's own places
    found, after = _counts(user, items), _counts(user, items[drawn])
    return Rules(1, found[0], after[0]), Rules(2, found[1], after[1])


def _counts(user: NDArray[np.int64], items: NDArray[np.int32]) -> tuple[int, int]:
    """Return the numbers of frequent rules, of first and of second order."""
    numbers, occurrences = _numbered(items)
    size = len(occurrences)
    # A rule has enough support only if all of its parts have.
    enough = (occurrences >= SUPPORT)[numbers]
    pair = (user[1:] == user[:-1]) & enough[1:] & enough[:-1]
    begins = numbers[:-1][pair]
    pairs, of_pairs = _numbered(begins * size + numbers[1:][pair])
    first = _frequent(pairs, of_pairs, begins, occurrences)
    pair_at = np.zeros(len(pair), dtype=np.int64)
    pair_at[pair] = pairs
    pair[pair] = (of_pairs >= SUPPORT)[pairs]
    triple = pair[1:] & pair[:-1]
    begins = pair_at[:-1][triple]
    triples, of_triples = _numbered(begins * size + numbers[2:][triple])
    return first, _frequent(triples, of_triples, begins, of_pairs)


def _numbered(codes: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each code its number among the distinct codes, and how often each distinct code occurs."""
    order = np.argsort(codes)
    ascending = codes[order]
    starts = np.concatenate([[True], ascending[1:] != ascending[:-1]])[: len(codes)]
    numbers = np.empty(len(codes), dtype=np.int64)
    numbers[order] = np.cumsum(starts) - 1
    return numbers, np.diff(np.flatnonzero(starts), append=len(codes))


def _frequent(
    rules: NDArray[np.int64],
    counts: NDArray[np.int64],
    begins: NDArray[np.int64],
    of_begins: NDArray[np.int64],
) -> int:
    """Return how many distinct rules are frequent.

    Args:
        rules: int64 `[occurrences]`, the rule of each occurrence.
        counts: int64 `[distinct rules]`, how often each occurs.
        begins: int64 `[occurrences]`, the beginning of each occurrence.
        of_begins: int64 `[distinct beginnings]`, how often each occurs.
    """
    begin_of = np.empty(len(counts), dtype=np.int64)
    begin_of[rules] = begins
    return int(((counts >= SUPPORT) & (counts >= CONFIDENCE * of_begins[begin_of])).sum())
