"""`ipsrec-bench stop`, `pause` and `resume`: control a live run from another terminal or machine."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ipsrec_bench.cli import completion
from ipsrec_bench.cli.options import STORE, StoreOption
from ipsrec_bench.cli.stopping import interruptible
from ipsrec_bench.cli.watch import find_journal
from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import Event, RunClosed, RunFinished, RunPaused, RunResumed
from ipsrec_bench.words import counted

ANSWER_SECONDS = 15.0
"""Time that the commands wait for the run's answer; workers notice at their next step."""

LiveArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[SUITE]", autocompletion=completion.suites, help="Suite file or name of a suite; by default any."
    ),
]
NowOption = Annotated[bool, typer.Option("--now", help="End the workers immediately instead of at their next step.")]


def stop(suite: LiveArgument = None, now: NowOption = False, store: StoreOption = STORE) -> None:
    """Stop the live run of SUITE as Ctrl-C does; the same run command resumes it."""
    _ask(store, suite, "stop-now" if now else "stop", "to stop", RunFinished)


def pause(suite: LiveArgument = None, store: StoreOption = STORE) -> None:
    """Pause the live run of SUITE at its next training step; it keeps its memory."""
    _ask(store, suite, "pause", "to pause", RunPaused)


def resume(suite: LiveArgument = None, store: StoreOption = STORE) -> None:
    """Continue the paused run of SUITE."""
    _ask(store, suite, "run", "to continue", RunResumed)


def _ask(
    store: Path,
    suite: str | None,
    word: Literal["run", "pause", "stop", "stop-now"],
    what: str,
    answer: type[Event],
) -> None:
    from ipsrec_bench.run.control import FINAL, ask, asked
    from ipsrec_bench.run.journal import control_path, follow, header

    journal = find_journal(store, suite, live=True)
    control = control_path(journal)
    opened = header(journal)
    run = f"The run of {opened.suite}, process {opened.pid} on {opened.host}," if opened else f"The run {journal.stem}"
    before = asked(control)
    if before == "stop-now" or (before in FINAL and word not in FINAL):
        raise BenchError(f"{run} was already asked to stop; start another one with ipsrec-bench run")
    if before == word:
        hint = "; stop --now ends its workers at once" if word == "stop" else ""
        typer.echo(f"{run} {'is not paused' if word == 'run' else f'was already asked {what}'}{hint}")
        return
    begin = journal.stat().st_size
    ask(control, word)
    typer.echo(f"{run} was asked {what}")
    with interruptible("The run has the request."):
        for event in follow(journal, begin, ANSWER_SECONDS):
            if isinstance(event, answer | RunFinished | RunClosed):
                typer.echo(_answer(event))
                return
    typer.echo(f"No answer within {ANSWER_SECONDS:g} s; workers notice at their next step: see ipsrec-bench watch")


def _answer(event: Event) -> str:
    match event:
        case RunPaused():
            return "It is paused; ipsrec-bench resume continues it"
        case RunResumed():
            return "It continues"
        case RunFinished(interrupted=True):
            return f"It has stopped with {counted(event.complete, 'cell')} complete and {event.failed} failed"
        case RunClosed(reason=reason) if reason:
            return f"It has ended: {reason}"
        case _:
            return "It has finished"
