"""Differences that papers print, and how much of them comes out here."""

from collections.abc import Iterator, Mapping

from ipsrec_bench.published.papers import HALF_DIGIT, Paper
from ipsrec_bench.report.comparisons import Pair, compare
from ipsrec_bench.report.content import EffectLine, Row
from ipsrec_bench.report.results import Results
from ipsrec_bench.stats.effect import Estimate
from ipsrec_bench.stats.reproduction import effect_ratio, improvement_gap


def effects_of(paper: Paper, results: Results, matched: Mapping[str, Mapping[str, Row]]) -> Iterator[EffectLine]:
    """Yield every difference between a proposed row of the paper and its best baseline that the run has both rows of.

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
        ours = Estimate(c.difference, c.low, c.high)
        known = c.gain is not None and baseline > HALF_DIGIT
        yield EffectLine(
            c.dataset,
            c.metric,
            c.row,
            c.reference,
            better - baseline,
            ours,
            effect_ratio(ours, better - baseline, HALF_DIGIT),
            improvement_gap(c.gain, better, baseline, HALF_DIGIT) if c.gain and known else None,
        )
