"""From the store to the content of a report."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.report.content import (
    AblationCell,
    AblationLine,
    AblationTable,
    Comparison,
    CostLine,
    Curves,
    DatasetLine,
    MissingCell,
    Report,
    ResultCell,
    ResultLine,
    ResultTable,
    Row,
    Score,
)
from ipsrec_bench.stats.correction import holm
from ipsrec_bench.stats.paired import PairedComparison, paired_t_test
from ipsrec_bench.store import queries
from ipsrec_bench.store.connect import Connection
from ipsrec_bench.store.queries import CellSummary, Run, TestRanks
from ipsrec_bench.store.records import PlannedCell
from ipsrec_bench.suite.schema import Protocol, Training

SAMPLES = {
    "auto": "packed where the model is causal, else one per prefix",
    "packed": "packed: every position of a window is predicted",
    "prefix": "one per prefix",
}
OPTIMISERS = {"adam": "Adam", "lazy-adam": "lazy Adam: only rows of tables that a batch touched are moved"}
PRECISIONS = {
    "auto": "factors in bfloat16 where the processor is faster with them (see Environments), else float32",
    "float32": "float32",
    "bfloat16": "factors in bfloat16",
}
MIN_USERS = 2
"""A paired test takes two differences."""
FAMILIES = {
    "metric": "the comparisons of one metric on one dataset",
    "dataset": "all comparisons on one dataset",
    "suite": "all comparisons of the suite",
}


def build_report(connection: Connection, run: Run) -> Report:
    """Return the report on `run`."""
    keys = [cell.key for cell in run.cells]
    summaries = queries.cell_summaries(connection, keys)
    results = _Results(run, queries.test_ranks(connection, keys))
    comparisons = _against_baseline(results)
    datasets = _dataset_lines(connection, run, summaries)
    statistics, training = run.suite.statistics, run.suite.training
    return Report(
        suite=run.suite_name,
        title=run.suite.title,
        description=run.suite.description,
        started=run.started,
        cells=len(run.cells),
        missing=tuple(_missing(run, summaries)),
        scale=run.suite.scale,
        left_out=tuple(name for name in run.suite.datasets if name not in results.datasets),
        results=_result_table(results, comparisons),
        comparisons=comparisons,
        ablation=_ablation_table(results),
        datasets=datasets,
        curves=tuple(_curves(connection, run, summaries)),
        costs=tuple(_costs(run, summaries)),
        seeds=len(run.suite.seeds),
        baseline_is_best=statistics.baseline == "best",
        baseline_rule=(
            "the best baseline of each dataset and metric"
            if statistics.baseline == "best"
            else results.row(statistics.baseline).display
        ),
        family_rule=FAMILIES[statistics.family],
        protocol=(
            ("Split", _split(run.suite.protocol)),
            (
                "Candidates",
                "the whole catalogue"
                + (", without the user's history" if run.suite.protocol.mask_history else ", history not masked"),
            ),
            ("Rank", "realistic: higher + 1 + ties / 2, rounded up"),
            ("Filter", "; ".join(f"{line.statistics.filter} on {line.label}" for line in datasets)),
            ("Maximum length", _lengths(summaries, run)),
            ("Metrics", ", ".join(results.metrics)),
            ("Seeds", ", ".join(map(str, run.suite.seeds))),
            ("Samples", SAMPLES[training.samples]),
            ("Objective", _objective(training)),
            ("Batch size", f"{training.batch_size} targets"),
            ("Learning rate", f"{training.learning_rate:g} ({OPTIMISERS[training.optimiser]})"),
            ("Products in training", PRECISIONS[training.precision]),
            (
                "Stopping",
                f"{training.stop_metric} on validation, patience {training.patience}, at most {training.epochs} epochs",
            ),
            ("Test", f"two-sided paired t-test over users, {statistics.correction.title()} correction"),
        ),
        settings=tuple(_settings(summaries, run)),
        environments=tuple(queries.environments(connection, {s.environment for s in summaries.values()}).values()),
        alpha=statistics.alpha,
        confidence=statistics.confidence,
        suite_text=run.text,
        overrides=run.overrides,
    )


def _split(protocol: Protocol) -> str:
    shares = f"{100 * protocol.valid_share:g}% for validation, {100 * protocol.test_share:g}% for the test"
    return {
        "leave-one-out": "leave-one-out: last interaction = test, the one before = validation",
        "temporal": f"temporal: at two times, the same for all users, with the newest interactions held out: {shares}",
        "user-holdout": f"user-holdout: the last interaction of users that training does not see: {shares}",
    }[protocol.split]


def _objective(training: Training) -> str:
    if training.approximation:
        return f"an approximation: {training.approximation} a batch"
    return "cross-entropy over all items"


def row_of(cell: PlannedCell) -> Row:
    """Return the row of the tables that `cell` is one seed of."""
    return Row(cell.label, cell.display, cell.model, cell.variant)


@dataclass(frozen=True)
class _Results:
    """The test ranks of a run, by dataset, row and seed."""

    run: Run
    ranks: dict[str, TestRanks]

    @cached_property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(cell.dataset for cell in self.run.cells))

    @cached_property
    def rows(self) -> list[Row]:
        return list(dict.fromkeys(row_of(cell) for cell in self.run.cells))

    @cached_property
    def metrics(self) -> list[str]:
        protocol = self.run.suite.protocol
        return [f"{name}@{n}" for name in protocol.metrics for n in protocol.cutoffs]

    @cached_property
    def proposed(self) -> frozenset[str]:
        """Labels of the models that are compared with the baseline in the result table."""
        declared = self.run.suite.statistics.proposed
        return frozenset(declared or (cell.model for cell in self.run.cells if cell.type.startswith("ipsrec")))

    @cached_property
    def _keys(self) -> dict[tuple[str, str], dict[int, str]]:
        keys: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
        for cell in self.run.cells:
            if cell.key in self.ranks:
                keys[cell.dataset, cell.label][cell.seed] = cell.key
        return keys

    def row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)

    def seeds(self, dataset: str, row: Row) -> set[int]:
        """Return the seeds of `row` that are complete on `dataset`."""
        return set(self._keys[dataset, row.label])

    def per_user(self, dataset: str, row: Row, seed: int, name: str) -> NDArray[np.float64]:
        return metric(name, self.ranks[self._keys[dataset, row.label][seed]].ranks)

    def score(self, dataset: str, row: Row, name: str) -> Score | None:
        means = [float(self.per_user(dataset, row, seed, name).mean()) for seed in sorted(self.seeds(dataset, row))]
        if not means:
            return None
        deviation = float(np.std(means, ddof=1)) if len(means) > 1 else None
        return Score(float(np.mean(means)), deviation, len(means))

    def baseline(self, dataset: str, name: str) -> Row | None:
        """Return the declared baseline, or the best whole model that is not proposed; None if there is none yet."""
        declared = self.run.suite.statistics.baseline
        if declared != "best":
            return self.row(declared)
        scored = [
            (score.mean, row)
            for row in self.rows
            if row.model not in self.proposed and not row.variant and (score := self.score(dataset, row, name))
        ]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    def compare(self, dataset: str, name: str, row: Row, reference: Row) -> tuple[int, PairedComparison, float] | None:
        """Return the number of common seeds, the test on per-user means over them, and the reference's mean."""
        seeds = sorted(self.seeds(dataset, row) & self.seeds(dataset, reference))
        if not seeds or len(self.per_user(dataset, row, seeds[0], name)) < MIN_USERS:
            return None
        ours, theirs = (
            np.mean([self.per_user(dataset, which, seed, name) for seed in seeds], axis=0) for which in (row, reference)
        )
        test = paired_t_test(ours, theirs, self.run.suite.statistics.confidence)
        return len(seeds), test, float(theirs.mean())


