"""Builds the content of a report from the store."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ipsrec_bench.data.split import rule_of
from ipsrec_bench.data.split_statistics import unknown_in_words
from ipsrec_bench.models.registry import REGISTRY
from ipsrec_bench.report.across import across_datasets
from ipsrec_bench.report.against import against_papers, places
from ipsrec_bench.report.comparisons import CORRECTIONS, FAMILIES, TESTS, Pair, compare, interval_rule
from ipsrec_bench.report.content import (
    AblationCell,
    AblationLine,
    AblationTable,
    AllPairsTable,
    Comparison,
    CostLine,
    Curves,
    DatasetLine,
    HitCurve,
    MissingCell,
    Report,
    ResultCell,
    ResultLine,
    ResultTable,
    Row,
    SeedScore,
    SettingsLine,
    SliceTable,
    Surface,
    SurfacePoint,
)
from ipsrec_bench.report.controls import compare_controls
from ipsrec_bench.report.declared import (
    ALL_PAIRS,
    ablation_columns,
    against_baseline,
    all_pairs_of,
    findings_of,
    of_ablation,
    with_all_pairs,
)
from ipsrec_bench.report.failures import log_of
from ipsrec_bench.report.fairness import fairness_of
from ipsrec_bench.report.material import Material, training_filter
from ipsrec_bench.report.novelty import novelty
from ipsrec_bench.report.order import order_of, sampled_of
from ipsrec_bench.report.protocols import protocol_table
from ipsrec_bench.report.provenance import (
    cell_lines,
    cut_off_rows,
    left_out,
    not_taken,
    of_other_users,
    too_few_resamples,
    warnings,
)
from ipsrec_bench.report.results import Results, row_of
from ipsrec_bench.report.runs import Run
from ipsrec_bench.report.slices import slice_table, slice_test
from ipsrec_bench.report.sources import source_facts
from ipsrec_bench.report.tuned import studies_of, tuned
from ipsrec_bench.settings import in_words
from ipsrec_bench.store.queries import CellSummary
from ipsrec_bench.store.records import EXTERNAL, PlannedCell, reason_of
from ipsrec_bench.suite.schema import Filter, Protocol, Statistics, Training, control_of
from ipsrec_bench.tuning.results import StudyResult
from ipsrec_bench.words import counted, joined

RANKS = {
    "realistic": "realistic: higher + 1 + ties / 2, rounded up",
    "expected": "every order of the ties is equally likely; a metric is its mean over all orders",
}
SAMPLES = {
    "auto": "packed where the model is causal, else one per prefix",
    "packed": "packed: every position of a window is predicted",
    "prefix": "one per prefix",
}
OPTIMISERS = {"adam": "Adam", "lazy-adam": "lazy Adam: only the table rows that a batch uses are updated"}
PRECISIONS = {
    "auto": "factors in bfloat16 where the processor is faster with them (see Provenance), else float32",
    "float32": "float32",
    "bfloat16": "factors in bfloat16",
}
CURVE_POINTS = 60
"""Cutoffs at which an HR@N curve is drawn, evenly over the logarithm of N."""


def build_report(material: Material, studies: Sequence[StudyResult] = (), unread: Sequence[str] = ()) -> Report:
    """Return the report on a run.

    Args:
        material: what the store has of the run.
        studies: tuning studies, which are not in the store; those of the run's models on its data are shown.
        unread: a sentence for each study that could not be read; the report says that it lacks them.

    """
    run, summaries, environments = material.run, material.summaries, material.environments
    omitted = list(left_out(run, material.bases))
    results = Results(run, material.ranks, summaries, material.valid)
    for cell in results.unpaired():
        omitted.append(of_other_users(cell))
        run = replace(run, cells=tuple(other for other in run.cells if other != cell))
    results = Results(run, results.ranks, summaries, material.valid)
    all_pairs = all_pairs_of(results)
    comparisons = with_all_pairs(against_baseline(results), all_pairs)
    findings = findings_of(results, comparisons)
    controls = compare_controls(results, material.ranks, summaries)
    with_further = replace(run, cells=(*run.cells, *run.further))
    datasets = _dataset_lines(material, run)
    protocols = protocol_table(results)
    own_studies, other_studies = studies_of(results, datasets, studies)
    statistics = run.suite.statistics
    numbers = {name: number for number, name in enumerate(environments, start=1)}
    return Report(
        suite=run.suite_name,
        title=run.suite.title,
        description=run.suite.description,
        started=run.started,
        cells=len({(cell.dataset, cell.label, cell.key) for cell in with_further.cells}),
        missing=tuple(_missing(with_further, summaries)),
        scale=run.suite.scale,
        cut_off=tuple(cut_off_rows(run, summaries)),
        left_out=tuple(name for name in run.suite.datasets if name not in results.datasets),
        metric=results.metric,
        findings=findings,
        across=across_datasets(results, findings),
        results=_result_table(results, comparisons, all_pairs),
        comparisons=comparisons,
        all_pairs=all_pairs,
        controls=controls.comparisons,
        control_gains=controls.gains,
        ablation=_ablation_table(results),
        slices=tuple(_slices(material, results, comparisons, datasets)),
        novelty=tuple(novelty(results, material.targets, datasets)),
        protocols=protocols,
        order=order_of(results, material, protocols),
        sampled=sampled_of(results, material, datasets),
        datasets=datasets,
        curves=tuple(_curves(material, run)),
        hits=tuple(_hit_curves(results, summaries, datasets)),
        seed_scores=tuple(_seed_scores(results)),
        surfaces=tuple(_surfaces(results, summaries)),
        fairness=fairness_of(results, own_studies),
        tuned=tuned(results, own_studies),
        other_studies=tuple(other_studies),
        unread_studies=tuple(unread),
        costs=tuple(_costs(results, summaries)),
        published=tuple(against_papers(results, summaries, datasets)),
        seeds=len(run.suite.seeds),
        split=run.suite.protocol.split_name,
        chosen_on_test=tuple(name for name in results.datasets if results.without_validation(name)),
        baseline_rule=_baseline_rule(results),
        family_rule=FAMILIES[statistics.family],
        test=statistics.test,
        test_rule=TESTS[statistics.test],
        slice_rule=TESTS[slice_test(statistics)],
        correction_rule=CORRECTIONS[statistics.correction],
        interval_rule=interval_rule(statistics),
        protocol=(
            ("Split", rule_of(run.suite.protocol)),
            ("Candidates", _candidates(run.suite.protocol, datasets)),
            ("Rank", RANKS[run.suite.protocol.ties]),
            ("Filter", "; ".join(f"{line.statistics.filter} on {line.label}" for line in datasets)),
            *_training_filters(run, summaries),
            *((f"{line.label}: {name}", value) for line in datasets for name, value in _dataset_facts(line)),
            ("Maximum length", _lengths(summaries, run)),
            ("Metrics", ", ".join(run.suite.protocol.shown)),
            ("Seeds", ", ".join(map(str, run.suite.seeds))),
            *_of_training(results),
            *((("Refit", REFIT_RULE),) if any(one.refit for one in summaries.values()) else ()),
            ("Test", f"{TESTS[statistics.test]}, {_corrected(statistics)}"),
            ("Intervals", f"{100 * statistics.confidence:g}%, {interval_rule(statistics)}"),
        ),
        settings=tuple(_settings(results)),
        provenance=tuple(cell_lines(with_further, summaries, numbers)),
        environments=tuple(environments.values()),
        warnings=(
            *omitted,
            *controls.left_out,
            *(protocols.left_out if protocols else ()),
            *not_taken(run),
            *warnings(with_further, summaries, environments, datasets),
            *too_few_resamples(run, comparisons),
        ),
        notes=tuple(_notes(results, datasets, comparisons)),
        alpha=statistics.alpha,
        confidence=statistics.confidence,
        suite_text=run.text,
        overrides=run.overrides,
    )


REFIT_RULE = (
    "each model that is so marked is trained again, on training and validation interactions, for the number of epochs"
    " that was best; the second model ranks the test targets"
)


def _training_filters(run: Run, summaries: Mapping[str, CellSummary]) -> Iterator[tuple[str, str]]:
    """Yield the row of the filters that apply to the training interactions alone, if there are any."""
    found = {cell.dataset: training_filter(summaries[cell.key]) for cell in run.cells if cell.key in summaries}
    filters = [f"{one} on {label}" for label, one in found.items() if one is not None]
    if filters:
        yield "Filter of training alone", f"{'; '.join(filters)}; all users are tested, after their whole histories"


def _corrected(statistics: Statistics) -> str:
    if statistics.correction == "none":
        return "p-values not corrected"
    of_pairs = " (of all pairs by the paired t-test over users: maxT)" if statistics.family == ALL_PAIRS else ""
    return f"{CORRECTIONS[statistics.correction]} correction{of_pairs}"


def _candidates(protocol: Protocol, datasets: Iterable[DatasetLine]) -> str:
    whole = "the whole catalogue"
    if protocol.candidates == "available":
        whole = (
            "the items that exist at the time of the target (available_from, available_until; else from the first to"
            " the last interaction)"
        )
    if not protocol.mask_history:
        return f"{whole}, history not masked"
    masked = f"{whole}, without the user's history"
    if protocol.mask_history == "miss":
        return f"{masked}; a target in it is a miss"
    counts = []
    for line in datasets:
        parts = [
            f"{users.left_out:,} of {users.users + users.left_out:,} {what} users"
            for what, users in (("test", line.test), ("validation", line.valid))
            if users is not None
        ]
        counts += [f"{line.label}: {', '.join(parts)}"] if parts else []
    return f"{masked}; users with their target in it are left out" + (f" ({'; '.join(counts)})" if counts else "")


def _objective(training: Training) -> str:
    if training.approximation:
        return f"an approximation: {training.approximation}{'' if training.negatives_per == 'target' else ' a batch'}"
    return "cross-entropy over all items"


def _baseline_rule(results: Results) -> str:
    declared = results.run.suite.statistics.baseline
    tuned = any(row.tuned for row in results.rows)
    if declared == "best":
        last = " (tuned rows: the best tuned one)" if tuned else ""
        if all(results.without_validation(dataset) for dataset in results.datasets):
            return "the baseline that is best on the test targets, of each dataset and metric" + last
        return "the baseline that is best on validation, of each dataset and metric" + last
    row = results.row(declared)
    return row.display + (" (tuned rows of other models: its tuned row)" if tuned and not row.tuned else "")


def _notes(results: Results, datasets: Sequence[DatasetLine], comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Yield a sentence for everything that is not compared, is compared otherwise, or cannot differ."""
    few = [dataset for dataset in results.datasets if len(results.users(dataset)) == 1]
    for dataset in few:
        yield f"{dataset} has one test user; a comparison needs two, so nothing is compared there"
    for dataset in results.datasets:
        if results.has_several_targets(dataset):
            yield f"{dataset}: users have several targets, whose mean is a user's metric, so there are no slices"
    if not comparisons and not few:
        yield "Nothing is compared: results of a baseline or of another model are missing, or every model is proposed"
    for dataset in results.datasets:
        if lacking := results.without_validation(dataset):
            yield (
                f"{dataset}: the best baseline is chosen on the test targets, which favours it, because"
                f" {' and '.join(row.display for row in lacking)} {'has' if len(lacking) == 1 else 'have'} no"
                " validation ranks"
            )
    yield from _without_providers(results, datasets)
    yield from _unknown(results, datasets)
    yield from _exhausted(results, datasets)


