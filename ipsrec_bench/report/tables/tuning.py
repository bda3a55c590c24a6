"""Searches of settings."""

from collections.abc import Callable
from typing import Any

from ipsrec_bench.report.content import (
    Report,
    Tuned,
)
from ipsrec_bench.report.sentences import between, budgets
from ipsrec_bench.report.table import (
    NONE,
    Cell,
    Column,
    Table,
    change,
    count,
    number,
    rows_of,
    seconds,
    text,
)
from ipsrec_bench.report.tables.shared import interval_of, metric_name
from ipsrec_bench.settings import in_words


def tuning(report: Report) -> Table:
    """Return the table of the searches."""

    def of(make: Callable[[Any], Cell]) -> Callable[[Tuned], Cell]:
        return lambda tuned: make(tuned.study)

    columns: tuple[Column, ...] = (
        Column("Study", of(lambda s: text(s.name)), "left", latex=False),
        Column("Dataset", of(lambda s: text(s.dataset)), "left", folded=True),
        Column("Model", of(lambda s: text(s.model)), "left", folded=True),
        Column("Metric", of(lambda s: text(metric_name(s.metric))), "left"),
        Column("Before", of(_before)),
        Column("Best", of(lambda s: number(s.best.value if s.best else None))),
        Column("Difference", _gained, below=interval_of(report)),
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
        f" Difference: best minus before, paired over seeds, with its {interval_of(report)} by the t-test; it"
        f" needs two seeds. Budgets: {budgets(report.tuned)}"
    )
    rows = rows_of(columns, report.tuned, dataset=lambda tuned: tuned.study.dataset)
    return Table("tuning", "tuning", "Searches of settings", columns, rows, note, lines="searches", latex="tuning")


def _before(study: Any) -> Cell:  # noqa: ANN401 (a StudyResult)
    trial = study.default_trial
    return number(trial.value if trial and not trial.pruned else None)


def _gained(tuned: Tuned) -> Cell:
    return change(tuned.gain.mean, between(tuned.gain.low, tuned.gain.high)) if tuned.gain else change(None, NONE)
