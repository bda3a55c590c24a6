"""A warning about interactions with equal times that the source sorts by item.

Where times are coarse, the order of the file decides which of a user's interactions comes next. A file that was
exported by item, as review data often are, sorts them by item id: models learn that order, and it means nothing.
"""

from collections.abc import Iterator

import duckdb
import numpy as np
from numpy.typing import NDArray

LEAST_GROUPS = 30
"""Minimum number of groups that are judged: of fewer, as many may be sorted by chance."""
MOST_SORTED = 0.9
"""Share of sorted groups from which the source is said to sort. Of groups in a random order, at most half are."""


def sorted_ties(
    connection: duckdb.DuckDBPyConnection,
    items: NDArray[np.int32],
    times: NDArray[np.int64] | NDArray[np.float64],
    offsets: NDArray[np.int64],
) -> Iterator[str]:
    """Yield a sentence if nearly all groups of a user's interactions with equal times are sorted by item id.

    Ids are compared as texts and, if all are whole numbers, as numbers. A group has at least two different items.

    Args:
        connection: holds the table `items`.
        items: int32 `[actions]`, in user-then-time order.
        times: int64 or float64 `[actions]`, likewise.
        offsets: int64 `[users + 1]`.
    """
    tied = times[1:] == times[:-1]
    tied[offsets[1:-1] - 1] = False
    if not tied.any():
        return
    group = np.concatenate([[0], np.cumsum(~tied)])[1:][tied]
    for places in _orders(connection, int(items.max())):
        step = np.diff(places[items])[tied]
        rising, falling = _groups_of(group, step > 0), _groups_of(group, step < 0)
        judged = int((rising | falling).sum())
        for word, count in (
            ("ascending", int((rising & ~falling).sum())),
            ("descending", int((falling & ~rising).sum())),
        ):
            if judged >= LEAST_GROUPS and count >= MOST_SORTED * judged:
                yield (
                    f"{count:,} of {judged:,} groups of a user's interactions with equal times are sorted by item id"
                    f" ({word}), so their order says nothing; tie_order = 1 draws a random order, and another number"
                    " another one"
                )
                return


def _groups_of(group: NDArray[np.int64], chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return bool `[groups]`: which groups have a step that is chosen."""
    found = np.zeros(int(group.max()) + 1, dtype=np.bool_)
    found[group[chosen]] = True
    return found


def _orders(connection: duckdb.DuckDBPyConnection, most: int) -> Iterator[NDArray[np.int64]]:
    """Yield the place of each item in the order of the ids as texts and, if all are whole numbers, as numbers."""
    yield np.arange(most + 1)  # items are numbered in the order of their ids as texts
    others = r"SELECT count(*) FROM items WHERE NOT regexp_full_match(raw, '\d{1,18}')"
    if connection.execute(others).fetchall() == [(0,)]:
        by_number = connection.execute("SELECT id FROM items ORDER BY raw::BIGINT, id").fetchnumpy()["id"]
        places = np.zeros(most + 1, dtype=np.int64)
        places[by_number] = np.arange(1, most + 1)
        yield places
