"""Splits: which interactions train a model and which are held out.

Leave-one-out: each user's last interaction is the test target, the one before it the validation target. As in RecBole,
which splits samples (prefix, next item) rather than interactions, short histories keep what a model needs first: a user
with one interaction gives no target, with two a training target, with three a training and a test target, and with four
or more a validation target as well. A model trained this way knows what other users did after a test target;
`data stats` reports for how many targets this is the case.

Temporal: two cuts in time, the same for all users. Interactions before the first cut are for training. A user's first
interaction between the cuts is a validation target; the first one at or after the second cut is a test target. The
history is everything of the user before the target, so neither training nor history contains anything after the cut.

User holdout: users, not interactions, are held out. Training sees the whole history of the other users and nothing of
the held-out ones. A held-out user's last interaction is the target, and everything before it is the history.

If the history's items are not candidates (`mask_history = true`), a target that also occurs in its history cannot be
ranked: its user is left out, and counted.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.repeats import seen_before
from ipsrec_bench.errors import DataError
from ipsrec_bench.suite.schema import Protocol

HeldOut = Literal["valid", "test"]
MIN_TEST_LENGTH = 3
"""Minimum number of interactions of a user with a test target under leave-one-out."""
MIN_VALID_LENGTH = 4
"""Minimum number of interactions of a user with a validation target as well."""
MIN_HOLDOUT_LENGTH = 2
"""Minimum number of interactions of a held-out user: a target, and a history to predict it from."""
HOLDOUT_SEED = 0


@dataclass(frozen=True, eq=False)
class Targets:
    """Held-out targets: user `users[i]`'s interaction at flat position `positions[i]` is to be predicted."""

    users: NDArray[np.int64]
    positions: NDArray[np.int64]
    """Index into the dataset's flat arrays; the history is everything of the user before it."""
    left_out: int = 0
    """Number of further users of the split, left out because their target is in their masked history."""


@dataclass(frozen=True, eq=False)
class Split:
    """The training part of every user's sequence, and the held-out targets."""

    train_ends: NDArray[np.int64]
    """int64 `[users]`: user u trains on the flat positions `offsets[u]` up to, not including, `train_ends[u]`."""
    valid: Targets
    test: Targets

    def trained(self, data: PreparedDataset) -> NDArray[np.bool_]:
        """Return, bool `[actions]`, which interactions are for training; `data` is the dataset of this split."""
        return data.ranges(data.offsets[:-1], self.train_ends)


@dataclass(frozen=True)
class TargetSet:
    """What a set of ranks refers to: users may be paired only if targets and candidates are equal."""

    users: int
    """Number of ranked users."""
    left_out: int
    """Number of further users of the split, left out because their target is in their masked history."""
    targets: str
    """Digest of the dataset, the users and their targets."""
    candidates: str
    """The items among which a target is ranked, in words."""


CANDIDATES = {
    False: "",
    True: ", without the history; no target stands in it",
    "miss": ", without the history; a target in it is a miss",
}


def target_sets(data: PreparedDataset, split: Split, protocol: Protocol) -> dict[HeldOut, TargetSet]:
    """Return what ranks of the targets of `split` refer to."""
    parts: dict[HeldOut, Targets] = {"valid": split.valid, "test": split.test}
    found: dict[HeldOut, TargetSet] = {}
    for name, targets in parts.items():
        digest = hashlib.sha256(data.fingerprint.encode())
        for array in (targets.users, targets.positions):
            digest.update(array.astype("<i8").tobytes())
        candidates = f"{data.num_items} items{CANDIDATES[protocol.mask_history]}"
        found[name] = TargetSet(len(targets.users), targets.left_out, digest.hexdigest()[:32], candidates)
    return found


def rule_of(protocol: Protocol) -> str:
    """Return in words which interactions `protocol` holds out."""
    shares = f"{100 * protocol.valid_share:g}% for validation, {100 * protocol.test_share:g}% for the test"
    return {
        "leave-one-out": "leave-one-out: last interaction = test, the one before = validation",
        "temporal": f"temporal: two cuts in time, the same for all users; the newest interactions held out: {shares}",
        "user-holdout": f"user-holdout: the last interaction of users that training does not see: {shares}",
    }[protocol.split]


def split_dataset(data: PreparedDataset, protocol: Protocol) -> Split:
    """Split `data` as `protocol` says; with `mask_history = true`, leave out targets that repeat an item.

    Raises:
        DataError: no user is left to train, validate or test on.
    """
    split = hold_out(data, protocol)
    if protocol.mask_history is not True:
        return split
    result = Split(split.train_ends, _without_repeats(data, split.valid), _without_repeats(data, split.test))
    for part, targets in (("validate", result.valid), ("test", result.test)):
        if not len(targets.users):
            raise DataError(
                f"{data.name}: protocol.mask_history = true leaves no user to {part} on: each of the"
                f" {targets.left_out:,} targets is in its user's history; set mask_history = false, or 'miss' to"
                " count such targets as misses"
            )
    return result


def hold_out(data: PreparedDataset, protocol: Protocol) -> Split:
    """Split `data` as `protocol` says, ignoring its `mask_history`.

    Raises:
        DataError: no user is left to train, validate or test on.
    """
    if protocol.split == "temporal":
        return temporal(data, protocol.valid_share, protocol.test_share)
    if protocol.split == "user-holdout":
        return user_holdout(data, protocol.valid_share, protocol.test_share)
    return leave_one_out(data)


