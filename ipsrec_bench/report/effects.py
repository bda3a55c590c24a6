"""Differences that papers print, and how much of them comes out here."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ipsrec_bench.published.papers import HALF_DIGIT, Paper
from ipsrec_bench.report.comparisons import Pair, compare
from ipsrec_bench.report.content import EffectLine, Row
from ipsrec_bench.report.results import Results
from ipsrec_bench.stats.effect import Estimate
from ipsrec_bench.stats.reproduction import improvement_gap, reproduction

UNIT = 2 * HALF_DIGIT
"""Unit of the last digit of a printed value."""


def effects_of(paper: Paper, results: Results, matched: Mapping[str, Mapping[str, Row]]) -> Iterator[EffectLine]:
    """Yield every difference between a proposed row of the paper and its best baseline that the run has both rows of.

    Those over a value of 0, ours or theirs, are left out.

    Args:
        paper: the paper.
        results: the run's.
        matched: by dataset, our row for each of the paper's.
    """
    printed: dict[tuple[str, str, Row], tuple[float, float]] = {}
    pairs = []
    for dataset, rows in matched.items():
        for metric in results.run.suite.protocol.shown:
            values = {name: value for name in rows if (value := paper.value(dataset, metric, name)) is not None}
            baselines = [name for name in values if name in paper.results.rows and name not in paper.proposed]
            if not baselines:
                continue
            best = max(baselines, key=values.__getitem__)
            for name in (name for name in values if name in paper.proposed):
                pairs.append(Pair(dataset, metric, rows[name], rows[best]))
                printed[dataset, metric, rows[name]] = values[name], values[best]
    for c in compare(results, pairs):
        better, baseline = printed[c.dataset, c.metric, c.row]
        if baseline <= UNIT or c.gain is None:
            continue
        declared = c.method.test if c.method and c.test == "method" else c.by_users
        test = replace(declared, low=c.low, high=c.high)  # the declared interval
        reproduced = reproduction(test, c.reference_mean, (better, baseline), UNIT)
        yield EffectLine(
            c.dataset,
            c.metric,
            c.row,
            c.reference,
            better - baseline,
            Estimate(test.mean, test.low, test.high),
            reproduced.effect_ratio,
            improvement_gap(c.gain, (better, baseline), UNIT),
        )