def _corrected(results: _Results, wanted: Iterable[tuple[str, str, Row, Row]]) -> tuple[Comparison, ...]:
    """Make the comparisons `wanted` (dataset, metric, row, reference) and correct them by declared family."""
    statistics = results.run.suite.statistics
    made = [
        (dataset, name, row, reference, *found)
        for dataset, name, row, reference in wanted
        if (found := results.compare(dataset, name, row, reference)) is not None
    ]
    families: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, (dataset, name, *_) in enumerate(made):
        family = {"metric": (dataset, name), "dataset": (dataset,), "suite": ()}[statistics.family]
        families[family].append(index)
    adjusted: dict[int, float] = {}
    for members in families.values():
        adjusted |= dict(zip(members, holm([made[index][5].p for index in members]), strict=True))
    return tuple(
        Comparison(dataset, name, row, reference, seeds, test, mean, adjusted[index], statistics.alpha)
        for index, (dataset, name, row, reference, seeds, test, mean) in enumerate(made)
    )


def _against_baseline(results: _Results) -> tuple[Comparison, ...]:
    return _corrected(
        results,
        (
            (dataset, name, row, baseline)
            for dataset in results.datasets
            for name in results.metrics
            if (baseline := results.baseline(dataset, name)) is not None
            for row in results.rows
            if row != baseline
        ),
    )


