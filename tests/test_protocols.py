"""Several protocols in one suite: their settings, and models that are ranked again without training."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.split import split_dataset
from ipsrec_bench.errors import StoreError, SuiteError
from ipsrec_bench.events import CellFailed, CellFinished, CellStarted, EpochDone
from ipsrec_bench.ranking.rank import rank_targets
from ipsrec_bench.report.build import build_report
from ipsrec_bench.report.content import Row
from ipsrec_bench.report.material import read_material
from ipsrec_bench.report.protocols import _order, _ranks_others
from ipsrec_bench.report.render import FORMATS, write_report
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.report.selections import compare_named, read_named
from ipsrec_bench.report.tables.order import protocols
from ipsrec_bench.run import cell as cell_module
from ipsrec_bench.run.engine import Policy
from ipsrec_bench.run.executors.api import Place, Slot
from ipsrec_bench.run.executors.pool import Pool
from ipsrec_bench.run.plan import cells_of, make_plan
from ipsrec_bench.run.probe import probe
from ipsrec_bench.stats.sampled import sampled_metric
from ipsrec_bench.store.connect import reading
from ipsrec_bench.store.health import keys_of
from ipsrec_bench.suite.load import load_suite
from ipsrec_bench.suite.shards import Shard
from ipsrec_bench.training.weights import load_model
from ipsrec_bench.tuning.rows import place_of_row

from .test_engine import of, run
from .test_run import STORE, table

TINY_SUITE = """title = "Tiny"
[datasets.world]
source = "synthetic"
users = 120
items = 40
providers = 6
mean_length = 7
[models.pop]
[models.recent-pop]
[models.sasrec]
embedding_size = 8
inner_size = 16
variants.narrow = { inner_size = 8 }
[training]
epochs = 2
batch_size = 128
[protocol]
max_length = 8
"""
MASKED = "[protocols.masked]\nmask_history = true\n"
TEMPORAL = '[protocols.later]\nsplit = "temporal"\nvalid_share = 0.2\ntest_share = 0.2\n'
LATER_MASKED = TEMPORAL.replace("later", "later-masked") + "mask_history = true\n"
SEED = ["seeds=[1]"]
POOL = partial(Pool, [Slot("worker 1", "cpu", 1), Slot("worker 2", "cpu", 1)])
RANKS = (
    'SELECT dataset, model, variant, split, "user", higher, ties, best_epoch, best_valid FROM run_cells'
    " JOIN cells USING (key) JOIN ranks USING (cell) WHERE run = (SELECT max(run) FROM runs) ORDER BY ALL"
)
NEURAL = ("sasrec", "sasrec narrow")


def written(folder: Path, text: str) -> Path:
    path = folder / "s.toml"
    path.write_text(text, encoding="utf-8")
    return path


def trained_on(events):
    """Return the conditions in which models were trained by gradients."""
    return {event.dataset for event in of(EpochDone, events) if event.label in NEURAL}


@pytest.fixture
def suite(tmp_path):
    return written(tmp_path, TINY_SUITE + MASKED)


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """Folder and events of a finished run with three further protocols."""
    folder = tmp_path_factory.mktemp("protocols")
    _, events = run(written(folder, TINY_SUITE + MASKED + TEMPORAL + LATER_MASKED), folder, SEED)
    return folder, events


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ("[protocols.a]\nmask_hist = true\n", r"s.toml:20: protocols.a.mask_hist: unknown key"),
        ("[protocols.a]\n\nmask_history = 3\n", r"s.toml:21: protocols.a.mask_history: "),
        ("[protocols.a]\nmask_history = true\ncutoffs = [5]\n", r"s.toml:21: protocols.a.cutoffs: .*protocol.cutoffs"),
        ("[protocols.a]\nmask_history = true\nmetrics = ['hr']\n", r"s.toml:21: protocols.a.metrics: .*same metrics"),
        ("[protocols.a]\nmask_history = true\nties = 'expected'\n", r"s.toml:21: protocols.a.ties: .*protocol.ties"),
        ("[protocols.a]\nmask_history = false\n", r"s.toml:19: protocols.a: .*the same as \[protocol\]"),
        ("[protocols.a]\nvalid_share = 0.2\n", r"s.toml:19: protocols.a: .*the same as \[protocol\]"),
        (MASKED + MASKED.replace("masked", "b"), r"s.toml:21: protocols.b: .*the same as \[protocols.masked\]"),
        (MASKED.replace("masked", "world"), r"s.toml:19: protocols.world: .*'world' is that of a dataset"),
        (MASKED.replace("masked", "main"), r"s.toml:19: protocols.main: .*the suite's main protocol"),
        ('[protocols.a]\nsplit = "user-holdout"\n[models.caser]\n', r"protocols.a.split = 'user-holdout'"),
    ],
)
def test_mistakes_in_a_further_protocol_are_located(tmp_path, further, message):
    with pytest.raises(SuiteError, match=message):
        cells_of(load_suite(written(tmp_path, TINY_SUITE + further), SEED))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ['protocols.a={filter="5-core", max_length=3}', 'datasets.world.filter="2-core"'],
            r"protocols\.a\.filter: datasets\.world has a filter of its own, .* the same as \[protocol\]",
        ),
        (
            ["protocols.a.tie_order=1", "datasets.world.tie_order=2", "datasets.world.max_length=8"],
            r"protocols\.a\.tie_order: datasets\.world has a tie_order of its own, .* the same as \[protocol\]",
        ),
        (
            ["protocol.split=temporal", "protocol.validation=last-train", "protocols.a.valid_share=0.3"],
            r"protocols\.a: on 'world', this protocol is the same as \[protocol\]",
        ),
        (
            ["protocol.split=temporal", "protocol.folds=2", "protocols.a.folds=3"],
            r"protocols\.a\.folds: found 3, but the newest test period is that of \[protocol\]; set folds there",
        ),
        (
            ["protocol.split=temporal", "protocol.folds=2", "protocols.'fold 1 of 2'.mask_history=true"],
            r"protocols\.\"fold 1 of 2\": two datasets would be called 'world, fold 1 of 2'",
        ),
        (
            ["protocols.a.split=temporal", "datasets.world.providers_as=popularity"],
            r"datasets\.world\.providers_as: 'popularity' counts .* \('world, a'\); take another choice of providers",
        ),
    ],
)
def test_protocols_that_change_nothing_on_a_dataset_are_located(tiny_suite, overrides, message):
    with pytest.raises(SuiteError, match=message):
        cells_of(load_suite(tiny_suite, overrides))


def test_idle_settings_make_no_other_training(tiny_suite):
    later = '{split="temporal", validation="last-train", valid_share=%s, mask_history=%s}'
    suite = [f"protocols.{name}={later % one}" for name, one in (("a", (0.2, "false")), ("b", (0.3, "true")))]
    cells = [cell for cell in cells_of(load_suite(tiny_suite, [*SEED, *suite])) if cell.label == "sasrec"]
    assert {cell.dataset: cell.parent and cell.parent.dataset for cell in cells} == {
        "world": None,
        "world, a": None,
        "world, b": "world, a",
    }
    assert len({place_of_row(cell) for cell in cells}) == 2


def test_only_models_whose_training_is_the_same_are_not_trained_again(tmp_path):
    longer = "[protocols.longer]\nmax_length = 9\nmask_history = true\n"
    text = TINY_SUITE + MASKED + TEMPORAL + LATER_MASKED + longer
    cells = cells_of(load_suite(written(tmp_path, text), SEED))
    parents = {(cell.dataset, cell.label): cell.parent for cell in cells}
    assert {place: parent.dataset for place, parent in parents.items() if parent} == {
        **{("world, masked", label): "world" for label in NEURAL},
        **{("world, later-masked", label): "world, later" for label in NEURAL},
    }
    assert all(parent.label == label for (_, label), parent in parents.items() if parent)
    keys = {(cell.dataset, cell.label): cell.key("f") for cell in cells}
    assert len({keys[name, "sasrec"] for name in ("world", "world, masked", "world, longer", "world, later")}) == 4


def test_a_cell_with_a_parent_has_another_key_than_one_that_is_trained_under_its_protocol(tmp_path):
    """Its best epoch was chosen under the other protocol. A model that counts chooses none."""
    further = {
        c.label: c for c in cells_of(load_suite(written(tmp_path, TINY_SUITE + MASKED), SEED)) if c.condition.protocol
    }
    masked = {
        c.label: c for c in cells_of(load_suite(written(tmp_path, TINY_SUITE), [*SEED, "protocol.mask_history=true"]))
    }
    assert {label for label in masked if masked[label].key("f") == further[label].key("f")} == {"pop", "recent-pop"}


def test_a_model_is_trained_once_and_ranked_under_each_protocol(ranked):
    folder, events = ranked
    assert trained_on(events) == {"world", "world, later"}
    assert len(of(CellFinished, events)) == 4 * 4
    best = table(
        folder / STORE,
        "SELECT count(DISTINCT (best_epoch, best_valid)) FROM run_cells JOIN cells USING (key)"
        " WHERE dataset IN ('world', 'world, masked') AND model = 'sasrec' GROUP BY variant",
    )
    assert set(best) == {(1,)}
    assert table(folder / STORE, "SELECT count(*) FROM targets GROUP BY split")  # once for each split
    assert len(list((folder / "reports/checkpoints").iterdir())) == 2 * 4 + 2 * 2  # of counting models, all four
    assert not list((folder / f"{STORE}.d/cells").iterdir())


def test_ranks_are_those_of_the_loaded_weights_and_of_a_suite_with_that_main_protocol(ranked, tmp_path):
    folder, _ = ranked
    plan = make_plan(load_suite(folder / "s.toml", SEED), folder / "data", folder / STORE, lambda _: None)
    for key, cell in plan.cells:
        if cell.parent is None:
            continue
        data = plan.datasets[cell.dataset]
        parent = next(k for k, c in plan.cells if c == cell.parent)
        model = load_model(folder / f"reports/checkpoints/{parent}.safetensors")
        sequences, split = ResidentSequences(data, torch.device("cpu")), split_dataset(data, cell.protocol)
        for part in ("valid", "test"):
            ranks = rank_targets(
                model, data, sequences, getattr(split, part), cell.protocol.max_length, mask_history=True
            )
            found = table(
                folder / STORE,
                'SELECT "user", higher, ties FROM ranks JOIN cells USING (cell)'
                f" WHERE key = '{key}' AND split = '{part}' ORDER BY 1",
            )
            assert found == [*zip(ranks.users.tolist(), ranks.higher.tolist(), ranks.ties.tolist(), strict=True)]
    run(written(tmp_path, TINY_SUITE), tmp_path, [*SEED, "protocol.mask_history=true"])
    counted = RANKS.replace("dataset, ", "").replace(
        "ORDER", "AND run_cells.type IN ('pop', 'recent-pop') AND {} ORDER"
    )
    assert table(tmp_path / STORE, counted.format("true")) == table(
        folder / STORE, counted.format("dataset = 'world, masked'")
    )


@pytest.mark.parametrize("how", ["keep none", "other weights", "killed weights"])
def test_without_the_parents_weights_a_model_is_trained_again_with_the_same_ranks(how, suite, tmp_path, ranked):
    if how == "keep none":
        _, events = run(suite, tmp_path, SEED, policy=Policy(keep="none"))
        assert trained_on(events) == {"world", "world, masked"}
    else:
        run(written(tmp_path, TINY_SUITE), tmp_path, SEED)
        for path in (tmp_path / "reports/checkpoints").iterdir():
            if how == "other weights":
                path.write_bytes(path.read_bytes().replace(b'"valid":"0.', b'"valid":"1.'))
            else:
                path.write_bytes(b"")
        _, events = run(written(tmp_path, TINY_SUITE + MASKED), tmp_path, SEED)
        assert trained_on(events) == {"world, masked"}
    assert {event.key for event in of(EpochDone, events)} <= {event.key for event in of(CellStarted, events)}
    of_two = RANKS.replace("ORDER", "AND dataset IN ('world', 'world, masked') ORDER")
    assert table(tmp_path / STORE, of_two) == table(ranked[0] / STORE, of_two)


def test_processes_make_the_same_ranks_and_a_cell_waits_for_its_parent(suite, tmp_path, ranked):
    _, events = run(suite, tmp_path, SEED, executor=POOL)
    ended = {event.key: place for place, event in enumerate(events) if isinstance(event, CellFinished)}
    began = {event.key: place for place, event in enumerate(events) if isinstance(event, CellStarted)}
    plan = make_plan(load_suite(suite, SEED), tmp_path / "data", tmp_path / STORE, lambda _: None)
    pairs = [(key, next(k for k, c in plan.cells if c == cell.parent)) for key, cell in plan.cells if cell.parent]
    assert len(pairs) == 2
    assert all(began[key] > ended[parent] for key, parent in pairs)
    of_two = RANKS.replace("ORDER", "AND dataset IN ('world', 'world, masked') ORDER")
    assert table(tmp_path / STORE, of_two) == table(ranked[0] / STORE, of_two)


def test_a_cell_fails_with_its_parent_and_is_tried_again_with_it(suite, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.delattr(cell_module, "build_model")
        ended, events = run(suite, tmp_path, SEED)
    assert (ended.complete, ended.failed) == (0, 8)
    errors = {(event.dataset, event.label): event.error for event in of(CellFailed, events)}
    said = "it ranks the model of another cell, world, sasrec, seed 1, which failed: NameError: "
    assert errors["world, masked", "sasrec"].startswith(said)
    ended, _ = run(suite, tmp_path, SEED)
    assert (ended.complete, ended.failed) == (8, 0)


def test_a_forced_run_ranks_the_new_model(suite, tmp_path):
    run(suite, tmp_path, SEED)
    before = table(tmp_path / STORE, RANKS)
    ended, events = run(suite, tmp_path, SEED, policy=Policy(force=True))
    assert ended.complete == 8
    assert trained_on(events) == {"world"}
    assert table(tmp_path / STORE, RANKS) == before


def test_a_cell_is_in_the_share_of_its_parent(suite, tmp_path):
    plan = make_plan(load_suite(suite), tmp_path / "data", tmp_path / STORE, lambda _: None)
    for number in range(1, 6):
        share = plan.limited_to(Shard(number, 5)).share
        for key, cell in plan.cells:
            if cell.parent:
                assert (key in share) == (next(k for k, c in plan.cells if c == cell.parent) in share)


def test_the_estimate_of_a_cell_with_a_parent_is_that_of_ranking(suite, tmp_path):
    plan = make_plan(load_suite(suite, ["training.epochs=1000"]), tmp_path / "data", tmp_path / STORE, lambda _: None)
    cell = next(cell for _, cell in plan.cells if cell.parent)
    place = Place("here", "cpu", 1, tmp_path)
    small, large = (probe(one, place, plan.datasets[one.dataset], lambda _: None) for one in (cell, cell.parent))
    assert small.epoch_seconds is None
    assert small.seconds < large.seconds / 10


def test_a_stopped_training_in_place_of_the_parents_goes_on(suite, tmp_path, ranked, monkeypatch):
    """The weights were not kept: the cell resumes from its own state, under its own key."""
    monkeypatch.setattr("ipsrec_bench.training.state.SECONDS", 0)
    monkeypatch.setattr("ipsrec_bench.training.state.SHARE", 0)
    run(written(tmp_path, TINY_SUITE), tmp_path, SEED, policy=Policy(keep="none"))

    def stop(event):
        if isinstance(event, EpochDone) and event.label in NEURAL:
            raise KeyboardInterrupt

    written(tmp_path, TINY_SUITE + MASKED)
    ended, _ = run(suite, tmp_path, SEED, listen=stop)
    assert ended.interrupted
    _, events = run(suite, tmp_path, SEED)
    assert max(event.resumed for event in of(CellStarted, events)) == 1
    of_two = RANKS.replace("ORDER", "AND dataset IN ('world', 'world, masked') ORDER")
    assert table(tmp_path / STORE, of_two) == table(ranked[0] / STORE, of_two)


@pytest.fixture(scope="module")
def report(ranked):
    with reading(ranked[0] / STORE) as connection:
        return build_report(read_material(connection, read_run(connection)))


def test_a_report_sets_the_protocols_side_by_side(ranked, report):
    table_ = report.protocols
    assert table_.protocols == ("main", "masked", "later", "later-masked")
    assert table_.differences[:2] == ("", "mask_history = true")
    rows = table(
        ranked[0] / STORE,
        "SELECT trim(model || ' ' || variant), protocol, avg(ndcg(realistic_rank(higher, ties), 10)) FROM run_cells"
        " JOIN cells USING (key) JOIN ranks USING (cell) WHERE split = 'test' GROUP BY ALL",
    )
    means = {(label, protocol or "main"): mean for label, protocol, mean in rows}
    shown = {
        (line.row.label, name): cell
        for line in table_.lines
        for name, cell in zip(table_.protocols, line.cells, strict=True)
    }
    assert {place: cell.score.mean for place, cell in shown.items()} == pytest.approx(means)
    for name in table_.protocols:
        of_protocol = sorted((mean for (_, protocol), mean in means.items() if protocol == name), reverse=True)
        assert all(
            cell.rank == 1 + of_protocol.index(means[label, protocol])
            for (label, protocol), cell in shown.items()
            if protocol == name
        )
    labels = [line.row.label for line in table_.lines]
    for order in table_.orders:
        both = [[means[label, protocol] for label in labels] for protocol in ("main", order.protocol)]
        assert order.tau == pytest.approx(kendalltau(*both).statistic)
    assert len(table_.sentences) == 3


def test_values_of_protocols_with_the_same_targets_and_candidates_are_not_said_to_be_of_others(report):
    """A shorter history and, with cuts in time, another validation leave the test as it is."""
    assert report.protocols.other == ("masked", "later", "later-masked")
    note = " Values of two protocols are of other targets or candidates: compare their orders, not their sizes."
    assert next(protocols(report)).note.endswith(note)
    for other, which in ((("later",), "the main protocol and later"), ((), "")):
        of_some = next(protocols(replace(report, protocols=replace(report.protocols, other=other)))).note
        assert of_some.endswith(f" Values of {which}{note.partition('two protocols')[2]}" if which else "do not exist.")


@pytest.mark.parametrize(
    ("main", "further", "others"),
    [
        ("", {"max_length": 4}, False),
        ("", {"mask_history": True}, True),
        ("", {"split": "temporal"}, True),
        ('split = "temporal"', {"valid_share": 0.2, "max_length": 3}, False),
        ('split = "temporal"', {"validation": "last-train"}, False),
        ('split = "temporal"', {"target": "all"}, True),
        ('split = "temporal"', {"candidates": "available", "max_length": 3}, True),
        ('split = "user-holdout"', {"valid_share": 0.2}, True),
    ],
)
def test_which_protocols_have_other_targets_or_candidates(tmp_path, main, further, others):
    lines = [f"{name} = {json.dumps(value)}" for name, value in further.items()]
    text = TINY_SUITE + f"{main}\n[protocols.b]\n" + "\n".join(lines)
    loaded = load_suite(written(tmp_path, text))
    results = SimpleNamespace(run=SimpleNamespace(suite=loaded.suite))
    assert _ranks_others(results, "b") == others
    assert _ranks_others(results, "b, fold 1 of 2")


def test_the_best_of_two_protocols_are_those_of_the_models_that_have_both():
    first, second, third = (Row(name, name, name, "") for name in "ABC")
    means = {"main": {first: 0.5, second: 0.4, third: 0.3}, "later": {second: 0.2, third: 0.1}}
    assert _order("d", "later", means).sentence == (
        "On d, Kendall's tau-b between the order of 2 models under the main protocol and under later is 1.00; of these"
        " 2, the best is B under both."
    )


def test_a_cell_of_other_users_under_a_further_protocol_is_named(ranked, report):
    with reading(ranked[0] / STORE) as connection:
        material = read_material(connection, read_run(connection))
    cell = next(cell for cell in material.run.further if cell.protocol == "later" and cell.model == "sasrec")
    ranks = material.ranks[cell.key]
    fewer = replace(ranks, users=ranks.users[:-1], ranks=ranks.ranks[:-1])
    found = build_report(replace(material, ranks={**material.ranks, cell.key: fewer}))
    (warning,) = (warning for warning in found.warnings if warning not in report.warnings)
    assert warning == (
        f"{cell.display} on world, later, seed 1, ranks different users than the cells beside it and is left out; run"
        " the suite again with --force"
    )
    (line,) = (line for line in found.protocols.lines if line.row.label == cell.label)
    assert [one.score is None for one in line.cells] == [name == "later" for name in found.protocols.protocols]


def test_a_report_says_how_stable_the_order_is(ranked, report):
    order = report.order
    assert [line.rank for line in order.lines] == sorted(line.rank for line in order.lines)
    assert all(line.low <= line.rank <= line.high for line in order.lines)
    assert [line.above is None for line in order.lines] == [False] * 3 + [True]
    between = [one.between for one in order.agreements]
    assert between == ["validation and test", *(f"main protocol and {name}" for name in report.protocols.protocols[1:])]
    rows = table(
        ranked[0] / STORE,
        "SELECT avg(ndcg(realistic_rank(higher, ties), 10)) FILTER (split = 'valid'),"
        " avg(ndcg(realistic_rank(higher, ties), 10)) FILTER (split = 'test') FROM run_cells"
        " JOIN cells USING (key) JOIN ranks USING (cell) WHERE dataset = 'world' GROUP BY key",
    )
    assert order.agreements[0].tau == pytest.approx(kendalltau(*zip(*rows, strict=True)).statistic)


def test_seeds_and_datasets_are_compared_where_there_are_several(tmp_path):
    text = TINY_SUITE + '[datasets.other]\nsource = "synthetic"\nusers = 90\nitems = 30\nseed = 4\n'
    run(written(tmp_path, text), tmp_path, ["seeds=[1,2,3]", "training.epochs=1"])
    with reading(tmp_path / STORE) as connection:
        report = build_report(read_material(connection, read_run(connection)))
    assert report.protocols is None
    found = {(one.dataset, one.between): one for one in report.order.agreements}
    assert found["world", "seeds"].pairs == 3
    assert found["world", "seeds"].lowest <= found["world", "seeds"].tau
    assert ("", "world and other") in found


@pytest.mark.parametrize("mask", ["false", "true", '"miss"'])
def test_a_report_says_what_sampled_negatives_would_have_said(tmp_path, mask):
    """Under a mask, negatives are drawn from the items that are left."""
    suite = written(tmp_path, TINY_SUITE.replace("items = 40", "items = 150") + f"mask_history = {mask}\n")
    run(suite, tmp_path, [*SEED, "training.epochs=1"])
    with reading(tmp_path / STORE) as connection:
        report = build_report(read_material(connection, read_run(connection)))
    plan = make_plan(load_suite(suite, SEED), tmp_path / "data", tmp_path / STORE, lambda _: None)
    data, (_, cell) = plan.datasets["world"], plan.cells[0]
    targets = split_dataset(data, cell.protocol).test
    others = [
        len({*data.items[data.offsets[user] : place].tolist()} - {int(data.items[place])}) if mask != "false" else 0
        for user, place in zip(targets.users.tolist(), targets.positions.tolist(), strict=True)
    ]
    ranks = table(
        tmp_path / STORE,
        "SELECT realistic_rank(higher, ties) FROM run_cells JOIN cells USING (key) JOIN ranks USING (cell)"
        " WHERE split = 'test' AND model = 'sasrec' AND variant = '' ORDER BY \"user\"",
    )
    population = np.array([data.num_items - 1]) - np.array(others)
    expected = sampled_metric("ndcg@10", np.array(ranks)[:, 0], population, 100).mean()
    (line,) = (line for line in report.sampled.lines if line.row.label == "sasrec")
    assert line.sampled == pytest.approx(expected)
    assert line.sampled > line.full


def test_rows_are_compared_under_a_further_protocol(ranked, report):
    with reading(ranked[0] / STORE) as connection:
        run = read_run(connection)
        named = read_named(connection, run, "sasrec, masked", "pop, masked")
        with pytest.raises(StoreError, match=r"not the same: they differ in mask_history \(false and true\)"):
            read_named(connection, run, "sasrec", "sasrec, masked")
    found = {
        (line.row.label, name): cell
        for line in report.protocols.lines
        for name, cell in zip(report.protocols.protocols, line.cells, strict=True)
    }
    (c,) = (c for c in compare_named(named) if c.metric == report.metric)
    assert (c.row.display, c.reference.display) == ("SASRec, masked", "Pop, masked")
    assert c.mean == pytest.approx(found["sasrec", "masked"].score.mean)
    assert c.reference_mean == pytest.approx(found["pop", "masked"].score.mean)
    assert c.family == 1


def test_all_formats_show_them(ranked, report, tmp_path):
    del ranked
    written_ = write_report(report, tmp_path, FORMATS)
    for name in ("html", "md"):
        page = written_.pages[name].read_text(encoding="utf-8")
        for heading in ("Protocols side by side", "How stable is the order"):
            assert heading in page
        assert "not ranked among 100 sampled negatives on world: a target has only 39 other candidates." in page
    assert {path.name for path in written_.tables} >= {"table-protocols.tex", "table-order.tex"}
    content = json.loads(written_.pages["json"].read_text(encoding="utf-8"))
    assert content["protocols"]["orders"][0]["protocol"] == "masked"
    assert content["order"]["lines"]


def test_a_cell_that_ranks_another_cells_model_needs_no_weights_of_its_own(ranked):
    keys = keys_of(ranked[0] / STORE)
    derived = table(
        ranked[0] / STORE, "SELECT DISTINCT key FROM run_cells WHERE model = 'sasrec' AND protocol LIKE '%masked'"
    )
    assert keys.without_weights == {key for (key,) in derived}
    assert keys.without_weights < keys.complete
    kept = {path.stem for path in (ranked[0] / "reports/checkpoints").iterdir()}
    assert kept == keys.complete - keys.without_weights
