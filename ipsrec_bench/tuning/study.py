"""Studies: their names, storages, samplers and pruners, and what they found."""

import hashlib
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from ipsrec_bench.errors import BenchError
from ipsrec_bench.suite.cells import Cell
from ipsrec_bench.suite.schema import Range, Tune
from ipsrec_bench.tuning.space import Space

HEARTBEAT_SECONDS = 30
"""In a database, after four missed beats a trial counts as killed, wherever it ran."""
RETRIES = 3
"""How often settings are tried again whose trial was killed; those that kill every process are left at that."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
_SUBJECT = ("dataset", "model", "metric", "fingerprint", "seeds", "sampler", "pruner", "default")
"""What a study is of; kept with it."""


@dataclass(frozen=True)
class TrialResult:
    """One ended trial."""

    number: int
    settings: Mapping[str, Any]
    value: float
    """Mean over seeds of the best validation metric; of a pruned trial, what it had reached."""
    pruned: bool
    by_seed: tuple[float, ...]
    """Best validation metric of every seed that was trained to its end."""
    epochs: int
    """Trained, over all seeds."""
    seconds: float


@dataclass(frozen=True)
class StudyResult:
    """What a study found and what it took; trials in the order of their numbers."""

    name: str
    place: str
    """Its storage."""
    dataset: str
    model: str
    metric: str
    fingerprint: str
    """Of the dataset."""
    seeds: tuple[int, ...]
    sampler: str
    pruner: str
    default: Mapping[str, Any]
    """The settings that were there before."""
    trials: tuple[TrialResult, ...]
    failed: int
    """Trials that ended in an error or were killed."""

    @property
    def complete(self) -> tuple[TrialResult, ...]:
        """Trials that were trained to their end, best first."""
        return tuple(sorted((t for t in self.trials if not t.pruned), key=lambda t: -t.value))

    @property
    def best(self) -> TrialResult | None:
        """The best trial."""
        return next(iter(self.complete), None)

    @property
    def default_trial(self) -> TrialResult | None:
        """The trial of the settings that were there before."""
        return next((t for t in self.trials if t.settings == self.default), None)


def study_name(cell: Cell, fingerprint: str, space: Space, tune: Tune) -> str:
    """Return the study's name: equal if data, fixed settings, space and seeds are."""
    fixed = cell.settings()
    fixed["config"] = {name: value for name, value in fixed["config"].items() if name not in space.where}
    where = {k: w.model_dump() if isinstance(w, Range) else list(w) for k, w in space.where.items()}
    content = json.dumps([fingerprint, fixed, where, tune.seeds, tune.sampler, tune.pruner], sort_keys=True)
    return f"{cell.dataset}-{cell.model}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def open_storage(place: str) -> BaseStorage:
    """Open the storage at `place`: a path of a journal file, or a URL of a database that SQLAlchemy knows.

    Raises:
        BenchError: the database cannot be reached, or its driver is not installed.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if "://" not in place:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(place))
    try:
        return RDBStorage(
            place,
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=4 * HEARTBEAT_SECONDS,
            failed_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
        )
    except Exception as error:  # noqa: BLE001 (whatever a driver raises)
        raise BenchError(f"--storage: the database cannot be used: {str(error).splitlines()[0]}") from None


def open_study(storage: BaseStorage, name: str, cell: Cell, fingerprint: str, space: Space, tune: Tune) -> optuna.Study:
    """Open, or begin, a study; the settings before it are its first trial, where the space has them.

    A grid takes its own points only.
    """
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
    current = cell.config.model_dump(mode="json", by_alias=True)
    default = {setting: current[setting] for setting in space.where}
    subject = (cell.dataset, cell.model, cell.training.stop_metric, fingerprint, list(tune.seeds), tune.sampler,
               tune.pruner, default)  # fmt: skip
    for key, value in zip(_SUBJECT, subject, strict=True):
        if study.user_attrs.get(key) != value:
            study.set_user_attr(key, value)
    if not study.get_trials(deepcopy=False) and tune.sampler != "grid" and space.contains(default):
        study.enqueue_trial(default)
    study.pruner = _pruner(tune, cell.training.epochs)
    return study


def sampler_of(tune: Tune, space: Space, trials: int) -> optuna.samplers.BaseSampler:
    """Return the sampler, every argument that matters written out; seeded by how far the study is."""
    seed = tune.seed + trials
    if tune.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if tune.sampler == "grid":
        return optuna.samplers.GridSampler(space.grid(tune.grid_points), seed=tune.seed)
    if tune.sampler == "cma-es":
        return optuna.samplers.CmaEsSampler(
            seed=seed, n_startup_trials=tune.start_up, warn_independent_sampling=False, restart_strategy=None
        )
    return optuna.samplers.TPESampler(
        seed=seed,
        n_startup_trials=tune.start_up,
        n_ei_candidates=24,
        multivariate=True,
        group=False,
        constant_liar=True,
    )


def _pruner(tune: Tune, epochs: int) -> optuna.pruners.BasePruner:
    if tune.pruner == "median":
        return optuna.pruners.MedianPruner(
            n_startup_trials=tune.start_up, n_warmup_steps=tune.warm_up, interval_steps=1, n_min_trials=1
        )
    if tune.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=max(1, tune.warm_up), max_resource=epochs, reduction_factor=3
        )
    if tune.pruner == "wilcoxon":
        return optuna.pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=2)
    return optuna.pruners.NopPruner()


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count: complete or pruned."""
    return study.get_trials(deepcopy=False, states=ENDED)


