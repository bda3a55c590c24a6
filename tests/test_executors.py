"""Executors: tasks end in the same ways in each of them, and nothing is left behind."""

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest

from ipsrec_bench.errors import BenchError, StoreError
from ipsrec_bench.events import StoreBusy, WorkerEnded, WorkerSeen, WorkerStarted
from ipsrec_bench.run.executors.api import Died, Done, Refused, Slot, Stopped, Task
from ipsrec_bench.run.executors.choice import devices_of
from ipsrec_bench.run.executors.inline import Inline
from ipsrec_bench.run.executors.pool import Pool
from ipsrec_bench.run.workplace import LOG

from .conftest import clean_environment


def shout(words, place, data, emit):
    """Emit each of the words, and return where the task ran."""
    for word in words:
        emit(StoreBusy(word))
    return place.worker, place.device, place.threads, data, os.getpid()


def go_on(_place, _data, emit):
    while True:
        emit(StoreBusy("on"))
        time.sleep(0.01)


def refuse(_place, _data, _emit):
    raise StoreError("the disk is full")


def die(_place, _data, _emit):
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt(_place, _data, _emit):
    raise KeyboardInterrupt


def break_down(_place, _data, _emit):
    raise ZeroDivisionError("a mistake of the toolkit")


def fork_and_die(place, _data, _emit):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    (place.folder / "child").write_text(str(child))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.kill(os.getpid(), signal.SIGTERM)