def _without_providers(results: Results, datasets: Sequence[DatasetLine]) -> Iterator[str]:
    """Yield a sentence for every dataset without a known provider on which a model of the toolkit uses providers."""
    for line in datasets:
        cells = (cell for cell in results.run.cells if cell.dataset == line.label)
        models = {cell.display: None for cell in cells if cell.type in REGISTRY and REGISTRY[cell.type].uses_providers}
        if models and not line.statistics.providers:
            sees = "sees" if len(models) == 1 else "see"
            yield (
                f"{line.label} has no known provider, so {joined([*models])} {sees} one unknown provider for all of its"
                " interactions"
            )


def _unknown(results: Results, datasets: Sequence[DatasetLine]) -> Iterator[str]:
    """Yield a sentence for every dataset with test users of whom models that know users by id have learnt nothing.

    A model that is not part of the toolkit is not known to be one of these.
    """
    for line in datasets:
        cells = (cell for cell in results.run.cells if cell.dataset == line.label)
        models = {cell.display: None for cell in cells if cell.type in REGISTRY and REGISTRY[cell.type].uses_users}
        if models and line.split and line.split.unknown_users:
            yield f"{line.label}: {unknown_in_words(line.split.unknown_users, line.split.test_users, list(models))}"


def _exhausted(results: Results, datasets: Sequence[DatasetLine]) -> Iterator[str]:
    """Yield a sentence for every cutoff that includes all items of a dataset."""
    missed = results.run.suite.protocol.mask_history == "miss"  # misses rank behind all items
    for line in datasets:
        items = line.statistics.items
        for cutoff in results.run.suite.protocol.cutoffs:
            if cutoff < items:
                continue
            of_misses = ""
            if missed:
                of_misses = ", except for misses" if cutoff == items else ", misses included"
            yield (
                f"{line.label} has {items:,} items, so a cutoff of {cutoff:,} includes all of them: HR@{cutoff} is 1"
                f" for every model{of_misses}"
            )


