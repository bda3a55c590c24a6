"""`protocol.ties = "expected"`: a target with ties gets the mean of its metric over all orders of the ties."""

from itertools import permutations
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsrec_bench.ranking.metrics import expected_histogram, expected_metric, gains, higher_of, metric, realistic_rank
from ipsrec_bench.report.build import build_report
from ipsrec_bench.report.material import read_material
from ipsrec_bench.report.runs import read_run, shown_otherwise
from ipsrec_bench.report.tables.order import sampled
from ipsrec_bench.store import queries
from ipsrec_bench.store.connect import reading, writing

from .planted import fill

NAMES = ("hr", "mrr", "ndcg")
QUICK = Path(__file__).parent / "fixtures" / "quick-test-ranks.parquet"


def test_the_expected_metric_of_real_ranks():
    found = duckdb.sql(f"SELECT higher, ties FROM '{QUICK}' WHERE model = 'pop' AND split = 'test' AND seed = 1")
    higher, ties = found.fetchnumpy().values()
    assert ties.any()
    means = [expected_metric(f"{name}@200", higher, ties).mean() for name in NAMES]
    assert means == pytest.approx([0.6468984322, 0.0833334580, 0.1803585312], abs=5e-11)


@given(st.integers(0, 4), st.integers(0, 4), st.integers(1, 10), st.sampled_from(NAMES))
def test_it_is_the_mean_over_all_orders_of_the_ties(higher, ties, cutoff, name):
    ranks = np.array([higher + 1 + order.index(0) for order in permutations(range(ties + 1))])
    expected = metric(f"{name}@{cutoff}", ranks).mean()
    assert expected_metric(f"{name}@{cutoff}", np.array([higher]), np.array([ties])) == pytest.approx([expected])


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=30), st.integers(1, 120))
def test_the_expected_histogram_gives_the_expected_metric(pairs, cutoff):
    higher, ties = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    counts = expected_histogram(higher, ties)
    assert counts.sum() == pytest.approx(len(pairs))
    for name in NAMES:
        table = gains(f"{name}@{cutoff}", len(counts) - 1)[:-1]
        total = expected_metric(f"{name}@{cutoff}", higher, ties).sum()
        assert counts[: len(table)] @ table == pytest.approx(total)


@given(st.integers(0, 99), st.integers(0, 99))
def test_the_number_of_higher_items_follows_from_the_realistic_rank(higher, ties):
    assert higher_of(realistic_rank(np.array([higher]), np.array([ties])), np.array([ties])) == [higher]


def test_targets_of_a_user_count_together():
    """The first user has two targets: half of both, spread over their ties."""
    ranks = queries.TestRanks("k", np.array([3, 3, 5]), np.array([1, 2, 3]), np.array([0, 1, 3]))
    assert ranks.metric("mrr@2") == pytest.approx([(1 + (1 + 1 / 2) / 2) / 2, (1 + 1 / 2) / 4])
    assert ranks.histogram() == pytest.approx([0, 1 / 2 + 1 / 4 + 1 / 4, 1 / 4 + 1 / 4, 1 / 4, 1 / 4])
    plain = queries.TestRanks("k", np.array([3, 3, 5]), np.array([1, 2, 3]))
    assert plain.metric("mrr@2") == pytest.approx([3 / 4, 0])


def test_without_ties_both_rules_agree():
    higher = np.arange(30)
    for name in NAMES:
        expected = metric(f"{name}@10", higher + 1)
        assert expected_metric(f"{name}@10", higher, np.zeros(30, dtype=np.int32)) == pytest.approx(expected, abs=1e-15)


