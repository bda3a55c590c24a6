"""`ipsrec-bench gc`: remove files that no cell of the store needs."""

from typing import Annotated

import typer

from ipsrec_bench.cli.options import STORE, StoreOption
from ipsrec_bench.words import visible


def gc(
    store: StoreOption = STORE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed; remove nothing.")] = False,
) -> None:
    """Remove weights and unfinished trainings that no cell of the store needs.

    Results and prepared data stay. An unfinished training is needed if the newest run of a suite plans its cell. Files
    of running commands stay, too.
    """
    from ipsrec_bench.run.garbage import collect, in_words

    garbage = collect(store, dry_run=dry_run)
    for one in garbage.found if dry_run else ():
        typer.echo(visible(f"{one.path}: {one.what}, {one.size / 2**20:,.1f} MiB"))
    typer.echo(in_words(garbage, removed=not dry_run))
    if garbage.not_looked_at:
        typer.echo(visible(garbage.not_looked_at), err=True)
