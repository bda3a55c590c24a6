"""Statistics: against scipy and statsmodels, against their definitions, and in edge cases."""

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ipsrec_bench.stats import resampling
from ipsrec_bench.stats.correction import adjust
from ipsrec_bench.stats.effect import effect_size, next_training, relative_gain
from ipsrec_bench.stats.equivalence import equivalence_p
from ipsrec_bench.stats.paired import paired_t_test, wilcoxon_p, win_tie_loss
from ipsrec_bench.stats.power import detectable_difference
from ipsrec_bench.stats.resampling import bootstrap_intervals, sign_flip_p


@pytest.fixture(scope="module", autouse=True)
def _cheap_collections():
    """Keep the garbage collector off everything imported: statsmodels collects in every call, 0.2 s each otherwise."""
    gc.freeze()
    yield
    gc.unfreeze()


METHODS = {"holm": "holm", "benjamini-hochberg": "fdr_bh", "bonferroni": "bonferroni"}
DIFFERENCES = hnp.arrays(np.float64, st.integers(3, 40), elements=st.integers(-8, 8).map(lambda n: n / 8))


@pytest.mark.parametrize("method", METHODS)
@given(p=st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=12))
def test_corrections_agree_with_statsmodels(method, p):
    assert adjust(p, method) == pytest.approx(multipletests(p, method=METHODS[method])[1].tolist(), abs=1e-12)


@given(p=st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=12))
def test_corrections_never_lower_p_and_none_keeps_it(p):
    for method in METHODS:
        assert all(adjusted >= raw * (1 - 1e-12) for adjusted, raw in zip(adjust(p, method), p, strict=True))
    assert adjust(p, "none") == p


@given(d=DIFFERENCES)
def test_the_paired_t_test_is_scipys(d):
    found = paired_t_test(d, confidence=0.9)
    assert found.mean == d.mean()
    if d.std() == 0:
        assert found.p == (2.0 ** (1 - len(d)) if d.any() else 1.0)  # as sign flips have it
        assert (found.low, found.high) == (found.mean, found.mean)
        return
    theirs = stats.ttest_1samp(d, 0.0)
    interval = theirs.confidence_interval(0.9)
    assert (found.t, found.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@given(d=DIFFERENCES)
def test_wins_ties_and_losses(d):
    counts = win_tie_loss(d)
    assert (counts.wins, counts.losses) == ((d > 0).sum(), (d < 0).sum())
    assert counts.wins + counts.ties + counts.losses == len(d)


def test_one_user_is_too_few():
    with pytest.raises(ValueError, match="two users"):
        paired_t_test(np.array([1.0]))


def test_wilcoxon_is_scipys_and_has_p_1_if_nothing_differs():
    d = np.random.default_rng(0).integers(-3, 5, 200) / 4
    assert wilcoxon_p(d) == pytest.approx(stats.wilcoxon(d, zero_method="pratt", method="approx").pvalue)
    assert wilcoxon_p(np.zeros(9)) == 1.0


def test_the_effect_sizes_interval_is_the_usual_one_for_normal_differences():
    d = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000) + 0.4
    found = effect_size(d)
    assert found.value == pytest.approx(0.4, abs=1e-3)
    half = 1.959964 * ((1 + 0.4**2 / 2) / 20_000) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.4 - half, 0.4 + half), abs=2e-3)


def test_the_effect_sizes_interval_covers_where_differences_are_not_normal():
    """Differences of a hit rate: mostly 0, some 1, fewer -1."""
    rng = np.random.default_rng(7)
    values, chances = np.array([-1.0, 0.0, 1.0]), [0.02, 0.9, 0.08]
    mean = 0.06
    true = mean / (0.1 - mean**2) ** 0.5
    hits = 0
    for _ in range(1000):
        found = effect_size(rng.choice(values, 400, p=chances))
        hits += found.low <= true <= found.high
    assert 0.925 <= hits / 1000 <= 0.97


def test_an_effect_of_few_users_has_no_interval():
    """Nine users with a difference: the interval would exclude 0 for equal models far too often."""
    d = np.zeros(500)
    d[:9] = 0.3, 0.2, 0.4, 0.3, 0.1, 0.5, 0.3, 0.2, 0.4
    found = effect_size(d)
    assert found.value == pytest.approx(d.mean() / d.std(ddof=1))
    assert np.isnan([found.low, found.high]).all()
    d[9] = 0.3
    assert effect_size(d).low > 0


def test_an_effect_without_spread():
    assert effect_size(np.zeros(5)).value == 0
    assert effect_size(np.full(5, 0.2)).value == np.inf


def test_fiellers_interval_contains_the_ratios_that_a_t_test_does_not_reject():
    rng = np.random.default_rng(1)
    b = rng.gamma(1, 1, 60)
    a = 1.2 * b + rng.normal(0, 0.5, 60)
    found = relative_gain(a, b)
    assert found.value == pytest.approx(a.mean() / b.mean() - 1)
    for end in (found.low, found.high):
        assert stats.ttest_1samp(a - (1 + end) * b, 0.0).pvalue == pytest.approx(0.05, abs=1e-6)
    assert stats.ttest_1samp(a - (1 + found.value) * b, 0.0).pvalue == pytest.approx(1)


