"""What an earlier run of a suite says about the seeds that the next one needs."""

from collections.abc import Iterator

from ipsrec_bench.errors import MissingRunError
from ipsrec_bench.report.declared import findings_of, of_baseline
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.report.selections import results_of
from ipsrec_bench.report.sentences import seeds_wanted
from ipsrec_bench.store.connect import Connection


def seeds_for(connection: Connection, suite: str) -> Iterator[str]:
    """Yield a sentence on the seeds needed for each main comparison of the newest run of `suite`.

    Nothing is yielded while no run of it has three seeds of both rows of such a comparison.
    """
    try:
        run = read_run(connection, suite)
    except MissingRunError:
        return
    results = results_of(connection, run)
    for c in findings_of(results, of_baseline(results)):
        if c.seeds_needed is not None:
            yield seeds_wanted(c)
