"""`ipsrec-bench watch`: the dashboard of a run, in another terminal or on another machine that shares the disk."""

from pathlib import Path
from typing import Annotated

import typer

from ipsrec_bench.cli import completion
from ipsrec_bench.cli.options import STORE, JsonOption, StoreOption
from ipsrec_bench.cli.stopping import interruptible
from ipsrec_bench.errors import BenchError, SuiteError

WatchedArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[SUITE]", autocompletion=completion.suites, help="Suite file or name of a suite; by default any."
    ),
]


def watch(suite: WatchedArgument = None, store: StoreOption = STORE, as_json: JsonOption = False) -> None:
    """Show the live run of SUITE, or replay its newest run; Ctrl-C ends only the watching."""
    from rich.console import Console

    from ipsrec_bench.cli.listen import listener
    from ipsrec_bench.events import RunClosed, RunFinished
    from ipsrec_bench.run.journal import follow

    journal = find_journal(store, suite, live=False)
    is_finished, reason = False, ""
    with (
        interruptible("The run is left as it is."),
        listener(Console(), quiet=False, as_json=as_json) as emit,
    ):
        for event in follow(journal):
            emit(event)
            if isinstance(event, RunFinished):
                is_finished = True
            elif isinstance(event, RunClosed):
                reason = event.reason
    if reason and not is_finished:
        typer.echo(f"The run ended early: {reason}", err=True)
        raise typer.Exit(1)


def find_journal(store: Path, suite: str | None, *, live: bool) -> Path:
    """Return the journal of a suite's newest live run, else of its newest run.

    Args:
        store: the store's file.
        suite: the suite's file or name; any if None.
        live: accept live runs only.

    Raises:
        BenchError: there is none.
    """
    from ipsrec_bench.run.journal import header, journals, newest

    name = suite
    if suite is not None and suite.lower().endswith(".toml"):
        from ipsrec_bench.suite.load import suite_name  # takes a moment to import

        try:
            name = suite_name(suite)
        except SuiteError:  # it is being edited while its run goes on
            name = Path(suite).stem
    found = newest(store, name, live=True) or (None if live else newest(store, name))
    if found is not None:
        return found
    of = f" of {name}" if name else ""
    if live:
        raise BenchError(f"{store}: no live run{of}; ipsrec-bench watch shows how the last one ended")
    others = {opened.suite: None for path in journals(store) if (opened := header(path)) is not None}
    remedy = f"choose from {', '.join(others)}" if others else "start one with ipsrec-bench run"
    raise BenchError(
        f"{store}: no run{of} has a journal beside this store; {remedy}, or name another store with --store"
    )
