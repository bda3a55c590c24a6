"""`ipsrec-bench data`: what datasets there are, their preparation and their statistics."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipsrec_bench.cli.options import DATA_DIR, DataDirOption, JsonOption, SetOption

if TYPE_CHECKING:
    from ipsrec_bench.suite.load import SuiteFile
    from ipsrec_bench.suite.schema import DatasetSpec

app = typer.Typer(help="Datasets: list, prepare, statistics.", no_args_is_help=True)

SuiteOption = Annotated[Path | None, typer.Option("--suite", help="A suite whose own datasets are meant as well.")]


@app.command(name="list")
def list_datasets(
    suite: SuiteOption = None,
    overrides: SetOption = None,
    data_dir: DataDirOption = DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """List the datasets of the catalogue, or of a suite, and whether they are prepared."""
    from ipsrec_bench.cli.printing import DatasetState, print_datasets
    from ipsrec_bench.data.catalog import catalogue
    from ipsrec_bench.data.prepare import preparation_state

    file = _suite_file(list(catalogue()), suite, overrides)
    states = [
        DatasetState(
            name,
            catalogue()[name].title if name in catalogue() else f"from {file.path}",
            preparation_state(name, _source(file, name), data_dir),
        )
        for name in file.suite.datasets
    ]
    print_datasets(states, as_json=as_json)


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="A dataset of the catalogue, or of the suite given.")],
    suite: SuiteOption = None,
    overrides: SetOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Prepare a dataset and say where it lies."""
    from ipsrec_bench.data.prepare import prepare as build

    typer.echo(str(build(name, _source(_suite_file([name], suite, overrides), name), data_dir).path))


@app.command()
def stats(
    dataset: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A dataset's name, or a file of interactions.")],
    user: Annotated[str | None, typer.Option("--user", help="Column of the user, for a file.")] = None,
    item: Annotated[str | None, typer.Option("--item", help="Column of the item.")] = None,
    provider: Annotated[str | None, typer.Option("--provider", help="Column of the provider; '' for none.")] = None,
    time: Annotated[str | None, typer.Option("--time", help="Column of the time.")] = None,
    suite: SuiteOption = None,
    overrides: SetOption = None,
    data_dir: DataDirOption = DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Print a dataset's statistics: the columns of the paper's Table 1, lengths, repeats, stickiness."""
    from tempfile import TemporaryDirectory

    from ipsrec_bench.cli.printing import print_statistics
    from ipsrec_bench.data.prepare import prepare as build
    from ipsrec_bench.suite.schema import TableSource

    if Path(dataset).is_file():
        columns = {"user": user, "item": item, "provider": provider, "time": time}
        given = {role: column for role, column in columns.items() if column is not None}
        table = TableSource(path=str(Path(dataset).absolute()), **given)
        with TemporaryDirectory() as folder:
            statistics = build(Path(dataset).name, table, Path(folder)).statistics
    else:
        source = _source(_suite_file([dataset], suite, overrides), dataset)
        statistics = build(dataset, source, data_dir).statistics
    print_statistics(dataset, statistics, as_json=as_json)


def _suite_file(names: list[str], suite: Path | None, overrides: list[str] | None) -> "SuiteFile":
    """Return the suite given, or one made of the catalogued datasets `names`."""
    from ipsrec_bench.suite.load import adhoc_suite, load_suite

    return load_suite(suite, overrides or ()) if suite else adhoc_suite(names, ["pop"], overrides or ())


def _source(file: "SuiteFile", name: str) -> "DatasetSpec":
    from ipsrec_bench.data.catalog import catalogue_settings
    from ipsrec_bench.suite.cells import resolve_source

    return resolve_source(file, name, catalogue_settings())
