"""What to tune: a suite's models on one of its datasets, or models and a dataset by their names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.errors import BenchError, did_you_mean, listed
from ipsrec_bench.run.plan import cells_of, known_datasets_of
from ipsrec_bench.suite.cells import Cell
from ipsrec_bench.suite.load import SuiteFile, adhoc_suite, load_suite
from ipsrec_bench.suite.schema import Tune
from ipsrec_bench.tuning.search import Search
from ipsrec_bench.tuning.space import Space, check_spaces, search_space
from ipsrec_bench.tuning.study import open_storage, open_study, study_name


@dataclass(frozen=True)
class Subject:
    """What to tune, as a command names it."""

    suite: Path | None
    """Source of protocol, training and model settings; None means defaults throughout."""
    dataset: str | None
    """A dataset of the suite (its first if None), or a known one where there is no suite."""
    models: Sequence[str]
    """Labels of models of the suite, or models' names where there is no suite."""
    overrides: Sequence[str] = ()
    """`key.path=value`."""


def searches(
    subject: Subject,
    data_dir: Path,
    prepare: Callable[[Cell], PreparedDataset],
    storage: str,
    device: str = "auto",
    loaded: Callable[[SuiteFile], object] = lambda _: None,
) -> tuple[SuiteFile, list[Search]]:
    """Return the suite, and a search for every model that is to be tuned.

    Args:
        subject: what to tune.
        data_dir: raw data; a stand-in that the suite asks for is made there.
        prepare: prepares the dataset of a cell.
        storage: a folder for journal files, or the URL of a database.
        device: where trials are trained.
        loaded: callback that receives the suite before any of its modules is imported.

    Raises:
        BenchError: the suite is wrong, or has no such dataset or model.
    """
    models, dataset = subject.models, subject.dataset
    if subject.suite is None:
        if dataset is None:
            raise BenchError("name a dataset with --dataset, or a suite")
        file = adhoc_suite([dataset], models, subject.overrides)
    else:
        file = load_suite(subject.suite, subject.overrides)
    loaded(file)
    known_datasets_of(file, data_dir).provide(dataset or next(iter(file.suite.datasets)))
    cells = [cell for cell in cells_of(file, data_dir, device) if not cell.variant]
    wanted_dataset = dataset or cells[0].dataset
    for what, wanted, known in (
        *(("model", model, {cell.model for cell in cells}) for model in models),
        ("dataset", wanted_dataset, {cell.dataset for cell in cells}),
    ):
        if wanted not in known:
            raise BenchError(
                f"{file.path}: the suite has no {what} '{wanted}'"
                f"{did_you_mean(wanted, known) or f'; it has {listed(sorted(known))}'}"
            )
    chosen = [next(cell for cell in cells if (cell.model, cell.dataset) == (model, wanted_dataset)) for model in models]
    check_spaces(file, cells)
    spaces = [search_space(file, cell) for cell in chosen]
    data = prepare(chosen[0])
    return file, [
        open_search(cell, space, file.suite.tune, data, storage) for cell, space in zip(chosen, spaces, strict=True)
    ]


def open_search(cell: Cell, space: Space, tune: Tune, data: PreparedDataset, storage: str) -> Search:
    """Return the search of `cell` in `space`, with its study in the folder or database `storage`; begin that if needed.

    Raises:
        StudyError: the study cannot be opened.
    """
    cell = cell.without_refit()
    name = study_name(cell, data.fingerprint, space, tune)
    place = storage if "://" in storage else f"{storage}/{name}.journal"
    study = open_study(open_storage(place), name, cell, data.fingerprint, space, tune)
    return Search(study, place, cell, space, tune, data)


def has_study(cell: Cell, space: Space, tune: Tune, data: PreparedDataset, folder: str) -> bool:
    """Return whether `folder` has the journal of the study that `open_search` would open."""
    return Path(folder, f"{study_name(cell.without_refit(), data.fingerprint, space, tune)}.journal").exists()
