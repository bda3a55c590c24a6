"""Runs that share a store, runs that are killed, and results that the store could not take."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest

from ipsrec_bench.errors import StoreError
from ipsrec_bench.events import CellFailed, CellFinished, CellFound, CellsAwaited, CellStarted, RunStarted, StoreBusy
from ipsrec_bench.run import cell as cell_module
from ipsrec_bench.run import recording
from ipsrec_bench.run.engine import Policy, execute
from ipsrec_bench.run.kept import kept_record
from ipsrec_bench.run.plan import make_plan
from ipsrec_bench.run.workplace import KEPT, STATE, Workplace, at_work
from ipsrec_bench.store import connect
from ipsrec_bench.suite.load import load_suite

from .conftest import clean_environment, command
from .test_run import ALL_RANKS, HERE, STORE, run_suite, table

KILLS = int(os.environ.get("IPSREC_BENCH_KILLS", "2"))
"""How often runs are killed; twenty take two minutes."""


ONE_SEED = ["seeds=[1]"]


def ranks_of_seed_1(folder: Path) -> list[tuple]:
    return table(folder / STORE, ALL_RANKS.replace("ORDER", "WHERE seed = 1 ORDER"))


def working_folders(store: Path) -> list[str]:
    return [path.name for part in ("cells", "trials") for path in (store.with_name(f"{store.name}.d") / part).glob("*")]


def test_a_claim_keeps_others_out_until_its_owner_ends(tmp_path):
    one, other = Workplace(tmp_path / "s.duckdb"), Workplace(tmp_path / "s.duckdb")
    claim = one.claim("k", "a cell")
    (claim.folder / "weights").touch()
    assert other.claim("k", "a cell") is None
    other.claim("l", "another").give_back()
    other.sweep()
    assert (claim.folder / "weights").exists()
    claim.give_back()
    claim.give_back()  # the second time does nothing
    assert working_folders(tmp_path / "s.duckdb") == []
    assert other.claim("k", "a cell") is not None


def test_a_claim_also_holds_through_a_link_to_the_store(tmp_path):
    (tmp_path / "link.duckdb").symlink_to("s.duckdb")
    one, other = Workplace(tmp_path / "s.duckdb"), Workplace(tmp_path / "link.duckdb")
    claim = one.claim("k", "a cell")
    assert claim is not None
    assert other.claim("k", "a cell") is None


def test_a_folder_cannot_be_claimed_while_an_orphaned_worker_writes_there(tmp_path):
    place = Workplace(tmp_path / "s.duckdb")
    claim = place.claim("k", "a cell")
    with at_work(claim.folder):
        (claim.folder / STATE).touch()
        claim.give_back()
        assert place.claim("k", "a cell") is None
    assert place.claim("k", "a cell") is not None


def test_the_claim_of_a_killed_owner_is_taken_over_and_its_files_are_swept(tmp_path):
    """Except for a training that can be resumed."""
    program = """
        import os, signal
        from pathlib import Path
        from ipsrec_bench.run.workplace import STATE, Workplace
        place = Workplace(Path("s.duckdb"))
        with place.scratch() as scratch:
            cell, other, begun = (place.claim(key, "a cell").folder for key in "klm")
            for folder in (cell, other, begun, scratch):
                (folder / "best.safetensors").touch()
            (begun / STATE).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, check=False)
    place = Workplace(tmp_path / "s.duckdb")
    assert len(working_folders(tmp_path / "s.duckdb")) == 4
    claim = place.claim("k", "a cell")
    assert not (claim.folder / "best.safetensors").exists()
    place.sweep()
    assert sorted(working_folders(tmp_path / "s.duckdb")) == ["k", "m"]
    assert (place.claim("m", "a cell").folder / "best.safetensors").exists()


def run_beside(tiny_suite, tmp_path, during):
    """Run the suite while another run seems to have its second cell, until this one has nothing else to do."""
    store, events = tmp_path / STORE, []
    file = load_suite(tiny_suite, ONE_SEED)
    key = make_plan(file, tmp_path / "data", store, lambda _: None).cells[1][0]
    with contextlib.ExitStack() as other:
        other.callback(Workplace(store).claim(key, "a cell").give_back)

        def emit(event):
            events.append(event)
            if isinstance(event, CellsAwaited):
                other.close()
                during()

        plan = make_plan(file, tmp_path / "data", store, emit)
        ended = execute(plan, store, HERE, emit)
    return key, ended, events


