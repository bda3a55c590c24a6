"""Statistics over datasets: against statsmodels and scipy, and the check values of the paper's Table 2."""

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from ipsrec_bench.published.papers import papers
from ipsrec_bench.stats.across import friedman, mean_ranks, pooled, ranks, relative_difference, wins
from ipsrec_bench.stats.effect import relative_gain
from ipsrec_bench.stats.method import method_test

effects = st.lists(st.tuples(st.floats(-0.5, 0.5), st.floats(0.005, 0.3)), min_size=2, max_size=8)


def solves(tau2, effect, error):
    """Whether tau^2 is Paule and Mandel's: the weighted squares are k - 1, or fewer at 0."""
    weights = 1 / (error**2 + tau2)
    excess = weights @ (effect - weights @ effect / weights.sum()) ** 2 - (len(effect) - 1)
    return abs(excess) < 1e-8 or (tau2 == 0 and excess < 0)


@given(effects)
@example([(0.0, 0.25), (0.0, 0.25), (0.0, 0.203125), (0.0, 0.1953125), (0.376953125, 0.15234375)])
def test_the_variance_between_datasets_solves_its_equation(drawn):
    effect, error = (np.array(column) for column in zip(*drawn, strict=True))
    assert solves(pooled(effect, error).variance, effect, error)


@given(effects)
def test_pooling_agrees_with_statsmodels(drawn):
    effect, error = (np.array(column) for column in zip(*drawn, strict=True))
    assume(np.ptp(effect) > 1e-3)
    theirs = combine_effects(effect, error**2, method_re="pm", use_t=True, atol=1e-12, maxiter=1000)
    ours = pooled(effect, error)
    # Its Newton steps return 0 if rounding takes one of them past the root, and may end before they converge.
    assume(solves(theirs.tau2, effect, error))
    assert ours.variance == pytest.approx(theirs.tau2, abs=1e-5)
    assert ours.test.mean == pytest.approx(theirs.mean_effect_re, abs=1e-4)
    assert ours.scale == pytest.approx(theirs.scale_hksj_re, abs=1e-3)
    assert ours.inconsistency == pytest.approx(max(0.0, theirs.i2), abs=1e-9)
    error = np.sqrt(theirs.var_hksj_re * max(1.0, 1 / theirs.scale_hksj_re))
    assert ours.test.standard_error == pytest.approx(error, rel=1e-3)
    if theirs.scale_hksj_re >= 1:
        assert (ours.test.low, ours.test.high) == pytest.approx(theirs.conf_int()[3], abs=1e-3)


def test_hartung_and_knapp_on_three_datasets_by_hand():
    """Equal errors of 2%: tau^2 is var(effect) - 0.02^2, and the standard error sd / sqrt(3)."""
    found = pooled([0.02, 0.08, 0.14], [0.02, 0.02, 0.02])
    assert found.variance == pytest.approx(0.0036 - 0.0004)
    assert found.test.mean == pytest.approx(0.08)
    assert found.test.standard_error == pytest.approx(0.06 / 3**0.5)
    assert found.inconsistency == pytest.approx(1 - 2 / 18)
    half = stats.t.ppf(0.975, 1) * (0.0032 + 0.0012) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.08 - half, 0.08 + half))
    assert found.weights == pytest.approx((1 / 3,) * 3)


def test_datasets_that_agree_by_chance_do_not_make_the_pooled_effect_surer_than_their_errors():
    found = pooled([0.050, 0.051], [0.02, 0.02])
    assert found.variance == 0
    assert found.scale < 0.01
    assert found.test.standard_error == pytest.approx(0.02 / 2**0.5)
    assert np.isnan(found.low)
    assert np.isnan(found.high)


@pytest.mark.parametrize(("effect", "error"), [([0.1], [0.1]), ([0.1, 0.2], [0.1, 0.0]), ([0.1, 0.2], [0.1])])
def test_pooling_takes_two_effects_with_errors(effect, error):
    with pytest.raises(ValueError, match="at least two effects"):
        pooled(effect, error)


