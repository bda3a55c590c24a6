"""Checks of what a suite needs: its data, and disk space."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ipsrec_bench.data.datasets import KnownDatasets
from ipsrec_bench.data.prepare import preparation_state, prepared_path
from ipsrec_bench.data.prepared import PreparedDataset, load_prepared
from ipsrec_bench.data.sources import source_paths
from ipsrec_bench.errors import BenchError, MissingDataError
from ipsrec_bench.run.doctor.finding import Finding
from ipsrec_bench.run.doctor.machine import existing
from ipsrec_bench.run.plan import cells_of, key_of, known_datasets_of
from ipsrec_bench.suite.cells import Cell, trainings
from ipsrec_bench.suite.load import SuiteFile
from ipsrec_bench.suite.schema import DatasetSpec
from ipsrec_bench.words import counted

RANK_BYTES = 12
"""Bytes of one rank (user, items above the target, ties) before DuckDB compresses it."""
SPLITS = 2
WEIGHT_BYTES = 4
STATE = 4
"""Size of an unfinished training as a multiple of its weights: weights, Adam's two moments, the best weights."""
PACKED = 8
"""Assumed compression ratio of packed raw files."""
PACKED_ENDINGS = {".gz", ".zip", ".xz", ".bz2", ".7z", ".zst"}
LITTLE_ROOM = 1 << 30
"""Free bytes below which a disk counts as nearly full if the need is unknown."""


@dataclass(frozen=True)
class Needs:
    """Approximate bytes that a suite still needs; a lower bound if `unknown` names datasets."""

    store: int
    data: int
    unknown: tuple[str, ...]


def check_suite(file: SuiteFile, data_dir: Path, complete: frozenset[str]) -> tuple[list[Finding], Needs | None]:
    """Return findings on the suite and its data, and what it still needs; nothing is prepared.

    Args:
        file: the suite.
        data_dir: raw and prepared data.
        complete: keys of the complete cells in the store.
    """
    name = f"suite {file.name}"
    try:
        cells, known = list(trainings(cells_of(file, data_dir))), known_datasets_of(file, data_dir)
    except (BenchError, ImportError) as error:  # a user's own model may import a broken torch
        return [
            Finding(name, "problem", str(error), f"correct {file.path}, then: ipsrec-bench validate {file.path}")
        ], None
    sources = {cell.dataset: cell.source for cell in cells}
    states = {label: _state(label, source, data_dir, known) for label, source in sources.items()}
    ready = {
        label: load_prepared(label, prepared_path(label, source, data_dir))
        for label, source in sources.items()
        if states[label].startswith("prepared")
    }
    todo = [cell for cell in cells if cell.dataset not in ready or key_of(cell, ready[cell.dataset]) not in complete]
    findings = [Finding(name, "ok", f"{counted(len(cells), 'cell')}, {len(todo)} to run")]
    findings += [_data(label, state) for label, state in states.items()]
    raw = sum(_raw_size(source, data_dir) for label, source in sources.items() if label not in ready)
    unknown = tuple(label for label in sources if label not in ready)
    return findings, Needs(_store_size(todo, ready), raw, unknown)


def check_disk(name: str, folder: Path, need: int | None, unknown: Iterable[str] = ()) -> Finding:
    """Return whether the disk of `folder` has enough space.

    Args:
        name: name of the check.
        folder: the folder, which may not exist yet.
        need: approximate bytes; None if unknown.
        unknown: datasets whose additional need is unknown.
    """
    place = existing(folder)
    free = shutil.disk_usage(place).free
    said = f"{_size(free)} free at {place}"
    more = ", and more for data that are not prepared yet" if [*unknown] else ""
    if need is not None:
        said += f"; the suite needs about {_size(need)}{more}"
    if need is not None and free < need:
        return Finding(name, "problem", said, "make room, or put it on another disk")
    if free < LITTLE_ROOM and (need is None or more):
        return Finding(name, "note", f"{said}; that is little", "make room: ipsrec-bench gc removes unneeded files")
    return Finding(name, "ok", said)


def _state(label: str, source: DatasetSpec, data_dir: Path, known: KnownDatasets) -> str:
    state = preparation_state(label, source, data_dir)
    if not state.startswith("missing"):
        return state
    if known.stand_in(label):
        return "not prepared; the run generates it first"
    if known.entry(label) is not None and known.state(label).endswith("is there"):  # an archive
        return "not prepared; the run unpacks it first"
    return state


def _data(label: str, state: str) -> Finding:
    name = f"data {label}"
    if not state.startswith("missing"):
        return Finding(
            name, "ok", f"{state}" if state.startswith("prepared") or ";" in state else f"{state} yet; a run does it"
        )
    what, _, remedy = state.removeprefix("missing: ").partition("; ")
    leave_out = "leave it out with run --available"
    return Finding(name, "problem", what, f"{remedy}; or {leave_out}" if remedy else leave_out)


def _raw_size(source: DatasetSpec, data_dir: Path) -> int:
    """Return the approximate bytes of the raw files; the prepared form is no larger."""
    try:
        paths = source_paths(source, data_dir)
    except (MissingDataError, BenchError):
        return 0
    return sum(path.stat().st_size * (PACKED if path.suffix in PACKED_ENDINGS else 1) for path in paths)


def _store_size(todo: Iterable[Cell], ready: dict[str, PreparedDataset]) -> int:
    """Return the approximate bytes of the cells' ranks and weights, and of the largest training state."""
    known = [(cell, ready[cell.dataset]) for cell in todo if cell.dataset in ready]
    weights = [_weights(cell, data) for cell, data in known]
    ranks = sum(RANK_BYTES * SPLITS * data.num_users for _, data in known)
    return ranks + sum(weights) + STATE * max(weights, default=0)


def _weights(cell: Cell, data: PreparedDataset) -> int:
    """Return the approximate bytes of a model's weights, counting only its tables, which dominate."""
    width = getattr(cell.config, "embedding_size", 0)
    rows = (
        data.num_items + data.num_providers + cell.protocol.max_length + (data.num_users if cell.type == "caser" else 0)
    )
    return WEIGHT_BYTES * width * rows


def _size(number: int) -> str:
    if number < 1 << 20:
        return "1 MiB or less"
    return f"{number / 2**30:,.1f} GiB" if number >= 1 << 30 else f"{number / 2**20:,.0f} MiB"
