"""Studies: their names, storages, samplers, pruners and results."""

import contextlib
import hashlib
import json
import math
import os
import re
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.trial import FrozenTrial, TrialState, create_trial

from ipsrec_bench.errors import StudyError
from ipsrec_bench.extras import require
from ipsrec_bench.suite.cells import RANKS_FORMAT, Cell
from ipsrec_bench.suite.schema import Range, Tune
from ipsrec_bench.tuning.journal import open_journal
from ipsrec_bench.tuning.results import StudyResult, TrialResult, split_settings
from ipsrec_bench.tuning.space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)  # in every process; events report progress
warnings.filterwarnings("ignore", category=ExperimentalWarning)  # heartbeats and PED-ANOVA: not the user's choice

HEARTBEAT_SECONDS = 30
"""Interval of heartbeats in a database; after four missed ones, a trial counts as killed, wherever it ran."""
NAMELESS_SECONDS = 60
"""After that time, a trial that has not recorded its process is assumed to have none."""
RETRIES = 2
"""How often settings whose trial was killed are retried. They are then given up, before the search itself would be: see
`FAILURES_IN_A_ROW`."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
SURPLUS = "surplus"
"""Marks trials that began after other processes had taken the last ones, or the same settings; none was trained."""
REPEAT = "repeat"
"""Value of `SURPLUS` for a trial whose settings, drawn by the sampler, another trial has already."""
OWN = "own"
"""Holds the suite's own settings of a trial if they lie outside the space. The sampler does not see them."""
INTERRUPTED = "interrupted"
"""Marks trials that Ctrl-C ended; their settings are queued again, however often."""
LONGEST_STEM = 180
"""Maximum bytes of a file's stem, to which a digest and a suffix are added; file systems allow 255."""
PARTS = 10
"""Number of parts into which a range is divided to say how much of it trials have tried."""
BEST_SHARE = 0.25
MIN_IMPORTANCE = 20
"""Minimum number of trials for which the importance of settings is reported: the best quarter of them are five."""
_PSYCOPG2 = {"postgresql", "postgresql+psycopg2"}
"""Schemes of URLs for which SQLAlchemy uses the driver of the extra `[postgresql]`."""
_SUBJECT = ("dataset", "model", "metric", "fingerprint", "seeds", "sampler", "pruner", "default")
"""Attributes that identify the subject of a study."""
_FIXED = "fixed"
"""Holds the settings that are not searched; older versions kept only their hash, in the study's name."""


def study_name(cell: Cell, fingerprint: str, space: Space, tune: Tune) -> str:
    """Return the study's name: equal if data, fixed settings, space, seeds and the rules of the search are.

    Rules that have no effect with the sampler and the pruner do not count.
    """
    fixed = _fixed(cell, space)
    where = {k: w.model_dump() if isinstance(w, Range) else list(w) for k, w in space.where.items()}
    by_epoch = tune.pruner in {"percentile", "median"}
    used = {
        "grid_points": tune.sampler == "grid",
        "start_up": tune.sampler in {"tpe", "cma-es"} or by_epoch,
        "warm_up": tune.pruner == "hyperband" or by_epoch,
    }
    rules = {
        name: getattr(tune, name) for name in ("seeds", "sampler", "pruner", "seed", *(n for n in used if used[n]))
    }
    content = json.dumps([RANKS_FORMAT, fingerprint, fixed, where, rules], sort_keys=True)
    return f"{file_stem(f'{cell.dataset}-{cell.label}')}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def file_stem(name: str) -> str:
    """Return `name` as a safe file stem: characters that are special in paths are percent-encoded.

    Different names give different stems. A long stem is cut and ends in a digest.
    """
    stem = re.sub(r'[/\\\\%:*?"<>|\x00-\x1f\x7f]', lambda match: f"%{ord(match[0]):02X}", name)
    if len(stem.encode()) <= LONGEST_STEM:
        return stem
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{stem.encode()[: LONGEST_STEM - len(digest) - 1].decode(errors='ignore')}-{digest}"


def _fixed(cell: Cell, space: Space) -> dict[str, Any]:
    """Return the settings of `cell` that are not searched."""
    return split_settings(cell.settings(), space.where)[0]


