"""How stable the order of rows is, and what sampled negatives would have said."""

from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ipsrec_bench.data.repeats import distinct_before
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.stats.order import order_stability, rank_correlation
from ipsrec_bench.stats.sampled import sampled_metric

RANKS = Path(__file__).parent / "fixtures" / "quick-test-ranks.parquet"
NAMES = ("hr@10", "mrr@10", "ndcg@10")


@pytest.fixture(scope="module")
def quick():
    """Ranks per row of the suite `quick`, `[users, seeds]`."""
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT trim(model || ' ' || variant) AS row, higher + 1 + (ties + 1) // 2 AS rank"
            " FROM read_parquet(?) WHERE split = 'test' ORDER BY row, seed, \"user\"",
            [str(RANKS)],
        ).fetchnumpy()
    return {row: rows["rank"][rows["row"] == row].reshape(3, -1).T for row in np.unique(rows["row"])}


def test_sampled_metrics_are_those_of_the_check_values(quick):
    found = {
        row: [round(float(sampled_metric(name, quick[row], 798, 100).mean()), 6) for name in NAMES]
        for row in ("sasrec", "ipsrec-s")
    }
    assert found == {"sasrec": [0.491271, 0.275834, 0.326659], "ipsrec-s": [0.623645, 0.376036, 0.434687]}


@pytest.mark.parametrize("name", NAMES)
def test_with_all_negatives_a_sampled_metric_is_the_full_one(quick, name):
    full = metric(name, quick["sasrec"])
    for draws in (798, 10_000):
        np.testing.assert_allclose(sampled_metric(name, quick["sasrec"], 798, draws), full, atol=1e-10)


@given(st.integers(1, 40), st.integers(0, 45), st.integers(1, 40), st.sampled_from(["hr", "mrr", "ndcg"]), st.data())
def test_a_sampled_metric_is_the_expectation_over_samples(population, better, draws, kind, data):
    """A rank beyond the population is a miss, in each sample too."""
    name = f"{kind}@{data.draw(st.integers(1, 12))}"
    found = float(sampled_metric(name, np.array([better + 1]), population, draws)[0])
    if better > population:
        assert found == 0
        return
    drawn = min(draws, population)
    hits = np.arange(drawn + 1)
    p = stats.hypergeom(population, better, drawn).pmf(hits)
    assert found == pytest.approx(float(p @ metric(name, hits + 1)), abs=1e-9)


def test_a_sampled_metric_of_a_large_catalogue_is_stable():
    items = 1_000_000
    ranks = np.array([1, 2, 11, 5_000, 500_000, items])
    found = sampled_metric("hr@1", ranks, items - 1, 100)
    exact = [float(np.exp(np.log1p(-100 / (items - 1 - np.arange(rank - 1))).sum())) for rank in ranks[:4]]
    np.testing.assert_allclose(found[:4], exact, rtol=1e-7)
    assert found[5] == 0


def test_the_order_of_the_check_values(quick):
    rows = list(quick)
    found = order_stability([metric("ndcg@10", quick[row]) for row in rows])
    assert [rows[index] for index in found.order[:3]] == ["ipsrec-s", "ipsrec-s w/o CL", "ipsrec-c"]
    shared = [rows.index("ipsrec-s w/o CL"), rows.index("ipsrec-c")]
    assert [(found.low[i], found.high[i]) for i in shared] == [(2, 3), (2, 3)]
    assert found.above[shared[0], shared[1]] == pytest.approx(0.80, abs=0.02)
    assert found.above[found.order[0], found.order[1]] > 0.99
    np.testing.assert_allclose(found.above + found.above.T, 1)


def test_equal_rows_share_a_rank_and_are_above_each_other_half_of_the_time():
    rng = np.random.default_rng(0)
    same = rng.random((300, 1))
    found = order_stability([same, same.copy(), np.zeros((300, 2))], resamples=200)
    assert found.ranks.tolist() == found.low.tolist() == found.high.tolist() == [1, 1, 3]
    assert found.above[0, 1] == 0.5


def test_seeds_are_drawn_within_each_row():
    """Rows without differences between users vary by their seeds alone."""
    lucky, steady = np.tile([0.1, 0.5, 0.9], (50, 1)), np.full((50, 4), 0.4)
    found = order_stability([lucky, steady], resamples=4000)
    sums = np.add.outer(np.add.outer([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9]).round(9)
    assert found.above[0, 1] == pytest.approx(np.mean(sums > 1.2) + np.mean(sums == 1.2) / 2, abs=0.03)


def test_the_rank_correlation_is_kendalls_with_ties():
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == -1
    assert rank_correlation([1, 2, 3], [10, 20, 20 + 1e-14]) == pytest.approx(2 / 6**0.5)
    assert rank_correlation([1, 1], [1, 2]) is None
    assert rank_correlation([1], [2]) is None


@given(st.lists(st.lists(st.integers(1, 4), max_size=6), min_size=1, max_size=8))
def test_distinct_values_of_histories_are_counted(histories):
    values = np.array([value for history in histories for value in history] + [1], dtype=np.int32)
    ends = np.cumsum([len(history) for history in histories])
    begins = ends - [len(history) for history in histories]
    assert distinct_before(values, begins, ends).tolist() == [len(set(history)) for history in histories]
