"""Splits: which interactions train a model and which are held out.

Leave-one-out: each user's last interaction is the test target, the one before it the validation target. As in RecBole,
which splits samples (prefix, next item) rather than interactions, short histories keep what a model needs first: a user
with one interaction gives no target, with two a training target, with three a training and a test target, and with four
or more a validation target as well. A model trained this way knows what other users did after a test target;
`data stats` reports for how many targets this is the case.

Temporal: cuts in time, the same for all users. By default, interactions before the first cut are for training. A
user's first interaction between the cuts is a validation target; the first one at or after the second cut is a test
target. The history is everything of the user before the target, so neither training nor history contains anything after
the cut.

- `target` chooses among a user's interactions in a period of time. `first` is the one above. `last`, `random` and `all`
  take the last one, a random one, or each: the history is everything of the user before the target, which may also be
  after the cut. A target needs a history of at least one interaction.
- `validation` chooses what is held out before the test's cut. `time` is a period before it, with the same rule of
  targets. `last-train` is each user's last interaction before it, of users who have two there. `users` are random users
  with two interactions before it, of whom training sees nothing. They have no period of their own, so their target is
  their last interaction before the cut for `first` and `last`, else a random one, or each.
- `later_folds` moves the cuts back by as many test periods. What follows the test period does not exist then.

User holdout: users, not interactions, are held out. Training sees the whole history of the other users and nothing of
the held-out ones. A held-out user's last interaction is the target, and everything before it is the history.

If only items that exist at the time of a target are its candidates (`candidates = "available"`), the targets carry the
lifetimes of all items; `ipsrec_bench.ranking` counts among those that exist.

If the history's items are not candidates (`mask_history = true`), a target that also occurs in its history cannot be
ranked: its user is left out, and counted.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.lifetimes import Lifetimes
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.repeats import seen_before
from ipsrec_bench.errors import DataError
from ipsrec_bench.suite.schema import Protocol, TargetRule, ValidationRule

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
    """Held-out targets: user `users[i]`'s interaction at flat position `positions[i]` is to be predicted.

    Both ascend. A user has several targets only if the protocol takes all interactions after a cut.
    """

    users: NDArray[np.int64]
    positions: NDArray[np.int64]
    """Index into the dataset's flat arrays; the history is everything of the user before it."""
    left_out: int = 0
    """Number of further users of the split, left out because their targets are in their masked histories."""
    lifetimes: Lifetimes | None = None
    """When each item exists; a target is ranked among those that exist at its time. If None, among all items."""

    @property
    def num_users(self) -> int:
        """Number of users with a target."""
        return len(np.unique(self.users))


@dataclass(frozen=True, eq=False)
class Split:
    """The training part of every user's sequence, and the held-out targets."""

    train_ends: NDArray[np.int64]
    """int64 `[users]`: user u trains on the flat positions `offsets[u]` up to, not including, `train_ends[u]`."""
    valid: Targets
    test: Targets
    refit_ends: NDArray[np.int64]
    """int64 `[users]`: where the training part ends once validation interactions are trained on, too."""

    def with_validation(self) -> "Split":
        """Return this split with the validation interactions in its training part."""
        return replace(self, train_ends=self.refit_ends)

    def trained(self, data: PreparedDataset) -> NDArray[np.bool_]:
        """Return, bool `[actions]`, which interactions are for training; `data` is the dataset of this split."""
        return data.ranges(data.offsets[:-1], self.train_ends)


@dataclass(frozen=True)
class TargetSet:
    """What a set of ranks refers to: users may be paired only if targets and candidates are equal."""

    users: int
    """Number of ranked users."""
    left_out: int
    """Number of further users of the split, left out because their targets are in their masked histories."""
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
        candidates = f"{data.num_items} items{_existing(data, protocol)}{CANDIDATES[protocol.mask_history]}"
        found[name] = TargetSet(targets.num_users, targets.left_out, digest.hexdigest()[:32], candidates)
    return found


