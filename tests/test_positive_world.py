"""The world where the provider decides what comes next: seeing it must win."""

from pathlib import Path

import pytest

from ipsrec_bench.models.registry import REGISTRY
from ipsrec_bench.report.content import Report

from .worlds import (
    ATTENTION_ONLY,
    TESTED,
    TWINS,
    Zoo,
    check_that_what_is_tested_was_run,
    controls,
    gains,
    provider_control,
    report_of,
    verdicts,
)


@pytest.mark.parametrize("name", ["mrr@10", "ndcg@10"])
def test_seeing_the_provider_wins_where_the_provider_decides(report, name):
    """Gains are 15 to 31% with p below 1e-8, and -3% to 5% for IPSRec-C without the contrastive loss."""
    assert {c.alpha for c in report.comparisons} == {0.01}
    assert {c.reference.label for c in report.comparisons} == {"sasrec"}
    found, gain = verdicts(report, name), gains(report, name)
    assert found.pop("pop") == "worse"
    assert found.pop("ipsrec-c w/o CL") != "worse"
    assert found == {"ipsrec-s": "better", "ipsrec-s w/o CL": "better", "ipsrec-c": "better"}
    assert gain.pop("pop") < -0.15
    # Without the contrastive loss IPSRec-C's item view sees providers through attention weights alone (eq. 7): it gains
    # 5% in the full-size world, and nothing here.
    assert -0.1 < gain.pop("ipsrec-c w/o CL") < min(gain.values())
    assert min(gain.values()) > 0.07


@pytest.mark.parametrize("name", ["mrr@10", "ndcg@10"])
def test_a_shuffle_of_providers_takes_the_gain_away(controlled, name):
    """Own providers bring 22% over the shuffled ones with p below 1e-8. What is left over SASRec is -0.1% to 2.9%."""
    (own,) = (c for c in controlled.controls if c.metric == name)
    (left,) = (c for c in controlled.control_gains if c.metric == name)
    assert (own.row.label, own.reference.display) == ("ipsrec-s", "IPSRec-S, shuffled providers")
    assert (own.verdict, left.reference.label) == ("better", "sasrec")
    assert own.difference / own.reference_mean > 0.1
    assert left.verdict != "better"
    assert abs(left.difference / left.reference_mean) < controlled.controls[0].margin


def test_the_quick_suite_shows_a_significant_gain_within_its_memory(tmp_path):
    """It is 32 to 35% with p below 1e-8, of one seed in ten epochs."""
    report = report_of(tmp_path, "quick", "seeds=[1]", "training.epochs=10")
    for name in ("mrr@10", "ndcg@10"):
        assert verdicts(report, name) == {"pop": "worse", "ipsrec-s": "better"}
        assert gains(report, name)["ipsrec-s"] > 0.1
    assert {c.alpha for c in report.comparisons} == {0.01}
    assert max(line.peak_memory for line in report.costs) < 2 * 10**9


def test_what_is_tested_was_run(zoo):
    check_that_what_is_tested_was_run(zoo)


@pytest.mark.parametrize("name", ["mrr@10", "ndcg@10"])
def test_families_rank_as_planted_where_the_provider_decides(zoo, name):
    """Models that carry providers beat their blind twins, and these beat popularity; so do the floors that should.

    Margins are half of what is found or less, and p of every verdict is below 1e-8.
    """
    found, gain = zoo.verdicts(TWINS, name), zoo.gains(TWINS, name)
    carrying = set(TWINS) - ATTENTION_ONLY
    assert {found[model] for model in carrying} == {"better"}
    assert all(gain[model] > 0.1 for model in carrying)
    assert "worse" not in {found[model] for model in ATTENTION_ONLY}
    assert all(gain[model] > -0.05 for model in ATTENTION_ONLY)
    floor = dict.fromkeys(["gru4rec", "sasrec", "sr-gnn", "markov", "provider-pop"], "pop")
    assert set(zoo.verdicts(floor, name).values()) == {"better"}
    assert min(zoo.gains(floor, name).values()) > 0.1
    blind = {name for name in TESTED if not REGISTRY[name].uses_providers}
    best_blind = max(zoo.mean(model, name) for model in blind)
    assert all(zoo.mean(model, name) > 1.05 * best_blind for model in carrying)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def report(folder) -> Report:
    return controls(folder, "positive-control-small")


@pytest.fixture(scope="module")
def controlled(folder, report) -> Report:  # noqa: ARG001 (it has trained most of the cells)
    return provider_control(folder, "positive-control-small")


@pytest.fixture(scope="module")
def zoo(folder):
    return Zoo("positive-control-small", folder)
