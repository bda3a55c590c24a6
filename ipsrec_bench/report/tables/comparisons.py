"""Comparisons with the baseline, over all users and by slices."""

from collections.abc import Callable

from ipsrec_bench.report.content import (
    Comparison,
    Report,
    Slice,
    SliceTable,
)
from ipsrec_bench.report.sentences import between, effect, span
from ipsrec_bench.report.table import (
    NONE,
    Cell,
    Column,
    Table,
    count,
    gain,
    number,
    rows_of,
    share,
    text,
)
from ipsrec_bench.report.tables.shared import (
    TIMES,
    difference_cell,
    interval_of,
    metric_name,
    p_cell,
    percent_of,
    verdict_cell,
)


def comparisons(report: Report) -> Table:
    """Return the table of all comparisons with the baseline."""
    margin = next((c.margin for c in report.comparisons if c.margin), None)
    equivalence = [
        Column(
            f"p, equivalent within {percent_of(margin)}", lambda c: p_cell(c.equivalence_p), folded=True, latex=False
        )
        for margin in (margin,)
        if margin
    ]
    columns: tuple[Column, ...] = (
        Column("Dataset", lambda c: text(c.dataset), "left", key=True),
        Column("Metric", lambda c: text(metric_name(c.metric)), "left", key=True),
        Column("Model", lambda c: text(c.row.display), "left"),
        Column("Baseline", lambda c: text(c.reference.display), "left"),
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
        Column("Seeds", lambda c: text(NONE if c.without_seeds else c.seeds), folded=True, latex=False),
        Column("p, users", lambda c: p_cell(c.by_users.p), folded=True),
        Column(f"p, users {TIMES} seeds", lambda c: p_cell(c.crossed.test.p if c.crossed else None), folded=True),
        *equivalence,
        Column(
            "Detectable",
            lambda c: number(c.detectable),
            explained="smallest difference that would have been found with a power of 80%",
            folded=True,
            latex=False,
        ),
        Column("Adjusted p", lambda c: p_cell(c.adjusted_p)),
        Column("Verdict", verdict_cell, "left"),
    )
    note = (
        f"Verdict: by the declared test ({report.test_rule}), {report.correction_rule} over {report.family_rule}, at"
        f" {report.alpha}. p, users: do these trained models differ on users like these (paired t-test, uncorrected)?"
        f" p, users {TIMES} seeds: do the methods differ across seeds and users (crossed random effects,"
        f" uncorrected)? It needs three seeds. Each {interval_of(report)} is for the single comparison. Difference:"
        f" {report.interval_rule}. Gain: Fieller's, over users. d_z: delta method, over users. Detectable:"
        f" the smallest difference that the t-test, uncorrected, would have found at {report.alpha} with a power of"
        f" 80%. Seeds: those that both have; {NONE} if both models are deterministic."
    )
    if report.baseline_is_best:
        note += " The best baseline is chosen on the same users, which favours it."
    rows = rows_of(columns, report.comparisons, dataset=lambda c: c.dataset, metric=lambda c: c.metric)
    caption = "Comparisons with the baseline"
    return Table("comparisons", "comparisons", caption, columns, rows, note, lines="comparisons", latex="comparisons")


def _counts(c: Comparison) -> Cell:
    return Cell(f"{c.counts.wins:,} / {c.counts.ties:,} / {c.counts.losses:,}", value=str(c.counts.wins))


def slices(report: Report) -> Table:
    """Return the table of the slices of the test users."""

    def of(make: Callable[[Comparison], Cell]) -> Callable[[tuple[SliceTable, Slice]], Cell]:
        return lambda line: make(line[1].comparison)

    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line[0].dataset), "left", key=True),
        Column("Model", lambda line: text(line[0].row.display), "left", key=True),
        Column("By", lambda line: text(line[1].dimension), "left", key=True),
        Column("Slice", lambda line: text(line[1].name), "left", long=True),
        Column("Users", of(lambda c: count(c.users))),
        Column("Share", lambda line: share(line[1].share), folded=True, latex=False),
        Column(metric_name(report.metric), of(lambda c: number(c.mean))),
        Column("Baseline", of(lambda c: number(c.reference_mean))),
        Column("Difference", of(difference_cell), below=interval_of(report)),
        Column("Gain", of(lambda c: gain(c.gain.value if c.gain else None)), folded=True, latex=False),
        Column("Adjusted p", of(lambda c: p_cell(c.adjusted_p)), folded=True, latex=False),
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
