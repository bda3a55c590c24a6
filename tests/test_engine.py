"""The coordinator: policies, pauses, workers that die, and ranks that do not depend on where a cell was trained."""

import sys
import time
from functools import partial

import pytest

from ipsrec_bench.errors import StoreError
from ipsrec_bench.events import (
    CellFailed,
    CellFinished,
    CellInterrupted,
    CellStarted,
    EpochDone,
    RunPaused,
    RunPlanned,
    RunResumed,
)
from ipsrec_bench.run.admission import Begin, Probe
from ipsrec_bench.run.engine import Policy, execute
from ipsrec_bench.run.executors.api import Died, Done, Executor, Refused, Slot, Stopped
from ipsrec_bench.run.executors.pool import Pool
from ipsrec_bench.run.plan import make_plan
from ipsrec_bench.suite.load import load_suite

from .test_run import ALL_RANKS, HERE, STORE, table

POOL = partial(Pool, [Slot("worker 1", "cpu", 1), Slot("worker 2", "cpu", 1)])
LONG = ["seeds=[1]", "training.epochs=100000", "training.patience=100000"]


def run(suite, folder, overrides=(), executor=HERE, listen=lambda _: None, **options):
    events = []

    def emit(event):
        events.append(event)
        listen(event)

    plan = make_plan(load_suite(suite, overrides), folder / "data", folder / STORE, emit)
    return execute(plan, folder / STORE, executor, emit, **options), events


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def test_a_pool_makes_the_ranks_that_one_process_makes(tiny_suite, tmp_path, finished_once):
    ended, events = run(tiny_suite, tmp_path, executor=POOL)
    assert (ended.complete, ended.failed) == (8, 0)
    assert table(tmp_path / STORE, ALL_RANKS) == table(finished_once / STORE, ALL_RANKS)
    assert {event.worker for event in of(CellStarted, events)} == {"worker 1", "worker 2"}
    assert len(list((tmp_path / "reports/checkpoints").iterdir())) == 8
    assert not list((tmp_path / f"{STORE}.d/cells").iterdir())
    (planned,) = of(RunPlanned, events)
    assert {event.key for event in of(CellFinished, events)} == {key for key, *_, state in planned.grid}


def test_a_run_that_fails_fast_ends_with_its_first_failure(tiny_suite, tmp_path):
    overrides = ["models.sasrec.training.learning_rate=1e30"]
    ended, events = run(tiny_suite, tmp_path, overrides, policy=Policy(fail_fast=True))
    assert (ended.failed, ended.interrupted) == (1, False)
    assert len(of(CellStarted, events)) < 8
    assert run(tiny_suite, tmp_path, overrides)[0].failed == 2


def test_a_cell_that_takes_too_long_fails_and_the_others_go_on(tiny_suite, tmp_path):
    head, _, tail = tiny_suite.read_text().partition("[models.ipsrec-s]")
    tiny_suite.write_text(f"{head}[models.repeat]\n[training]{tail.partition('[training]')[2]}")
    ended, events = run(tiny_suite, tmp_path, LONG, policy=Policy(timeout=4.0))
    assert (ended.complete, ended.failed) == (3, 1)
    (failed,) = of(CellFailed, events)
    assert failed.label == "sasrec"
    assert failed.error == "the cell took longer than 4 seconds (--timeout); the next run tries it again"
    rows = table(tmp_path / STORE, "SELECT type FROM cells WHERE status = 'failed'")
    assert rows == [("sasrec",)]


@pytest.mark.parametrize("word", ["stop", "stop-now"])
def test_a_run_stops_on_request(tiny_suite, tmp_path, word):
    epochs = []
    ended, events = run(
        tiny_suite, tmp_path, LONG, wanted=lambda: word if len(epochs) > 4 else "run",
        listen=lambda event: epochs.append(event) if isinstance(event, EpochDone) else None,
    )  # fmt: skip
    assert ended.interrupted
    (interrupted,) = of(CellInterrupted, events)
    assert interrupted.label == "sasrec"
    assert table(tmp_path / STORE, "SELECT count(*) FROM cells") == [(2,)]
    assert run(tiny_suite, tmp_path, ["seeds=[1]"])[0].complete == 3


def test_a_paused_run_waits_until_it_is_resumed(tiny_suite, tmp_path):
    words = iter(["run"] * 3 + ["pause"] * 3)
    ended, events = run(tiny_suite, tmp_path, ["seeds=[1]"], wanted=lambda: next(words, "run"))
    assert ended.complete == 5
    paused, resumed = of(RunPaused, events)[0], of(RunResumed, events)[0]
    assert resumed.time - paused.time >= 0.2
    between = events[events.index(paused) + 1 : events.index(resumed)]
    assert between == []


def test_the_weights_of_finished_cells_need_not_be_kept(tiny_suite, tmp_path):
    assert run(tiny_suite, tmp_path, ["seeds=[1]"], policy=Policy(keep="none"))[0].complete == 5
    assert not (tmp_path / "reports/checkpoints").exists()
    assert not list((tmp_path / f"{STORE}.d/cells").iterdir())


