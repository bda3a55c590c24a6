"""Every row on targets that are new to their user and on those that are not, as live-streaming papers show them."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ipsrec_bench.data.target_facts import TargetFacts
from ipsrec_bench.report.content import DatasetLine, NoveltyLine
from ipsrec_bench.report.results import Results


def novelty(
    results: Results, targets: Mapping[str, TargetFacts | None], datasets: Iterable[DatasetLine]
) -> Iterator[NoveltyLine]:
    """Yield the report's metric of every whole row over all targets, over new and over repeated ones.

    Only where `protocol.candidates` is `available`, and the store has the facts about targets.
    """
    if results.run.suite.protocol.candidates == "all":
        return
    for line in datasets:
        facts = targets[line.statistics.fingerprint]
        facts = None if facts is None else facts.of(results.users(line.label))
        if facts is None:
            continue
        known = facts.provider_count >= 0
        members = (np.ones_like(known), known & ~facts.provider_seen, facts.provider_seen, facts.item_seen)
        for row in results.rows:
            if row.whole and results.seeds(line.label, row):
                by_user = results.matrix(line.label, row, results.metric).mean(axis=1)
                means = tuple(float(by_user[some].mean()) if some.any() else None for some in members)
                yield NoveltyLine(line.label, row, tuple(int(some.sum()) for some in members), means)