def test_a_gain_over_nothing():
    zero, some = np.zeros(9), np.eye(1, 9)[0]
    assert relative_gain(some, zero) is None
    unbounded = relative_gain(some, some[::-1].copy())
    assert (unbounded.low, unbounded.high) == (-np.inf, np.inf)


def test_the_detectable_difference_is_detected_in_four_of_five_designs():
    rng = np.random.default_rng(11)
    error = 1 / 400**0.5
    true = detectable_difference(error, 399, alpha=0.05)
    found = np.mean([paired_t_test(rng.normal(true, 1, 400)).p < 0.05 for _ in range(2000)])
    assert found == pytest.approx(0.8, abs=0.03)


def test_equivalence_is_two_one_sided_tests_of_contrasts():
    rng = np.random.default_rng(2)
    theirs = rng.gamma(1, 0.3, 500)
    ours = theirs + rng.normal(0.005, 0.05, 500)
    found = equivalence_p(ours, theirs, 0.1, paired_t_test)
    lower = stats.ttest_1samp(ours - 0.9 * theirs, 0, alternative="greater").pvalue
    upper = stats.ttest_1samp(1.1 * theirs - ours, 0, alternative="greater").pvalue
    assert found == pytest.approx(max(lower, upper))
    same = np.full(5, 0.5)
    assert equivalence_p(same, same, 0.1, paired_t_test) == 2.0**-4
    assert equivalence_p(same * 2, same, 0.1, paired_t_test) == 1.0


def test_equivalence_at_the_margin_is_found_as_often_as_alpha():
    """If the true difference equals the margin, 5% of all tests may find equivalence."""
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(2000):
        theirs = rng.gamma(1, 1, 300)
        hits += equivalence_p(1.1 * theirs + rng.normal(0, 0.2, 300), theirs, 0.1, paired_t_test) < 0.05
    assert hits / 2000 == pytest.approx(0.05, abs=0.015)


def test_the_prediction_interval_covers_the_next_training():
    rng = np.random.default_rng(6)
    values = rng.normal(0.1, 0.01, (4000, 4))
    inside = [low <= row[3] <= high for row in values for low, high in [next_training(row[:3].tolist())]]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)
    assert next_training([0.1]) is None


def test_sign_flips_find_the_exact_p_of_a_small_case():
    d = np.array([0.5, 0.25, 1.0, -0.125, 0.75, 0.0, 0.5])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 7)).reshape(7, -1).T
    exact = np.mean(np.abs(signs @ d) >= abs(d.sum()) - 1e-12)
    found = sign_flip_p(d[None], resamples=20_000)[0]
    assert found == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 20_000) ** 0.5)


def test_sign_flip_p_is_never_0_and_is_1_without_differences():
    d = np.stack([np.ones(50), np.zeros(50)])
    assert sign_flip_p(d, resamples=999).tolist() == [1 / 1000, 1.0]


def test_comparisons_that_share_flips_have_the_same_p_as_alone():
    rng = np.random.default_rng(4)
    d = rng.integers(-4, 6, (3, 300)) / 8  # every user has a difference, so none is left out
    d[:, (d == 0).any(axis=0)] = 0.125
    together = sign_flip_p(d, resamples=1000, seed=9)
    assert together.tolist() == [sign_flip_p(row[None], resamples=1000, seed=9)[0] for row in d]


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(6)
    d = np.where(rng.random((2, 500)) < 0.3, rng.normal(0.1, 1, (2, 500)), 0)
    flips, intervals = sign_flip_p(d, 500), bootstrap_intervals(d, resamples=500)
    monkeypatch.setattr(resampling, "THREADS", 1)
    assert sign_flip_p(d, 500).tolist() == flips.tolist()
    monkeypatch.setattr(resampling, "BLOCK", 700)
    assert np.allclose(bootstrap_intervals(d, resamples=500), intervals)
    assert sign_flip_p(d, 500) == pytest.approx(flips, abs=0.08)  # other blocks are other flips


def test_the_bootstrap_agrees_with_scipys():
    rng = np.random.default_rng(8)
    d = np.where(rng.random(300) < 0.4, rng.gamma(1, 1, 300), 0)
    theirs = stats.bootstrap((d,), np.mean, n_resamples=20_000, method="BCa", random_state=0).confidence_interval
    ours = bootstrap_intervals(d[None], resamples=20_000)[0]
    assert ours.tolist() == pytest.approx([theirs.low, theirs.high], abs=0.006)


def test_a_bootstrap_of_nothing_is_a_point():
    assert bootstrap_intervals(np.stack([np.zeros(9), np.full(9, 0.5)])).tolist() == [[0, 0], [0.5, 0.5]]


@settings(max_examples=20, deadline=None)
@given(d=DIFFERENCES)
def test_the_bootstrap_interval_lies_within_the_data(d):
    low, high = bootstrap_intervals(d[None], resamples=200)[0]
    assert d.min() - 1e-12 <= low <= high <= d.max() + 1e-12