def _result_table(
    results: Results, comparisons: Sequence[Comparison], all_pairs: Sequence[AllPairsTable]
) -> ResultTable:
    columns = [row for row in results.rows if row.whole]
    columns.sort(key=lambda row: row.model in results.proposed)
    found = {(c.dataset, c.metric, c.row.label): c for c in comparisons}
    letters = {
        (table.dataset, table.metric, row): of_row
        for table in all_pairs
        for row, of_row in zip(table.rows, table.letters, strict=True)
    }
    lines = []
    for dataset in results.datasets:
        for name in results.run.suite.protocol.shown:
            scores = [results.score(dataset, row, name) for row in columns]
            level = places(None if score is None else score.mean for score in scores)
            cells = []
            for row, score, place in zip(columns, scores, level, strict=True):
                c = found.get((dataset, name, row.label)) if row.model in results.proposed else None
                cells.append(
                    ResultCell(
                        score,
                        best=place == 0,
                        second=place == 1,
                        gain=c.gain.value if c and c.gain else None,
                        mark=c.mark if c is not None and c.difference > 0 else "",
                        letters=letters.get((dataset, name, row), ""),
                        unequal=c is not None and c.unequal,
                    )
                )
            lines.append(ResultLine(dataset, name, tuple(cells)))
    return ResultTable(tuple(columns), results.proposed, tuple(lines))


