"""From a suite to the cells that are left to run."""

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipsrec_bench.data.datasets import KnownDatasets, known_datasets
from ipsrec_bench.data.prepare import preparation_state, prepare, prepared_path
from ipsrec_bench.data.prepared import PreparedDataset, load_prepared
from ipsrec_bench.data.sources import source_paths
from ipsrec_bench.data.split import Split, split_dataset
from ipsrec_bench.data.split_statistics import unknown_in_words, unknown_users
from ipsrec_bench.errors import BenchError, MissingDataError, MissingStoreError
from ipsrec_bench.events import DatasetLeftOut, DatasetReady, Emit
from ipsrec_bench.models.registry import is_installed, model_entry, module_at
from ipsrec_bench.precision import default_precision
from ipsrec_bench.store.connect import reading
from ipsrec_bench.store.queries import complete_keys
from ipsrec_bench.store.records import PlannedCell
from ipsrec_bench.suite.cells import NOTHING_TO_TUNE, Cell, Finders, expand, trainings
from ipsrec_bench.suite.load import SuiteFile
from ipsrec_bench.suite.schema import DatasetSpec
from ipsrec_bench.suite.shards import Shard
from ipsrec_bench.training.tasks.registry import task_entry

if TYPE_CHECKING:
    from ipsrec_bench.run.costs import CostEstimate


@dataclass(frozen=True, eq=False)
class Plan:
    """A suite's cells with their keys, the data they need, and which of them are complete in the store."""

    file: SuiteFile
    datasets: Mapping[str, PreparedDataset]
    cells: tuple[tuple[str, Cell], ...]
    """Key and cell, in the suite's order."""
    done: frozenset[str]
    share: frozenset[str] | None = None
    """Keys of the cells that this run may train, None for all; the others are left to other runs."""

    @property
    def mine(self) -> list[tuple[str, Cell]]:
        """The cells of this run, whether to do or done."""
        return [(key, cell) for key, cell in self.cells if self.share is None or key in self.share]

    def todo(self, *, force: bool = False) -> list[tuple[str, Cell]]:
        """Return the cells to run, equal keys once: those of the share that the store lacks, or all with `force`."""
        once: dict[str, Cell] = {}
        for key, cell in self.mine:
            once.setdefault(key, cell)
        return [(key, cell) for key, cell in once.items() if force or key not in self.done]

    def with_cells(self, cells: Iterable[Cell], store: Path) -> "Plan":
        """Return the plan of other cells on the same datasets, given the store that may have some of them."""
        keyed = tuple((key_of(cell, self.datasets[cell.dataset]), cell) for cell in cells)
        return replace(self, cells=keyed, done=frozenset(_complete(store, [key for key, _ in keyed])))

    def limited_to(self, shard: Shard) -> "Plan":
        """Return the plan of a run that does only the cells of `shard`."""
        return replace(
            self, share=shard.keys(self.cells, {name: data.fingerprint for name, data in self.datasets.items()})
        )

    def planned(self) -> list[PlannedCell]:
        """Return all cells as the store records them."""
        return [planned_cell(key, cell) for key, cell in self.cells]


@dataclass(frozen=True)
class RunOptions:
    """Which cells of a suite are run, and where."""

    force: bool = False
    """Run complete cells again."""
    available: bool = False
    """Skip datasets whose raw files are missing."""
    device: str = "auto"
    """Where cells are trained; it determines their precision, unless the suite sets it."""
    shard: Shard | None = None
    """Run only the cells of this share."""


@dataclass(frozen=True)
class PreviewedCell:
    """A cell as `--dry-run` shows it."""

    dataset: str
    label: str
    seed: int | None
    """None for a deterministic cell, which serves every seed."""
    key: str | None
    """None while the dataset is not prepared."""
    state: str
    """`done`, `to do`, or what keeps the data from being ready."""
    estimate: "CostEstimate | None" = None
    """None while the dataset is not prepared, and for cells that are done."""


def known_datasets_of(file: SuiteFile, data_dir: Path) -> KnownDatasets:
    """Return the datasets that `file` may name without describing them; stand-ins if it asks for them."""
    return known_datasets(data_dir, file.suite.scale if file.suite.stand_in else None)


