"""`run --detach`: the same command in the background, which outlives its terminal."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import typer

from ipsrec_bench.cli.options import STORE
from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import RunOpened, RunStarted
from ipsrec_bench.run.journal import follow, header, journals, machine, runs_folder

OPTION = "--detach"
PATIENCE_SECONDS = 30.0
"""Maximum wait for the start of training; preparing data may take hours."""
_POLL_SECONDS = 0.1


def detach(command: Sequence[str], store: Path) -> None:
    """Start `command` without its `--detach` in the background, and print how to reach it.

    Directory and environment are this process's; the output goes to a file beside the journal. Waits until the run has
    started, so that an error at its start is printed here.

    Args:
        command: of this process, as `sys.orig_argv` has it.
        store: the store's file.

    Raises:
        BenchError: the file for the output cannot be made.
        OSError: the process cannot be started.
        Exit: the process has ended already; its output is printed, and its exit code passed on.
    """
    began = time.time()
    folder = runs_folder(store)
    log = folder / f"starting-{time.time_ns()}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        output = log.open("xb")
    except OSError as error:
        raise BenchError(
            f"{folder}: the run's output cannot be written there: {error.strerror}; give another place with --store"
        ) from error
    with output:
        process = subprocess.Popen(  # noqa: S603 (this process's own command)
            [sys.executable, *(word for word in command[1:] if word != OPTION)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # or the end of the terminal, or its Ctrl-C, would end it
        )
    journal: Path | None = None
    try:
        while process.poll() is None and time.time() < began + PATIENCE_SECONDS:
            journal = journal or _journal_of(process.pid, store, began)
            if journal and any(isinstance(event, RunStarted) for event in follow(journal, seconds=0)):
                break
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        log.unlink()
        raise
    code = process.poll()
    if code is not None:
        typer.echo(log.read_text(encoding="utf-8", errors="replace"), nl=False, err=code != 0)
        log.unlink()
        raise typer.Exit(code if code >= 0 else 128 - code)
    opened = header(journal) if journal else None
    if journal is not None:
        log = log.rename(journal.with_suffix(".log"))
    for line in _sentences(process.pid, log, store, opened):
        typer.echo(line)


def _journal_of(pid: int, store: Path, began: float) -> Path | None:
    for path in reversed(journals(store)):
        opened = header(path)
        if opened and opened.pid == pid and opened.machine == machine() and opened.time >= began:
            return path
    return None


def _sentences(pid: int, log: Path, store: Path, opened: RunOpened | None) -> list[str]:
    where = "" if store == STORE else f" --store {shlex.quote(str(store))}"
    suite = f" {shlex.quote(opened.suite)}" if opened else ""
    return [
        f"The run continues in the background as process {pid}; its output: {os.path.relpath(log)}",
        f"Watch it: ipsrec-bench watch{suite}{where}",
        f"Stop it: ipsrec-bench stop{suite}{where}",
    ]
