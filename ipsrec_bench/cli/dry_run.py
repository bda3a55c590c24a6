"""`ipsrec-bench run --dry-run`: estimate cells without training them."""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ipsrec_bench.cli.tuned_run import searches_in_words, storage_of
from ipsrec_bench.words import counted, visible

if TYPE_CHECKING:
    from ipsrec_bench.run.executors.choice import Workers
    from ipsrec_bench.run.plan import Plan, PreviewedCell, RunOptions
    from ipsrec_bench.suite.cells import Cell
    from ipsrec_bench.suite.load import SuiteFile


def say_seeds_needed(file: "SuiteFile", store: Path, *, quiet: bool) -> None:
    """Print how many seeds the suite's comparisons need, if the store has an earlier run of it."""
    from ipsrec_bench.report.planning import seeds_for
    from ipsrec_bench.store.connect import reading

    if quiet or not store.is_file():
        return
    with reading(store) as connection:
        sentences = list(seeds_for(connection, file.name))
    for sentence in sentences:
        typer.echo(visible(sentence))


def dry_run_of(
    file: "SuiteFile", data_dir: Path, store: Path, workers: "Workers", options: "RunOptions", *, quiet: bool
) -> "tuple[list[PreviewedCell], set[tuple[str, str, str]]]":
    """Return the cells of `file` with their estimates, and the places of the rows whose searches have ended.

    Cells without a record in the store are probed. Cells of these rows have the best settings.
    """
    from ipsrec_bench.run.executors.choice import executor_maker
    from ipsrec_bench.run.plan import preview
    from ipsrec_bench.run.probe import Costs

    def say(cell: "Cell") -> None:
        if sys.stderr.isatty() and not quiet:
            typer.echo(f"Probing {cell.shown} on {cell.dataset}", err=True)

    ended: set[tuple[str, str, str]] = set()

    def tuned(plan: "Plan") -> "Plan":
        from ipsrec_bench.tuning.rows import ended_searches, with_best

        if not (file.suite.tune.before and plan.cells):
            return plan
        found = ended_searches(plan, storage_of(store))
        ended.update(found)
        return with_best(plan, found, store)

    name = "pool" if workers.executor == "ray" else workers.executor
    alone = executor_maker(name, workers.slots(1))(lambda _: None, lambda: None)
    with alone, tempfile.TemporaryDirectory() as folder:
        return preview(file, data_dir, store, options, Costs(store, alone, Path(folder), say).of, tuned), ended


def print_dry_run(
    file: "SuiteFile",
    data_dir: Path,
    store: Path,
    workers: "Workers",
    options: "RunOptions",
    slots: int,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Print the cells of `file` with their estimates, and the searches that are still to come before them."""
    from ipsrec_bench.cli.printing import print_cells

    found, ended = dry_run_of(file, data_dir, store, workers, options, quiet=quiet)
    print_cells(found, slots, workers.threads, as_json=as_json)
    say_seeds_needed(file, store, quiet=as_json)
    if file.suite.tune.before and not as_json:
        searches = searches_in_words(file, data_dir, ended)
        if not searches:
            typer.echo("All searches have ended; these cells have their best settings.")
            return
        known = f"{counted(len(ended), 'search', 'searches')} ended, and their cells have the best settings. The others"
        typer.echo(
            f"{known if ended else 'These cells'} have the settings of the suite. Before them come {searches}; the best"
            " settings replace those shown."
        )
