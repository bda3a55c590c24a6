"""What several tables share."""

from ipsrec_bench.report.comparisons import CORRECTIONS, corrected_over
from ipsrec_bench.report.content import (
    Comparison,
    Report,
    Row,
)
from ipsrec_bench.report.sentences import between, p_value
from ipsrec_bench.report.table import (
    Cell,
    change,
    exact,
)

TIMES = "\N{MULTIPLICATION SIGN}"


def percent_of(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:g}%"


def interval_of(report: Report) -> str:
    """Return the name of the report's intervals."""
    return f"{percent_of(report.confidence)} interval"


def metric_name(name: str) -> str:
    """Return a metric as tables write it."""
    return name.upper()


def corrected_by(report: Report, family: str = "") -> str:
    """Return how p-values are corrected over `family`, by default the declared one, in words."""
    return corrected_over(report.correction_rule, family or report.family_rule)


def is_corrected(report: Report) -> bool:
    """Return whether the suite declares a correction of p-values."""
    return report.correction_rule != CORRECTIONS["none"]


def p_heading(report: Report) -> str:
    """Return the heading of the p-values of verdicts."""
    return "Adjusted p" if is_corrected(report) else "p"


def below_p(report: Report, question: str) -> str:
    """Return the heading of the p-values of verdicts on a question, below those of its test."""
    return f"{question}, {'adjusted' if is_corrected(report) else 'not corrected'}"


def p_cell(value: float | None) -> Cell:
    """Return the cell of a p-value."""
    return Cell(p_value(value), value=exact(value))


def p_of_users(c: Comparison) -> Cell:
    """Return the cell of the p-value over users; below, corrected."""
    return Cell(p_value(c.by_users.p), below=p_value(c.adjusted_users_p), value=exact(c.by_users.p))


def p_of_method(c: Comparison) -> Cell:
    """Return the cell of the p-value of the methods; below, corrected."""
    p = c.method.test.p if c.method else None
    return Cell(p_value(p), below=p_value(c.adjusted_method_p), value=exact(p))


def difference_cell(c: Comparison) -> Cell:
    """Return the cell of a difference with its interval."""
    return change(c.difference, between(c.low, c.high))


def verdict_cell(c: Comparison) -> Cell:
    """Return the cell of a verdict."""
    return Cell(c.verdict, tone=c.direction)


def model_cell(row: Row, name: str = "") -> Cell:
    """Return the cell of a row's name, which is its display name by default, with where its settings are from."""
    return Cell(name or row.display, beside=f"({row.tuning})" if row.tuning else "")
