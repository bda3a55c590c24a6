"""Failures around a run do not affect its cells: closed pipes, full disks under the log, signals."""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import duckdb
import pytest
from rich.console import Console
from typer.testing import CliRunner

from ipsrec_bench.cli.listen import listener
from ipsrec_bench.cli.main import app
from ipsrec_bench.events import CellsAwaited, EpochDone, StoreBusy

from .conftest import clean_environment, command
from .test_run import STORE, table

SMALL = ("--set", "seeds=[1]", "--set", 'models=["pop"]')


class Broken(io.StringIO):
    """A stream that accepts one line."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text):
        if self.getvalue().count("\n"):
            raise self.error
        return super().write(text)


BREAKS = [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device"), ValueError("closed file")]


@pytest.mark.parametrize("error", BREAKS)
@pytest.mark.parametrize("as_json", [False, True])
def test_lines_that_cannot_be_written_are_dropped_with_one_warning(monkeypatch, error, as_json):
    """This includes a model's own output, and it does not end the run."""
    out, err = Broken(error), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with listener(Console(), quiet=False, as_json=as_json) as emit:
        for _ in range(3):
            emit(CellsAwaited(1))
            print("a model's own words", flush=True)  # noqa: T201
    assert out.getvalue().count("\n") == 1
    reason = getattr(error, "strerror", None) or error
    warning = f"warning: standard output cannot be written any more ({reason}); the work goes on without its lines\n"
    assert err.getvalue() == warning


def test_a_run_completes_although_its_log_is_on_a_full_disk(tiny_suite, tmp_path):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            command("run", tiny_suite, *SMALL), cwd=tmp_path, env=clean_environment(), stdout=full,
            stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    warning = "standard output cannot be written any more (No space left on device); the work goes on without its lines"
    assert (done.returncode, done.stderr) == (0, f"warning: {warning}\n")
    assert table(tmp_path / STORE, "SELECT status FROM cells") == [("complete",)]


