"""The journal of a run: its content, its readers, and its failures."""

import contextlib
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import textwrap
import time
import types
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from ipsrec_bench import events
from ipsrec_bench.cli.listen import listener
from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import (
    CellsAwaited,
    EpochDone,
    Event,
    RunClosed,
    RunOpened,
    RunStarted,
    StepDone,
    WorkerSeen,
    event_of,
)
from ipsrec_bench.run import control, journal
from ipsrec_bench.run.control import Control, ask, asked
from ipsrec_bench.run.journal import Journal, control_path, follow, header, is_live, journals, newest

KINDS = sorted(
    (
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
    ),
    key=lambda kind: kind.__name__,
)
CELL = ("k", "data", "sasrec", 1)
STARTED = RunStarted("tiny", "Tiny", 3, 0)


def step(number: int, at: float, worker: str = "") -> StepDone:
    return StepDone(*CELL, epoch=1, step=number, steps=9, loss=1.0, targets_per_second=2.0, time=at, worker=worker)


def values(hint: Any) -> st.SearchStrategy:
    if hint is float:
        return st.floats(allow_nan=False)  # which no value equals
    if hint is str:
        return st.text(max_size=9)
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        return (
            st.lists(values(parts[0]), max_size=3).map(tuple) if Ellipsis in parts else st.tuples(*map(values, parts))
        )
    if get_origin(hint) is dict:
        return st.dictionaries(*map(values, get_args(hint)), max_size=3)
    if get_origin(hint) is types.UnionType:
        return st.one_of([values(part) for part in get_args(hint)])
    return st.from_type(hint)


def instances(kind: type[Event]) -> st.SearchStrategy[Event]:
    hints = {name: values(hint) for name, hint in get_type_hints(kind).items()}
    hints["time"] = st.integers(0, 2**52).map(lambda microseconds: microseconds / 1e6)
    return st.builds(kind, **hints)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KINDS).flatmap(instances))
def test_an_event_comes_back_from_its_line_exactly(event):
    line = event.to_json()
    back = event_of(line)
    assert "\n" not in line
    assert (type(back), vars(back)) == (type(event), vars(event))
    assert event_of(line.encode()) == event


def test_the_time_of_an_event_that_happens_now_comes_back_exactly():
    for _ in range(100):
        event = CellsAwaited(1)
        assert event_of(event.to_json()).time == event.time


def test_a_loss_that_is_not_a_number_comes_back():
    event = event_of(EpochDone(*CELL, 1, math.nan, math.inf, -math.inf).to_json())
    assert math.isnan(event.loss)
    assert (event.valid, event.targets_per_second) == (math.inf, -math.inf)


def test_kinds_and_fields_of_newer_versions_are_ignored():
    line = json.loads(STARTED.to_json())
    assert event_of(json.dumps({**line, "mood": ["good"]})) == STARTED
    assert event_of(json.dumps({**line, "event": "run-danced"})) is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_line_is_skipped(data):
    line = STARTED.to_json().encode()
    cut = data.draw(st.integers(0, len(line) - 1))
    rest = data.draw(st.binary(max_size=3))
    assert event_of(line[:cut]) is None
    damaged = event_of(line[:cut] + rest + line[cut + len(rest) :])
    assert damaged is None or isinstance(damaged, RunStarted)


@pytest.mark.parametrize(
    "line", ["", "[]", "3", '{"event": []}', '{"event": "run-started"}', "[" * 100_000, "\0" * 50, b"\xff\xfe\x00"]
)
def test_a_line_that_is_not_an_event_is_skipped(line):
    assert event_of(line) is None


def test_events_are_in_the_journal_as_soon_as_they_are_sent(tmp_path):
    with Journal(tmp_path / "s.duckdb", "tiny") as written:
        path = newest(tmp_path / "s.duckdb")
        opened = header(path)
        assert (opened.suite, opened.pid, opened.store) == ("tiny", os.getpid(), str(tmp_path / "s.duckdb"))
        written.write(STARTED)
        assert event_of(path.read_bytes().splitlines()[-1]) == STARTED
    assert list(follow(path)) == [opened, STARTED, RunClosed("")]


def test_a_link_and_the_store_itself_have_the_same_journals(tmp_path):
    (tmp_path / "link.duckdb").symlink_to("s.duckdb")
    with Journal(tmp_path / "link.duckdb", "tiny"):
        assert len(journals(tmp_path / "s.duckdb")) == 1


