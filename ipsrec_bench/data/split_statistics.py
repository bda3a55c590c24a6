"""Statistics of a split: how many users are evaluated, and which properties of their targets could mislead."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Split, hold_out
from ipsrec_bench.data.target_facts import TargetFacts, target_facts
from ipsrec_bench.data.training_part import trained_on
from ipsrec_bench.suite.schema import Protocol


@dataclass(frozen=True)
class SplitStatistics:
    """Counts and shares of the held-out targets of one dataset under one split.

    Shares are of targets, of which a user has several if the protocol takes all interactions after a cut.
    A share is None if it was recorded by an older version without it.
    """

    test_users: int
    """Users with a test target."""
    valid_users: int
    """Users with a validation target."""
    tied_targets: float | None
    """Share of test targets with the same time as the interaction before them, so that the source's order decides which
    of them is predicted."""
    leaked_targets: float | None
    """Share of test targets older than the newest training interaction: the model knows what other users did later."""
    repeated_targets: float | None
    """Share of test targets with an item that is also in the user's history."""
    unseen_targets: float | None
    """Share of test targets with an item that no training interaction has."""


def held_out_facts(data: PreparedDataset, protocol: Protocol) -> tuple[TargetFacts, SplitStatistics]:
    """Return the facts of the test targets that `protocol` holds out, and the statistics of its split.

    Both include the targets that `mask_history` leaves out.

    Raises:
        DataError: no user is left to train, validate or test on.
    """
    split = hold_out(data, protocol)
    trained = trained_on(data, split, protocol)
    facts = target_facts(data, split, trained)
    return facts, describe_split(data, split, facts, trained)


def describe_split(
    data: PreparedDataset, split: Split, facts: TargetFacts, trained: NDArray[np.bool_] | None = None
) -> SplitStatistics:
    """Return the statistics of `split`.

    Args:
        data: the dataset.
        split: a split of it, with at least one training interaction and one test target.
        facts: the facts of the split's test targets.
        trained: bool `[interactions]`, the training interactions; by default all of the split.
    """
    test = split.test.positions
    newest = data.times[split.trained(data) if trained is None else trained].max()
    return SplitStatistics(
        test_users=split.test.num_users,
        valid_users=split.valid.num_users,
        tied_targets=float((data.times[test] == data.times[test - 1]).mean()),
        leaked_targets=float((data.times[test] < newest).mean()),
        repeated_targets=float(facts.item_seen.mean()),
        unseen_targets=float((facts.item_count == 0).mean()),
    )
