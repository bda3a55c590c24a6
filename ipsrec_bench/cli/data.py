"""`ipsrec-bench data`: datasets, how to get them, their preparation and their statistics."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipsrec_bench.cli import completion
from ipsrec_bench.cli.options import (
    DATA_DIR,
    STORE,
    DataDirOption,
    JsonOption,
    QuietOption,
    ScaleOption,
    SetOption,
    StandInOption,
    StoreOption,
    examples,
    with_sizes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ipsrec_bench.data.datasets import Published
    from ipsrec_bench.data.prepared import PreparedDataset
    from ipsrec_bench.data.split_statistics import SplitStatistics
    from ipsrec_bench.suite.conditions import Condition
    from ipsrec_bench.suite.load import SuiteFile
    from ipsrec_bench.suite.schema import DatasetSpec, Protocol

app = typer.Typer(
    help="List, download, generate, prepare and describe datasets.", no_args_is_help=True, rich_markup_mode=None
)

SuiteOption = Annotated[
    str | None,
    typer.Option("--suite", help="Suite file, or name of a suite that was run, to use its datasets."),
]
NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", autocompletion=completion.datasets, help="A known dataset, or one of the given suite."
    ),
]


@app.command(
    name="list",
    epilog=examples("ipsrec-bench data list", "ipsrec-bench data list tmall", "ipsrec-bench data list --suite quick"),
)
def list_datasets(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", autocompletion=completion.datasets, help="Show everything about this known dataset."
        ),
    ] = None,
    suite: SuiteOption = None,
    store: StoreOption = STORE,
    overrides: SetOption = None,
    data_dir: DataDirOption = DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """List known datasets, or those of a suite, and their files."""
    from ipsrec_bench.cli.printing import DatasetState, print_datasets, print_entry
    from ipsrec_bench.data.datasets import known_dataset, known_datasets
    from ipsrec_bench.data.prepare import preparation_state
    from ipsrec_bench.report.runs import suite_file
    from ipsrec_bench.run.plan import known_datasets_of
    from ipsrec_bench.suite.conditions import conditions
    from ipsrec_bench.suite.load import adhoc_suite
    from ipsrec_bench.suite.schema import control_name

    known = known_datasets(data_dir)
    if name is not None:
        print_entry(name, known_dataset(name, known), known.state(name), as_json=as_json)
        return
    names = [key for key in known if known.entry(key) is not None]
    file = suite_file(suite, store, overrides or ()) if suite else adhoc_suite(names, ["pop"], overrides or ())
    states, seen = [], []
    for one in conditions(file, known_datasets_of(file, data_dir)):
        key, control = one.name.base, control_name(one.source.providers_as)
        if (key, one.source) in seen:
            continue  # another protocol on the same data
        seen.append((key, one.source))
        found = known.entry(key)
        prepared = preparation_state(one.label, one.source, data_dir)
        title = (found.title if found else f"from {file.path}") + (f"; {control}" if control else "")
        missing = found and prepared.startswith("missing")
        raw = known.state(key) if found else ""
        states.append(DatasetState(one.label, title, raw, "not prepared" if missing else prepared))
    if not suite:
        many = [key for key in known if key not in names]
        states += [DatasetState(key, known.entries[key].title, known.state(key), "") for key in many]
    print_datasets(states, as_json=as_json)


@app.command(epilog=examples("ipsrec-bench data download beauty"))
def download(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=completion.datasets, help="A known dataset.")],
    data_dir: DataDirOption = DATA_DIR,
    quiet: QuietOption = False,
) -> None:
    """Download a dataset that needs no login; a second call resumes."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from ipsrec_bench.data.datasets import known_dataset, known_datasets
    from ipsrec_bench.data.download import download as fetch
    from ipsrec_bench.errors import DataError
    from ipsrec_bench.extras import require

    entry = known_dataset(name, known_datasets(data_dir))
    if not entry.downloads:
        raise DataError(
            f"'{name}' is embedded; there is nothing to download"
            if entry.embedded
            else f"'{name}' cannot be downloaded from a plain URL: {entry.obtain}; {entry.homepage}"
        )
    require("download", "data download")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(quiet=quiet)) as progress:
        for part in entry.downloads:
            task = progress.add_task(part.file, total=None)
            target = data_dir / "raw" / part.file

            def show(received: int, total: int | None, task: TaskID = task) -> None:
                progress.update(task, completed=received, total=total)

            fetch(part.url, target, part.sha256, show)
            size = target.stat().st_size
            show(size, size)


