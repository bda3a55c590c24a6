"""Sums in floating point leave noise in their last bits; no statistic may take it for a difference."""

from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ipsrec_bench.ranking.metrics import metric, realistic_rank
from ipsrec_bench.report.comparisons import Pair, compare
from ipsrec_bench.report.results import Results
from ipsrec_bench.report.runs import Run
from ipsrec_bench.stats.all_pairs import max_t
from ipsrec_bench.stats.differences import mean_differences
from ipsrec_bench.stats.effect import effect_size
from ipsrec_bench.stats.method import method_test
from ipsrec_bench.stats.paired import WinTieLoss, paired_t_test, wilcoxon_p, win_tie_loss
from ipsrec_bench.stats.resampling import bootstrap_intervals, sign_flip_p
from ipsrec_bench.store import queries
from ipsrec_bench.store.records import PlannedCell
from ipsrec_bench.suite.load import parse_suite

FIXTURE = Path(__file__).parent / "fixtures" / "quick-test-ranks.parquet"
SUITE = """
title = "Noise"
datasets = ["positive-control"]
models = ["pop", "sasrec", "ipsrec-s", "ipsrec-c"]
[statistics]
baseline = "sasrec"
resamples = 200
"""
SEEDS = (1, 2, 3)
Ranks = dict[tuple[str, str, int], np.ndarray]


@pytest.fixture(scope="module")
def quick() -> Ranks:
    """Realistic ranks by model, variant and seed."""
    rows = duckdb.sql(f"SELECT model, variant, seed, \"user\", higher, ties FROM '{FIXTURE}' ORDER BY ALL").fetchnumpy()
    rank = realistic_rank(rows["higher"], rows["ties"])
    found = {}
    for key in sorted({*zip(rows["model"], rows["variant"], rows["seed"].tolist(), strict=True)}):
        chosen = np.all([rows[name] == value for name, value in zip(("model", "variant", "seed"), key, strict=True)], 0)
        found[key] = rank[chosen]
    assert {len(ranks) for ranks in found.values()} == {1467}
    return found


def results(ranks: Ranks) -> Results:
    cells = [
        PlannedCell(f"{model}{variant}{seed}", "quick", model, model, model, variant, seed)
        for model, variant, seed in ranks
    ]
    run = Run(1, "noise", parse_suite(Path("noise.toml"), SUITE).suite, "", (), datetime.now(UTC), tuple(cells))
    users = np.arange(len(next(iter(ranks.values()))), dtype=np.int32)
    found = {
        cell.key: queries.TestRanks(cell.key, users, values.astype(np.int32))
        for cell, values in zip(cells, ranks.values(), strict=True)
    }
    return Results(run, found)


def compared(ranks: Ranks, test="paired-t", interval="test"):
    """Every row against SASRec on every metric: thirty comparisons of six rows."""
    of = results(ranks)
    statistics = of.run.suite.statistics.model_copy(update={"test": test, "interval": interval, "margin": 0.05})
    reference = of.row("sasrec")
    pairs = [
        Pair("quick", name, row, reference)
        for name in of.run.suite.protocol.shown
        for row in of.rows
        if row != reference
    ]
    return compare(of, pairs, statistics)


@pytest.mark.parametrize(
    ("test", "interval"),
    [
        ("method", "test"),
        *((test, way) for test in ("paired-t", "wilcoxon", "randomisation") for way in ("test", "bootstrap")),
    ],
)
def test_p_values_and_intervals_do_not_depend_on_the_numbers_of_the_seeds(quick, test, interval):
    def numbers(made):
        return [
            (c.p, c.adjusted_p, c.equivalence_p, c.low, c.high, c.by_users, c.counts, c.effect, c.difference)
            for c in made
        ]

    first = numbers(compared(quick, test, interval))
    assert len(first) == 30
    for order in list(permutations(SEEDS))[1 :: 2 if interval == "test" else 4]:
        for reference in (False, True):
            renumbered = {
                (model, variant, order[seed - 1] if (model == "sasrec") == reference else seed): ranks
                for (model, variant, seed), ranks in quick.items()
            }
            assert numbers(compared(renumbered, test, interval)) == first


