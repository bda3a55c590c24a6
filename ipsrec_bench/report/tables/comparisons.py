"""Comparisons with the baseline, over all users and by slices."""

from collections.abc import Callable

from ipsrec_bench.report.content import (
    AllPairsTable,
    Comparison,
    Report,
    Row,
    Slice,
    SliceTable,
)
from ipsrec_bench.report.sentences import between, effect, needed, probabilities, span, trainings
from ipsrec_bench.report.table import (
    NONE,
    Cell,
    Column,
    Table,
    count,
    exact,
    gain,
    number,
    rows_of,
    share,
    text,
)
from ipsrec_bench.report.tables.shared import (
    below_p,
    corrected_by,
    difference_cell,
    interval_of,
    is_corrected,
    metric_name,
    model_cell,
    p_cell,
    p_heading,
    p_of_method,
    p_of_users,
    percent_of,
    verdict_cell,
)


def comparisons(report: Report) -> Table:
    """Return the table of all comparisons with the baseline."""
    margin = next((c.margin for c in report.comparisons if c.margin), None)
    of_margin = [] if margin is None else _of_margin(percent_of(margin))
    columns: tuple[Column, ...] = (
        Column("Dataset", lambda c: text(c.dataset), "left", key=True),
        Column("Metric", lambda c: text(metric_name(c.metric)), "left", key=True),
        Column("Model", lambda c: model_cell(c.row), "left"),
        Column("Baseline", lambda c: model_cell(c.reference), "left"),
        Column("Difference", difference_cell, below=interval_of(report)),
        Column("Gain", lambda c: gain(c.gain.value if c.gain else None, span(c.gain)), below="its interval"),
        Column(
            "d_z",
            lambda c: Cell(effect(c.effect.value), "", between(c.effect.low, c.effect.high, effect)),
            below="its interval",
            explained="mean difference over the standard deviation of the differences",
            folded=True,
        ),
        Column("Win / tie / loss", _counts, folded=True),
        Column("Seeds", lambda c: text(NONE if c.without_seeds else trainings(c)), folded=True, latex=False),
        Column("p, users", p_of_users, below=below_p(report, "users"), folded=True),
        Column("p, method", p_of_method, below=below_p(report, "method"), folded=True),
        *of_margin,
        Column(
            "Detectable",
            lambda c: number(c.detectable),
            explained="smallest difference that the test finds with a power of 80%",
            folded=True,
            latex=False,
        ),
        Column(
            "Seeds needed",
            lambda c: Cell(needed(c), value=exact(c.seeds_needed.seeds if c.seeds_needed else None)),
            explained="seeds of each model with which the methods' test finds the difference with a power of 80%",
            folded=True,
            latex=False,
        ),
        Column(
            "Next training wins",
            _next_training,
            below=f"{percent_of(report.confidence)} of next differences",
            explained="probability that one more training of the model beats one more of the baseline",
            folded=True,
            latex=False,
        ),
        Column(
            "User better served",
            lambda c: number(c.superiority, ".3f"),
            explained="probability that the model ranks a user's target above the baseline's rank; ties count half",
            folded=True,
            latex=False,
        ),
        Column(p_heading(report), lambda c: p_cell(c.adjusted_p)),
        Column("Verdict", verdict_cell, "left"),
    )
    interest = "as large as the margin" if margin else "as large as the one found"
    beside, level = "the same, not corrected", "level"
    if is_corrected(report):
        beside = "corrected in the same family, where a comparison without the test counts as p = 1"
        level = "level of the family's hardest step"
    note = (
        f"Verdict: by the declared test ({report.test_rule}), {corrected_by(report)}, at"
        f" {report.alpha}. p, users: do these trained models differ on users like these (paired t-test)? p, method: do"
        " the methods differ across users and the seeds of each model, which are never paired? It needs three seeds of"
        f" each model that is not deterministic. Beside both: {beside}. Each"
        f" {interval_of(report)} is for the single comparison. Difference: {report.interval_rule}. Gain: Fieller's,"
        " over users. d_z: delta method, over users. Detectable: the smallest difference that the t-test finds with a"
        f" power of 80% at the {level}. Seeds needed: for a difference"
        f" {interest}, at the same level and power; {NONE} without the test of the methods. Next training: with t over"
        " both models' seeds. User better served: over all users and pairs of trainings."
    )
    if margin is not None:
        note += (
            " Worse / same / better: probabilities that the true difference is below, within and above"
            f" {percent_of(margin)} of the baseline's mean (flat prior). A significant difference within it gets no"
            " mark."
        )
    rows = rows_of(columns, report.comparisons, dataset=lambda c: c.dataset, metric=lambda c: c.metric)
    caption = "Comparisons with the baseline"
    return Table("comparisons", "comparisons", caption, columns, rows, note, lines="comparisons", latex="comparisons")