def cells_of(file: SuiteFile, data_dir: Path = Path("data"), device: str = "auto") -> list[Cell]:
    """Expand `file` with the datasets and models that are known here, and with the modules in its folder.

    `device` is where they would be trained; it determines their precision, unless the suite sets it.

    Raises:
        SuiteError: a dataset or model is unknown, one of its settings is wrong, or a module in the suite's folder has
            the name of another one.
    """
    if not file.modules.is_dir():
        raise file.error(("modules",), f"there is no folder {file.modules}")
    if str(file.modules) not in sys.path:
        sys.path.append(str(file.modules))
    for place, module in _own_modules(file):
        here, taken = module_at(module, file.modules), module_at(module)
        if here and taken and not here.samefile(taken):
            raise file.error(place, f"the module '{module}' is {taken}, which hides {here}; rename your file")
    return expand(file, known_datasets_of(file, data_dir), Finders(model_entry, task_entry), default_precision(device))


def modules_elsewhere(file: SuiteFile) -> list[str]:
    """Return a sentence for each module that `file` imports and that is neither beside it nor a plug-in."""
    found = []
    for place, module in _own_modules(file):
        elsewhere = module_at(module, file.modules) or module_at(module)
        if elsewhere and not module_at(module, file.path.parent):
            name = ".".join(place)
            found.append(f"{name} imports the module '{module}' from outside of the suite's folder: {elsewhere}")
    return found


