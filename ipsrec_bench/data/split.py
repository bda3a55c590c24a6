"""Leave-one-out: which interactions train a model and which are held out.

Each user's last interaction is the test target and the one before it the validation target. As in RecBole,
whose samples (prefix, next item) are split rather than its interactions, short histories keep what a model
needs first: a user with one interaction gives nothing to predict, with two a training target, with three a
training and a test target, and from four on a validation target as well.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.statistics import MIN_TEST_LENGTH, MIN_VALID_LENGTH
from ipsrec_bench.errors import DataError

HeldOut = Literal["valid", "test"]


@dataclass(frozen=True, eq=False)
class Targets:
    """Held-out targets: user `users[i]`'s interaction at flat position `positions[i]` is to be predicted."""

    users: NDArray[np.int64]
    positions: NDArray[np.int64]
    """Index into the dataset's flat arrays; the history is everything of the user before it."""


@dataclass(frozen=True, eq=False)
class Split:
    """The training part of every user's sequence, and the held-out targets."""

    train_ends: NDArray[np.int64]
    """int64 `[users]`: user u trains on the flat positions `offsets[u]` up to, not including, `train_ends[u]`."""
    valid: Targets
    test: Targets


def leave_one_out(data: PreparedDataset) -> Split:
    """Split `data` by leave-one-out.

    Raises:
        DataError: nobody has the four interactions that a training, a validation and a test target take.
    """
    starts, ends = data.offsets[:-1], data.offsets[1:]
    lengths = ends - starts
    if not (lengths >= MIN_VALID_LENGTH).any():
        raise DataError(
            f"{data.name}: no user has {MIN_VALID_LENGTH} interactions or more (the longest history has"
            f" {int(lengths.max())}), so leave-one-out has nobody to validate on"
        )
    held_out = np.select([lengths >= MIN_VALID_LENGTH, lengths == MIN_TEST_LENGTH], [2, 1], default=0)
    users = np.arange(data.num_users)
    valid, test = users[lengths >= MIN_VALID_LENGTH], users[lengths >= MIN_TEST_LENGTH]
    return Split(
        train_ends=np.asarray(ends - held_out),
        valid=Targets(valid, np.asarray(ends[valid] - 2)),
        test=Targets(test, np.asarray(ends[test] - 1)),
    )