def test_a_run_trains_other_cells_first_and_takes_over_what_another_run_gave_up(tiny_suite, tmp_path, finished_once):
    key, ended, events = run_beside(tiny_suite, tmp_path, lambda: None)
    assert ended.complete == 5
    assert CellsAwaited(1) in events
    assert next(event.key for event in reversed(events) if isinstance(event, CellFinished)) == key
    assert ranks_of_seed_1(tmp_path) == ranks_of_seed_1(finished_once)
    assert working_folders(tmp_path / STORE) == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_takes_the_result_of_a_cell_that_another_run_has_trained(tiny_suite, tmp_path, monkeypatch, fails):
    """This includes its failure, which is not retried at once."""
    if fails:
        monkeypatch.delattr(cell_module, "build_model")
    key, ended, events = run_beside(tiny_suite, tmp_path, lambda: run_suite(tiny_suite, tmp_path, ONE_SEED))
    assert key not in {event.key for event in events if isinstance(event, CellStarted)}
    (found,) = (event for event in events if getattr(event, "key", "") == key)
    assert isinstance(found, CellFailed if fails else CellFound)
    assert (ended.complete, ended.failed) == ((0, 5) if fails else (4, 0))
    assert table(tmp_path / STORE, "SELECT count(*), count(DISTINCT key) FROM cells") == [(5, 5)]


def test_two_runs_that_are_forced_train_a_cell_once(finished):
    """A cell that was trained after both runs began is new to both."""
    before = table(finished / STORE, "SELECT max(cell) FROM cells")[0][0]
    file = load_suite(finished / "tiny.toml", ONE_SEED)
    plan = make_plan(file, finished / "data", finished / STORE, lambda _: None)
    started = []

    def emit(event):
        started.append(event) if isinstance(event, CellStarted) else None
        if isinstance(event, RunStarted) and not started:
            started.append(None)
            run_suite(finished / "tiny.toml", finished, ONE_SEED, force=True)

    ended = execute(plan, finished / STORE, HERE, emit, policy=Policy(force=True))
    assert (ended.complete, started) == (0, [None])
    assert table(finished / STORE, f"SELECT count(*) FROM cells WHERE cell > {before}") == [(5,)]


def test_a_cell_whose_weights_others_have_written_is_not_accepted(tiny_suite, tmp_path):
    store, events = tmp_path / STORE, []

    def emit(event):
        events.append(event)
        if type(event).__name__ == "EpochDone" and event.label == "sasrec" and event.epoch == 2:
            (path,) = (store.with_name(f"{store.name}.d") / "cells").glob("*/*.safetensors")
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)

    plan = make_plan(load_suite(tiny_suite, [*ONE_SEED, "training.patience=1"]), tmp_path / "data", store, emit)
    execute(plan, store, HERE, emit)
    (failed,) = (event for event in events if isinstance(event, CellFailed))
    assert "another program has changed the best weights" in failed.error


def test_a_cell_is_accepted_only_if_its_validation_ranks_give_its_metric(tiny_suite, tmp_path, monkeypatch):
    def other_metric(*arguments):
        record = original(*arguments)
        return dataclasses.replace(record, best_valid=record.best_valid + 0.01)

    original = cell_module.run_cell
    monkeypatch.setattr(cell_module, "run_cell", other_metric)
    ended, events, store = run_suite(tiny_suite, tmp_path, [*ONE_SEED, 'models=["pop"]'])
    assert (ended.complete, ended.failed) == (0, 1)
    assert "its validation ranks give mrr@10 = " in next(e.error for e in events if isinstance(e, CellFailed))
    assert table(store, "SELECT count(*) FROM ranks") == [(0,)]


@pytest.fixture
def full_disk(monkeypatch):
    """Make the store refuse cells until the returned function is called."""

    def refuse(*_):
        raise duckdb.IOException('IO Error: Could not write file "s.duckdb": No space left on device')

    original = recording.record_cell
    monkeypatch.setattr(recording, "record_cell", refuse)
    return lambda: monkeypatch.setattr(recording, "record_cell", original)


