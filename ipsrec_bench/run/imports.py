"""Imports of ranks that were computed elsewhere, beside a suite's own."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import ipsrec_bench
from ipsrec_bench.data.predictions import read_predictions
from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.split import split_dataset, target_sets
from ipsrec_bench.data.split_statistics import held_out_facts
from ipsrec_bench.errors import SuiteError, did_you_mean, listed
from ipsrec_bench.ranking.ranks import Ranks
from ipsrec_bench.run.plan import cells_of, planned_cell
from ipsrec_bench.store.connect import writing
from ipsrec_bench.store.ingest import claim_name, record_import, record_split, record_targets
from ipsrec_bench.store.queries import fits
from ipsrec_bench.store.records import EXTERNAL, CellRecord, Environment, PlannedCell
from ipsrec_bench.suite.load import SuiteFile

_ELSEWHERE = Environment(
    package=ipsrec_bench.__version__,
    python="unknown",
    torch="unknown",
    numpy="unknown",
    duckdb="unknown",
    platform="imported: where it was trained is not known",
    processor="unknown",
    cores=0,
    threads=0,
    device="unknown",
    revision="",
)


@dataclass(frozen=True, eq=False)
class Imported:
    """What was imported, and what it replaced."""

    record: CellRecord
    replaced: str | None
    """The file whose ranks were replaced; None if there was none."""
    fits: bool
    """Whether the newest run of the suite has the same targets and candidates, so that its report shows it."""


@dataclass(frozen=True)
class Labels:
    """Where imported ranks appear in a suite's tables."""

    model: str
    """The row's name; it must differ from the suite's own rows."""
    variant: str = ""
    """Variant of the model."""
    seed: int = 1
    """Seed with which it was trained; it is compared with the suite's cells of the same seed."""
    dataset: str | None = None
    """A dataset of the suite; its only one if not given."""


def import_ranks(
    path: Path,
    file: SuiteFile,
    data_dir: Path,
    store: Path,
    labels: Labels,
    *,
    replace: bool = False,
) -> Imported:
    """Read the predictions at `path` for the test targets of `file`'s dataset and write them to the store.

    Every run of the suite with the same targets then shows them as a row of its tables.

    Args:
        path: the predictions; see `read_predictions`.
        file: the suite whose protocol says what is held out.
        data_dir: raw and prepared data.
        store: the store's file.
        labels: where they appear in the suite's tables.
        replace: replace other ranks of the same targets that were imported under the same names.

    Raises:
        SuiteError: the suite lacks the dataset, or has a row of that name, or the name is not valid; or the store has
            another suite of the suite's name.
        DataError: the predictions are not of this dataset, or are incomplete.
        StoreError: the store cannot be written, or has other ranks under this name.
    """
    model, variant, seed, dataset = labels.model, labels.variant, labels.seed, labels.dataset
    cells = cells_of(file, data_dir)
    sources = {cell.dataset: cell for cell in cells if cell.condition.label == cell.condition.base}
    if dataset is None and len(sources) == 1:
        dataset = next(iter(sources))
    if dataset not in sources:
        found = f"has no dataset '{dataset}'" if dataset else "has several datasets; name one with --dataset"
        hint = did_you_mean(dataset or "", sources)
        raise SuiteError(f"{file.path}: the suite {found}{hint or f': {listed(sources)}'}")
    label = f"{model} {variant}".strip()
    taken = {cell.label for cell in cells} | {cell.display for cell in (planned_cell("", cell) for cell in cells)}
    if label in taken or model in file.suite.models:
        raise SuiteError(f"{file.path}: the suite has a row '{label}' itself; give the imported one another name")
    if not model.strip() or label == "best" or not label.isprintable():
        raise SuiteError(f"--model {model!r}: a row of the tables needs a name, and it may not be 'best'")
    cell = sources[dataset]
    if cell.protocol.target == "all":
        raise SuiteError(
            f"{file.path}: protocol.target = 'all' has several targets of a user, and an imported file has one for each"
            " user; import for target = 'first', 'last' or 'random'"
        )
    data = prepare(dataset, cell.source, data_dir)
    split = split_dataset(data, cell.protocol)
    predictions = read_predictions(path, data, split.test, mask_history=cell.protocol.mask_history)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    settings = {
        "config": {"file": path.name, "sha256": digest},
        "protocol": cell.settings()["protocol"],
    }
    content = json.dumps([EXTERNAL, data.fingerprint, seed, model, variant, settings], sort_keys=True)
    record = CellRecord(
        key=hashlib.sha256(content.encode()).hexdigest()[:32],
        fingerprint=data.fingerprint,
        type=EXTERNAL,
        seed=seed,
        settings=json.dumps(settings, sort_keys=True),
        environment=_ELSEWHERE,
        started=datetime.now(UTC),
        seconds=0.0,
        depth=predictions.depth,
        split_name=cell.protocol.split_name,
        ranks={"test": Ranks(predictions.users, predictions.higher, predictions.ties)},
        target_sets=target_sets(data, split, cell.protocol),
    )
    planned = PlannedCell(record.key, dataset, model, model, EXTERNAL, variant, seed)
    facts, statistics = held_out_facts(data, cell.protocol)
    with writing(store) as connection:
        claim_name(connection, file, store)
        replaced = record_import(connection, file.name, data, planned, record, replace=replace)
        record_targets(connection, data.fingerprint, cell.protocol, facts)
        record_split(connection, data.fingerprint, cell.protocol, statistics)
        return Imported(record, replaced, fits(connection, file.name, record.key))
