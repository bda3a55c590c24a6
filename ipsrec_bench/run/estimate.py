"""What a cell will take, before it is run: time from a count of operations, memory from a count of numbers.

A training step costs, in seconds,

    3 F tokens / (ENCODER g) + TRAFFIC kept tokens / g" + V targets (c d / (SOFTMAX g') + PASSES p r)
    + CALLS a weights + ADAM parameters

where F is the encoder's forward operations per token (counted by running it), g and g' are the rates of a plain matrix
product measured here and now, in the types that encoder and softmax take their factors in (the encoder float32 where
batches are too small for casting to pay; ranking float32 always), g" that in float32, `kept` the bytes per token that
the encoder keeps for the backward pass (what dropout and normalisation make is no product), r is the time of a softmax
of one score, measured here, too, p is 1, or 2 for scores that are made twice (`ipsrec_bench/training/softmax.py`), and
c is 4 + 2 p; `weights` is the number of weight tensors, each of which brings calls of small operations, and a is what
one such call takes here; `parameters` is the number of their elements. A ranked user costs F tokens / (RANK_ENCODER g)
+ 2 d V / (RANK g). The constants are fitted on a CPU to the measurements in benchmarks/README.md, which says how far
off they are; on CUDA, where scores are kept nowhere, they are a guess.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import split_dataset
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import SequentialModel, Sizes
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.ranking.rank import ITEMS_PER_TILE, USERS_PER_BATCH
from ipsrec_bench.suite.cells import Cell
from ipsrec_bench.suite.schema import Protocol
from ipsrec_bench.training.catalogue import product_dtype
from ipsrec_bench.training.objective import CASTING_PAYS
from ipsrec_bench.training.samples import packed_windows, prefix_windows
from ipsrec_bench.training.softmax import KEPT, ROWS, TILE

ENCODER, SOFTMAX, RANK_ENCODER, RANK = 0.4, 0.62, 0.56, 0.52
"""Shares of the plain product's rate that are reached."""
TRAFFIC = 75
"""Operations of a product that take as long as making, keeping and reading back a byte."""
PASSES = 1.5
"""Work on a score besides products, in softmaxes."""
CALLS = 34
"""Small operations per weight tensor and step."""
ADAM = 0.3e-9
"""Seconds per parameter and step."""
PROCESS = 600e6
"""Bytes of a process that has loaded everything and nothing to work on."""
PARAMETER = 32
"""Bytes per parameter: weight, gradient, Adam's two moments, and as much again at the peak of a step."""
BACKWARD = 3.0
"""What a step holds at its peak, as a multiple of what the encoder keeps for the backward pass."""
SAMPLE = 8
"""Histories on which operations are counted."""


@dataclass(frozen=True)
class Estimate:
    """What one cell will take."""

    epoch_seconds: float
    """Training and validating one epoch."""
    most_seconds: float
    """All epochs, if none is saved by stopping early, and ranking."""
    memory: int
    """Peak bytes of the process."""


def estimate(cell: Cell, data: PreparedDataset, device: torch.device) -> Estimate | None:
    """Return what `cell` will take on `device`, or None for a model that counts, which takes one pass over the data."""
    if cell.counts:
        return None
    config, work, epoch = _parts(cell, data)
    split, length, d = split_dataset(data, cell.protocol), cell.protocol.max_length, config.embedding_size
    float32 = product_rate(torch.float32, device)
    training, _ = training_seconds(cell, data, device)
    ranked = np.minimum(split.test.positions - data.offsets[split.test.users], length).mean()
    user = work.rank * ranked / (RANK_ENCODER * float32) + 2 * d * data.num_items / (RANK * float32)
    seconds = float(training + user * len(split.valid.users))
    ranking = float(user * (len(split.valid.users) + len(split.test.users)))
    memory = (
        PROCESS
        + 8 * len(data.items)
        + PARAMETER * work.parameters(config, data)
        + BACKWARD * work.kept * epoch.tokens / epoch.steps
        + 10 * TILE * min(ROWS, cell.training.batch_size)
        + min(KEPT, 4 * _scored(cell, data) * min(ROWS, cell.training.batch_size))
        + 8 * ITEMS_PER_TILE * USERS_PER_BATCH * torch.get_num_threads()
    )
    return Estimate(seconds, cell.training.epochs * seconds + ranking, int(memory))


def training_seconds(cell: Cell, data: PreparedDataset, device: torch.device) -> tuple[float, int]:
    """Return what training the targets of one epoch takes, and how many there are."""
    config, work, epoch = _parts(cell, data)
    float32 = product_rate(torch.float32, device)
    dtype = product_dtype(cell.training.precision, device)
    fast = product_rate(dtype, device)
    scored = _scored(cell, data)
    times = 2 - min(1.0, KEPT / (dtype.itemsize * scored * min(ROWS, cell.training.batch_size)))
    products = (4 + 2 * times) * config.embedding_size / (SOFTMAX * fast)
    encoder = fast if epoch.tokens / epoch.steps >= CASTING_PAYS else float32
    seconds = (
        3 * work.train * epoch.tokens / (ENCODER * encoder)
        + TRAFFIC * work.kept * epoch.tokens / float32
        + scored * epoch.targets * (products + PASSES * times * score_seconds(device))
        + epoch.steps * (CALLS * call_seconds(device) * work.weights + ADAM * work.parameters(config, data))
    )
    return seconds, epoch.targets