def _ablation_table(results: Results) -> AblationTable | None:
    """Return the baseline and each model that has variants, followed by these; None without variants."""
    variants = [row for row in results.rows if row.variant]
    if not variants:
        return None
    columns = ablation_columns(results)
    found = {(c.dataset, c.metric, c.row.label): c for c in of_ablation(results, columns)}
    ablated = {row.model for row in variants}
    baseline = results.baseline(*columns[0])
    shown = [baseline] if baseline is not None and baseline.model not in ablated else []
    shown += [row for row in results.rows if row.model in ablated]
    return AblationTable(
        tuple(columns),
        tuple(
            AblationLine(
                row,
                bool(row.variant),
                tuple(
                    AblationCell(results.score(dataset, row, name), found.get((dataset, name, row.label)))
                    for dataset, name in columns
                ),
            )
            for row in shown
        ),
    )


def _slices(
    material: Material,
    results: Results,
    comparisons: Sequence[Comparison],
    datasets: Iterable[DatasetLine],
) -> Iterator[SliceTable]:
    """Yield the slices of every finding's row and dataset, where the store has the facts that define them."""
    for line in datasets:
        facts = material.targets[line.statistics.fingerprint]
        facts = None if facts is None else facts.of(results.users(line.label))
        if facts is None:
            continue
        for c in findings_of(results, comparisons):
            if c.dataset == line.label:
                yield slice_table(results, facts, c.dataset, c.row, c.reference)


def _hit_curves(
    results: Results, summaries: Mapping[str, CellSummary], datasets: Iterable[DatasetLine]
) -> Iterator[HitCurve]:
    items = {line.label: line.statistics.items for line in datasets}
    for dataset in results.datasets:
        for row in results.rows:
            if not row.whole or not results.seeds(dataset, row):
                continue
            depths = [summaries[key].depth or items[dataset] for key in results.keys[dataset, row.label].values()]
            cutoffs = np.unique(np.geomspace(1, min(depths), CURVE_POINTS).round().astype(int))
            values = results.hit_curve(dataset, row, cutoffs.tolist())
            yield HitCurve(dataset, row, tuple(zip(cutoffs.tolist(), values, strict=True)))


def _seed_scores(results: Results) -> Iterator[SeedScore]:
    for dataset in results.datasets:
        for row in results.rows:
            seeds, values = results.seeds(dataset, row), results.by_seed(dataset, row, results.metric)
            shown = 1 if results.is_deterministic(dataset, row) else len(seeds)
            for seed, value in zip(seeds[:shown], values[:shown], strict=True):
                yield SeedScore(dataset, row, seed, value)


