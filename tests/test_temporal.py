"""Temporal splits with other targets, other validation, and successive test periods, against a naive program."""

import contextlib
import dataclasses
import json
import re
import shutil
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipsrec_bench.data.split import Split, rule_of, split_dataset
from ipsrec_bench.data.split_statistics import held_out_facts
from ipsrec_bench.errors import DataError, SuiteError
from ipsrec_bench.ranking.metrics import metric, of_users
from ipsrec_bench.report.material import read_material
from ipsrec_bench.report.order import order_of
from ipsrec_bench.report.results import Results
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.run.engine import execute
from ipsrec_bench.run.executors.inline import Inline
from ipsrec_bench.run.plan import cells_of, make_plan
from ipsrec_bench.store import queries
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.health import examine
from ipsrec_bench.suite.load import load_suite
from ipsrec_bench.suite.schema import Protocol, folds_of
from tests.conftest import run_bench
from tests.test_split import logs, prepared

TARGETS, VALIDATIONS = ("first", "last", "random", "all"), ("time", "last-train", "users")


@pytest.fixture(scope="module")
def any_data(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("any"), [(0, 0), (0, 1)])


def world_of(any_data, rows):
    """Return the dataset of (user, time) pairs, without writing it."""
    rows = sorted(((user, time, n) for n, (user, time) in enumerate(rows)))
    users, times, items = (np.array(column) for column in zip(*rows, strict=True))
    return dataclasses.replace(
        any_data,
        items=(items % 7 + 1).astype(np.int32),
        providers=np.full(len(rows), 2, dtype=np.int32),
        times=times,
        offsets=np.concatenate([[0], np.cumsum(np.unique(users, return_counts=True)[1])]),
        num_items=7,
    )


def cut_at(ordered, share):
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def chosen(user_times, begin, end, rule):
    """Places of the targets among one user's interactions from time `begin` to time `end`; a set for a random one."""
    inside = [n for n, time in enumerate(user_times) if begin <= time < end]
    able = [n for n in inside if n > 0]
    if rule == "first":
        return {inside[0]} if inside and inside[0] > 0 else set()
    return {able[-1]} if rule == "last" and able else set(able)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    logs,
    st.sampled_from(TARGETS),
    st.sampled_from(VALIDATIONS),
    st.sampled_from([0.1, 0.3]),
    st.integers(1, 3),
    st.data(),
)
def test_a_temporal_split_is_that_of_a_naive_program(any_data, rows, target, validation, test_share, folds, draw):
    data = world_of(any_data, rows)
    wanted = Protocol(
        split="temporal", valid_share=0.1, test_share=test_share, target=target, validation=validation,
        folds=min(folds, 2 if test_share > 0.2 else 3),
    )  # fmt: skip
    later, (_, protocol) = draw.draw(st.sampled_from(list(enumerate(folds_of(wanted)))))
    try:
        split = split_dataset(data, protocol)
    except DataError:
        with pytest.raises(DataError, match="the temporal split leaves no user to"):
            split_dataset(data, protocol)
        return
    ordered = sorted(data.times)
    cut = cut_at(ordered, 1 - (later + 1) * test_share)
    valid_cut = cut_at(ordered, 1 - 0.1 - (later + 1) * test_share)
    end = cut_at(ordered, 1 - later * test_share) if later else np.inf
    trained = split.trained(data)
    assert not trained[data.times >= (valid_cut if validation == "time" else cut)].any()
    for targets in (split.valid, split.test):  # a user's targets are neighbours, in order
        assert (np.diff(targets.positions) > 0).all()
        assert (np.diff(targets.users) >= 0).all()
        assert not trained[targets.positions].any()
    able = []
    for user in range(data.num_users):
        start, stop = data.offsets[user], data.offsets[user + 1]
        times = data.times[start:stop]
        found = {
            name: {int(place) - start for place in getattr(split, name).positions[getattr(split, name).users == user]}
            for name in ("valid", "test")
        }
        before = [n for n, time in enumerate(times) if time < cut]
        of_test = chosen(times, cut, end, target)
        assert found["test"] <= of_test
        assert len(found["test"]) == (min(1, len(of_test)) if target == "random" else len(of_test))
        kept = np.flatnonzero(trained[start:stop]).tolist()
        if validation == "time":
            of_valid = chosen(times, valid_cut, cut, target)
            assert kept == [n for n, time in enumerate(times) if time < valid_cut]
        elif validation == "last-train":
            of_valid = {before[-1]} if len(before) >= 2 else set()
            assert kept == [n for n in before if n not in of_valid]
        else:
            able += [user] if len(before) >= 2 else []
            rule = "last" if target == "first" else target
            of_valid = chosen(times, -np.inf, cut, rule) if found["valid"] else set()
            assert kept == ([] if found["valid"] else before)
        assert found["valid"] <= of_valid
        one = validation != "last-train" and target == "random"
        assert len(found["valid"]) == (min(1, len(of_valid)) if one else len(of_valid))
        again = np.flatnonzero(split.with_validation().trained(data)[start:stop]).tolist()
        assert again == before  # everything before the cut, and nothing after it
    if validation == "users":
        assert split.valid.num_users == round(0.1 * len(able))
    # Validation does not move the test's targets, and random ones are always the same.
    other = split_or_none(data, protocol.model_copy(update={"validation": "last-train"}))
    if other is not None:
        assert other.test.positions.tolist() == split.test.positions.tolist()
    assert split_dataset(data, protocol).valid.positions.tolist() == split.valid.positions.tolist()


