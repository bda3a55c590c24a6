"""`ipsrec-bench suites`: the suites that ship with the toolkit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipsrec_bench.cli import completion
from ipsrec_bench.cli.options import DATA_DIR, DataDirOption, examples
from ipsrec_bench.errors import BenchError, did_you_mean, listed
from ipsrec_bench.words import visible

if TYPE_CHECKING:
    from ipsrec_bench.suite.load import SuiteFile

app = typer.Typer(help="List, show and copy the suites that ship with the toolkit.", rich_markup_mode=None)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", autocompletion=completion.suite_files, help="A shipped suite.")
]


@app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_suites()


@app.command(name="list", epilog=examples("ipsrec-bench suites", "ipsrec-bench suites list --data-dir /data"))
def list_suites(data_dir: DataDirOption = DATA_DIR) -> None:
    """List the shipped suites with their size and their data."""
    from ipsrec_bench.cli.printing import print_table
    from ipsrec_bench.suite.load import load_suite
    from ipsrec_bench.suite.shipped import shipped_suites

    files = {name: load_suite(path) for name, path in shipped_suites().items()}
    print_table(
        ["suite", "title", "datasets x models x seeds", "data"],
        [(name, file.suite.title, _size(file), _data(file, data_dir)) for name, file in files.items()],
    )
    typer.echo("To get missing data: see ipsrec-bench data list, and the comments in ipsrec-bench suites show NAME")


@app.command(epilog=examples("ipsrec-bench suites show quick"))
def show(name: NameArgument) -> None:
    """Print the file of a shipped suite."""
    typer.echo(_shipped(name).read_text(encoding="utf-8"), nl=False)


@app.command(epilog=examples("ipsrec-bench suites copy quick", "ipsrec-bench suites copy paper --to suites"))
def copy(
    name: NameArgument,
    to: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", help="Folder of the copy; created if it does not exist.")
    ] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Copy the file of a shipped suite, to change it.

    A copy in the working folder takes precedence over the shipped suite of that name.
    """
    from ipsrec_bench.files import replace_files

    source = _shipped(name)
    target = to / source.name
    if target.exists() and not force:
        raise BenchError(f"{target}: the file exists already; add --force to replace it, or --to another folder")
    try:
        replace_files(to, {source.name: source.read_bytes()})
    except OSError as error:
        raise BenchError(f"{target}: cannot be written: {error.strerror or error}") from None
    typer.echo(visible(str(target)))


def _shipped(name: str) -> Path:
    from ipsrec_bench.suite.shipped import shipped_suites

    shipped = shipped_suites()
    if name not in shipped:
        raise BenchError(f"no suite '{name}' ships; choose from {listed(shipped)}{did_you_mean(name, shipped)}")
    return shipped[name]


def _size(file: "SuiteFile") -> str:
    """Return how many datasets, models with their variants, and seeds a suite has."""
    suite = file.suite
    rows = sum(1 + len(table.get("variants", {})) for table in suite.models.values())
    return f"{len(suite.datasets)} x {rows} x {len(suite.seeds)}"


def _data(file: "SuiteFile", data_dir: Path) -> str:
    """Return which raw files a suite needs, and whether they are there."""
    from ipsrec_bench.data.prepare import preparation_state
    from ipsrec_bench.run.plan import known_datasets_of
    from ipsrec_bench.suite.conditions import resolve_source
    from ipsrec_bench.suite.schema import SyntheticSource

    known = known_datasets_of(file, data_dir)
    states: dict[str, list[str]] = {}
    for name in file.suite.datasets:
        source = resolve_source(file, name, known)
        if isinstance(source, SyntheticSource):
            state = "embedded"
        else:
            is_missing = preparation_state(name, source, data_dir).startswith("missing")
            state = "missing" if is_missing else "there"
        states.setdefault(state, []).append(name)
    return "; ".join(f"{state}: {', '.join(names)}" for state, names in states.items())
