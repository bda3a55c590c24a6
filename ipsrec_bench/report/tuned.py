"""Results of tuning studies, and their tests on the run's test ranks."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ipsrec_bench.report.comparisons import Pair, compare, possible
from ipsrec_bench.report.content import DatasetLine, Row, Tuned
from ipsrec_bench.report.results import Results
from ipsrec_bench.stats.differences import rounded
from ipsrec_bench.stats.paired import MIN_USERS, MeanTest, paired_t_test
from ipsrec_bench.store.records import PlannedCell
from ipsrec_bench.tuning.results import StudyResult, split_settings


def studies_of(
    results: Results, datasets: Iterable[DatasetLine], studies: Sequence[StudyResult]
) -> tuple[list[tuple[str, StudyResult]], list[str]]:
    """Return the studies of the run's models on the run's data, in the order of the run, each with its dataset.

    A study that was made under other settings than any row of its model is left out; a sentence names it instead. The
    studies of the run's further protocols and test periods are left out, too; a sentence counts them.
    """
    own, others = [], []
    main, further = ([*_places(cells)] for cells in (results.run.cells, results.run.further))
    elsewhere = {place for place in further if place not in main}
    fingerprints = {one.fingerprint for one in results.summaries.values()}
    searched = [one for one in studies if one.trials]
    of_further = [one for one in searched if one.fingerprint in fingerprints and (one.dataset, one.model) in elsewhere]
    studies = [one for one in searched if (one.dataset, one.model) not in elsewhere]
    for line in datasets:
        for model in dict.fromkeys(name for row in results.rows for name in (row.model, row.label)):
            for study in studies:
                if (study.fingerprint, study.model) != (line.statistics.fingerprint, model):
                    continue
                rows = [
                    split_settings(settings, study.default)[0] for settings in _settings_of(results, line.label, model)
                ]
                if study.fixed is None or not rows or any(study.fixed == fixed for fixed in rows):
                    own.append((line.label, study))
                else:
                    others.append(
                        f"study {study.name} of {model} on {line.label} was made under other settings"
                        f" ({'; '.join(_differences(study.fixed, rows[0]))})"
                    )
    if of_further:
        others.append(
            "one further search, which is of another protocol of this suite"
            if len(of_further) == 1
            else f"{len(of_further)} further searches, which are of other protocols of this suite"
        )
    return own, others


def _places(cells: Iterable[PlannedCell]) -> Iterator[tuple[str, str]]:
    """Yield the dataset and the model, or the label, that a study of each cell would name."""
    for cell in cells:
        yield from ((cell.dataset, name) for name in (cell.model, cell.label))


def tuned(results: Results, studies: Sequence[tuple[str, StudyResult]]) -> tuple[Tuned, ...]:
    """Return each study with its gain and, if the run has both rows, their comparison on test ranks."""
    found = [_fresh_rows(results, dataset, study) for dataset, study in studies]
    pairs = [pair for pair, _ in found]
    made = compare(results, dict.fromkeys(pair for pair in pairs if pair is not None))  # one family, equal ones once
    fresh = {(c.dataset, c.row, c.reference): c for c in made}
    confidence = results.run.suite.statistics.confidence
    return tuple(
        Tuned(
            study,
            _gain(study, confidence),
            fresh.get((pair.dataset, pair.row, pair.reference)) if pair else None,
            trained,
        )
        for (_, study), (pair, trained) in zip(studies, found, strict=True)
    )


def _gain(study: StudyResult, confidence: float) -> MeanTest | None:
    best, default = study.best, study.default_trial
    if best is None or default is None or best.settings == study.default or len(default.by_seed) < len(study.seeds):
        return None
    differences = rounded(np.subtract(best.by_seed, default.by_seed))
    test = paired_t_test(differences, confidence) if len(differences) >= MIN_USERS else None
    return None if test is None or test.standard_error == 0 else possible(test)


def _settings_of(results: Results, dataset: str, model: str) -> Iterator[Mapping[str, Any]]:
    """Yield the settings of every row that has a complete cell: that of a label, or those of a model."""
    for row in results.rows:
        keys = results.keys.get((dataset, row.label), {})
        if model in {row.model, row.label} and keys:
            yield results.summaries[next(iter(keys.values()))].settings


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    for part in dict.fromkeys([*theirs, *ours]):
        there, here = theirs.get(part), ours.get(part)
        if isinstance(there, Mapping) and isinstance(here, Mapping):
            yield from _differences(there, here)
        elif there != here:
            yield f"{part}: {_shown(there)} there, {_shown(here)} here"


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)


def _fresh_rows(results: Results, dataset: str, study: StudyResult) -> tuple[Pair | None, bool]:
    """Return the rows of the run that have the best settings and those before, if no trial had their seeds.

    All other settings, of model, training and protocol, are equal. The second value is whether there is a row with the
    best settings at all.
    """
    if study.best is None or study.best.settings == study.default:
        return None, False
    wanted = [{**study.best.settings}, {**study.default}]
    places: list[dict[str, Row]] = [{}, {}]
    for row in results.rows:
        keys = results.keys.get((dataset, row.label), {})
        if study.model not in {row.model, row.label} or not keys or {*keys} & {*study.seeds}:
            continue
        fixed, searched = split_settings(results.summaries[next(iter(keys.values()))].settings, study.default)
        for chosen, rows in zip(wanted, places, strict=True):
            if searched == chosen:
                rows.setdefault(json.dumps(fixed, sort_keys=True), row)
    best, default = places
    pairs = (Pair(dataset, results.metric, best[rest], default[rest]) for rest in best if rest in default)
    return next(pairs, None), bool(best)