def _result_table(results: _Results, comparisons: Sequence[Comparison]) -> ResultTable:
    columns = [row for row in results.rows if not row.variant]
    columns.sort(key=lambda row: row.model in results.proposed)
    found = {(c.dataset, c.metric, c.row.label): c for c in comparisons}
    lines = []
    for dataset in results.datasets:
        for name in results.metrics:
            scores = [results.score(dataset, row, name) for row in columns]
            # Equal as printed is equal: two models at 0.0531 are both best.
            levels = sorted({round(s.mean, 4) for s in scores if s is not None}, reverse=True)
            level = [None if s is None else levels.index(round(s.mean, 4)) for s in scores]
            lines.append(
                ResultLine(
                    dataset,
                    name,
                    tuple(
                        ResultCell(
                            score,
                            best=place == 0,
                            second=place == 1,
                            comparison=(
                                found.get((dataset, name, row.label)) if row.model in results.proposed else None
                            ),
                        )
                        for row, score, place in zip(columns, scores, level, strict=True)
                    ),
                )
            )
    return ResultTable(tuple(columns), results.proposed, tuple(lines))


def _ablation_table(results: _Results) -> AblationTable | None:
    """Return the models that have variants, each followed by them, below the baseline; None without variants."""
    variants = [row for row in results.rows if row.variant]
    if not variants:
        return None
    smallest = min(results.run.suite.protocol.cutoffs)
    columns = [
        (dataset, f"{name}@{smallest}") for dataset in results.datasets for name in results.run.suite.protocol.metrics
    ]
    whole = {row.model: row for row in results.rows if not row.variant}
    found = {
        (c.dataset, c.metric, c.row.label): c
        for c in _corrected(
            results,
            ((dataset, name, row, whole[row.model]) for dataset, name in columns for row in variants),
        )
    }
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


def _missing(run: Run, summaries: dict[str, CellSummary]) -> Iterable[MissingCell]:
    for cell in run.cells:
        summary = summaries.get(cell.key)
        if summary is None or summary.status != "complete":
            error = summary.error.strip().splitlines()[-1] if summary and summary.error else None
            yield MissingCell(cell.dataset, row_of(cell), cell.seed, error)


def _dataset_lines(connection: Connection, run: Run, summaries: dict[str, CellSummary]) -> tuple[DatasetLine, ...]:
    fingerprints = {cell.dataset: summaries[cell.key].fingerprint for cell in run.cells if cell.key in summaries}
    known = queries.datasets(connection, set(fingerprints.values()))
    return tuple(DatasetLine(label, known[fingerprint]) for label, fingerprint in fingerprints.items())


def _curves(connection: Connection, run: Run, summaries: dict[str, CellSummary]) -> Iterable[Curves]:
    points = defaultdict(list)
    for point in queries.learning_curves(connection, [cell.key for cell in run.cells]):
        points[point.key].append(point)
    charts: dict[tuple[str, str], list[PlannedCell]] = defaultdict(list)
    for cell in run.cells:
        if points[cell.key]:  # curves of different metrics do not share an axis
            charts[cell.dataset, str(summaries[cell.key].stop_metric)].append(cell)
    for (dataset, stop_metric), cells in charts.items():
        yield Curves(
            dataset,
            stop_metric,
            tuple((row_of(cell), cell.seed, point) for cell in cells for point in points[cell.key]),
        )


def _costs(run: Run, summaries: dict[str, CellSummary]) -> Iterable[CostLine]:
    groups: dict[tuple[str, Row], list[CellSummary]] = defaultdict(list)
    for cell in run.cells:
        summary = summaries.get(cell.key)
        if summary is not None and summary.status == "complete":
            groups[cell.dataset, row_of(cell)].append(summary)
    for (dataset, row), cells in groups.items():
        yield CostLine(
            dataset,
            row,
            parameters=int(np.mean([cell.parameters or 0 for cell in cells])),
            train_seconds=float(np.mean([cell.train_seconds or 0.0 for cell in cells])),
            seconds=float(np.mean([cell.seconds for cell in cells])),
            peak_memory=max(cell.peak_memory or 0 for cell in cells),
            best_epochs=tuple(cell.best_epoch or 0 for cell in cells),
        )


def _lengths(summaries: dict[str, CellSummary], run: Run) -> str:
    """Return the maximum length that each dataset's cells were run with."""
    lengths = {
        cell.dataset: summaries[cell.key].settings["protocol"]["max_length"]
        for cell in run.cells
        if cell.key in summaries
    }
    return ", ".join(f"{length} on {dataset}" for dataset, length in lengths.items())


def _settings(summaries: dict[str, CellSummary], run: Run) -> Iterable[tuple[Row, str]]:
    """Yield, for every row, the settings of its model, and of its training where they are its own."""
    common = run.suite.training.model_dump(mode="json")
    shown = {}
    for cell in run.cells:
        if cell.key in summaries:
            settings = summaries[cell.key].settings
            own = {k: v for k, v in settings.get("training", {}).items() if v != common[k]}  # nothing for counting
            shown[row_of(cell)] = ", ".join(f"{k} = {v}" for k, v in {**settings["config"], **own}.items())
    yield from shown.items()
