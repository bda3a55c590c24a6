"""Repeats: targets that also occur in their own history."""

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 22
"""Number of interactions processed at a time."""


def count_as_misses(higher: NDArray[np.int32], ties: NDArray[np.int32], repeats: NDArray[np.bool_], items: int) -> None:
    """Rank the targets marked in `repeats`, bool `[targets]`, behind all `items` of the catalogue, in place."""
    higher[repeats], ties[repeats] = items, 0


def seen_before(
    values: NDArray[np.int32], begins: NDArray[np.int64], positions: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return, bool `[targets]`, whether `values[positions[i]]` occurs in `values[begins[i]:positions[i]]`."""
    lengths = positions - begins
    ends = np.cumsum(lengths)
    found = np.empty(len(positions), dtype=bool)
    first = 0
    while first < len(positions):
        done = ends[first] - lengths[first]
        last = max(first + 1, int(np.searchsorted(ends, done + CHUNK, side="right")))
        part = slice(first, last)
        owner = np.repeat(np.arange(last - first), lengths[part])
        places = np.arange(len(owner)) - np.repeat(ends[part] - lengths[part] - done, lengths[part])
        equal = values[begins[part][owner] + places] == values[positions[part]][owner]
        found[part] = np.bincount(owner[equal], minlength=last - first) > 0
        first = last
    return found
