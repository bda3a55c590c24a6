"""A filter for training alone: models see what a filtered dataset has, and all users are tested after all they did."""

import dataclasses
import json
import re
from itertools import pairwise

import duckdb
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.split import split_dataset
from ipsrec_bench.data.split_statistics import held_out_facts
from ipsrec_bench.data.training_part import trained_on, training_view, within_bounds
from ipsrec_bench.errors import DataError, SuiteError
from ipsrec_bench.events import EpochDone
from ipsrec_bench.run.cell import run_cell, train_cell
from ipsrec_bench.run.executors.api import Place
from ipsrec_bench.run.plan import cells_of, make_plan
from ipsrec_bench.suite.load import load_suite
from ipsrec_bench.suite.schema import Filter, Protocol, SyntheticSource, TableSource
from ipsrec_bench.training.index import TrainingIndex

FOR_TRAINING = ['protocol.filter="3-core"', 'protocol.filter_for="training"', "seeds=[1]"]
FILTERS = st.sampled_from(
    ["2-core", "3-core", "2-6", {"users": {"min": 3}, "passes": "one"}, {"users": {"max": 5}, "items": {"min": 2}}]
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    source = SyntheticSource(users=200, items=60, providers=8, mean_length=7)
    return prepare("w", source, tmp_path_factory.mktemp("w"))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=60), FILTERS)
def test_a_filter_drops_what_a_naive_program_drops(rows, raw):
    wanted = Filter.model_validate(raw)
    left = list(enumerate(rows))
    while True:
        users, items = ([pair[place] for _, pair in left] for place in (0, 1))
        kept = [
            (n, (user, item))
            for n, (user, item) in left
            if wanted.users.min <= users.count(user) <= (wanted.users.max or 99)
            and wanted.items.min <= items.count(item) <= (wanted.items.max or 99)
        ]
        if wanted.passes == "one" or len(kept) == len(left):
            break
        left = kept
    users, items = (np.array([pair[place] for pair in rows], dtype=np.int64) for place in (0, 1))
    assert np.flatnonzero(within_bounds(users, items, wanted)).tolist() == [n for n, _ in kept]


@pytest.mark.parametrize("split", ["leave-one-out", "temporal", "user-holdout"])
@pytest.mark.parametrize("wanted", ["3-core", "2-40"])
def test_training_is_that_of_a_prepared_filtered_dataset_up_to_ids(world, tmp_path, split, wanted):
    """The file that is filtered has the training interactions of the split alone."""
    protocol = Protocol(split=split, filter=wanted, filter_for="training")
    of_split = split_dataset(world, protocol)
    users = np.repeat(np.arange(world.num_users), np.diff(world.offsets))
    rows = [
        f"{user},{item},{provider},{time}\n"
        for user, item, provider, time, trained in zip(
            users, world.items, world.providers, world.times, of_split.trained(world), strict=True
        )
        if trained
    ]
    (tmp_path / "l.csv").write_text("user,item,provider,time\n" + "".join(rows), encoding="utf-8")
    filtered = prepare("f", TableSource(path=str(tmp_path / "l.csv"), filter=wanted), tmp_path)
    view, whole = training_view(world, of_split, protocol)
    assert 0 < len(view.items) < of_split.trained(world).sum()
    log = TrainingIndex(view, ResidentSequences(view, torch.device("cpu")), whole, protocol.max_length).log

    def raw(name):
        """Ids of the world, which are the raw ids of the filtered file, by id of the latter."""
        rows = duckdb.read_parquet(str(filtered.path / f"{name}.parquet")).project("id, raw").fetchall()
        return {number: int(text) for number, text in rows}

    users_of, items_of, providers_of = (raw(name) for name in ("users", "items", "providers"))
    theirs = [
        (
            users_of[user],
            [(items_of[filtered.items[n]], providers_of[filtered.providers[n]]) for n in range(begin, end)],
        )
        for user, (begin, end) in enumerate(pairwise(filtered.offsets))
    ]
    ours = [
        (user, [(int(view.items[n]), int(view.providers[n])) for n in range(begin, end)])
        for user, (begin, end) in enumerate(pairwise(view.offsets))
        if end > begin
    ]
    assert sorted(theirs) == ours
    assert log.items.tolist() == view.items.tolist()
    assert (view.num_users, view.num_items) == (world.num_users, world.num_items)
    pairs = sorted(zip(log.users.tolist(), log.items.tolist(), strict=True))
    assert pairs == sorted(
        (int(user), int(item))
        for user, item, trained in zip(users, world.items, trained_on(world, of_split, protocol), strict=True)
        if trained
    )


