"""Comparisons of two named cells, rows of a suite, or runs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ipsrec_bench.errors import StoreError, did_you_mean, listed
from ipsrec_bench.report.comparisons import Pair, compare
from ipsrec_bench.report.content import Comparison
from ipsrec_bench.report.controls import as_row, compare_controls, twins_of
from ipsrec_bench.report.declared import ablation_columns, of_ablation, of_baseline
from ipsrec_bench.report.material import valid_counts_of
from ipsrec_bench.report.provenance import stale
from ipsrec_bench.report.results import Results
from ipsrec_bench.report.runs import Run
from ipsrec_bench.store import queries
from ipsrec_bench.store.connect import Connection
from ipsrec_bench.store.records import PlannedCell

MIN_KEY = 6
"""Minimum number of characters of a key that name a cell."""
_Seeds = Mapping[int, str]


@dataclass(frozen=True)
class _Selection:
    """Keys by dataset and row; then by seed."""

    display: str
    rows: Mapping[tuple[str, str], _Seeds]
    whole_run: bool = False
    """Whether its rows are paired with those of the same name."""
    row: bool = False
    """Whether it is a row of the main tables of the run that is asked, or a twin of one."""
    control: str = ""
    """The providers that the cells of a twin were trained on, in words."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Where the settings of its cells are from, by key."""

    def shown(self, label: str) -> str:
        """Return the display name of one of its rows."""
        return f"{self.display}: {label}" if self.whole_run else self.display


@dataclass(frozen=True)
class Named:
    """What two names mean: the rows that are compared, with the ranks of their cells."""

    a: str
    b: str
    results: Results
    pairs: tuple[Pair, ...]
    whole_runs: bool
    """Whether two runs are compared, row by row."""
    run: Results | None
    """All results of the run that both are rows of, whose report may make the same comparisons."""
    has_twin: bool
    """Whether one of them was trained on other providers."""


def read_named(connection: Connection, run: Run, a: str, b: str) -> Named:
    """Return what `a` and `b` mean, on every dataset and metric that both have.

    Each is a row of `run`, like `sasrec` or `ipsrec-s w/o CL`, or a row with a control or a further protocol, like
    `ipsrec-s, shuffled providers`; the beginning of a cell's key; or a run, `SUITE` for its newest or `SUITE@NUMBER`,
    whose rows are compared with those of the same name in the other run. Metrics and statistics are those of `run`.

    Raises:
        StoreError: a name means nothing, or the two have nothing that can be paired.
    """
    left, right = _select(connection, run, a), _select(connection, run, b)
    if (left.display, left.rows) == (right.display, right.rows):
        what = "run" if left.whole_run else "row"
        raise StoreError(f"'{a}' and '{b}' are the same {what}; name two different ones")
    has_twin = bool(left.control or right.control)
    whole = results_of(connection, run, twins_of(run) if has_twin else ()) if left.row and right.row else None
    if left.whole_run != right.whole_run:
        raise StoreError(f"only one of '{a}' and '{b}' is a run; compare a run with a run")
    shared = [
        (ours, theirs)
        for ours in left.rows
        for theirs in right.rows
        if ours[0] == theirs[0] and (ours == theirs or not left.whole_run)
    ]
    if not shared:
        raise StoreError(f"'{a}' and '{b}' have no dataset{' and row' if left.whole_run else ''} in common")
    cells = [
        PlannedCell(
            key,
            place[0],
            f"{side}: {place[1]}",
            selection.shown(place[1]),
            "",
            "",
            seed,
            control=selection.control,
            tuning=selection.words.get(key, ""),
        )
        for pair in shared
        for side, selection, place in zip("AB", (left, right), pair, strict=True)
        for seed, key in selection.rows[place].items()
    ]
    _refuse_unlike(connection, run, cells, f"'{a}' and '{b}'")
    keys = [cell.key for cell in cells]
    summaries = queries.cell_summaries(connection, keys)
    ranks = queries.test_ranks(connection, keys, run.suite.protocol.ties)
    results = Results(replace(run, cells=tuple(cells)), ranks, summaries)
    for cell in results.unpaired():
        raise StoreError(f"'{a}' and '{b}' rank different users on {cell.dataset}, so they cannot be paired")
    pairs = (
        Pair(ours[0], name, results.row(f"A: {ours[1]}"), results.row(f"B: {theirs[1]}"))
        for ours, theirs in shared
        for name in run.suite.protocol.shown
    )
    return Named(a, b, results, tuple(pairs), left.whole_run, whole, has_twin)


def results_of(connection: Connection, run: Run, twins: Iterable[PlannedCell] = ()) -> Results:
    """Return the results of `run` as its report has them, with the ranks of `twins`."""
    keys = [cell.key for cell in (*run.cells, *twins)]
    summaries, valid = queries.cell_summaries(connection, keys), valid_counts_of(connection, run)
    found = Results(run, queries.test_ranks(connection, keys, run.suite.protocol.ties), summaries, valid)
    other = {cell.key for cell in found.unpaired()}
    return replace(found, run=replace(run, cells=tuple(cell for cell in run.cells if cell.key not in other)))