def _surfaces(results: Results, summaries: Mapping[str, CellSummary]) -> Iterator[Surface]:
    """Yield a surface for every model whose rows differ in lambda and tau alone, at several values of both."""
    families: dict[tuple[str, str, str], dict[tuple[float, float], Row]] = defaultdict(dict)
    for cell in results.run.cells:
        if cell.key in results.ranks and {"lambda", "tau"} <= summaries[cell.key].settings["config"].keys():
            settings = dict(summaries[cell.key].settings)
            config = dict(settings.pop("config"))
            place = (float(config.pop("lambda")), float(config.pop("tau")))
            families[cell.dataset, cell.model, repr((settings, config))][place] = row_of(cell)
    for (dataset, model, _), rows in families.items():
        if len(rows) > max(len({place[axis] for place in rows}) for axis in (0, 1)):  # more than a line
            whole = next((row for row in rows.values() if not row.variant), None)
            pairs = [Pair(dataset, results.metric, row, whole) for row in rows.values() if whole and row != whole]
            found = {c.row.label: c for c in compare(results, pairs)}
            points = [
                SurfacePoint(*place, score.mean, found.get(row.label))
                for place, row in sorted(rows.items())
                if (score := results.score(dataset, row, results.metric))
            ]
            yield Surface(dataset, model, results.metric, "test", tuple(points))


def _missing(run: Run, summaries: dict[str, CellSummary]) -> Iterable[MissingCell]:
    once = {(cell.dataset, cell.label, cell.key): cell for cell in reversed(run.cells)}
    for cell in reversed(once.values()):
        summary = summaries.get(cell.key)
        if summary is None or summary.status != "complete":
            missing = MissingCell(cell.dataset, row_of(cell), cell.seed, None)
            if summary is not None and summary.error:
                missing = replace(
                    missing, error=reason_of(summary.error), seconds=summary.seconds, log=log_of(summary.error)
                )
            yield missing


def _dataset_lines(material: Material, run: Run) -> tuple[DatasetLine, ...]:
    summaries, ranked = material.summaries, material.users
    fingerprints = {cell.dataset: summaries[cell.key].fingerprint for cell in run.cells if cell.key in summaries}
    own = [cell for cell in run.cells if cell.type != EXTERNAL]
    users = {cell.dataset: ranked[cell.key] for cell in own if cell.key in ranked}
    lines = []
    for label, fingerprint in fingerprints.items():
        # Another suite may have the same sequences with another filter or sample, which are not shown here.
        made_of = material.recorded.get(label)
        if made_of is not None and made_of.fingerprint == fingerprint:
            said: dict[str, Any] = {"filter": made_of.filter, "scale": made_of.scale, "stand_in": made_of.stand_in}
            source, control = (
                source_facts(made_of, material.datasets[fingerprint].providers),
                control_of(made_of.source),
            )
        else:
            said = {"filter": _said_filter(run, label)}
            source, control = (), ""
        of_label = users.get(label, {})
        lines.append(
            DatasetLine(
                label,
                replace(material.datasets[fingerprint], **said),
                material.splits[fingerprint],
                source,
                test=of_label.get("test"),
                valid=of_label.get("valid"),
                control=control,
            )
        )
    return tuple(lines)


def _said_filter(run: Run, label: str) -> str:
    """Return the filter that the stored suite gives for a dataset; its data may have been made with another one."""
    own = run.suite.datasets.get(label, {}).get("filter")
    wanted = run.suite.protocol.filter if own is None else Filter.model_validate(own)
    return str(wanted) if own is not None or wanted.active else "not recorded"


def _dataset_facts(line: DatasetLine) -> Iterator[tuple[str, str]]:
    yield from line.source
    if line.split is not None:
        s = line.split
        yield "users of the split", f"{s.test_users:,} for the test and {s.valid_users:,} for validation"


def _curves(material: Material, run: Run) -> Iterable[Curves]:
    points = defaultdict(list)
    for point in material.curves:
        points[point.key].append(point)
    charts: dict[tuple[str, str], list[PlannedCell]] = defaultdict(list)
    for cell in run.cells:
        if points[cell.key]:  # curves of different metrics do not share an axis
            charts[cell.dataset, str(material.summaries[cell.key].stop_metric)].append(cell)
    for (dataset, stop_metric), cells in charts.items():
        yield Curves(
            dataset,
            stop_metric,
            tuple((row_of(cell), cell.seed, point) for cell in cells for point in points[cell.key]),
        )