def test_users_out_of_the_filter_are_tested_after_their_whole_histories(tiny_suite, tmp_path):
    file = load_suite(tiny_suite, FOR_TRAINING)
    plan = make_plan(file, tmp_path / "data", tmp_path / "s.duckdb", lambda _: None)
    (data,) = plan.datasets.values()
    plain = make_plan(
        load_suite(tiny_suite, FOR_TRAINING[2:]), tmp_path / "data", tmp_path / "s.duckdb", lambda _: None
    )
    assert data.fingerprint == plain.datasets["world"].fingerprint
    split = split_dataset(data, plan.cells[0][1].protocol)
    out = np.setdiff1d(split.test.users, np.searchsorted(data.offsets, np.flatnonzero(
        trained_on(data, split, plan.cells[0][1].protocol)), side="right") - 1)  # fmt: skip
    assert len(out)
    by_label = {cell.label: (key, cell) for key, cell in plan.cells}
    plain_keys = {cell.label: key for key, cell in plain.cells}
    for label in ("pop", "sasrec"):
        key, cell = by_label[label]
        assert key != plain_keys[label]
        record = run_cell(key, cell, Place("here", "cpu", 1, tmp_path), data, lambda _: None)
        assert record.error is None, record.error
        assert record.ranks["test"].users.tolist() == split.test.users.tolist()
        if label == "pop":  # counts of the training interactions within bounds alone
            counts = np.bincount(
                data.items[trained_on(data, split, cell.protocol)], minlength=data.num_items + 1
            )  # fmt: skip
            own = counts[data.items[split.test.positions]]
            assert record.ranks["test"].higher.tolist() == [(counts[1:] > one).sum() for one in own]


def test_the_key_has_the_filter_only_if_it_is_for_training(tiny_suite, tmp_path):
    def keys(*overrides):
        return [cell.key("f") for cell in cells_of(load_suite(tiny_suite, overrides), tmp_path)]

    plain, training = keys(), keys(*FOR_TRAINING[:2])
    assert keys('protocol.filter="4-core"') == plain
    assert not {*plain} & {*training}
    assert not {*keys('protocol.filter="4-core"', FOR_TRAINING[1])} & {*training}


def test_a_filter_for_training_needs_a_filter(tiny_suite, tmp_path):
    for_training = FOR_TRAINING[1]
    with pytest.raises(SuiteError, match=r"protocol\.filter_for: found 'training', but no dataset has a filter"):
        cells_of(load_suite(tiny_suite, [for_training]), tmp_path)
    with pytest.raises(SuiteError, match=r"protocols\.b\.filter_for: found 'training', but no dataset has a filter"):
        cells_of(load_suite(tiny_suite, ['protocols.b={filter_for="training", mask_history=true}']), tmp_path)
    filtered = cells_of(load_suite(tiny_suite, [for_training, 'datasets.world.filter="2-core"']), tmp_path)
    assert all(cell.protocol.filters_training for cell in filtered)
    further = cells_of(load_suite(tiny_suite, [for_training, 'protocols.b={filter="2-core"}']), tmp_path)
    assert {cell.dataset: cell.protocol.filters_training for cell in further} == {"world": False, "world, b": True}


def test_a_filter_that_leaves_nobody_to_train_on_is_named(world):
    protocol = Protocol(filter="1000-core", filter_for="training")
    with pytest.raises(DataError, match=r"the filter .* leaves no user to train on, because protocol\.filter_for"):
        held_out_facts(world, protocol)


@pytest.mark.parametrize(
    ("overrides", "setting"),
    [
        (FOR_TRAINING, "protocol.filter_for = 'training'"),
        (["protocol.split=temporal", "protocol.validation=users"], "protocol.validation = 'users'"),
        (['protocols.other={split="user-holdout"}'], "protocols.other.split = 'user-holdout'"),
    ],
)
def test_models_that_know_users_by_id_need_them_in_training(tiny_suite, tmp_path, overrides, setting):
    said = f"'caser' learns a vector for each user, and {setting} ranks users"
    with pytest.raises(SuiteError, match=re.escape(said)):
        cells_of(load_suite(tiny_suite, ["models.caser.embedding_size=8", *overrides]), tmp_path)


def test_test_users_that_training_lacks_are_counted_for_models_that_know_users(tmp_path, bench):
    first = {f"u{user}": 30 * user for user in range(30)}
    times = {user: [begin + 25 * n for n in range(6)] for user, begin in first.items()}
    rows = [f"{user},i{(time + n) % 7},p,{time}" for user, own in times.items() for n, time in enumerate(own)]
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/late.csv").write_text("\n".join(["user,item,provider,time", *rows]), encoding="utf-8")
    text = 'title = "Late"\nseeds = [1]\nmodels = ["pop", "caser"]\n[datasets.late]\npath = "late.csv"\n'
    text += '[protocol]\nsplit = "temporal"\n[training]\nepochs = 1\n'
    suite = tmp_path / "late.toml"
    suite.write_text(text, encoding="utf-8")
    ordered = sorted(time for own in times.values() for time in own)
    train_end, test_begin = ordered[int(0.8 * len(ordered))], ordered[int(0.9 * len(ordered))]
    tested = [user for user, own in times.items() if own[0] < test_begin <= own[-1]]
    unknown = [user for user in tested if times[user][0] >= train_end]
    assert 0 < len(unknown) < len(tested)
    said = f"{len(unknown)} of {len(tested)} test users have no training interaction, so"
    stats = json.loads(bench("data", "stats", "late", "--suite", suite, "--json").stdout)
    assert (stats["split"]["test_users"], stats["split"]["unknown_users"]) == (len(tested), len(unknown))
    events = [json.loads(line) for line in bench("run", suite, "--json").stdout.splitlines()]
    ((note,),) = [event["notes"] for event in events if event["event"] == "dataset-ready"]
    assert note == f"{said} caser ranks for them with an untrained vector"
    assert bench("report", "late", "--format", "md").returncode == 0
    page = (tmp_path / "reports/late/late.md").read_text(encoding="utf-8")
    assert f"late: {said} Caser ranks for them with an untrained vector." in page
    (tmp_path / "pop.toml").write_text(text.replace(', "caser"', ""), encoding="utf-8")
    assert "untrained" not in bench("run", "pop.toml", "--json").stdout


