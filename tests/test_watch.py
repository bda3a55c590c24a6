"""Control of a run from elsewhere: watch, stop, pause, resume, and a start in the background."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from rich.console import Console

from ipsrec_bench.cli import control as commands
from ipsrec_bench.cli.listen import listener
from ipsrec_bench.events import (
    CellFinished,
    CellStarted,
    EpochDone,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
    StepDone,
)
from ipsrec_bench.run import control, journal
from ipsrec_bench.run.engine import execute
from ipsrec_bench.run.journal import Journal, follow, header, is_live, journals
from ipsrec_bench.run.plan import make_plan
from ipsrec_bench.suite.load import load_suite

from .conftest import clean_environment
from .test_run import HERE, STORE

CELL = ("k", "data", "sasrec", 1)
BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()


def run_of(suite, *, at=BEGIN):
    """Return the events of a run of 100 seconds."""
    return [
        RunStarted(suite, f"Title of {suite}", 1, 0, time=at),
        CellStarted(*CELL, epochs=2, stop_metric="mrr@10", time=at),
        StepDone(*CELL, epoch=1, step=5, steps=9, loss=4.5, targets_per_second=1234.0, time=at + 10),
        EpochDone(*CELL, epoch=1, loss=4.25, valid=0.125, targets_per_second=1300.0, time=at + 50),
        CellFinished(*CELL, metrics={"hr@10": 0.75}, best_epoch=1, seconds=100.0, time=at + 100),
        RunFinished(1, 1, 0, 100.0, interrupted=False, time=at + 100),
    ]


@pytest.fixture
def store(tmp_path):
    return tmp_path / STORE


@pytest.fixture(autouse=True)
def _in_a_moment(monkeypatch):
    monkeypatch.setattr(journal, "POLL_SECONDS", 0.005)
    monkeypatch.setattr(control, "POLL_SECONDS", 0.0)


def write(store, suite, events):
    with Journal(store, suite) as written:
        for event in events:
            written.write(event)
    return written.path


def test_a_finished_run_is_replayed_as_plain_lines_of_its_own_time(store, bench):
    write(store, "tiny", run_of("tiny"))
    done = bench("watch", TZ="UTC")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    local = [f"{datetime.fromtimestamp(BEGIN + later).astimezone():%Y-%m-%d %H:%M:%S}" for later in (0, 50, 100)]
    assert lines[0] == f"{local[0]} Title of tiny: 1 cell, 0 already done"
    assert f"{local[1]} data, sasrec, seed 1: epoch 1, loss 4.2500, validation 0.1250, 1300 targets/s" in lines
    assert lines[-1] == f"{local[2]} finished after 100.0 s: 1 complete, 0 failed"


def test_a_finished_run_is_replayed_as_json_lines_as_the_run_prints_them(store, bench):
    write(store, "tiny", run_of("tiny"))
    lines = bench("watch", "--json").stdout.splitlines()
    assert lines == [event.to_json() for event in run_of("tiny") if not isinstance(event, StepDone)]


def test_a_terminal_shows_the_dashboard_of_a_finished_run_at_its_end(store, bench):
    write(store, "tiny", run_of("tiny"))
    done = bench("watch", FORCE_COLOR="1", NO_COLOR="1", COLUMNS="100", LINES="40")
    assert done.returncode == 0
    assert "1 of 1 cells done; finished after" in done.stdout
    assert "0.7500" in done.stdout
    assert "1:40" in done.stdout  # not the time since


def test_the_newest_run_is_shown_or_that_of_a_suite_by_its_name_or_its_file(store, bench, tiny_suite):
    write(store, "tiny", run_of("tiny"))
    write(store, "other", run_of("other"))
    for words, title in (((), "other"), (("tiny",), "tiny"), ((tiny_suite,), "tiny"), (("other",), "other")):
        assert f"Title of {title}: 1 cell" in bench("watch", *words).stdout


class Interrupting(threading.Event):
    """An event whose waiting is interrupted by Ctrl-C."""

    def wait(self, _timeout=None):
        signal.raise_signal(signal.SIGINT)


def test_a_run_under_way_is_shown_rather_than_a_newer_one_that_had_nothing_to_do(store, bench, monkeypatch):
    with Journal(store, "tiny") as written:
        written.write(run_of("live")[0])
        write(store, "tiny", run_of("newer"))
        monkeypatch.setattr(journal, "threading", SimpleNamespace(Event=Interrupting))
        assert "Title of live" in bench("watch").stdout
    assert "Title of newer" in bench("watch").stdout


def train(suite, tmp_path, act=lambda _: None):
    """Run a suite as the command does, with plain lines; `act` sees every event, too."""
    store = tmp_path / STORE
    written = Journal(store, "tiny")
    with listener(Console(), quiet=False, as_json=False, journal=written) as emit:

        def emit_and_act(event):
            emit(event)
            act(event)

        plan = make_plan(
            load_suite(suite, ["seeds=[1]", "models=['pop', 'sasrec', 'recent-pop']"]),
            tmp_path / "data",
            store,
            emit_and_act,
        )
        return execute(plan, store, HERE, emit_and_act, wanted=written.control.wanted)


def test_a_watched_run_prints_what_it_printed_itself(tiny_suite, tmp_path, bench, capsys):
    ended = train(tiny_suite, tmp_path)
    said = capsys.readouterr().out
    assert ended.complete == 3
    assert bench("watch").stdout == said
    assert said.count(": finished in ") == 3


def test_a_run_in_training_is_stopped_from_elsewhere(tiny_suite, tmp_path, bench, monkeypatch):
    """After its first epoch of a model that trains; the same command resumes it."""
    monkeypatch.setattr(commands, "ANSWER_SECONDS", 0.0)

    def stop(event):
        if isinstance(event, EpochDone) and event.label == "sasrec":
            assert bench("stop", "tiny").returncode == 0

    ended = train(tiny_suite, tmp_path, stop)
    assert (ended.complete, ended.interrupted) == (1, True)
    assert "interrupted after" in bench("watch").stdout.splitlines()[-1]
    assert train(tiny_suite, tmp_path).complete == 2


def test_a_suite_without_a_journal_gets_a_sentence_with_a_remedy(store, bench):
    done = bench("watch")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no run has a journal beside this store; start one with ipsrec-bench run, or name another" in done.stderr
    write(store, "tiny", run_of("tiny"))
    done = bench("watch", "none")
    assert done.returncode == 2
    assert "no run of none has a journal beside this store; choose from tiny, or name" in done.stderr


def test_a_run_that_was_refused_or_killed_is_shown_with_the_reason(store, bench):
    path = write(store, "tiny", run_of("tiny")[:3])
    *events, closed = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(events) + closed.replace(b'""', b'"no room"', 2).replace(b'"no room"', b'""', 1))
    done = bench("watch")
    assert (done.returncode, done.stderr) == (1, "The run ended early: no room\n")
    path.write_bytes(b"".join(events).replace(b'"started": "', b'"started": "1') + b'{"event": "run-fin')
    done = bench("watch")
    assert done.returncode == 1
    assert "data, sasrec, seed 1: started" in done.stdout
    assert f"The run ended early: its process, {os.getpid()} on" in done.stderr


def test_a_watcher_of_a_live_run_sees_it_to_its_end(store, bench):
    events = run_of("tiny")
    with Journal(store, "tiny") as written:
        written.write(events[0])

        def go_on():
            for event in events[1:]:
                written.write(event)
            written.__exit__(None, None, None)

        later = threading.Timer(0.1, go_on)
        later.start()
        done = bench("watch")
        later.join()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith("finished after 100.0 s: 1 complete, 0 failed")


def test_ctrl_c_leaves_watch_alone_and_not_the_run(store, bench, monkeypatch):
    with Journal(store, "tiny") as written:
        written.write(run_of("tiny")[0])
        monkeypatch.setattr(journal, "threading", SimpleNamespace(Event=Interrupting))
        done = bench("watch")
        assert (done.returncode, done.stderr) == (130, "Interrupted. The run is left as it is.\n")
        assert is_live(written.path)
        assert written.control.wanted() == "run"


def test_watch_opens_no_store_and_imports_no_torch(store, tmp_path):
    write(store, "tiny", run_of("tiny"))
    store.write_text("no database")
    program = """
        import sys
        from ipsrec_bench.cli.main import app
        app(["watch", "tiny"], standalone_mode=False)
        print(sorted({"torch", "duckdb", "numpy"} & sys.modules.keys()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, env=clean_environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def coordinator(store, answers, *, suite="tiny"):
    """Open a run that answers requests in a thread; it ends after a stop."""
    written = Journal(store, suite)
    written.__enter__()
    found = []

    def work():
        while True:
            word = written.control.wanted()
            if word != (found or ["run"])[-1]:
                found.append(word)
                if word in answers:
                    written.write(answers[word])
                if word.startswith("stop"):
                    written.__exit__(None, None, None)
                    return
            time.sleep(0.001)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, found


ANSWERS = {
    "pause": RunPaused(),
    "run": RunResumed(),
    "stop": RunFinished(1, 2, 1, 9.0, interrupted=True),
    "stop-now": RunFinished(1, 2, 1, 9.0, interrupted=True),
}


def test_a_run_is_paused_resumed_and_stopped_from_elsewhere_and_its_answers_are_printed(store, bench):
    thread, found = coordinator(store, ANSWERS)
    who = f"The run of tiny, process {os.getpid()} on {header(journals(store)[0]).host},"
    expected = [
        (("resume",), [f"{who} is not paused"]),
        (("pause",), [f"{who} was asked to pause", "It is paused; ipsrec-bench resume continues it"]),
        (("pause", "tiny"), [f"{who} was already asked to pause"]),
        (("resume",), [f"{who} was asked to continue", "It continues"]),
        (("stop", "tiny"), [f"{who} was asked to stop", "It has stopped with 2 cells complete and 1 failed"]),
    ]
    for words, lines in expected:
        done = bench(*words)
        assert (done.returncode, done.stderr, done.stdout.splitlines()) == (0, "", lines)
    thread.join()
    assert found == ["pause", "run", "stop"]


def test_a_run_that_stops_is_hurried_but_not_held(store, bench, monkeypatch):
    monkeypatch.setattr(commands, "ANSWER_SECONDS", 0.0)
    with Journal(store, "tiny") as written:
        assert (
            bench("stop").stdout.splitlines()[-1].startswith("No answer within 0 s; workers notice at their next step")
        )
        assert "was already asked to stop; stop --now ends its workers at once" in bench("stop").stdout
        for words in (("pause",), ("resume",)):
            done = bench(*words)
            assert done.returncode == 2
            assert "was already asked to stop; start another one with ipsrec-bench run" in done.stderr
        assert bench("stop", "--now").returncode == 0
        assert written.control.wanted() == "stop-now"


def test_only_a_live_run_takes_requests(store, bench):
    write(store, "tiny", run_of("tiny"))
    for words in (("stop",), ("stop", "tiny", "--now"), ("pause",), ("resume", "tiny")):
        done = bench(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "; ipsrec-bench watch shows how the last one ended" in done.stderr
    thread, found = coordinator(store, ANSWERS)
    write(store, "other", run_of("other"))
    assert bench("stop", "other").returncode == 2
    assert bench("stop").returncode == 0
    thread.join()
    assert found == ["stop"]


DETACHED = """
    import os, sys, time
    from pathlib import Path
    from ipsrec_bench.cli.detach import detach
    from ipsrec_bench.cli.stopping import signals_stop
    from ipsrec_bench.events import RunFinished, RunStarted
    from ipsrec_bench.run.journal import Journal
    import typer

    def main(how: str, detached: bool = typer.Option(False, "--detach")) -> None:
        store = Path("reports/ipsrec-bench.duckdb")
        if detached:
            detach(sys.orig_argv, store)
            return
        if how == "refused":
            print("error: there is no such suite", file=sys.stderr)
            raise typer.Exit(2)
        with Journal(store, "my suite") as journal:
            print("of the run:", os.environ["IPSREC_BENCH_WORD"], Path.cwd().name, flush=True)
            journal.write(RunStarted("my suite", "My suite", 1, 0))
            while how == "long" and journal.control.wanted() == "run":
                time.sleep(0.01)
            journal.write(RunFinished(1, 0, 0, 1.0, interrupted=True))

    typer.run(main)
"""


def detached(tmp_path, how):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(DETACHED))
    return subprocess.run(
        [sys.executable, str(program), how, "--detach"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**clean_environment(), "IPSREC_BENCH_WORD": "kept"}, timeout=60,
    )  # fmt: skip


def test_a_run_whose_output_cannot_be_written_does_not_go_into_the_background(tiny_suite, tmp_path, bench):
    (tmp_path / "s.duckdb.d").touch()
    done = bench("run", tiny_suite, "--detach", "--store", "s.duckdb")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {tmp_path}/s.duckdb.d/runs: the run's output cannot be written there: Not a directory; give"
        " another place with --store\n"
    )


def test_a_run_in_the_background_outlives_its_terminal_and_is_stopped_from_elsewhere(tmp_path, store, bench):
    done = detached(tmp_path, "long")
    (path,) = journals(store)
    pid = header(path).pid
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"The run continues in the background as process {pid}; its output: {STORE}.d/runs/{path.stem}.log",
        "Watch it: ipsrec-bench watch 'my suite'",
        "Stop it: ipsrec-bench stop 'my suite'",
    ]
    assert os.getsid(pid) == pid  # the end of the terminal, and its Ctrl-C, reach a session's processes
    assert path.with_suffix(".log").read_text() == f"of the run: kept {tmp_path.name}\n"
    assert "It has stopped with 0 cells complete" in bench("stop", "my suite").stdout
    assert [type(event) for event in follow(path)][-2] is RunFinished
    assert not is_live(path)


def test_reasons_against_a_background_start_are_reported_at_once(tmp_path, store):
    done = detached(tmp_path, "refused")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: there is no such suite\n")
    assert list((store.with_name(f"{store.name}.d") / "runs").iterdir()) == []


def test_a_run_that_has_nothing_to_do_ends_where_it_was_started(tmp_path, store):
    done = detached(tmp_path, "short")
    assert done.returncode == 0
    (path,) = journals(store)
    if "background" not in done.stdout:  # where it was seen to run for a moment
        assert (done.stdout, done.stderr) == (f"of the run: kept {tmp_path.name}\n", "")
    assert not is_live(path)
