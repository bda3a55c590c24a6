"""Methods, whichever seeds train them: D1, and what follows from its terms; check values of a real run."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower

from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.stats.correction import adjust, worst_step
from ipsrec_bench.stats.differences import mean_differences, over_seeds
from ipsrec_bench.stats.effect import next_training_beats, superiority
from ipsrec_bench.stats.equivalence import method_equivalence_p
from ipsrec_bench.stats.method import method_test
from ipsrec_bench.stats.paired import MeanTest, paired_t_test
from ipsrec_bench.stats.power import detectable_difference, seeds_needed, t_power
from ipsrec_bench.stats.practical import practical
from ipsrec_bench.stats.reproduction import reproduction
from tests.quick_ranks import quick_ndcg, quick_ranks

WITHOUT = "ipsrec-c w/o CL"


@pytest.mark.parametrize(
    ("label", "mean", "error", "degrees", "p"),
    [
        ("ipsrec-s", 0.06792457, 0.00532657, 36.4001, 5.39638e-15),
        (WITHOUT, 0.00997745, 0.00325049, 4.9713, 0.0280089),
    ],
)
def test_the_methods_of_a_real_run(label, mean, error, degrees, p):
    found = method_test(quick_ndcg(label), quick_ndcg("sasrec")).test
    assert (found.mean, found.standard_error) == pytest.approx((mean, error), abs=5.1e-9)
    assert found.degrees == pytest.approx(degrees, abs=5.1e-5)
    assert found.p == pytest.approx(p, rel=2e-6)


def test_what_a_user_and_the_next_training_get_in_a_real_run():
    ranks = quick_ranks()
    assert superiority(ranks["ipsrec-s"], ranks["sasrec"]) == pytest.approx(0.71177005, abs=5.1e-9)
    assert superiority(ranks[WITHOUT], ranks["sasrec"]) == pytest.approx(0.54820874, abs=5.1e-9)
    means = (quick_ndcg(label).mean(axis=0) for label in (WITHOUT, "sasrec"))
    found = next_training_beats(*means)
    assert (found.low, found.high) == pytest.approx((-0.007113, 0.027068), abs=5.1e-7)
    assert found.degrees == pytest.approx(3.9992, abs=5.1e-5)
    assert found.probability == pytest.approx(0.909832, abs=5.1e-7)


def test_what_matters_in_a_real_run():
    test = paired_t_test(mean_differences(quick_ndcg(WITHOUT), quick_ndcg("sasrec")))
    rho = 0.05 * quick_ndcg("sasrec").mean()
    found = practical(test.mean, test.standard_error, test.degrees, rho)
    assert found.worse == pytest.approx(6.05433e-13, rel=1e-6)
    assert (found.same, found.better) == pytest.approx((0.143777, 0.856223), abs=5.1e-7)


def terms(values: np.ndarray) -> tuple[float, float]:
    """Return v and r of a row from their definitions."""
    users, seeds = values.shape
    by_user, by_seed, mean = values.mean(1), values.mean(0), values.mean()
    residual = sum((values[u, s] - by_user[u] - by_seed[s] + mean) ** 2 for u in range(users) for s in range(seeds)) / (
        (users - 1) * (seeds - 1)
    )
    return by_seed.var(ddof=1) / seeds, residual / (users * seeds)


@st.composite
def rows(draw):
    """Draw the ranks of two rows of the same users, with unlike numbers of seeds."""
    users = draw(st.integers(2, 9))
    return tuple(
        np.array(draw(st.lists(st.lists(st.integers(1, 30), min_size=n, max_size=n), min_size=users, max_size=users)))
        for n in (draw(st.integers(3, 9)), draw(st.integers(3, 9)))
    )


@given(ranks=rows())
def test_the_terms_are_those_of_their_definitions(ranks):
    a, b = (metric("ndcg@20", row) for row in ranks)
    found = method_test(a, b, 0.9)
    users = len(a)
    (v_a, r_a), (v_b, r_b) = terms(a), terms(b)
    v_0 = (a.mean(1) - b.mean(1)).var(ddof=1) / users
    terms_found = (
        found.user_variance,
        found.seed_variance_a,
        found.seed_variance_b,
        found.noise_a,
        found.noise_b,
    )
    assert terms_found == pytest.approx((v_0, v_a, v_b, r_a, r_b), abs=1e-12)
    w = max(v_0 + v_a - r_a + v_b - r_b, v_0)
    assert found.test.mean == pytest.approx(a.mean() - b.mean(), abs=1e-11)
    assert found.test.standard_error == pytest.approx(w**0.5, abs=1e-6)
    assert found.test.standard_error >= v_0**0.5 * (1 - 1e-9)
    if w > 1e-9:
        squares = (
            v_0**2 / (users - 1)
            + v_a**2 / (a.shape[1] - 1)
            + v_b**2 / (b.shape[1] - 1)
            + r_a**2 / ((users - 1) * (a.shape[1] - 1))
            + r_b**2 / ((users - 1) * (b.shape[1] - 1))
        )
        least = min([users - 1, *(row.shape[1] - 1 for row, v in ((a, v_a), (b, v_b)) if v)])
        degrees = max(w**2 / squares, least)
        assert found.test.degrees == pytest.approx(degrees)
        t = abs(a.mean() - b.mean()) / w**0.5
        assert found.test.p == pytest.approx(2 * stats.t.sf(t, degrees), rel=1e-5, abs=1e-9)


@given(ranks=rows(), data=st.data())
def test_no_numbering_of_seeds_changes_a_bit(ranks, data):
    a, b = (metric("ndcg@20", row) for row in ranks)
    order_a, order_b = (data.draw(st.permutations(range(row.shape[1]))) for row in (a, b))
    found = method_test(a, b)
    assert method_test(a[:, order_a], np.asfortranarray(b)[:, order_b]) == found
    assert method_equivalence_p(a[:, order_a], b[:, order_b], 0.05) == method_equivalence_p(a, b, 0.05)
    means = [row.mean(axis=0) for row in (a, b)]
    assert next_training_beats(means[0][order_a], means[1][order_b]) == next_training_beats(*means)


def test_a_row_without_randomness_has_no_terms():
    rng = np.random.default_rng(0)
    a, b = rng.random((200, 4)), rng.random((200, 1))
    found = method_test(a, b, b_random=False)
    v_a, r_a = terms(a)
    v_0 = (a.mean(1) - b[:, 0]).var(ddof=1) / 200
    assert (found.seed_variance_b, found.noise_b, found.seeds_b) == (0, 0, 1)
    assert found.test.standard_error == pytest.approx(max(v_0 + v_a - r_a, v_0) ** 0.5)
    both = method_test(a[:, :1], b, a_random=False, b_random=False).test
    assert both.p == pytest.approx(paired_t_test(a[:, 0] - b[:, 0]).p)
    assert both.degrees == 199


def test_the_input_is_left_alone():
    a, b = (np.asfortranarray(np.random.default_rng(seed).random((50, 3))) for seed in (0, 1))
    before = a.copy(), b.copy()
    method_test(a, b)
    assert (a == before[0]).all()
    assert (b == before[1]).all()


def test_what_the_test_of_a_method_refuses():
    with pytest.raises(ValueError, match="three seeds, found shape \\(5, 2\\)"):
        method_test(np.ones((5, 3)), np.ones((5, 2)))
    with pytest.raises(ValueError, match="two users"):
        method_test(np.ones((1, 3)), np.ones((1, 3)))
    with pytest.raises(ValueError, match="same users, found 5 and 6"):
        method_test(np.ones((5, 3)), np.ones((6, 3)))


def test_more_users_do_not_hide_the_variance_of_seeds():
    rng = np.random.default_rng(5)
    shift_a, shift_b = np.array([0.3, -0.1, 0.2]), np.array([0.0, 0.1, -0.1])
    a, b = (rng.normal(size=(100_000, 3)) + shift for shift in (shift_a, shift_b))
    assert paired_t_test(a.mean(1) - b.mean(1)).p < 1e-10
    assert method_test(a, b).test.p > 0.05


def test_equal_values_in_another_order_are_no_difference():
    a, b = (np.tile(metric("ndcg@10", np.array(ranks)), (500, 1)) for ranks in ([1, 1, 6], [6, 1, 1]))
    found = method_test(a, b)
    assert (found.test.mean, found.test.p, found.noise_a) == (0, 1, 0)


@given(seeds=st.integers(1, 12), data=st.data())
def test_means_over_seeds_do_not_depend_on_their_order(seeds, data):
    values = np.array(data.draw(st.lists(st.floats(0, 1), min_size=2 * seeds, max_size=2 * seeds))).reshape(2, seeds)
    order = data.draw(st.permutations(range(seeds)))
    assert over_seeds(values[:, order]).tolist() == over_seeds(values).tolist()
    assert over_seeds(values) == pytest.approx(values.mean(axis=1))


def test_equivalence_of_methods_is_two_contrasts():
    rng = np.random.default_rng(2)
    theirs = rng.gamma(1, 0.3, (500, 5))
    ours = theirs.mean(1, keepdims=True) + rng.normal(0.001, 0.02, (500, 4))
    lower = method_test(ours, 0.9 * theirs).test
    upper = method_test(1.1 * theirs, ours).test
    expected = max(stats.t.sf(test.t, test.degrees) for test in (lower, upper))
    assert method_equivalence_p(ours, theirs, 0.1) == pytest.approx(expected)


@pytest.mark.parametrize("degrees", [3, 20, 1466])
@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.0002])
def test_power_is_statsmodels(degrees, alpha):
    assert t_power(3.0, degrees, alpha) == pytest.approx(
        TTestPower().power(3 / (degrees + 1) ** 0.5, degrees + 1, alpha)
    )
    found = detectable_difference(0.1, degrees, alpha)
    assert t_power(found / 0.1, degrees, alpha) == pytest.approx(0.8, abs=1e-9)


@settings(deadline=None, max_examples=300)
@given(st.floats(0, 6.5), st.floats(-20, -0.5))
def test_the_power_of_any_level_is_finite(degrees, alpha):
    """Near 1, rounding takes a power above 1; of a tiny alpha, 1 - alpha / 2 is 1."""
    found = detectable_difference(1.0, 10**degrees, 10**alpha)
    assert t_power(found, 10**degrees, 10**alpha) == pytest.approx(0.8, abs=1e-9)


@pytest.mark.parametrize("alpha", [1e-12, 1e-15, 1e-20])
def test_the_level_of_a_test_is_its_power_without_a_difference(alpha):
    assert t_power(0.0, 30, alpha) == pytest.approx(alpha, rel=1e-6, abs=0)


def test_power_far_out_is_that_of_the_spread_alone():
    """A critical value of 2,674: the normal part moves the statistic's numerator by a thousandth."""
    found = detectable_difference(1.0, 1, 0.01 / 42)
    draws = np.random.default_rng(0).normal(size=(2, 400_000))
    hits = np.abs((draws[0] + found) / np.abs(draws[1])) > stats.t.isf(0.01 / 84, 1)
    assert hits.mean() == pytest.approx(0.8, abs=0.003)


