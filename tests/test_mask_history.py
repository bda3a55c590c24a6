"""`protocol.mask_history`: a target that repeats an item of a masked history is left out or a miss, never a hit."""

import duckdb
import numpy as np
import pytest

from ipsrec_bench.data.split import hold_out, repeated, split_dataset
from ipsrec_bench.data.target_facts import target_facts
from ipsrec_bench.suite.schema import Protocol

from .conftest import sequences
from .planted import built

SUITE = """
title = "Loans"
seeds = [1]
[datasets.loans]
path = "loans.csv"
[models.repeat]
[models.pop]
[protocol]
cutoffs = [1, 5]
"""
STORE = "s.duckdb"


def loans(repeats: float, users: int = 60, items: int = 40) -> str:
    """A log in which this share of the users end with an item that they began with."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        history = rng.permutation(items)[:6].tolist()
        if user < repeats * users:
            history[-2:] = history[:2]
        rows += [f"u{user},i{item},p,{time}" for time, item in enumerate(history)]
    return "user,item,provider,time\n" + "\n".join(rows) + "\n"


@pytest.fixture
def library(tmp_path):
    def write(repeats: float) -> None:
        (tmp_path / "data" / "raw").mkdir(parents=True)
        (tmp_path / "data" / "raw" / "loans.csv").write_text(loans(repeats), encoding="utf-8")
        (tmp_path / "loans.toml").write_text(SUITE, encoding="utf-8")

    return write


def hits_at_one(folder, model="repeat"):
    with duckdb.connect(str(folder / STORE), read_only=True) as connection:
        return dict(
            connection.execute("SELECT split::VARCHAR, hr FROM metrics_at(1) WHERE model = ?", [model]).fetchall()
        )


def test_repeats_are_misses_in_a_world_of_repeats(library, bench, tmp_path):
    library(1)
    done = bench("run", "loans.toml", "--store", STORE, "--quiet", "--set", "protocol.mask_history=miss")
    assert (done.returncode, done.stderr) == (0, "")
    assert hits_at_one(tmp_path) == hits_at_one(tmp_path, "pop") == {"valid": 0.0, "test": 0.0}


def test_an_import_records_the_same_statistics_of_a_split_as_a_run(library, bench, tmp_path):
    """The statistics of a split are of all its targets, whatever the mask; the first to need them writes them."""
    library(0.5)
    overrides = ["--store", STORE, "--set", "protocol.mask_history=true"]
    (tmp_path / "ranks.csv").write_text("user,rank\n" + "".join(f"u{user},1\n" for user in range(60)))
    entered = bench("import-ranks", "ranks.csv", "--suite", "loans.toml", "--model", "theirs", *overrides)
    assert entered.returncode == 0, entered.stderr
    assert bench("run", "loans.toml", "--quiet", *overrides).returncode == 0
    with duckdb.connect(str(tmp_path / STORE), read_only=True) as connection:
        said = connection.execute("SELECT test_users, valid_users, repeated_targets FROM splits").fetchall()
    assert said == [(60, 60, 0.5)]


def test_a_world_of_repeats_leaves_no_user(library, bench, tmp_path):
    library(1)
    done = bench("run", "loans.toml", "--store", STORE, "--quiet", "--set", "protocol.mask_history=true")
    assert done.returncode == 2
    assert "protocol.mask_history = true leaves no user to validate on: each of the 60 targets is" in done.stderr
    assert not (tmp_path / STORE).exists()


def test_users_whose_target_is_in_their_history_are_left_out_and_counted(library, bench, tmp_path):
    library(0.5)
    overrides = ["--set", "protocol.mask_history=true"]
    assert bench("run", "loans.toml", "--store", STORE, "--quiet", *overrides).returncode == 0
    with duckdb.connect(str(tmp_path / STORE), read_only=True) as connection:
        users = connection.execute("SELECT DISTINCT split::VARCHAR, users FROM metrics ORDER BY ALL").fetchall()
        left_out = connection.execute("SELECT DISTINCT split::VARCHAR, left_out FROM cell_targets ORDER BY ALL")
        assert (users, left_out.fetchall()) == ([("test", 30), ("valid", 30)], [("test", 30), ("valid", 30)])
    assert hits_at_one(tmp_path)["test"] < 0.2
    report = built(tmp_path / STORE)
    candidates = dict(report.protocol)["Candidates"]
    assert "without the user's history" in candidates
    assert "loans: 30 of 60 test users, 30 of 60 validation users" in candidates
    (line,) = report.datasets
    assert [(users.users, users.left_out) for users in (line.test, line.valid)] == [(30, 30), (30, 30)]


def test_the_mask_changes_nothing_where_nothing_repeats(library, bench, tmp_path):
    library(0)
    for mask in ("true", "miss"):
        store = f"{mask}.duckdb"
        overrides = ["--set", f"protocol.mask_history={mask}"]
        assert bench("run", "loans.toml", "--store", store, "--quiet", *overrides).returncode == 0
    ranks = []
    for mask in ("true", "miss"):
        with duckdb.connect(str(tmp_path / f"{mask}.duckdb"), read_only=True) as connection:
            query = 'SELECT model, split, "user", higher, ties FROM user_ranks ORDER BY ALL'
            ranks.append(connection.execute(query).fetchall())
    assert ranks[0] == ranks[1]


@pytest.mark.parametrize("split", ["leave-one-out", "temporal", "user-holdout"])
def test_every_split_leaves_the_same_repeats_out(world, split):
    settings = {"split": split, "valid_share": 0.3, "test_share": 0.3}
    plain = split_dataset(world, Protocol.model_validate(settings))
    masked = split_dataset(world, Protocol.model_validate({**settings, "mask_history": True}))
    missed = split_dataset(world, Protocol.model_validate({**settings, "mask_history": "miss"}))
    assert masked.train_ends.tolist() == plain.train_ends.tolist()
    own = sequences(world)
    for part in ("valid", "test"):
        all_of, kept, same = (getattr(made, part) for made in (plain, masked, missed))
        assert same.positions.tolist() == all_of.positions.tolist()
        repeats = [
            world.items[position] in own[user][: position - world.offsets[user]]
            for user, position in zip(all_of.users, all_of.positions, strict=True)
        ]
        assert repeated(world, all_of).tolist() == repeats
        assert kept.positions.tolist() == all_of.positions[~np.array(repeats)].tolist()
        assert (kept.left_out, all_of.left_out, same.left_out) == (sum(repeats), 0, 0)


def test_facts_are_known_for_the_targets_that_are_left(world):
    protocol = Protocol(mask_history=True)
    facts = target_facts(world, hold_out(world, protocol))
    users = split_dataset(world, protocol).test.users.astype(np.int32)
    left = facts.of(users)
    assert left.users.tolist() == users.tolist()
    assert not left.item_seen.any()
    assert left.history.tolist() == [facts.history[facts.users == user][0] for user in users]
    assert left.of(facts.users) is None


@pytest.mark.parametrize("value", ["yes", "'true'", "2", "'none'"])
def test_other_values_are_refused(library, bench, value):
    library(0)
    done = bench("validate", "loans.toml", "--set", f"protocol.mask_history={value}")
    assert done.returncode == 2
    assert "input should be false, true or 'miss'" in done.stderr