def test_equal_values_under_other_seeds_are_ties(quick):
    """Each user's three values, dealt out to the seeds anew: the same model to the user, whatever the order of sums."""
    rng = np.random.default_rng(0)
    row = np.stack([quick["sasrec", "", seed] for seed in SEEDS], axis=1)
    dealt = rng.permuted(row, axis=1)
    ranks = {("sasrec", "", seed): row[:, seed - 1] for seed in SEEDS}
    ranks |= {("other", "", seed): dealt[:, seed - 1] for seed in SEEDS}
    for test in ("paired-t", "wilcoxon", "randomisation", "method"):
        for c in compared(ranks, test):
            assert (c.counts.wins, c.counts.losses, c.difference, c.p) == (0, 0, 0.0, 1.0)
            assert (c.verdict, c.gain.value, c.effect.value) in {
                ("undecided", 0.0, 0.0),
                ("equivalent", 0.0, 0.0),
            }
            assert c.of_method == "undecided"


def test_wilcoxon_is_scipys_on_rounded_differences_in_all_thirty_comparisons(quick):
    made = compared(quick, "wilcoxon")
    assert len(made) == 30
    for c in made:
        ours, theirs = (
            np.stack([metric(c.metric, quick[row.model, row.variant, seed]) for seed in SEEDS], axis=1)
            for row in (c.row, c.reference)
        )
        differences = np.round(ours.mean(axis=1) - theirs.mean(axis=1), 12)
        expected = stats.wilcoxon(differences, zero_method="pratt", method="approx").pvalue
        assert c.p == pytest.approx(expected, rel=1e-9, abs=0)
        assert c.counts.wins == (differences > 0).sum()
        assert c.counts.losses == (differences < 0).sum()


def test_ranks_one_one_six_are_no_better_than_six_one_one_in_any_test():
    """Also where a caller forgets to round: every function rounds its differences."""
    ours, theirs = (np.tile(metric("ndcg@10", np.array(ranks)), (500, 1)) for ranks in ([1, 1, 6], [6, 1, 1]))
    naive = ours.mean(axis=1) - theirs.mean(axis=1)
    assert np.count_nonzero(mean_differences(ours, theirs)) == 0
    assert not np.signbit(mean_differences(ours, theirs)).any()
    assert 0 < abs(naive).max() < 1e-15
    assert (paired_t_test(naive).mean, paired_t_test(naive).p) == (0, 1)
    assert wilcoxon_p(naive) == 1
    assert win_tie_loss(naive) == WinTieLoss(0, 500, 0)
    assert sign_flip_p(naive[None], 100).tolist() == [1]
    assert bootstrap_intervals(naive[None], resamples=100).tolist() == [[0, 0]]
    assert max_t(np.stack([ours.mean(axis=1), theirs.mean(axis=1)]), 100).p.min() == 1
    assert effect_size(naive).value == 0
    found = method_test(ours, theirs).test
    assert (found.mean, found.p) == (0, 1)


@given(
    st.lists(st.lists(st.integers(1, 30), min_size=3, max_size=3), min_size=3, max_size=20),
    st.lists(st.floats(-1e-15, 1e-15), min_size=60, max_size=60),
)
def test_noise_in_the_last_bits_changes_no_statistic(ranks, noise):
    values = metric("ndcg@20", np.array(ranks))
    difference = values.mean(axis=1) - values[::-1].mean(axis=1)
    moved = difference + np.array(noise[: len(ranks)])
    assert paired_t_test(moved) == paired_t_test(difference)
    assert wilcoxon_p(moved) == wilcoxon_p(difference)
    assert win_tie_loss(moved) == win_tie_loss(difference)
    assert sign_flip_p(moved[None], 100).tolist() == sign_flip_p(difference[None], 100).tolist()
    assert repr(effect_size(moved)) == repr(effect_size(difference))


@given(
    st.lists(st.lists(st.integers(1, 30), min_size=3, max_size=3), min_size=2, max_size=20), st.permutations([0, 1, 2])
)
def test_mean_differences_do_not_depend_on_the_order(ranks, order):
    values = metric("ndcg@20", np.array(ranks))
    other = values[::-1]
    assert mean_differences(values, values[:, order]).tolist() == [0.0] * len(ranks)
    assert mean_differences(values, other).tolist() == mean_differences(values[:, order], other).tolist()
    assert np.abs(mean_differences(values, other) - (values - other).mean(axis=1)).max() < 1e-12