def test_a_constant_scorer_gets_chance():
    assert expected_metric("hr@10", np.array([0]), np.array([798])) == pytest.approx([10 / 799])


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 100))
def test_sql_has_the_same(higher, ties, n):
    with duckdb.connect() as connection:
        connection.execute((Path(queries.__file__).parent / "schema.sql").read_text())
        calls = ", ".join(f"expected_{name}({higher}, {ties}, {n})" for name in NAMES)
        found = connection.execute(f"SELECT {calls}").fetchone()
        nothing = connection.execute("SELECT expected_hr(NULL, 1, 5), expected_ndcg(1, NULL, 5)").fetchone()
    expected = [expected_metric(f"{name}@{n}", np.array([higher]), np.array([ties]))[0] for name in NAMES]
    assert found == pytest.approx(tuple(expected))
    assert nothing == (None, None)


def test_a_report_can_show_expected_metrics_without_a_run(finished_once):
    (store,) = finished_once.glob("**/*.duckdb")
    with reading(store) as connection:
        run = read_run(connection)
        plain = build_report(read_material(connection, run))
        material = read_material(connection, shown_otherwise(run, ["protocol.ties=expected"]))
        report = build_report(material)
    assert dict(plain.protocol)["Rank"].startswith("realistic")
    assert dict(report.protocol)["Rank"].startswith("every order of the ties is equally likely")
    (pop,) = {cell.key for cell in run.cells if cell.label == "pop"} & material.ranks.keys()
    ranks = material.ranks[pop]
    assert ranks.ties.any()
    place = [row.label for row in report.results.columns].index("pop")
    shown = [line.cells[place].score.mean for line in report.results.lines]
    higher = higher_of(ranks.ranks, ranks.ties)
    expected = [expected_metric(line.metric, higher, ranks.ties).mean() for line in report.results.lines]
    assert shown == pytest.approx(expected)
    assert shown != pytest.approx([line.cells[place].score.mean for line in plain.results.lines])


def test_what_is_read_of_the_store_counts_ties_as_it_is_asked(finished_once):
    """Metrics of found cells, and the validation ranks that choose the best baseline."""
    (store,) = finished_once.glob("**/*.duckdb")
    with reading(store) as connection:
        keys = list(dict.fromkeys(cell.key for cell in read_run(connection).cells))
        metrics = queries.metrics_of(connection, keys, ["ndcg@10", "hr@3"], "expected")
        means = queries.means_of(connection, keys, "mrr@5", "valid", "expected")
        counts = queries.valid_counts(connection, keys, 7, "expected")
        rows = connection.execute(
            "SELECT key, split, list(higher), list(ties) FROM ranks JOIN cells USING (cell) GROUP BY ALL"
        ).fetchall()
    assert len(rows) > 2
    assert any(any(ties) for _, split, _, ties in rows if split == "valid")
    for key, split, *pair in rows:
        higher, ties = map(np.array, pair)
        if split == "test":
            wanted = {name: expected_metric(name, higher, ties).mean() for name in ("ndcg@10", "hr@3")}
            assert metrics[key][0] == pytest.approx(wanted)
        else:
            assert means[key] == pytest.approx(expected_metric("mrr@5", higher, ties).mean())
            all_ranks = expected_histogram(higher, ties)
            assert counts[key] == pytest.approx([*all_ranks[:8], all_ranks[8:].sum()])


def test_full_and_sampled_metrics_count_ties_alike(tmp_path):
    """A constant scorer has no hit by its realistic rank, and the expected metric would give it that of chance."""
    path = fill(tmp_path / "s.duckdb")
    with writing(path) as connection:
        connection.execute(
            "UPDATE ranks SET higher = 0, ties = 899 WHERE cell IN (SELECT cell FROM cells WHERE key LIKE 'dpop%')"
        )
    with reading(path) as connection:
        run = shown_otherwise(read_run(connection), ["protocol.ties=expected"])
        report = build_report(read_material(connection, run))
    (pop,) = (line for line in report.sampled.lines if line.row.label == "pop")
    assert (pop.full, pop.sampled) == (0, pytest.approx(0, abs=1e-15))
    assert report.results.lines[-1].cells[0].score.mean > 0
    (table,) = sampled(report)
    assert "A target that ties with others has its realistic rank in both, whatever protocol.ties says." in table.note
