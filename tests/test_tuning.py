"""Tuning: spaces, budgets, pruning, studies that outlive their processes, and the tuned suite."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.errors import ModelError, StoreError, StudyError, SuiteError
from ipsrec_bench.events import CellStarted, Emit, EpochDone, ExecutorNotice, TrialEnded
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.models.registry import REGISTRY
from ipsrec_bench.run.cell import train_cell
from ipsrec_bench.run.executors.api import Died, Done, Executor, Outcome, Refused, Slot, Task
from ipsrec_bench.run.executors.choice import Workers, executor_maker
from ipsrec_bench.run.plan import cells_of
from ipsrec_bench.run.workplace import Workplace
from ipsrec_bench.suite.load import load_suite, parse_suite
from ipsrec_bench.suite.schema import Range
from ipsrec_bench.tuning.results import as_table
from ipsrec_bench.tuning.search import Budget, run_search
from ipsrec_bench.tuning.space import check_spaces, search_space, with_settings
from ipsrec_bench.tuning.study import (
    RETRIES,
    SURPLUS,
    _started,
    ask,
    expected_seconds,
    open_storage,
    requeue,
    requeue_lost,
    spent_seconds,
    studies_in,
    study_name,
    study_result,
)
from ipsrec_bench.tuning.subject import Subject, searches
from ipsrec_bench.tuning.trial import TrainedTrial
from ipsrec_bench.tuning.tuned_suite import tuned_suite

from .conftest import TINY_SUITE, clean_environment, command
from .test_report_tuning import study

SUITE = TINY_SUITE.replace("epochs = 2", "epochs = 4") + "[tune]\nstart_up = 2\nwarm_up = 1\n"

LOSS = "tune.space.ipsrec-s={ lambda = {low=1e-3,high=1.0,log=true}, tau = {low=0.05,high=5.0,log=true} }"
"""A space of two settings."""
KILLS = int(os.environ.get("IPSREC_BENCH_KILLS", "1"))
"""How often a search is killed; twenty take five minutes."""


def space_of(tune: str, model: str = "ipsrec-s"):
    file = parse_suite(Path("tiny.toml"), f"{SUITE}{tune}")
    cells = cells_of(file)
    check_spaces(file, cells)
    return search_space(file, next(cell for cell in cells if cell.model == model and not cell.variant))


def test_a_models_own_ranges_are_searched_unless_the_suite_names_others():
    own = space_of("")
    assert {name: r.model_dump() if isinstance(r, Range) else list(r) for name, r in own.where.items()} == {
        "hidden_dropout": {"low": 0.0, "high": 0.6, "log": False},
        "lambda": {"low": 1e-3, "high": 1.0, "log": True},
        "tau": {"low": 0.05, "high": 5.0, "log": True},
        "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "training.batch_size": [128, 256, 512, 1024],
        "training.weight_decay": [0.0, 1e-3, 1e-2, 1e-1],
    }
    named = space_of("[tune.space.ipsrec-s]\nn_layers = { low = 1, high = 3 }\nsimilarity = ['dot', 'cosine']\n")
    assert named.whole == {"n_layers"}
    assert named.grid(5) == {"n_layers": [1, 2, 3], "similarity": ["dot", "cosine"]}
    assert named.contains({"n_layers": 2, "similarity": "dot"})
    assert not named.contains({"n_layers": 4, "similarity": "dot"})


def test_a_setting_that_keys_leave_out_at_its_default_can_be_searched():
    space = space_of("[models.dif-sr]\n[tune.space.dif-sr]\nfusion = ['sum', 'gate']\n", "dif-sr")
    assert space.grid(3) == {"fusion": ["sum", "gate"]}
    assert space.contains({"fusion": "sum"})


def test_a_grid_holds_both_ends_evenly_in_the_logarithm():
    assert space_of("").grid(3)["lambda"] == pytest.approx([1e-3, 10**-1.5, 1.0])
    linear = space_of("[tune.space.sasrec]\nhidden_dropout = { low = 0.1, high = 0.5 }\n", "sasrec")
    assert linear.grid(3)["hidden_dropout"] == pytest.approx([0.1, 0.3, 0.5])


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        (
            "[tune.space.ipsrec-s]\nlamda = [1]\n",
            rf"tiny.toml:{SUITE.count(chr(10)) + 2}: tune.space.ipsrec-s.lamda: .*did you mean 'lambda'",
        ),
        ("[tune.space.ipsrec-s]\nlambda = [-1.0]\n", "tune.space.ipsrec-s.lambda: .*greater than or equal to 0"),
        ("[tune.space.ipsrec-x]\nlambda = [1]\n", "has no model 'ipsrec-x'; did you mean 'ipsrec-s'"),
        ("space.ipsrec-s.tau = { low = 2, high = 1 }\n", "low = 2 must be less than high = 1"),
        ("space.ipsrec-s.tau = { low = 0, high = 1, log = true }\n", "low = 0 has no logarithm"),
        ("fresh_seeds = [1]\n", "fresh_seeds has 1, which trials also use"),
        ("pruner = 'wilcoxon'\n", "needs at least 3 of them"),
        ("[tune.space.pop]\nshare = [1]\n", "tune.space.pop.share: the model has no setting 'share'"),
        ("space.sasrec = {}\n", "tune.space.sasrec: .*nothing to tune"),
        (
            "[tune.space.sasrec]\ntraining.learning_rat = [1]\n",
            rf"tiny.toml:{SUITE.count(chr(10)) + 2}: tune.space.sasrec..*learning_rat: .* did you mean 'learning_rate'",
        ),
        ("space.sasrec.training.batch_size = [0]\n", "training.batch_size: .*greater than or equal to 1"),
        ("space.sasrec.training.stop_metric = ['hr@5']\n", "training.stop_metric: .*the same for all trials"),
        ("space.pop.training.learning_rate = [1]\n", "the model has no table 'training'"),
        ("space.sasrec.tasks.next-item.weight = [1]\n", "the model has no table 'tasks.next-item'"),
        ("space.ipsrec-s.tau = { low = 1, high = inf }\n", "tau.high: found inf; input should be a finite number"),
        ("space.ipsrec-s.tau = { low = nan, high = 1 }\n", "tau.low: found nan; input should be a finite number"),
        ("space.ipsrec-s.tau = { low = 1, high = 1 }\n", "low = 1 must be less than high = 1"),
        ("space.ipsrec-s.tau = { low = 1.0, high = 1.0000000000000002 }\n", "too close to each other"),
        ("space.ipsrec-s.tau = { low = 1, high = 2, step = 3 }\n", "unknown key 'step'; known: 'low', 'high', 'log'"),
        ("space.ipsrec-s.tau = { low = true, high = 2 }\n", "tau.low: found true; input should be a number"),
        ("space.ipsrec-s.tau = { low = 1 }\n", "tau.high: this key is required"),
        ("space.ipsrec-s.tau = [0.1, 0.1]\n", "each value may occur only once"),
        ("space.ipsrec-s.tau = [1, 1.0]\n", "each value may occur only once"),
        ("space.ipsrec-s.tau = [inf]\n", "tau.0: found inf; input should be a finite number"),
        ("space.ipsrec-s.tau = []\n", "at least 1 must be given"),
        ("space.ipsrec-s.tau = 1\n", "input should be a table with low and high, or a list of values"),
        ("space.ipsrec-s.tau = ['much']\n", "found 'much'; input should be a number"),
        ("space.ipsrec-s.n_layers = { low = 1.5, high = 3 }\n", "n_layers.low: found 1.5; .*a whole number"),
        ("space.ipsrec-s.n_layers = { low = 1, high = 3.9 }\n", "n_layers.high: found 3.9; .*a whole number"),
        ("space.ipsrec-s.n_layers = [1, 2.5]\n", "found 2.5; input should be a whole number"),
        ("space.ipsrec-s.n_layers = [true]\n", "found true; input should be a number"),
        ("space.ipsrec-s.n_layers = { low = 1, high = 1e300 }\n", "n_layers: .*up to"),
        ("space.ipsrec-s.padding_class = { low = 0, high = 1 }\n", "a range is for numbers, .* is false; give a list"),
        ("space.ipsrec-s.similarity = { low = 0, high = 1 }\n", "a range is for numbers, .* is 'dot'; give a list"),
        ("space.ipsrec-s.n_heads = [3]\n", "n_heads = 3 must divide embedding_size = 8"),
        (
            "sampler = 'cma-es'\nspace.ipsrec-s.tau = {low=0.1,high=1}\n",
            "tune.sampler: 'cma-es' needs at least 2 ranges",
        ),
        (
            "sampler = 'grid'\ngrid_points = 400\n[tune.space.sasrec]\nhidden_dropout = { low = 0, high = 0.5 }\n"  # noqa: ISC004
            "training.learning_rate = { low = 1e-4, high = 1e-2 }\n",
            "160,000 points, more than a search can try",
        ),
    ],
)
def test_mistakes_of_a_space_are_reported_with_their_place(tune, message):
    with pytest.raises(SuiteError, match=message):
        space_of(tune)


def test_validate_checks_the_space_of_every_model(suite, bench):
    suite.write_text(f"{SUITE}space.sasrec.n_layers = [1, 0]\n", encoding="utf-8")
    done = bench("validate", suite)
    assert (done.returncode, "tune.space.sasrec.n_layers: found 0" in done.stderr) == (2, True)
    again = bench("tune", suite, "--model", "ipsrec-s")
    assert (again.returncode, again.stderr) == (2, done.stderr)


def test_a_model_without_settings_has_nothing_to_tune():
    with pytest.raises(ModelError, match=r"name one in \[tune.space.pop\]"):
        space_of("", "pop")


def test_every_trained_model_is_searched_in_a_space_of_the_same_size():
    names = [name for name, entry in REGISTRY.items() if not entry.counts]
    text = "title = 'All'\ndatasets = ['positive-control']\nmodels = " + json.dumps(names)
    file = parse_suite(Path("all.toml"), text)
    spaces = {cell.model: search_space(file, cell) for cell in cells_of(file) if cell.seed == 1}
    assert len(spaces) == 26
    for name, space in spaces.items():
        shared = {part for part in space.where if part.startswith("training.")}
        assert shared == {f"training.{part}" for part in NeuralConfig.training_search}, name
        assert len(space.where) == 6, name
        assert {len(where) for where in space.where.values() if not isinstance(where, Range)} == {4}, name
        dropouts = [part for part in REGISTRY[name].config.model_fields if "dropout" in part]
        assert not dropouts or any("dropout" in part for part in space.where), name


def test_the_default_space_leaves_out_what_a_model_refuses_as_it_is_set():
    lazy = space_of("[models.sr-gnn]\ntraining.optimiser = 'lazy-adam'\n", "sr-gnn").where
    assert {*lazy} == {"embedding_size", "step", "training.learning_rate", "training.batch_size"}
    assert space_of("[models.esasrec]\nembedding_size = 6\nn_heads = 2\n", "esasrec").where["n_heads"] == (1, 2)


def test_settings_of_training_and_of_further_tasks_are_searched():
    space = space_of(
        "[models.sasrec.tasks.provider-prediction]\nweight = 2\n"
        "[tune.space.sasrec]\ntraining.epochs = { low = 1, high = 3 }\ntraining.samples = ['packed', 'prefix']\n"
        "tasks.provider-prediction.weight = { low = 0.1, high = 10, log = true }\n",
        "sasrec",
    )
    assert space.whole == {"training.epochs"}
    assert space.own == {"training.epochs": 4, "training.samples": "auto", "tasks.provider-prediction.weight": 2.0}
    task = "[models.sasrec.tasks.provider-prediction]\nweight = 2\n"
    cell = next(one for one in cells_of(parse_suite(Path("tiny.toml"), SUITE + task)) if one.model == "sasrec")
    chosen = {"training.epochs": 2, "training.samples": "prefix", "tasks.provider-prediction.weight": 0.5}
    changed = with_settings(cell, chosen)
    assert (changed.training.epochs, changed.training.samples, changed.asked) == (2, "prefix", "prefix")
    assert changed.config.tasks == {"provider-prediction": {"weight": 0.5, "unknown_class": False}}
    assert with_settings(changed, space.own).key("x") == cell.key("x")


@pytest.fixture
def suite(tmp_path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(SUITE, encoding="utf-8")
    return path


def tuned(bench, *arguments: object, errors: str = "") -> list[dict]:
    done = bench("tune", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(errors, done.stderr, flags=re.DOTALL)
    return json.loads(done.stdout)


def test_every_model_gets_the_same_budget_and_no_test_target_is_ranked(suite, bench, tmp_path):
    text = SUITE.replace("[models.sasrec]", "[models.ipsrec-c]")
    suite.write_text(text, encoding="utf-8")
    results = tuned(bench, suite, "--trials", "4")
    assert [(r["model"], len(r["trials"])) for r in results] == [("ipsrec-s", 4), ("ipsrec-c", 4)]
    assert all(r["trials"][0]["settings"] == r["default"] for r in results)
    assert not (tmp_path / "reports/ipsrec-bench.duckdb").exists()
    for r in results:
        assert all(t["epochs"] <= 4 for t in r["trials"])
        assert all(t["pruned"] or len(t["by_seed"]) == 1 for t in r["trials"])
    (together,) = (tmp_path / "suites/tuned").glob("*.toml")
    assert re.fullmatch(r"world-ipsrec-s-ipsrec-c-[0-9a-f]{8}", together.stem)
    other = SUITE.replace("[models.sasrec]", "[models.ipsrec-c]").replace("epochs = 4", "epochs = 1")
    (tmp_path / "other.toml").write_text(other, encoding="utf-8")
    tuned(bench, "other.toml", "--trials", "1")
    assert len(list((tmp_path / "suites/tuned").glob("*.toml"))) == 2  # another suite's result takes no place
    by_time = tuned(bench, suite, "--model", "ipsrec-c", "--budget", "1", "--set", "tune.seed=5")
    assert sum(t["seconds"] for t in by_time[0]["trials"]) >= 1


def test_a_trial_may_be_the_mean_of_seeds(suite, bench):
    (result,) = tuned(bench, suite, "--model", "ipsrec-s", "--trials", "2", "--set", "tune.seeds=[4,5,6]",
                      "--set", "tune.pruner=none")  # fmt: skip
    for trial in result["trials"]:
        assert len(trial["by_seed"]) == 3
        assert trial["value"] == pytest.approx(sum(trial["by_seed"]) / 3)


@pytest.mark.parametrize("sampler", ["random", "cma-es"])
@pytest.mark.parametrize("pruner", ["hyperband", "median"])
def test_other_samplers_and_pruners(suite, bench, sampler, pruner):
    (result,) = tuned(bench, suite, "--model", "ipsrec-s", "--trials", "4", "--set", f"tune.sampler={sampler}",
                      "--set", f"tune.pruner={pruner}")  # fmt: skip
    assert len(result["trials"]) == 4
    assert (result["sampler"], result["pruner"]) == (sampler, pruner)


def test_a_grid_ends_when_every_point_is_done(suite, bench):
    space = "tune.space.ipsrec-s={ tau = [0.5, 1.0], n_layers = { low = 1, high = 2 } }"
    (result,) = tuned(bench, suite, "--model", "ipsrec-s", "--trials", "20", "--set", "tune.sampler=grid",
                      "--set", space, "--set", "tune.pruner=none")  # fmt: skip
    points = sorted((t["settings"]["tau"], t["settings"]["n_layers"]) for t in result["trials"])
    assert points == [(0.5, 1), (0.5, 2), (1.0, 1), (1.0, 2)]


@pytest.mark.parametrize("metric", ["hr@99999999999999999999", "hr@0", "hr@3000000000", "x", "", "hr@5@5", "hr@٣"])
def test_an_invalid_metric_is_blamed_on_its_option(suite, bench, metric):
    done = bench("tune", suite, "--metric", metric)
    assert (done.returncode, done.stderr.startswith(f"error: --metric {metric}: ")) == (2, True)


@pytest.mark.parametrize("budget", ["inf", "1e999"])
def test_a_search_has_an_end(suite, bench, budget):
    done = bench("tune", suite, "--budget", budget)
    assert (done.returncode, done.stderr) == (
        2,
        "error: --budget inf: a search needs a finite limit; give seconds\n",
    )


def test_models_are_named_once_and_at_all(suite, bench):
    done = bench("tune", suite, "--model", " , ")
    assert (done.returncode, done.stderr) == (2, "error: --model: name at least one model\n")
    assert len(tuned(bench, suite, "--model", "ipsrec-s,ipsrec-s", "--trials", "1", "--set", "training.epochs=1")) == 1


def test_names_that_are_invalid_for_files_hide_no_study_and_break_no_tuned_suite(suite, bench, tmp_path):
    long = "モデル" * 30
    text = SUITE.replace("[datasets.world]", '[datasets."a/../b"]').replace("[models.sasrec]", f'[models."{long}"]')
    text = text.replace("[models.ipsrec-s]", '[models."x/y"]\ntype = "ipsrec-s"').replace("epochs = 4", "epochs = 1")
    text = text.replace(f'[models."{long}"]', f'[models."{long}"]\ntype = "ipsrec-s"')
    suite.write_text(text, encoding="utf-8")
    found = tuned(bench, suite, "--model", f"x/y,{long}", "--trials", "1")
    assert [(study["dataset"], study["model"]) for study in found] == [("a/../b", "x/y"), ("a/../b", long)]
    assert {study.model for study in studies_in(tmp_path / "reports/studies")} == {"x/y", long}
    (path,) = (tmp_path / "suites/tuned").glob("*.toml")
    done = bench("validate", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 seeds" in done.stdout


def test_the_tuned_suite_is_written_where_the_filter_has_no_upper_end(suite, bench, tmp_path):
    (study,) = tuned(bench, suite, "--model", "ipsrec-s", "--trials", "1", "--set", "training.epochs=1",
                     "--set", "protocol.filter=2-core")  # fmt: skip
    (path,) = (tmp_path / "suites/tuned").glob("*.toml")
    written = load_suite(path).suite.protocol.filter
    assert str(written) == "users with 2 or more interactions and items with 2 or more interactions"
    assert study["name"] == path.stem


def test_the_reported_suite_is_tuned(bench):
    cases = Path(__file__).parent / "cases"
    done = bench("tune", cases / "tune.toml", "--model", "ipsrec-s", "--trials", "2", IPSREC_BENCH_CASES=str(cases))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_the_suites_own_setting_is_tried_first_though_the_choices_lack_it(suite, bench, sampler):
    (result,) = tuned(bench, suite, "--model", "ipsrec-s", "--set", f"tune.sampler={sampler}", "--set",
                      "tune.pruner=none", "--set", "training.epochs=1", "--set",
                      "tune.space.ipsrec-s={ tau = [0.5, 2.0] }")  # fmt: skip
    assert result["trials"][0]["settings"] == {"tau": 1.0} == result["default"]
    assert sorted(t["settings"]["tau"] for t in result["trials"]) == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("sampler", ["random", "tpe", "cma-es"])
def test_the_same_settings_are_not_trained_again(search_at, sampler):
    search = search_at("studies", "tune.space.ipsrec-s={ inner_size = {low=16,high=18}, n_layers = {low=1,high=2} }",
                       f"tune.sampler={sampler}")  # fmt: skip
    run(search, 50)
    trained = [t for t in search.study.get_trials() if t.user_attrs.get("epochs")]
    assert len(trained) == len({tuple(t.params.values()) for t in trained}) == 6  # the suite's own (16, 2) among them
    before = len(search.study.get_trials())
    run(search, 50)
    assert len(search.study.get_trials()) == before


def test_a_repeated_draw_is_replaced_by_untried_settings(search_at, monkeypatch):
    search = search_at("studies", "tune.sampler=random", LOSS)
    drawn = {"lambda": 0.25, "tau": 2.0}
    monkeypatch.setattr(optuna.samplers.RandomSampler, "sample_independent",
                        lambda _self, _study, _trial, name, _distribution: drawn[name])  # fmt: skip
    run(search, 4)
    complete = [t.params["lambda"] for t in search.study.get_trials() if t.state == TrialState.COMPLETE]
    assert complete[:2] == [0.1, 0.25]
    assert len(set(complete)) == 4


def test_settings_outside_of_the_space_are_queued_again_when_their_process_is_killed(search_at):
    search = search_at("studies", "tune.space.ipsrec-s={ tau = [0.5, 2.0] }")
    trial = search.study.ask()
    trial.set_user_attr("process", f"{socket.gethostname()} {os.getpid()} 1")
    run(search, 3)
    kept = [study for study in study_result(search.study, search.place).trials if not study.pruned]
    assert sorted(t.settings["tau"] for t in kept) == [0.5, 1.0, 2.0]


def test_a_trial_whose_settings_see_the_future_is_trained_on_prefixes(search_at, monkeypatch):
    """The suite's own attention is packed; "full" would see its targets there."""
    search = search_at("studies", "tune.space.ipsrec-s={ attention = ['full', 'block-causal'] }")
    trained = {}

    def note(key, cell, *rest):
        trained[cell.config.attention] = cell.training.samples
        return train_cell(key, cell, *rest)

    monkeypatch.setattr("ipsrec_bench.run.cell.train_cell", note)
    run(search, 3)
    assert trained == {"block-causal": "packed", "full": "prefix"}


