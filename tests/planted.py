"""A store with planted ranks, so that the content of its report is known."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from ipsrec_bench.data.target_facts import TargetFacts
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.ranking.ranks import Ranks
from ipsrec_bench.report.build import build_report
from ipsrec_bench.report.content import Report
from ipsrec_bench.report.material import read_material
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.stats.differences import rounded
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.ingest import begin_run, record_cell, record_targets
from ipsrec_bench.store.records import PlannedCell
from ipsrec_bench.suite.load import parse_suite

from .test_store import record

WRITTEN = tempfile.TemporaryDirectory()
"""Stores by a digest of their options, until the process ends."""
USERS = 400
SEEDS = (1, 2, 3)
ROWS = [("pop", ""), ("sasrec", ""), ("ipsrec-s", ""), ("ipsrec-s", "w/o CL")]
SUITE = """
title = "Planted"
seeds = [1, 2]
datasets = ["positive-control"]
models = ["pop", "sasrec", "ipsrec-s"]
[protocol]
metrics = ["hr", "mrr"]
[statistics]
{statistics}
"""
NASTY = "<script>alert(1)</script> | & % *x* $y_z^ {a}\\b # ~ 🎲"
SETTINGS = '{"config": {}, "training": {}, "protocol": {"max_length": 5}}'


def planted_ranks(row: int, seed: int, users: int = USERS) -> np.ndarray:
    """Ranks that get better from row to row."""
    return np.random.default_rng([seed, row]).geometric(0.02 * (1 + row) ** 1.5, users)


def mean_over_seeds(row: int, name: str, seeds: Sequence[int] = SEEDS) -> np.ndarray:
    return np.mean([metric(name, planted_ranks(row, seed)) for seed in seeds], axis=0)


def difference_of(row: int, reference: int, name: str) -> np.ndarray:
    """What every statistic over users is of."""
    return rounded(mean_over_seeds(row, name) - mean_over_seeds(reference, name))


def planted_facts(users: int) -> TargetFacts:
    """Facts of which every slice has somebody."""
    rng = np.random.default_rng(3)
    provider_count = rng.integers(-1, 50, users).astype(np.int32)
    return TargetFacts(
        users=np.arange(users, dtype=np.int32),
        history=rng.integers(2, 40, users).astype(np.int32),
        item_count=rng.integers(0, 9, users).astype(np.int32),
        provider_count=provider_count,
        item_seen=rng.random(users) < 0.2,
        provider_seen=(rng.random(users) < 0.5) & (provider_count >= 0),
    )


def fill(path: Path, **options: object) -> Path:
    """Write a run as `write` does; a new store is a copy of an earlier one with equal options."""
    if path.exists() or any(map(callable, options.values())):
        return write(path, **options)
    kept = Path(WRITTEN.name) / hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()
    if not kept.exists():
        write(kept, **options)
    return Path(shutil.copyfile(kept, path))


def write(
    path: Path,
    *,
    statistics: str = "",
    datasets: Sequence[str] = ("d",),
    rows: Sequence[tuple[str, str]] = ROWS,
    seeds: Sequence[int] = SEEDS,
    users: int = USERS,
    items: int = 900,
    leave_out: Collection[tuple[str, int]] = (),
    errors: Collection[tuple[str, int]] = (),
    title: str = "Planted",
    display: Callable[[str], str] = str.upper,
    settings: Callable[[str, str], str] = lambda _model, _variant: SETTINGS,
    stand_in: bool = False,
    scale: float = 1.0,
    facts: bool = True,
    fingerprint: str = "f",
) -> Path:
    """Write a run of the suite whose cells have `planted_ranks`, the row's place in `rows` giving how good it is."""
    text = SUITE.format(statistics=statistics).replace("Planted", title.replace("\\", "\\\\"))
    suite = parse_suite(Path("planted.toml"), text.replace("seeds = [1, 2]", f"seeds = {list(seeds)}"))
    cells = [
        PlannedCell(f"{dataset}{model}{variant}{seed}", dataset, model, display(model), model, variant, seed)
        for dataset in datasets
        for seed in seeds
        for model, variant in rows
    ]
    with writing(path) as connection:
        begin_run(connection, suite, [], cells)
        for number, dataset in enumerate(datasets):
            connection.execute(
                "INSERT OR IGNORE INTO datasets VALUES (?, ?, ?, ?, 3, 20, 19, 4.0, 0.1, 0, 0.5, NULL, ?, ?, 'none')",
                [f"{fingerprint}{number or ''}", dataset, users, items, stand_in, scale],
            )
            if facts:
                record_targets(connection, f"{fingerprint}{number or ''}", suite.suite.protocol, planted_facts(users))
        for cell in cells:
            place = (cell.label, cell.seed)
            ranks = planted_ranks(rows.index((cell.model, cell.variant)), cell.seed, users) - 1
            ranks = np.minimum(ranks, items - 1).astype(np.int32)
            test = Ranks(np.arange(users), ranks, np.zeros(users, dtype=np.int32))
            changes = {
                "fingerprint": f"{fingerprint}{datasets.index(cell.dataset) or ''}",
                "settings": settings(cell.model, cell.variant),
                "type": cell.type,
                "seed": cell.seed,
            }
            if place in errors:
                error = "Traceback\nMemoryError: too big"
                record_cell(connection, record(cell.key, error=error, ranks=None, epochs=(), **changes))
            elif place not in leave_out:
                record_cell(connection, record(cell.key, ranks={"test": test}, **changes))
    return path


def built(path: Path, suite: str | None = None) -> Report:
    with reading(path) as connection:
        return build_report(read_material(connection, read_run(connection, suite)))
