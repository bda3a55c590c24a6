"""Repeats: targets that also occur in their own history."""

from collections.abc import Iterator

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
    found = np.empty(len(positions), dtype=bool)
    for part, owner, places in _histories(begins, positions):
        equal = values[places] == values[positions[part]][owner]
        found[part] = np.bincount(owner[equal], minlength=part.stop - part.start) > 0
    return found


def distinct_before(
    values: NDArray[np.int32], begins: NDArray[np.int64], positions: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return, int64 `[targets]`, how many distinct values `values[begins[i]:positions[i]]` has."""
    found = np.empty(len(positions), dtype=np.int64)
    for part, owner, places in _histories(begins, positions):
        pairs = np.sort(owner << 32 | values[places])
        firsts = np.flatnonzero(np.diff(pairs, prepend=-1))
        found[part] = np.bincount(pairs[firsts] >> 32, minlength=part.stop - part.start)
    return found


def _histories(
    begins: NDArray[np.int64], positions: NDArray[np.int64]
) -> Iterator[tuple[slice, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the histories of the targets in chunks.

    Yields:
        Which targets; then for each interaction of their histories the number of its target in the chunk, and its flat
        position.
    """
    lengths = positions - begins
    ends = np.cumsum(lengths)
    first = 0
    while first < len(positions):
        done = ends[first] - lengths[first]
        last = max(first + 1, int(np.searchsorted(ends, done + CHUNK, side="right")))
        part = slice(first, last)
        owner = np.repeat(np.arange(last - first), lengths[part])
        places = np.arange(len(owner)) - np.repeat(ends[part] - lengths[part] - done, lengths[part])
        yield part, owner, begins[part][owner] + places
        first = last
