"""What comparisons say, in sentences."""

import math

from ipsrec_bench.report.content import Comparison, SliceTable
from ipsrec_bench.stats.effect import Estimate

SMALLEST_P = 1e-4
LISTED = 4
"""Slices that are named rather than counted."""


def p_value(value: float | None) -> str:
    """Return a p-value with its sign of comparison, or a dash where there is none."""
    if value is None:
        return "–"
    return "< 0.0001" if value < SMALLEST_P else f"{value:.4f}"


def percent(value: float | None) -> str:
    """Return a relative difference with its sign."""
    return "–" if value is None else f"{100 * value:+.1f}%"


def signed(value: float) -> str:
    """Return a difference of a metric with its sign."""
    return f"{value:+.4f}"


def span(estimate: Estimate | None) -> str:
    """Return the interval of a relative difference."""
    if estimate is None:
        return "–"
    if math.isinf(estimate.low):
        return "unbounded"
    return f"{percent(estimate.low)} to {percent(estimate.high)}"


def finding(c: Comparison, confidence: float) -> str:
    """Return what a comparison says: which is better, by how much, how sure, of the trained models and the methods."""
    values = (
        f"{c.metric.upper()} {c.mean:.4f} against {c.reference_mean:.4f}, {signed(c.difference)}"
        f" ({100 * confidence:g}% interval {signed(c.low)} to {signed(c.high)})"
    )
    if c.gain is not None:
        values += f" or {percent(c.gain.value)}"
    test = f"adjusted p {_equals(c.adjusted_p)}"
    if c.adjusted_p is None:
        verdict = f"{c.row.display} against {c.reference.display} on {c.dataset}: the declared test takes three seeds"
        test = "no p-value"
    elif c.significant:
        verdict = f"{c.row.display} is {c.verdict} than {c.reference.display} on {c.dataset}"
    elif c.verdict == "equivalent":
        assert c.margin is not None
        margin = f"±{100 * c.margin:g}%"
        verdict = f"{c.row.display} and {c.reference.display} are equivalent on {c.dataset}, within {margin}"
        test = f"adjusted p {_equals(c.equivalence_p)} (two one-sided tests)"
    else:
        verdict = f"No difference between {c.row.display} and {c.reference.display} is shown on {c.dataset}"
        test += f"; a t-test would have found {c.detectable:.4f} with a power of 80%"
    return f"{verdict}: {values}; {test}. {_of_method(c)}"


def _of_method(c: Comparison) -> str:
    if c.crossed is None:
        trainings = "One training each says" if c.seeds == 1 else f"{c.seeds} trainings each say"
        return f"{trainings} nothing of the methods, whatever the seed."
    p = f"p {_equals(c.crossed.test.p)}, uncorrected, over {c.seeds} seeds and {c.users:,} users"
    if c.of_method == "undecided":
        return f"That the methods differ, whichever seed trains them, is not shown: {p}."
    too = ", too" if c.of_method == c.verdict else ""
    return f"As a method, whichever seed trains it, it is {c.of_method}{too}: {p}."


def where(table: SliceTable) -> str:
    """Return where, among the slices, a row is better, worse, and neither; a long list is told by what is not in it."""
    groups = {
        "Better": table.named("better"),
        "Worse": table.named("worse"),
        "Not shown to differ": table.named("undecided"),
        "Equivalent": table.named("equivalent"),
    }
    most = max(groups.values(), key=len)
    parts = []
    for word, names in groups.items():
        if names is most and len(names) > LISTED:
            parts.append(f"{word} in {len(names)} of {len(table.slices)} slices.")
        elif names:
            parts.append(f"{word}: {'; '.join(names)}.")
    if table.too_small:
        parts.append(f"Too few users to compare: {'; '.join(table.too_small)}.")
    return " ".join(parts)


def _equals(p: float | None) -> str:
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"
