"""What tuning studies found, beside what the run says of it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ipsrec_bench.report.comparisons import Pair, compare
from ipsrec_bench.report.content import Comparison, DatasetLine, Row, StudyResult, Tuned
from ipsrec_bench.report.results import Results
from ipsrec_bench.stats.paired import MIN_USERS, MeanTest, paired_t_test
from ipsrec_bench.store.queries import CellSummary


def tuned(
    results: Results,
    summaries: Mapping[str, CellSummary],
    datasets: Iterable[DatasetLine],
    studies: Iterable[StudyResult],
) -> Iterator[Tuned]:
    """Yield the studies of the run's models on the run's data, in the order of the run."""
    studies = list(studies)
    models = dict.fromkeys(row.model for row in results.rows)
    for line in datasets:
        for model in models:
            for study in studies:
                if study.trials and (study.fingerprint, study.model) == (line.statistics.fingerprint, model):
                    gain = _gain(study, results.run.suite.statistics.confidence)
                    yield Tuned(study, gain, _on_fresh_seeds(results, summaries, line.label, study))


def _gain(study: StudyResult, confidence: float) -> MeanTest | None:
    best, default = study.best, study.default_trial
    if best is None or default is None or best == default or len(default.by_seed) < len(study.seeds):
        return None
    differences = np.subtract(best.by_seed, default.by_seed)
    return paired_t_test(differences, confidence) if len(differences) >= MIN_USERS else None


def _on_fresh_seeds(
    results: Results, summaries: Mapping[str, CellSummary], dataset: str, study: StudyResult
) -> Comparison | None:
    """Compare the rows of the run that have the best settings and those before, if no trial had their seeds."""
    if study.best is None or study.best.settings == study.default:
        return None

    def row_with(settings: Mapping[str, Any]) -> Row | None:
        for row in results.rows:
            keys = results.keys.get((dataset, row.label), {})
            if row.model != study.model or not keys or {*keys} & {*study.seeds}:
                continue
            configs = [summaries[key].settings.get("config", {}) for key in keys.values()]  # an import has none
            if all(settings.items() <= config.items() for config in configs):
                return row
        return None

    best, default = row_with(study.best.settings), row_with(study.default)
    if best is None or default is None:
        return None
    return next(iter(compare(results, [Pair(dataset, results.metric, best, default)])), None)