@pytest.mark.parametrize("words", [("data", "list"), ("data", "list", "--json"), ("--help",)])
def test_a_command_whose_output_is_on_a_full_disk_says_so(tmp_path, words):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            command(*words), cwd=tmp_path, env=clean_environment(), stdout=full, stderr=subprocess.PIPE, text=True,
            check=False,
        )  # fmt: skip
    sentence = "the output cannot be written: No space left on device; make room and run the command again"
    assert (done.returncode, done.stderr) == (2, f"error: {sentence}\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_listener_that_fails_is_dropped_with_one_warning(monkeypatch, capsys, terminal):
    def broken(*_):
        raise RuntimeError("no picture")

    monkeypatch.setattr("ipsrec_bench.cli.listen.plain_line", broken)
    monkeypatch.setattr("ipsrec_bench.cli.listen.fold", broken)
    with listener(Console(force_terminal=terminal), quiet=False, as_json=False) as emit:
        for _ in range(3):
            emit(CellsAwaited(1))
    warned = capsys.readouterr()
    assert (warned.out + warned.err).count("progress cannot be shown any more (RuntimeError: no picture)") == 1


def test_characters_that_an_output_lacks_are_replaced(tiny_suite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (
        tiny_suite.read_text().replace('"Tiny"', '"Größe ▁█"').replace("[models.pop]", '[models."prägung"]\ntype="pop"')
    )
    tiny_suite.write_text(text, encoding="utf-8")
    settings = ("--set", "seeds=[1]")
    done = CliRunner(charset="ascii").invoke(app, ["run", str(tiny_suite), *settings], env={})
    assert done.exit_code == 0, done.output
    assert "Gr??e ??: 5 cells" in done.stdout
    assert "pr?gung, seed 1: finished" in done.stdout
    assert table(tmp_path / STORE, "SELECT count(*) FROM cells WHERE status = 'complete'") == [(5,)]


def test_waits_are_reported_under_quiet(capsys):
    with listener(Console(), quiet=True, as_json=False) as emit:
        emit(StoreBusy("s.duckdb: the store is locked by another process: python (PID 7)"))
        emit(CellsAwaited(2))
        emit(EpochDone("k", "d", "m", 1, 1, 1.0, 1.0, 1.0))
    said = capsys.readouterr()
    assert said.out == ""
    lines = [line[20:] for line in said.err.splitlines()]
    assert lines == [
        "waiting: s.duckdb: the store is locked by another process: python (PID 7)",
        "waiting: the last 2 cells are being trained by another run on this store",
    ]


TERM = (signal.SIGTERM, 143)
ENDINGS = [(signal.SIGINT, 130), TERM, (signal.SIGHUP, 129)]


@pytest.mark.parametrize(
    ("where", "number", "code"),
    [*(("plan.prepare", *ending) for ending in ENDINGS), ("cell.train_cell", *TERM), ("recording.record_cell", *TERM)],
)
def test_signals_stop_a_run_gracefully_at_any_point(tiny_suite, bench, tmp_path, monkeypatch, where, number, code):
    with monkeypatch.context() as patched:
        patched.setattr(f"ipsrec_bench.run.{where}", lambda *_: signal.raise_signal(number))
        done = bench("run", tiny_suite, *SMALL, "--quiet")
    assert done.returncode == code
    assert done.stderr == "Interrupted. Finished cells are kept; the same command resumes.\n"
    assert not list(tmp_path.glob("data/prepared/.*"))
    assert bench("run", tiny_suite, *SMALL, "--quiet").returncode == 0
    assert not list((tmp_path / f"{STORE}.d/cells").iterdir())


def test_an_error_that_a_library_makes_of_a_signal_is_an_interruption(tiny_suite, bench, monkeypatch):
    """DuckDB ends its query, and says so in an error of its own."""

    def interrupted(*_):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise duckdb.InterruptException("INTERRUPT Error: Interrupted!") from None

    monkeypatch.setattr("ipsrec_bench.run.plan.prepare", interrupted)
    done = bench("run", tiny_suite)
    assert (done.returncode, done.stderr.startswith("Interrupted. Finished cells")) == (143, True)


def test_signals_stop_other_commands_with_one_word(finished, bench, monkeypatch):
    monkeypatch.setattr("ipsrec_bench.report.build.build_report", lambda *_: signal.raise_signal(signal.SIGTERM))
    done = bench("report", "--store", finished / STORE)
    assert (done.returncode, done.stderr) == (143, "Interrupted.\n")


def test_signals_stop_a_search_and_leave_nothing(tiny_suite, bench, tmp_path, monkeypatch):
    monkeypatch.setattr("ipsrec_bench.run.cell.train_cell", lambda *_: signal.raise_signal(signal.SIGHUP))
    done = bench("tune", tiny_suite, "--model", "ipsrec-s", "--trials", "1", "--quiet")
    assert done.returncode == 129
    assert done.stderr == "Interrupted. Finished trials are kept; the same command resumes.\n"
    assert not list((tmp_path / f"{STORE}.d/trials").iterdir())


def test_a_process_that_is_stopped_ends_with_all_its_processes(tiny_suite, tmp_path):
    """A terminal sends the signal to the workers, too, which only the run may stop."""
    arguments = command("run", tiny_suite, "--json", "--set", "training.epochs=5000", "--set", "training.patience=5000")
    with subprocess.Popen(
        arguments, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        for line in process.stdout:
            if json.loads(line)["event"] == "epoch-done" and "sasrec" in line:
                break
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.01)
        process.send_signal(signal.SIGTERM)  # as whatever has started the command may do
        assert process.stdout.read().splitlines()[-1].startswith('{"event": "run-finished"')
        assert process.stderr.read().startswith("Interrupted. Finished cells are kept")
        assert process.wait(timeout=60) == 143
    assert table(tmp_path / STORE, "SELECT count(*) FROM cells") == [(2,)]
    assert not list((tmp_path / f"{STORE}.d/cells").iterdir())


def test_a_signal_while_code_is_made_of_text_ends_a_process_with_its_code(tmp_path):
    """Started as a module, Python would end it by SIGINT; classes are made so, while modules are imported."""
    program = """
        import signal, sys
        from ipsrec_bench.cli.stopping import end_if_interrupted, signals_stop
        with signals_stop():
            try:
                exec("signal.raise_signal(signal.SIGTERM)")
            except KeyboardInterrupt:
                pass
        end_if_interrupted()
        sys.exit(143)
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    done = subprocess.run([sys.executable, "-m", "program"], cwd=tmp_path, check=False)
    assert done.returncode == 143


def test_a_second_signal_does_not_disturb_the_end_of_a_process(tmp_path):
    """It comes half a second after the first, where a busy machine passes it on late."""
    program = """
        import atexit, signal, time
        from ipsrec_bench.cli import stopping
        atexit.register(lambda: (signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping.STOPPING),
                                 signal.raise_signal(signal.SIGINT)))
        with stopping.signals_stop():
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                time.sleep(stopping.SAME_SECONDS)
            stopping.end_if_interrupted()
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    done = subprocess.run([sys.executable, "-m", "program"], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_run_whose_streams_are_closed_does_its_work(tiny_suite, tmp_path):
    arguments = command("run", tiny_suite, "--set", "training.epochs=1", "--set", "seeds=[1]")
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" >&- 2>&-', "sh", *arguments], cwd=tmp_path, env=clean_environment(), check=False
    )
    assert done.returncode == 0
    assert table(tmp_path / STORE, "SELECT count(*) FROM cells WHERE status = 'complete'") == [(5,)]