def this_process() -> str:
    """Return a name of this process that no other process bears, now or later."""
    return f"{socket.gethostname()} {os.getpid()} {_started(os.getpid())}"


def requeue_killed(study: optuna.Study) -> int:
    """Mark the trials as failed whose processes on this machine are gone, and queue their settings again.

    Returns:
        How many they were.
    """
    found = 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        host, pid, started = str(trial.user_attrs.get("process", "? 0 0")).rsplit(" ", 2)
        if host == socket.gethostname() and _started(int(pid)) != started:
            requeue(study, trial, mark=True)
            found += 1
    return found


def requeue(study: optuna.Study, trial: FrozenTrial, *, mark: bool) -> None:
    """Queue the settings of an unfinished trial again, unless they were tried too often; with `mark` as failed."""
    if mark:
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    tries = trial.user_attrs.get("tries", 0) + 1
    if trial.params and tries <= RETRIES:
        study.enqueue_trial(trial.params, user_attrs={"tries": tries})


def _started(pid: int) -> str:
    """Return when a process began, on the system's clock; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "unknown"
    return "unknown"


def studies_in(folder: Path) -> list[StudyResult]:
    """Return the studies whose journals lie in `folder`, by name; files that are none are passed over."""
    found = []
    for path in sorted(folder.glob("*.journal")):
        try:
            study = optuna.load_study(study_name=path.stem, storage=open_storage(str(path)))
        except (KeyError, ValueError, TypeError):  # what Optuna says of a journal that is none, or of another name
            continue
        if all(key in study.user_attrs for key in _SUBJECT):  # the first journals did not say
            found.append(study_result(study, str(path)))
    return found


def study_result(study: optuna.Study, place: str) -> StudyResult:
    """Return what the study has so far."""
    said = study.user_attrs
    return StudyResult(
        study.study_name,
        place,
        said["dataset"],
        said["model"],
        said["metric"],
        said["fingerprint"],
        tuple(said["seeds"]),
        said["sampler"],
        said["pruner"],
        said["default"],
        tuple(_trial_result(trial) for trial in ended(study)),
        len(study.get_trials(deepcopy=False, states=(TrialState.FAIL,))),
    )


def _trial_result(trial: FrozenTrial) -> TrialResult:
    values: Sequence[float] = trial.user_attrs.get("by_seed", ())
    return TrialResult(
        trial.number,
        dict(trial.params),
        float(trial.value or 0.0),
        trial.state == TrialState.PRUNED,
        tuple(values),
        int(trial.user_attrs.get("epochs", 0)),
        trial.duration.total_seconds() if trial.duration else 0.0,
    )
