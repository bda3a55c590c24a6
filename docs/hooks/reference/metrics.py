"""Reference of metrics and of the statistics that compare them."""

from collections.abc import Callable, Iterator
from typing import Any, get_args

import numpy as np

from ipsrec_bench.ranking import metrics
from ipsrec_bench.stats import (
    all_pairs,
    correction,
    effect,
    equivalence,
    method,
    paired,
    power,
    practical,
    reproduction,
    resampling,
)
from ipsrec_bench.suite.schema import Metric, Statistics
from reference.markdown import code, description, table
from reference.settings import docstring

TESTS: dict[str, Callable[..., Any]] = {
    "paired-t": paired.paired_t_test,
    "method": method.method_test,
    "randomisation": resampling.sign_flip_p,
    "wilcoxon": paired.wilcoxon_p,
}
"""Functions that compute the p-values for each value of `statistics.test`."""
ESTIMATES: dict[str, Callable[..., Any]] = {
    "Bootstrap interval": resampling.bootstrap_intervals,
    "Effect size": effect.effect_size,
    "Relative gain": effect.relative_gain,
    "Probability that a user is better served": effect.superiority,
    "Detectable difference": power.detectable_difference,
    "Seeds needed": power.seeds_needed,
    "Equivalence": equivalence.equivalence_p,
    "Equivalence of methods": equivalence.method_equivalence_p,
    "Probability that a difference matters": practical.practical,
    "Correction for multiple comparisons": correction.adjust,
    "All pairs": all_pairs.max_t,
    "Letters": all_pairs.letters,
    "Prediction of one more training": effect.next_training,
    "One more training of each": effect.next_training_beats,
    "Reproduction of a published improvement": reproduction.reproduction,
}
"""Functions behind the other statistics of a comparison in reports."""
NAMES = get_args(Metric)
CUTOFF = 10
RANKS = (1, 2, 3, 4, 5, 10, 11)
"""Ranks whose gains the page shows, the last one beyond the cutoff."""
_INTRODUCTION = """\
# Metrics and tests

Ranks are the only result that the store keeps, so every metric at every cutoff can be computed later, without another
training. This page is generated from the functions that compute metrics and statistics.
[Statistics](../explanation/statistics.md) explains, with numbers, when to use which test.
"""
_ELSEWHERE = """\
`protocol.metrics` and `protocol.cutoffs` of a suite choose what tables show, see [`[protocol]`](suite.md#protocol). In
SQL, the macros [`hr`](store.md#hr), [`mrr`](store.md#mrr) and [`ndcg`](store.md#ndcg) compute the same, and
[`expected_hr`](store.md#expected_hr) and so on what `protocol.ties = "expected"` shows."""


def page() -> str:
    """Return the page."""
    return "\n\n".join(
        [
            _INTRODUCTION,
            "## Metrics {#metrics}",
            description(metrics),
            f"The gain of one user at cutoff {CUTOFF}, by rank:",
            table(("Rank", *(code(f"{name}@{CUTOFF}") for name in NAMES)), _gains()),
            _ELSEWHERE,
            "## Tests {#tests}",
            f"[`statistics.test`](suite.md#statistics.test): {docstring(Statistics, 'test')}",
            *_tests(),
            "## Further statistics {#further}",
            *(part for name, function in ESTIMATES.items() for part in (f"### {name}", *_described(function))),
        ]
    )


def _gains() -> Iterator[list[str]]:
    columns = [metrics.metric(f"{name}@{CUTOFF}", np.array(RANKS)) for name in NAMES]
    for rank, *values in zip(RANKS, *columns, strict=True):
        yield [str(rank), *(f"{value:.4g}" for value in values)]


def _tests() -> Iterator[str]:
    """Yield the section of every test that a suite may choose."""
    for name in get_args(Statistics.model_fields["test"].annotation):
        yield f"### {code(name)} {{#test-{name}}}"
        if name == "auto":
            yield "`method` where each row has three seeds or more, or is deterministic; `paired-t` elsewhere."
        else:
            yield from _described(TESTS[name])


def _described(function: Callable[..., Any]) -> Iterator[str]:
    name = f"{function.__module__}.{function.__name__}"
    yield description(function)
    yield f"Computed by [`{function.__name__}`](python.md#{name})."
