"""Measure what a cell takes by training each of its stages for a moment and ranking one batch of users.

Nothing here imports torch until a probe runs.
"""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Targets, split_dataset
from ipsrec_bench.errors import BenchError, ModelError
from ipsrec_bench.events import Emit, EpochDone, Event, StepDone
from ipsrec_bench.run.costs import CellKind, Cost, CostEstimate, NoCost, kind_of, measured_costs
from ipsrec_bench.run.executors.api import Died, Done, Executor, Place, Refused, Slot, Stopped, Task
from ipsrec_bench.suite.cells import Cell

WARM_UP_SECONDS = 0.3
"""Steps before that allocate memory and start threads; they are not timed."""
STEPS_SECONDS = 1.5
"""Minimum time for which steps are timed; a step that has begun is finished."""
MOST_EPOCHS = 4
"""Maximum number of epochs that are trained if epochs are shorter than that."""
COUNTED = 300_000
"""Maximum number of interactions to which a model that counts is fitted."""
LONGEST_SECONDS = 300.0
"""Timeout of a probe in a dry run: a first step may take long, but a model may also hang."""
OOM_SCORE = Path("/proc/self/oom_score_adj")


def probe(cell: Cell, place: Place, data: PreparedDataset, emit: Emit) -> CostEstimate:  # noqa: ARG001 (of all tasks' form)
    """Return what `cell` takes on `data` at `place`, from two seconds of each stage and one batch of ranking.

    The numbers of targets and users are exact. Seconds are extrapolated from a share of an epoch, from a batch of users
    and, for a model that counts, from a part of the interactions; so is the memory that these took.

    While it runs, this process is the first that the kernel kills when memory runs out.

    Raises:
        BenchError: the device is missing, the data cannot be split, or the folder cannot be written.
    """
    import torch

    with _ended_first():
        try:
            if cell.parent is not None:
                return _reranked(cell, place, data)
            return _counted(cell, place, data) if cell.counts else _trained(cell, place, data)
        except (MemoryError, torch.cuda.OutOfMemoryError) as error:
            return NoCost(_first_line(error), does_not_fit=True)
        except ModelError as error:
            return NoCost(str(error), does_not_fit=False)
        except BenchError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 (the cell's own training will record what it raises)
            # torch has no error class for the memory of a CPU.
            does_not_fit = isinstance(error, RuntimeError) and "allocate memory" in str(error)
            return NoCost(f"{type(error).__name__}: {_first_line(error)}", does_not_fit=does_not_fit)


class Costs:
    """Costs of cells: from the store, else from a probe, once for all cells of a kind."""

    def __init__(self, store: Path, executor: Executor, folder: Path, on_probe: Callable[[Cell], None]) -> None:
        """Start without known costs.

        Args:
            store: the store's file, which may be missing.
            executor: runs the probes, one at a time; its slots say where the cells will be trained.
            folder: for files of the probes, each in a folder of its own.
            on_probe: callback that receives every cell that is about to be probed.
        """
        self._store, self._executor, self._folder, self._on_probe = store, executor, folder, on_probe
        self._found: dict[CellKind, CostEstimate] = {}

    def of(self, cell: Cell, data: PreparedDataset) -> CostEstimate:
        """Return what `cell` takes on `data`.

        Raises:
            BenchError: the store cannot be read, or the executor cannot run a probe.
        """
        kind = kind_of(cell, data)
        if kind not in self._found:
            slot = self._slot()
            measured = measured_costs(self._store, [kind], cuda=slot.device.startswith("cuda"), threads=slot.threads)
            self._found[kind] = measured.get(kind) or self._probed(cell, data, slot)
        return self._found[kind]

    def _slot(self) -> Slot:
        while not (free := self._executor.free()):  # workers may still be starting
            self._executor.outcomes(0.1)
        return free[0]

    def _probed(self, cell: Cell, data: PreparedDataset, slot: Slot) -> CostEstimate:
        self._on_probe(cell)
        folder = self._folder / f"probe-{len(self._found)}"
        folder.mkdir(parents=True)
        self._executor.begin(slot, Task(folder.name, partial(probe, cell), data, folder))
        deadline = time.monotonic() + LONGEST_SECONDS
        while not (ended := self._executor.outcomes(0.1)):
            if time.monotonic() > deadline:
                self._executor.kill(folder.name, f"it took longer than {LONGEST_SECONDS:g} seconds")
        (outcome,) = ended
        match outcome:
            case Done(_, finding):
                assert isinstance(finding, Cost | NoCost)
                return finding
            case Died(_, cause):
                return finding_of_death(cause)
            case Refused(_, error):
                raise error
            case Stopped():
                raise KeyboardInterrupt


def finding_of_death(cause: str) -> NoCost:
    """Return what is concluded from a probe that ended its process."""
    return NoCost(cause, does_not_fit="SIGKILL" in cause)  # the kernel's way when memory runs out


class _EnoughError(BaseException):
    """Ends a training that has been timed; not an `Exception`, so that no handler on its way catches it."""


class _Clock:
    """Times the steps of a training, and ends it after enough of them."""

    def __init__(self) -> None:
        self._began = self._since = time.perf_counter()
        self._at: float | None = None
        """Progress at `_since`, in epochs; None before the end of the warm-up."""
        self._seconds = self._epochs = 0.0
        """Time and epochs measured so far, without validation."""
        self._warm_seconds = self._warm_epochs = 0.0

    @property
    def epoch_seconds(self) -> float:
        """Seconds of training in an epoch."""
        return self._seconds / self._epochs

    @property
    def start_seconds(self) -> float:
        """Seconds that the start took beyond its steps."""
        return max(0.0, self._warm_seconds - self._warm_epochs * self.epoch_seconds)

    def listen(self, event: Event) -> None:
        """Time a step, or the end of an epoch."""
        now = time.perf_counter()
        if isinstance(event, StepDone):
            progress = event.epoch - 1 + event.step / event.steps
            if self._at is None:
                if now - self._began < WARM_UP_SECONDS and event.step < event.steps:
                    return
                self._warm_seconds, self._warm_epochs = now - self._began, progress
            else:
                self._seconds += now - self._since
                self._epochs += progress - self._at
            self._since, self._at = now, progress
            if self._seconds >= STEPS_SECONDS:
                raise _EnoughError
        elif isinstance(event, EpochDone):
            self._since = now  # the validation before it does not count as a step
            if event.epoch == MOST_EPOCHS:
                raise _EnoughError


def _trained(cell: Cell, place: Place, data: PreparedDataset) -> Cost:
    """Train and rank with a model that learns by gradients."""
    from ipsrec_bench.models.configs import NeuralConfig
    from ipsrec_bench.run.cell import Way, train_cell

    split = split_dataset(data, cell.protocol)
    training = cell.training.model_copy(update={"epochs": MOST_EPOCHS, "patience": MOST_EPOCHS})
    gauge = _Gauge(place.device)
    assert isinstance(cell.config, NeuralConfig)
    start_seconds = epochs_seconds = 0.0
    for stage, (_, epochs) in zip(cell.config.stages(), cell.without_refit().stages, strict=True):
        clock = _Clock()
        alone = stage if stage.epochs is None else replace(stage, epochs=MOST_EPOCHS)
        with contextlib.suppress(_EnoughError):
            train_cell("probe", replace(cell, training=training), place, data, clock.listen, Way(stages=(alone,)))
        start_seconds += clock.start_seconds
        epochs_seconds += epochs * clock.epoch_seconds
    if cell.training.refit:  # at most as many epochs again
        start_seconds, epochs_seconds = 2 * start_seconds, 2 * epochs_seconds
    trained = gauge.peaks()
    user_seconds, ranked = _ranked(cell, place, data, split.valid)
    epochs_seconds += cell.training.epochs * user_seconds * len(split.valid.users)
    seconds = start_seconds + epochs_seconds + user_seconds * len(split.test.users)
    memory, device_memory = (max(*peaks) for peaks in zip(trained, ranked, strict=True))
    return Cost(epochs_seconds / cell.epochs, seconds, memory, device_memory if gauge.on_cuda else None, "probed")


def _reranked(cell: Cell, place: Place, data: PreparedDataset) -> Cost:
    """Rank with another cell's model, for which one with initial weights takes the place."""
    split = split_dataset(data, cell.protocol)
    user_seconds, (memory, device_memory) = _ranked(cell, place, data, split.valid)
    seconds = user_seconds * (len(split.valid.users) + len(split.test.users))
    return Cost(None, seconds, memory, device_memory if _Gauge(place.device).on_cuda else None, "probed")


def _ranked(cell: Cell, place: Place, data: PreparedDataset, targets: Targets) -> tuple[float, tuple[int, int]]:
    """Rank a batch for each thread with an untrained model.

    Returns:
        Seconds per user, and the peak memory of validation, including the optimiser's moments.
    """
    import torch

    from ipsrec_bench.data.batches import ResidentSequences
    from ipsrec_bench.models.api import Sizes
    from ipsrec_bench.models.configs import ModelConfig
    from ipsrec_bench.models.registry import build_model, model_entry
    from ipsrec_bench.ranking.rank import USERS_PER_BATCH, USERS_PER_BATCH_ON_CUDA, rank_targets

    gauge = _Gauge(place.device)
    assert isinstance(cell.config, ModelConfig)
    length = cell.protocol.max_length
    sizes = Sizes(data.num_users, data.num_items, data.num_providers, length)
    model = build_model(cell.type, cell.config, sizes).to(gauge.device)
    sequences = ResidentSequences(data, gauge.device, times=model_entry(cell.type).uses_times)
    most = USERS_PER_BATCH_ON_CUDA if gauge.on_cuda else USERS_PER_BATCH * torch.get_num_threads()
    step = -(-len(targets.users) // most)
    chosen = replace(targets, users=targets.users[::step], positions=targets.positions[::step])
    for _ in range(2):  # the first time starts threads and allocates memory
        began = time.perf_counter()
        rank_targets(model, data, sequences, chosen, length, mask_history=cell.protocol.mask_history)
        seconds = time.perf_counter() - began
    moments = 2 * sum(weight.nbytes for weight in model.parameters())
    memory, device_memory = gauge.peaks()
    there = (0, moments) if gauge.on_cuda else (moments, 0)
    return seconds / len(chosen.users), (memory + there[0], device_memory + there[1])


def _counted(cell: Cell, place: Place, data: PreparedDataset) -> Cost:
    """Fit a model that counts to the first users, and rank them."""
    from ipsrec_bench.run.cell import train_cell

    full = split_dataset(data, cell.protocol)
    gauge = _Gauge(place.device)
    some = int(data.offsets[np.searchsorted(data.offsets, min(COUNTED, len(data.items)))])
    part = replace(
        data,
        items=data.items[:some],
        providers=data.providers[:some],
        times=data.times[:some],
        offsets=np.minimum(data.offsets, some),
    )
    unfiltered = replace(cell, protocol=cell.protocol.model_copy(update={"filter_for": "all"}))  # takes no less
    began = time.perf_counter()
    trained = train_cell("probe", unfiltered, place, part, lambda _: None)
    ranking = time.perf_counter() - began - trained.fitted.train_seconds
    user_seconds = ranking / len(trained.split.valid.users)
    users, share = len(full.valid.users) + len(full.test.users), len(data.items) / some
    memory, device_memory = gauge.peaks()
    return Cost(
        None,
        share * trained.fitted.train_seconds + users * user_seconds,
        gauge.before + int(share * (memory - gauge.before)),
        int(share * device_memory) if gauge.on_cuda else None,
        "probed",
    )


class _Gauge:
    """Measures peak memory from its creation on."""

    def __init__(self, device: str) -> None:
        """Start measuring.

        Raises:
            BenchError: there is no such device.
        """
        import torch

        from ipsrec_bench.run.environment import peak_memory, pick_device, reset_peak_memory

        self.device = pick_device(device)
        self.on_cuda = self.device.type == "cuda"
        gc.collect()  # an ended training left its frames in a reference cycle
        reset_peak_memory()
        if self.on_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        self.before = peak_memory()
        """Resident bytes of the process."""

    def peaks(self) -> tuple[int, int]:
        """Return the largest resident size of the process, and what torch allocated on the GPU, in bytes."""
        import torch

        from ipsrec_bench.run.environment import peak_memory

        return peak_memory(), torch.cuda.max_memory_allocated(self.device) if self.on_cuda else 0


@contextlib.contextmanager
def _ended_first() -> Iterator[None]:
    """Make this process the first that the kernel kills when memory runs out, where this is possible (Linux)."""
    try:
        before = OOM_SCORE.read_text(encoding="ascii")
        OOM_SCORE.write_text("1000", encoding="ascii")
    except OSError:
        yield
        return
    try:
        yield
    finally:
        OOM_SCORE.write_text(before, encoding="ascii")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
