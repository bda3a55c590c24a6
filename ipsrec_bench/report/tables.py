"""The tables of a report, one function each; the formats decide how they look."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ipsrec_bench.report.content import (
    AblationCell,
    AblationLine,
    AblationTable,
    AgainstPaper,
    CellLine,
    Comparison,
    CostLine,
    DatasetLine,
    PublishedLine,
    Report,
    ResultCell,
    ResultLine,
    ResultTable,
    Row,
    Slice,
    SliceTable,
    Tuned,
)
from ipsrec_bench.report.sentences import between, budgets, effect, p_value, percent, signed, span
from ipsrec_bench.report.table import (
    NONE,
    Cell,
    Column,
    Table,
    change,
    count,
    exact,
    gain,
    mebibytes,
    number,
    rows_of,
    seconds,
    share,
    text,
)
from ipsrec_bench.settings import in_words
from ipsrec_bench.store.records import DatasetRow

TIMES = "\N{MULTIPLICATION SIGN}"
INSIDE = {True: "inside our interval", False: "outside our interval", None: "unknown (no interval)"}


def tables_of(report: Report) -> list[Table]:
    """Return the tables of a report that have rows, in the order of the page."""
    tables = [
        *_results(report),
        *_ablation(report),
        _comparisons(report),
        _slices(report),
        *(table for place, against in enumerate(report.published, 1) for table in _published(report, against, place)),
        _tuning(report),
        _datasets(report),
        _costs(report),
        _protocol(report),
        _settings(report),
        _provenance(report),
    ]
    return [table for table in tables if table.rows]


def _percent(share: float) -> str:
    return f"{100 * share:g}%"


def _interval(report: Report) -> str:
    return f"{_percent(report.confidence)} interval"


def _metric(name: str) -> str:
    return name.upper()


# Results and ablation


def _results(report: Report) -> Iterator[Table]:
    note = (
        "Best value bold, second underlined; mean over seeds ± standard deviation over seeds, which one seed and"
        f" deterministic models do not have. Improv.: relative to {report.baseline_rule}, on the seeds that both"
        f" have. *: better with adjusted p < {report.alpha} ({report.test_rule}; {report.correction_rule} over"
        f" {report.family_rule})."
    )
    if report.results.unequal:
        note += " †: only one of the model and its baseline is tuned."
    yield from _result_tables(report.results, "results", "Results", note, "results", report.seeds)


def _result_tables(
    table: ResultTable, name: str, caption: str, note: str, latex: str, seeds: int | None = None, section: str = ""
) -> Iterator[Table]:
    """Yield one table with models across or, where they are many, one with models down for each dataset.

    Args:
        table: what is shown.
        name: for links.
        caption: of the table.
        note: how to read it.
        latex: name of the LaTeX file.
        seeds: expected number of seeds; scores of fewer say so. None for printed numbers, which have none.
        section: of the page, if not named like the table.
    """
    common = {"section": section or name, "note": note, "latex": latex, "collapse": "never"}
    if not table.models_down:
        columns = [
            Column("Dataset", lambda line: text(line.dataset), "left", key=True),
            Column("Metric", lambda line: text(_metric(line.metric)), "left"),
            *(_of_model(table, place, row, seeds) for place, row in enumerate(table.columns)),
        ]
        rows = rows_of(columns, table.lines, dataset=lambda line: line.dataset, metric=lambda line: line.metric)
        yield Table(name, caption=caption, columns=tuple(columns), rows=rows, **common)  # type: ignore[arg-type]
        return
    datasets = dict.fromkeys(line.dataset for line in table.lines)
    first = next((i for i, row in enumerate(table.columns) if row.model in table.proposed), None)

    def begins(place: int) -> bool:
        return place == first

    for part, dataset in enumerate(datasets, start=1):
        lines = [line for line in table.lines if line.dataset == dataset]
        columns = [
            Column("Model", lambda place: text(table.columns[place].display), "left"),
            *(_of_metric(table, line, seeds) for line in lines),
        ]
        rows = rows_of(columns, range(len(table.columns)), begins=begins)
        yield Table(
            f"{name}-{part}" if part > 1 else name,
            caption=f"{caption} on {dataset}" if len(datasets) > 1 else caption,
            columns=tuple(columns),
            rows=rows,
            dataset=dataset,
            **common,  # type: ignore[arg-type]
        )


def _of_model(table: ResultTable, place: int, row: Row, seeds: int | None) -> Column:
    proposed = row.model in table.proposed

    def cell(line: ResultLine) -> Cell:
        return _result_cell(line.cells[place], seeds, proposed=proposed)

    return Column(row.display, cell, below="Improv." if proposed else "")


def _of_metric(table: ResultTable, line: ResultLine, seeds: int | None) -> Column:
    def cell(place: int) -> Cell:
        return _result_cell(line.cells[place], seeds, proposed=table.columns[place].model in table.proposed)

    return Column((line.dataset, _metric(line.metric)), cell, below="Improv.", dataset=line.dataset, metric=line.metric)


def _result_cell(cell: ResultCell, seeds: int | None, *, proposed: bool) -> Cell:
    improvement = ""
    if proposed:
        marks = ("*" if cell.mark else "") + ("†" if cell.unequal else "")
        improvement = NONE if cell.gain is None else percent(cell.gain) + marks
    if cell.score is None:
        return Cell(NONE, below=improvement, value="")
    score, spread = cell.score, []
    if score.deviation is not None:
        spread.append(f"± {score.deviation:.4f}")
    if seeds is not None and score.seeds < seeds:
        spread.append(f"({score.seeds}/{seeds} seeds)")
    tone = "best" if cell.best else "second" if cell.second else ""
    return Cell(f"{score.mean:.4f}", " ".join(spread), improvement, exact(score.mean), tone)


def _ablation(report: Report) -> Iterator[Table]:
    if report.ablation is None:
        return
    first = report.ablation.lines[0]
    note = (
        f"Beside a variant: its difference to the whole model, then the {_interval(report)} ({report.interval_rule});"
        f" *: adjusted p < {report.alpha}, same test, {report.correction_rule} over {report.family_rule} of the"
        " ablation."
    )
    if not first.is_variant and first.row.model not in report.results.proposed:
        note += f" {first.row.display} is shown above them for reference."
    yield _ablation_table(report.ablation, "ablation", "Ablation", note, "ablation")


def _ablation_table(table: AblationTable, name: str, caption: str, note: str, latex: str, section: str = "") -> Table:
    columns = [
        Column("Method", lambda line: text(line.row.variant if line.is_variant else line.row.display), "left"),
        *(_of_ablation(place, *column) for place, column in enumerate(table.columns)),
    ]
    rows = rows_of(columns, table.lines, begins=lambda line: not line.is_variant, indent=lambda line: line.is_variant)
    return Table(
        name, section or name, caption, tuple(columns), rows, note, "methods", "never", sortable=False, latex=latex
    )


def _of_ablation(place: int, dataset: str, metric: str) -> Column:
    def cell(line: AblationLine) -> Cell:
        return _ablation_cell(line.cells[place])

    return Column((dataset, _metric(metric)), cell, dataset=dataset, metric=metric)


def _ablation_cell(cell: AblationCell) -> Cell:
    score = number(cell.score.mean if cell.score else None)
    c = cell.comparison
    if c is None:
        return score
    beside = signed(c.difference) + ("*" if c.significant else "")
    return Cell(score.text, beside, between(c.low, c.high), score.value, c.verdict)


# Comparisons and slices


def _comparisons(report: Report) -> Table:
    margin = next((c.margin for c in report.comparisons if c.margin), None)
    equivalence = [
        Column(f"p, equivalent within {_percent(margin)}", lambda c: _p(c.equivalence_p), folded=True, latex=False)
        for margin in (margin,)
        if margin
    ]
    columns: tuple[Column, ...] = (
        Column("Dataset", lambda c: text(c.dataset), "left", key=True),
        Column("Metric", lambda c: text(_metric(c.metric)), "left", key=True),
        Column("Model", lambda c: text(c.row.display), "left"),
        Column("Baseline", lambda c: text(c.reference.display), "left"),
        Column("Difference", _difference, below=_interval(report)),
        Column("Gain", lambda c: gain(c.gain.value if c.gain else None, span(c.gain)), below="its interval"),
        Column(
            "d_z",
            lambda c: Cell(effect(c.effect.value), "", between(c.effect.low, c.effect.high, effect)),
            below="its interval",
            explained="mean difference over the standard deviation of the differences",
            folded=True,
        ),
        Column("Win / tie / loss", _counts, folded=True),
        Column("Seeds", lambda c: text(NONE if c.without_seeds else c.seeds), folded=True, latex=False),
        Column("p, users", lambda c: _p(c.by_users.p), folded=True),
        Column(f"p, users {TIMES} seeds", lambda c: _p(c.crossed.test.p if c.crossed else None), folded=True),
        *equivalence,
        Column(
            "Detectable",
            lambda c: number(c.detectable),
            explained="smallest difference that would have been found with a power of 80%",
            folded=True,
            latex=False,
        ),
        Column("Adjusted p", lambda c: _p(c.adjusted_p)),
        Column("Verdict", _verdict, "left"),
    )
    note = (
        f"Verdict: by the declared test ({report.test_rule}), {report.correction_rule} over {report.family_rule}, at"
        f" {report.alpha}. p, users: do these trained models differ on users like these (paired t-test, uncorrected)?"
        f" p, users {TIMES} seeds: do the methods differ across seeds and users (crossed random effects,"
        f" uncorrected)? It needs three seeds. Each {_interval(report)} is for the single comparison. Difference:"
        f" {report.interval_rule}. Gain: Fieller's, over users. d_z: delta method, over users. Detectable:"
        f" the smallest difference that the t-test, uncorrected, would have found at {report.alpha} with a power of"
        f" 80%. Seeds: those that both have; {NONE} if both models are deterministic."
    )
    if report.baseline_is_best:
        note += " The best baseline is chosen on the same users, which favours it."
    rows = rows_of(columns, report.comparisons, dataset=lambda c: c.dataset, metric=lambda c: c.metric)
    caption = "Comparisons with the baseline"
    return Table("comparisons", "comparisons", caption, columns, rows, note, lines="comparisons", latex="comparisons")


def _p(value: float | None) -> Cell:
    return Cell(p_value(value), value=exact(value))


def _difference(c: Comparison) -> Cell:
    return change(c.difference, between(c.low, c.high))


def _verdict(c: Comparison) -> Cell:
    return Cell(c.verdict, tone=c.verdict)


def _counts(c: Comparison) -> Cell:
    return Cell(f"{c.counts.wins:,} / {c.counts.ties:,} / {c.counts.losses:,}", value=str(c.counts.wins))


def _slices(report: Report) -> Table:
    def of(make: Callable[[Comparison], Cell]) -> Callable[[tuple[SliceTable, Slice]], Cell]:
        return lambda line: make(line[1].comparison)

    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line[0].dataset), "left", key=True),
        Column("Model", lambda line: text(line[0].row.display), "left", key=True),
        Column("By", lambda line: text(line[1].dimension), "left", key=True),
        Column("Slice", lambda line: text(line[1].name), "left", long=True),
        Column("Users", of(lambda c: count(c.users))),
        Column("Share", lambda line: share(line[1].share), folded=True, latex=False),
        Column(_metric(report.metric), of(lambda c: number(c.mean))),
        Column("Baseline", of(lambda c: number(c.reference_mean))),
        Column("Difference", of(_difference), below=_interval(report)),
        Column("Gain", of(lambda c: gain(c.gain.value if c.gain else None)), folded=True, latex=False),
        Column("Adjusted p", of(lambda c: _p(c.adjusted_p)), folded=True, latex=False),
        Column("Verdict", of(_verdict), "left"),
    )
    note = (
        f"{_metric(report.metric)}, {report.slice_rule}; all slices of one model on one dataset are one family"
        f" ({report.correction_rule}). Lengths and popularities are cut at quantiles of the test users. History length:"
        " interactions before the target. In training: how many training interactions have the target, or its provider."
    )
    lines = [(table, part) for table in report.slices for part in table.slices]
    rows = rows_of(columns, lines, dataset=lambda line: line[0].dataset)
    caption = f"{_metric(report.metric)} by slices of the test users"
    return Table("slices", "slices", caption, columns, rows, note, lines="slices", latex="slices")


# What papers printed


def _published(report: Report, against: AgainstPaper, place: int) -> Iterator[Table]:
    paper, tail = against.paper, f"-{place}" if place > 1 else ""
    section = f"published{tail}"
    yield _beside_paper(report, against.lines, f"published{tail}", f"Ours beside {paper.short}", section)
    columns: list[Column] = [Column("Dataset", lambda line: text(line[0]), "left")]
    headings = ("#Users", "#Items", "#I-Actions", "#Providers", "#P-Actions")
    columns += [Column(heading, _nth(place)) for place, heading in enumerate(headings)]
    name = f"Table {{}} of {paper.short}, as printed"
    printed = f"printed{tail}"
    yield Table(
        f"paper-datasets{tail}", printed, name.format(1), tuple(columns), rows_of(columns, paper.datasets),
        collapse="never", sortable=False,
    )  # fmt: skip
    yield from _result_tables(
        paper.results, f"paper-results{tail}", name.format(2), "", f"papers{tail}", section=printed
    )
    if paper.ablation is not None:
        yield _ablation_table(paper.ablation, f"paper-ablation{tail}", name.format(3), "", f"papers{tail}", printed)


def _nth(place: int) -> Callable[[tuple[str, Sequence[int | None]]], Cell]:
    return lambda line: count(line[1][place])


def _beside_paper(report: Report, lines: Sequence[PublishedLine], name: str, caption: str, section: str) -> Table:
    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line.dataset), "left", key=True),
        Column("Metric", lambda line: text(_metric(line.metric)), "left", key=True),
        Column("Model", lambda line: text(line.row.display), "left"),
        Column("Published", lambda line: number(line.theirs)),
        Column("Ours", _ours, below=f"{_interval(report)} of ours"),
        Column("Difference", lambda line: change(line.difference)),
        Column("Published value is", lambda line: text(INSIDE[line.inside]), "left"),
    )
    note = (
        f"Our interval: prediction interval for one more training of ours on the same users (mean ± t {TIMES} standard"
        f" deviation over seeds {TIMES} √(1 + 1 / seeds)). The listed differences may explain a published value outside"
        " of it."
    )
    rows = rows_of(columns, lines, dataset=lambda line: line.dataset, metric=lambda line: line.metric)
    return Table(name, section, caption, columns, rows, note, lines="published values", latex=name)


def _ours(line: PublishedLine) -> Cell:
    if line.low is None or line.high is None:
        return Cell(f"{line.ours:.4f}", "", NONE, exact(line.ours))
    return Cell(f"{line.ours:.4f}", "", f"{line.low:.4f} to {line.high:.4f}", exact(line.ours))


# Tuning


def _tuning(report: Report) -> Table:
    def of(make: Callable[[Any], Cell]) -> Callable[[Tuned], Cell]:
        return lambda tuned: make(tuned.study)

    columns: tuple[Column, ...] = (
        Column("Study", of(lambda s: text(s.name)), "left", latex=False),
        Column("Dataset", of(lambda s: text(s.dataset)), "left", folded=True),
        Column("Model", of(lambda s: text(s.model)), "left", folded=True),
        Column("Metric", of(lambda s: text(_metric(s.metric))), "left"),
        Column("Before", of(_before)),
        Column("Best", of(lambda s: number(s.best.value if s.best else None))),
        Column("Difference", _gained, below=_interval(report)),
        Column("Best settings", of(lambda s: text(in_words(s.best.settings) if s.best else NONE)), "left", long=True),
        Column("Complete", of(lambda s: count(len(s.complete)))),
        Column("Pruned", of(lambda s: count(s.pruned))),
        Column("Failed", of(lambda s: count(s.failed)), folded=True, latex=False),
        Column("Epochs", of(lambda s: count(s.epochs)), folded=True),
        Column("Training", of(lambda s: seconds(s.seconds, 0))),
        Column("Sampler", of(lambda s: text(s.sampler)), "left", folded=True),
        Column("Pruner", of(lambda s: text(s.pruner)), "left", folded=True),
        Column("Seeds", of(lambda s: text(", ".join(map(str, s.seeds)))), "left", folded=True),
    )
    note = (
        "Values are means over the seeds of a trial, on validation targets; a search never ranks test targets."
        f" Difference: best minus before, paired over seeds, with its {_interval(report)} by the t-test; it"
        f" needs two seeds. Budgets: {budgets(report.tuned)}"
    )
    rows = rows_of(columns, report.tuned, dataset=lambda tuned: tuned.study.dataset)
    return Table("tuning", "tuning", "Searches of settings", columns, rows, note, lines="searches", latex="tuning")


def _before(study: Any) -> Cell:  # noqa: ANN401 (a StudyResult)
    trial = study.default_trial
    return number(trial.value if trial and not trial.pruned else None)


def _gained(tuned: Tuned) -> Cell:
    return change(tuned.gain.mean, between(tuned.gain.low, tuned.gain.high)) if tuned.gain else change(None, NONE)


# Data, cost, protocol, provenance


def _datasets(report: Report) -> Table:
    def of(make: Callable[[DatasetRow], Cell]) -> Callable[[DatasetLine], Cell]:
        return lambda line: make(line.statistics)

    def of_split(name: str) -> Callable[[DatasetLine], Cell]:
        return lambda line: share(getattr(line.split, name) if line.split else None)

    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line.label), "left"),
        Column("#Users", of(lambda s: count(s.users))),
        Column("#Items", of(lambda s: count(s.items))),
        Column("#I-Actions", of(lambda s: count(s.actions))),
        Column("#Providers", of(lambda s: count(s.providers))),
        Column("#P-Actions", of(lambda s: count(s.known_provider_actions))),
        Column("Test users", lambda line: text(line.tested)),
        Column("Mean length", of(lambda s: number(s.mean_length, ".1f")), latex=False),
        Column("Repeat share", of(lambda s: share(s.repeat_share))),
        Column("Stickiness", of(lambda s: share(s.stickiness))),
        Column("Shuffled", of(lambda s: share(s.shuffled_stickiness)), folded=True, latex=False),
        Column("Validation users", lambda line: text(line.validated if line.split else NONE), folded=True, latex=False),
        Column("Tied targets", of_split("tied_targets"), folded=True),
        Column("Leaked targets", of_split("leaked_targets"), folded=True),
        Column("Repeated targets", of_split("repeated_targets"), folded=True),
        Column("Unseen targets", of_split("unseen_targets"), folded=True),
    )
    note = (
        "#P-Actions counts interactions with a known provider. Stickiness: share of neighbouring, different items with"
        " the same known provider; shuffled: its expected value after a shuffle of each user's order. Test users and"
        f" targets: {report.targets_of}; {NONE} where the store has no record. Tied targets: those with the time of the"
        " interaction before them, so the source's order decides. Leaked: those older than the newest training"
        " interaction, so the model may know what others did later. Repeated: those with an item of the user's"
        " history. Unseen: those with an item that no training interaction has. Padding ids are not counted."
    )
    rows = rows_of(columns, report.datasets, dataset=lambda line: line.label)
    return Table("datasets", "datasets", "Datasets", columns, rows, note, "datasets", sortable=False, latex="datasets")


def _costs(report: Report) -> Table:
    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line.dataset), "left", key=True),
        Column("Model", lambda line: text(line.row.display), "left"),
        Column(_metric(report.metric), lambda line: number(line.value)),
        Column("Parameters", lambda line: count(line.parameters)),
        Column("Training", lambda line: seconds(line.train_seconds)),
        Column("Whole cell", lambda line: seconds(line.seconds)),
        Column("Peak memory", lambda line: mebibytes(line.peak_memory)),
        Column("Best epochs", _best_epochs),
    )
    note = "Times are means over seeds; memory is the largest resident size of the process while the cell ran."
    rows = rows_of(columns, report.costs, dataset=lambda line: line.dataset)
    return Table("cost", "cost", "Cost", columns, rows, note, "models", latex="cost")


def _best_epochs(line: CostLine) -> Cell:
    return text(", ".join(map(str, line.best_epochs)) or NONE)


def _protocol(report: Report) -> Table:
    columns = (
        Column("Setting", lambda line: text(line[0]), "left"),
        Column("Value", lambda line: text(line[1]), "left", long=True),
    )
    return Table(
        "protocol", "protocol", "Protocol and data", columns, rows_of(columns, report.protocol), "", "settings",
        "never", sortable=False, latex="protocol", page=20,
    )  # fmt: skip


def _settings(report: Report) -> Table:
    columns = (
        Column("Model", lambda line: text(line[0].display), "left"),
        Column("Settings", lambda line: text(line[1] or "nothing to set"), "left", long=True),
    )
    rows = rows_of(columns, report.settings)
    return Table(
        "settings", "protocol", "Settings of the models", columns, rows, lines="models",
        collapse="always", sortable=False,
    )  # fmt: skip


def _provenance(report: Report) -> Table:
    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line.dataset), "left", key=True),
        Column("Model", lambda line: text(line.row.display), "left"),
        Column("Seed", _seed),
        Column("Key", lambda line: text(line.key), "left", code=True),
        Column("Fingerprint of the data", lambda line: text(line.fingerprint[:16]), "left", code=True),
        Column("Environment", lambda line: count(line.environment)),
        Column("Time", lambda line: seconds(line.seconds)),
        Column("Peak memory", lambda line: mebibytes(line.peak_memory)),
    )
    rows = rows_of(columns, report.provenance, dataset=lambda line: line.dataset)
    return Table("cells", "provenance", "Cells", columns, rows, lines="cells", collapse="always")


def _seed(line: CellLine) -> Cell:
    return text("all" if line.seed is None else line.seed)
