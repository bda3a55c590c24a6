"""All pairs at once: maxT, and the letters that show it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.stats.all_pairs import letters, max_t
from ipsrec_bench.stats.differences import over_seeds
from ipsrec_bench.stats.paired import paired_t_test
from tests.quick_ranks import quick_ndcg, quick_ranks


def test_the_critical_values_of_a_real_run():
    found = max_t(np.stack([over_seeds(quick_ndcg(label)) for label in quick_ranks()]), resamples=5_000)
    assert found.critical(0.05) == pytest.approx(2.80, abs=0.1)
    assert found.critical(0.01) == pytest.approx(3.35, abs=0.1)
    assert found.maxima.shape == (5_000,)


def test_p_is_the_share_of_larger_maxima():
    rng = np.random.default_rng(0)
    rows = np.where(rng.random((4, 300)) < 0.4, rng.gamma(1, 1, (4, 300)), 0.0) + 0.06 * np.arange(4)[:, None]
    found = max_t(rows, resamples=4_000, seed=3)
    drawn = rng.integers(0, 300, (4_000, 300))
    first, second = np.triu_indices(4, 1)
    differences = rows[first] - rows[second]
    errors = differences.std(axis=1, ddof=1) / 300**0.5
    means = np.stack([row[drawn].mean(axis=1) for row in differences], axis=1)
    largest = np.abs((means - differences.mean(axis=1)) / errors).max(axis=1)
    for i, j, error, difference in zip(first, second, errors, differences, strict=True):
        t = difference.mean() / error
        expected = (1 + (largest >= abs(t)).sum()) / 4_001
        assert found.p[i, j] == found.p[j, i] == pytest.approx(expected, abs=0.035)
        assert (found.t[i, j], found.t[j, i]) == pytest.approx((t, -t))
        assert found.standard_error[j, i] == pytest.approx(error)
        assert found.difference[j, i] == pytest.approx(-difference.mean())
        assert found.p[i, j] >= paired_t_test(difference).p - 0.01
    assert np.diag(found.p).tolist() == [1] * 4


def test_the_order_of_rows_changes_nothing_but_the_order():
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 5, (5, 200)) / 4
    order = rng.permutation(5)
    assert max_t(rows[order], 500).p == pytest.approx(max_t(rows, 500).p[np.ix_(order, order)], abs=0.01)


def test_the_noise_of_sums_is_no_difference():
    a, b = (np.tile(metric("ndcg@10", np.array(ranks)).mean(), 500) for ranks in ([1, 1, 6], [6, 1, 1]))
    found = max_t(np.stack([a, b, b + 1e-16]), 200)
    assert found.p.tolist() == np.ones((3, 3)).tolist()
    assert (found.t == 0).all()


def test_equal_differences_of_all_users_have_the_p_of_sign_flips():
    found = max_t(np.stack([np.full(4, 0.5), np.full(4, 0.25), [0, 0, 1, 0]]), 999)
    assert found.p[0, 1] == 2.0**-3
    assert found.t[0, 1] == np.inf
    with pytest.raises(ValueError, match="two rows x two users"):
        max_t(np.ones((1, 9)))


def test_letters_of_a_known_case():
    different = np.zeros((4, 4), dtype=bool)
    for i, j in ((0, 2), (0, 3), (1, 3)):
        different[i, j] = different[j, i] = True
    assert letters(different, np.array([4.0, 3.0, 2.0, 1.0])) == ("a", "ab", "bc", "c")
    assert letters(different, np.array([1.0, 2.0, 3.0, 4.0])) == ("c", "bc", "ab", "a")
    assert letters(np.zeros((3, 3), dtype=bool), np.arange(3.0)) == ("a", "a", "a")
    many = letters(~np.eye(27, dtype=bool), -np.arange(27.0))
    assert (many[0], many[25], many[26]) == ("a", "z", "a1")


@given(data=st.data(), rows=st.integers(1, 7))
def test_two_rows_share_a_letter_if_and_only_if_they_do_not_differ(data, rows):
    pairs = data.draw(st.lists(st.booleans(), min_size=rows**2, max_size=rows**2))
    different = np.triu(np.array(pairs).reshape(rows, rows), 1)
    different |= different.T
    found = letters(different, np.array(data.draw(st.lists(st.floats(0, 1), min_size=rows, max_size=rows))))
    for i in range(rows):
        assert found[i]
        for j in range(rows):
            assert bool(set(found[i]) & set(found[j])) == (i == j or not different[i, j])