def open_storage(place: str) -> BaseStorage:
    """Open the storage at `place`: a path of a journal file, or a URL of a database that SQLAlchemy knows.

    A missing journal or database is created.

    Raises:
        StudyError: the journal is damaged; or the database cannot be reached, or its driver is not installed.
    """
    if "://" not in place:
        return open_journal(Path(place).absolute())
    if place.partition("://")[0] in _PSYCOPG2:
        require("postgresql", "--storage")
    if _sqlite_file(place) in {None, "", ":memory:"}:
        raise StudyError(f"--storage {place}: a database in memory is lost with the process; name a file")
    try:
        return RDBStorage(
            place,
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=4 * HEARTBEAT_SECONDS,
            heartbeat_stale_trial_callback=_requeue_silent,
        )
    except Exception as error:  # noqa: BLE001 (whatever a driver raises)
        raise StudyError(f"--storage: the database cannot be used: {str(error).splitlines()[0]}") from None


def storage_failure(error: BaseException) -> str | None:
    """Return a sentence on the storage failure behind `error`, which Optuna may have raised in its place.

    Return None if no journal or database failed.
    """
    from sqlalchemy.exc import SQLAlchemyError

    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, StudyError):
            return str(behind)
        if isinstance(behind, SQLAlchemyError):
            said = str(behind).splitlines()[0]
            return f"--storage: the database failed: {said}; ended trials are kept; the same command resumes the search"
        behind = behind.__cause__ or behind.__context__
    return None


def _sqlite_file(url: str) -> str | None:
    """Return the file of an SQLite database, or the URL itself for one on a server.

    Raises:
        StudyError: it is not the URL of a database.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StudyError("--storage: this is not the URL of a database, like postgresql://host/name") from None
    return parsed.database if parsed.get_backend_name() == "sqlite" else url


def open_study(storage: BaseStorage, name: str, cell: Cell, fingerprint: str, space: Space, tune: Tune) -> optuna.Study:
    """Open a study, or begin one, whose first trial has the suite's own settings."""
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
    subject = (cell.dataset, cell.label, cell.training.stop_metric, fingerprint, list(tune.seeds), tune.sampler,
               tune.pruner, dict(space.own))  # fmt: skip
    for key, value in zip((*_SUBJECT, _FIXED), (*subject, _fixed(cell, space)), strict=True):
        if study.user_attrs.get(key) != value:
            study.set_user_attr(key, value)
    if not study.get_trials(deepcopy=False) and tune.sampler != "grid":  # a grid's points are queued one by one
        enqueue(study, space, space.own)
    study.sampler = ByNumber(tune)
    study.pruner = _pruner(tune, cell.training.epochs)
    return study


class ByNumber(BaseSampler):
    """A sampler seeded by the trial's number, so that processes that share a study draw different settings."""

    def __init__(self, tune: Tune) -> None:
        self._tune = tune
        self._sampler = _sampler(tune, 0)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler = _sampler(self._tune, trial.number)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 (as Optuna has it)
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


