"""Facts about held-out targets, by which results are sliced."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER, PreparedDataset
from ipsrec_bench.data.repeats import distinct_before, seen_before
from ipsrec_bench.data.split import Split


@dataclass(frozen=True, eq=False)
class TargetFacts:
    """Facts of the test targets, arrays `[targets]`, users ascending."""

    users: NDArray[np.int32]
    history: NDArray[np.int32]
    """Interactions of the user before the target, including those that the model does not see."""
    item_count: NDArray[np.int32]
    """Training interactions of all users with the target."""
    provider_count: NDArray[np.int32]
    """Training interactions with the target's provider; -1 where it is unknown."""
    item_seen: NDArray[np.bool_]
    """Whether the history holds the target: it is a repeat."""
    provider_seen: NDArray[np.bool_]
    """Whether the history holds the target's provider; false where it is unknown."""
    candidates: NDArray[np.int32] | None = None
    """Items that compete with the target if the history is masked: all others that the history does not hold. None if a
    store of an older version lacks them."""

    def of(self, users: NDArray[np.int32]) -> "TargetFacts | None":
        """Return the facts of the targets of `users`, ascending; None if some are missing, or have several targets."""
        if (self.users[1:] == self.users[:-1]).any():
            return None
        places = np.searchsorted(self.users, users).clip(max=max(len(self.users) - 1, 0))
        if not len(self.users) or not np.array_equal(self.users[places], users):
            return None
        return TargetFacts(**{name: column[places] for name, column in vars(self).items() if column is not None})


def target_facts(data: PreparedDataset, split: Split, trained: NDArray[np.bool_] | None = None) -> TargetFacts:
    """Return the facts of the test targets of `split`.

    Args:
        data: the dataset.
        split: a split of it.
        trained: bool `[interactions]`, the training interactions; by default all of the split.
    """
    users, positions = split.test.users, split.test.positions
    trained = split.trained(data) if trained is None else trained
    item_counts = np.bincount(data.items[trained], minlength=data.num_items + 1)
    provider_counts = np.bincount(data.providers[trained], minlength=data.num_providers + 1)
    items, providers = data.items[positions], data.providers[positions]
    begins = data.offsets[users]
    item_seen = seen_before(data.items, begins, positions)
    return TargetFacts(
        users=users.astype(np.int32),
        history=(positions - begins).astype(np.int32),
        item_count=item_counts[items].astype(np.int32),
        provider_count=np.where(providers == UNKNOWN_PROVIDER, -1, provider_counts[providers]).astype(np.int32),
        item_seen=item_seen,
        provider_seen=seen_before(data.providers, begins, positions) & (providers != UNKNOWN_PROVIDER),
        candidates=(data.num_items - 1 - (distinct_before(data.items, begins, positions) - item_seen)).astype(np.int32),
    )