def test_ranks_over_the_papers_table_2():
    results = papers()["ipsrec-sigir22"].results
    values = np.array([metrics["ndcg@10"].values for metrics in results.values.values()])
    assert ranks(values).mean(axis=0) == pytest.approx([4, 6, 3, 5, 4 / 3, 5 / 3])
    found = friedman(values)
    assert found.chi2 == pytest.approx(14.619048, abs=5e-7)
    assert found.p == pytest.approx(0.012120, abs=5e-7)
    assert found.f == pytest.approx(76.75, abs=5e-3)
    assert found.critical_difference == pytest.approx(4.353, abs=5e-4)
    assert (found.datasets, found.rows) == (3, 6)


@given(st.integers(2, 12), st.integers(3, 6), st.integers(2, 5), st.integers(0, 10**6))
def test_friedman_agrees_with_scipy_also_with_ties(datasets, rows, levels, seed):
    values = np.random.default_rng(seed).integers(0, levels, (datasets, rows)).astype(float)
    assume(any(len({*line}) > 1 for line in values))
    theirs = stats.friedmanchisquare(*values.T)
    ours = friedman(values)
    assert (ours.chi2, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue), abs=1e-9)
    assert ranks(values) == pytest.approx(stats.rankdata(-values, axis=1))


def test_one_order_on_all_datasets_leaves_no_doubt_to_iman_and_davenport():
    assert (friedman(np.arange(12.0).reshape(4, 3)).f, friedman(np.zeros((4, 3))).p) == (float("inf"), 1.0)
    with pytest.raises(ValueError, match="two datasets x two rows"):
        friedman(np.zeros((1, 3)))


def table(mean: float, users: int, seeds: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(mean + 0.3 * rng.standard_normal((users, seeds)) + 0.1 * rng.standard_normal((users, 1)), 0, 1)


def test_the_relative_difference_has_the_methods_error_with_both_means_uncertain():
    a, b = table(0.5, 300, 4, 1), table(0.4, 300, 5, 2)
    found = relative_difference(a, b)
    ratio = a.mean() / b.mean()
    assert found.of_method
    assert found.test.mean == pytest.approx(ratio - 1)
    error = method_test(a, ratio * b).test.standard_error / b.mean()
    assert found.test.standard_error == pytest.approx(error)
    assert relative_difference(a[:, ::-1], b).test == found.test  # the order of seeds means nothing


def test_with_few_seeds_the_relative_differences_error_is_that_of_users():
    a, b = table(0.5, 2_000, 2, 1), table(0.4, 2_000, 4, 2)
    found = relative_difference(a, b)
    assert not found.of_method
    fieller = relative_gain(a.mean(axis=1), b.mean(axis=1))
    assert (found.test.low, found.test.high) == pytest.approx((fieller.low, fieller.high), abs=2e-3)
    assert relative_difference(a[:, :1], b, a_random=False).of_method
    assert relative_difference(a, np.zeros_like(b)) is None


def test_mean_ranks_and_their_intervals_follow_from_users_and_seeds():
    clear = [
        [table(mean, 500, 3, place + 10 * number) for place, mean in enumerate((0.2, 0.5, 0.8))] for number in (1, 2)
    ]
    found = mean_ranks(clear, resamples=300)
    assert [(r.mean, r.low, r.high) for r in found] == [(3, 3, 3), (2, 2, 2), (1, 1, 1)]
    near = [[table(0.5, 200, 3, place + 10 * number) for place in range(3)] for number in (1, 2)]
    found = mean_ranks(near, resamples=300)
    assert sum(r.mean for r in found) == pytest.approx(6)
    assert all(r.low <= r.mean <= r.high for r in found)
    assert max(r.high - r.low for r in found) >= 1
    assert found == mean_ranks(near, resamples=300)
    same = [[near[0][0], near[0][0]]]
    assert [r.mean for r in mean_ranks(same, resamples=50)] == [1.5, 1.5]


def test_wins_leave_out_the_datasets_that_a_row_lacks():
    found = wins(np.array([[0.1, 0.2, np.nan], [0.3, 0.2, 0.4], [0.2, 0.2, 0.1]]))
    assert found.wins.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert found.ties.tolist() == [[3, 1, 0], [1, 3, 0], [0, 0, 2]]