def split_or_none(data, protocol) -> Split | None:
    with contextlib.suppress(DataError):
        return split_dataset(data, protocol)
    return None


def test_random_targets_are_spread_over_the_period(tmp_path):
    data = prepared(tmp_path, [(user, time) for user in range(200) for time in range(10)])
    split = split_dataset(data, Protocol(split="temporal", valid_share=0.1, test_share=0.5, target="random"))
    assert len(split.test.users) == 200
    counts = np.bincount(data.times[split.test.positions], minlength=10)
    assert (counts[:5] == 0).all()
    assert (counts[5:] > 20).all()


@pytest.mark.parametrize("split", ["leave-one-out", "user-holdout"])
@pytest.mark.parametrize(
    ("setting", "value"), [("target", "last"), ("target", "all"), ("validation", "users"), ("folds", 2)]
)
def test_settings_of_cuts_in_time_are_refused_elsewhere(tiny_suite, split, setting, value):
    said = json.dumps(value)
    with pytest.raises(SuiteError, match=rf"{setting} = .* needs split = 'temporal', and split is '{split}'; change"):
        load_suite(tiny_suite, [f"protocol.split={split}", f"protocol.{setting}={said}"])


def test_folds_need_room():
    Protocol(split="temporal", folds=4, test_share=0.2, valid_share=0.1)
    with pytest.raises(ValueError, match=r"valid_share = 0\.1 and test_share = 0\.2, 5 times, leave nothing"):
        Protocol(split="temporal", folds=5, test_share=0.2, valid_share=0.1)


@pytest.mark.parametrize("validation", ["users", "last-train"])
def test_only_shares_of_the_same_thing_are_summed(world, validation):
    protocol = Protocol(split="temporal", validation=validation, valid_share=0.5, test_share=0.1, folds=5)
    for _, fold in folds_of(protocol):
        assert split_dataset(world, fold).test.num_users
    with pytest.raises(ValueError, match=r"test_share = 0\.1, 10 times, leaves nothing to train on"):
        Protocol(split="temporal", validation=validation, test_share=0.1, folds=10)


def test_the_number_of_a_fold_is_no_setting(tiny_suite):
    with pytest.raises(SuiteError, match="unknown key 'later'"):
        load_suite(tiny_suite, ["protocol.split=temporal", "protocol.later=1"])


def test_rules_and_names_tell_splits_apart():
    made = [
        protocol
        for target in TARGETS
        for validation in VALIDATIONS
        for _, protocol in folds_of(Protocol(split="temporal", target=target, validation=validation, folds=3))
    ]
    assert len({one.split_name for one in made}) == len({rule_of(one) for one in made}) == len(made)
    default = Protocol(split="temporal")
    assert default.split_name == "temporal 0.1 0.1"
    assert rule_of(default).endswith("the newest interactions held out: 10% for validation, 10% for the test")
    assert rule_of(Protocol(split="temporal", folds=3)) != rule_of(default)


FOLDS = ["protocol.split=temporal", "protocol.folds=3", "seeds=[1]", "protocol.cutoffs=[5]"]


