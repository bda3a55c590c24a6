"""Runs: resumed after a kill, reproducible, and never losing finished cells."""

import json
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import duckdb
import pytest

from ipsrec_bench.events import CellFailed, CellFinished, RunFinished
from ipsrec_bench.run import cell as cell_module
from ipsrec_bench.run.costs import NoCost
from ipsrec_bench.run.engine import Policy, execute
from ipsrec_bench.run.executors.inline import Inline
from ipsrec_bench.run.plan import RunOptions, make_plan, preview
from ipsrec_bench.suite.load import load_suite

from .conftest import TINY_SUITE, clean_environment, command

STORE = Path("reports/ipsrec-bench.duckdb")
HERE = partial(Inline, "cpu", 1)
"""The executor of runs in this process."""


def run_suite(path, folder, overrides=(), force=False):
    events = []
    store = folder / STORE
    plan = make_plan(load_suite(path, overrides), folder / "data", store, events.append)
    ended = execute(plan, store, HERE, events.append, policy=Policy(force=force))
    return ended, events, store


def table(store, sql):
    with duckdb.connect(str(store), read_only=True) as connection:
        return connection.execute(sql).fetchall()


ALL_RANKS = 'SELECT key, split, "user", higher, ties FROM ranks JOIN cells USING (cell) ORDER BY ALL'


def test_a_run_fills_the_store_and_a_second_one_does_nothing(tiny_suite, tmp_path):
    ended, events, store = run_suite(tiny_suite, tmp_path)
    assert (ended.complete, ended.failed, ended.interrupted) == (8, 0, False)
    assert table(store, "SELECT count(*), count(DISTINCT key) FROM cells WHERE status = 'complete'") == [(8, 8)]
    users = table(store, "SELECT valid_users, test_users FROM splits")[0]
    assert set(table(store, "SELECT split, count(*) FROM ranks GROUP BY cell, split")) == {
        ("valid", users[0]),
        ("test", users[1]),
    }
    finished = [event for event in events if isinstance(event, CellFinished)]
    in_sql = dict(
        table(
            store,
            "SELECT key, avg(ndcg(rank, 10)) FROM user_ranks JOIN cells USING (cell) WHERE split = 'test' GROUP BY key",
        )
    )
    assert {event.key: pytest.approx(event.metrics["ndcg@10"]) for event in finished} == in_sql
    curves = table(store, "SELECT type, count(*) FROM epochs JOIN cells USING (cell) GROUP BY type ORDER BY type")
    assert curves == [("ipsrec-s", 8), ("sasrec", 4)]
    before = table(store, ALL_RANKS)
    again, _, _ = run_suite(tiny_suite, tmp_path)
    assert (again.complete, again.failed) == (0, 0)
    assert table(store, ALL_RANKS) == before
    assert table(store, "SELECT count(*) FROM runs") == [(2,)]


def test_the_same_cells_have_the_same_ranks_and_force_runs_them_again(finished, tmp_path):
    _, _, other = run_suite(finished / "tiny.toml", tmp_path / "other")
    assert table(finished / STORE, ALL_RANKS) == table(other, ALL_RANKS)
    ended, _, _ = run_suite(finished / "tiny.toml", finished, force=True)
    assert ended.complete == 8
    assert table(finished / STORE, ALL_RANKS) == table(other, ALL_RANKS)


def test_views_show_the_newest_run_of_each_suite(finished):
    _, _, store = run_suite(finished / "tiny.toml", finished, ["models.sasrec.n_layers=1"])
    users = table(store, "SELECT test_users FROM splits")[0][0]
    rows = table(store, "SELECT suite, model, variant, seed, users FROM metrics WHERE split = 'test'")
    assert len(rows) == 10  # models that count stand for both seeds
    assert {(suite, count) for suite, *_, count in rows} == {("tiny", users)}
    assert table(store, "SELECT count(*) FROM cells") == [(10,)]


def test_a_changed_setting_runs_only_what_it_changes(finished):
    ended, _, _ = run_suite(finished / "tiny.toml", finished, ["models.ipsrec-s.lambda=0.5"])
    assert ended.complete == 2  # both seeds of the model; its variant sets lambda itself


def test_a_failing_cell_is_recorded_and_the_others_go_on(tiny_suite, tmp_path):
    ended, events, store = run_suite(tiny_suite, tmp_path, ["models.sasrec.training.learning_rate=1e30"])
    assert (ended.complete, ended.failed) == (6, 2)
    assert all("not finite" in event.error for event in events if isinstance(event, CellFailed))
    errors = table(store, "SELECT error FROM cells WHERE status = 'failed'")
    assert len(errors) == 2
    assert all("Traceback" in error and "not finite" in error for (error,) in errors)
    again, _, _ = run_suite(tiny_suite, tmp_path, ["models.sasrec.training.learning_rate=1e30"])
    assert (again.complete, again.failed) == (0, 2)


def test_an_interruption_keeps_what_is_finished(tiny_suite, tmp_path, monkeypatch):
    done = []

    def interrupted(key, cell, *rest):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(key)
        return original(key, cell, *rest)

    original = cell_module.run_cell
    monkeypatch.setattr(cell_module, "run_cell", interrupted)
    ended, events, store = run_suite(tiny_suite, tmp_path)
    assert isinstance(events[-1], RunFinished)
    assert (ended.complete, ended.interrupted) == (3, True)
    monkeypatch.setattr(cell_module, "run_cell", original)
    assert run_suite(tiny_suite, tmp_path)[0].complete == 5
    assert table(store, "SELECT count(*), count(DISTINCT key) FROM cells") == [(8, 8)]