def test_a_search_that_leaves_what_training_asks_for_is_refused():
    with pytest.raises(SuiteError, match=r"tune.space.ipsrec-s.attention: training.samples: found 'packed'"):
        space_of("[tune.space.ipsrec-s]\nattention = ['full']\n[models.ipsrec-s.training]\nsamples = 'packed'\n")


def test_the_tuned_suite_sets_the_best_against_those_before_on_fresh_seeds(suite, bench, tmp_path):
    done = bench("tune", suite, "--model", "ipsrec-s", "--trials", "3")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "suites/tuned").glob("*.toml")
    assert f"ipsrec-bench run {path.relative_to(tmp_path)}" in done.stdout
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    (study,) = studies_in(tmp_path / "reports/studies")
    assert path.stem == study.name
    said = {"settings_from": "tuned, 3 trials"}
    assert content["models"]["ipsrec-s"]["variants"] == {"tuned": as_table(study.best.settings, {}) | said}
    assert set(content["seeds"]) == {101, 102, 103}
    assert bench("run", path, "--quiet").returncode == 0
    markdown = next((tmp_path / "reports").glob("*/*.md")).read_text(encoding="utf-8")
    assert "— tuned" in markdown
    assert "IPSRec-S tuned" in markdown.partition("## Results")[0]  # the headline is about the best settings
    assert "did not record" not in markdown
    assert bench("run", suite, "--quiet", "--set", "training.epochs=1").returncode == 0
    other = (tmp_path / "reports/tiny/tiny.md").read_text(encoding="utf-8")
    assert f"Not shown: study {study.name}" in other
    assert "was made under other settings (epochs: 4 there, 1 here)" in other