def test_each_fold_is_a_condition_and_the_newest_has_the_key_of_the_plain_protocol(tiny_suite, tmp_path):
    cells = cells_of(load_suite(tiny_suite, FOLDS), tmp_path)
    rows = len({cell.label for cell in cells})
    assert [cell.dataset for cell in cells[::rows]] == ["world", "world, fold 2 of 3", "world, fold 1 of 3"]
    assert [cell.condition.protocol for cell in cells[::rows]] == ["", "fold 2 of 3", "fold 1 of 3"]
    plain = cells_of(load_suite(tiny_suite, [FOLDS[0], *FOLDS[2:]]), tmp_path)
    keys = [cell.key("f") for cell in cells]
    assert keys[:rows] == [cell.key("f") for cell in plain]
    assert len({*keys}) == len(keys)
    # A further fold at the beginning changes no key.
    four = [cell.key("f") for cell in cells_of(load_suite(tiny_suite, [*FOLDS, "protocol.folds=4"]), tmp_path)]
    assert four[: len(keys)] == keys


def test_further_protocols_have_their_own_folds(tiny_suite, tmp_path):
    overrides = [FOLDS[0], 'protocols."by fold"={folds=2, mask_history=true}']
    labels = dict.fromkeys(cell.dataset for cell in cells_of(load_suite(tiny_suite, overrides), tmp_path))
    assert list(labels) == ["world", "world, by fold", "world, by fold, fold 1 of 2"]


def test_an_earlier_fold_knows_nothing_of_later_interactions(tmp_path):
    """Whatever happens later, the fold's training, histories and targets stay the same."""
    rng = np.random.default_rng(3)
    rows = [(int(rng.integers(30)), time) for time in range(400)]
    (_, _), (_, earlier) = folds_of(Protocol(split="temporal", folds=2, test_share=0.2))
    changed = [*rows[:320], *((29 - user, time) for user, time in rows[320:])]
    found = []
    for name, log in (("a", rows), ("b", changed)):
        (tmp_path / name).mkdir()
        data = prepared(tmp_path / name, log)
        split = split_dataset(data, earlier)
        histories = [
            (int(user), data.times[data.offsets[user] : position + 1].tolist())
            for user, position in zip(split.test.users, split.test.positions, strict=True)
        ]
        facts, statistics = held_out_facts(data, earlier)
        found.append((sorted(data.times[split.trained(data)]), histories, facts.item_count.tolist(), statistics))
        assert data.times[split.test.positions].max() < 320
    assert found[0][:2] == found[1][:2]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A run in which each interaction after the cut is a target."""
    folder = tmp_path_factory.mktemp("all")
    suite = """
