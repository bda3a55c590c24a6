"""Comparisons of two rows as plain tables, which the command line and the browser share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from ipsrec_bench.report.comparisons import CORRECTIONS, FAMILIES, TESTS, interval_rule
from ipsrec_bench.report.content import Comparison
from ipsrec_bench.report.sentences import effect, finding, p_value, percent, signed
from ipsrec_bench.suite.schema import Statistics


@dataclass(frozen=True)
class ComparedPair:
    """Two rows on one dataset: a sentence, and a table with a column per metric."""

    finding: str
    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def compared_pairs(made: Sequence[Comparison], statistics: Statistics) -> Iterator[ComparedPair]:
    """Yield one table for each pair of rows and dataset in `made`, in their order."""
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for c in made:
        groups.setdefault((c.dataset, c.row.label, c.reference.label), []).append(c)
    for group in groups.values():
        first = group[0]
        headline = next((c for c in group if c.metric == statistics.metric), group[-1])
        yield ComparedPair(
            finding(headline, statistics.confidence),
            f"{first.dataset}: {first.users:,} users, {_seeds(first)}",
            ("", *(c.metric.upper() for c in group)),
            tuple((name, *(of(c) for c in group)) for name, of in _lines(first, statistics)),
        )


def verdict_rule(statistics: Statistics) -> str:
    """Return the rules for verdicts and intervals, in one sentence each."""
    return (
        f"Verdict: {TESTS[statistics.test]}; {CORRECTIONS[statistics.correction]} over {FAMILIES[statistics.family]};"
        f" alpha {statistics.alpha:g}. Intervals of the difference: {interval_rule(statistics)}."
    )


def _seeds(comparison: Comparison) -> str:
    if comparison.without_seeds:
        return "both deterministic"
    return f"{comparison.seeds} {'seed' if comparison.seeds == 1 else 'seeds'} in common"


def _lines(first: Comparison, statistics: Statistics) -> list[tuple[str, Callable[[Comparison], str]]]:
    """Return the table's lines: a name, and a function that formats a value of a comparison."""
    interval = f"{100 * statistics.confidence:g}%"
    lines: list[tuple[str, Callable[[Comparison], str]]] = [
        (first.row.display, lambda c: f"{c.mean:.4f}"),
        (first.reference.display, lambda c: f"{c.reference_mean:.4f}"),
        ("difference", lambda c: signed(c.difference)),
        (f"  {interval} from", lambda c: _if_finite(c.low, signed)),
        ("  to", lambda c: _if_finite(c.high, signed)),
        ("gain", lambda c: percent(c.gain.value if c.gain else None)),
        (f"  {interval} from", lambda c: percent(c.gain.low if c.gain and isfinite(c.gain.low) else None)),
        ("  to", lambda c: percent(c.gain.high if c.gain and isfinite(c.gain.high) else None)),
        ("effect size d_z", lambda c: effect(c.effect.value)),
        (f"  {interval} from", lambda c: effect(c.effect.low)),
        ("  to", lambda c: effect(c.effect.high)),
        ("users who win", lambda c: f"{c.counts.wins:,}"),
        ("  tie", lambda c: f"{c.counts.ties:,}"),
        ("  lose", lambda c: f"{c.counts.losses:,}"),
        ("p, users", lambda c: p_value(c.by_users.p)),
        ("p, users x seeds", lambda c: p_value(c.crossed.test.p if c.crossed else None)),
        ("adjusted p", lambda c: p_value(c.adjusted_p)),
        ("detectable at 80%", lambda c: "–" if c.detectable is None else f"{c.detectable:.4f}"),
    ]
    if first.margin:
        lines.append((f"p, equivalent within {100 * first.margin:g}%", lambda c: p_value(c.equivalence_p)))
    return [*lines, ("verdict", lambda c: c.verdict)]


def _if_finite(value: float, shown: Callable[[float], str]) -> str:
    return shown(value) if isfinite(value) else "–"
