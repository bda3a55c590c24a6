"""`ipsrec-bench doctor`: find what would prevent a run, and print how to fix it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipsrec_bench.cli import completion
from ipsrec_bench.cli.options import DATA_DIR, STORE, DataDirOption, JsonOption, SetOption, StoreOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipsrec_bench.run.doctor.finding import Finding

_SIGNS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}
_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(
    suite: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SUITE]",
            autocompletion=completion.suite_files,
            help="A suite file or a shipped suite; checks its data and disk space.",
        ),
    ] = None,
    overrides: SetOption = None,
    store: StoreOption = STORE,
    data_dir: DataDirOption = DATA_DIR,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Remove files of dead processes; results, weights and data stay."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check this machine, the data of SUITE and the store, and say how to fix problems.

    Nothing is trained. The exit code is 1 if there is a problem; notes do not count as problems.
    """
    from dataclasses import asdict

    from ipsrec_bench.cli.printing import print_json
    from ipsrec_bench.run.doctor.diagnosis import diagnose
    from ipsrec_bench.run.doctor.finding import fixed
    from ipsrec_bench.suite.load import load_suite
    from ipsrec_bench.suite.shipped import find_suite

    file = load_suite(find_suite(suite), overrides or ()) if suite is not None else None
    findings = list(diagnose(file, store, data_dir))
    if fix:
        findings = [fixed(finding) for finding in findings]
    if as_json:
        print_json([{key: value for key, value in asdict(one).items() if key != "fix"} for one in findings])
    else:
        _print(sorted(findings, key=lambda finding: list(_SIGNS).index(finding.state)))
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


def _print(findings: "Sequence[Finding]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ipsrec_bench.words import visible

    console = Console()
    rows = [(_SIGNS[one.state], one.name, [one.found, *([f"-> {one.mend}"] if one.mend else [])]) for one in findings]
    if console.is_terminal:
        table = Table.grid(padding=(0, 2, 0, 0))
        for one, (sign, name, lines) in zip(findings, rows, strict=True):
            text = "\n".join(map(visible, lines))
            table.add_row(Text(sign, style=_STYLES[one.state]), Text(visible(name)), Text(text, overflow="fold"))
        console.print(table)
    else:  # a pipe has no width to fit into
        width = max(len(visible(name)) for _, name, _ in rows)
        for sign, name, lines in rows:
            typer.echo(f"{sign:<7}  {visible(name):<{width}}  {'  '.join(map(visible, lines))}")
    problems, notes = (sum(finding.state == state for finding in findings) for state in ("problem", "note"))
    counts = [
        f"{count} {word}{'' if count == 1 else 's'}"
        for count, word in ((problems, "problem"), (notes, "note"))
        if count
    ]
    typer.echo(", ".join(counts) or "No problem, nothing to note")