def _scored(cell: Cell, data: PreparedDataset) -> int:
    """Return how many items each target is scored against in training."""
    return data.num_items if cell.training.objective == "softmax" else cell.training.negatives


@dataclass(frozen=True)
class _Epoch:
    """What an epoch feeds to a model; padding, which batches of like lengths keep small, is not in it."""

    tokens: int
    targets: int
    steps: int


def _parts(cell: Cell, data: PreparedDataset) -> "tuple[NeuralConfig, _Work, _Epoch]":
    config, length, training = cell.config, cell.protocol.max_length, cell.training
    assert isinstance(config, NeuralConfig)
    packed = training.samples == "packed"
    work = _counted(cell.type, config.model_dump_json(by_alias=True), length, packed)
    tokens, targets = _fed(data, cell.protocol, training.min_context if packed else None)
    return config, work, _Epoch(tokens, targets, max(1, round(targets / training.batch_size)))


@cache
def _fed(data: PreparedDataset, protocol: Protocol, min_context: int | None) -> tuple[int, int]:
    """Return an epoch's inputs and targets, of packed windows where there is a `min_context`, else of prefixes."""
    split, length = split_dataset(data, protocol), protocol.max_length
    windows = (
        prefix_windows(data, split, length)
        if min_context is None
        else packed_windows(data, split, length, min_context, np.random.default_rng(0))
    )
    begins = windows.offsets[np.searchsorted(windows.offsets, windows.ends, side="right") - 1]
    return int(np.minimum(windows.ends - begins, length).sum()), windows.targets


@cache
def product_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Return the operations per second of a product of the size of the softmax's tiles, measured once."""
    left = torch.randn(1024, 64, device=device).to(dtype)
    right = torch.randn(64, TILE, device=device).to(dtype)
    return 2 * left.numel() * TILE / _seconds(lambda: left @ right)


@cache
def score_seconds(device: torch.device) -> float:
    """Return what a softmax of a tile takes for each of its scores, measured once."""
    scores = torch.randn(ROWS, TILE, device=device)
    return _seconds(lambda: scores.softmax(dim=1)) / scores.numel()


@cache
def call_seconds(device: torch.device) -> float:
    """Return what an operation on next to nothing takes, measured once."""
    values, calls = torch.randn(64, device=device), 200

    def call() -> torch.Tensor:
        for _ in range(calls):
            found = values + 1
        return found

    return _seconds(call) / calls


def _seconds(work: Callable[[], torch.Tensor]) -> float:
    """Return the least time of `work` and of waiting for the device to end it: what else the machine does only adds."""
    seconds = []
    for _ in range(41):
        began = time.perf_counter()
        work().sum().item()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


@dataclass(frozen=True)
class _Work:
    """Operations of a model's encoder per token, what it keeps, and its weights."""

    train: float
    rank: float
    kept: float
    """Bytes that the encoder keeps per token for the backward pass, in float32."""
    weights: int
    dense: int
    """Parameters that do not depend on the sizes of the catalogue."""
    tables: dict[str, int]
    """How many rows of d parameters an item, a provider and a user bring."""

    def parameters(self, config: NeuralConfig, data: PreparedDataset) -> int:
        """Return the number of all parameters on `data`."""
        sizes = {"items": data.num_items, "providers": data.num_providers, "users": data.num_users}
        rows = sum(self.tables[table] * size for table, size in sizes.items())
        return self.dense + config.embedding_size * rows


@cache
def _counted(name: str, settings: str, length: int, packed: bool) -> _Work:
    """Count on a small catalogue: neither operations per token nor weights other than tables depend on its size.

    Raises:
        ModelError: the model cannot be built, or asked.
    """
    try:
        return _count(name, settings, length, packed=packed)
    except Exception as error:  # whatever a model of the user's own raises
        raise ModelError(f"the model '{name}' does not work: {type(error).__name__}: {error}") from error


def _count(name: str, settings: str, length: int, *, packed: bool) -> _Work:
    config = model_entry(name).config.model_validate_json(settings)
    assert isinstance(config, NeuralConfig)
    sizes = {"users": 16, "items": 16, "providers": 16}  # and 17 shows what one more brings

    def build(**changed: int) -> SequentialModel:
        model = build_model(name, config, Sizes(**{**sizes, **changed}, max_length=length))
        assert isinstance(model, SequentialModel)
        return model.eval()

    def parameters(model: SequentialModel) -> int:
        return sum(weight.numel() for weight in model.parameters())

    model = build()
    tables = {table: (parameters(build(**{table: 17})) - parameters(model)) // config.embedding_size for table in sizes}
    ids = torch.arange(SAMPLE * length).view(SAMPLE, length) % 16 + 1
    histories = Histories(torch.zeros(SAMPLE, dtype=torch.int64), ids, ids, torch.full((SAMPLE,), length))
    operations: list[float] = []
    for every in (packed, False):
        # The counter knows attention's products only where they are written out.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            model.encode(histories, every_position=every)
        operations.append(counter.get_total_flops() / ids.numel())
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        views = model.train().encode(histories, every_position=packed)  # what it keeps lives as long as its result
    for weight in model.parameters():
        kept.pop(weight.untyped_storage().data_ptr(), None)
    del views
    dense = parameters(model) - config.embedding_size * 16 * sum(tables.values())
    train, rank = operations
    return _Work(train, rank, sum(kept.values()) / ids.numel(), len(list(model.parameters())), dense, tables)