TARGETS = {
    "first": "",
    "last": "; each user's last interaction after a cut is the target",
    "random": "; a random interaction of each user after a cut is the target, always the same",
    "all": "; each interaction after a cut is a target, and a user's metric is the mean over the user's targets",
}
VALIDATIONS = {
    "time": "",
    "last-train": "; validation on each user's last interaction before the test's cut",
    "users": "; validation on users that training does not see",
}


def _existing(data: PreparedDataset, protocol: Protocol) -> str:
    if protocol.candidates == "all":
        return ""
    lifetime = "as the data say" if data.lifetimes.given else "from their first to their last interaction"
    return f", of which those that exist at the time of the target ({lifetime})"


def rule_of(protocol: Protocol) -> str:
    """Return in words which interactions `protocol` holds out."""
    for_validation, for_test = (f"{100 * share:g}%" for share in (protocol.valid_share, protocol.test_share))
    shares = f"{for_validation} for validation, {for_test} for the test"
    if protocol.split == "temporal":
        cuts = {
            "time": f"two cuts in time, the same for all users; the newest interactions held out: {shares}",
            "last-train": f"a cut in time, the same for all users; the newest {for_test} of the interactions held out",
            "users": f"a cut in time, the same for all users; the newest {for_test} of the interactions held out, and"
            f" {for_validation} of the users",
        }[protocol.validation]
        folds = ""
        if protocol.folds > 1:
            folds = f"; {protocol.folds} successive test periods, of which this is the newest"
        elif protocol.later_folds:
            periods = "the newest test period" if protocol.later_folds == 1 else f"{protocol.later_folds} test periods"
            folds = f"; without the interactions of {periods}"
        return f"temporal: {cuts}{VALIDATIONS[protocol.validation]}{TARGETS[protocol.target]}{folds}"
    return {
        "leave-one-out": "leave-one-out: last interaction = test, the one before = validation",
        "user-holdout": f"user-holdout: the last interaction of users that training does not see: {shares}",
    }[protocol.split]


def split_dataset(data: PreparedDataset, protocol: Protocol) -> Split:
    """Split `data` as `protocol` says; with `mask_history = true`, leave out targets that repeat an item.

    Raises:
        DataError: no user is left to train, validate or test on.
    """
    split = _rankable(data, protocol)
    if protocol.candidates == "all":
        return split
    end = _end(np.sort(data.times), protocol.test_share, protocol.later_folds)
    lifetimes = data.lifetimes if end is None else data.lifetimes_before(end)
    valid, test = (replace(targets, lifetimes=lifetimes) for targets in (split.valid, split.test))
    return replace(split, valid=valid, test=test)


def _rankable(data: PreparedDataset, protocol: Protocol) -> Split:
    split = hold_out(data, protocol)
    if protocol.mask_history is not True:
        return split
    result = replace(split, valid=_without_repeats(data, split.valid), test=_without_repeats(data, split.test))
    parts = (("validate", split.valid, result.valid), ("test", split.test, result.test))
    for part, targets, left in parts:
        if not len(left.users):
            raise DataError(
                f"{data.name}: protocol.mask_history = true leaves no user to {part} on: each of the"
                f" {len(targets.users):,} targets is in its user's history; set mask_history = false, or 'miss' to"
                " count such targets as misses"
            )
    return result


def hold_out(data: PreparedDataset, protocol: Protocol) -> Split:
    """Split `data` as `protocol` says, ignoring its `mask_history`.

    Raises:
        DataError: no user is left to train, validate or test on.
    """
    if protocol.split == "temporal":
        return temporal(
            data,
            protocol.valid_share,
            protocol.test_share,
            target=protocol.target,
            validation=protocol.validation,
            later_folds=protocol.later_folds,
        )
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
        refit_ends=np.asarray(ends - (held_out > 0)),
    )


