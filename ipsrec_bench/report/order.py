"""How stable the order of the rows of a run is, and what sampled negatives would have said of it."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.ranking.metrics import metric, of_users
from ipsrec_bench.report.content import (
    Agreement,
    DatasetLine,
    Order,
    OrderLine,
    ProtocolTable,
    Row,
    Sampled,
    SampledLine,
)
from ipsrec_bench.report.material import Material
from ipsrec_bench.report.protocols import means_of, ranks_of, tau_of
from ipsrec_bench.report.results import Results
from ipsrec_bench.stats.order import order_stability, rank_correlation
from ipsrec_bench.stats.sampled import sampled_metric

RESAMPLES = 2000
"""Maximum number of resamples of an order; a suite's `statistics.resamples` may be less."""
DRAWS = 100
"""Number of sampled negatives: 100 is the most common number in the literature."""


def order_of(results: Results, material: Material, protocols: ProtocolTable | None) -> Order | None:
    """Return how stable the order of the rows is; None if no dataset has two complete rows.

    Args:
        results: of the main protocol.
        material: what the store has of the run, with the validation metrics of its cells.
        protocols: the suite's protocols side by side; None if there is only one.
    """
    statistics = results.run.suite.statistics
    resamples = min(RESAMPLES, statistics.resamples)
    lines = [line for dataset in results.datasets for line in _lines(results, dataset, resamples)]
    if not lines:
        return None
    agreements = [
        *(one for dataset in results.datasets for one in _within(results, material, dataset)),
        *_between_protocols(protocols),
        *_between_datasets(results),
    ]
    return Order(results.metric, resamples, statistics.confidence, tuple(lines), tuple(agreements))


def sampled_of(results: Results, material: Material, datasets: Sequence[DatasetLine]) -> Sampled | None:
    """Return what sampled negatives would have said, and why it does not say so of every dataset and row.

    Targets have their realistic ranks in both orders, whatever the protocol says of ties. Imported lists are left out:
    ranks beyond their ends are not known.

    Returns:
        None without a dataset with two rows.
    """
    lines: list[SampledLine] = []
    taus: list[tuple[str, float]] = []
    left_out: list[str] = []
    for line in datasets:
        keys = {row: list(dict.fromkeys(results.keys[line.label, row.label].values())) for row in results.rows}
        complete = [row for row in results.rows if keys[row]]
        known = [row for row in complete if all(material.summaries[key].depth is None for key in keys[row])]
        if len(complete) < 2:  # noqa: PLR2004 (an order needs two)
            continue
        lacks = f"not ranked among {DRAWS} sampled negatives on {line.label}:"
        population = _population(results, material, line)
        if population is None:
            left_out.append(f"Models are {lacks} the store does not have the number of candidates of each target.")
            continue
        if np.min(population) <= DRAWS:
            left_out.append(f"Models are {lacks} a target has only {np.min(population):,} other candidates.")
            continue
        left_out += [
            f"{row.display} is {lacks} its ranks beyond the ends of its lists are not known."
            for row in complete
            if row not in known
        ]
        full: dict[Row, float] = {}
        sampled: dict[Row, float] = {}
        for row in known:
            users = results.ranks[keys[row][0]].users
            ranks = np.stack([results.ranks[key].ranks for key in keys[row]], axis=1)
            full[row] = _mean(users, metric(results.metric, ranks))
            sampled[row] = _mean(users, sampled_metric(results.metric, ranks, population, DRAWS))
        tau = rank_correlation([*full.values()], [*sampled.values()])
        if tau is None:
            left_out.append(f"Models are {lacks} there are no two with known ranks whose metrics differ.")
            continue
        taus.append((line.label, tau))
        places, sampled_places = ranks_of(full), ranks_of(sampled)
        lines += [
            SampledLine(line.label, row, full[row], places[row], sampled[row], sampled_places[row])
            for row in sorted(known, key=lambda row: places[row])
        ]
    if not lines and not left_out:
        return None
    return Sampled(results.metric, DRAWS, tuple(lines), tuple(taus), tuple(left_out))


