"""`ipsrec-bench stop`, `pause` and `resume`: what others ask of a run that is under way."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ipsrec_bench.cli.options import STORE, StoreOption
from ipsrec_bench.cli.stopping import interruptible
from ipsrec_bench.cli.watch import find_run
from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import Event, RunClosed, RunFinished, RunPaused, RunResumed

ANSWER_SECONDS = 15.0
"""How long an answer is waited for; a worker answers at its next step."""

LiveArgument = Annotated[
    str | None,
    typer.Argument(metavar="[SUITE]", help="A suite file or the name of a suite; any if not given."),
]
NowOption = Annotated[bool, typer.Option("--now", help="End workers at once; an epoch that they are at is lost.")]


def stop(suite: LiveArgument = None, now: NowOption = False, store: StoreOption = STORE) -> None:
    """Stop the newest run of SUITE that is under way, as Ctrl-C does; the same command goes on with it."""
    _ask(store, suite, "stop-now" if now else "stop", "to stop", RunFinished)


def pause(suite: LiveArgument = None, store: StoreOption = STORE) -> None:
    """Let the newest run of SUITE that is under way wait, with its memory, until it is resumed."""
    _ask(store, suite, "pause", "to pause", RunPaused)


def resume(suite: LiveArgument = None, store: StoreOption = STORE) -> None:
    """Let a paused run of SUITE go on."""
    _ask(store, suite, "run", "to go on", RunResumed)


def _ask(
    store: Path,
    suite: str | None,
    word: Literal["run", "pause", "stop", "stop-now"],
    what: str,
    answer: type[Event],
) -> None:
    from ipsrec_bench.run.control import FINAL, ask, asked
    from ipsrec_bench.run.journal import control_path, follow, header

    journal = find_run(store, suite, live=True)
    control = control_path(journal)
    opened = header(journal)
    run = f"The run of {opened.suite}, process {opened.pid} on {opened.host}," if opened else f"The run {journal.stem}"
    before = asked(control)
    if before == "stop-now" or (before in FINAL and word not in FINAL):
        raise BenchError(f"{run} was asked to stop before; ipsrec-bench run begins another one")
    if before == word:
        hint = "; stop --now ends its workers at once" if word == "stop" else ""
        typer.echo(f"{run} {'is not paused' if word == 'run' else f'was asked {what} before'}{hint}")
        return
    begin = journal.stat().st_size
    ask(control, word)
    typer.echo(f"{run} was asked {what}")
    with interruptible("What was asked of the run stays asked."):
        for event in follow(journal, begin, ANSWER_SECONDS):
            if isinstance(event, answer | RunFinished | RunClosed):
                typer.echo(_answer(event))
                return
    typer.echo(f"It has not answered within {ANSWER_SECONDS:g} s; it will at its next step. See ipsrec-bench watch")


def _answer(event: Event) -> str:
    match event:
        case RunPaused():
            return "It is paused; ipsrec-bench resume lets it go on"
        case RunResumed():
            return "It goes on"
        case RunFinished(interrupted=True):
            return f"It has stopped with {event.complete} cells complete and {event.failed} failed"
        case RunClosed(reason=reason) if reason:
            return f"It has ended: {reason}"
        case _:
            return "It has come to its end"
