"""What `run --dry-run` does."""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ipsrec_bench.run.executors.api import Slot
    from ipsrec_bench.run.executors.choice import ExecutorName
    from ipsrec_bench.suite.cells import Cell
    from ipsrec_bench.suite.load import SuiteFile
    from ipsrec_bench.suite.shards import Shard


def dry_run_of(
    file: "SuiteFile",
    data_dir: Path,
    store: Path,
    slots: "list[Slot]",
    executor: "ExecutorName",
    *,
    force: bool,
    available: bool,
    shard: "Shard | None",
    quiet: bool,
    as_json: bool,
) -> None:
    """List the cells of `file` with what they take in `slots`; cells of which the store knows nothing are probed."""
    from ipsrec_bench.cli.printing import print_cells
    from ipsrec_bench.run.executors.choice import executor_maker
    from ipsrec_bench.run.plan import preview
    from ipsrec_bench.run.probe import Costs

    def say(cell: "Cell") -> None:
        if sys.stderr.isatty() and not quiet:
            typer.echo(f"Probing {cell.shown} on {cell.dataset}", err=True)

    alone = executor_maker("pool" if executor == "ray" else executor, slots[:1])(lambda _: None, lambda: None)
    with alone, tempfile.TemporaryDirectory() as folder:
        cells = preview(
            file,
            data_dir,
            store,
            force=force,
            available=available,
            device=slots[0].device,
            shard=shard,
            estimate=Costs(store, alone, Path(folder), say).of,
        )
    print_cells(cells, len(slots), slots[0].threads, as_json=as_json)
