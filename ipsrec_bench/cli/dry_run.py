"""`ipsrec-bench run --dry-run`: estimate cells without training them."""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ipsrec_bench.cli.tuned_run import searches_in_words
from ipsrec_bench.words import visible

if TYPE_CHECKING:
    from ipsrec_bench.run.executors.choice import Workers
    from ipsrec_bench.run.plan import PreviewedCell, RunOptions
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
) -> "list[PreviewedCell]":
    """Return the cells of `file` with their estimates; cells without a record in the store are probed."""
    from ipsrec_bench.run.executors.choice import executor_maker
    from ipsrec_bench.run.plan import preview
    from ipsrec_bench.run.probe import Costs

    def say(cell: "Cell") -> None:
        if sys.stderr.isatty() and not quiet:
            typer.echo(f"Probing {cell.shown} on {cell.dataset}", err=True)

    name = "pool" if workers.executor == "ray" else workers.executor
    alone = executor_maker(name, workers.slots(1))(lambda _: None, lambda: None)
    with alone, tempfile.TemporaryDirectory() as folder:
        return preview(file, data_dir, store, options, Costs(store, alone, Path(folder), say).of)


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
    """Print the cells of `file` with their estimates, and the searches that come before them."""
    from ipsrec_bench.cli.printing import print_cells

    found = dry_run_of(file, data_dir, store, workers, options, quiet=quiet)
    print_cells(found, slots, workers.threads, as_json=as_json)
    say_seeds_needed(file, store, quiet=as_json)
    if file.suite.tune.before and not as_json:
        typer.echo(
            f"These cells have the settings of the suite. Before them come {searches_in_words(file, data_dir)}; the"
            " best settings replace those shown."
        )