def _own_modules(file: SuiteFile) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the place and the top-level module of each model and task that is named as `module:Class`."""
    for label, table in file.suite.models.items():
        name = table.get("type", label)
        if isinstance(name, str) and ":" in name and not is_installed(name):
            yield (("models", label, "type") if "type" in table else ("models", label)), re.split("[.:]", name)[0]
        variants = table.get("variants")
        for place, part in (
            (("models", label), table),
            *((("models", label, "variants", str(v)), own) for v, own in dict(_table(variants)).items()),
        ):
            for task in _table(_table(part).get("tasks")):
                if ":" in task:
                    yield (*place, "tasks", task), re.split("[.:]", task)[0]


def _table(value: object) -> Mapping[str, Any]:
    """Return a table of a suite; an empty one for anything else, which is refused later."""
    return value if isinstance(value, Mapping) else {}


def preview(
    file: SuiteFile,
    data_dir: Path,
    store: Path,
    options: RunOptions,
    estimate: Callable[[Cell, PreparedDataset], "CostEstimate"],
    tuned: Callable[[Plan], Plan] = lambda plan: plan,
) -> list[PreviewedCell]:
    """Return every cell of `file`, whether it would be run, and what it takes; nothing is prepared or written.

    Args:
        file: the suite.
        data_dir: raw and prepared data.
        store: the store's file.
        options: which cells are returned, and where they would be trained.
        estimate: returns what a cell takes; called for the cells to do whose datasets are prepared.
        tuned: returns the plan of the prepared datasets with the best settings of its searches, its cells in order.

    Raises:
        BenchError: a share is requested, and a dataset is not prepared.
    """
    cells = list(trainings(cells_of(file, data_dir, options.device)))
    if options.available:
        missing = _missing({cell.dataset: cell.source for cell in cells}, data_dir)
        cells = [cell for cell in cells if cell.dataset not in missing]
    sources = {cell.dataset: cell.source for cell in cells}
    states = {name: preparation_state(name, source, data_dir) for name, source in sources.items()}
    datasets = {
        name: load_prepared(name, prepared_path(name, source, data_dir))
        for name, source in sources.items()
        if states[name] == "prepared"
    }
    if options.shard is not None:
        if missing_data := [name for name in states if name not in datasets]:
            raise BenchError(
                f"--shard {options.shard}: its cells depend on the data, and {', '.join(missing_data)} is not prepared"
                " yet; prepare it with run --collect"
            )
        fingerprints = {name: data.fingerprint for name, data in datasets.items()}
        mine = options.shard.keys(((key_of(cell, datasets[cell.dataset]), cell) for cell in cells), fingerprints)
        cells = [cell for cell in cells if key_of(cell, datasets[cell.dataset]) in mine]
    keyed = tuple((key_of(cell, datasets[cell.dataset]), cell) for cell in cells if cell.dataset in datasets)
    settled = iter(tuned(Plan(file, datasets, keyed, frozenset())).cells)
    cells = [next(settled)[1] if cell.dataset in datasets else cell for cell in cells]
    keys = [key_of(cell, datasets[cell.dataset]) if cell.dataset in datasets else None for cell in cells]
    done = set() if options.force else _complete(store, [key for key in keys if key is not None])
    return [
        PreviewedCell(
            cell.dataset,
            cell.shown,
            None if cell.deterministic else cell.seed,
            key,
            ("done" if key in done else "to do") if key else f"data {states[cell.dataset]}",
            estimate(cell, datasets[cell.dataset]) if key is not None and key not in done else None,
        )
        for cell, key in zip(cells, keys, strict=True)
    ]


def key_of(cell: Cell, data: PreparedDataset) -> str:
    """Return the content key of `cell` on `data`."""
    return cell.key(data.fingerprint, data.times_per_second)


def planned_cell(key: str, cell: Cell) -> PlannedCell:
    """Return the cell with its labels.

    A model with the name of its type gets the title of the type. The note on its training is part of it.
    """
    title = model_entry(cell.type).title if cell.model == cell.type else cell.model
    title += cell.note
    name = cell.condition
    return PlannedCell(
        key,
        cell.dataset,
        cell.model,
        title,
        cell.type,
        cell.variant,
        cell.seed,
        base="" if name.base == cell.dataset else name.base,
        control=name.control,
        protocol=name.protocol,
        tuning=cell.tuning or ("untuned" if is_searchable(cell) else NOTHING_TO_TUNE),
    )


def is_searchable(cell: Cell) -> bool:
    """Return whether its model has settings that a search can vary by default."""
    return not cell.counts or bool(model_entry(cell.type).config.search)


def make_plan(
    file: SuiteFile, data_dir: Path, store: Path, emit: Emit, *, available: bool = False, device: str = "auto"
) -> Plan:
    """Prepare the suite's datasets and look up which of its cells are complete in the store.

    Args:
        file: the suite.
        data_dir: raw and prepared data; stand-ins that the suite asks for are made there.
        store: the store's file.
        emit: callback that receives an event for every dataset.
        available: skip datasets whose raw files are missing.
        device: where cells would be trained.

    Raises:
        SuiteError, DataError, StoreError: the suite, a dataset or the store is not usable.
    """
    cells_of(file, data_dir)  # reports a mistake in the suite before stand-ins are made
    known = known_datasets_of(file, data_dir)
    for name in file.suite.datasets:
        known.provide(name)
    cells = cells_of(file, data_dir, device)
    missing = _missing({cell.dataset: cell.source for cell in cells}, data_dir)
    cells = [cell for cell in cells if cell.dataset not in missing]
    if missing and not (available and cells):
        raise MissingDataError(
            "\n".join(missing.values()) + ("\nRun the other datasets with --available." if cells else "")
        )
    for name, reason in missing.items():
        emit(DatasetLeftOut(name, reason))
    datasets: dict[str, PreparedDataset] = {}
    for cell in cells:
        if cell.dataset not in datasets:
            began = time.perf_counter()
            data = datasets[cell.dataset] = prepare(cell.dataset, cell.source, data_dir)
            s = data.statistics
            seconds = time.perf_counter() - began
            split = split_dataset(data, cell.protocol)  # raises, if no user can be evaluated, before anything runs
            notes = (*data.reading.notes, *_on_unknown_users(cell.dataset, cells, data, split))
            emit(DatasetReady(cell.dataset, s.users, s.items, s.providers, s.actions, seconds, notes))
    keyed = tuple((key_of(cell, datasets[cell.dataset]), cell) for cell in cells)
    return Plan(file, datasets, keyed, frozenset(_complete(store, [key for key, _ in keyed])))


def _on_unknown_users(dataset: str, cells: Iterable[Cell], data: PreparedDataset, split: Split) -> Iterator[str]:
    """Yield a sentence on the test users of whom training sees nothing, if a model of `dataset` knows users by id."""
    models = {cell.model: None for cell in cells if cell.dataset == dataset and model_entry(cell.type).uses_users}
    unknown = unknown_users(data, split, split.trained(data)) if models else 0
    if unknown:
        yield unknown_in_words(unknown, split.test.num_users, list(models))


def _missing(sources: Mapping[str, DatasetSpec], data_dir: Path) -> dict[str, str]:
    """Return, for every dataset without its raw files, which are missing and where they come from."""
    found = {}
    for name, source in sources.items():
        try:
            source_paths(source, data_dir)
        except MissingDataError as error:
            found[name] = str(error)
    return found


def _complete(store: Path, keys: list[str]) -> set[str]:
    try:
        with reading(store) as connection:
            return complete_keys(connection, keys)
    except MissingStoreError:
        return set()
