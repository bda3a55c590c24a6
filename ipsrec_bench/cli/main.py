"""`ipsrec-bench`: the commands.

Each command imports what it needs when it runs, so that `--help` is fast and commands that only read results do
not load torch.
"""

import contextlib
import errno
import math
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
import typer.core

from ipsrec_bench import __version__
from ipsrec_bench.cli import completion, control, suites
from ipsrec_bench.cli import data as data_commands
from ipsrec_bench.cli.doctor import doctor
from ipsrec_bench.cli.dry_run import print_dry_run
from ipsrec_bench.cli.gc import gc
from ipsrec_bench.cli.merge import merge
from ipsrec_bench.cli.options import (
    DATA_DIR,
    STORE,
    AddressOption,
    DataDirOption,
    DevicesOption,
    ExecutorOption,
    JobsOption,
    JsonOption,
    QuietOption,
    ReportSetOption,
    ScaleOption,
    SetOption,
    StandInOption,
    StorageOption,
    StoreOption,
    SuiteArgument,
    ThreadsOption,
    examples,
    with_sizes,
)
from ipsrec_bench.cli.stopping import end_if_interrupted, interruptible, signals_stop
from ipsrec_bench.cli.tuned_run import search_first, searches_in_words, suite_to_tune
from ipsrec_bench.cli.ui import ui
from ipsrec_bench.cli.watch import watch
from ipsrec_bench.errors import BenchError, StoreError
from ipsrec_bench.extras import missing, require
from ipsrec_bench.words import counted, visible

if TYPE_CHECKING:
    from ipsrec_bench.events import RunFinished
    from ipsrec_bench.report.content import History, Report
    from ipsrec_bench.run.admission import Admission
    from ipsrec_bench.run.engine import MakeExecutor
    from ipsrec_bench.run.executors.choice import Cluster, Workers
    from ipsrec_bench.run.plan import Plan
    from ipsrec_bench.store.connect import Connection
    from ipsrec_bench.suite.load import SuiteFile
    from ipsrec_bench.tuning.results import StudyResult


def _say_what_is_imported(file: "SuiteFile", *, quiet: bool = False) -> None:
    """Print, before the import, which modules a suite imports from outside of its folder."""
    from ipsrec_bench.run.plan import modules_elsewhere

    for sentence in () if quiet else modules_elsewhere(file):
        typer.echo(sentence, err=True)


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


PANELS = ("Run", "Look", "Data", "Tune", "Care")
"""Groups of commands in the overview, in its order."""


