"""`run --tuned`: rows are searched, their winners trained on fresh seeds, in one command that resumes."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from ipsrec_bench.errors import SuiteError
from ipsrec_bench.events import ExecutorNotice, SearchStarted, TrialEnded
from ipsrec_bench.run.plan import cells_of, make_plan
from ipsrec_bench.run.workplace import Workplace
from ipsrec_bench.suite.load import load_suite, parse_suite
from ipsrec_bench.tuning.rows import Work, rows_of, search_rows, tuned_file, with_winners
from ipsrec_bench.tuning.search import Budget, run_search
from ipsrec_bench.tuning.study import open_storage, studies_in, study_result
from ipsrec_bench.tuning.subject import open_search
from ipsrec_bench.tuning.trial import TrainedTrial

from .conftest import TINY_SUITE, clean_environment, command
from .test_tuning import Pretended

KILLS = int(os.environ.get("IPSREC_BENCH_KILLS", "2"))
"""Number of kills; ten take minutes."""
SUITE = (
    TINY_SUITE.replace("[models.pop]\n", "[models.pop]\n[models.gru4rec]\nsettings_from = 'published'\n")
    + """
[tune]
trials = 3
fresh_seeds = [11, 12]
"""
)
SEARCHED = ("recent-pop", "sasrec", "ipsrec-s", "ipsrec-s w/o CL")


@pytest.fixture
def suite(tmp_path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(SUITE, encoding="utf-8")
    return path


def stored(bench) -> dict[str, set[str]]:
    found = json.loads(
        bench("query", "SELECT * FROM run_cells WHERE run = (SELECT max(run) FROM runs)", "--json").stdout
    )
    words: dict[str, set[str]] = {}
    for cell in found:
        words.setdefault(f"{cell['model']} {cell['variant']}".strip(), set()).add(cell["tuning"])
    assert {cell["seed"] for cell in found} == {11, 12}
    return words


def test_a_variant_is_searched_without_what_it_fixes_and_what_has_no_effect_then():
    file = tuned_file(parse_suite(Path("tiny.toml"), SUITE))
    assert file.suite.seeds == (11, 12)
    rows = {row.cell.label: row for row in rows_of(file, cells_of(file))}
    assert tuple(rows) == SEARCHED
    common = {"training.batch_size", "training.weight_decay"}
    assert {*rows["ipsrec-s"].space.where} == {"hidden_dropout", "lambda", "tau", "training.learning_rate", *common}
    assert {*rows["ipsrec-s w/o CL"].space.where} == {"hidden_dropout", "training.learning_rate", *common}


def test_a_preset_fixes_what_it_fills_in():
    text = SUITE + "[models.sgl]\nvariants.recbole = { preset = 'recbole', training.learning_rate = 0.01 }\n"
    file = tuned_file(parse_suite(Path("tiny.toml"), text))
    rows = {row.cell.label: row for row in rows_of(file, cells_of(file))}
    assert {*rows["sgl recbole"].space.where} == {"drop_ratio", "training.batch_size", "training.weight_decay"}


def test_where_settings_are_from_has_two_forms():
    text = f"{SUITE}[models.gru4rec-f]\nsettings_from = 'mine'\n"
    with pytest.raises(SuiteError, match=r"gru4rec-f.settings_from: found 'mine'; allowed: 'published', 'tuned, 20"):
        cells_of(parse_suite(Path("tiny.toml"), text))


def test_rows_are_searched_and_winners_trained_on_fresh_seeds(suite, bench, tmp_path):
    done = bench("run", suite, "--tuned", "--quiet")
    assert done.returncode == 0, done.stderr
    studies = {study.model: study for study in studies_in(tmp_path / "reports/studies")}
    assert {name: len(study.trials) for name, study in studies.items()} == dict.fromkeys(sorted(SEARCHED), 3)
    searched = {name: {"tuned, 3 trials"} for name in SEARCHED}
    assert stored(bench) == searched | {"pop": {"nothing to tune"}, "gru4rec": {"published settings"}}
    found = json.loads(bench("query", "SELECT settings FROM cells WHERE type = 'sasrec'", "--json").stdout)
    rates = {json.loads(cell["settings"])["training"]["learning_rate"] for cell in found}
    assert rates == {studies["sasrec"].best.settings["training.learning_rate"]}

    shown = " ".join(bench("run", suite, "--tuned", "--dry-run").stdout.split())
    assert " cells, 0 to run" in shown
    assert "All searches have ended; these cells have their best settings." in shown
    shown = " ".join(bench("run", suite, "--tuned", "--dry-run", "--set", "models.sasrec.n_heads=1").stdout.split())
    assert "3 searches ended, and their cells have the best settings. The others have the settings of the" in shown
    assert "Before them come 1 search of 3 trials (searched settings: sasrec 6);" in shown
    assert json.loads(bench("run", suite, "--tuned", "--dry-run", "--json").stdout)[0]["state"] == "done"

    again = bench("run", suite, "--tuned", "--json")
    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert not [event for event in events if event["event"] in {"cell-started", "trial-ended"}]
    assert bench("report", "tiny", "--format", "json,md").returncode == 0
    report = json.loads((tmp_path / "reports/tiny/tiny.json").read_text(encoding="utf-8"))
    lines = {line["row"]["label"]: line for line in report["fairness"]["lines"]}
    assert (lines["sasrec"]["complete"], lines["sasrec"]["searched"], lines["pop"]["complete"]) == (3, 6, None)
    assert 1 / 10 <= lines["sasrec"]["seen"] <= 1
    assert any("each of 4 tuned rows got 3 trials" in one for one in report["fairness"]["sentences"])
    markdown = (tmp_path / "reports/tiny/tiny.md").read_text(encoding="utf-8")
    assert "SASRec (tuned, 3 trials)" in markdown
    assert "GRU4Rec (RecBole) (published settings)" in markdown


def test_collect_takes_the_best_so_far_without_searching(suite, bench, tmp_path):
    suite.write_text(SUITE.replace("[tune]", "[tune]\nbefore = true"), encoding="utf-8")
    done = bench("run", suite, "--collect")
    assert done.returncode == 0
    (note,) = (line for line in done.stdout.splitlines() if "studies has no search of" in line)
    assert all(f"{name} on world" in note for name in SEARCHED)
    assert "so they keep the settings of the suite; run without --collect to search them" in note
    assert not (tmp_path / "reports/studies").exists()
    assert stored(bench)["sasrec"] == {"untuned"}


def test_searches_are_named_before_they_are_made(suite, bench):
    checked = bench("validate", suite, "--set", "tune.before=true", "--set", "tune.seeds=[1,2]")
    assert "before them, 4 searches of 3 trials, each trained with 2 seeds" in checked.stdout
    searched = "searched settings: recent-pop 1; ipsrec-s w/o CL 4; sasrec, ipsrec-s 6"
    assert searched in checked.stdout
    refused = bench("run", suite, "--tuned", "--shard", "1/2")
    assert (refused.returncode, "--shard 1/2: the cells of a tuned run are known" in refused.stderr) == (2, True)
    shown = bench("run", suite, "--tuned", "--dry-run")
    assert f"Before them come 4 searches of 3 trials ({searched});" in " ".join(shown.stdout.split())


def test_a_row_whose_trials_all_fail_keeps_its_settings(tmp_path):
    text = SUITE.replace("[models.recent-pop]\n", "")
    file = tuned_file(parse_suite(tmp_path / "tiny.toml", text))
    events: list = []
    store = tmp_path / "reports/store.duckdb"
    plan = make_plan(file, tmp_path / "data", store, events.append)
    executor = Pretended(*[TrainedTrial((), 1.0, "no memory")] * 5)  # of sasrec, the first
    work = Work(str(tmp_path / "studies"), executor, Workplace(store), events.append)
    assert search_rows(plan, work)
    (said,) = [event.message for event in events if isinstance(event, ExecutorNotice)]
    assert "the search of sasrec on world was given up, so it keeps its settings; the same command tries" in said
    assert "tries again: 5 trials in a row failed" in said
    won = with_winners(plan, work.storage, store)
    words = {cell.label: cell.tuning for _, cell in won.cells}
    assert words["sasrec"] == ""
    assert words["ipsrec-s"] == "tuned, 3 trials"
    assert {cell.tuning for cell in won.planned() if cell.model == "sasrec"} == {"untuned"}
    before = len(events)
    assert search_rows(plan, work)  # the memory suffices now; nothing else is searched again
    assert len([event for event in events[before:] if isinstance(event, TrialEnded)]) == 3
    won = with_winners(plan, work.storage, store)
    assert {cell.tuning for _, cell in won.cells if cell.label == "sasrec"} == {"tuned, 3 trials"}


def test_trials_that_tune_has_added_do_not_count_with_equal_trials(tmp_path):
    text = SUITE.replace("[models.recent-pop]\n", "")
    file = tuned_file(parse_suite(tmp_path / "tiny.toml", text))
    store = tmp_path / "reports/store.duckdb"
    plan = make_plan(file, tmp_path / "data", store, lambda _: None)
    values = (0.1, 0.3, 0.2, 0.9, 0.8)
    work = Work(
        str(tmp_path / "studies"),
        Pretended(*(TrainedTrial((value,), 1.0) for value in values[:3])),
        Workplace(store),
        lambda _: None,
    )
    assert search_rows(plan, work)
    row = next(row for row in rows_of(file, [cell for _, cell in plan.cells]) if row.cell.label == "sasrec")
    search = open_search(row.cell, row.space, row.tune, plan.datasets["world"], work.storage)
    more = Pretended(*(TrainedTrial((value,), 1.0) for value in values[3:]))
    assert run_search(search, Budget(5, None), more, work.workplace, work.emit)
    whole = study_result(search.study, search.place)
    assert (len(whole.trials), whole.best.value) == (5, 0.9)
    assert search_rows(plan, work)
    for _, cell in with_winners(plan, work.storage, store).cells:
        if cell.label == "sasrec":
            rate = cell.training.learning_rate
            assert (rate, cell.tuning) == (whole.trials[1].settings["training.learning_rate"], "tuned, 3 trials")
    counted = whole.first(3)
    assert (counted.seconds, counted.best.value, counted.words) == (3.0, 0.3, "tuned, 3 trials")
    assert whole.first(5) == whole


def test_a_tuned_run_outlives_its_processes(suite, tmp_path):
    """After kills at any moment, no trial is lost or counted twice, and every winner is trained."""
    arguments = command("run", suite, "--tuned", "--jobs", 2, "--set", "tune.pruner=none", "--quiet")
    chance = np.random.default_rng(0)
    for _ in range(KILLS):
        process = subprocess.Popen(arguments, cwd=tmp_path, env=clean_environment(), start_new_session=True)
        time.sleep(chance.uniform(2, 12))
        if process.poll() is None:
            (os.kill if chance.random() < 0.5 else os.killpg)(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(arguments, cwd=tmp_path, env=clean_environment(), check=False, timeout=300)
    assert done.returncode == 0
    paths = sorted((tmp_path / "reports/studies").glob("*.journal"))
    assert len(paths) == len(SEARCHED)
    for path in paths:
        trials = optuna.load_study(study_name=path.stem, storage=open_storage(str(path))).get_trials()
        kept = [tuple(trial.params.items()) for trial in trials if trial.state == TrialState.COMPLETE]
        assert len(kept) == len(set(kept)) == 3
        assert not [trial for trial in trials if trial.state == TrialState.RUNNING]
    query = command("query", "SELECT DISTINCT tuning, status FROM run_cells JOIN cells USING (key)"
                    " WHERE run = (SELECT max(run) FROM runs)", "--json")  # fmt: skip
    found = json.loads(
        subprocess.run(query, cwd=tmp_path, env=clean_environment(), check=True, capture_output=True).stdout
    )
    assert {(cell["tuning"], cell["status"]) for cell in found} == {
        (words, "complete") for words in ("nothing to tune", "published settings", "tuned, 3 trials")
    }


def test_controls_and_further_protocols_take_the_settings_of_their_dataset(tmp_path):
    text = SUITE + "[protocols.masked]\nmask_history = true\n[controls]\nproviders = ['shuffled']\n"
    file = tuned_file(parse_suite(tmp_path / "tiny.toml", text))
    store, events = tmp_path / "reports/store.duckdb", []
    plan = make_plan(file, tmp_path / "data", store, events.append)
    work = Work(str(tmp_path / "studies"), Pretended(), Workplace(store), events.append)
    assert search_rows(plan, work)
    assert len([event for event in events if isinstance(event, SearchStarted)]) == len(SEARCHED)
    cells = [cell for _, cell in with_winners(plan, work.storage, store).cells if cell.label == "ipsrec-s"]
    assert len({cell.dataset for cell in cells}) == 3
    assert {cell.tuning for cell in cells} == {"tuned, 3 trials"}
    ranked_again = [cell for cell in cells if cell.parent]
    assert ranked_again
    assert all(cell.parent.config == cell.config == cells[0].config for cell in ranked_again)
    assert all(cell.parent.training == cells[0].training for cell in ranked_again)


def test_each_test_period_and_each_training_of_its_own_is_searched_by_itself(tmp_path):
    """The validation targets of one test period are test targets of the one before it."""
    text = (
        'title = "t"\n[datasets.world]\nsource = "synthetic"\nusers = 60\nitems = 30\nproviders = 5\n'
        '[protocol]\nsplit = "temporal"\nfolds = 2\n[protocols.masked]\nmask_history = true\n[models.ipsrec-s]\n'
        '[controls]\nproviders = ["shuffled"]\n'
    )
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    file = load_suite(tmp_path / "s.toml")
    searched = [row.cell.dataset for row in rows_of(file, cells_of(file))]
    assert searched == ["world", "world, fold 1 of 2"]