def test_a_trained_cell_that_the_store_cannot_take_is_entered_by_the_next_run(
    tiny_suite, tmp_path, full_disk, finished_once, monkeypatch
):
    with pytest.raises(
        StoreError, match=r"the disk is full\. A trained cell is kept in .*, and the next run enters it"
    ):
        run_suite(tiny_suite, tmp_path, ONE_SEED)
    (folder,) = (tmp_path / f"{STORE}.d/cells").iterdir()
    assert kept_record(folder).error is None
    full_disk()
    trained = []
    original = cell_module.run_cell
    monkeypatch.setattr(cell_module, "run_cell", lambda key, *rest: (trained.append(key), original(key, *rest))[1])
    ended, events, store = run_suite(tiny_suite, tmp_path, ONE_SEED)
    assert folder.name not in trained
    assert (ended.complete, events[1].skipped) == (4, 1)
    assert ranks_of_seed_1(tmp_path) == ranks_of_seed_1(finished_once)
    same = "SELECT key, status, parameters, best_epoch, best_valid, settings FROM cells WHERE seed = 1 ORDER BY key"
    assert table(store, same) == table(finished_once / STORE, same)
    assert working_folders(store) == []
    assert len(list((tmp_path / "reports/checkpoints").iterdir())) == 5


def test_a_cell_that_was_kept_and_then_killed_has_its_weights(tiny_suite, tmp_path, monkeypatch):
    """The kill comes when the result is complete, and before the weights are moved to the checkpoints."""

    def killed(*_):
        raise KeyboardInterrupt

    pop = [*ONE_SEED, 'models=["pop"]']
    with monkeypatch.context() as patched:
        patched.setattr(recording, "_move_weights", killed)
        assert run_suite(tiny_suite, tmp_path, pop)[0].interrupted
    ended, _, store = run_suite(tiny_suite, tmp_path, pop)
    assert ended.complete == 0
    ((key,),) = table(store, "SELECT key FROM cells WHERE status = 'complete'")
    assert [path.name for path in (tmp_path / "reports/checkpoints").iterdir()] == [f"{key}.safetensors"]
    assert working_folders(store) == []


def test_deaths_of_a_completed_cell_are_forgotten(tiny_suite, tmp_path):
    pop = [*ONE_SEED, 'models=["pop"]']
    store = tmp_path / STORE
    ((key, _),) = make_plan(load_suite(tiny_suite, pop), tmp_path / "data", store, lambda _: None).cells
    assert Workplace(store).note_death(key, "it was killed by SIGKILL") == 1
    assert run_suite(tiny_suite, tmp_path, pop)[0].complete == 1
    assert Workplace(store).deaths() == {}


def test_a_run_waits_for_readers_of_the_store_before_it_begins(tiny_suite, tmp_path):
    """A report takes a while; the data may have been prepared for hours."""
    pop = [*ONE_SEED, 'models=["pop"]']
    _, _, store = run_suite(tiny_suite, tmp_path, pop)
    script = "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "open\n"
        said = []

        def emit(event):
            said.append(event)
            if isinstance(event, StoreBusy):
                other.communicate("\n")

        plan = make_plan(load_suite(tiny_suite, pop), tmp_path / "data", store, emit)
        execute(plan, store, HERE, emit)
    names = [type(event).__name__ for event in said]
    assert names == ["DatasetReady", "StoreBusy", "RunStarted", "RunPlanned", "RunFinished"]


def test_a_kept_cell_is_entered_also_where_the_store_was_replaced(tiny_suite, tmp_path, full_disk):
    with pytest.raises(StoreError):
        run_suite(tiny_suite, tmp_path, [*ONE_SEED, 'models=["pop"]'])
    full_disk()
    (tmp_path / STORE).unlink()
    ended, _, store = run_suite(tiny_suite, tmp_path, [*ONE_SEED, 'models=["pop"]'])
    assert ended.complete == 0
    assert table(store, "SELECT count(*) FROM current_cells") == [(1,)]


def test_a_kept_cell_that_is_damaged_is_trained_again(tiny_suite, tmp_path, full_disk):
    with pytest.raises(StoreError):
        run_suite(tiny_suite, tmp_path, [*ONE_SEED, 'models=["pop"]'])
    full_disk()
    (kept,) = (tmp_path / f"{STORE}.d/cells").glob(f"*/{KEPT}")
    kept.write_bytes(kept.read_bytes()[:-100])
    ended, _, store = run_suite(tiny_suite, tmp_path, [*ONE_SEED, 'models=["pop"]'])
    assert ended.complete == 1
    assert working_folders(store) == []


