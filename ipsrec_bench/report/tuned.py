"""What tuning studies found, beside what the run says of it."""

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ipsrec_bench.report.comparisons import Pair, compare
from ipsrec_bench.report.content import DatasetLine, Row, Tuned
from ipsrec_bench.report.results import Results
from ipsrec_bench.report.studies import StudyResult
from ipsrec_bench.stats.differences import rounded
from ipsrec_bench.stats.paired import MIN_USERS, MeanTest, paired_t_test
from ipsrec_bench.store.queries import CellSummary


def tuned(
    results: Results,
    summaries: Mapping[str, CellSummary],
    datasets: Iterable[DatasetLine],
    studies: Sequence[StudyResult],
) -> tuple[Tuned, ...]:
    """Return the studies of the run's models on the run's data, in the order of the run."""
    models = dict.fromkeys(row.model for row in results.rows)
    found = [
        (line.label, study)
        for line in datasets
        for model in models
        for study in studies
        if study.trials and (study.fingerprint, study.model) == (line.statistics.fingerprint, model)
    ]
    pairs = [_fresh_rows(results, summaries, dataset, study) for dataset, study in found]
    made = compare(results, dict.fromkeys(pair for pair in pairs if pair is not None))  # one family, equal ones once
    fresh = {(c.dataset, c.row, c.reference): c for c in made}
    confidence = results.run.suite.statistics.confidence
    return tuple(
        Tuned(study, _gain(study, confidence), fresh.get((pair.dataset, pair.row, pair.reference)) if pair else None)
        for (_, study), pair in zip(found, pairs, strict=True)
    )


def _gain(study: StudyResult, confidence: float) -> MeanTest | None:
    best, default = study.best, study.default_trial
    if best is None or default is None or best.settings == study.default or len(default.by_seed) < len(study.seeds):
        return None
    differences = rounded(np.subtract(best.by_seed, default.by_seed))
    return paired_t_test(differences, confidence) if len(differences) >= MIN_USERS else None


def _fresh_rows(
    results: Results, summaries: Mapping[str, CellSummary], dataset: str, study: StudyResult
) -> Pair | None:
    """Return the rows of the run that have the best settings and those before, if no trial had their seeds.

    They are alike in all other settings, of model, training and protocol.
    """
    if study.best is None or study.best.settings == study.default:
        return None
    wanted = [{**study.best.settings}, {**study.default}]
    places: list[dict[str, Row]] = [{}, {}]
    for row in results.rows:
        keys = results.keys.get((dataset, row.label), {})
        if row.model != study.model or not keys or {*keys} & {*study.seeds}:
            continue
        settings = dict(summaries[next(iter(keys.values()))].settings)
        config = dict(settings.pop("config", {}))  # an import has none
        searched = {name: config.pop(name, None) for name in study.default}
        for chosen, rows in zip(wanted, places, strict=True):
            if searched == chosen:
                rows.setdefault(json.dumps([settings, config], sort_keys=True), row)
    best, default = places
    return next(
        (Pair(dataset, results.metric, best[rest], default[rest]) for rest in best if rest in default),
        None,
    )