title = "All"
seeds = [1, 2, 3]
[datasets.world]
source = "synthetic"
users = 150
items = 40
providers = 6
mean_length = 12
max_length = 8
[models.pop]
[models.markov]
[models.sasrec]
embedding_size = 8
inner_size = 16
[training]
epochs = 2
batch_size = 128
[protocol]
split = "temporal"
target = "all"
test_share = 0.3
"""
    path = folder / "all.toml"
    path.write_text(suite, encoding="utf-8")
    store = folder / "s.duckdb"
    plan = make_plan(load_suite(path), folder / "data", store, lambda _: None)
    events = []
    result = execute(plan, store, partial(Inline, "cpu", 1), events.append)
    assert (result.failed, result.complete) == (0, len({key for key, _ in plan.cells}))
    return folder, plan, store, events


def naive_means(users, values):
    by_user = {}
    for user, value in zip(users, values, strict=True):
        by_user.setdefault(user, []).append(value)
    return {user: np.mean(found) for user, found in by_user.items()}


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.integers(0, 1000))
def test_the_metric_of_a_user_is_the_mean_over_its_targets(counts, seed):
    users = np.repeat(np.arange(len(counts)) * 3, counts)
    values = metric("ndcg@10", np.random.default_rng(seed).integers(1, 30, len(users)))
    assert of_users(users, values) == pytest.approx(list(naive_means(users, values).values()))
    if len(users) == len(counts):
        assert of_users(users, values) is values


def test_every_reader_of_ranks_averages_over_the_targets_of_a_user_first(ended):
    _, plan, store, events = ended
    (data,) = plan.datasets.values()
    split = split_dataset(data, plan.cells[0][1].protocol)
    assert split.test.num_users < len(split.test.users)
    keys = list(dict.fromkeys(key for key, _ in plan.cells))
    with reading(store) as connection:
        ranks = queries.test_ranks(connection, keys)
        of_store = queries.metrics_of(connection, keys, ["ndcg@10", "hr@5"])
        views = connection.execute(
            "SELECT model, seed, users, \"ndcg@10\" FROM metrics WHERE split = 'test' ORDER BY ALL"
        ).fetchall()
        macro = connection.execute(
            "SELECT model, seed, users, ndcg FROM metrics_at(10) WHERE split = 'test' ORDER BY ALL"
        ).fetchall()
        counts = connection.execute("SELECT DISTINCT split, users FROM cell_targets").fetchall()
        numbers = connection.execute("SELECT test_users, valid_users FROM splits").fetchall()
        facts = connection.execute('SELECT "user" FROM targets ORDER BY rowid').fetchall()
        valid = connection.execute(
            'SELECT "user", realistic_rank(higher, ties), best_valid, key FROM ranks JOIN cells USING (cell)'
            " WHERE split = 'valid' AND type = 'sasrec' ORDER BY key, ranks.rowid"
        ).fetchall()
    assert numbers == [(split.test.num_users, split.valid.num_users)]
    assert sorted(counts) == [("test", split.test.num_users), ("valid", split.valid.num_users)]
    assert [user for (user,) in facts] == split.test.users.tolist()
    assert [row[2] for row in views] == [split.test.num_users] * len(views)
    for key in {row[3] for row in valid}:  # the metric that stops training
        rows = [row for row in valid if row[3] == key]
        means = naive_means([row[0] for row in rows], metric("mrr@10", np.array([row[1] for row in rows])))
        assert np.mean(list(means.values())) == pytest.approx(rows[0][2])
    named = dict(plan.cells)
    for key, found in ranks.items():
        assert found.users.tolist() == split.test.users.tolist()
        means = naive_means(found.users, metric("ndcg@10", found.ranks))
        wanted = np.mean(list(means.values()))
        assert np.mean(metric("ndcg@10", found.ranks)) != pytest.approx(wanted)
        assert found.metric("ndcg@10") == pytest.approx(list(means.values()))
        assert found.histogram().sum() == pytest.approx(split.test.num_users)
        assert of_store[key][0]["ndcg@10"] == pytest.approx(wanted)
        in_views = [row[3] for row in views if (row[0], row[1]) == (named[key].model, named[key].seed)]
        in_macro = [row[3] for row in macro if (row[0], row[1]) == (named[key].model, named[key].seed)]
        assert in_views == pytest.approx([wanted] * len(in_views))
        assert in_macro == pytest.approx(in_views)
        reported = [e.metrics["ndcg@10"] for e in events if type(e).__name__ == "CellFinished" and e.key == key]
        assert reported == pytest.approx([wanted])


def test_the_report_is_over_users(ended):
    folder, plan, store, _ = ended
    done = run_bench("report", "all", "--store", store, "--output", "r", cwd=folder)
    assert done.returncode == 0, done.stderr
    text = next((folder / "r").rglob("*.md")).read_text(encoding="utf-8")
    assert "users have several targets" in text
    (data,) = plan.datasets.values()
    users = split_dataset(data, plan.cells[0][1].protocol).test.num_users
    assert "each interaction after a cut is a target" in text
    assert f"{users} for the test" in text


def test_stores_with_several_targets_of_a_user_are_checked_and_merged(ended):
    """A merge compares each target of a user: equal ranks are no conflict, and a different one is."""
    folder, _, store, _ = ended
    (folder / "other").mkdir()
    other = folder / "other" / "s.duckdb"
    shutil.copy(store, other)
    done = run_bench("merge", folder / "whole.duckdb", store, other, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert examine(folder / "whole.duckdb").faults == ()
    with writing(other) as connection:
        user = connection.execute('SELECT "user" FROM ranks GROUP BY "user", cell HAVING count(*) > 2').fetchall()[0][0]
        connection.execute('UPDATE ranks SET higher = 39 - higher WHERE "user" = ? AND cell = 1', [user])
    done = run_bench("merge", folder / "second.duckdb", store, other, cwd=folder)
    assert done.returncode == 1
    assert re.search(r"\b1 of \d+ users have other ranks", done.stdout + done.stderr)


def test_files_of_predictions_have_one_target_of_a_user(ended):
    folder, _, store, _ = ended
    (folder / "theirs.csv").write_text("user,rank\n1,1\n", encoding="utf-8")
    done = run_bench("import-ranks", "theirs.csv", "--suite", "all.toml", "--model", "x", "--store", store, cwd=folder)
    assert done.returncode == 2
    assert "an imported file has one for each user; import for target = 'first'" in done.stderr


def test_probabilities_orders_and_validation_are_over_users_too(ended):
    _, plan, store, _ = ended
    with reading(store) as connection:
        run = read_run(connection, "all", None)
        material = read_material(connection, run)
        raw = connection.execute(
            'SELECT key, "user", realistic_rank(higher, ties) FROM ranks JOIN cells USING (cell)'
            " WHERE split = 'valid' ORDER BY key, ranks.rowid"
        ).fetchall()
    results = Results(run, material.ranks, material.summaries)
    markov, sasrec = results.row("markov"), results.row("sasrec")
    won, values = [], []
    for key in results.keys["world", "sasrec"].values():
        theirs, ours = material.ranks[results.keys["world", "markov"][1]], material.ranks[key]
        better = (ours.ranks < theirs.ranks) + (ours.ranks == theirs.ranks) / 2
        won.append(np.mean(list(naive_means(ours.users, better).values())))
        values.append(list(naive_means(ours.users, metric(results.metric, ours.ranks)).values()))
    assert results.superiority("world", sasrec, markov) == pytest.approx(np.mean(won))
    assert results.matrix("world", sasrec, results.metric) == pytest.approx(np.array(values).T)
    order = order_of(results, material, None)
    (line,) = (line for line in order.lines if line.row == sasrec)
    assert line.value == pytest.approx(np.mean(values))
    with reading(store) as connection:
        counts = queries.valid_counts(connection, list(material.ranks), 10)
        means = queries.means_of(connection, list(material.ranks), "ndcg@10", "valid")
    (data,) = plan.datasets.values()
    users = split_dataset(data, plan.cells[0][1].protocol).valid.num_users
    for key in material.ranks:
        mine = [(user, rank) for of, user, rank in raw if of == key]
        wanted = naive_means([user for user, _ in mine], metric("ndcg@10", np.array([rank for _, rank in mine])))
        assert means[key] == pytest.approx(np.mean(list(wanted.values())))
        assert counts[key].sum() == pytest.approx(users)


def test_views_join_each_rank_with_its_own_target_under_every_protocol(tmp_path):
    suite = """title = "Several"