@app.command(epilog=examples("ipsrec-bench data synth --like tmall --scale 0.01"))
def synth(
    like: Annotated[str, typer.Option("--like", help="Dataset whose format and size are imitated, like tmall.")],
    scale: ScaleOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to create; by default where a run looks for it.")
    ] = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Generate raw files like those of a published dataset: a stand-in."""
    from ipsrec_bench.data.datasets import stand_in_folder
    from ipsrec_bench.data.stand_ins import write_stand_in
    from ipsrec_bench.errors import DataError
    from ipsrec_bench.suite.load import adhoc_suite

    size = adhoc_suite([like], ["pop"], with_sizes(None, scale, stand_in=True)).suite.scale
    folder = output or data_dir / stand_in_folder(like, size)
    if output and output.exists():
        raise DataError(f"{output}: exists already; name a new folder")
    write_stand_in(like, size, folder)
    typer.echo(str(folder))


@app.command(
    epilog=examples("ipsrec-bench data prepare tmall", "ipsrec-bench data prepare tmall --stand-in --scale 0.01")
)
def prepare(
    name: NameArgument,
    suite: SuiteOption = None,
    store: StoreOption = STORE,
    overrides: SetOption = None,
    scale: ScaleOption = None,
    stand_in: StandInOption = False,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Prepare a dataset and print its folder."""
    from ipsrec_bench.data.prepare import prepare as build

    file = _suite_file(name, suite, store, with_sizes(overrides, scale, stand_in=stand_in), data_dir)
    data = build(name, _source(file, name, data_dir), data_dir)
    for note in data.reading.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(str(data.path))


