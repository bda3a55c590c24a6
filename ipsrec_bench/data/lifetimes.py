"""Lifetimes of items: from when until when each of them can be recommended.

The columns `available_from` and `available_until` of a dataset say it; `lifetime_columns` reads them. An item exists
from its beginning on, and no longer at its end, as in the code of LiveRec (`start <= now < stop`). Where a column is
not given, or has no value for an item, the item exists from its first interaction, or up to its last one, both
included.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FROM, UNTIL = "available_from", "available_until"
"""Keys of a dataset; also the names of the prepared arrays."""

Moments = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Lifetimes:
    """First and last moment at which each item exists, `[items]` each, in the unit of the data's times."""

    first: Moments
    last: Moments
    given: bool
    """Whether columns of the data say so, at least in part; if not, first and last interactions do."""


def seen_lifetimes(items: NDArray[np.int32], times: Moments) -> tuple[Moments, Moments]:
    """Return the times of each item's first and last interaction, `[items]`; every item has one."""
    order = np.lexsort((times, items))
    begins = np.flatnonzero(np.diff(items[order], prepend=0))
    first, last = times[order[begins]], times[order[np.append(begins[1:], len(order)) - 1]]
    return first, last


def lifetimes_of(
    given: Mapping[str, Moments], items: NDArray[np.int32], times: Moments, end: float | None = None
) -> Lifetimes:
    """Return the lifetimes of items from prepared arrays, by key; those that are missing follow from interactions.

    Interactions at `end` or later, if it is given, do not count: an item that has no others begins to exist at `end`.
    """
    if len(given) == len((FROM, UNTIL)) and end is None:
        return Lifetimes(given[FROM], given[UNTIL], given=True)
    first, last = seen_lifetimes(items, times)
    found = {FROM: first, UNTIL: last}
    if end is not None:
        earlier = _seen_before(end, items, times)
        # A prepared value at the first or last of all interactions may stand for one that the data do not have.
        given = {key: np.where(moments == found[key], earlier[key], moments) for key, moments in given.items()}
        found = earlier
    return Lifetimes(given.get(FROM, found[FROM]), given.get(UNTIL, found[UNTIL]), given=bool(given))


def _seen_before(end: float, items: NDArray[np.int32], times: Moments) -> dict[str, Moments]:
    """Return the times of each item's first and last interaction before `end`, `[items]`; `end` where it has none."""
    first, last = seen_lifetimes(items, times)
    first[first >= end] = end
    last = np.full_like(last, end)
    old = times < end
    last[np.unique(items[old]) - 1] = seen_lifetimes(items[old], times[old])[1]
    return {FROM: first, UNTIL: last}


def outside_notes(given: Mapping[str, Moments], items: NDArray[np.int32], times: Moments) -> list[str]:
    """Return a sentence on the interactions with an item that does not exist at their time, if there are any.

    `given` is empty where no column says when items exist; then they exist at all of their interactions.
    """
    if not given:
        return []
    lifetimes = lifetimes_of(given, items, times)
    outside = int(((times < lifetimes.first[items - 1]) | (times > lifetimes.last[items - 1])).sum())
    if not outside:
        return []
    share = f"{outside:,} of {len(items):,} interactions ({outside / len(items):.1%})"
    return [f"{share} are outside of the lifetime of their item ({FROM}, {UNTIL}); a target among them is still ranked"]