seeds = [1, 2]
[datasets.world]
source = "synthetic"
users = 80
items = 30
providers = 6
mean_length = 9
[models.pop]
[models.markov]
[protocols.each]
split = "temporal"
target = "all"
test_share = 0.3
folds = 2
[protocols.new]
split = "temporal"
target = "all"
test_share = 0.3
mask_history = true
[protocols.masked]
mask_history = true
"""
    path = tmp_path / "several.toml"
    path.write_text(suite, encoding="utf-8")
    store = tmp_path / "s.duckdb"
    plan = make_plan(load_suite(path), tmp_path / "data", store, lambda _: None)
    assert execute(plan, store, partial(Inline, "cpu", 1), lambda _: None).failed == 0
    columns = ("history", "item_count", "provider_count", "item_seen", "provider_seen", "candidates")
    with reading(store) as connection:
        for _, cell in plan.cells:
            data = plan.datasets[cell.dataset]
            test = split_dataset(data, cell.protocol).test
            facts = held_out_facts(data, cell.protocol)[0]
            kept = ~facts.item_seen if cell.protocol.mask_history is True else np.ones(len(facts.users), bool)
            found = connection.execute(
                'SELECT "user", ' + ", ".join(columns) + " FROM user_targets"
                ' WHERE dataset = ? AND model = ? AND seed = ? ORDER BY "user", target',
                [cell.dataset, cell.model, cell.seed],
            ).fetchall()
            expected = [facts.users[kept], *(getattr(facts, name)[kept] for name in columns)]
            assert found == list(zip(*(column.tolist() for column in expected), strict=True))
            assert [row[0] for row in found] == test.users.tolist()
        joined = connection.execute(
            "SELECT dataset, seed, count(*) FROM user_ranks a"
            ' JOIN user_ranks b USING (suite, dataset, split, seed, "user", target)'
            " WHERE split = 'test' AND a.model = 'pop' AND b.model = 'markov' GROUP BY ALL"
        ).fetchall()
    assert {(dataset, seed): count for dataset, seed, count in joined} == {
        (cell.dataset, cell.seed): len(split_dataset(plan.datasets[cell.dataset], cell.protocol).test.users)
        for _, cell in plan.cells
    }
    assert len(joined) == 2 * len({cell.dataset for _, cell in plan.cells}) == 10
