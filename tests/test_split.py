"""Splits beyond leave-one-out: nothing that is held out reaches training, for any data."""

import contextlib
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.split import leave_one_out, split_dataset, temporal, user_holdout
from ipsrec_bench.errors import DataError
from ipsrec_bench.run.engine import execute
from ipsrec_bench.run.executors.inline import Inline
from ipsrec_bench.run.plan import make_plan
from ipsrec_bench.suite.load import load_suite
from ipsrec_bench.suite.schema import Protocol, SyntheticSource, TableSource
from ipsrec_bench.training.samples import packed_windows, prefix_windows

HEADER = "user,item,provider,time\n"

logs = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 30)), min_size=10, max_size=80)


def prepared(folder, rows):
    path = folder / "l.csv"
    path.write_text(HEADER + "".join(f"{u},{n % 7},p,{t}\n" for n, (u, t) in enumerate(rows)), encoding="utf-8")
    return prepare("x", TableSource(path=str(path)), folder)


def split_or_nobody(make, *arguments):
    """Return the split, or None if it raises that a part would be empty."""
    with contextlib.suppress(DataError):
        return make(*arguments)
    with pytest.raises(DataError, match="split leaves no user"):
        make(*arguments)
    return None


def trained_on(data, split, max_length=5) -> set[int]:
    """Flat positions that packed or prefix training reads, as input or as target."""
    seen: set[int] = set()
    rng = np.random.default_rng(0)
    for windows in (prefix_windows(data, split, max_length), packed_windows(data, split, max_length, 0, rng)):
        for end in windows.ends:
            seen.update(range(end - 1, end + 1))
    return seen


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(logs, st.sampled_from([0.1, 0.2, 0.3]), st.sampled_from([0.1, 0.3]))
def test_temporal_training_and_histories_know_nothing_from_after_the_cut(tmp_path_factory, rows, valid, test):
    data = prepared(tmp_path_factory.mktemp("t"), rows)
    times = data.times
    ordered = np.sort(times)
    cuts = [ordered[min(int(share * len(times)), len(times) - 1)] for share in (1 - valid - test, 1 - test)]
    split = split_or_nobody(temporal, data, valid, test)
    if split is None:
        return
    assert all(times[position] < cuts[0] for position in trained_on(data, split))
    for targets, begin, end in ((split.valid, *cuts), (split.test, cuts[1], np.inf)):
        for user, position in zip(targets.users, targets.positions, strict=True):
            first, last = data.offsets[user], data.offsets[user + 1]
            assert first < position < last
            assert begin <= times[position] < end
            assert (times[first:position] < begin).all()  # it is the first after the cut
        expected = [
            user
            for user in range(data.num_users)
            if (own := times[data.offsets[user] : data.offsets[user + 1]])[0] < begin
            and ((own >= begin) & (own < end)).any()
        ]
        assert targets.users.tolist() == expected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(logs, st.sampled_from([0.2, 0.4]))
def test_held_out_users_are_unknown_to_training(tmp_path_factory, rows, share):
    data = prepared(tmp_path_factory.mktemp("u"), rows)
    split = split_or_nobody(user_holdout, data, share, share)
    if split is None:
        return
    able = int((np.diff(data.offsets) >= 2).sum())
    assert len(split.valid.users) == len(split.test.users) == round(share * able)
    held_out = set(split.valid.users) | set(split.test.users)
    assert len(held_out) == len(split.valid.users) + len(split.test.users)
    owner = np.repeat(np.arange(data.num_users), np.diff(data.offsets))
    trained = trained_on(data, split)
    assert not held_out & set(owner[sorted(trained)])
    for user in set(range(data.num_users)) - held_out:
        begin, end = data.offsets[user], data.offsets[user + 1]
        assert end - begin < 2 or set(range(begin, end)) <= trained
    for targets in (split.valid, split.test):
        assert (targets.positions == data.offsets[targets.users + 1] - 1).all()


def test_the_split_follows_the_protocol(tmp_path):
    data = prepare("w", SyntheticSource(users=300, items=50, providers=5), tmp_path)
    expected = {
        "leave-one-out": leave_one_out(data),
        "temporal": temporal(data, 0.1, 0.2),
        "user-holdout": user_holdout(data, 0.1, 0.2),
    }
    for name, split in expected.items():
        made = split_dataset(data, Protocol.model_validate({"split": name, "test_share": 0.2}))
        assert made.train_ends.tolist() == split.train_ends.tolist()
        for part in ("valid", "test"):
            assert getattr(made, part).positions.tolist() == getattr(split, part).positions.tolist()
    assert len({tuple(split.test.positions) for split in expected.values()}) == len(expected)


def test_equal_times_cannot_be_split(tmp_path):
    data = prepared(tmp_path, [(n % 5, 3) for n in range(40)])
    with pytest.raises(DataError, match=r"leaves no user to train on; change protocol\.valid_share"):
        temporal(data, 0.1, 0.1)


def test_shares_must_leave_something():
    with pytest.raises(ValueError, match="leave nothing to train on"):
        Protocol(valid_share=0.5, test_share=0.5)


@pytest.mark.parametrize("split", ["temporal", "user-holdout"])
def test_every_kind_of_model_runs_under_every_split(tiny_suite, tmp_path, split):
    overrides = [
        f'protocol.split="{split}"',
        "seeds=[1]",
        "models.markov.training={}",
        "models.item-knn.training={}",
        "models.recent-pop.training={}",
        # Caser knows users by their ids, which a split by users refuses.
        "models.sr-gnn.embedding_size=8" if split == "user-holdout" else "models.caser.embedding_size=8",
    ]
    store = tmp_path / "s.duckdb"
    plan = make_plan(load_suite(tiny_suite, overrides), tmp_path / "data", store, lambda _: None)
    ended = execute(plan, store, partial(Inline, "cpu", 1), lambda _: None)
    assert (ended.failed, ended.complete) == (0, 8)
    default = make_plan(load_suite(tiny_suite, overrides[1:]), tmp_path / "data", store, lambda _: None)
    assert not default.done  # a split is part of a cell's key
    shares = make_plan(
        load_suite(tiny_suite, [*overrides, "protocol.test_share=0.2"]), tmp_path / "data", store, lambda _: None
    )
    assert not shares.done