@app.command(
    epilog=examples(
        "ipsrec-bench data stats positive-control",
        "ipsrec-bench data stats log.csv --user user --item product --provider shop --time date",
        "ipsrec-bench data stats tmall --suite my.toml --json",
    )
)
def stats(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            autocompletion=completion.datasets_or_files,
            help="A dataset's name, or a file of interactions.",
        ),
    ],
    user: Annotated[str | None, typer.Option("--user", help="Column with the user, for a file.")] = None,
    item: Annotated[str | None, typer.Option("--item", help="Column with the item, also in --items.")] = None,
    provider: Annotated[
        str | None, typer.Option("--provider", help="Column with the provider, in --items if given; '' for none.")
    ] = None,
    time: Annotated[str | None, typer.Option("--time", help="Column with the time.")] = None,
    items: Annotated[
        Path | None, typer.Option("--items", metavar="FILE", help="Second file, with the provider of each item.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Column names of a file without header, separated by commas.")
    ] = None,
    delimiter: Annotated[str | None, typer.Option("--delimiter", help="Separator of the columns.")] = None,
    where: Annotated[str | None, typer.Option("--where", help="SQL condition that selects rows.")] = None,
    suite: SuiteOption = None,
    store: StoreOption = STORE,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a key of the suite or, for a file, of its dataset, e.g. time_format=%d.%m.%Y; repeatable.",
        ),
    ] = None,
    scale: ScaleOption = None,
    stand_in: StandInOption = False,
    data_dir: DataDirOption = DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Print size, lengths, repeats, stickiness, order and leaks of a dataset.

    Statistics of targets use the suite's split, or leave-one-out if no suite is given.
    """
    from tempfile import gettempdir

    from ipsrec_bench.cli.printing import print_statistics
    from ipsrec_bench.data.prepare import prepare as build
    from ipsrec_bench.errors import DataError
    from ipsrec_bench.run.workplace import Workplace
    from ipsrec_bench.suite.schema import control_of

    of_file: dict[str, object] = {
        "user": user, "item": item, "provider": provider, "time": time, "items": items, "columns": columns,
        "delimiter": delimiter, "where": where,
    }  # fmt: skip
    given = {name: value for name, value in of_file.items() if value is not None}
    path = Path(dataset)
    is_file = path.is_file() or path.with_name(path.name + ".gz").is_file()
    if given and not is_file:
        raise DataError(f"{dataset}: there is no such file, and --{next(iter(given))} needs one")
    if is_file:
        if suite or stand_in:
            raise DataError(f"{dataset}: --suite and --stand-in do not apply to a file; leave them out")
        file = _file_suite(path, given, overrides or [], scale)
        workplace = Workplace(Path(gettempdir()) / f"ipsrec-bench-{os.getuid()}")
        workplace.sweep()
        with workplace.scratch() as folder:
            data = build(path.name, _source(file, FILE, data_dir), folder)
            protocol = _protocol(file, FILE, data_dir)
        published = None
    else:
        file = _suite_file(dataset, suite, store, with_sizes(overrides, scale, stand_in=stand_in), data_dir)
        data = build(dataset, _source(file, dataset, data_dir), data_dir)
        protocol = _protocol(file, dataset, data_dir)
        published = None if suite or overrides or data.stand_in or data.scale < 1 else _published(dataset, data_dir)
    control = control_of(data.source)
    title = f"{dataset}, {control}" if control and control not in dataset else dataset
    title += " (stand-in, generated)" if data.stand_in else ""
    found = _targets(data, protocol)
    print_statistics(title, data, protocol.split_name, found, published, as_json=as_json)


def _targets(data: "PreparedDataset", protocol: "Protocol") -> "SplitStatistics | str":
    """Return the statistics of the split that `protocol` names, or why nobody can be evaluated under it."""
    from ipsrec_bench.data.split_statistics import held_out_facts
    from ipsrec_bench.errors import DataError

    try:
        return held_out_facts(data, protocol)[1]
    except DataError as error:
        return str(error)


FILE = "file"
"""Name of the dataset in the suite that is made for a file."""


def _file_suite(path: Path, given: "Mapping[str, object]", overrides: list[str], scale: float | None) -> "SuiteFile":
    """Return a suite whose only dataset is the file `path`, read as the options `given` and the overrides say."""
    import json

    from ipsrec_bench.suite.load import parse_suite

    settings = {"path": str(path.absolute()), **given}
    if "columns" in settings:
        settings["columns"] = [name.strip() for name in str(settings["columns"]).split(",")]
    items = settings.pop("items", None)
    if items is not None:
        settings["items.path"] = str(Path(str(items)).absolute())
        settings["items.item"] = settings.get("item", ["item", "item_id"])
        settings["items.provider"] = settings.pop("provider", ["provider", "provider_id"])
    text = f'title = "From the command line"\nmodels = ["pop"]\n[datasets.{FILE}]\n' + "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in settings.items()
    )
    sized = with_sizes([f"datasets.{FILE}.{override}" for override in overrides], scale, stand_in=False)
    return parse_suite(Path("(command line)"), text, sized)


def _suite_file(name: str, suite: str | None, store: Path, overrides: list[str], data_dir: Path) -> "SuiteFile":
    """Return the given suite, or one of the known dataset `name`, with its stand-in or archive ready."""
    from ipsrec_bench.data.datasets import known_dataset, known_datasets
    from ipsrec_bench.errors import DataError
    from ipsrec_bench.report.runs import suite_file
    from ipsrec_bench.run.plan import known_datasets_of
    from ipsrec_bench.suite.conditions import conditions
    from ipsrec_bench.suite.load import adhoc_suite

    known = known_datasets(data_dir)
    if suite is None and known.entry(name) is None and (Path(name).suffix or Path(name).name != name):
        raise DataError(f"{name}: there is no such file, and no known dataset has this name")
    if suite is None and not overrides:
        try:
            known_dataset(name, known)
        except DataError as error:
            raise DataError(f"{error}; a dataset of a suite needs --suite SUITE") from None
    file = suite_file(suite, store, overrides) if suite else adhoc_suite([name], ["pop"], overrides)
    datasets = known_datasets_of(file, data_dir)
    if name not in file.suite.datasets:
        name = next((one.name.base for one in conditions(file, datasets) if one.label == name), name)
    datasets.provide(name)
    return file


def _source(file: "SuiteFile", name: str, data_dir: Path) -> "DatasetSpec":
    """Return the settings of a dataset, or of a condition of the suite by its label."""
    from ipsrec_bench.run.plan import known_datasets_of
    from ipsrec_bench.suite.conditions import resolve_source

    found = _condition(file, name, data_dir)
    return found.source if found else resolve_source(file, name, known_datasets_of(file, data_dir))


def _protocol(file: "SuiteFile", name: str, data_dir: Path) -> "Protocol":
    """Return the protocol of a dataset, or of a condition of the suite by its label."""
    from ipsrec_bench.run.plan import known_datasets_of
    from ipsrec_bench.suite.conditions import resolve_protocol

    found = _condition(file, name, data_dir)
    return found.protocol if found else resolve_protocol(file, name, known_datasets_of(file, data_dir))


def _condition(file: "SuiteFile", name: str, data_dir: Path) -> "Condition | None":
    """Return the condition of this label, if it is not a dataset of the suite."""
    from ipsrec_bench.run.plan import known_datasets_of
    from ipsrec_bench.suite.conditions import conditions

    if name in file.suite.datasets:
        return None
    return next((one for one in conditions(file, known_datasets_of(file, data_dir)) if one.label == name), None)


def _published(name: str, data_dir: Path) -> "Published | None":
    from ipsrec_bench.data.datasets import known_datasets

    entry = known_datasets(data_dir).entry(name)
    return entry.published if entry else None
