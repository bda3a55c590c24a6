"""Tables over all datasets: gains and their pooled mean, mean ranks, wins."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ipsrec_bench.report.content import (
    MAX_COLUMNS,
    AcrossDatasets,
    RelativeGain,
    Report,
    RowAcross,
    Standing,
    of_one_training,
)
from ipsrec_bench.report.sentences import percent
from ipsrec_bench.report.table import NONE, Cell, Column, Table, rows_of, share, text
from ipsrec_bench.report.tables.shared import TIMES, interval_of, metric_name, model_cell, p_cell
from ipsrec_bench.stats.across import Pooled
from ipsrec_bench.stats.paired import MeanTest
from ipsrec_bench.words import joined

SMALL_SAMPLE = 5
"""Pooled intervals over fewer datasets than this are wide, and the table says why."""


@dataclass(frozen=True)
class _Line:
    """One line of the table of gains: a dataset, all of them, or one that is not there."""

    of: RowAcross
    name: str
    gain: RelativeGain | None = None
    test: MeanTest | None = None
    low: float | None = None
    high: float | None = None
    weight: float | None = None
    pooled: Pooled | None = None
    """In the line of all datasets."""


def across(report: Report) -> Iterator[Table]:
    """Yield the tables over datasets, where there are several."""
    if report.across.several:
        yield _gains(report)
        yield _ranks(report)


def _gains(report: Report) -> Table:
    metric = metric_name(report.metric)
    columns = (
        Column("Model", lambda line: model_cell(line.of.row), "left", key=True),
        Column("Dataset", lambda line: text(line.name), "left"),
        Column("Baseline", lambda line: text(line.gain.reference.display if line.gain else ""), "left"),
        Column("Gain", _gain, below=interval_of(report)),
        Column("p", lambda line: p_cell(line.test.p if line.test else None)),
        Column("Error over", lambda line: text(_error(line)), "left", folded=True),
        Column("Weight", lambda line: share(line.weight), folded=True, latex=False),
        Column(
            "I²",
            lambda line: share(line.pooled.inconsistency if line.pooled else None),
            explained="share of the variation of gains that the errors of single datasets do not explain",
        ),
        Column(
            "τ",
            lambda line: share(line.pooled.variance**0.5 if line.pooled else None),
            explained="standard deviation of true gains between datasets",
            folded=True,
        ),
    )
    note = (
        f"Gain: difference of {metric} as a share of the baseline's mean, with both means uncertain (delta method)."
        f" Error over users {TIMES} seeds where both models have three seeds or are deterministic, else over users."
        f"{_of_pooled(report.across)} p is not corrected."
    )
    if report.across.cut:
        note += " Intervals are cut at -100%, below which no gain is possible."
    for row in report.across.rows:
        if row.lacks:
            note += f" {row.row.display} has no gain on {', '.join(row.lacks)}; nothing is filled in."
        if row.undefined:
            note += f" {row.row.display} has no gain on {', '.join(row.undefined)}, where the baseline's mean is 0."
        if row.unpooled:
            note += (
                f" The gain of {row.row.display} on {joined(row.unpooled)} has no error, because it does not vary, and"
                " is not pooled."
            )
    lines = [line for row in report.across.rows for line in _lines(row)]
    rows = rows_of(columns, lines, dataset=lambda line: line.gain.dataset if line.gain else "")
    caption = f"Gains of {metric} over all datasets"
    return Table("across", "across", caption, columns, rows, note, lines="gains", latex="across")


def _of_pooled(content: AcrossDatasets) -> str:
    """Return what the lines of several datasets are, after a space; empty if no row has them."""
    pooled = [row.pooled for row in content.rows if row.pooled is not None]
    if not pooled:
        return ""
    said = " All datasets: random-effects meta-analysis (Paule and Mandel), interval and p by Hartung and Knapp."
    wide = "this interval is wide"
    if any(map(_predicts, pooled)):
        said += " A new dataset: prediction interval of the true gain on one more dataset of this kind."
        wide = "both of these intervals are wide"
    if len(content.datasets) < SMALL_SAMPLE:
        said += f" {len(content.datasets)} datasets say little about others, so {wide}."
    return said


def _predicts(pooled: Pooled) -> bool:
    """Return whether a prediction interval is known, which takes three datasets."""
    return not math.isnan(pooled.low)


def _lines(row: RowAcross) -> Iterator[_Line]:
    weights = iter(row.pooled.weights if row.pooled else ())
    for gain in row.gains:
        test = gain.difference.test
        weight = next(weights, None) if gain.varies else None
        yield _Line(row, gain.dataset, gain, test, test.low, test.high, weight)
    if row.pooled is not None:
        test = row.pooled.test
        yield _Line(row, row.over, None, test, test.low, test.high, pooled=row.pooled)
        if _predicts(row.pooled):
            yield _Line(row, "a new dataset", None, None, row.pooled.low, row.pooled.high)


def _gain(line: _Line) -> Cell:
    interval = NONE if line.low is None or line.low == line.high else f"{percent(line.low)} to {percent(line.high)}"
    if line.test is None:
        return Cell("", below=interval, value="")
    return Cell(percent(line.test.mean), below=interval, value=f"{line.test.mean:.9g}")


def _error(line: _Line) -> str:
    if line.gain is None:
        return ""
    return f"users {TIMES} seeds" if line.gain.difference.of_method else "users"


def _ranks(report: Report) -> Table:
    content = report.across
    columns = (
        Column("Model", lambda line: model_cell(line.row), "left"),
        Column("Mean rank", _rank, below=interval_of(report)),
        *(_against(place, content.standings) for place in range(len(content.standings))),
    )
    note = (
        "Mean rank: 1 is the best model of a dataset. Its interval is a bootstrap of users and, within models, of"
        " seeds: it is about these datasets, not about others. The other columns count datasets on which the model of"
        " the line is better / equal / worse, by means alone."
    )
    note += of_one_training(one.row for one in content.standings if one.one_training and one.rank is not None)
    note += "".join(
        f" {standing.row.display} lacks {', '.join(standing.lacks)} and has no mean rank; nothing is filled in."
        for standing in content.standings
        if standing.lacks
    )
    note += f" {ranks_test(content)}"
    rows = rows_of(columns, content.standings)
    caption = f"Ranks and wins over all datasets, {metric_name(report.metric)}"
    return Table("wins", "across", caption, columns, rows, note, lines="models", latex="wins")


def ranks_test(content: AcrossDatasets) -> str:
    """Return Friedman's test in words, or why it is not made."""
    test = content.friedman
    if test is None:
        return (
            "Friedman's test and Nemenyi's critical difference are not shown: they use only the order of models on each"
            f" dataset, and have no power with fewer than about {content.enough} datasets. This suite has"
            f" {len(content.datasets)}."
        )
    of = f"F {test.f:.2f}, p {p_cell(test.f_p).text}" if test.f != float("inf") else "the same order on all datasets"
    return (
        f"Friedman's test that all models are equal, over {test.datasets} datasets: χ² {test.chi2:.2f}, p"
        f" {p_cell(test.p).text}; Iman and Davenport: {of}. Nemenyi's critical difference of mean ranks:"
        f" {test.critical_difference:.2f}."
    )


def _rank(standing: Standing) -> Cell:
    rank = standing.rank
    if rank is None:
        return Cell(NONE, value="")
    return Cell(f"{rank.mean:.2f}", below=f"{rank.low:.2f} to {rank.high:.2f}", value=f"{rank.mean:.9g}")


def _against(place: int, standings: Sequence[Standing]) -> Column:
    """Return the column of wins, ties and losses against the row at `place`."""

    def cell(standing: Standing) -> Cell:
        won, tied, lost = standing.wins[place]
        if standing.row == standings[place].row:
            return Cell(NONE, value="")
        return Cell(f"{won} / {tied} / {lost}", value=str(won))

    return Column(f"against {standings[place].row.display}", cell, latex=len(standings) <= MAX_COLUMNS)