def temporal(
    data: PreparedDataset,
    valid_share: float,
    test_share: float,
    *,
    target: TargetRule = "first",
    validation: ValidationRule = "time",
    later_folds: int = 0,
) -> Split:
    """Split `data` in time: the test period has `test_share` of all interactions, the newest ones without later folds.

    Interactions at the time of a cut count as after it, so shares are met as far as equal times allow.

    Args:
        data: the dataset.
        valid_share: share of the interactions in the period before that of the test, or of the users for validation.
        test_share: share of the interactions in the test period.
        target: which interactions of a user in a period are targets.
        validation: what is held out for validation.
        later_folds: number of further test periods after this one, whose interactions do not exist.

    Raises:
        DataError: a part is empty, for example if all times are equal.
    """
    ordered = np.sort(data.times)
    sizes = np.array([1 - valid_share - (later_folds + 1) * test_share, 1 - (later_folds + 1) * test_share])
    valid_cut, test_cut = _times_at(ordered, sizes)
    starts, ends = data.offsets[:-1], data.offsets[1:]
    test_from = _first_at(data, test_cut)
    end = _end(ordered, test_share, later_folds)
    if end is not None:
        ends = _first_at(data, end)
    able = test_from - starts >= MIN_HOLDOUT_LENGTH
    before = "last" if target == "first" else target
    if validation == "time":
        train_ends = _first_at(data, valid_cut)
        valid = _in_period(data, train_ends, test_from, target)
    elif validation == "last-train":
        train_ends = test_from - able
        valid = _targets(data, test_from - 1, able)
    else:
        chosen = np.zeros(data.num_users, dtype=bool)
        shuffled = np.random.default_rng(HOLDOUT_SEED).permutation(np.flatnonzero(able))
        chosen[shuffled[: round(valid_share * len(shuffled))]] = True
        train_ends = np.where(chosen, starts, test_from)
        valid = _in_period(data, starts, np.where(chosen, test_from, starts), before)
    result = Split(train_ends, valid, _in_period(data, test_from, ends, target), refit_ends=test_from)
    _refuse_empty(data, result, "temporal")
    assert data.times[result.trained(data)].max() < (valid_cut if validation == "time" else test_cut)
    assert (data.times[result.valid.positions] < test_cut).all()
    assert (data.times[result.test.positions] >= test_cut).all()
    if target == "first":
        assert (data.times[result.test.positions - 1] < test_cut).all()
    return result


def _end(ordered: NDArray[np.generic], test_share: float, later_folds: int) -> float | None:
    """Return the time at which the test period ends because others follow it, or None; `ordered` are all times."""
    return _times_at(ordered, np.array([1 - later_folds * test_share]))[0] if later_folds else None


def _times_at(ordered: NDArray[np.generic], shares: NDArray[np.float64]) -> NDArray[np.generic]:
    """Return the times before which the `shares` of all interactions lie; `ordered` are their times, ascending."""
    return np.asarray(ordered[np.minimum((shares * len(ordered)).astype(np.int64), len(ordered) - 1)])


def _in_period(
    data: PreparedDataset, begins: NDArray[np.int64], ends: NDArray[np.int64], target: TargetRule
) -> Targets:
    """Return the targets among each user's flat positions `begins[u]` up to, not including, `ends[u]`.

    A target has a history. With `first`, it is the first of these interactions or none.
    """
    starts, users = data.offsets[:-1], np.arange(data.num_users)
    if target == "first":
        return _targets(data, begins, (begins > starts) & (begins < ends))
    low = np.maximum(begins, starts + 1)
    counts = np.maximum(ends - low, 0)
    if target == "last":
        return _targets(data, ends - 1, counts > 0)
    if target == "random":
        drawn = np.random.default_rng(HOLDOUT_SEED).random(data.num_users)  # one for each user, whoever has a target
        return _targets(data, low + (drawn * counts).astype(np.int64), counts > 0)
    of = np.repeat(users, counts)
    nth = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Targets(of, np.asarray(low[of] + nth))


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
        refit_ends=np.where(tested, starts, ends),
    )
    _refuse_empty(data, result, "user-holdout")
    trained = result.trained(data)
    held_out_users = np.concatenate([result.valid.users, result.test.users])
    assert not trained[data.ranges(starts[held_out_users], ends[held_out_users])].any()
    return result


def _without_repeats(data: PreparedDataset, targets: Targets) -> Targets:
    repeats = repeated(data, targets)
    kept = Targets(targets.users[~repeats], targets.positions[~repeats])
    return replace(kept, left_out=targets.num_users - kept.num_users)


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
