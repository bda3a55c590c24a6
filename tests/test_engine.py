"""The coordinator: policies, pauses, workers that die, and ranks that do not depend on where a cell was trained."""

from functools import partial

import pytest

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
from ipsrec_bench.run.admission import Probe
from ipsrec_bench.run.engine import Policy, execute
from ipsrec_bench.run.executors.api import Done, Slot
from ipsrec_bench.run.executors.inline import Inline
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
    assert failed.error == "the cell took longer than 4 seconds (--timeout); the next run goes on with it"
    rows = table(tmp_path / STORE, "SELECT type FROM cells WHERE status = 'failed'")
    assert rows == [("sasrec",)]


class EndsLate(Inline):
    """An executor whose first task, a probe, ends in the moment in which it is killed; it takes no other."""

    cause = ""

    def begin(self, slot, task):
        assert not self.cause
        super().begin(slot, task)

    def outcomes(self, _):
        while not self.cause:
            self._tick()
        task, self._task = self._task, None
        return [Done(task.key, None)]

    def kill(self, _, cause):
        self.cause = cause


class ProbesFirst:
    """An admission that has every cell probed."""

    def next(self, waiting, *_):
        return Probe(waiting[0])

    def learn(self, *_):
        pass


def test_a_cell_whose_probe_ends_after_its_time_fails(tiny_suite, tmp_path):
    pop = tiny_suite.read_text().partition("[models.recent-pop]")[0]
    tiny_suite.write_text(pop)
    ended, events = run(
        tiny_suite, tmp_path, executor=partial(EndsLate, "cpu", 1), policy=Policy(timeout=0.01), admission=ProbesFirst()
    )
    assert (ended.complete, ended.failed) == (0, 1)
    (failed,) = of(CellFailed, events)
    assert failed.error == "the cell took longer than 0.01 seconds (--timeout); the next run goes on with it"


@pytest.mark.parametrize("word", ["stop", "stop-now"])
def test_a_run_stops_when_somebody_wants_it_to(tiny_suite, tmp_path, word):
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


def test_a_run_holds_until_it_is_to_go_on(tiny_suite, tmp_path):
    words = iter(["run"] * 3 + ["pause"] * 3)
    ended, events = run(tiny_suite, tmp_path, ["seeds=[1]"], wanted=lambda: next(words, "run"))
    assert ended.complete == 5
    paused, resumed = of(RunPaused, events)[0], of(RunResumed, events)[0]
    assert resumed.time - paused.time >= 0.2
    between = events[events.index(paused) + 1 : events.index(resumed)]
    assert between == []


def test_the_weights_of_finished_cells_need_not_stay(tiny_suite, tmp_path):
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
