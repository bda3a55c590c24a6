"""A study: trials over a model's search ranges, persisted so that it can be taken up again."""

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.errors import BenchError, ModelError, did_you_mean, listed
from ipsrec_bench.events import CellFailed, CellFinished, CellStarted, Emit, RunStarted
from ipsrec_bench.run.plan import catalogue_of, cells_of
from ipsrec_bench.run.worker import Worker, train_cell
from ipsrec_bench.settings import LogRange, Settings
from ipsrec_bench.suite.cells import Cell
from ipsrec_bench.suite.load import adhoc_suite, load_suite

FAILURES_IN_A_ROW = 5
_SUBJECT = ("dataset", "model", "metric", "fingerprint")
"""What a study is of; kept with it."""


@dataclass(frozen=True)
class TrialResult:
    """One complete trial."""

    number: int
    settings: dict[str, float]
    valid: float
    best_epoch: int
    seconds: float


@dataclass(frozen=True)
class StudyResult:
    """The complete trials of a study, best first."""

    name: str
    path: Path
    metric: str
    dataset: str
    model: str
    fingerprint: str
    """Of the dataset."""
    trials: tuple[TrialResult, ...]


def base_cell(suite: Path | None, dataset: str | None, model: str, overrides: Iterable[str], data_dir: Path) -> Cell:
    """Return the cell whose ranged settings are to be tuned: the suite's first seed of `model` on `dataset`.

    Args:
        suite: the suite that gives protocol, training and model settings; None means defaults throughout.
        dataset: a dataset of the suite (its first if None), or of the catalogue where there is no suite.
        model: label of a model of the suite, or a model's name where there is no suite.
        overrides: `key.path=value`.
        data_dir: raw data; a stand-in that the suite asks for is made there.

    Raises:
        BenchError: the suite is wrong, or has no such dataset or model.
    """
    if suite is None:
        if dataset is None:
            raise BenchError("name a dataset with --dataset, or a suite")
        file = adhoc_suite([dataset], [model], overrides)
    else:
        file = load_suite(suite, overrides)
    catalogue_of(file, data_dir).provide(dataset or next(iter(file.suite.datasets)))
    cells = [cell for cell in cells_of(file, data_dir) if not cell.variant]
    for what, wanted, known in (
        ("dataset", dataset, {cell.dataset for cell in cells}),
        ("model", model, {cell.model for cell in cells}),
    ):
        if wanted is not None and wanted not in known:
            raise BenchError(
                f"{file.path}: the suite has no {what} '{wanted}'"
                f"{did_you_mean(wanted, known) or f'; it has {listed(sorted(known))}'}"
            )
    return next(cell for cell in cells if cell.model == model and dataset in (None, cell.dataset))


def search_ranges(config: type[Settings]) -> dict[str, LogRange]:
    """Return the search range of every setting that has one, by the setting's name in a suite."""
    return {
        field.alias or name: metadata
        for name, field in config.model_fields.items()
        for metadata in field.metadata
        if isinstance(metadata, LogRange)
    }


def open_study(cell: Cell, fingerprint: str, folder: Path) -> tuple[optuna.Study, Path]:
    """Open, or begin, the study of `cell`'s search ranges; equal cells, whatever the ranged settings, share it.

    Trials are kept in a journal file in `folder`.
    """
    fixed = cell.settings()
    fixed["config"] = {k: v for k, v in fixed["config"].items() if k not in search_ranges(type(cell.config))}
    content = json.dumps([fingerprint, cell.seed, fixed], sort_keys=True)
    name = f"{cell.dataset}-{cell.model}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.journal"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name=name, storage=_storage(path), direction="maximize", load_if_exists=True)
    for key, value in zip(_SUBJECT, (cell.dataset, cell.model, cell.training.stop_metric, fingerprint), strict=True):
        if study.user_attrs.get(key) != value:
            study.set_user_attr(key, value)
    return study, path