def test_the_report_and_the_statistics_of_the_data_say_so(tiny_suite, bench):
    def done(*arguments):
        ended = bench(*arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    overrides = [part for one in FOR_TRAINING for part in ("--set", one)]
    stats = json.loads(done("data", "stats", "world", "--suite", tiny_suite, *overrides[:4], "--json"))
    assert "trained on users with 3 or more interactions and items with 3 or more" in stats["split"]["name"]
    plain = json.loads(done("data", "stats", "world", "--suite", tiny_suite, "--json"))
    assert (stats["users"], stats["split"]["test_users"]) == (plain["users"], plain["split"]["test_users"])
    assert stats["split"]["unseen_targets"] > plain["split"]["unseen_targets"]
    done("run", tiny_suite, *overrides, "--set", "models.sasrec.training.epochs=1")
    text = done("report", "--output", "r") and "".join(
        path.read_text(encoding="utf-8") for path in (tiny_suite.parent / "r").rglob("*.md")
    )
    assert "Filter of training alone" in text
    assert "never" in text  # slices know that training lacks items


def test_models_that_count_are_refit_too(tiny_suite, tmp_path):
    plan = make_plan(
        load_suite(tiny_suite, ["training.refit=true", "seeds=[1]"]), tmp_path / "data", tmp_path / "s.db", lambda _: 0
    )
    plain = make_plan(load_suite(tiny_suite, ["seeds=[1]"]), tmp_path / "data", tmp_path / "s.db", lambda _: 0)
    assert not {key for key, _ in plan.cells} & {key for key, _ in plain.cells}
    (data,) = plan.datasets.values()
    (key, cell) = next(pair for pair in plan.cells if pair[1].label == "pop")
    assert cell.shown == "pop (refit on training + validation)"
    events = []
    record = run_cell(key, cell, Place("here", "cpu", 1, tmp_path), data, events.append)
    assert record.error is None, record.error
    assert [event.stage for event in events if isinstance(event, EpochDone)] == ["main"]
    split = split_dataset(data, cell.protocol)
    for part, of_part in (("valid", split), ("test", split.with_validation())):
        counts = np.bincount(data.items[of_part.trained(data)], minlength=data.num_items + 1)
        targets = getattr(split, part)
        assert record.ranks[part].higher.tolist() == [
            (counts[1:] > counts[item]).sum() for item in data.items[targets.positions]
        ]


@pytest.mark.parametrize(
    "protocol",
    [
        {},
        {"split": "temporal"},
        {"split": "temporal", "validation": "last-train", "target": "all"},
        {"split": "temporal", "validation": "users"},
        {"split": "user-holdout"},
        {"filter": "2-core", "filter_for": "training"},
    ],
)
def test_validation_interactions_of_every_split_come_back(world, tiny_suite, tmp_path, protocol):
    split = split_dataset(world, Protocol.model_validate(protocol))
    first, second = split.trained(world), split.with_validation().trained(world)
    assert second[first].all()
    assert second[split.valid.positions].all()
    assert not second[split.test.positions].any()
    overrides = [f"protocol.{name}={json.dumps(value)}" for name, value in protocol.items()]
    plan = make_plan(
        load_suite(tiny_suite, ["training.refit=true", "seeds=[1]", *overrides]),
        tmp_path / "data", tmp_path / "s.db", lambda _: 0,
    )  # fmt: skip
    (data,) = plan.datasets.values()
    key, cell = next(pair for pair in plan.cells if pair[1].label == "sasrec")
    trained = train_cell(key, cell, Place("here", "cpu", 1, tmp_path), data, lambda _: None)
    before, after = (
        {epoch.targets for epoch in trained.fitted.epochs if epoch.stage == stage} for stage in ("main", "refit")
    )
    assert max(before) < min(after)


def test_a_trial_of_a_search_is_not_refit(tiny_suite, tmp_path):
    cell = cells_of(load_suite(tiny_suite, ["training.refit=true"]), tmp_path)[2]
    assert [name for name, _ in cell.stages] == ["main", "refit"]
    assert [name for name, _ in cell.without_refit().stages] == ["main"]
    assert dataclasses.replace(cell).epochs == 2 * cell.without_refit().epochs