def test_the_worst_step_of_a_family_is_its_smallest_p_values():
    for method in ("holm", "bonferroni", "benjamini-hochberg", "none"):
        step = worst_step(0.01, 6, method)
        assert adjust([step * 0.999, 1, 1, 1, 1, 1], method)[0] < 0.01
        assert adjust([step * 1.001, 1, 1, 1, 1, 1], method)[0] > 0.01


def test_the_seeds_that_are_needed_find_the_difference():
    """The true terms are known: a test with so many seeds finds the difference in four of five draws."""
    users, rng = 400, np.random.default_rng(3)

    def draw(seeds: int, difference: float) -> tuple[np.ndarray, np.ndarray]:
        own = rng.normal(0, 0.3, (2, users, 1))
        a, b = own + rng.normal(0, 0.03, (2, 1, seeds)) + rng.normal(0, 0.3, (2, users, seeds))
        return a + difference, b

    needed = seeds_needed(method_test(*draw(300, 0.0)), 0.08, alpha=0.05)
    assert 4 <= needed.seeds <= 8
    found = np.mean([method_test(*draw(needed.seeds, 0.08)).test.p < 0.05 for _ in range(600)])
    assert found == pytest.approx(0.83, abs=0.07)
    too_few = np.mean([method_test(*draw(needed.seeds - 2, 0.08)).test.p < 0.05 for _ in range(600)])
    assert too_few < found