def studies_in(folder: Path) -> list[StudyResult]:
    """Return the studies whose journals lie in `folder`, by name; files that are none are passed over."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = []
    for path in sorted(folder.glob("*.journal")):
        try:
            study = optuna.load_study(study_name=path.stem, storage=_storage(path))
        except (KeyError, ValueError, TypeError):  # what Optuna says of a journal that is none, or of another name
            continue
        if all(key in study.user_attrs for key in _SUBJECT):  # the first journals did not say
            found.append(study_result(study, path, study.user_attrs["metric"]))
    return found


def _storage(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def tune(
    cell: Cell, data: PreparedDataset, worker: Worker, trials: int, folder: Path, emit: Emit
) -> StudyResult | None:
    """Search `cell`'s ranges until the study has `trials` complete trials; only validation targets are ranked.

    The first trial takes the cell's own settings if they are in range, the others are chosen by TPE, seeded by the
    cell's seed and the number of trials before them. A trial whose training fails is marked so and passed over.

    Returns:
        The study, or None if it was interrupted (Ctrl-C).

    Raises:
        ModelError: the model has nothing to search, or several trials in a row failed.
    """
    ranges = search_ranges(type(cell.config))
    if not ranges:
        raise ModelError(f"the model '{cell.type}' has no setting with a search range, so there is nothing to tune")
    study, path = open_study(cell, data.fingerprint, folder)
    study.sampler = optuna.samplers.TPESampler(seed=cell.seed + len(study.trials))
    if not study.trials:
        own = cell.config.model_dump(by_alias=True)
        if all(span.low <= own[name] <= span.high for name, span in ranges.items()):
            study.enqueue_trial({name: own[name] for name in ranges})

    emit(RunStarted(study.study_name, f"Tuning {cell.model} on {cell.dataset}", trials, len(_complete(study))))
    failures = 0
    with TemporaryDirectory() as scratch:  # a trial's weights are not kept
        place = replace(worker, checkpoints=Path(scratch))

        def objective(trial: optuna.Trial) -> float:
            chosen = {name: trial.suggest_float(name, span.low, span.high, log=True) for name, span in ranges.items()}
            return _run_trial(trial, chosen, cell, data, place, emit)

        try:
            while (before := len(_complete(study))) < trials:
                study.optimize(objective, n_trials=1, catch=(ModelError,))
                failures = 0 if len(_complete(study)) > before else failures + 1
                if failures == FAILURES_IN_A_ROW:
                    raise ModelError(f"{failures} trials in a row failed; try other training settings")
        except KeyboardInterrupt:
            return None
    return study_result(study, path, cell.training.stop_metric)


def study_result(study: optuna.Study, path: Path, metric: str) -> StudyResult:
    """Return the complete trials, best first."""
    results = [
        TrialResult(
            trial.number,
            dict(trial.params),
            float(trial.value or 0.0),
            trial.user_attrs["best_epoch"],
            trial.duration.total_seconds() if trial.duration else 0.0,
        )
        for trial in _complete(study)
    ]
    results.sort(key=lambda result: -result.valid)
    dataset, model, _, fingerprint = (study.user_attrs[key] for key in _SUBJECT)
    return StudyResult(study.study_name, path, metric, dataset, model, fingerprint, tuple(results))


def _run_trial(
    trial: optuna.Trial,
    chosen: dict[str, float],
    cell: Cell,
    data: PreparedDataset,
    worker: Worker,
    emit: Emit,
) -> float:
    settings: dict[str, Any] = cell.config.model_dump(by_alias=True) | chosen
    variant = ", ".join(f"{name} = {value:.3g}" for name, value in chosen.items())
    tried = replace(cell, config=type(cell.config).model_validate(settings), variant=f"({variant})")
    key = tried.key(data.fingerprint)
    name = (key, tried.dataset, tried.shown, tried.seed)
    emit(CellStarted(*name, tried.training.epochs, tried.training.stop_metric))
    began = time.perf_counter()
    try:
        fitted = train_cell(key, tried, data, worker, emit).fitted
    except ModelError as error:
        emit(CellFailed(*name, str(error), time.perf_counter() - began))
        raise
    trial.set_user_attr("best_epoch", fitted.best_epoch)
    seconds = time.perf_counter() - began
    emit(
        CellFinished(*name, {f"validation {tried.training.stop_metric}": fitted.best_valid}, fitted.best_epoch, seconds)
    )
    return fitted.best_valid


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