def _mean(users: NDArray[np.int32], values: NDArray[np.float64]) -> float:
    """Return the mean over users and trainings of a metric of each target, `[targets, trainings]`."""
    return float(np.mean([of_users(users, column) for column in values.T]))


def _population(results: Results, material: Material, line: DatasetLine) -> NDArray[np.int32] | int | None:
    """Return how many items compete with each target, `[users, 1]`, or with all; None if the store does not have it."""
    if results.run.suite.protocol.candidates != "all":
        return None
    if not results.run.suite.protocol.mask_history:
        return line.statistics.items - 1
    facts = material.targets[line.statistics.fingerprint]
    facts = None if facts is None else facts.of(results.users(line.label))
    return None if facts is None or facts.candidates is None else facts.candidates[:, None]


def _lines(results: Results, dataset: str, resamples: int) -> Iterator[OrderLine]:
    rows = [row for row in results.rows if results.seeds(dataset, row)]
    if len(rows) < 2 or len(results.users(dataset)) < 2:  # noqa: PLR2004 (an order needs two rows, a resample two users)
        return
    values = [_values(results, dataset, row) for row in rows]
    found = order_stability(values, results.run.suite.statistics.confidence, resamples)
    for place, index in enumerate(found.order):
        after = found.order[place + 1] if place + 1 < len(rows) else None
        yield OrderLine(
            dataset,
            rows[index],
            float(values[index].mean()),
            int(found.ranks[index]),
            int(found.low[index]),
            int(found.high[index]),
            None if after is None else rows[after],
            None if after is None else float(found.above[index, after]),
            values[index].shape[1],
            results.has_one_training(dataset, rows[index]),
        )


def _values(results: Results, dataset: str, row: Row) -> NDArray[np.float64]:
    """Return the report's metric per user and training, `[users, trainings]`; a deterministic row has one."""
    keys = dict.fromkeys(results.keys[dataset, row.label].values())
    return np.stack([results.ranks[key].metric(results.metric) for key in keys], axis=1)


def _within(results: Results, material: Material, dataset: str) -> Iterator[Agreement]:
    """Yield how far the orders of one dataset agree between seeds, and between validation and test."""
    by_seed = {
        row: dict(zip(results.seeds(dataset, row), results.by_seed(dataset, row, results.metric), strict=True))
        for row in results.rows
    }
    seeds = sorted({seed for of_row in by_seed.values() for seed in of_row})
    taus, most = [], 0
    for one, other in combinations(seeds, 2):
        both = [of_row for of_row in by_seed.values() if one in of_row and other in of_row]
        tau = rank_correlation([of_row[one] for of_row in both], [of_row[other] for of_row in both])
        if tau is not None:
            taus.append(tau)
            most = max(most, len(both))
    if taus:
        yield Agreement(dataset, "seeds", float(np.mean(taus)), min(taus), len(taus), most)
    valid: dict[Row, float] = {}
    for row in results.rows:
        keys = list(dict.fromkeys(results.keys.get((dataset, row.label), {}).values()))
        if keys and all(key in material.valid_means for key in keys):
            valid[row] = float(np.mean([material.valid_means[key] for key in keys]))
    tau, rows = tau_of(means_of(results, dataset), valid)
    if tau is not None:
        yield Agreement(dataset, "validation and test", tau, None, 1, len(rows))


def _between_protocols(protocols: ProtocolTable | None) -> Iterator[Agreement]:
    for order in protocols.orders if protocols else ():
        if order.tau is not None:
            yield Agreement(order.dataset, f"main protocol and {order.protocol}", order.tau, None, 1, order.rows)


def _between_datasets(results: Results) -> Iterator[Agreement]:
    scores = {dataset: means_of(results, dataset) for dataset in results.datasets}
    for one, other in combinations(results.datasets, 2):
        tau, rows = tau_of(scores[one], scores[other])
        if tau is not None:
            yield Agreement("", f"{one} and {other}", tau, None, 1, len(rows))