def _sampler(tune: Tune, number: int) -> BaseSampler:
    """Return the sampler of one trial, every argument that matters written out."""
    seed = int(np.random.SeedSequence([tune.seed, number]).generate_state(1)[0])
    if tune.sampler in {"random", "grid"}:  # points of a grid are queued, and nothing is drawn
        return optuna.samplers.RandomSampler(seed=seed)
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
    if tune.pruner in {"percentile", "median"}:
        return optuna.pruners.PercentilePruner(
            25.0 if tune.pruner == "percentile" else 50.0,
            n_startup_trials=tune.start_up,
            n_warmup_steps=tune.warm_up,
            interval_steps=1,
            n_min_trials=1,
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


def ask(study: optuna.Study) -> optuna.Trial:
    """Begin the next trial: one that is queued, else a new one."""
    with warnings.catch_warnings():  # `heartbeat` replaces what Optuna does in its own loop
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with Study.optimize")
        return study.ask()


@contextlib.contextmanager
def heartbeat(trial: optuna.Trial) -> Iterator[None]:
    """Send the trial's heartbeat during the block, if the storage is a database."""
    with get_heartbeat_thread(trial._trial_id, trial.study._storage):  # noqa: SLF001 (Optuna's loop has it for itself)
        yield


def this_process() -> str:
    """Return a name of this process that no other process has, now or later."""
    return f"{socket.gethostname()} {os.getpid()} {_started(os.getpid())}"


def _requeue_silent(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue the settings of a trial again when its heartbeat has stopped."""
    requeue(study, trial)


def settings_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return the settings that a trial has chosen, or was queued with."""
    return {
        **trial.user_attrs.get(OWN, {}),
        **trial.system_attrs.get("fixed_params", {}),
        **trial.params,
    }  # queued settings are chosen one by one


def is_given_up(trial: FrozenTrial) -> bool:
    """Return whether its settings are not retried: training failed with them, or too many processes were killed."""
    if trial.state != TrialState.FAIL or {SURPLUS, INTERRUPTED} & trial.user_attrs.keys():
        return False
    return "error" in trial.user_attrs or trial.user_attrs.get("tries", 0) >= RETRIES


def enqueue(study: optuna.Study, space: Space, settings: Mapping[str, Any], **facts: object) -> None:
    """Queue settings, which may lie outside the space, as the next trial; `facts` are its user attributes."""
    if space.contains(settings):
        study.enqueue_trial(dict(settings), user_attrs=facts)
    else:
        study.enqueue_trial({}, user_attrs={**facts, OWN: dict(settings)})


def queue_untried(study: optuna.Study, space: Space, points: Sequence[Mapping[str, Any]], seed: int) -> None:
    """Queue the first of `points` that no trial holds, unless a trial is queued; several processes may call this.

    Without points, random settings are queued, which are determined by `seed` and the number of trials.
    """
    trials = study.get_trials(deepcopy=False)
    if any(trial.state == TrialState.WAITING for trial in trials):
        return
    held = [settings_of(t) for t in trials if t.state in {*ENDED, TrialState.RUNNING} or is_given_up(t)]
    rng = np.random.default_rng([seed, len(trials)])
    free = next((p for p in points or iter(lambda: space.draw(rng), None) if p not in held), None)
    if free is not None:
        enqueue(study, space, free)


def requeue_lost(study: optuna.Study, *, killed: bool = True) -> list[tuple[FrozenTrial, bool]]:
    """Mark trials whose process is gone as failed, and queue their settings again.

    Processes are looked up on this machine; in a database, a stopped heartbeat also shows those elsewhere. With
    `killed`, the loss counts against their settings.

    Returns:
        The trials of this machine, each with whether it is tried again.
    """
    optuna.storages.fail_stale_trials(study)
    found = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _is_lost(trial):
            continue
        again = give_back(study, trial, killed=killed)
        if again is not None:
            found.append((trial, again))
    return found


def is_doubtful(trial: FrozenTrial, place: str) -> bool:
    """Return whether only time shows if a running trial is alive: it has recorded no process, or a remote one."""
    process = trial.user_attrs.get("process")
    return process is None or ("://" in place and not str(process).startswith(f"{socket.gethostname()} "))


def may_end(trial: FrozenTrial, place: str) -> bool:
    """Return whether a running trial may still end; a journal does not show whether one of another machine does."""
    process = trial.user_attrs.get("process")
    return process is None or "://" in place or str(process).startswith(f"{socket.gethostname()} ")


def _is_lost(trial: FrozenTrial) -> bool:
    process = trial.user_attrs.get("process")
    if process is None:  # the first thing that a trial records
        began = trial.datetime_start
        return began is not None and (datetime.now() - began).total_seconds() > NAMELESS_SECONDS  # noqa: DTZ005 (as Optuna writes it)
    host, pid, started = str(process).rsplit(" ", 2)
    return host == socket.gethostname() and _started(int(pid)) != started


def give_back(study: optuna.Study, trial: FrozenTrial, *, killed: bool) -> bool | None:
    """Mark a running trial as failed; queue its settings again unless too many processes were killed with them.

    Returns:
        Whether they are queued; None if another process has ended the trial.
    """
    if trial.state != TrialState.RUNNING:
        return None
    # Queue first, mark second: a process that is killed in between leaves them queued twice instead of never.
    again = requeue(study, trial, killed=killed)
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return None
    return again


def requeue(study: optuna.Study, trial: FrozenTrial, *, killed: bool = True) -> bool:
    """Queue the settings of an unfinished trial again, unless too many processes were killed with them.

    Returns:
        Whether they are queued.
    """
    tries = trial.user_attrs.get("tries", 0) + killed
    settings = settings_of(trial)
    if not settings or tries > RETRIES:
        return False
    if OWN in trial.user_attrs:
        study.enqueue_trial({}, user_attrs={"tries": tries, OWN: settings})
    else:
        study.enqueue_trial(settings, user_attrs={"tries": tries})
    return True


def _started(pid: int) -> str:
    """Return when a process began, on the system's clock; empty if it does not exist, or is a zombie."""
    try:
        state, *facts = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        pass
    else:
        return "" if state in {"Z", "X"} else facts[18]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "unknown"
    return "unknown"


def studies_in(folder: Path, unreadable: Callable[[str], object] | None = None) -> list[StudyResult]:
    """Return the studies whose journals are in `folder`, by name.

    Args:
        folder: folder of the journals.
        unreadable: callback that receives a sentence for every journal without a readable study.

    Raises:
        StudyError: a journal has no readable study, and there is no callback.
    """
    found = []
    for path in sorted(folder.glob("*.journal")):
        try:
            found += _studies_of(path)
        except StudyError as error:
            if unreadable is None:
                raise
            unreadable(str(error))
    return found


def _studies_of(path: Path) -> list[StudyResult]:
    """Return the study in the journal at `path`, which has the file's name unless the file was renamed.

    Raises:
        StudyError: there is no readable study of that name.
    """
    if not path.exists():  # or it would be created
        raise StudyError(f"{path}: it is a link to a missing file")
    storage = open_storage(str(path))
    names = [study.study_name for study in storage.get_all_studies()]
    if not names:
        raise StudyError(f"{path}: it holds no study yet; move the file away if its search is not to be resumed")
    if path.stem not in names:
        raise StudyError(
            f"{path}: it holds the study '{names[0]}', whose file is '{names[0]}.journal'; remove the copy"
        )
    study = optuna.load_study(study_name=path.stem, storage=storage)
    result = _result_of(study, str(path))
    if not result:
        raise StudyError(f"{path}: its study was not begun by `tune`, or was stopped at its very start")
    return result


def studies_at(url: str) -> list[StudyResult]:
    """Return the studies in a database, by name; those of other programs are skipped.

    Raises:
        StudyError: the database cannot be used, or does not exist.
    """
    file = _sqlite_file(url)
    if file != url and not Path(str(file)).exists():
        raise StudyError(f"--storage {url}: there is no database {file}")
    storage = open_storage(url)
    names = sorted(optuna.get_all_study_names(storage))
    return [result for name in names for result in _result_of(optuna.load_study(study_name=name, storage=storage), url)]


def _result_of(study: optuna.Study, place: str) -> list[StudyResult]:
    """Return the study's result, if it is one of ours."""
    return [study_result(study, place)] if all(key in study.user_attrs for key in _SUBJECT) else []


def study_result(study: optuna.Study, place: str) -> StudyResult:
    """Return the results so far of the study at `place`."""
    said = study.user_attrs
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    searched = [d for trial in ended(study) for d in trial.distributions.items()]
    return StudyResult(
        study.study_name,
        _without_password(place),
        said["dataset"],
        said["model"],
        said["metric"],
        said["fingerprint"],
        tuple(said["seeds"]),
        said["sampler"],
        said["pruner"],
        said["default"],
        tuple(_trial_result(trial) for trial in ended(study)),
        spent_seconds(study),
        sum(is_given_up(trial) for trial in failed),
        frozenset(n for n, d in searched if isinstance(d, FloatDistribution | IntDistribution) and d.log),
        _importance(study),
        said.get(_FIXED),
        _seen(ended(study)),
        _is_exhausted(study),
    )


def _is_exhausted(study: optuna.Study) -> bool:
    """Return whether every point of a finite space was tried; settings that were given up count as tried."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state in ENDED or is_given_up(t)]
    spaces = {name: space for trial in trials for name, space in trial.distributions.items()}
    if any(isinstance(space, FloatDistribution) for space in spaces.values()):
        return False
    inside = [settings_of(trial) for trial in trials if OWN not in trial.user_attrs]
    points = {json.dumps(settings, sort_keys=True) for settings in inside}
    return bool(spaces) and len(points) >= math.prod(map(_points_of, spaces.values()))


def _points_of(space: BaseDistribution) -> int:
    if isinstance(space, CategoricalDistribution):
        return len(space.choices)
    assert isinstance(space, IntDistribution)
    return space.high - space.low + 1


def _seen(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Return the share of each setting's space that `trials` have tried, see `StudyResult.seen`."""
    spaces = {name: space for trial in trials for name, space in trial.distributions.items()}
    return {
        name: len({_part(space, trial.params[name]) for trial in trials if name in trial.params}) / _parts(space)
        for name, space in spaces.items()
    }


def _parts(space: BaseDistribution) -> int:
    if isinstance(space, CategoricalDistribution):
        return len(space.choices)
    assert isinstance(space, FloatDistribution | IntDistribution)
    return min(PARTS, int(space.high - space.low) + 1) if isinstance(space, IntDistribution) else PARTS


def _part(space: BaseDistribution, value: Any) -> int:  # noqa: ANN401 (of the setting)
    """Return the number of the part of `space` that holds `value`."""
    if isinstance(space, CategoricalDistribution):
        return space.choices.index(value)
    assert isinstance(space, FloatDistribution | IntDistribution)
    low, high = float(space.low), float(space.high)
    if space.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    parts = _parts(space)
    return min(parts - 1, int(parts * (value - low) / (high - low))) if high > low else 0


def _without_password(place: str) -> str:
    if "://" not in place:
        return place
    from sqlalchemy.engine import make_url

    return make_url(place).set(query={}).render_as_string(hide_password=True)  # a query may hold one, too


def _importance(study: optuna.Study) -> dict[str, float]:
    """Return the importance of settings for the best quarter of the trials; pruned ones count by what they reached."""
    trials = [trial for trial in ended(study) if trial.params and trial.value is not None]
    if len(trials) < MIN_IMPORTANCE or len(trials[0].params) < 2:  # noqa: PLR2004 (one setting is all there is)
        return {}
    judged = optuna.create_study(direction="maximize")
    judged.add_trials([create_trial(params=t.params, distributions=t.distributions, value=t.value) for t in trials])
    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    return optuna.importance.get_param_importances(judged, evaluator=evaluator)


def spent_seconds(study: optuna.Study) -> float:
    """Return the training time of all trials, including those that failed, were killed or are running."""
    return sum(map(_seconds_of, study.get_trials(deepcopy=False)))


def expected_seconds(trials: Iterable[FrozenTrial], place: str) -> float:
    """Return the training time of `trials` once those that run have ended, each after the mean time of ended ones.

    It is infinite while a trial runs and none has ended, since nothing is known then.
    """
    trials = list(trials)
    running = [_seconds_of(t) for t in trials if t.state == TrialState.RUNNING and may_end(t, place)]
    done = [_seconds_of(t) for t in trials if t.state in ENDED]
    usual = fmean(done) if done else math.inf
    return sum(map(_seconds_of, trials)) + sum(max(0.0, usual - seconds) for seconds in running)


def _seconds_of(trial: FrozenTrial) -> float:
    return float(trial.user_attrs.get("seconds", 0.0))


def _trial_result(trial: FrozenTrial) -> TrialResult:
    values: Sequence[float] = trial.user_attrs.get("by_seed", ())
    return TrialResult(
        trial.number,
        settings_of(trial),
        float(trial.value or 0.0),
        trial.state == TrialState.PRUNED,
        tuple(values),
        int(trial.user_attrs.get("epochs", 0)),
        _seconds_of(trial),
    )
