"""What provider information brings."""

from ipsrec_bench.report.content import Comparison, Report
from ipsrec_bench.report.table import Cell, Column, Table, gain, number, rows_of, text
from ipsrec_bench.report.tables.shared import (
    below_p,
    corrected_by,
    difference_cell,
    interval_of,
    metric_name,
    model_cell,
    p_cell,
    p_heading,
    p_of_method,
    p_of_users,
    verdict_cell,
)

OF_TWINS = "the comparisons of one metric on one dataset (variants apart)"
"""Family of controls where the suite declares all pairs: rows are compared with their twins alone."""

_EXPLAINED = {
    "shuffled providers": " Shuffled providers: each provider keeps its number of items, each item its number of"
    " providers.",
    "popularity as provider": " Popularity as provider: the class of the item's popularity, without the last two"
    " interactions of each user.",
}
"""What a control changes, where its name does not say it."""


def controls(report: Report) -> Table:
    """Return the table of the rows beside their twins on data with other providers."""
    own = {(c.dataset, c.metric, c.row.label): c for c in report.comparisons}
    twins = {(c.dataset, c.metric, c.row.label): c for c in report.control_gains}

    def gain_of(found: Comparison | None) -> Cell:
        return gain(found.gain.value if found and found.gain else None)

    columns: tuple[Column, ...] = (
        Column("Dataset", lambda c: text(c.dataset), "left", key=True),
        Column("Metric", lambda c: text(metric_name(c.metric)), "left", key=True),
        Column("Model", lambda c: model_cell(c.row), "left"),
        Column("Control", lambda c: text(c.reference.display), "left"),
        Column("Own providers", lambda c: number(c.mean)),
        Column("Control's", lambda c: number(c.reference_mean), explained="with the providers of the control"),
        Column("Difference", difference_cell, below=interval_of(report)),
        Column("p, users", p_of_users, below=below_p(report, "users"), folded=True, latex=False),
        Column("p, method", p_of_method, below=below_p(report, "method"), folded=True, latex=False),
        Column(p_heading(report), lambda c: p_cell(c.adjusted_p)),
        Column("Verdict", verdict_cell, "left"),
        Column(
            "Gain",
            lambda c: gain_of(own.get((c.dataset, c.metric, c.row.label))),
            explained="over the baseline, with the data's own providers",
        ),
        Column(
            "Gain of the control",
            lambda c: gain_of(twins.get((c.dataset, c.metric, c.reference.label))),
            explained="over the same baseline, with the providers of the control",
        ),
    )
    family = OF_TWINS if report.all_pairs else report.family_rule
    note = (
        "Each model was trained a second time on the same interactions with other providers. Difference: what the"
        f" data's own providers bring. Verdict: {report.test_rule};"
        f" {corrected_by(report, f'{family} of this table')}, at {report.alpha}. Gain: over the baseline"
        f" ({report.baseline_rule})."
        " What is left of the gain in the control does not come from what providers say."
    ) + "".join(
        said for control, said in _EXPLAINED.items() if control in {c.reference.control for c in report.controls}
    )
    rows = rows_of(columns, report.controls, dataset=lambda c: c.dataset, metric=lambda c: c.metric)
    caption = "What the provider information itself brings"
    return Table("controls", "controls", caption, columns, rows, note, lines="comparisons", latex="controls")
