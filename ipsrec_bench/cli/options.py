"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ipsrec_bench.cli import completion

StoreOption = Annotated[
    Path,
    typer.Option(
        "--store",
        envvar="IPSREC_BENCH_STORE",
        help="DuckDB file with all results; checkpoints and reports are written beside it.",
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="PLACE",
        envvar="IPSREC_BENCH_STORAGE",
        help="Where tuning studies are kept: a database, like postgresql://host/name, or a folder; by default studies/"
        " beside the store.",
    ),
]
DataDirOption = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar="IPSREC_BENCH_DATA_DIR",
        help="Folder with raw files (raw/) and prepared data (prepared/).",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the suite, e.g. training.epochs=5; repeatable."),
]
ReportSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change what is shown, e.g. protocol.cutoffs=[1,20] or statistics.test=paired-t; nothing is trained."
        " Repeatable.",
    ),
]
ScaleOption = Annotated[
    float | None,
    typer.Option(
        "--scale",
        min=0,
        max=1,
        help="Read only this share of the users, e.g. 0.01; with --stand-in, the size of the generated data.",
    ),
]
StandInOption = Annotated[
    bool,
    typer.Option("--stand-in", help="Use generated data of the same format and size in place of published datasets."),
]
SuiteArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SUITE",
        autocompletion=completion.suite_files,
        help="A suite file, or the name of a shipped suite, like quick; a file of that name here takes precedence.",
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
        help="auto (all GPUs, or the CPU if there is none), cpu, cuda (all GPUs), or a list: cuda:0,cuda:1.",
    ),
]
ExecutorOption = Annotated[
    Literal["pool", "inline", "ray"],
    typer.Option(
        "--executor",
        envvar="IPSREC_BENCH_EXECUTOR",
        help="Where cells are trained: pool (processes of this machine), inline (this process, one by one) or ray (a"
        " Ray cluster).",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="RAY_ADDRESS",
        help="Address of the Ray cluster: auto (the one on this machine) or host:port; by default, a new one is"
        " started.",
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        max=1024,
        help="Number of cells trained at the same time; by default one for each GPU, or as many as cores and memory"
        " allow.",
    ),
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, max=1024, help="Threads of torch for each cell.")]


def examples(*lines: str) -> str:
    """Return the examples at the end of a command's help; lines are not wrapped."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


STORE = Path("reports/ipsrec-bench.duckdb")
DATA_DIR = Path("data")


def with_sizes(overrides: list[str] | None, scale: float | None, *, stand_in: bool) -> list[str]:
    """Return `overrides` with those that `--scale` and `--stand-in` add."""
    return [
        *(overrides or ()),
        *([f"scale={scale!r}"] if scale is not None else []),
        *(["stand_in=true"] if stand_in else []),
    ]