def test_no_number_of_seeds_finds_a_difference_below_the_floor():
    test = method_test(quick_ndcg(WITHOUT), quick_ndcg("sasrec"))
    needed = seeds_needed(test, 0.05, alpha=0.01)
    assert needed.seeds == 3
    shared = test.user_variance - test.noise_a - test.noise_b
    assert needed.floor == pytest.approx(detectable_difference(shared**0.5, 1466, 0.01))
    assert seeds_needed(test, needed.floor, alpha=0.01).seeds is None
    assert seeds_needed(test, -needed.floor * 1.05, alpha=0.01).seeds > 10
    now = detectable_difference(test.test.standard_error, test.test.degrees, 0.01)
    assert seeds_needed(test, now * 1.0001, alpha=0.01).seeds == 3
    assert seeds_needed(test, now * 0.9999, alpha=0.01).seeds == 4


def test_rows_without_randomness_need_one_training():
    a, b = np.random.default_rng(1).random((2, 300, 1))
    test = method_test(a, b, a_random=False, b_random=False)
    least = detectable_difference(test.test.standard_error, 299, 0.05)
    assert seeds_needed(test, least * 1.01, 0.05).seeds == 1
    assert seeds_needed(test, least * 0.99, 0.05).seeds is None


@given(
    mean=st.floats(-1, 1),
    error=st.floats(1e-9, 1) | st.just(0.0),
    degrees=st.floats(1, 1e6),
    rho=st.floats(0, 1),
)
def test_probabilities_that_a_difference_matters_add_up(mean, error, degrees, rho):
    found, mirrored = practical(mean, error, degrees, rho), practical(-mean, error, degrees, rho)
    assert found.worse + found.same + found.better == pytest.approx(1)
    assert (found.worse, found.same, found.better) == (mirrored.better, mirrored.same, mirrored.worse)
    if error > 1e-3:
        assert found.better == pytest.approx(stats.t.sf(rho, degrees, mean, error), abs=1e-9)


