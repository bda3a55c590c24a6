"""Comparisons of two rows as plain tables, which the command line and the browser share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from ipsrec_bench.report.comparisons import CORRECTIONS, FAMILIES, TESTS, corrected_over, interval_rule
from ipsrec_bench.report.content import Comparison
from ipsrec_bench.report.sentences import (
    effect,
    finding,
    needed,
    p_value,
    percent,
    probabilities,
    signed,
    trainings,
)
from ipsrec_bench.suite.schema import Statistics

OF_SEEDS = ("seeds needed", "next training wins")
"""Lines that are left out where nothing is known of seeds."""


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
            tuple(
                (name, *values)
                for name, of in _lines(first, statistics)
                if (values := [of(c) for c in group]) and (name not in OF_SEEDS or {*values} != {"–"})
            ),
        )


def verdict_rule(statistics: Statistics) -> str:
    """Return the rules for verdicts and intervals, in one sentence each."""
    corrected = corrected_over(CORRECTIONS[statistics.correction], FAMILIES[statistics.family])
    corrected += "" if statistics.correction == "none" else ", if the report of the suite makes this comparison"
    return (
        f"Verdict: {TESTS[statistics.test]}; {corrected}; alpha {statistics.alpha:g}."
        f" Intervals of the difference: {interval_rule(statistics)}."
    )


def _seeds(comparison: Comparison) -> str:
    return "both deterministic" if comparison.without_seeds else trainings(comparison)


def _lines(first: Comparison, statistics: Statistics) -> list[tuple[str, Callable[[Comparison], str]]]:
    """Return the table's lines: a name, and a function that formats a value of a comparison."""
    interval = f"{100 * statistics.confidence:g}%"
    lines: list[tuple[str, Callable[[Comparison], str]]] = [
        (first.row.named, lambda c: f"{c.mean:.4f}"),
        (first.reference.named, lambda c: f"{c.reference_mean:.4f}"),
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
        ("p, method", lambda c: p_value(c.method.test.p if c.method else None)),
        (_corrected(first), lambda c: p_value(c.adjusted_p)),
        ("detectable at 80%", lambda c: "–" if c.detectable is None else f"{c.detectable:.4f}"),
        (OF_SEEDS[0], needed),
        (OF_SEEDS[1], lambda c: _probability(c.next_training.probability if c.next_training else None)),
        ("user is better served", lambda c: _probability(c.superiority)),
    ]
    if first.margin:
        within = f"{100 * first.margin:g}%"
        lines.append((f"p, equivalent within {within}", lambda c: p_value(c.equivalence_p)))
        lines.append(("probability worse / same / better", probabilities))
    return [*lines, ("verdict", lambda c: c.verdict)]


def _corrected(c: Comparison) -> str:
    return "p, one pair, not corrected" if c.family == 1 else f"adjusted p, of {c.family} comparisons"


def _probability(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _if_finite(value: float, shown: Callable[[float], str]) -> str:
    return shown(value) if isfinite(value) else "–"
