"""Executors: whatever does the tasks, they end in the same ways, and nothing is left behind."""

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
from ipsrec_bench.events import StoreBusy, WorkerEnded, WorkerStarted
from ipsrec_bench.run.executors.api import Died, Done, Refused, Slot, Stopped, Task
from ipsrec_bench.run.executors.choice import devices_of
from ipsrec_bench.run.executors.inline import Inline
from ipsrec_bench.run.executors.pool import Pool
from ipsrec_bench.run.workplace import LOG

from .conftest import clean_environment


def shout(words, place, data, emit):
    """Say each of the words, and return where that was."""
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


def break_down(_place, _data, _emit):
    raise ZeroDivisionError("a mistake of the toolkit")


def chatter(_place, _data, _emit):
    print("said by Python")  # noqa: T201
    os.write(2, b"said by a library\n")


def ended(executor, count=1, seconds=60.0):
    """Return the next outcomes, so many of them."""
    found, deadline = [], time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        found += executor.outcomes(0.5)
    return found


@pytest.fixture
def told():
    return []


@pytest.fixture(params=["inline", "pool"])
def executor(request, told):
    with (
        Inline("cpu", 1, told.append, lambda: None)
        if request.param == "inline"
        else Pool([Slot("worker 1", "cpu", 1)], told.append, lambda: None)
    ) as made:
        yield made


@pytest.fixture
def pool(told):
    with Pool([Slot(f"worker {n}", "cpu", 1) for n in (1, 2)], told.append, lambda: None) as made:
        yield made


def test_a_task_is_done_in_its_slot_and_its_events_come_in_order(executor, told, tmp_path):
    (slot,) = executor.free()
    executor.begin(slot, Task("k", partial(shout, ["one", "two", "three"]), "the data", tmp_path))
    assert executor.free() == []
    (done,) = ended(executor)
    assert done.key == "k"
    assert done.result[:4] == (slot.worker, "cpu", 1, "the data")
    assert executor.free() == [slot]
    started, *said = told
    assert isinstance(started, WorkerStarted)
    assert [event.message for event in said] == ["one", "two", "three"]
    assert {event.worker for event in told} == {slot.worker}


def test_a_task_that_cannot_be_done_says_why_and_the_next_one_is_done(executor, tmp_path):
    (slot,) = executor.free()
    executor.begin(slot, Task("k", refuse, None, tmp_path))
    (refused,) = ended(executor)
    assert isinstance(refused, Refused)
    assert (type(refused.error), str(refused.error)) == (StoreError, "the disk is full")
    executor.begin(slot, Task("k", partial(shout, []), None, tmp_path))
    assert isinstance(ended(executor)[0], Done)


def test_a_task_that_is_told_to_stop_stops_at_its_next_event_also_while_it_waits(told, tmp_path):
    for held in (False, True):
        ticks = []

        def tick(held=held, ticks=ticks):
            ticks.append(None)
            if len(ticks) == 1 and held:
                inline.pause(held=True)
            if len(ticks) == 3:
                inline.stop("k")

        with Inline("cpu", 1, told.append, tick) as inline:
            inline.begin(inline.free()[0], Task("k", go_on, None, tmp_path))
            assert ended(inline) == [Stopped("k")]


def test_the_workers_of_a_pool_wait_stop_and_are_replaced(pool, told, tmp_path):
    one, two = pool.free()
    pool.begin(one, Task("a", go_on, None, tmp_path))
    pool.begin(two, Task("b", go_on, None, tmp_path))
    while len({event.worker for event in told if isinstance(event, StoreBusy)}) < 2:
        assert pool.outcomes(0.1) == []
    pool.pause(held=True)
    pool.outcomes(1.0)  # what they had said before they heard of it
    before = len([event for event in told if isinstance(event, StoreBusy)])
    pool.outcomes(0.5)
    assert len([event for event in told if isinstance(event, StoreBusy)]) == before
    pool.pause(held=False)
    pool.outcomes(0.5)
    assert len([event for event in told if isinstance(event, StoreBusy)]) > before
    pool.stop("a")
    assert ended(pool) == [Stopped("a")]
    assert pool.free() == [one]
    pool.kill("b", "it took too long")
    assert ended(pool) == [Died("b", "it took too long")]
    assert [event.reason for event in told if isinstance(event, WorkerEnded)] == ["it took too long"]
    pool.begin(two, Task("b", die, None, tmp_path))
    (died,) = ended(pool)
    assert died == Died("b", "it was killed by SIGKILL, out of memory perhaps")
    pool.begin(one, Task("c", chatter, None, tmp_path))
    assert isinstance(ended(pool)[0], Done)
    assert sorted((tmp_path / LOG).read_text().splitlines()) == ["said by Python", "said by a library"]
    pool.begin(one, Task("d", break_down, None, tmp_path))
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a mistake of the toolkit"):
        ended(pool)


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
        ("cuda", 0, "there is no GPU here that torch"),
        ("cuda:2", 2, "there is no GPU 'cuda:2' here; there are: cuda:0 to cuda:1"),
        ("cuda:x", 1, "there is no GPU 'cuda:x' here"),
        ("cpu,cuda:0", 1, "name devices of one kind"),
        ("cpu,", 0, "name devices, like cpu or cuda:0,cuda:1"),
        ("gpu:0", 1, "--devices gpu:0: 'gpu' is no device; name cpu, cuda, or GPUs like cuda:0,cuda:1"),
        ("meta", 0, "'meta' is no device"),
    ],
)
def test_devices_are_named_or_found(monkeypatch, text, gpus, devices):
    monkeypatch.setattr("ipsrec_bench.run.executors.choice.cuda_devices", lambda: gpus)
    if isinstance(devices, tuple):
        assert devices_of(text) == devices
    else:
        with pytest.raises(BenchError, match=devices):
            devices_of(text)