def _costs(results: Results, summaries: Mapping[str, CellSummary]) -> Iterator[CostLine]:
    groups: dict[tuple[str, Row], dict[str, CellSummary]] = defaultdict(dict)
    for cell in results.run.cells:
        if cell.key in results.ranks and cell.type != EXTERNAL:  # the costs of imports are unknown
            groups[cell.dataset, row_of(cell)][cell.key] = summaries[cell.key]
    for (dataset, row), by_key in groups.items():
        cells = list(by_key.values())
        yield CostLine(
            dataset,
            row,
            parameters=int(np.mean([cell.parameters or 0 for cell in cells])),
            train_seconds=float(np.mean([cell.train_seconds or 0.0 for cell in cells])),
            seconds=float(np.mean([cell.seconds for cell in cells])),
            peak_memory=max(cell.peak_memory or 0 for cell in cells),
            best_epochs=tuple(cell.best_epoch or 0 for cell in cells if "training" in cell.settings),
            value=float(np.mean(results.by_seed(dataset, row, results.metric))),
        )


def _lengths(summaries: dict[str, CellSummary], run: Run) -> str:
    """Return the maximum length that each dataset's cells were run with."""
    lengths = {
        cell.dataset: summaries[cell.key].settings["protocol"]["max_length"]
        for cell in run.cells
        if cell.key in summaries and cell.type != EXTERNAL
    }
    return ", ".join(f"{length} on {dataset}" for dataset, length in lengths.items())


def _of_training(results: Results) -> Iterator[tuple[str, str]]:
    """Yield the rows of the protocol on training: the suite's settings, and where models depart from them."""
    training = results.run.suite.training
    trained, departing = _trained(results), _departing(results)

    def span(name: str, spec: str, after: str) -> str:
        found = {one[name] for one in trained if name in one} or {getattr(training, name)}
        low, high = f"{min(found):{spec}}", f"{max(found):{spec}}"
        return f"{low}{after}" if low == high else f"{low} to {high}{after}, as the settings of each model say"

    def unless(said: str, *names: str) -> str:
        return f"{said}; the settings of some models say otherwise" if departing & {*names} else said

    most = counted(training.epochs, "epoch")
    stopping = f"{training.stop_metric} on validation, patience {training.patience}, at most {most}"
    by_objective = ("objective", "negatives", "negatives_per", "calibration")
    yield "Samples", unless(SAMPLES[training.samples], "samples")
    yield "Objective", unless(_objective(training), *by_objective)
    yield "Batch size", span("batch_size", "d", " targets")
    yield "Learning rate", unless(span("learning_rate", "g", f" ({OPTIMISERS[training.optimiser]})"), "optimiser")
    yield "Products in training", unless(PRECISIONS[training.precision], "precision")
    yield "Stopping", unless(stopping, "stop_metric", "patience", "epochs")


def _trained(results: Results) -> list[Mapping[str, Any]]:
    """Return the training settings of every cell that trained."""
    settings = (results.summaries[cell.key].settings for cell in results.run.cells if cell.key in results.summaries)
    return [one["training"] for one in settings if "training" in one]


def _departing(results: Results) -> set[str]:
    """Return the training settings that differ from the suite's in some cell; `auto` includes every value."""
    common = results.run.suite.training.model_dump(mode="json")
    found = {name for one in _trained(results) for name, value in one.items() if value != common.get(name)}
    return {name for name in found if common.get(name) != "auto"}


def _settings(results: Results) -> Iterator[SettingsLine]:
    """Yield every row with its model's settings and the training settings in which some row departs from the suite.

    A row whose settings differ between datasets has a line for each.
    """
    common = results.run.suite.training.model_dump(mode="json")
    departing = _departing(results)
    shown: dict[str, dict[str, tuple[Row, str]]] = defaultdict(dict)
    for cell in results.run.cells:
        if cell.key in results.summaries:
            settings = results.summaries[cell.key].settings
            training = settings.get("training", {})  # counting has none
            own = {k: v for k, v in training.items() if k in departing or v != common.get(k)}
            shown[cell.label][cell.dataset] = row_of(cell), ", ".join(_words({**settings["config"], **own}))
    for label, by_dataset in shown.items():
        if len({words for _, words in by_dataset.values()}) == 1:
            yield SettingsLine(results.row(label), "", next(iter(by_dataset.values()))[1])
        else:
            yield from (SettingsLine(row, dataset, words) for dataset, (row, words) in by_dataset.items())


def _words(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield each setting and its value, and each further task with its own settings."""
    for name, value in settings.items():
        if name == "tasks" and isinstance(value, Mapping):
            yield from (f"task {task} ({in_words(own)})" for task, own in value.items())
        else:
            yield f"{name} = {value}"