def compare_named(named: Named) -> list[Comparison]:
    """Compare the rows that were read; the store may be closed.

    A comparison that the report of the suite makes has the corrections of the report. Of another one nothing is
    corrected, except that the rows of two runs are corrected like the rows of a report.

    Raises:
        StoreError: a row has no complete cell.
    """
    family = None if named.whole_runs else lambda c: (c.dataset, c.metric, c.row, c.reference)
    made = compare(named.results, named.pairs, family=family)
    if not made:
        raise StoreError(f"'{named.a}' and '{named.b}' have no complete cells of the same dataset")
    if named.run is None:
        return list(made)
    known: dict[tuple[str, str, frozenset[str]], Comparison] = {}
    reported = [*of_ablation(named.run, ablation_columns(named.run)), *of_baseline(named.run)]
    if named.has_twin:
        controls = compare_controls(named.run, named.run.ranks, named.run.summaries)
        reported = [*controls.comparisons, *controls.gains]
    for c in reported:
        known[c.dataset, c.metric, frozenset({c.row.label, c.reference.label})] = c
    return [_as_reported(c, known.get((c.dataset, c.metric, frozenset({named.a, named.b})))) for c in made]


def _as_reported(c: Comparison, reported: Comparison | None) -> Comparison:
    """Return `c` with the corrections of the report's comparison of the same rows."""
    if reported is None:
        return c
    names = (
        "adjusted_p",
        "adjusted_users_p",
        "adjusted_method_p",
        "family",
        "detectable",
        "method_detectable",
        "seeds_needed",
    )
    changes = {name: getattr(reported, name) for name in names}
    if reported.reference.label == c.reference.label.removeprefix("B: "):  # the margin is relative to the reference
        changes["equivalence_p"] = reported.equivalence_p
    return replace(c, **changes)


def _refuse_unlike(connection: Connection, run: Run, cells: Sequence[PlannedCell], who: str) -> None:
    """Raise an error if cells of a dataset must not be in one table.

    The data of a twin are others than those of its row, with the same targets and candidates. So the cells of `run`
    that it controls are checked instead.
    """
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        here = [cell for cell in cells if cell.dataset == dataset]
        keys = [cell.key for cell in here if not cell.control]
        if len(keys) < len(here):
            keys += [cell.key for cell in run.cells if cell.dataset == dataset]
        other = queries.unlike(connection, keys)
        if other is not None:
            bases = queries.bases(connection, keys)
            first = next(bases[key] for key in keys if key in bases)
            raise StoreError(
                f"{who} cannot be compared on '{dataset}', because their targets or candidates are not the same:"
                f" they differ in {' and in '.join(first.differences(bases[other]))}"
            )


def _select(connection: Connection, run: Run, name: str) -> _Selection:
    labels = {cell.label: cell.display for cell in run.cells}
    if name in labels:
        own = [cell for cell in run.cells if cell.label == name]
        return _Selection(labels[name], _by_row(own), row=True, words=_words(own))
    conditioned = [row for row in map(as_row, run.further) if row.label == name]
    if conditioned:
        first = conditioned[0]
        return _Selection(
            first.display,
            _by_row(conditioned),
            row=not first.protocol,
            control=first.control,
            words=_words(conditioned),
        )
    for cell in run.stale:
        if cell.label == name:
            bases = queries.bases(connection, [cell.key, *(other.key for other in run.cells)])
            beside = next(bases[own.key] for own in run.cells if own.dataset == cell.dataset and own.key in bases)
            words, remedy = stale(cell, bases[cell.key], beside)
            raise StoreError(f"'{name}' cannot be compared with rows of '{run.suite_name}': {words}; {remedy}")
    suite, at, number = name.partition("@")
    known = {summary.suite for summary in queries.suite_summaries(connection)}
    if suite in known and (not at or (number.isascii() and number.isdigit())):
        found = queries.find_run(connection, suite, int(number) if at else None)
        return _Selection(f"{suite}@{found.run}", _by_row(found.cells), whole_run=True, words=_words(found.cells))
    if re.fullmatch(rf"[0-9a-f]{{{MIN_KEY},32}}", name):
        found_cells = queries.find_cells(connection, name)
        if len({cell.key for cell in found_cells}) > 1:
            raise StoreError(f"several cells have a key that begins with '{name}'; give more of its characters")
        if found_cells:
            cell = found_cells[0]
            display = f"{cell.display} ({cell.key[:MIN_KEY]}, seed {cell.seed})"
            return _Selection(display, _by_row([cell]), words=_words([cell]))
    conditioned_labels = [as_row(cell).label for cell in run.further]
    short = {label.partition(" provider")[0].removesuffix(" as"): label for label in conditioned_labels}
    conditions = dict.fromkeys(cell.control or cell.protocol for cell in run.further)
    after = f"; after a comma a condition: {listed(conditions)}" if conditions else ""
    raise StoreError(
        f"'{name}' is neither a row of the suite '{run.suite_name}' ({listed(labels)}{after}), nor a suite of the store"
        f" ({listed(sorted(known))}; SUITE@NUMBER for one run), nor the beginning of a cell's key"
        f"{did_you_mean(name, [*labels, *conditioned_labels, *known], short)}"
    )


def _words(cells: Iterable[PlannedCell]) -> dict[str, str]:
    return {cell.key: cell.tuning for cell in cells}


def _by_row(cells: Iterable[PlannedCell]) -> dict[tuple[str, str], dict[int, str]]:
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for cell in cells:
        rows.setdefault((cell.dataset, cell.label), {})[cell.seed] = cell.key
    return rows
