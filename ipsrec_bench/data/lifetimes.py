"""Lifetimes of items: from when until when each of them can be recommended.

The columns `available_from` and `available_until` of a dataset say it; `lifetime_columns` reads them. An item exists
from its beginning on, and no longer at its end, as in the code of LiveRec (`start <= now < stop`). Where a column is
not given, or has no value for an item, the item exists from its first interaction, or up to its last one, both
included.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FROM, UNTIL = "available_from", "available_until"
"""Keys of a dataset; also the names of the prepared arrays, which have the data's values and mark missing ones."""

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
    if all(key in given and not is_missing(given[key]).any() for key in (FROM, UNTIL)):
        return Lifetimes(given[FROM], given[UNTIL], given=True)
    seen = seen_lifetimes(items, times) if end is None else _seen_before(end, items, times)
    first, last = (
        np.where(is_missing(given[key]), of_interactions, given[key]) if key in given else of_interactions
        for key, of_interactions in zip((FROM, UNTIL), seen, strict=True)
    )
    return Lifetimes(first, last, given=bool(given))


def is_missing(moments: Moments) -> NDArray[np.bool_]:
    """Return where a prepared array has no value: `missing_moment` of its type."""
    return np.isnan(moments) if moments.dtype.kind == "f" else moments == missing_moment(moments.dtype)


def missing_moment(dtype: np.dtype[Any]) -> float:
    """Return what a prepared array of this type has for an item without a value."""
    return np.nan if dtype.kind == "f" else int(np.iinfo(dtype).min)


def _seen_before(end: float, items: NDArray[np.int32], times: Moments) -> tuple[Moments, Moments]:
    """Return the times of each item's first and last interaction before `end`, `[items]`; `end` where it has none."""
    first, last = seen_lifetimes(items, times)
    first[first >= end] = end
    last = np.full_like(last, end)
    old = times < end
    last[np.unique(items[old]) - 1] = seen_lifetimes(items[old], times[old])[1]
    return first, last


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
