"""What commands print: tables for people, JSON for programs."""

import itertools
import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ipsrec_bench.errors import StoreError
from ipsrec_bench.report.plain import plain
from ipsrec_bench.words import counted, visible

if TYPE_CHECKING:
    from ipsrec_bench.data.datasets import Entry, Published
    from ipsrec_bench.data.prepared import PreparedDataset, Reading
    from ipsrec_bench.data.split_statistics import SplitStatistics
    from ipsrec_bench.report.content import Comparison
    from ipsrec_bench.run.plan import PreviewedCell
    from ipsrec_bench.store.queries import QueryResult, SuiteSummary
    from ipsrec_bench.suite.schema import Statistics
    from ipsrec_bench.tuning.results import StudyResult


@dataclass(frozen=True)
class DatasetState:
    """A line of `data list`."""

    name: str
    title: str
    raw: str
    """Which of its raw files exist, or how to get them."""
    prepared: str


MOST_IN_TABLE, MOST_IN_JSON = 1_000, 1_000_000
"""Maximum number of rows of a query that are printed."""
_NARROW = 10
"""Minimum width of a long column, in characters; where columns do not fit even so, rows become blocks."""


def print_json(value: object) -> None:
    """Print `value` as indented JSON; NaN and infinities become null, values of other types text."""
    text = json.dumps(plain(value), indent=2, default=str, ensure_ascii=False, allow_nan=False)
    print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))  # noqa: T201


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print rows; numbers are aligned right, reals have six significant digits.

    On a terminal that is too narrow for the columns, each row is printed as a block with a line per column.
    """
    rows = [list(row) for row in rows]
    names = [visible(column) for column in columns]
    cells = [[_shown(value) for value in row] for row in rows]
    console = Console()
    if not console.is_terminal:  # a pipe has no width to fit into
        console = Console(width=10_000)
    least = [min(_NARROW, max(map(cell_len, column))) for column in zip(names, *cells, strict=True)]
    if sum(least) + 3 * len(least) + 1 > console.width:
        _print_blocks(console, names, cells, title)
        return
    table = Table(title=title and Text(visible(title)), title_justify="left", title_style="bold", header_style="bold")
    for i, name in enumerate(names):
        numeric = bool(rows) and all(isinstance(row[i], int | float | Decimal) or row[i] is None for row in rows)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def _print_blocks(console: Console, names: Sequence[str], cells: Iterable[Sequence[str]], title: str | None) -> None:
    if title:
        console.print(Text(visible(title), style="bold"))
    for number, row in enumerate(cells, start=1):
        console.print(Text(f"-- {number}", style="bold"))
        for name, value in zip(names, row, strict=True):
            console.print(Text(f"{name}: {value}" if name else value), overflow="fold")


def print_cells(cells: Sequence["PreviewedCell"], jobs: int, threads: int, *, as_json: bool) -> None:
    """Print what `--dry-run` found; `jobs` cells run at once, with `threads` each."""
    if as_json:
        print_json([asdict(cell) for cell in cells])
        return
    from ipsrec_bench.run.admission import machine_memory
    from ipsrec_bench.run.costs import Cost, finishing_time

    memory = machine_memory()
    rows: list[tuple[object, ...]] = []
    costs: dict[str | None, Cost] = {}
    notes: dict[str, None] = {}
    for c in cells:
        e, state, taken = c.estimate, c.state, ("–",) * 4
        if isinstance(e, Cost):
            bound = "≤ " if e.source == "probed" and e.epoch_seconds is not None else ""
            epoch = "–" if e.epoch_seconds is None else _time(e.epoch_seconds)
            taken = (epoch, bound + _time(e.seconds), f"{e.memory / 1e9:.1f} GB", e.source)
            if e.memory > memory.total:
                state = "does not fit"
            else:
                costs[c.key] = e
        elif e is not None:
            state = "does not fit" if e.does_not_fit else "would fail"
            notes[f"{c.label} on {c.dataset} {state}: {e.reason}"] = None
        rows.append((c.dataset, c.label, c.seed, (c.key or "–")[:12], state, *taken))
    title = f"{counted(len(cells), 'cell')}, {sum(cell.state != 'done' for cell in cells)} to run"
    if costs:
        seconds = finishing_time([(e.seconds, e.memory) for e in costs.values()], jobs, memory.available)
        most = "at most about" if any(e.source == "probed" for e in costs.values()) else "about"
        at_once = sum(sorted(e.memory for e in costs.values())[-jobs:])
        title += (
            f"; {jobs} at a time with {counted(threads, 'thread')} each: {most}"
            f" {_time(seconds)}, {min(at_once, memory.available) / 1e9:.1f} GB"
        )
    print_table(["dataset", "model", "seed", "key", "state", "epoch", "all", "memory", "by"], rows, title)
    for note in notes:
        print(visible(note))  # noqa: T201


def print_suites(summaries: Sequence["SuiteSummary"], *, as_json: bool) -> None:
    """Print the suites of a store."""
    if as_json:
        print_json([asdict(summary) for summary in summaries])
        return
    rows = [
        (
            s.suite,
            f"{s.started:%Y-%m-%d %H:%M}",
            s.cells,
            s.complete,
            s.failed,
            s.cells - s.complete - s.failed,
        )
        for s in summaries
    ]
    print_table(["suite", "last run (UTC)", "cells", "complete", "failed", "missing"], rows)
    for s in summaries:
        if s.failed:
            cells = f"{s.failed} {'cell' if s.failed == 1 else 'cells'} of {s.suite} failed"
            print(visible(f"{cells}; its report says why: ipsrec-bench report {shlex.quote(s.suite)}"))  # noqa: T201


def print_query(result: "QueryResult", *, as_json: bool) -> None:
    """Print the rows of a query; in JSON, a repeated column name gets a number.

    Raises:
        StoreError: there are more rows than JSON may have.
    """
    if as_json:
        if result.cut:
            raise StoreError(
                f"the query returns more than {MOST_IN_JSON:,} rows; add a LIMIT, or write ranks to a file with"
                " ipsrec-bench export ranks"
            )
        names = list(_distinct(result.columns))
        print_json([dict(zip(names, map(_number, row), strict=True)) for row in result.rows])
    elif result.columns:
        print_table(result.columns, result.rows)
        if result.cut:
            print(  # noqa: T201
                f"The first {len(result.rows):,} rows are shown; add --json or an ORDER BY and LIMIT for others.",
                file=sys.stderr,
            )


def _distinct(names: Iterable[str]) -> Iterator[str]:
    taken: set[str] = set()
    for name in names:
        candidates = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        free = next(candidate for candidate in candidates if candidate not in taken)
        taken.add(free)
        yield free


def _number(value: object) -> object:
    """Return a decimal number as a float, anything else as it is."""
    return float(value) if isinstance(value, Decimal) else value


def print_comparisons(made: Sequence["Comparison"], statistics: "Statistics", *, as_json: bool) -> None:
    """Print comparisons: for each pair and dataset a sentence and a table with a column per metric."""
    from ipsrec_bench.report.compared import compared_pairs, verdict_rule

    if as_json:
        print_json(made)
        return
    for pair in compared_pairs(made, statistics):
        print(visible(pair.finding))  # noqa: T201
        print_table(pair.columns, pair.lines, pair.title)
    print(verdict_rule(statistics))  # noqa: T201


def print_datasets(states: Sequence[DatasetState], *, as_json: bool) -> None:
    """Print datasets and their state."""
    if as_json:
        print_json([asdict(state) for state in states])
    else:
        print_table(
            ["dataset", "what it is", "raw files", "prepared"], [(s.name, s.title, s.raw, s.prepared) for s in states]
        )


def print_entry(name: str, entry: "Entry", state: str, *, as_json: bool) -> None:
    """Print everything known about a dataset, and which of its files are there."""
    if as_json:
        print_json({"name": name, **entry.model_dump(mode="json"), "state": state})
        return
    facts = [
        ("What it is", entry.title),
        ("Citation", entry.citation),
        ("Homepage", entry.homepage),
        ("Terms", entry.terms),
        ("To get it", entry.obtain),
        ("Maximum length", str(entry.max_length or "")),
        ("Raw files", state),
    ]
    facts += [("Form", ", ".join(f"{key} = {value}" for key, value in form.items())) for form in entry.forms]
    facts += [("Download", f"{part.url} (sha256 {part.sha256 or 'not known'})") for part in entry.downloads]
    if entry.published:
        facts.append(("Published", _counts(entry.published)))
    print_table(["Property", "Value"], [(key, value) for key, value in facts if value], name)


def print_statistics(
    name: str,
    data: "PreparedDataset",
    split: str,
    targets: "SplitStatistics | str",
    published: "Published | None",
    *,
    as_json: bool,
) -> None:
    """Print a dataset's statistics: a line of the paper's Table 1, published counts, further facts, and notes.

    `targets` is a sentence where the split leaves nobody to evaluate.
    """
    from ipsrec_bench.data.transitions import rules

    s, reading, order = data.statistics, data.reading, rules(data.offsets, data.items)
    if as_json:
        found = {"problem": targets} if isinstance(targets, str) else asdict(targets)
        of_order = [{**asdict(one), "lost": one.lost} for one in order]
        print_json({**asdict(s), **asdict(reading), "rules": of_order, "split": {"name": split, **found}})
        return
    print_table(
        ["Dataset", "#Users", "#Items", "#I-Actions", "#Providers", "#P-Actions"],
        [(name, *(f"{n:,}" for n in (s.users, s.items, s.actions, s.providers, s.known_provider_actions)))],
    )
    if published:
        p = published
        pairs = [(p.users, s.users), (p.items, s.items), (p.providers, s.providers)]
        equal = all(theirs in (None, ours) for theirs, ours in pairs) and s.actions in p.actions
        print(f"{'As published' if equal else 'NOT as published'}: {_counts(p)}")  # noqa: T201
    quantiles = ", ".join(f"{float(q):.0%} {n}" for q, n in s.length_quantiles.items())
    facts: list[tuple[str, str]] = [
        ("Sequence length", f"mean {s.mean_length:.2f}; quantiles: {quantiles}"),
        ("Unknown provider", _percent(1 - s.known_provider_actions / s.actions)),
        ("Largest providers", _largest(reading, s.actions)),
        ("Repeat share", _percent(s.repeat_share)),
        ("Neighbours with equal time", _percent(s.tie_share)),
        ("Provider stickiness", _percent(s.stickiness)),
        ("  without the largest provider", _percent(reading.stickiness_without_largest)),
        ("  expected after a shuffle", _percent(s.shuffled_stickiness)),
        ("  without equal times", _percent(s.untied_stickiness)),
        *(
            (
                f"Frequent rules of {'first' if one.order == 1 else 'second'} order",
                f"{one.frequent:,}; {one.shuffled:,} after a shuffle of each history"
                + (f" ({_percent(one.lost)} lost)" if one.frequent else ""),
            )
            for one in order
        ),
        ("Split", split),
    ]
    if isinstance(targets, str):
        facts.append(("  nobody to evaluate", targets))
    else:
        facts += [
            ("  test / validation users", f"{targets.test_users:,} / {targets.valid_users:,}"),
            ("  test targets that tie with what precedes them", _percent(targets.tied_targets)),
            (
                "  test targets older than the newest training interaction",
                _percent(targets.leaked_targets, digits=2),
            ),
            ("  test targets that repeat an item of the history", _percent(targets.repeated_targets)),
            ("  test targets that no training interaction has", _percent(targets.unseen_targets)),
            ("  test users without a training interaction", f"{targets.unknown_users:,}"),
        ]
    print_table(["Property", "Value"], facts)
    for note in reading.notes:
        print(f"Note: {visible(note)}")  # noqa: T201


def _largest(reading: "Reading", actions: int) -> str:
    """Return the largest providers with their shares of all interactions."""
    shares = (f"{shorten(name, 40)} {_percent(count / actions)}" for name, count in reading.largest_providers)
    return ", ".join(shares) or "–"


def print_studies(results: Sequence["StudyResult"], *, as_json: bool) -> None:
    """Print the trials of studies, complete ones first, the best of them first."""
    if as_json:
        print_json(results)
        return
    for result in results:
        names = list(result.default)
        pruned = [trial for trial in result.trials if trial.pruned]
        rows: list[Sequence[Any]] = [
            (
                t.number,
                *(float(f"{t.settings[n]:.4g}") if isinstance(t.settings[n], float) else t.settings[n] for n in names),
                t.value,
                "pruned" if t.pruned else "own settings" if t == result.default_trial else "",
                t.epochs,
                f"{t.seconds:.1f} s",
            )
            for t in (*result.complete, *pruned)
        ]
        print_table(
            ["trial", *names, f"validation {result.metric}", "", "epochs", "time"],
            rows,
            f"{result.name}: {counted(len(result.trials), 'trial')}, {result.pruned} of them pruned,"
            f" {counted(result.epochs, 'epoch')}, {result.seconds:.0f} s;"
            f" {result.failed} failed; best first ({result.place})",
        )


def _counts(p: "Published") -> str:
    counted = [(p.users, "users"), (p.items, "items"), (p.providers, "providers")]
    parts = [f"{count:,} {what}" for count, what in counted if count is not None]
    actions = " or ".join(f"{count:,}" for count in p.actions)
    return f"{', '.join(parts)}, {actions} actions ({p.source})"


def _time(seconds: float) -> str:
    """Return a time with two significant digits: it is an estimate."""
    for size, unit in ((3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds / size:.{0 if seconds >= 10 * size else 1}f} {unit}"
    return f"{seconds * 1000:.0f} ms"


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{share:.{digits}%}"


def _shown(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    return visible(json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value))