class _Commands(typer.core.TyperGroup):
    """The commands; a `BenchError` of any of them is printed as one sentence and ends it with exit code 2."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 (as click has it)
        """Write the overview: a section for each panel, and the whole first sentence of each command."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        for panel in PANELS:
            rows = [
                (name, command.get_short_help_str(limit=1000))
                for name, command in commands
                if command is not None and getattr(command, "rich_help_panel", None) == panel
            ]
            with formatter.section(panel):
                formatter.write_dl(rows)

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (as click has it)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")  # characters that cannot be shown do not end the work
        try:
            with signals_stop():
                return super().main(*args, **kwargs)
        except BenchError as error:
            print(f"error: {visible(str(error), lines=True)}", file=sys.stderr)  # noqa: T201
            sys.exit(2)
        except OSError as error:  # on the disk of the output, or of a file that a command writes
            if error.errno not in _NO_SPACE:
                raise
            with contextlib.suppress(OSError, ValueError):  # writing the buffer at exit would fail again
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            place = f"{error.filename}: " if error.filename else "the output "
            sentence = f"error: {place}cannot be written: {error.strerror}; make room and run the command again"
            print(visible(sentence, lines=True), file=sys.stderr)  # noqa: T201
            sys.exit(2)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 (typer's own copy of click has no public name)
        with interruptible(""):
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    name="ipsrec-bench",
    help="Benchmarks for provider-aware sequential recommendation: train, rank, compare, report.",
    no_args_is_help=True,
    epilog=examples(
        "ipsrec-bench run quick               a first suite of small models",
        "ipsrec-bench report quick --open     its report",
        "ipsrec-bench COMMAND --help          options and examples of a command",
    ),
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(suites.app, name="suites", rich_help_panel="Run")
app.add_typer(data_commands.app, name="data", rich_help_panel="Data")
export_app = typer.Typer(no_args_is_help=True, help="Write results to files.", rich_markup_mode=None)
app.add_typer(export_app, name="export", rich_help_panel="Look")
app.command(
    rich_help_panel="Care",
    epilog=examples(
        "ipsrec-bench doctor", "ipsrec-bench doctor quick --set training.epochs=5", "ipsrec-bench doctor --fix"
    ),
)(doctor)
app.command(
    rich_help_panel="Care",
    epilog=examples(
        "ipsrec-bench merge all.duckdb host1/reports/ipsrec-bench.duckdb host2/reports/ipsrec-bench.duckdb"
    ),
)(merge)
app.command(rich_help_panel="Care", epilog=examples("ipsrec-bench gc --dry-run", "ipsrec-bench gc"))(gc)
ExportFormat = Literal["parquet", "csv"]


def main() -> NoReturn:
    """Run the command line as a program, and exit."""
    # Idle OpenMP threads spin while they wait, by default for so long that two jobs on one machine slow each other
    # down up to tenfold. With this many rounds, a small model alone is about 6% slower, and two jobs side by
    # side slow each other down by a factor of 3 to 4 (the ideal is 2). Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: the next open file would get its descriptor
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (until the process ends)
    with signals_stop():  # until the very end: a terminal's second signal may come after the first one is handled
        try:
            app(obj=True)
        except (SystemExit, KeyboardInterrupt):
            end_if_interrupted()
            raise
    sys.exit(0)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(
    rich_help_panel="Run",
    epilog=examples(
        "ipsrec-bench run quick",
        "ipsrec-bench run suites/paper.toml --dry-run",
        "ipsrec-bench run my.toml --set training.epochs=5 --set seeds=[1,2]",
        "ipsrec-bench run my.toml --devices cuda --jobs 2 --detach",
        "ipsrec-bench run my.toml --shard 1/4 --store part1.duckdb",
        "ipsrec-bench run my.toml --tuned --jobs 4",
    ),
)
def run(
    suite: SuiteArgument,
    overrides: SetOption = None,
    store: StoreOption = STORE,
    data_dir: DataDirOption = DATA_DIR,
    executor: ExecutorOption = "pool",
    address: AddressOption = None,
    jobs: JobsOption = None,
    devices: DevicesOption = "auto",
    threads: ThreadsOption = 1,
    scale: ScaleOption = None,
    stand_in: StandInOption = False,
    available: Annotated[
        bool, typer.Option("--available", help="Leave out datasets whose raw files are missing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Run complete cells again, too.")] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Run cells again that are skipped because they crashed their process."),
    ] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop when the first cell fails.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            min=1,
            metavar="SECONDS",
            help="Time limit for each cell; one that takes longer fails, and the next run retries it.",
        ),
    ] = None,
    keep: Annotated[
        Literal["best", "none"], typer.Option("--keep", help="Keep the best weights of finished cells, or none.")
    ] = "best",
    tuned: Annotated[
        bool,
        typer.Option(
            "--tuned",
            help="First search the best settings of every row, with the equal budgets of [tune]; then train these with"
            " its fresh seeds.",
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="Run only the I-th of N shares of the cells, like 3/16."),
    ] = None,
    collect: Annotated[
        bool, typer.Option("--collect", help="Train nothing; write the report on the results so far.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells with estimates of time and memory; train nothing.")
    ] = False,
    in_background: Annotated[
        bool, typer.Option("--detach", help="Run in the background; see the commands watch and stop.")
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train and rank the cells of SUITE that the store lacks, then write the report.

    A cell is one training: a dataset, a model or variant, and a seed. Complete cells are not run again, so the same
    command resumes a run that was interrupted.
    """
    from ipsrec_bench.run.executors.choice import Cluster, Workers, available_cores, places_of
    from ipsrec_bench.run.plan import RunOptions
    from ipsrec_bench.suite.load import load_suite
    from ipsrec_bench.suite.shards import parse_shard
    from ipsrec_bench.suite.shipped import find_suite

    if collect and (shard or force):
        raise BenchError(f"--collect trains nothing; leave out {'--shard' if shard else '--force'}")
    part = parse_shard(shard) if shard else None
    places = places_of(executor, devices)
    workers = Workers(executor, places, jobs, threads)
    options = RunOptions(force, available, places[0], part)
    file = load_suite(find_suite(suite), with_sizes(overrides, scale, stand_in=stand_in))
    _say_what_is_imported(file, quiet=quiet)
    if tuned or file.suite.tune.before:
        file = suite_to_tune(file, shard)
    if dry_run:
        slots = jobs or (len(places) if places[0] != "cpu" else available_cores())
        print_dry_run(file, data_dir, store, workers, options, slots, quiet=quiet, as_json=as_json)
        return
    if in_background:
        from ipsrec_bench.cli.detach import detach

        with interruptible("The run was stopped."):
            detach(sys.orig_argv, store)
        return

    from rich.console import Console

    from ipsrec_bench.cli.listen import listener
    from ipsrec_bench.run.engine import Policy, execute
    from ipsrec_bench.run.journal import Journal
    from ipsrec_bench.run.plan import make_plan

    policy = Policy(fail_fast, retry_failed, math.inf if timeout is None else timeout, keep, force, collect)
    kept = "Finished cells and trials are kept" if file.suite.tune.before else "Finished cells are kept"
    with interruptible(f"{kept}; the same command resumes."):
        journal = Journal(store, file.name)
        with listener(Console(), quiet=quiet, as_json=as_json, journal=journal) as emit:
            plan = make_plan(file, data_dir, store, emit, available=available, device=places[0])
            if part:
                plan = plan.limited_to(part)
            cluster = Cluster(address, jobs, file.modules)
            if file.suite.tune.before:
                searching = None if collect else _executor_for(plan, store, workers, cluster, force=force)[0]
                plan = search_first(plan, store, searching, emit, journal.control.wanted)
            make_executor, admission = _executor_for(plan, store, workers, cluster, force=force)
            ended = execute(
                plan,
                store,
                make_executor,
                emit,
                policy=policy,
                wanted=journal.control.wanted,
                admission=admission,
            )
        if ended.interrupted:
            raise KeyboardInterrupt
        written = current_page(store, ended.run) or report_on(store, store.parent, number=ended.run)
    _say_end(ended, store, written, is_silent=quiet or as_json)


def _say_end(ended: "RunFinished", store: Path, written: Path, *, is_silent: bool) -> None:
    """Print where the report is, and what the run lacks; exit with code 1 if cells failed."""
    if not is_silent:
        for line in _cut_off(store, ended.run):
            typer.echo(f"Training was cut off: {line}", err=True)
        typer.echo(f"Report: {written}")
    if ended.failed:
        cells = "1 cell" if ended.failed == 1 else f"{ended.failed} cells"
        typer.echo(f"{cells} failed; the report has the last lines of their logs: {written}", err=True)
        raise typer.Exit(1)


def _executor_for(
    plan: "Plan", store: Path, workers: "Workers", cluster: "Cluster", *, force: bool
) -> "tuple[MakeExecutor, Admission | None]":
    """Return a factory of the executor of a run, and what decides which cell starts next."""
    from ipsrec_bench.run.admission import admit
    from ipsrec_bench.run.executors.choice import executor_maker

    if workers.executor == "inline":  # nothing runs beside a cell
        return executor_maker("inline", workers.slots(1)), None
    if workers.executor == "ray":  # the memory of its nodes is unknown here
        return executor_maker("ray", workers.slots(1), cluster), None
    jobs, admission = admit(plan, store, workers.devices, workers.jobs, workers.threads, force=force)
    return executor_maker("pool", workers.slots(jobs)), admission


@app.command(
    rich_help_panel="Run",
    epilog=examples(
        "ipsrec-bench validate my.toml",
        "ipsrec-bench validate quick --set scale=0.1",
    ),
)
def validate(suite: SuiteArgument, overrides: SetOption = None, data_dir: DataDirOption = DATA_DIR) -> None:
    """Check SUITE and count its cells; nothing is trained."""
    from ipsrec_bench.run.plan import cells_of
    from ipsrec_bench.suite.cells import trainings
    from ipsrec_bench.suite.load import load_suite
    from ipsrec_bench.suite.shipped import find_suite
    from ipsrec_bench.tuning.rows import tuned_file
    from ipsrec_bench.tuning.space import check_spaces

    file = load_suite(find_suite(suite), overrides or ())
    _say_what_is_imported(file)
    if file.suite.tune.before:
        file = tuned_file(file)
    cells = cells_of(file, data_dir)
    check_spaces(file, cells)
    trained = list(trainings(cells))
    main = [cell for cell in cells if not (cell.condition.control or cell.condition.protocol)]
    datasets, rows, seeds = (len({getattr(cell, part) for cell in main}) for part in ("dataset", "label", "seed"))
    further = len(trained) - len(list(trainings(main)))
    beside = f", and {counted(further, 'cell')} of controls and further protocols" if further else ""
    once = "; counting models are fitted once for all seeds" if len(trained) < len(cells) else ""
    if file.suite.tune.before:
        searches = searches_in_words(file, data_dir)
        once += f"; before them, {searches}" if searches else ""
    typer.echo(
        f"{suite}: {counted(len(trained), 'cell')}: {counted(datasets, 'dataset')} x {rows:,} models and variants x"
        f" {counted(seeds, 'seed')}{beside}{once}"
    )


app.command(
    rich_help_panel="Look",
    epilog=examples("ipsrec-bench watch", "ipsrec-bench watch quick --store other.duckdb"),
)(watch)
app.command(rich_help_panel="Look", epilog=examples("ipsrec-bench ui", "ipsrec-bench ui quick --store other.duckdb"))(
    ui
)
app.command(rich_help_panel="Run", epilog=examples("ipsrec-bench stop quick", "ipsrec-bench stop --now"))(control.stop)
app.command(rich_help_panel="Run", epilog=examples("ipsrec-bench pause quick"))(control.pause)
app.command(rich_help_panel="Run", epilog=examples("ipsrec-bench resume quick"))(control.resume)


@app.command(
    rich_help_panel="Look",
    epilog=examples(
        "ipsrec-bench report",
        "ipsrec-bench report quick paper --format html,latex --output out",
        "ipsrec-bench report quick --set statistics.test=paired-t --open",
        "ipsrec-bench report --format site       all suites, linked from reports/site/index.html",
    ),
)
def report(
    suites: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUITE]...",
            autocompletion=completion.suites,
            help="Suite files or names of suites; by default the suite of the latest run, for a site all suites.",
        ),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help="html, md, latex (a document, tables and charts), json or site (a folder with an index and a page for"
            " each suite); separate several by commas.",
        ),
    ] = "html,md",
    overrides: ReportSetOption = None,
    store: StoreOption = STORE,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the reports; by default that of the store."),
    ] = None,
    storage: StorageOption = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open each report in the browser.")] = False,
) -> None:
    """Write the report on the newest run of each SUITE."""
    from ipsrec_bench.report.pages import SITE
    from ipsrec_bench.report.render import parse_formats

    wanted = parse_formats(formats)
    single = [name for name in wanted if name != SITE]
    folder = output or store.parent
    pages = [
        report_on(store, folder, suite, overrides=overrides or (), formats=single, storage=storage)
        for suite in (suites or (None,) if single else ())
    ]
    if SITE in wanted:
        pages.append(site_on(store, folder, suites or (), overrides or (), storage))
    for page in pages:
        typer.echo(f"Report: {page}")
        if open_it:
            typer.launch(str(page))


@app.command(
    rich_help_panel="Look",
    epilog=examples(
        "ipsrec-bench compare ipsrec-s sasrec",
        "ipsrec-bench compare 'ipsrec-s w/o CL' ipsrec-s --suite paper",
        "ipsrec-bench compare quick@3 quick@1",
        "ipsrec-bench compare d7694c0f 90451f2f --json",
    ),
)
def compare(
    a: Annotated[
        str, typer.Argument(help="A row (sasrec, 'ipsrec-s w/o CL', 'pop, masked'), a cell's key, or SUITE[@RUN].")
    ],
    b: Annotated[str, typer.Argument(help="What A is compared with, in the same form.")],
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            help="Suite file or name of a suite, for its rows and metrics; by default that of the latest run.",
        ),
    ] = None,
    overrides: ReportSetOption = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Print every statistic of A against B: two rows of a suite, two cells or two runs.

    Both are compared over their common users, with all seeds of each, on every metric of the suite. P-values are
    corrected as in the report of the suite; of a pair that it does not compare, nothing is corrected.
    """
    from ipsrec_bench.cli.printing import print_comparisons
    from ipsrec_bench.report.provenance import not_taken
    from ipsrec_bench.report.runs import read_run, shown_otherwise
    from ipsrec_bench.report.selections import compare_named, read_named
    from ipsrec_bench.store.connect import reading
    from ipsrec_bench.suite.load import suite_name

    with reading(store) as connection:
        run = shown_otherwise(read_run(connection, suite and suite_name(suite)), overrides or ())
        named = read_named(connection, run, a, b)
    made = compare_named(named)
    for sentence in not_taken(run):
        typer.echo(visible(sentence), err=True)
    print_comparisons(made, run.suite.statistics, as_json=as_json)


@app.command(
    name="import-ranks",
    rich_help_panel="Data",
    epilog=examples(
        "ipsrec-bench import-ranks predictions.csv --suite quick --model mine",
        "ipsrec-bench import-ranks seed2.parquet --suite my.toml --dataset beauty \\",
        "    --model mine --seed 2",
    ),
)
def import_ranks(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A table with columns user and rank, or user, item, and score or rank; ids as in the raw data.",
        ),
    ],
    suite: Annotated[
        str,
        typer.Option(
            "--suite",
            autocompletion=completion.suites,
            help="Suite whose test targets the file ranks: a file, or the name of a suite that was run.",
        ),
    ],
    model: Annotated[str, typer.Option("--model", help="Name of the model in tables.")],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", autocompletion=completion.datasets, help="Dataset of the suite; needed if it has several."
        ),
    ] = None,
    variant: Annotated[str, typer.Option("--variant", help="Variant of the model.")] = "",
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**31 - 1, help="Seed; compared with cells of the same seed.")
    ] = 1,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an earlier import under this name.")] = False,
    overrides: SetOption = None,
    store: StoreOption = STORE,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Add the predictions of a model that was trained elsewhere to the tables of a suite."""
    from ipsrec_bench.report.runs import suite_file
    from ipsrec_bench.run.imports import Labels
    from ipsrec_bench.run.imports import import_ranks as enter

    loaded = suite_file(suite, store, overrides or ())
    _say_what_is_imported(loaded)
    imported = enter(file, loaded, data_dir, store, Labels(model, variant, seed, dataset), replace=replace)
    record = imported.record
    assert record.ranks is not None
    known = (
        f"; the shortest list has {record.depth} items, and a target that is not listed is ranked last"
        if record.depth is not None
        else ""
    )
    typer.echo(f"Imported the ranks of {len(record.ranks['test'].users):,} test users{known}")
    if imported.replaced is not None:
        typer.echo(f"They replace those of {imported.replaced}")
    if not imported.fits:
        typer.echo(
            "The newest run of the suite has other targets or candidates: its report leaves these ranks out until the"
            " suite is run with the same protocol"
        )


@export_app.command(
    name="ranks",
    epilog=examples("ipsrec-bench export ranks", "ipsrec-bench export ranks --suite quick --format csv -o quick.csv"),
)
def export_ranks(
    kind: Annotated[ExportFormat, typer.Option("--format", help="File format.")] = "parquet",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Output file; by default ranks.FORMAT.")] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite", autocompletion=completion.suites, help="Suite file or name of a suite; by default all."
        ),
    ] = None,
    store: StoreOption = STORE,
) -> None:
    """Write the rank of every user, as in the view user_ranks.

    Users are numbered as in users.parquet of the prepared dataset.
    """
    from ipsrec_bench.store.export import export_ranks as write
    from ipsrec_bench.suite.load import suite_name

    path = output or Path(f"ranks.{kind}")
    rows = write(store, path, kind, suite and suite_name(suite))
    typer.echo(f"{path}: {rows:,} ranks")


@app.command(
    name="ls",
    rich_help_panel="Look",
    epilog=examples(
        "ipsrec-bench ls",
        "ipsrec-bench ls --store other.duckdb --json",
    ),
)
def list_runs(store: StoreOption = STORE, as_json: JsonOption = False) -> None:
    """List the suites of the store and their progress."""
    from ipsrec_bench.cli.printing import print_suites
    from ipsrec_bench.store.connect import reading
    from ipsrec_bench.store.queries import suite_summaries

    with reading(store) as connection:
        summaries = suite_summaries(connection)
    print_suites(summaries, as_json=as_json)


@app.command(
    context_settings={"ignore_unknown_options": True},  # SQL may begin with a comment: --
    rich_help_panel="Look",
    epilog=examples(
        'ipsrec-bench query "SELECT * FROM metrics"',
        "ipsrec-bench query \"FROM metrics_at(20) WHERE split = 'test'\" --json",
        'ipsrec-bench query "SHOW TABLES"',
    ),
)
def query(
    sql: Annotated[str, typer.Argument(help='For example "SELECT * FROM metrics".')],
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Run a read-only SQL query on the store.

    Start with the views metrics, user_ranks and user_targets and the macro metrics_at(n).
    """
    from ipsrec_bench.cli.printing import MOST_IN_JSON, MOST_IN_TABLE, print_query
    from ipsrec_bench.store.connect import reading
    from ipsrec_bench.store.queries import free_query

    with reading(store) as connection:
        result = free_query(connection, sql, MOST_IN_JSON if as_json else MOST_IN_TABLE)
    print_query(result, as_json=as_json)