def test_two_runs_that_begin_at_the_same_time_have_a_journal_each(tmp_path, monkeypatch):
    class Stopped(journal.datetime):
        @classmethod
        def now(cls, zone):
            return cls(2026, 1, 2, 3, 4, 5, 678_000, zone)

    monkeypatch.setattr(journal, "datetime", Stopped)
    store = tmp_path / "s.duckdb"
    with Journal(store, "../ä b") as one, Journal(store, "../ä b") as other:
        one.write(CellsAwaited(1))
        other.write(CellsAwaited(2))
    assert [path.name for path in journals(store)] == [
        f"20260102-030405.678000-b-{os.getpid()}-1.jsonl", f"20260102-030405.678000-b-{os.getpid()}.jsonl"
    ]  # fmt: skip
    assert CellsAwaited(1) in list(follow(one.path))
    assert CellsAwaited(2) in list(follow(other.path))


def test_steps_and_loads_are_written_once_a_second_per_worker_and_other_events_always(tmp_path):
    with Journal(tmp_path / "s.duckdb", "tiny") as written:
        for tenth in range(25):
            for worker in ("worker 1", "worker 2"):
                written.write(step(tenth, 1000 + tenth / 10, worker))
                written.write(WorkerSeen(1, 1.0, time=1000 + tenth / 10, worker=worker))
                written.write(CellsAwaited(tenth))
    found = list(follow(written.path))
    for worker in ("worker 1", "worker 2"):
        assert [event.step for event in found if isinstance(event, StepDone) and event.worker == worker] == [0, 10, 20]
        assert sum(isinstance(event, WorkerSeen) and event.worker == worker for event in found) == 3
    assert [event.cells for event in found if isinstance(event, CellsAwaited)] == [n for n in range(25) for _ in "ab"]


def test_steps_are_written_again_after_the_clock_was_set_back(tmp_path):
    with Journal(tmp_path / "s.duckdb", "tiny") as written:
        for at in (1000.0, 10.0, 10.5, 11.0):
            written.write(step(int(at), at))
    assert [event.step for event in follow(written.path) if isinstance(event, StepDone)] == [1000, 10, 11]


def test_a_long_journal_grows_slower(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "THINNED_BYTES", 2000)
    with Journal(tmp_path / "s.duckdb", "tiny") as written:
        for second in range(1000):
            written.write(step(second, second))
    steps = [event.step for event in follow(written.path) if isinstance(event, StepDone)]
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert gaps[0] == 1
    assert gaps == sorted(gaps)
    assert 5 < gaps[-1] < 50


def test_old_steps_of_a_long_journal_are_skipped_and_other_events_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "_CHUNK", 1000)
    with Journal(tmp_path / "s.duckdb", "tiny") as written:
        for second in range(1000):
            written.write(step(second, second))
            written.write(CellsAwaited(second))
    monkeypatch.setattr(journal, "BACKLOG_BYTES", 10_000)
    found = list(follow(written.path))
    assert [event.cells for event in found if isinstance(event, CellsAwaited)] == list(range(1000))
    steps = [event.step for event in found if isinstance(event, StepDone)]
    assert steps == list(range(1000 - len(steps), 1000))
    assert 10 < len(steps) < 100


def test_the_oldest_journals_are_removed_with_what_lies_beside_them_and_live_ones_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "KEPT_JOURNALS", 3)
    store = tmp_path / "s.duckdb"
    with Journal(store, "live") as live:
        paths = []
        for number in range(4):
            with Journal(store, f"run-{number}") as ended:
                paths.append(ended.path)
            ended.path.with_suffix(".log").touch()
            ask(control_path(ended.path), "stop")
        assert journals(store) == [live.path, *paths[-3:]]
        assert sorted(paths[0].parent.glob("*.log")) == [path.with_suffix(".log") for path in paths[-3:]]
        assert sorted(paths[0].parent.glob("*.control")) == [control_path(path) for path in paths[-3:]]


def test_the_newest_run_of_a_suite_is_found_by_its_whole_name(tmp_path):
    store = tmp_path / "s.duckdb"
    assert newest(store) is None
    found = {}
    for name in ("a b", "a-b", "c"):
        with Journal(store, name) as written:
            found[name] = written.path
            assert newest(store, live=True) == written.path
    assert newest(store) == found["c"]
    assert newest(store, "a b") == found["a b"]
    assert newest(store, "d") is None
    assert newest(store, live=True) is None


