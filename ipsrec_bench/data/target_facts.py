"""What the data say of a held-out target: what slices of a result are cut by."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER, PreparedDataset
from ipsrec_bench.data.split import Split

CHUNK = 1 << 22
"""Interactions looked at together."""


@dataclass(frozen=True, eq=False)
class TargetFacts:
    """Facts of the test targets, arrays `[targets]`, users ascending."""

    users: NDArray[np.int32]
    history: NDArray[np.int32]
    """Interactions of the user before the target, however many of them a model sees."""
    item_count: NDArray[np.int32]
    """Training interactions, of anybody, with the target."""
    provider_count: NDArray[np.int32]
    """Training interactions with the target's provider; -1 where it is unknown."""
    item_seen: NDArray[np.bool_]
    """Whether the history holds the target: it is a repeat."""
    provider_seen: NDArray[np.bool_]
    """Whether the history holds the target's provider; false where it is unknown."""


def target_facts(data: PreparedDataset, split: Split) -> TargetFacts:
    """Return the facts of the test targets of `split`."""
    users, positions = split.test.users, split.test.positions
    trained = data.ranges(data.offsets[:-1], split.train_ends)
    item_counts = np.bincount(data.items[trained], minlength=data.num_items + 1)
    provider_counts = np.bincount(data.providers[trained], minlength=data.num_providers + 1)
    items, providers = data.items[positions], data.providers[positions]
    begins = data.offsets[users]
    return TargetFacts(
        users=users.astype(np.int32),
        history=(positions - begins).astype(np.int32),
        item_count=item_counts[items].astype(np.int32),
        provider_count=np.where(providers == UNKNOWN_PROVIDER, -1, provider_counts[providers]).astype(np.int32),
        item_seen=_seen(data.items, begins, positions),
        provider_seen=_seen(data.providers, begins, positions) & (providers != UNKNOWN_PROVIDER),
    )


def _seen(values: NDArray[np.int32], begins: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether `values[positions[i]]` stands in `values` from `begins[i]` up to it."""
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
