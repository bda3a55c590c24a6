"""`ipsrec-bench merge`: combine the stores of separate runs."""

from pathlib import Path
from typing import Annotated

import typer

from ipsrec_bench.words import counted, visible


def merge(
    into: Annotated[
        Path, typer.Argument(metavar="INTO", help="Store that receives the results; created if it does not exist.")
    ],
    parts: Annotated[list[Path], typer.Argument(metavar="PART...", help="Stores to read; they are not changed.")],
) -> None:
    """Add the results of the stores PART to the store INTO, as after run --shard.

    Results that INTO already has are kept, so a second merge changes nothing.
    """
    from ipsrec_bench.run.merge import check_parts
    from ipsrec_bench.run.merge import merge as enter

    def tell(sentence: str) -> None:
        typer.echo(visible(sentence), err=True)

    check_parts(into, parts, tell)
    conflicts = 0
    for part in parts:
        merged = enter(into, part, tell)
        rows = merged.rows
        failed = f", {rows.failed} failed cells" if rows.failed else ""
        typer.echo(
            f"{part}: {counted(rows.complete, 'cell')} entered{failed};"
            f" {len(rows.shared) - rows.complete} were there already"
        )
        for conflict in rows.conflicts:
            tell(
                f"{part}: conflict: {conflict.row} (key {conflict.key}): {conflict.difference}. {into} keeps its own"
                " result"
            )
        conflicts += len(rows.conflicts)
        if merged.waiting:
            tell(
                f"{part}: {merged.waiting} results wait beside it and are not in it; enter them with ipsrec-bench run"
                f" SUITE --store {part} --collect, and merge again"
            )
    if conflicts:
        raise typer.Exit(1)
