"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

StoreOption = Annotated[
    Path,
    typer.Option(
        "--store",
        envvar="IPSREC_BENCH_STORE",
        help="The DuckDB file with all results; checkpoints and reports go beside it.",
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="PLACE",
        envvar="IPSREC_BENCH_STORAGE",
        help="Of tuning studies: a database, like postgresql://host/name, or a folder; studies/ beside the store if not"
        " given.",
    ),
]
DataDirOption = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar="IPSREC_BENCH_DATA_DIR",
        help="Folder of raw files (raw/) and prepared data (prepared/).",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the suite, e.g. training.epochs=5. Repeatable."),
]
ReportSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Show otherwise, e.g. protocol.cutoffs=[1,20] or statistics.test=crossed; nothing is trained. Repeatable.",
    ),
]
ScaleOption = Annotated[
    float | None,
    typer.Option(
        "--scale",
        min=0,
        max=1,
        help="Share of the users to read, e.g. 0.01, or, with --stand-in, size of the made-up data.",
    ),
]
StandInOption = Annotated[
    bool, typer.Option("--stand-in", help="Use made-up data in the shape of the datasets, where there are such.")
]
SuiteArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SUITE",
        help="A suite file, or the name of a shipped suite, e.g. quick; quick or quick.toml in this folder goes first.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
DevicesOption = Annotated[
    str,
    typer.Option(
        "--devices",
        "--device",
        envvar="IPSREC_BENCH_DEVICE",
        help="auto (all GPUs, else cpu), cpu, cuda (all), or some with commas: cuda:0,cuda:1.",
    ),
]
ExecutorOption = Annotated[
    Literal["pool", "inline", "ray"],
    typer.Option(
        "--executor",
        envvar="IPSREC_BENCH_EXECUTOR",
        help="Where cells are trained: in processes of this machine; in this process, one after the other; or on a Ray"
        " cluster.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="RAY_ADDRESS",
        help="Of the Ray cluster: auto (that of this machine) or host:port; one of this machine alone if not given.",
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        max=1024,
        help="Cells at a time; if not given, one for each GPU, or as many as there are cores and memory for.",
    ),
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, max=1024, help="Threads of torch for each of them.")]

STORE = Path("reports/ipsrec-bench.duckdb")
DATA_DIR = Path("data")


def with_sizes(overrides: list[str] | None, scale: float | None, *, stand_in: bool) -> list[str]:
    """Return `overrides` with what `--scale` and `--stand-in` stand for."""
    return [
        *(overrides or ()),
        *([f"scale={scale!r}"] if scale is not None else []),
        *(["stand_in=true"] if stand_in else []),
    ]
