"""The tables of a report, one function each; the formats decide how they look."""

from ipsrec_bench.report.content import Report
from ipsrec_bench.report.table import Table
from ipsrec_bench.report.tables.across import across
from ipsrec_bench.report.tables.comparisons import all_pairs, comparisons, slices
from ipsrec_bench.report.tables.controls import controls
from ipsrec_bench.report.tables.data import costs, datasets, protocol, provenance, settings
from ipsrec_bench.report.tables.fairness import fairness
from ipsrec_bench.report.tables.novelty import novelty
from ipsrec_bench.report.tables.order import order, protocols, sampled
from ipsrec_bench.report.tables.published import published
from ipsrec_bench.report.tables.results import ablation, results
from ipsrec_bench.report.tables.tuning import tuning


def tables_of(report: Report) -> list[Table]:
    """Return the tables of a report that have rows, in the order of the page."""
    tables = [
        *results(report),
        *ablation(report),
        *across(report),
        comparisons(report),
        all_pairs(report),
        controls(report),
        novelty(report),
        slices(report),
        *protocols(report),
        *order(report),
        *sampled(report),
        *(table for place, against in enumerate(report.published, 1) for table in published(report, against, place)),
        fairness(report),
        tuning(report),
        datasets(report),
        costs(report),
        protocol(report),
        settings(report),
        provenance(report),
    ]
    return [table for table in tables if table.rows]