def test_a_kept_cell_that_cannot_be_read_now_is_not_lost(tiny_suite, tmp_path, full_disk, monkeypatch):
    pop = [*ONE_SEED, 'models=["pop"]']
    with pytest.raises(StoreError):
        run_suite(tiny_suite, tmp_path, pop)
    full_disk()

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("ipsrec_bench.run.kept.safe_open", refused)
        with pytest.raises(StoreError, match="a kept result cannot be read: Permission denied"):
            run_suite(tiny_suite, tmp_path, pop)
    assert run_suite(tiny_suite, tmp_path, pop)[0].complete == 0


def test_a_full_disk_ends_a_run_before_training_where_the_result_would_not_fit(tiny_suite, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(StoreError, match="cannot be written: the disk is full; make room and run the same command"):
        run_suite(tiny_suite, tmp_path)
    monkeypatch.undo()
    assert run_suite(tiny_suite, tmp_path, [*ONE_SEED, 'models=["pop"]'])[0].complete == 1


def test_weights_that_cannot_be_written_end_the_run_and_fail_no_cell(tiny_suite, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ipsrec_bench.training.weights.save_file", full)
    with pytest.raises(StoreError, match="the best weights cannot be written: the disk is full"):
        run_suite(tiny_suite, tmp_path)
    assert table(tmp_path / STORE, "SELECT count(*) FROM cells") == [(0,)]
    assert working_folders(tmp_path / STORE) == []


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_truncated_store_gets_a_sentence(finished, bench, share):
    store = finished / STORE
    size = store.stat().st_size
    os.truncate(store, int(share * size))
    for arguments in (["run", "tiny.toml"], ["report"], ["query", "SELECT avg(higher) FROM ranks"]):
        done = bench(*arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert "Could not read enough bytes" in done.stderr


def test_a_store_half_made_by_a_killed_process_is_made_anew(tmp_path):
    path = tmp_path / "s.duckdb"
    for name in (".s.duckdb.part", ".s.duckdb.part.wal"):
        (tmp_path / name).write_bytes(b"half")
    with connect.writing(path) as connection:
        assert connection.execute("SELECT count(*) FROM cells").fetchone() == (0,)
    assert [file.name for file in tmp_path.iterdir()] == ["s.duckdb"]


DEADLY = """
import os, signal, sys
from ipsrec_bench.models.configs import ModelConfig
from ipsrec_bench.models.pop import Pop

class Killed(Pop):
    config_type = ModelConfig
    def fit(self, log):
        if not os.path.exists("harmless"):
            os.kill(os.getpid(), signal.SIGKILL)
        super().fit(log)

class Exits(Killed):
    def fit(self, log):
        os._exit(0)

class Quits(Killed):
    def fit(self, log):
        sys.exit("enough")

class Mumbles(Killed):
    def fit(self, log):
        raise ValueError("no text: \\udcff")
"""


@pytest.fixture
def deadly(tiny_suite, tmp_path):
    """Return a function that writes a suite of models that end in these ways, followed by Pop."""
    (tmp_path / f"{tmp_path.name}.py").write_text(DEADLY)  # a module of another name for each test

    def build(*classes: str) -> Path:
        head = tiny_suite.read_text().partition("[models")[0].replace("[1, 2]", "[1]")
        models = "".join(f'[models.{name.lower()}]\ntype = "{tmp_path.name}:{name}"\n' for name in classes)
        path = tmp_path / "deadly.toml"
        path.write_text(f"{head}{models}[models.pop]\n")
        return path

    return build


def test_a_cell_that_ends_its_process_twice_is_skipped_until_a_retry_is_requested(
    deadly, bench_process, bench, tmp_path
):
    """It is killed as if out of memory; the other cells still run."""
    suite = deadly("Killed")
    done = bench_process("run", suite, "--json", "--jobs", "1")
    assert done.returncode == 1
    events = [json.loads(line) for line in done.stdout.splitlines()]
    reasons = [event["reason"] for event in events if event["event"] == "worker-ended"]
    assert reasons == ["it was killed by SIGKILL, perhaps out of memory"] * 2
    rows = table(tmp_path / STORE, "SELECT type, error FROM cells ORDER BY type")
    assert [name for name, _ in rows] == ["pop", f"{tmp_path.name}:Killed"]
    assert rows[1][1].startswith("the cell ended its process 2 times (it was killed by SIGKILL, perhaps out of memory)")
    again = bench("run", suite)
    assert "killed, seed 1: FAILED after 0.0 s: the cell ended its process 2 times" in again.stdout
    assert "killed, seed 1: started" not in again.stdout
    (tmp_path / "harmless").touch()
    assert bench("run", suite, "--retry-failed").returncode == 0
    assert table(tmp_path / STORE, "SELECT count(*) FROM cells WHERE status = 'complete'") == [(2,)]


SEARCHED = """
import os, signal
from ipsrec_bench.models.configs import ModelConfig
from ipsrec_bench.models.pop import Pop

class Config(ModelConfig):
    alpha: int = 1

class Killed(Pop):
    config_type = Config
    def __init__(self, config, sizes):
        super().__init__(config, sizes)
        self.alpha = config.alpha
    def fit(self, log):
        if self.alpha == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        super().fit(log)
"""


def test_settings_that_kill_every_process_do_not_end_the_search(tiny_suite, bench_process, tmp_path):
    (tmp_path / "searched.py").write_text(SEARCHED)
    head = tiny_suite.read_text().partition("[models")[0]
    tiny_suite.write_text(
        f'{head}[models.killed]\ntype = "searched:Killed"\n[tune]\nsampler = "grid"\n'
        "[tune.space.killed]\nalpha = [1, 2, 3]\n"
    )
    done = bench_process("tune", tiny_suite, "--model", "killed", "--trials", "3")
    assert done.returncode == 0, done.stderr
    assert (done.stdout.count("its settings are tried again"), done.stdout.count("are given up")) == (2, 1)
    assert "2 trials, 0 of them pruned" in done.stdout


def test_a_model_that_exits_or_raises_an_error_of_invalid_text_fails_as_others_do(deadly, bench, tmp_path):
    done = bench("run", deadly("Quits", "Mumbles"))
    assert done.returncode == 1
    errors = dict(table(tmp_path / STORE, "SELECT type, error FROM cells"))
    assert errors[f"{tmp_path.name}:Quits"].strip().endswith("SystemExit: enough")
    assert errors[f"{tmp_path.name}:Mumbles"].strip().endswith(r"ValueError: no text: \udcff")
    assert errors["pop"] is None


def test_two_runs_killed_at_random_train_every_cell_once(tiny_suite, tmp_path):
    """Kills hit all processes of a run or only its first one; the ranks are those of an undisturbed run."""
    settings = ["training.epochs=12", "training.patience=12", "training.batch_size=16"]
    arguments = command("run", tiny_suite, "--json", *(word for setting in settings for word in ("--set", setting)))
    chance = np.random.default_rng(3)
    logs = tmp_path / "logs"
    logs.mkdir()

    def start() -> subprocess.Popen:
        log = (logs / f"{len(list(logs.iterdir()))}.jsonl").open("w")
        with log:
            return subprocess.Popen(
                arguments, cwd=tmp_path, env=clean_environment(), stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    runs = [start(), start()]
    for _ in range(KILLS):
        time.sleep(chance.uniform(0, 4))
        victim = int(chance.integers(2))
        if chance.random() < 0.5:
            runs[victim].kill()
        else:
            os.killpg(runs[victim].pid, signal.SIGKILL)
        runs[victim].wait()
        runs[victim] = start()
    assert [run.wait(timeout=300) for run in runs] == [0, 0], [path.read_text() for path in logs.iterdir()]
    store = tmp_path / STORE
    events = [json.loads(line) for path in logs.iterdir() for line in path.read_text().splitlines()]
    finished = [event["key"] for event in events if event["event"] == "cell-finished"]
    assert len(finished) == len(set(finished))
    assert table(store, "SELECT count(*), count(DISTINCT key) FROM cells WHERE status = 'complete'") == [(8, 8)]
    assert table(store, 'SELECT count(*) = count(DISTINCT (cell, split, "user")) FROM ranks') == [(True,)]
    _, _, whole = run_suite(tiny_suite, tmp_path / "whole", settings)
    assert table(store, ALL_RANKS) == table(whole, ALL_RANKS)
    left = {str(path.relative_to(tmp_path / "reports")) for path in (tmp_path / "reports").rglob("*")}
    assert not {path for path in left if ".part" in path or ".wal" in path}
    assert working_folders(store) == []
    assert not Workplace(store).deaths()
