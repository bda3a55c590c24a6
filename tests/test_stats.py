"""Statistics against independent implementations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel
from statsmodels.stats.multitest import multipletests

from ipsrec_bench.stats.correction import holm
from ipsrec_bench.stats.paired import paired_t_test


@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=20))
def test_holm_equals_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


@given(st.integers(2, 200), st.integers(0, 10**6))
def test_the_paired_test_equals_scipy(users, seed):
    a, b = np.random.default_rng(seed).random((2, users))
    found, expected = paired_t_test(a, b, 0.9), ttest_rel(a, b)
    interval = expected.confidence_interval(0.9)
    assert (found.t, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.effect_size == pytest.approx(found.t / np.sqrt(users))
    assert found.wins + found.ties + found.losses == found.users == users
    assert (found.wins, found.losses) == ((a > b).sum(), (a < b).sum())


def test_direction_is_first_minus_second():
    better = paired_t_test(np.array([1.0, 1, 1, 0]), np.array([0.0, 0, 0.5, 0]))
    assert better.difference > 0
    assert (better.wins, better.ties, better.losses) == (3, 1, 0)


def test_equal_differences_have_no_t_statistic():
    same = paired_t_test(np.ones(5), np.ones(5))
    assert (same.difference, same.p, same.effect_size, same.ties) == (0, 1, 0, 5)
    shifted = paired_t_test(np.ones(5), np.zeros(5))
    assert (shifted.difference, shifted.p, shifted.effect_size) == (1, 0, np.inf)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="two arrays of at least two users"):
        paired_t_test(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="two arrays of at least two users"):
        paired_t_test(np.ones(1), np.ones(1))