def leave_one_out(data: PreparedDataset) -> Split:
    """Split `data` by leave-one-out.

    Raises:
        DataError: no user has four interactions, enough for a training, a validation and a test target.
    """
    starts, ends = data.offsets[:-1], data.offsets[1:]
    lengths = ends - starts
    if not (lengths >= MIN_VALID_LENGTH).any():
        raise DataError(
            f"{data.name}: no user has {MIN_VALID_LENGTH} interactions or more (the longest history has"
            f" {int(lengths.max())}), so leave-one-out has no user to validate on"
        )
    users = np.arange(data.num_users)
    valid, test = users[lengths >= MIN_VALID_LENGTH], users[lengths >= MIN_TEST_LENGTH]
    held_out = np.select([lengths >= MIN_VALID_LENGTH, lengths == MIN_TEST_LENGTH], [2, 1], default=0)
    return Split(
        train_ends=np.asarray(ends - held_out),
        valid=Targets(valid, np.asarray(ends[valid] - 2)),
        test=Targets(test, np.asarray(ends[test] - 1)),
    )


def temporal(data: PreparedDataset, valid_share: float, test_share: float) -> Split:
    """Split `data` at two times: the newest `test_share` of all interactions, and the `valid_share` before them.

    Interactions at the time of a cut count as after it, so shares are met as far as equal times allow.

    Raises:
        DataError: a part is empty, for example if all times are equal.
    """
    ordered = np.sort(data.times)
    sizes = np.array([1 - valid_share - test_share, 1 - test_share])
    valid_cut, test_cut = ordered[np.minimum((sizes * len(ordered)).astype(np.int64), len(ordered) - 1)]
    starts = data.offsets[:-1]
    valid_from, test_from = (_first_at(data, cut) for cut in (valid_cut, test_cut))
    result = Split(
        train_ends=valid_from,
        valid=_targets(data, valid_from, (valid_from > starts) & (valid_from < test_from)),
        test=_targets(data, test_from, (test_from > starts) & (test_from < data.offsets[1:])),
    )
    _refuse_empty(data, result, "temporal")
    trained = result.trained(data)
    assert data.times[trained].max() < valid_cut
    assert (data.times[result.valid.positions] < test_cut).all()
    assert (data.times[result.test.positions - 1] < test_cut).all()
    return result


def user_holdout(data: PreparedDataset, valid_share: float, test_share: float) -> Split:
    """Hold out random shares of the users with two interactions or more; the choice is always the same.

    Raises:
        DataError: a part is empty.
    """
    starts, ends = data.offsets[:-1], data.offsets[1:]
    able = np.flatnonzero(ends - starts >= MIN_HOLDOUT_LENGTH)
    shuffled = np.random.default_rng(HOLDOUT_SEED).permutation(able)
    valid, test = (round(share * len(able)) for share in (valid_share, test_share))
    validated, tested = np.zeros(data.num_users, dtype=bool), np.zeros(data.num_users, dtype=bool)
    validated[shuffled[:valid]] = tested[shuffled[valid : valid + test]] = True
    result = Split(
        train_ends=np.where(validated | tested, starts, ends),
        valid=_targets(data, ends - 1, validated),
        test=_targets(data, ends - 1, tested),
    )
    _refuse_empty(data, result, "user-holdout")
    trained = result.trained(data)
    held_out_users = np.concatenate([result.valid.users, result.test.users])
    assert not trained[data.ranges(starts[held_out_users], ends[held_out_users])].any()
    return result


def _without_repeats(data: PreparedDataset, targets: Targets) -> Targets:
    repeats = repeated(data, targets)
    return Targets(targets.users[~repeats], targets.positions[~repeats], int(repeats.sum()))


def repeated(data: PreparedDataset, targets: Targets) -> NDArray[np.bool_]:
    """Return, bool `[targets]`, whether a target occurs in its user's history, however long ago."""
    return seen_before(data.items, data.offsets[targets.users], targets.positions)


def _first_at(data: PreparedDataset, cut: float) -> NDArray[np.int64]:
    """Return, for every user, the flat position of the first interaction at `cut` or later, or the user's end."""
    older = np.concatenate([[0], np.cumsum(data.times < cut)])
    return np.asarray(data.offsets[:-1] + older[data.offsets[1:]] - older[data.offsets[:-1]])


def _targets(data: PreparedDataset, positions: NDArray[np.int64], chosen: NDArray[np.bool_]) -> Targets:
    users = np.arange(data.num_users)[chosen]
    return Targets(users, np.asarray(positions[chosen]))


def _refuse_empty(data: PreparedDataset, result: Split, name: str) -> None:
    # A training target needs an interaction before it.
    parts = {
        "to train on": bool((result.train_ends - data.offsets[:-1] > 1).any()),
        "to validate on": len(result.valid.users) > 0,
        "to test on": len(result.test.users) > 0,
    }
    for part, there in parts.items():
        if not there:
            raise DataError(
                f"{data.name}: the {name} split leaves no user {part}; change protocol.valid_share and"
                " protocol.test_share, or the split"
            )