def test_a_failed_cell_is_recorded_with_what_its_worker_printed(tiny_suite, tmp_path):
    (tmp_path / "talks.py").write_text(
        "import sys\nfrom ipsrec_bench.models.configs import ModelConfig\nfrom ipsrec_bench.models.pop import Pop\n"
        "class Talks(Pop):\n    config_type = ModelConfig\n    def fit(self, log):\n"
        "        print('before it failed')\n        raise ValueError('bad luck')\n"
    )
    suite = tiny_suite.read_text().partition("[models")[0].replace("[1, 2]", "[1]")
    tiny_suite.write_text(f'{suite}[models.talks]\ntype = "talks:Talks"\n')
    ended, events = run(tiny_suite, tmp_path, executor=POOL)
    assert ended.failed == 1
    ((error,),) = table(tmp_path / STORE, "SELECT error FROM cells")
    assert error.rstrip().endswith("ValueError: bad luck\n\nLast lines of its output:\nbefore it failed")
    assert of(CellFailed, events)[0].error == "ValueError: bad luck"


def test_a_model_that_is_edited_during_a_run_is_not_trained_as_what_it_was(tiny_suite, tmp_path):
    source = tmp_path / "edited.py"
    source.write_text(
        "from ipsrec_bench.models.configs import ModelConfig\nfrom ipsrec_bench.models.pop import Pop\n"
        "class Edited(Pop):\n    config_type = ModelConfig\n"
    )
    suite = tiny_suite.read_text().partition("[models")[0].replace("[1, 2]", "[1]")
    tiny_suite.write_text(f'{suite}[models.edited]\ntype = "edited:Edited"\n')

    def edit(event):
        if isinstance(event, RunPlanned):
            source.write_text(source.read_text() + "    pass  # and now another line\n")

    ended, events = run(tiny_suite, tmp_path, executor=POOL, listen=edit)
    sys.modules.pop("edited")
    assert ended.failed == 1
    (failed,) = of(CellFailed, events)
    assert failed.error.endswith("the code of 'edited:Edited' has changed since the run began; run the suite again")


class Scripted(Executor):
    """Two slots, and tasks whose ends a test scripts."""

    def __init__(self, script):
        self.script, self.tasks, self.killed, self.calls = script, [], [], 0

    def __call__(self, _emit, tick):
        self.tick = tick
        return self

    def free(self):
        return [Slot(name, "cpu", 1) for name in "ab" if name not in [slot.worker for slot, _ in self.tasks]]

    def begin(self, slot, task):
        self.tasks.append((slot, task))

    def outcomes(self, seconds):
        self.calls += 1
        time.sleep(min(seconds, 0.02))
        self.tick()
        ended = self.script(self)
        self.tasks = [pair for pair in self.tasks if pair[1].key not in [outcome.key for outcome in ended]]
        return ended

    def kill(self, key, cause):
        self.killed.append((key, cause))

    def stop(self, key):
        pass

    def pause(self, *, held):
        pass

    def close(self):
        pass


class Probing:
    """An admission that probes every cell before it begins."""

    def __init__(self):
        self.found = set()

    def next(self, waiting, *_):
        return Begin(waiting[0]) if waiting[0] in self.found else Probe(waiting[0])

    def learn(self, key, _finding):
        self.found.add(key)


def test_the_time_of_a_cell_is_limited_also_after_a_probe_that_ended_with_it(tiny_suite, tmp_path):
    def script(executor):
        ((_, task),) = executor.tasks
        if executor.calls > 500:
            return [Stopped(task.key)]
        if len(executor.killed) == 1 and not executor.admission.found:
            return [Done(task.key, None)]
        return [Died(task.key, "it took too long")] if len(executor.killed) == 2 else []

    executor = Scripted(script)
    executor.admission = Probing()
    ended, events = run(
        tiny_suite, tmp_path, ["seeds=[1]", 'models=["pop"]'], executor=executor, policy=Policy(timeout=0.2),
        admission=executor.admission,
    )  # fmt: skip
    assert len(executor.killed) == 2
    assert ended.failed == 1
    assert "longer than 0.2 seconds" in of(CellFailed, events)[0].error


def test_a_cell_that_has_ended_beside_one_that_is_refused_is_settled_too(tiny_suite, tmp_path):
    def script(executor):
        if executor.calls > 1:
            return []
        (_, one), (_, other) = executor.tasks
        return [Refused(one.key, StoreError("the disk is full")), Stopped(other.key)]

    executor, events = Scripted(script), []
    with pytest.raises(StoreError, match="the disk is full"):
        run(tiny_suite, tmp_path, executor=executor, listen=events.append)
    assert executor.calls == 1
    assert len(of(CellInterrupted, events)) == 1


def test_time_of_the_run_itself_does_not_count_against_running_cells(tiny_suite, tmp_path):
    def script(executor):
        return [Stopped(executor.tasks[0][1].key)]

    executor = Scripted(script)
    run(
        tiny_suite, tmp_path, ["seeds=[1]", 'models=["pop","sasrec"]'], executor=executor, policy=Policy(timeout=0.3),
        listen=lambda event: time.sleep(0.5) if isinstance(event, CellInterrupted) else None,
    )  # fmt: skip
    assert (executor.calls, executor.killed) == (2, [])
