"""What comparisons say, in sentences."""

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
    return "–" if estimate is None else f"{percent(estimate.low)} to {percent(estimate.high)}"


def finding(c: Comparison, confidence: float) -> str:
    """Return what a comparison says: which is better, by how much, how sure, of the trained models and the methods."""
    metric, test = c.metric.upper(), f"adjusted p {_equals(c.adjusted_p)}"
    values = f"{metric} {c.mean:.4f} against {c.reference_mean:.4f}"
    if c.gain is not None:
        values += f", {percent(c.gain.value)} ({100 * confidence:g}% interval {span(c.gain)})"
    if c.adjusted_p is None:
        verdict = f"{c.row.display} against {c.reference.display} on {c.dataset}: the declared test takes two seeds"
        test = "no p-value"
    elif c.significant:
        verdict = f"{c.row.display} is {c.verdict} than {c.reference.display} on {c.dataset}"
    elif c.verdict == "equivalent":
        assert c.equivalence is not None
        margin = f"±{c.equivalence.margin:.4f}"
        verdict = f"{c.row.display} and {c.reference.display} are equivalent on {c.dataset}, within {margin}"
        test = f"p {_equals(c.equivalence.p)} (TOST)"
    else:
        verdict = f"No difference between {c.row.display} and {c.reference.display} is shown on {c.dataset}"
        test += f"; a difference of {c.detectable:.4f} would have been found with a power of 80%"
    return f"{verdict}: {values}; {test}. {_of_method(c)}"


def _of_method(c: Comparison) -> str:
    if c.crossed is None:
        return "One training each: of the methods, whatever the seed, it says nothing."
    p = f"p {_equals(c.crossed.test.p)} over {c.seeds} seeds and {c.users:,} users"
    return {
        "better": f"As a method, whichever seed trains it, it is better, too: {p}.",
        "worse": f"As a method, whichever seed trains it, it is worse, too: {p}.",
        "undecided": f"That the method is different, whichever seed trains it, is not shown: {p}.",
    }[c.of_method]


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
    return " ".join(parts)


def _equals(p: float | None) -> str:
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"