def test_a_tuned_suite_with_a_baseline_compares_with_the_best(suite, tmp_path):
    file = load_suite(suite, ["statistics.test=method", "statistics.proposed=['ipsrec-s', 'pop']"])
    found = [study(model, dataset="world") for model in ("ipsrec-s", "sasrec")]
    both = tomllib.loads(tuned_suite(file, found, tmp_path))
    assert both["statistics"] == {"test": "method", "proposed": ["ipsrec-s"], "baseline": "best"}
    assert tomllib.loads(tuned_suite(file, found[:1], tmp_path))["statistics"]["baseline"] == "ipsrec-s"
    assert tomllib.loads(tuned_suite(file, found[1:], tmp_path))["statistics"]["baseline"] == "sasrec"


LINE = b'{"op_code":8,"worker_id":"w","trial_id":0,"user_attr":{"seconds":1.0}}\n'


@pytest.fixture
def journal(search_at, tmp_path) -> Path:
    """The journal of a search that has one complete trial."""
    run(search_at("studies"), 1)
    (path,) = (tmp_path / "studies").glob("*.journal")
    return path


@pytest.mark.parametrize("torn", [LINE[:-9], LINE[:-1], b"\0" * 4096, b"{", b"\xff\xfe" * (1 << 17)])
def test_an_incomplete_last_line_of_a_journal_is_cut_before_the_next_one_is_written(journal, search_at, torn):
    whole = journal.read_bytes()
    journal.write_bytes(whole + torn)
    (study,) = studies_in(journal.parent)  # the report reads past it, and writes nothing
    assert (len(study.trials), journal.read_bytes()) == (1, whole + torn)
    run(search_at("studies"), 2)
    (study,) = studies_in(journal.parent)
    assert (len(study.trials), journal.read_bytes()[: len(whole)]) == (2, whole)
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())