def test_a_run_ends_its_journal_with_the_reason(tmp_path):
    for error, reason in (
        (BenchError("no room"), "no room"),
        (ValueError("x"), "ValueError: x"),
        (KeyboardInterrupt(), "it was interrupted"),
    ):
        with contextlib.suppress(type(error)), Journal(tmp_path / "s.duckdb", "tiny") as written:
            raise error
        assert list(follow(written.path))[-1] == RunClosed(reason)


KILLED = """
    import os, signal
    from pathlib import Path
    from ipsrec_bench.events import CellsAwaited
    from ipsrec_bench.run.journal import Journal
    with Journal(Path("s.duckdb"), "tiny") as journal:
        journal.write(CellsAwaited(1))
        os.write(journal._file, b'{"event": "cells-aw')
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path):
    """The journal of a run that was killed while it wrote a line."""
    subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED)], cwd=tmp_path, check=False)
    (path,) = journals(tmp_path / "s.duckdb")
    return path


def test_a_reader_of_a_killed_runs_journal_learns_of_it_and_skips_the_torn_line(killed, tmp_path):
    assert not is_live(killed)
    _, awaited, closed = follow(killed)
    assert awaited == CellsAwaited(1)
    assert closed.reason.endswith(" was killed")
    with Journal(tmp_path / "s.duckdb", "tiny") as written:
        assert newest(tmp_path / "s.duckdb", "tiny", live=True) == written.path


def test_another_process_with_the_same_number_is_not_mistaken_for_the_run(tmp_path):
    with Journal(tmp_path / "s.duckdb", "tiny") as written:
        copy = written.path.with_name("copy.jsonl")
        copy.write_text(written.path.read_text().replace('"started": "', '"started": "1'))
        assert is_live(written.path)
        assert not is_live(copy)


def test_a_run_on_another_machine_is_known_by_the_age_of_its_journal(tmp_path, monkeypatch):
    with Journal(tmp_path / "s.duckdb", "tiny") as written:
        written.write(STARTED)
        monkeypatch.setattr(journal, "machine", lambda: "another")
        assert is_live(written.path)
        long_ago = time.time() - journal.SILENT_SECONDS - 1
        os.utime(written.path, (long_ago, long_ago))
        assert not is_live(written.path)
        assert list(follow(written.path))[-1].reason.endswith("has given no sign of life for 90 s")


def test_a_silent_run_touches_its_journal(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "BEAT_SECONDS", 0.01)
    with Journal(tmp_path / "s.duckdb", "tiny") as written:
        os.utime(written.path, (0, 0))
        deadline = time.monotonic() + 30
        while written.path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert written.path.stat().st_mtime > 0


def test_a_follower_sees_events_as_they_come_and_ends_with_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "POLL_SECONDS", 0.0)
    with Journal(tmp_path / "s.duckdb", "tiny") as written:
        followed = follow(written.path)
        assert isinstance(next(followed), RunOpened)
        for number in range(3):
            written.write(CellsAwaited(number))
            assert next(followed) == CellsAwaited(number)
        line = CellsAwaited(7).to_json().encode() + b"\n"
        os.write(written._file, line[:20])
        assert list(follow(written.path, written.path.stat().st_size - 20, seconds=0)) == []
        os.write(written._file, line[20:])
        assert next(followed) == CellsAwaited(7)
    assert list(followed) == [RunClosed("")]


def test_an_unreadable_or_removed_journal_is_reported(tmp_path):
    with Journal(tmp_path / "s.duckdb", "tiny") as written:
        followed = follow(written.path)
        next(followed)
        written.path.unlink()
        assert list(followed) == [RunClosed("its journal was removed")]
        written.path.mkdir()
        with pytest.raises(BenchError, match=r"\.jsonl: cannot be read: Is a directory; check its permissions"):
            next(follow(written.path))


def warned(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]


def test_a_journal_that_cannot_be_created_is_dropped_with_one_warning(tmp_path, capsys):
    (tmp_path / "s.duckdb.d").touch()  # in the place of the folder
    written = Journal(tmp_path / "s.duckdb", "tiny")
    with listener(Console(), quiet=False, as_json=False, journal=written) as emit:
        for cells in (1, 2):
            emit(CellsAwaited(cells))
        assert written.control.wanted() == "run"
        out = capsys.readouterr()
    (warning,) = out.err.splitlines()
    assert warning.startswith("warning: the journal cannot be written, so this run cannot be watched")
    assert out.out.count("waiting: ") == 2


def test_a_journal_on_a_full_disk_is_dropped_with_one_warning_and_its_end_is_written_if_there_is_room(tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    written = Journal(tmp_path / "s.duckdb", "tiny")
    with listener(Console(), quiet=False, as_json=False, journal=written) as emit:
        emit(STARTED)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (written.path.stat().st_size + 30, limits[1]))
            for cells in (1, 2):
                emit(CellsAwaited(cells))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        emit(CellsAwaited(3))
        assert written.path.read_bytes().endswith(b'{"event": "cells-awaited", "ti')
    out = capsys.readouterr()
    assert out.err.count("warning: ") == 1
    assert "File too large" in out.err
    assert out.out.count("waiting: ") == 3
    assert list(follow(written.path))[1:] == [STARTED, RunClosed("")]


def test_a_listener_that_fails_costs_the_others_nothing(tmp_path, capsys, monkeypatch):
    def broken(*_):
        raise RuntimeError("no picture")

    monkeypatch.setattr("ipsrec_bench.cli.listen.plain_line", broken)
    written = Journal(tmp_path / "s.duckdb", "tiny")
    with listener(Console(), quiet=False, as_json=False, journal=written) as emit:
        for cells in (1, 2):
            emit(CellsAwaited(cells))
    assert warned(capsys) == ["warning: progress cannot be shown any more (RuntimeError: no picture); the work goes on"]
    assert list(follow(written.path))[1:-1] == [CellsAwaited(1), CellsAwaited(2)]


@pytest.mark.parametrize("fails_late", [False, True])
def test_a_dashboard_that_fails_is_dropped_with_one_warning_and_lines_are_printed(capsys, monkeypatch, fails_late):
    class Broken:
        def __rich_console__(self, *_):
            raise RuntimeError("no picture")

    def dashboard(*_):
        return Broken() if fails_late else Broken().__rich_console__()

    monkeypatch.setattr("ipsrec_bench.cli.listen.dashboard", dashboard)
    with listener(Console(force_terminal=True, width=200), quiet=False, as_json=False) as emit:
        for cells in (1, 2):
            emit(CellsAwaited(cells))
    print("the report")  # noqa: T201
    out = capsys.readouterr()
    warning = "warning: progress cannot be shown any more (RuntimeError: no picture); the work goes on"
    assert (out.out + out.err).count(warning) == 1
    assert out.out.endswith("the report\n")


def test_a_run_follows_the_latest_request_and_a_stop_is_final(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "POLL_SECONDS", 0.0)
    path = tmp_path / "run.control"
    run = Control(path)
    found = [run.wanted()]
    for word in ("pause", "run", "pause", "stop", "run", "stop-now"):
        ask(path, word)
        assert asked(path) == word
        found.append(run.wanted())
    assert found == ["run", "pause", "run", "pause", "stop", "stop", "stop-now"]
    run.clear()
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"dance\n", b"\xff\xff"])
def test_a_paused_run_stays_paused_if_a_request_cannot_be_understood(tmp_path, monkeypatch, content):
    monkeypatch.setattr(control, "POLL_SECONDS", 0.0)
    path = tmp_path / "run.control"
    ask(path, "pause")
    run = Control(path)
    assert run.wanted() == "pause"
    path.write_bytes(content)
    assert run.wanted() == "pause"


def test_the_file_of_requests_is_read_a_few_times_a_second(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(control.time, "monotonic", lambda: now[0])
    path = tmp_path / "run.control"
    run = Control(path)
    assert run.wanted() == "run"
    ask(path, "stop")
    assert run.wanted() == "run"
    now[0] += control.POLL_SECONDS
    assert run.wanted() == "stop"


def test_the_end_of_a_run_removes_its_requests(tmp_path):
    with Journal(tmp_path / "s.duckdb", "tiny") as written:
        ask(control_path(written.path), "pause")
        assert written.control.wanted() == "pause"
    assert not control_path(written.path).exists()