def blocked(_place, _data, _emit):
    return sorted(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def lose_device(_place, _data, _emit):
    from ipsrec_bench.run import environment

    environment.device_works = lambda _: False
    return "its record"


def chatter(_place, _data, _emit):
    print("said by Python")  # noqa: T201
    os.write(2, b"said by a library\n")


def ended(executor, count=1, seconds=60.0):
    """Return the next `count` outcomes."""
    found, deadline = [], time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        found += executor.outcomes(0.5)
    return found


@pytest.fixture
def events():
    return []


@pytest.fixture(params=["inline", "pool"])
def executor(request, events):
    with (
        Inline("cpu", 1, events.append, lambda: None)
        if request.param == "inline"
        else Pool([Slot("worker 1", "cpu", 1)], events.append, lambda: None)
    ) as made:
        yield made


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """A pool of one process, and a folder that it imports from; several tests share them."""
    folder = tmp_path_factory.mktemp("modules")
    with (
        pytest.MonkeyPatch.context() as patch,
        Pool([Slot("worker 1", "cpu", 1)], lambda _: None, lambda: None) as made,
    ):
        patch.syspath_prepend(folder)
        yield made, folder


@pytest.fixture
def pool(events):
    with Pool([Slot(f"worker {n}", "cpu", 1) for n in (1, 2)], events.append, lambda: None) as made:
        yield made


def test_a_task_runs_in_its_slot_and_its_events_come_in_order(executor, events, tmp_path):
    (slot,) = executor.free()
    executor.begin(slot, Task("k", partial(shout, ["one", "two", "three"]), "the data", tmp_path))
    assert executor.free() == []
    (done,) = ended(executor)
    assert done.key == "k"
    assert done.result[:4] == (slot.worker, "cpu", 1, "the data")
    assert executor.free() == [slot]
    started, *said = (event for event in events if not isinstance(event, WorkerSeen))  # sent only by a slow machine
    assert isinstance(started, WorkerStarted)
    assert [event.message for event in said] == ["one", "two", "three"]
    assert {event.worker for event in events} == {slot.worker}


def test_a_task_that_cannot_run_gives_the_reason_and_the_next_one_runs(executor, tmp_path):
    (slot,) = executor.free()
    executor.begin(slot, Task("k", refuse, None, tmp_path))
    (refused,) = ended(executor)
    assert isinstance(refused, Refused)
    assert (type(refused.error), str(refused.error)) == (StoreError, "the disk is full")
    executor.begin(slot, Task("k", partial(shout, []), None, tmp_path))
    assert isinstance(ended(executor)[0], Done)


def test_a_task_that_is_asked_to_stop_stops_at_its_next_event_even_while_paused(events, tmp_path):
    for held in (False, True):
        ticks = []

        def tick(held=held, ticks=ticks):
            ticks.append(None)
            if len(ticks) == 1 and held:
                inline.pause(held=True)
            if len(ticks) == 3:
                inline.stop("k")

        with Inline("cpu", 1, events.append, tick) as inline:
            inline.begin(inline.free()[0], Task("k", go_on, None, tmp_path))
            assert ended(inline) == [Stopped("k")]


def test_the_workers_of_a_pool_wait_stop_and_are_replaced(pool, events, tmp_path):
    one, two = pool.free()
    pool.begin(one, Task("a", go_on, None, tmp_path))
    pool.begin(two, Task("b", go_on, None, tmp_path))
    while len({event.worker for event in events if isinstance(event, StoreBusy)}) < 2:
        assert pool.outcomes(0.1) == []
    pool.pause(held=True)
    pool.outcomes(1.0)  # what they had said before they heard of it
    before = len([event for event in events if isinstance(event, StoreBusy)])
    pool.outcomes(0.5)
    assert len([event for event in events if isinstance(event, StoreBusy)]) == before
    pool.pause(held=False)
    pool.outcomes(0.5)
    assert len([event for event in events if isinstance(event, StoreBusy)]) > before
    pool.stop("a")
    assert ended(pool) == [Stopped("a")]
    assert pool.free() == [one]
    pool.kill("b", "it took too long")
    assert ended(pool) == [Died("b", "it took too long")]
    assert [event.reason for event in events if isinstance(event, WorkerEnded)] == ["it took too long"]
    pool.begin(two, Task("b", die, None, tmp_path))
    (died,) = ended(pool)
    assert died == Died("b", "it was killed by SIGKILL, perhaps out of memory")
    pool.begin(one, Task("c", chatter, None, tmp_path))
    assert isinstance(ended(pool)[0], Done)
    assert sorted((tmp_path / LOG).read_text().splitlines()) == ["said by Python", "said by a library"]
    pool.begin(one, Task("d", interrupt, None, tmp_path))
    assert ended(pool) == [Died("d", "it raised KeyboardInterrupt")]
    pool.begin(one, Task("d", break_down, None, tmp_path))
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a mistake of the toolkit"):
        ended(pool)


def test_output_of_a_module_that_a_task_imports_goes_to_the_log(worker, tmp_path, capfd):
    pool, folder = worker
    (folder / "prints.py").write_text("print('imported')\ndef work(place, data, emit):\n    return 1\n")
    work = importlib.import_module("prints").work
    capfd.readouterr()
    pool.begin(*pool.free(), Task("k", work, None, tmp_path))
    assert ended(pool) == [Done("k", 1)]
    assert capfd.readouterr().out == ""
    assert (tmp_path / LOG).read_text() == "imported\n"


def test_a_task_that_a_worker_cannot_load_is_refused_with_the_reason(worker, tmp_path):
    pool, folder = worker
    module = folder / "changes.py"
    module.write_text("def work(place, data, emit):\n    return 1\n")
    work = importlib.import_module("changes").work
    module.write_text("raise ValueError('half of an edit')\n")
    pool.begin(*pool.free(), Task("k", work, None, tmp_path))
    (refused,) = ended(pool)
    sentence = "worker 1 cannot load its data or a module: ValueError: half of an edit; correct that"
    assert (type(refused.error), str(refused.error)) == (BenchError, sentence)


def test_a_worker_whose_task_has_forked_is_found_dead(worker, tmp_path):
    pool, _ = worker
    pool.begin(*pool.free(), Task("k", fork_and_die, None, tmp_path))
    died = ended(pool)
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert died == [Died("k", "it was killed by SIGTERM")]


def test_workers_that_cannot_start_end_the_run_and_do_not_count_against_a_task(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('a broken installation')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with Pool([Slot("worker 1", "cpu", 1)], lambda _: None, lambda: None) as pool:
        pool.begin(pool.free()[0], Task("k", refuse, None, tmp_path))
        with pytest.raises(BenchError, match="worker 1 could not start: it exited with code 1"):
            ended(pool)


def test_an_outcome_is_returned_later_if_ctrl_c_interrupts_its_return(tmp_path):
    def tick():
        if not interrupted and pool.free():
            interrupted.append(None)
            raise KeyboardInterrupt

    interrupted = []
    with Pool([Slot("worker 1", "cpu", 1)], lambda _: None, tick) as pool:
        pool.begin(pool.free()[0], Task("k", refuse, None, tmp_path))
        with pytest.raises(KeyboardInterrupt):
            ended(pool)
        (refused,) = pool.outcomes(0)
    assert refused.key == "k"


def test_ctrl_c_in_a_terminal_reaches_no_worker(tmp_path):
    program = """
        import os, signal
        from pathlib import Path
        from ipsrec_bench.run.executors.api import Slot, Task
        from ipsrec_bench.run.executors.pool import Pool
        from tests.test_executors import blocked

        if __name__ == "__main__":
            with Pool([Slot(f"worker {n}", "cpu", 1) for n in (1, 2)], lambda _: None, lambda: None) as pool:
                for slot in pool.free():
                    pool.begin(slot, Task(slot.worker, blocked, None, Path.cwd()))
                found = []
                while len(found) < 2:
                    found += pool.outcomes(1.0)
            print([done.result for done in found], signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """
    assert output_of(program, tmp_path) == "[[1, 2, 15], [1, 2, 15]] set()\n"


def output_of(program, folder):
    (folder / "program.py").write_text(textwrap.dedent(program), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder, env={**clean_environment(), "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_worker_whose_device_has_failed_is_replaced_once_its_outcome_is_there(pool, events, tmp_path):
    one, _ = pool.free()
    pool.begin(one, Task("a", lose_device, None, tmp_path))
    assert ended(pool) == [Done("a", "its record")]
    assert [event.reason for event in events if isinstance(event, WorkerEnded)] == ["its device failed"]
    pool.begin(one, Task("b", partial(shout, []), None, tmp_path))
    assert isinstance(ended(pool)[0], Done)


def test_no_worker_outlives_its_run(tmp_path):
    program = """
        import os, signal, sys
        from pathlib import Path
        from ipsrec_bench.events import StoreBusy, WorkerStarted
        from ipsrec_bench.run.executors.api import Slot, Task
        from ipsrec_bench.run.executors.pool import Pool
        from tests.test_executors import go_on

        def listen(event):
            if isinstance(event, WorkerStarted):
                print(event.pid, flush=True)
            if isinstance(event, StoreBusy):
                os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            with Pool([Slot("worker 1", "cpu", 1)], listen, lambda: None) as pool:
                pool.begin(pool.free()[0], Task("k", go_on, None, Path.cwd()))
                while True:
                    pool.outcomes(1.0)
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program), encoding="utf-8")
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path, env={**clean_environment(), "PYTHONPATH": root}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    worker = int(done.stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


@pytest.mark.parametrize(
    ("text", "gpus", "devices"),
    [
        ("auto", 0, ("cpu",)),
        ("auto", 2, ("cuda:0", "cuda:1")),
        ("cuda", 2, ("cuda:0", "cuda:1")),
        ("cuda:1", 2, ("cuda:1",)),
        ("cuda:1, cuda:0,cuda:1", 2, ("cuda:1", "cuda:0")),
        ("cpu", 2, ("cpu",)),
        ("cuda", 0, "the installed torch finds no GPU here"),
        ("cuda:2", 2, "there is no GPU 'cuda:2' here; available: cuda:0 to cuda:1"),
        ("cuda:x", 1, "there is no GPU 'cuda:x' here"),
        ("cpu,cuda:0", 1, "name devices of one kind"),
        ("cpu,", 0, "name devices, like cpu or cuda:0,cuda:1"),
        ("gpu:0", 1, "--devices gpu:0: 'gpu' is not a device; name cpu, cuda, or GPUs like cuda:0,cuda:1"),
        ("meta", 0, "'meta' is not a device"),
    ],
)
def test_devices_are_named_or_found(monkeypatch, text, gpus, devices):
    monkeypatch.setattr("ipsrec_bench.run.executors.choice.cuda_devices", lambda: gpus)
    if isinstance(devices, tuple):
        assert devices_of(text) == devices
    else:
        with pytest.raises(BenchError, match=devices):
            devices_of(text)