def test_a_negative_region_is_refused():
    with pytest.raises(ValueError, match="at least 0"):
        practical(0.1, 0.1, 9, -0.01)


def test_the_next_trainings_interval_covers_it():
    rng = np.random.default_rng(6)
    a, b = rng.normal(0.1, 0.01, (4000, 4)), rng.normal(0.1, 0.02, (4000, 6))
    found = [next_training_beats(x[:3], y[:5]) for x, y in zip(a, b, strict=True)]
    inside = [f.low <= x[3] - y[5] <= f.high for f, x, y in zip(found, a, b, strict=True)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_the_next_training_beside_a_row_without_randomness():
    found = next_training_beats([0.1, 0.2, 0.3], [0.1], b_random=False)
    assert found.degrees == 2
    assert found.probability == pytest.approx(stats.t.cdf(0.1 / (0.01 * 4 / 3) ** 0.5, 2))
    assert next_training_beats([0.1], [0.1, 0.2]) is None
    assert next_training_beats([0.1, 0.1], [0.2, 0.2]) is None


@given(ranks=rows())
def test_superiority_is_its_definition(ranks):
    a, b = ranks
    pairs = (a[:, :, None] < b[:, None, :]) + (a[:, :, None] == b[:, None, :]) / 2
    assert superiority(a, b) == pytest.approx(pairs.mean())
    assert superiority(a, b) + superiority(b, a) == pytest.approx(1)


def test_an_improvement_beside_the_published_one():
    ours = MeanTest(0.002, 0.001, 0.003, 4.0, 99, 0.0001, 0.0005)
    found = reproduction(ours, 0.04, (0.0450, 0.0410), 0.0001)
    assert found.effect_ratio.value == pytest.approx(0.5)
    assert (found.effect_ratio.low, found.effect_ratio.high) == pytest.approx((0.001 / 0.0041, 0.003 / 0.0039))
    assert (found.ours, found.published) == pytest.approx((0.05, 0.0040 / 0.0410))
    assert found.lost == pytest.approx(0.0040 / 0.0410 - 0.05)
    worse = reproduction(MeanTest(-0.001, -0.003, 0.001, -1.0, 99, 0.3, 0.001), 0.04, (0.0450, 0.0410), 0.0001)
    assert (worse.effect_ratio.low, worse.effect_ratio.high) == pytest.approx((-0.003 / 0.0039, 0.001 / 0.0039))
    below = reproduction(ours, 0.04, (0.0400, 0.0410), 0.0001)
    assert (below.effect_ratio.low, below.effect_ratio.high) == pytest.approx((-0.003 / 0.0009, -0.001 / 0.0011))


def test_a_published_difference_that_may_be_rounding_bounds_nothing():
    ours = MeanTest(0.002, 0.001, 0.003, 4.0, 99, 0.0001, 0.0005)
    for tail in range(1, 1000):  # in floats, a difference of one unit is now above it, now below
        higher, lower = (tail + 1) / 10_000, tail / 10_000
        for printed, sign in (((higher, lower), 1), ((lower, higher), -1)):
            found = reproduction(ours, 0.04, printed, 0.0001).effect_ratio
            assert (found.value, found.low, found.high) == (pytest.approx(sign * 20), -np.inf, np.inf)
        two = reproduction(ours, 0.04, ((tail + 2) / 10_000, lower), 0.0001).effect_ratio
        assert (two.low, two.high) == pytest.approx((0.001 / 0.0003, 0.003 / 0.0001))
    assert reproduction(ours, 0.04, (0.0410, 0.0410), 0.0001).effect_ratio is None
    with pytest.raises(ValueError, match="above 0"):
        reproduction(ours, 0.0, (0.0411, 0.0410), 0.0001)


@pytest.mark.parametrize("seeds", [3, 5])
def test_trainings_that_share_their_noise_leave_the_degrees_of_freedom_of_seeds(seeds):
    """V0 lies far below v and r, for which Satterthwaite's formula alone gives nearly none and an endless interval."""
    rng = np.random.default_rng(5)
    shared = rng.random((400, seeds))
    found = method_test(shared + 1e-4 * rng.random((400, seeds)), shared).test
    assert found.degrees == seeds - 1
    assert found.high - found.low < 0.01