def test_a_process_that_already_has_the_journal_open_cuts_what_another_has_torn(journal, search_at):
    search = search_at("studies")
    with journal.open("ab") as file:
        file.write(LINE[:-9])
    run(search, 2)
    (study,) = studies_in(journal.parent)
    assert len(study.trials) == 2


DAMAGED = [
    (lambda whole: whole + b"\0" * 99 + LINE + LINE, "is not an entry of a study's journal"),
    (lambda whole: whole + LINE[:-9] + LINE, "is not an entry of a study's journal"),
    (lambda whole: whole + b"5\n" + LINE, "is not an entry of a study's journal"),
    (lambda whole: whole + b"[" * 99999 + b"\n", "is not an entry of a study's journal"),
    (lambda whole: b"\xff\xfe" + whole, "line 1 is not an entry of a study's journal"),
    (lambda _: b"no journal\n", "line 1 is not an entry of a study's journal"),
    (lambda whole: whole + b'{"op_code":99}\n', "another version of Optuna"),
    (lambda whole: whole + b'{"op_code":4}\n', "another version of Optuna"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGED)
def test_a_journal_that_cannot_be_read_is_named_and_left_as_it_is(journal, search_at, damage, words):
    damaged = damage(journal.read_bytes())
    journal.write_bytes(damaged)
    with pytest.raises(StudyError, match=re.escape(str(journal))) as error:
        search_at("studies")
    assert words in str(error.value)
    sentences: list[str] = []
    assert studies_in(journal.parent, sentences.append) == []
    assert (sentences, journal.read_bytes()) == ([str(error.value)], damaged)


def test_journals_without_a_study_are_named(journal):
    for name, content in (("empty", b""), ("copied", journal.read_bytes()), ("zeros", b"\0" * 4096)):
        (journal.parent / f"{name}.journal").write_bytes(content)
    (journal.parent / "folder.journal").mkdir()
    (journal.parent / "link.journal").symlink_to("nowhere")
    sentences: list[str] = []
    (study,) = studies_in(journal.parent, sentences.append)
    assert study.name == journal.stem
    copied, empty, folder, link, zeros = sentences
    assert "link.journal: it is a link to a missing file" in link
    assert not (journal.parent / "nowhere").exists()
    assert f"holds the study '{journal.stem}', whose file is '{journal.name}'; remove the copy" in copied
    assert "empty.journal: it holds no study yet" in empty
    assert "folder.journal: the study cannot be opened: Is a directory" in folder
    assert "zeros.journal: it holds no study yet" in zeros


def test_an_empty_journal_is_begun_anew(journal, search_at):
    journal.write_bytes(b"")
    run(search_at("studies"), 1)
    (study,) = studies_in(journal.parent)
    assert len(study.trials) == 1


def test_a_damaged_journal_is_a_sentence_of_tune_and_of_the_report(suite, bench, tmp_path):
    tuned(bench, suite, "--model", "ipsrec-s", "--trials", "1", "--set", "training.epochs=1")
    (path,) = (tmp_path / "reports/studies").glob("*.journal")
    path.write_bytes(path.read_bytes() + LINE[:-9] + LINE)
    again = bench("tune", suite, "--model", "ipsrec-s", "--trials", "2", "--set", "training.epochs=1")
    assert (again.returncode, "is not an entry of a study's journal" in again.stderr) == (2, True)
    done = bench("run", suite, "--quiet", "--set", "training.epochs=1", "--set", "seeds=[1]")
    assert done.returncode == 0
    assert done.stderr.startswith("The report lacks a tuning study: ")
    for kind in ("md", "html"):
        page = (tmp_path / f"reports/tiny/tiny.{kind}").read_text(encoding="utf-8")
        assert "Tuning studies that could not be read" in page


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes() + b"x\n" + LINE)])
def test_a_journal_that_is_removed_or_damaged_within_a_search_is_a_sentence(search_at, tmp_path, monkeypatch, damage):
    search = search_at("studies")

    def at_work(*_):
        (path,) = (tmp_path / "studies").glob("*.journal")
        damage(path)
        raise RuntimeError

    monkeypatch.setattr("ipsrec_bench.run.cell.train_cell", at_work)
    with pytest.raises(StudyError, match=r"\.journal: the study cannot be (read|written): "):
        run(search, 1)


