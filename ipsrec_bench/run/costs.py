"""Time and memory that cells take: measured by earlier runs, probed, or bounded from their settings.

Nothing here imports torch.
"""

import heapq
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.errors import MissingStoreError
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.models.registry import model_entry
from ipsrec_bench.store.connect import reading
from ipsrec_bench.store.queries import like_cells
from ipsrec_bench.suite.cells import Cell

LEAST_PROCESS, MOST_PROCESS, MOST_CUDA_PROCESS = 200 << 20, 700 << 20, 5 << 30
"""Bytes of a process that has loaded torch but no data: lower bound, upper bound, and upper bound with CUDA."""


_OF_MAIN = {
    "alignment",
    "next-item",
    "next-or-first-item",
    "provider-contrast",
    "provider-prediction",
    "stream-contrast",
}
"""Tasks that encode no other histories than those of the batch; any other one encodes at most two of each."""


@dataclass(frozen=True)
class Cost:
    """Time and memory of one cell."""

    epoch_seconds: float | None
    """Seconds to train and validate an epoch, the mean over all epochs of all stages; None without training."""
    seconds: float
    """Seconds for the whole cell. A probe assumes that training does not stop early, so its value is an upper bound."""
    memory: int
    """Peak resident bytes of the process."""
    device_memory: int | None
    """Peak bytes that torch allocated on a GPU; None on a CPU or if not measured."""
    source: Literal["measured", "probed"]
    """`measured`: from cells in the store that differ only in their seed. `probed`: from a few steps of training."""


@dataclass(frozen=True)
class NoCost:
    """Why a probe found no cost."""

    reason: str
    does_not_fit: bool
    """Whether the probe ran out of memory; otherwise the cell itself would fail, too."""


CostEstimate = Cost | NoCost

CellKind = tuple[str, str]
"""Fingerprint of the data, and settings as JSON; cells that differ only in their seed have the same kind."""


def kind_of(cell: Cell, data: PreparedDataset) -> CellKind:
    """Return the kind of `cell` on `data`."""
    return data.fingerprint, json.dumps(cell.settings(), sort_keys=True)


def measured_costs(store: Path, kinds: Iterable[CellKind], *, cuda: bool, threads: int) -> dict[CellKind, Cost]:
    """Return the costs of those `kinds` of which the store holds complete cells.

    Args:
        store: the store's file, which may be missing.
        kinds: kinds of the cells in question.
        cuda: whether they will be trained on a GPU; stored cells that were trained otherwise are ignored.
        threads: number of torch threads; stored cells with another number are ignored.

    Raises:
        StoreError: the store cannot be read.
    """
    try:
        with reading(store) as connection:
            found = like_cells(connection, list(kinds), cuda=cuda, threads=threads)
    except MissingStoreError:
        return {}
    return {
        kind: Cost(like.epoch_seconds, like.seconds, like.peak_memory, None, "measured") for kind, like in found.items()
    }


def least_memory(cell: Cell, data: PreparedDataset) -> int:
    """Return a lower bound on the peak bytes of a process that trains on a CPU: tables, gradients, moments, data."""
    return LEAST_PROCESS + 8 * len(data.items) + _tables(cell, data, copies=1 if cell.counts or cell.parent else 4)


def most_memory(cell: Cell, data: PreparedDataset, *, cuda: bool = False) -> int | None:
    """Return an upper bound on the peak bytes of the process, or None if the settings do not give one.

    The bound is several times the real peak: tables count twice, all intermediate results of a step are assumed to
    live until its end, and scores are not tiled. Classes outside the toolkit have no bound, because their tables are
    unknown. Models that are trained on single interactions have none, because a step may encode all users and items.
    Models that count have none, because their tables depend on the interactions.
    """
    config, training, length = cell.config, cell.training, cell.protocol.max_length
    if cell.code or cell.task_code or not isinstance(config, NeuralConfig):
        return None
    stages = config.stages()
    if any(stage.samples == "interactions" for stage in stages):
        return None
    layers, width = getattr(config, "n_layers", 1), config.layer_width
    # Packed windows overlap, and are padded to the longest of their batch: twice the tokens each time.
    repeated = length if training.samples == "prefix" else 4 * length / (length - training.min_context)
    tokens = training.batch_size * min(length, repeated)
    # A step's intermediate results per token: projections, attention weights, feed-forward layers, dropout masks, and
    # their gradients.
    if any(stage.samples == "histories" for stage in stages):
        tokens = training.batch_size * length
    further = max(sum(use.name not in _OF_MAIN for use in stage.tasks) for stage in stages)
    tokens *= 1 + 2 * further
    kept = 4 * tokens * 32 * layers * (width + getattr(config, "n_heads", 1) * length)
    # Filters of all heights up to the length, where there are filters; else squares of the widths.
    weights = 12 * layers * width**2 + getattr(config, "n_horizontal", 0) * config.embedding_size * length**2
    scored = data.num_items if training.objective == "softmax" else training.negatives
    scores = 12 * training.batch_size * (scored + training.batch_size)
    if training.objective != "softmax" and training.negatives_per == "target":  # each negative's vector and gradient
        scores += 12 * training.batch_size * training.negatives * config.embedding_size
    process = MOST_CUDA_PROCESS if cuda else MOST_PROCESS
    return process + 64 * len(data.items) + _tables(cell, data, copies=8) + int(32 * weights + kept + scores)


def finishing_time(cells: Sequence[tuple[float, int]], jobs: int, memory: int) -> float:
    """Return the seconds until the last of `cells` ends, if each begins as soon as a job and memory are free.

    Args:
        cells: seconds and bytes of each, in the order in which they begin.
        jobs: maximum number of cells that run at once.
        memory: bytes for all cells that run at once; a cell that needs more runs alone.
    """
    now, free = 0.0, memory
    running: list[tuple[float, int]] = []
    waiting = list(cells)
    while waiting:
        fitting = next((i for i, (_, need) in enumerate(waiting) if need <= free or not running), None)
        if fitting is None or len(running) == jobs:
            now, need = heapq.heappop(running)
            free += need
            continue
        seconds, need = waiting.pop(fitting)
        free -= need
        heapq.heappush(running, (now + seconds, need))
    return max((end for end, _ in running), default=0.0)


def _tables(cell: Cell, data: PreparedDataset, *, copies: int) -> int:
    """Return the bytes of `copies` copies of the item and provider tables in float32."""
    if not isinstance(cell.config, NeuralConfig):
        return 0
    entry = model_entry(cell.type)
    rows = data.num_items
    rows += data.num_providers if entry.uses_providers else 0
    rows += data.num_users if entry.uses_users else 0
    return 4 * copies * cell.config.embedding_size * rows