@app.command(
    rich_help_panel="Tune",
    epilog=examples(
        "ipsrec-bench tune quick --model ipsrec-s --trials 10",
        "ipsrec-bench tune my.toml --model sasrec,ipsrec-s --budget 3600",
        "ipsrec-bench tune my.toml --show",
    ),
)
def tune(
    suite: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SUITE]",
            autocompletion=completion.suite_files,
            help="Suite file, or shipped suite, that gives dataset, models, training settings and [tune].",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", autocompletion=completion.datasets, help="A dataset of the suite, or a known one."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", autocompletion=completion.models, help="Models, separated by commas; each gets the whole budget."
        ),
    ] = "ipsrec-s,ipsrec-c",
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, help="Number of trials of each study; by default, the budget of [tune]."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            min=1,
            metavar="SECONDS",
            help="Seconds of training of each study, over all trials; without --trials, at most 200 trials.",
        ),
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="Validation metric to optimise, like mrr@10.")] = None,
    executor: ExecutorOption = "pool",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=1024, help="Number of trials at the same time.")] = 1,
    address: AddressOption = None,
    devices: DevicesOption = "auto",
    threads: ThreadsOption = 1,
    storage: StorageOption = None,
    show: Annotated[bool, typer.Option("--show", help="Print the results so far; search no further.")] = False,
    overrides: SetOption = None,
    store: StoreOption = STORE,
    data_dir: DataDirOption = DATA_DIR,
    scale: ScaleOption = None,
    stand_in: StandInOption = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for a suite with the best settings.")] = Path(
        "suites/tuned"
    ),
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Search for the best settings of models on the validation targets.

    Each model is searched in its default space unless the suite's [tune.space] names other settings. The same command
    continues a search.
    """
    require("tune", "tune")
    from rich.console import Console

    from ipsrec_bench.cli.listen import listener
    from ipsrec_bench.cli.printing import print_studies
    from ipsrec_bench.data.prepare import prepare
    from ipsrec_bench.run.executors.choice import Cluster, Workers, executor_maker, places_of
    from ipsrec_bench.run.workplace import Workplace
    from ipsrec_bench.suite.shipped import find_suite
    from ipsrec_bench.tuning.search import Budget, budget_of, run_search
    from ipsrec_bench.tuning.study import study_result
    from ipsrec_bench.tuning.subject import Subject, searches
    from ipsrec_bench.tuning.tuned_suite import write_tuned_suite

    if budget is not None and not math.isfinite(budget):
        raise BenchError(f"--budget {budget}: a search needs a finite limit; give seconds")
    wanted = [*with_sizes(overrides, scale, stand_in=stand_in), *_stop_metric(metric)]
    names = list(dict.fromkeys(name.strip() for name in model.split(",") if name.strip()))
    if not names:
        raise BenchError("--model: name at least one model")
    places = places_of(executor, devices)
    with interruptible("Finished trials are kept; the same command resumes."):
        file, found = searches(
            Subject(suite and find_suite(suite), dataset, names, wanted),
            data_dir,
            lambda cell: prepare(cell.dataset, cell.source, data_dir),
            storage or str(store.parent / "studies"),
            places[0],
            partial(_say_what_is_imported, quiet=quiet or as_json),
        )
        limit = Budget(trials, budget) if trials or budget else budget_of(file.suite.tune)
        if not show:
            workplace = Workplace(store)
            workplace.sweep()
            cluster = Cluster(address, jobs, file.modules)
            make_executor = executor_maker(executor, Workers(executor, places, jobs, threads).slots(jobs), cluster)
            with listener(Console(), quiet=quiet or as_json, as_json=False) as emit:
                for search in found:
                    if not run_search(search, limit, make_executor, workplace, emit):
                        raise KeyboardInterrupt
    results = [study_result(search.study, search.place) for search in found]
    if not quiet:
        print_studies(results, as_json=as_json)
    if not show and any(result.best for result in results):
        path = write_tuned_suite(file, results, output)
        if not (quiet or as_json):
            typer.echo(f"To compare the best settings with those before, on fresh seeds: ipsrec-bench run {path}")


def _stop_metric(metric: str | None) -> list[str]:
    """Return the override of the suite that `--metric` means."""
    from ipsrec_bench.suite.schema import check_metric

    if metric is None:
        return []
    try:
        return [f"training.stop_metric={check_metric(metric)}"]
    except ValueError as error:
        raise BenchError(f"--metric {metric}: {error}") from None


def report_on(
    store: Path,
    output: Path,
    suite: str | None = None,
    number: int | None = None,
    overrides: Iterable[str] = (),
    formats: Collection[str] = ("html", "md"),
    storage: str | None = None,
) -> Path:
    """Write the report on a run, the newest if no number is given, with the tuning studies beside the store.

    What the report lacks is printed on standard error.

    Returns:
        The page to look at first.
    """
    from ipsrec_bench.report.build import build_report
    from ipsrec_bench.report.material import read_material
    from ipsrec_bench.report.render import write_report
    from ipsrec_bench.report.runs import basis_of, read_run, shown_otherwise
    from ipsrec_bench.store.connect import reading

    state = (
        _state_of_studies(store) if storage is None else None
    )  # before they are read, so that later changes count as new
    unread: list[str] = []
    studies = _studies(store, storage, unread)
    with reading(store) as connection:
        run = shown_otherwise(read_run(connection, suite and _stored_name(connection, suite, store), number), overrides)
        basis = basis_of(connection, run, state)
        material = read_material(connection, run)
    content = build_report(material, studies, unread)
    _say_unread(unread)
    written = write_report(content, output, formats, basis=None if unread else basis)
    if written.left_out:
        typer.echo(visible(written.left_out), err=True)
    return written.main


def site_on(
    store: Path, output: Path, suites: Sequence[str], overrides: Iterable[str] = (), storage: str | None = None
) -> Path:
    """Write a site of the newest runs of `suites`, all of the store if none are named, and return its index.

    A suite that is not named and cannot be read is left out; what the site lacks is said on its index and on standard
    error.
    """
    from ipsrec_bench.report.build import build_report
    from ipsrec_bench.report.history import history_of
    from ipsrec_bench.report.material import read_material
    from ipsrec_bench.report.runs import read_run, shown_otherwise
    from ipsrec_bench.report.site import write_site
    from ipsrec_bench.store.connect import reading
    from ipsrec_bench.store.queries import suite_summaries

    unread: list[str] = []
    studies = _studies(store, storage, unread)
    _say_unread(unread)
    left_out: list[str] = []

    with reading(store) as connection:
        named = [_stored_name(connection, suite, store) for suite in suites]
        wanted = dict.fromkeys(named or (summary.suite for summary in suite_summaries(connection)))

    def pages() -> "Iterator[tuple[Report, History]]":
        for name in wanted:
            with reading(store) as connection:  # closed before statistics and charts, for nobody can write meanwhile
                try:
                    run = read_run(connection, name)
                except StoreError as error:
                    if named:
                        raise
                    left_out.append(f"{name}: {error}")
                    continue
                run = shown_otherwise(run, overrides)
                material, history = read_material(connection, run), history_of(connection, run)
            yield build_report(material, studies, unread), history

    if not wanted:
        raise StoreError(f"{store}: the store holds no run yet; run a suite first")
    index, undrawn = write_site(pages(), output, left_out)
    for sentence in (*left_out, *undrawn):
        typer.echo(visible(sentence), err=True)
    return index


def _stored_name(connection: "Connection", suite: str, store: Path) -> str:
    """Return the name that the store has for a suite, given by its name or its file."""
    from ipsrec_bench.store.queries import check_file
    from ipsrec_bench.suite.load import is_suite_path, suite_name

    name = suite_name(suite)
    if is_suite_path(suite) and Path(suite).is_file():
        check_file(connection, name, Path(suite), store)
    return name


def _say_unread(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        typer.echo(f"The report lacks a tuning study: {visible(sentence)}", err=True)


def current_page(store: Path, number: int) -> Path | None:
    """Return the page beside the store if a new report on this run would only change its start."""
    from ipsrec_bench.report.pages import is_current, page_path
    from ipsrec_bench.report.runs import basis_of, read_run
    from ipsrec_bench.store.connect import reading

    with reading(store) as connection:
        run = read_run(connection, number=number)
        basis = basis_of(connection, run, _state_of_studies(store))
    folder, suite = store.parent, run.suite_name
    return page_path(folder, suite, "html") if is_current(folder, suite, basis) else None


def _cut_off(store: Path, number: int) -> list[str]:
    """Return a sentence for each row of a run with trainings that the epoch limit cut off."""
    from ipsrec_bench.report.provenance import cut_off_rows
    from ipsrec_bench.report.runs import read_run
    from ipsrec_bench.report.sentences import cut_off
    from ipsrec_bench.store.connect import reading
    from ipsrec_bench.store.queries import cell_summaries

    with reading(store) as connection:
        run = read_run(connection, number=number)
        summaries = cell_summaries(connection, [cell.key for cell in (*run.cells, *run.further)])
    return list(cut_off(cut_off_rows(run, summaries)))


def _state_of_studies(store: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of every journal beside the store; another trial changes them."""
    paths = sorted((store.parent / "studies").glob("*.journal"))
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def _studies(store: Path, storage: str | None, unread: list[str]) -> "list[StudyResult]":
    """Return the tuning studies at `storage`, a database or a folder; those beside the store if it is not given.

    A sentence for each that cannot be read is added to `unread`.
    """
    if storage is not None and "://" in storage:
        require("tune", "--storage")
        from ipsrec_bench.tuning.study import studies_at

        return studies_at(storage)
    folder = Path(storage) if storage is not None else store.parent / "studies"
    if storage is not None and not folder.is_dir():
        raise BenchError(f"--storage {storage}: it is neither a folder nor the URL of a database")
    if not any(folder.glob("*.journal")):
        return []
    if clause := missing("tune"):
        unread.append(f"{folder}: {clause}")
        return []
    from ipsrec_bench.tuning.study import studies_in

    return studies_in(folder, unread.append)
