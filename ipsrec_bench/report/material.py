"""Everything that a report needs from the store, read at once: the store is closed before the statistics begin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.split_statistics import SplitStatistics
from ipsrec_bench.data.target_facts import TargetFacts
from ipsrec_bench.report.results import row_of
from ipsrec_bench.report.runs import Run
from ipsrec_bench.store import queries
from ipsrec_bench.store.connect import Connection
from ipsrec_bench.store.queries import Basis, CellSummary, CurvePoint, RankedUsers, TestRanks
from ipsrec_bench.store.records import DatasetRow, Environment, RunDataset
from ipsrec_bench.suite.schema import Filter


@dataclass(frozen=True)
class Material:
    """What the store has of a run."""

    run: Run
    summaries: dict[str, CellSummary]
    """By key, as in all that is of cells."""
    environments: dict[str, Environment]
    bases: Mapping[str, Basis]
    """Of the run's cells and of its stale ones."""
    ranks: dict[str, TestRanks]
    valid: Mapping[str, NDArray[np.int64] | NDArray[np.float64]]
    """How many validation users have each rank; of whole models, where the suite's baseline is the best of them."""
    users: Mapping[str, Mapping[str, RankedUsers]]
    """By key, then by split."""
    valid_means: Mapping[str, float]
    """The report's metric on the validation targets, by key; imports have none."""
    curves: Sequence[CurvePoint]
    recorded: Mapping[str, RunDataset]
    """What the run was started on, by label."""
    datasets: Mapping[str, DatasetRow]
    """By fingerprint, as are `splits` and `targets`."""
    splits: Mapping[str, SplitStatistics | None]
    targets: Mapping[str, TargetFacts | None]


def training_filter(summary: CellSummary) -> Filter | None:
    """Return the filter of the interactions that a cell was trained on; None if it was trained on all of its dataset's.

    A filter enters the settings of a cell only if it is for training alone.
    """
    said = summary.settings.get("protocol", {}).get("filter")
    return None if said is None else Filter.model_validate(said)


def splits_of(run: Run, summaries: Mapping[str, CellSummary]) -> dict[str, str]:
    """Return the name of the main protocol's split by fingerprint; a dataset may have its own filter."""
    found = {}
    for cell in (*run.further, *run.cells):  # the last one counts
        if cell.key in summaries:
            own = training_filter(summaries[cell.key])
            protocol = run.suite.protocol
            protocol = protocol if own is None else protocol.model_copy(update={"filter": own})
            found[summaries[cell.key].fingerprint] = protocol.split_name
    return found


def read_material(connection: Connection, run: Run) -> Material:
    """Return what the store has of `run`."""
    keys = [cell.key for cell in (*run.cells, *run.further)]
    summaries = queries.cell_summaries(connection, keys)
    fingerprints = {one.fingerprint for one in summaries.values()}
    splits = splits_of(run, summaries)
    return Material(
        run,
        summaries,
        queries.environments(connection, {one.environment for one in summaries.values()}),
        queries.bases(connection, [*keys, *(cell.key for cell in run.stale)]),
        queries.test_ranks(connection, keys, run.suite.protocol.ties),
        valid_counts_of(connection, run),
        queries.ranked_users(connection, keys),
        queries.means_of(connection, keys, run.suite.main_metric, "valid", run.suite.protocol.ties),
        queries.learning_curves(connection, keys),
        queries.run_datasets(connection, run.run),
        queries.datasets(connection, fingerprints),
        {one: queries.split_statistics(connection, one, splits[one]) for one in fingerprints},
        {one: queries.target_facts(connection, one, splits[one]) for one in fingerprints},
    )


def valid_counts_of(connection: Connection, run: Run) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
    """Return the validation ranks that the baseline of `run` is chosen by; nothing where it is declared."""
    if run.suite.statistics.baseline != "best":
        return {}
    keys = [cell.key for cell in (*run.cells, *run.further) if row_of(cell).whole]
    return queries.valid_counts(connection, keys, max(run.suite.protocol.cutoffs), run.suite.protocol.ties)