def _of_margin(margin: str) -> list[Column]:
    """Return the columns of a declared margin."""
    return [
        Column(f"p, equivalent within {margin}", lambda c: p_cell(c.equivalence_p), folded=True, latex=False),
        Column(
            "Worse / same / better",
            lambda c: Cell(probabilities(c), value=exact(c.practical.better) if c.practical else ""),
            explained=f"probability of each, with differences within {margin} as the same",
        ),
    ]


def _next_training(c: Comparison) -> Cell:
    one = c.next_training
    if one is None:
        return Cell(NONE, value="")
    return Cell(f"{one.probability:.3f}", below=between(one.low, one.high), value=exact(one.probability))


def all_pairs(report: Report) -> Table:
    """Return the matrices of all pairs of whole models, for each dataset and metric."""
    rows = list(dict.fromkeys(row for one in report.all_pairs for row in one.rows))
    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line[0].dataset), "left", key=True),
        Column("Metric", lambda line: text(metric_name(line[0].metric)), "left", key=True),
        Column("Model", lambda line: text(line[0].rows[line[1]].display), "left"),
        Column("Letters", lambda line: text(line[0].letters[line[1]]), "left"),
        *(Column(row.display, _against(row)) for row in rows),
    )
    lines = [(one, place) for one in report.all_pairs for place in range(len(one.rows))]
    resamples = report.all_pairs[0].resamples if report.all_pairs else 0
    critical = [f"{one.critical:.2f}" for one in report.all_pairs]
    note = (
        f"Adjusted p of every pair, corrected for all pairs of a metric at once over the same {resamples:,} resamples"
        " of the users (maxT): do these trained models differ? Models that share a letter are not shown to differ at"
        f" {report.alpha}."
    )
    if critical:
        least, most = min(critical, key=float), max(critical, key=float)
        note += (
            " The |t| over users from which a pair is shown to differ is"
            f" {least if least == most else f'{least} to {most}, by dataset and metric'}."
        )
    made = rows_of(columns, lines, dataset=lambda line: line[0].dataset, metric=lambda line: line[0].metric)
    return Table("all-pairs", "comparisons", "All pairs of models", columns, made, note, "lines", latex="all-pairs")


def _against(row: Row) -> Callable[[tuple[AllPairsTable, int]], Cell]:
    """Return the function that makes the cell of a line's pair with `row`."""

    def cell(line: tuple[AllPairsTable, int]) -> Cell:
        table, place = line
        if row == table.rows[place]:
            return Cell("")
        return p_cell(table.p[place][table.rows.index(row)] if row in table.rows else None)

    return cell


def _counts(c: Comparison) -> Cell:
    return Cell(f"{c.counts.wins:,} / {c.counts.ties:,} / {c.counts.losses:,}", value=str(c.counts.wins))


def slices(report: Report) -> Table:
    """Return the table of the slices of the test users."""

    def of(make: Callable[[Comparison], Cell]) -> Callable[[tuple[SliceTable, Slice]], Cell]:
        return lambda line: make(line[1].comparison)

    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line[0].dataset), "left", key=True),
        Column("Model", lambda line: model_cell(line[0].row), "left", key=True),
        Column("By", lambda line: text(line[1].dimension), "left", key=True),
        Column("Slice", lambda line: text(line[1].name), "left", long=True),
        Column("Users", of(lambda c: count(c.users))),
        Column("Share", lambda line: share(line[1].share), folded=True, latex=False),
        Column(metric_name(report.metric), of(lambda c: number(c.mean))),
        Column("Baseline", of(lambda c: number(c.reference_mean))),
        Column("Difference", of(difference_cell), below=interval_of(report)),
        Column("Gain", of(lambda c: gain(c.gain.value if c.gain else None)), folded=True, latex=False),
        Column(p_heading(report), of(lambda c: p_cell(c.adjusted_p)), folded=True, latex=False),
        Column("Verdict", of(verdict_cell), "left"),
    )
    note = (
        f"{metric_name(report.metric)}, {report.slice_rule}; all slices of one model on one dataset are one family"
        f" ({report.correction_rule}). Lengths and popularities are cut at quantiles of the test users. History length:"
        " interactions before the target. In training: how many training interactions have the target, or its provider."
    )
    lines = [(table, part) for table in report.slices for part in table.slices]
    rows = rows_of(columns, lines, dataset=lambda line: line[0].dataset)
    caption = f"{metric_name(report.metric)} by slices of the test users"
    return Table("slices", "slices", caption, columns, rows, note, lines="slices", latex="slices")
