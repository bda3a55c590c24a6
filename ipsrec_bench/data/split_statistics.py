"""Statistics of a split: how many users are evaluated, and which properties of their targets could mislead."""

from collections.abc import Sequence
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
    A value is None if it was recorded by an older version without it.
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
    unknown_users: int | None
    """Users with a test target, but without a training interaction; a model that knows users by id has only
    an untrained vector for them."""


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
    trained = split.trained(data) if trained is None else trained
    newest = data.times[trained].max()
    return SplitStatistics(
        test_users=split.test.num_users,
        valid_users=split.valid.num_users,
        tied_targets=float((data.times[test] == data.times[test - 1]).mean()),
        leaked_targets=float((data.times[test] < newest).mean()),
        repeated_targets=float(facts.item_seen.mean()),
        unseen_targets=float((facts.item_count == 0).mean()),
        unknown_users=unknown_users(data, split, trained),
    )


def unknown_in_words(unknown: int, test_users: int, models: Sequence[str]) -> str:
    """Return a clause on the test users without a training interaction, given the models that know users by id."""
    have, rank = "has" if unknown == 1 else "have", "ranks" if len(models) == 1 else "rank"
    return (
        f"{unknown:,} of {test_users:,} test users {have} no training interaction, so {' and '.join(models)} {rank} for"
        " them with an untrained vector"
    )


def unknown_users(data: PreparedDataset, split: Split, trained: NDArray[np.bool_]) -> int:
    """Return how many users have a test target of `split`, but none of the `trained` interactions, `[interactions]`."""
    before = np.concatenate(([0], np.cumsum(trained)))
    known = before[data.offsets[1:]] > before[data.offsets[:-1]]
    return int((~known[np.unique(split.test.users)]).sum())