def test_a_finished_cell_waits_for_a_busy_store(tiny_suite, tmp_path):
    """A reader that keeps the store open delays the run; nothing is lost."""
    with subprocess.Popen(
        command("run", tiny_suite, "--json"), cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        store, holder, waited = tmp_path / STORE, None, False
        for line in process.stdout:
            event = json.loads(line)["event"]
            if event == "cell-started" and holder is None:
                holder = duckdb.connect(str(store), read_only=True)
            if event == "store-busy":
                waited = True
                time.sleep(0.2)
                holder.close()
        assert process.wait() == 0
    assert waited
    assert table(store, "SELECT count(*) FROM cells WHERE status = 'complete'") == [(8,)]


def test_a_preview_says_what_would_run_and_writes_nothing(tiny_suite, tmp_path):
    file, asked = load_suite(tiny_suite), []

    def estimate(cell, data):
        asked.append((cell.label, cell.seed, data.name))
        return NoCost("not asked for", does_not_fit=False)

    def cells(*, force=False):
        return preview(file, tmp_path / "data", tmp_path / STORE, RunOptions(force=force, device="cpu"), estimate)

    before = cells()
    assert {cell.state for cell in before} == {"data not prepared"}
    assert {cell.estimate for cell in before} == {None}
    assert not asked
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.toml"]
    run_suite(tiny_suite, tmp_path, ["seeds=[1]"])
    after = cells()
    assert [cell.state for cell in after] == ["done"] * 5 + ["to do"] * 3
    assert asked == [("sasrec", 2, "world"), ("ipsrec-s", 2, "world"), ("ipsrec-s w/o CL", 2, "world")]
    assert [cell.estimate is None for cell in after] == [cell.state == "done" for cell in after]
    assert {cell.state for cell in cells(force=True)} == {"to do"}
    assert [cell.label for cell in after if cell.seed is None] == ["pop", "recent-pop"]


def test_an_approximate_objective_is_named_in_every_table(tiny_suite, tmp_path):
    overrides = ["seeds=[1]", "training.objective=gbce", "training.negatives=9", "training.epochs=1"]
    _, events, store = run_suite(tiny_suite, tmp_path, overrides)
    labels = {event.label for event in events if isinstance(event, CellFinished)}
    assert {"pop", "sasrec (gbce, 9 negatives, t = 0.75)"} <= labels
    for where in ("run_cells", "metrics", "user_ranks"):
        titles = {title for (title,) in table(store, f"SELECT DISTINCT title FROM {where}")}
        assert {"Pop", "SASRec (gbce, 9 negatives, t = 0.75)"} <= titles


def test_a_masked_history_reaches_validation_and_test(finished, tmp_path):
    """Pop is the same model either way, so no rank of it may get worse, and some must get better."""
    plain = finished / STORE
    _, _, masked = run_suite(finished / "tiny.toml", tmp_path / "masked", ["protocol.mask_history=true"])
    pop = """SELECT split, "user", higher FROM ranks JOIN cells USING (cell)
             WHERE type = 'pop' AND seed = 1 ORDER BY ALL"""
    before = {(split, user): higher for split, user, higher in table(plain, pop)}
    after = {(split, user): higher for split, user, higher in table(masked, pop)}
    assert after.keys() < before.keys()  # without those whose target is in their history
    assert all(higher <= before[place] for place, higher in after.items())
    assert {place[0] for place, higher in after.items() if higher < before[place]} == {"valid", "test"}


def test_only_the_main_thread_flushes_denormals_and_only_in_training(tmp_path):
    """Two threads, in a process whose first cell is a neural one. The process does not load torch's compiler either."""
    program = """
        import sys
        from functools import partial
        from pathlib import Path
        import numpy as np
        import torch
        from ipsrec_bench.run import cell
        from ipsrec_bench.run.engine import Policy, execute
        from ipsrec_bench.run.executors.inline import Inline
        from ipsrec_bench.run.plan import RunOptions, make_plan
        from ipsrec_bench.suite.load import load_suite

        tiny = torch.from_numpy(np.full(1 << 20, 1e-40, dtype=np.float32))  # made without torch's threads

        def exact():
            return (tiny * 0.5).view(torch.int32).count_nonzero().item() / len(tiny)

        def watched(name, call):
            def watching(*arguments, **options):
                found = call(*arguments, **options)
                print(name, exact())
                return found
            return watching

        cell.fit = watched("training", cell.fit)
        cell.rank_targets = watched("ranking", cell.rank_targets)
        store = Path("s.duckdb")
        plan = make_plan(load_suite(Path("tiny.toml")), Path("data"), store, lambda _: None)
        execute(plan, store, partial(Inline, "cpu", 2), lambda _: None)
        print("afterwards", exact())
        assert "torch._dynamo" not in sys.modules
    """
    (tmp_path / "tiny.toml").write_text(
        TINY_SUITE.replace("[models.pop]\n[models.recent-pop]\n", "").replace("[1, 2]", "[1]")
    )
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {line for line in lines if line.startswith("training")} == {"training 0.5"}
    assert {line for line in lines if line.startswith("ranking")} == {"ranking 1.0"}
    assert lines[-1] == "afterwards 1.0"


def test_every_cell_records_how_long_it_trained(finished):
    """Models that count have no epochs, but they take time, too."""
    found = table(finished / STORE, "SELECT type, train_seconds > 0 AND train_seconds < seconds FROM cells")
    assert {name for name, _ in found} == {"pop", "recent-pop", "sasrec", "ipsrec-s"}
    assert all(sensible for _, sensible in found)