def test_a_database_that_fails_within_a_search_is_a_sentence(search_at, tmp_path, monkeypatch):
    search = search_at(f"sqlite:///{tmp_path / 'studies.db'}")

    def broken(*_):
        with sqlite3.connect(tmp_path / "studies.db") as database:
            database.execute("DROP TABLE trial_user_attributes")
        raise RuntimeError

    monkeypatch.setattr("ipsrec_bench.run.cell.train_cell", broken)
    with pytest.raises(StudyError, match=r"--storage: the database failed: .*no such table.*; ended trials are kept"):
        run(search, 1)


def test_a_full_disk_under_a_journal_is_a_sentence(search_at, monkeypatch):
    search = search_at("studies")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StudyError, match="the study cannot be written: No space left on device"):
        run(search, 1)


def test_show_prints_and_searches_no_further(suite, bench):
    tuned(bench, suite, "--model", "ipsrec-s", "--trials", "2")
    done = bench("tune", suite, "--model", "ipsrec-s", "--show")
    assert done.returncode == 0
    assert "2 trials, 0 of them pruned" in done.stdout
    assert "own settings" in done.stdout


def begun(arguments, tmp_path, trials: int) -> subprocess.Popen:
    """Start a search in a separate session; return its process once it has reported that many starts of trials."""
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a job in the background would not do
    process = subprocess.Popen(arguments, cwd=tmp_path, env=clean_environment(), text=True, preexec_fn=listen,  # noqa: PLW1509
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip
    while trials:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        trials -= "started" in line
    return process


def let_go(process: subprocess.Popen) -> None:
    """Wait for a killed process, not for its workers, which still hold its pipes."""
    process.stdout.close()
    process.stderr.close()
    process.wait()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_study_outlives_its_processes(suite, tmp_path, jobs):
    """After many kills at random, the study has exactly the requested trials, none twice, none lost."""
    arguments = command("tune", suite, "--model", "ipsrec-s", "--trials", "6", "--set", "tune.pruner=none",
                        "--set", "training.epochs=40", "--set", "training.patience=40", "--jobs", jobs)  # fmt: skip
    chance = np.random.default_rng(jobs)
    for _ in range(KILLS):
        at_once = chance.random() < 0.2  # or a while after the first trial has begun
        process = begun(arguments, tmp_path, trials=0 if at_once else 1)
        time.sleep(chance.uniform(0, 3))
        if chance.random() < 0.5:
            os.kill(process.pid, signal.SIGKILL)  # its workers notice that it is gone
        else:
            os.killpg(process.pid, signal.SIGKILL)
        let_go(process)
    done = subprocess.run(arguments, cwd=tmp_path, env=clean_environment(), check=False, timeout=300)
    assert done.returncode == 0
    (path,) = (tmp_path / "reports/studies").glob("*.journal")
    trials = optuna.load_study(study_name=path.stem, storage=open_storage(str(path))).get_trials()
    kept = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(kept) == 6
    assert not [t for t in trials if t.state == TrialState.RUNNING]
    settings = [tuple(t.params.items()) for t in kept]
    assert len(set(settings)) == 6
    for trial in trials:  # what was killed was tried again, as it was
        if trial.state == TrialState.FAIL and trial.params:
            assert tuple(trial.params.items()) in settings


def test_two_processes_share_a_study_without_a_trial_too_many(suite, tmp_path):
    arguments = command("tune", suite, "--model", "ipsrec-s", "--trials", "5", "--quiet")
    processes = [subprocess.Popen(arguments, cwd=tmp_path, env=clean_environment()) for _ in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    (study,) = studies_in(tmp_path / "reports/studies")
    assert len(study.trials) == 5


def children(pid: int) -> list[int]:
    """Return the workers of the process with this number."""
    listed = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return [one for one in listed if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def eventually(condition) -> bool:
    for _ in range(300):
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def long_search(suite):
    return command("tune", suite, "--model", "ipsrec-s", "--trials", "4", "--jobs", "2", "--set", "tune.pruner=none",
                   "--set", "training.epochs=300", "--set", "training.patience=300")  # fmt: skip


def study_beside(tmp_path) -> optuna.Study:
    (path,) = (tmp_path / "reports/studies").glob("*.journal")
    return optuna.load_study(study_name=path.stem, storage=open_storage(str(path)))


def test_ctrl_c_ends_all_workers_and_queues_their_trials(long_search, tmp_path):
    process = begun(long_search, tmp_path, trials=2)
    team = children(process.pid)
    assert len(team) == 2
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (
        130,
        "Interrupted. Finished trials are kept; the same command resumes.\n",
    )
    assert all(gone(pid) for pid in team)
    trials = study_beside(tmp_path).get_trials()
    assert sorted(t.state for t in trials) == sorted([TrialState.FAIL] * 2 + [TrialState.WAITING] * 2)
    assert not any(t.user_attrs.get("tries") for t in trials)  # it is not held against their settings
    assert not list((tmp_path / "reports/ipsrec-bench.duckdb.d/trials").iterdir())


def test_workers_end_when_the_search_that_began_them_is_killed_and_the_next_one_queues_their_trials(
    long_search, tmp_path
):
    process = begun(long_search, tmp_path, trials=2)
    team = children(process.pid)
    process.kill()
    process.communicate()
    assert eventually(lambda: all(gone(pid) for pid in team))
    study = study_beside(tmp_path)
    assert [t.state for t in study.get_trials()] == [TrialState.RUNNING] * 2
    requeue_lost(study)
    assert [t.state for t in study.get_trials()] == [TrialState.FAIL] * 2 + [TrialState.WAITING] * 2


def test_a_worker_that_is_killed_is_replaced_and_its_trial_retried(suite, tmp_path):
    arguments = command("tune", suite, "--model", "ipsrec-s", "--trials", "3", "--jobs", "2",
                        "--set", "tune.pruner=none", "--set", "training.epochs=60",
                        "--set", "training.patience=60")  # fmt: skip
    process = begun(arguments, tmp_path, trials=2)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    printed, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "killed after" in printed
    assert "it was killed by SIGKILL, perhaps out of memory; its settings are tried again" in printed
    study = study_beside(tmp_path)
    found = [t.state for t in study.get_trials()]
    assert (found.count(TrialState.COMPLETE), found.count(TrialState.FAIL)) == (3, 1)
    assert study_result(study, "").failed == 0  # its settings were tried again, and are not given up


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_concurrent_trials_neither_exceed_the_budget_nor_try_a_point_twice(search_at, sampler):
    space = "tune.space.ipsrec-s={ tau = [0.5, 1.0, 2.0], n_layers = { low = 1, high = 2 } }"
    search, executor = search_at("studies", space, f"tune.sampler={sampler}"), Pretended(slots=4)
    run(search, 6, executor)
    found = study_result(search.study, search.place)
    assert (len(found.trials), found.failed, executor.most) == (6, 0, 4)
    assert len({tuple(sorted(t.settings.items())) for t in found.trials}) == 6
    assert found.exhausted
    assert not found.first(5).exhausted


def test_a_space_is_exhausted_when_every_point_of_it_was_tried(search_at):
    """Settings of the suite that lie outside the space are no point of it; a range of reals is never exhausted."""
    outside = search_at("studies", "tune.space.ipsrec-s={ tau = [0.5, 2.0] }")
    run(outside, 2)
    assert len(study_result(outside.study, "").trials) == 2  # tau = 1, and one of both
    assert not study_result(outside.study, "").exhausted
    run(outside, 3)
    assert study_result(outside.study, "").exhausted
    reals = search_at("reals", "tune.space.ipsrec-s={ tau = { low = 0.5, high = 2.0 } }", "tune.sampler=random")
    run(reals, 12)
    assert not study_result(reals.study, "").exhausted


def test_the_draws_follow_from_the_trials_number(search_at):
    """They depend neither on the number of searching processes nor on the point of an interruption."""

    def chosen(place, *runs):
        search = search_at(place, "tune.sampler=random")
        for trials, slots in runs:
            run(search, trials, Pretended(slots=slots))
        return [t.params for t in search.study.get_trials()]

    assert chosen("a", (2, 1), (4, 1)) == chosen("b", (4, 2))


def test_a_failing_setting_does_not_end_a_grid(suite, bench):
    (result,) = tuned(bench, suite, "--model", "ipsrec-s", "--trials", "99", "--set", "tune.sampler=grid", "--set",
                      "tune.space.ipsrec-s={ n_heads = [1, 2], embedding_size = [6, 7, 8, 9] }", "--set",
                      "models.ipsrec-s.n_heads=1", "--set", "tune.pruner=none", "--set", "training.epochs=1",
                      errors="(.*failed after 0 epochs, .* s: n_heads = 2 must divide .*){2}")  # fmt: skip
    points = sorted((t["settings"]["n_heads"], t["settings"]["embedding_size"]) for t in result["trials"])
    assert points == [(1, 6), (1, 7), (1, 8), (1, 9), (2, 6), (2, 8)]
    assert result["failed"] == 2


def test_a_killed_grid_resumes_with_what_is_left(suite, tmp_path):
    arguments = command("tune", suite, "--model", "ipsrec-s", "--set", "tune.sampler=grid", "--set",
                        "tune.space.ipsrec-s={ tau = [0.5, 1.0, 2.0] }", "--set", "tune.pruner=none",
                        "--set", "training.epochs=20", "--set", "training.patience=20")  # fmt: skip
    for trials in (1, 2):
        process = begun(arguments, tmp_path, trials)
        process.kill()
        let_go(process)
    done = subprocess.run(arguments, cwd=tmp_path, env=clean_environment(), check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (study,) = studies_in(tmp_path / "reports/studies")
    assert sorted(t.settings["tau"] for t in study.trials) == [0.5, 1.0, 2.0]


POSTGRES = shutil.which("initdb") or next(
    iter(sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))), None
)


@pytest.mark.skipif(POSTGRES is None, reason="PostgreSQL is not installed")
def test_a_study_lies_in_postgresql(suite, bench, request):
    psycopg2 = pytest.importorskip("psycopg2", reason="psycopg2 is not installed")
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    request.addfinalizer(lambda: shutil.rmtree(folder))
    binaries = Path(POSTGRES).parent
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    cluster = str(folder / "cluster")
    subprocess.run(
        [*as_user, str(binaries / "initdb"), "-D", cluster, "-U", "tuner", "-A", "trust", "--no-sync"],
        check=True,
        capture_output=True,
    )

    def is_up() -> bool:
        try:
            psycopg2.connect(host="127.0.0.1", port=port, user="tuner", dbname="postgres").close()
        except psycopg2.OperationalError:
            return False
        return True

    server = subprocess.Popen([*as_user, str(binaries / "postgres"), "-D", cluster, "-p", port, "-k", str(folder)])
    try:
        assert eventually(is_up)
        url = f"postgresql+psycopg2://tuner@127.0.0.1:{port}/postgres"
        (first,) = tuned(bench, suite, "--model", "ipsrec-s", "--trials", "2", "--storage", url)
        (second,) = tuned(bench, suite, "--model", "ipsrec-s", "--trials", "3", "--jobs", "2", "--storage", url)
        assert second["trials"][:2] == first["trials"]
        assert len(second["trials"]) == 3
    finally:
        server.send_signal(signal.SIGINT)  # a fast shutdown: this process may still hold a connection
        server.wait(timeout=60)


def test_a_lock_is_free_once_its_owner_is_killed(search_at, tmp_path):
    """The journal's place is relative, as it is by default."""
    search = search_at("studies")
    program = f"""
        import time
        from ipsrec_bench.tuning.study import open_storage
        storage = open_storage({search.place!r})
        storage._backend._lock.acquire()
        print("taken", flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as owner:
        try:
            assert owner.stdout.readline() == "taken\n"
            waiting = threading.Thread(target=run, args=(search, 1))
            waiting.start()
            waiting.join(0.5)
            waited = waiting.is_alive()
        finally:
            owner.kill()
        waiting.join(20)
    assert (waited, waiting.is_alive()) == (True, False)
    assert [t.state for t in search.study.get_trials()] == [TrialState.COMPLETE]


def test_partly_chosen_settings_are_queued_as_a_whole(search_at):
    search = search_at("studies", LOSS)
    trial = search.study.ask()  # the default, which is queued
    trial.suggest_float("lambda", 1e-3, 1.0, log=True)
    search.study.tell(trial.number, state=TrialState.FAIL)
    requeue(search.study, search.study.trials[-1])
    assert search.study.trials[-1].system_attrs["fixed_params"] == {"lambda": 0.1, "tau": 1.0}


def test_concurrent_trials_share_an_sqlite_database(search_at, tmp_path):
    """One process connects to it, and sends a heartbeat for each trial."""
    search = search_at(f"sqlite:///{tmp_path / 'studies.db'}")
    executor = Pretended(slots=2)
    run(search, 4, executor)
    assert [t.state for t in search.study.get_trials()] == [TrialState.COMPLETE] * 4
    assert executor.most == 2
    with contextlib.closing(sqlite3.connect(tmp_path / "studies.db")) as database:
        assert database.execute("SELECT count(*) FROM trial_heartbeats").fetchone() == (4,)


def test_a_missing_database_is_named(suite, bench):
    done = bench("tune", suite, "--model", "ipsrec-s", "--storage", "sqlite:////nowhere/at/all.db")
    assert (done.returncode, "--storage: the database cannot be used" in done.stderr) == (2, True)


@pytest.fixture
def search_at(suite, tmp_path, monkeypatch):
    """Open the search for IPSRec-S of the tiny suite in this process, with its study in a given place."""

    def build(storage: str, *overrides: str):
        monkeypatch.chdir(tmp_path)
        data, quick = tmp_path / "data", ["training.epochs=1", "tune.pruner=none"]
        _, (search,) = searches(
            Subject(suite, "world", ["ipsrec-s"], [*quick, *overrides]),
            data,
            lambda cell: prepare(cell.dataset, cell.source, data),
            storage,
        )
        return search

    return build


def begun_elsewhere(study: optuna.Study, process: str | None, value: float) -> None:
    """Make a trial run that another process has begun."""
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params={"lambda": value, "tau": 1.0},
            distributions=dict.fromkeys(("lambda", "tau"), optuna.distributions.FloatDistribution(1e-3, 5.0, log=True)),
            user_attrs={"seconds": 7.0} | ({"process": process} if process else {}),
        )
    )


class Pretended(Executor):
    """Trains nothing; tasks end as scripted, and afterwards all succeed."""

    def __init__(
        self, *endings: TrainedTrial | Outcome, slots: int = 1, curves: list[list[float]] | None = None
    ) -> None:
        self._endings, self._curves, self._slots = (
            list(endings),
            curves or [],
            Workers("inline", ("cpu",), None, 1).slots(slots),
        )
        self._at_work: dict[str, Slot] = {}
        self._tasks: dict[str, Task] = {}
        self._emit: Emit
        self.stopped: list[str] = []
        self.most, self.is_closed = 0, False

    def __call__(self, emit: Emit, _tick) -> Executor:
        self._emit = emit
        return self

    def free(self):
        return [slot for slot in self._slots if slot not in self._at_work.values()]

    def begin(self, slot, task):
        self._at_work[task.key], self._tasks[task.key] = slot, task
        self.most = max(self.most, len(self._at_work))

    def outcomes(self, seconds):  # noqa: ARG002 (nothing takes time)
        key = next(iter(self._at_work))
        (cell,) = self._tasks[key].work.args[1]
        name = (key, cell.dataset, cell.shown, cell.seed)
        self._emit(CellStarted(*name, 9, "mrr@10"))
        curve = self._curves.pop(0) if self._curves else [0.5]
        for epoch, valid in enumerate(curve, 1):
            self._emit(EpochDone(*name, epoch, 1.0, valid, 1.0))
        del self._at_work[key]
        ending = self._endings.pop(0) if self._endings else TrainedTrial((max(curve),), 1.0)
        return [Done(key, ending) if isinstance(ending, TrainedTrial) else replace(ending, key=key)]

    def stop(self, key):
        self.stopped.append(key)

    def kill(self, key, cause): ...

    def pause(self, *, held): ...

    def close(self):
        self.is_closed = True


def run(search, trials: int, executor: Pretended | None = None) -> list:
    events: list = []
    make_executor = executor or executor_maker("inline", Workers("inline", ("cpu",), None, 1).slots(1))
    assert run_search(search, Budget(trials, None), make_executor, Workplace(Path("store.duckdb")), events.append)
    return events


def test_a_trial_whose_heartbeat_stops_is_tried_again(search_at, tmp_path, monkeypatch):
    """In a database, another searching process finds it by its heartbeat; its time is counted once."""
    monkeypatch.setattr("ipsrec_bench.tuning.study.HEARTBEAT_SECONDS", 1)
    study = (search := search_at(f"sqlite:///{tmp_path / 'studies.db'}")).study
    for value in (0.25, 0.5):
        begun_elsewhere(study, "another-machine 1 1", value)
        study._storage.record_heartbeat(study.trials[-1]._trial_id)
    assert eventually(lambda: len(study._storage._get_stale_trial_ids(study._study_id)) == 2)
    assert spent_seconds(study) == 14.0
    run(search, trials=3)
    kept = [t for t in study.get_trials() if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert sorted(t.params["lambda"] for t in kept) == [0.1, 0.25, 0.5]
    assert spent_seconds(study) > 14.0


def test_a_trial_is_found_whose_process_is_gone_or_was_never_named(search_at, monkeypatch):
    monkeypatch.setattr("ipsrec_bench.tuning.study.NAMELESS_SECONDS", 0)
    search = search_at("studies")
    begun_elsewhere(search.study, f"{socket.gethostname()} {os.getpid()} 1", 0.25)  # this number, at another time
    begun_elsewhere(search.study, None, 0.5)
    events = run(search, trials=3)
    kept = [t for t in search.study.get_trials() if t.state == TrialState.COMPLETE]
    assert sorted(t.params["lambda"] for t in kept) == [0.1, 0.25, 0.5]
    assert events[0].spent == 14.0


def within(search, seconds: float, executor) -> list:
    events: list = []
    assert run_search(search, Budget(None, seconds), executor, Workplace(Path("store.duckdb")), events.append)
    return events


@pytest.mark.parametrize(("seconds", "trials"), [(35.0, 4), (0.1, 1)])
@pytest.mark.parametrize("slots", [1, 4])
def test_the_number_of_jobs_does_not_decide_what_seconds_buy(search_at, seconds, trials, slots):
    search = search_at("studies", LOSS)
    executor = Pretended(*[TrainedTrial((0.5,), 10.0)] * 20, slots=slots)
    within(search, seconds, executor)
    assert spent_seconds(search.study) == 10.0 * trials
    assert executor.most == min(slots, max(1, trials - 1))  # the first trial runs alone


def test_seconds_that_other_processes_spend_count(search_at):
    search = search_at("studies", LOSS)
    here = f"{socket.gethostname()} {os.getpid()} {_started(os.getpid())}"
    within(search, 1.0, Pretended(TrainedTrial((0.5,), 10.0)))
    begun_elsewhere(search.study, here, 0.25)  # 7 s so far, 10 s expected
    before = search.study.get_trials(deepcopy=False)
    assert expected_seconds(before, search.place) == 20.0
    assert expected_seconds(before[1:], search.place) == np.inf
    begun_elsewhere(search.study, "another-machine 1 1", 0.5)  # a journal does not show whether it is alive
    assert expected_seconds(search.study.get_trials(), search.place) == 27.0
    assert expected_seconds(search.study.get_trials(), "postgresql://host/name") == 30.0


def test_processes_that_share_seconds_wait_for_each_other(search_at, monkeypatch):
    search = search_at("studies", LOSS)
    study, here = search.study, f"{socket.gethostname()} {os.getpid()} {_started(os.getpid())}"
    within(search, 1.0, Pretended(TrainedTrial((0.5,), 10.0)))

    def late(study):
        monkeypatch.setattr("ipsrec_bench.tuning.search.ask", ask)
        begun_elsewhere(study, here, 0.25)  # 7 s so far, 10 s expected, which is all that is left
        return ask(study)

    class Waiting(Pretended):
        def outcomes(self, seconds):
            if self._at_work:
                return super().outcomes(seconds)
            study.tell(1, 0.3)  # after 7 s, so there are 3 s left
            return []

    monkeypatch.setattr("ipsrec_bench.tuning.search.ask", late)
    within(search, 20.0, Waiting(TrainedTrial((0.5,), 10.0)))
    assert [SURPLUS in trial.user_attrs for trial in study.trials] == [False, False, True, False]
    assert spent_seconds(study) == 27.0


def test_a_trial_of_no_process_is_waited_for_under_a_budget_of_seconds(search_at, monkeypatch):
    """It was killed before it could record its process, and its settings are tried again."""
    monkeypatch.setattr("ipsrec_bench.tuning.study.NAMELESS_SECONDS", 1)
    search = search_at("studies", LOSS)
    search.study.ask()  # has the suite's own settings
    within(search, 1e-3, executor_maker("inline", Workers("inline", ("cpu",), None, 1).slots(1)))
    kept = [t for t in search.study.get_trials() if t.state == TrialState.COMPLETE]
    assert [t.params["lambda"] for t in kept] == [0.1]


def test_cheap_trials_end_with_their_number(search_at, monkeypatch):
    monkeypatch.setattr("ipsrec_bench.tuning.search.MOST_TRIALS", 5)
    search = search_at("studies", LOSS)
    events = within(search, 60.0, Pretended(*[TrainedTrial((0.5,), 0.01)] * 9))
    (said,) = [event.message for event in events if isinstance(event, ExecutorNotice)]
    assert "the search of ipsrec-s on world ended after 5 trials, the most that a limit in seconds allows" in said
    assert len(search.study.trials) == 5
    again = within(search, 60.0, Pretended())
    assert not [event for event in again if isinstance(event, ExecutorNotice)]  # this command ended no search


def test_the_name_of_a_study_has_the_rules_that_its_search_follows(search_at, monkeypatch):
    search = search_at("studies", LOSS)

    def name(**rules):
        tune = search.tune.model_copy(update=rules)
        return study_name(search.cell, search.data.fingerprint, search.space, tune)

    plain, unpruned = name(pruner="median"), name(sampler="random", pruner="none")
    assert len({plain, *(name(pruner="median", **{key: 9}) for key in ("seed", "start_up", "warm_up"))}) == 4
    assert {name(sampler="random", pruner="none", **{key: 9}) for key in ("start_up", "warm_up", "trials")} == {
        unpruned
    }
    assert name(sampler="random", pruner="none", seed=9) != unpruned
    monkeypatch.setattr("ipsrec_bench.tuning.study.RANKS_FORMAT", 0)
    assert name(pruner="median") != plain


def test_settings_that_are_queued_twice_are_tried_once(search_at):
    """Two commands that begin a study at the same moment do this."""
    search = search_at("studies", LOSS)
    search.study.enqueue_trial({"lambda": 0.1, "tau": 1.0})
    run(search, trials=3)
    kept = [t.params["lambda"] for t in search.study.get_trials() if t.state == TrialState.COMPLETE]
    assert (len(kept), kept.count(0.1)) == (3, 1)


def test_settings_that_kill_every_process_are_given_up(search_at):
    search = search_at("studies", "tune.sampler=grid", "tune.space.ipsrec-s={ tau = [0.5, 1.0], lambda = [0.1] }")
    gone = f"{socket.gethostname()} {os.getpid()} 1"
    for tries in range(RETRIES + 1):
        search.study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params={"tau": 0.5, "lambda": 0.1},
                distributions={"tau": optuna.distributions.CategoricalDistribution((0.5, 1.0)),
                               "lambda": optuna.distributions.CategoricalDistribution((0.1,))},
                user_attrs={"process": gone, "tries": tries},
            )
        )  # fmt: skip
        ((_, again),) = requeue_lost(search.study)
        assert again == (tries < RETRIES)
        for waiting in search.study.get_trials(states=(TrialState.WAITING,)):
            assert waiting.user_attrs["tries"] == tries + 1
            search.study.tell(search.study.ask().number, state=TrialState.FAIL)  # taken out of the queue
    run(search, trials=5)
    kept = [t.params["tau"] for t in search.study.get_trials() if t.state == TrialState.COMPLETE]
    assert kept == [1.0]


def test_a_trial_that_another_process_took_over_does_not_end_the_search(search_at, monkeypatch):
    search = search_at("studies")

    def taken(key, cell, _place, _data, emit):
        monkeypatch.setattr("ipsrec_bench.run.cell.train_cell", train_cell)
        search.study.tell(0, state=TrialState.FAIL)
        requeue(search.study, search.study.trials[0])
        emit(EpochDone(key, cell.dataset, cell.shown, cell.seed, 1, 1.0, 0.1, 1.0))

    monkeypatch.setattr("ipsrec_bench.run.cell.train_cell", taken)
    events = run(search, trials=2)
    assert [event.outcome for event in events if isinstance(event, TrialEnded)] == ["killed", "complete", "complete"]
    assert [t.params["lambda"] for t in search.study.get_trials()][:2] == [0.1, 0.1]


def test_processes_that_are_killed_again_and_again_end_the_search(search_at):
    dies = Died("", "it was killed by SIGKILL")
    executor = Pretended(*[dies] * 4, TrainedTrial((0.5,), 1.0), *[dies] * 5)
    with pytest.raises(ModelError, match="5 processes were killed, and no trial came to its end"):
        run(search_at("studies"), 9, executor)
    assert executor.is_closed


def test_settings_whose_process_dies_three_times_are_given_up(search_at):
    search = search_at("studies")
    events = run(search, 2, Pretended(*[Died("", "it exited with code 3")] * 3))
    said = [event.error for event in events if isinstance(event, TrialEnded) and event.outcome == "killed"]
    assert said == [*["it exited with code 3; its settings are tried again"] * 2,
                    "it exited with code 3; its settings are given up"]  # fmt: skip
    kept = [t.params["lambda"] for t in search.study.get_trials() if t.state == TrialState.COMPLETE]
    assert (len(kept), 0.1 in kept) == (2, False)


def test_a_pruned_trial_is_stopped_and_its_later_events_are_dropped(search_at):
    """A worker is ahead of the process that judges it."""
    search = search_at("studies", "tune.pruner=median", "tune.start_up=1", "tune.warm_up=1", "training.epochs=9")
    executor = Pretended(curves=[[0.5] * 5, [0.1] * 5])
    events = run(search, 2, executor)
    assert executor.stopped == ["trial-1"]
    first, second = search.study.get_trials()
    assert (first.state, first.value, first.user_attrs["epochs"]) == (TrialState.COMPLETE, 0.5, 5)
    assert (second.state, second.value, second.user_attrs["epochs"]) == (TrialState.PRUNED, 0.1, 1)
    last = [event for event in events if getattr(event, "key", None) == "trial-1"]
    assert [type(event) for event in last] == [CellStarted, EpochDone, TrialEnded]


def test_a_refused_task_ends_the_search_and_queues_all_running_trials(search_at):
    search = search_at("studies")
    with pytest.raises(StoreError, match="no room"):
        run(search, 5, Pretended(Refused("", StoreError("no room")), slots=2))
    assert [t.state for t in search.study.get_trials()] == [TrialState.FAIL] * 2 + [TrialState.WAITING] * 2


def test_zombies_are_gone():
    child = subprocess.Popen([sys.executable, "-c", ""])
    assert eventually(lambda: gone(child.pid))
    assert _started(child.pid) == ""
    child.wait()


def test_the_report_shows_studies_of_a_database(suite, bench, tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    (study,) = tuned(bench, suite, "--model", "ipsrec-s", "--trials", "2", "--storage", url)
    assert bench("run", suite, "--quiet").returncode == 0
    page = tmp_path / "reports/tiny/tiny.md"
    assert "## Tuning" not in page.read_text(encoding="utf-8")
    done = bench("report", "--format", "md", "--storage", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert study["name"] in page.read_text(encoding="utf-8").partition("## Tuning")[2]


def test_a_password_is_not_shown():
    study = optuna.create_study()
    for key in ("dataset", "model", "metric", "fingerprint", "seeds", "sampler", "pruner", "default"):
        study.set_user_attr(key, [])
    for url in ("postgresql://me:secret@host/studies", "postgresql://me:***@host/studies?password=secret"):
        assert study_result(study, url).place == "postgresql://me:***@host/studies"


def test_invalid_storages_are_named(bench):
    done = bench("report", "--storage", "nowhere")
    assert (done.returncode, "--storage nowhere: it is neither a folder" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///nosuch.db", "there is no database nosuch.db"),
        ("sqlite:///:memory:", "there is no database :memory:"),
        ("nosuch://host/name", "--storage: "),
        ("://", "--storage: "),
    ],
)
def test_a_missing_database_is_not_created_by_a_report(finished, bench, url, words):
    done = bench("report", "--storage", url)
    assert (done.returncode, words in done.stderr) == (2, True)
    assert not list(finished.glob("*.db"))


def test_a_study_is_not_kept_in_memory(suite, bench):
    done = bench("tune", suite, "--model", "ipsrec-s", "--storage", "sqlite://")
    assert (done.returncode, "a database in memory is lost with the process" in done.stderr) == (2, True)
