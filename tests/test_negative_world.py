"""The world where providers carry no information: seeing them must not win."""

from pathlib import Path

import pytest

from ipsrec_bench.report.content import Report

from .worlds import TWINS, Zoo, check_that_what_is_tested_was_run, controls, gains, provider_control, verdicts


@pytest.mark.parametrize("name", ["mrr@10", "ndcg@10", "hr@10"])
def test_seeing_the_provider_does_not_win_if_providers_carry_no_information(report, name):
    """By chance a gain is 1% at most. A gain below that may be called better by chance, so it does not count."""
    found, gain = verdicts(report, name), gains(report, name)
    assert found["pop"] == "worse"  # there is something to learn
    assert not [label for label, verdict in found.items() if verdict == "better" and gain[label] > 0.01]
    assert gain.pop("pop") < -0.5
    assert set(gain) == {"ipsrec-s", "ipsrec-s w/o CL", "ipsrec-c", "ipsrec-c w/o CL"}
    assert max(gain.values()) < 0.03


@pytest.mark.parametrize("name", ["mrr@10", "ndcg@10"])
def test_a_shuffle_of_providers_changes_nothing(controlled, name):
    """By chance the difference is 2% at most."""
    (own,) = (c for c in controlled.controls if c.metric == name)
    assert (own.row.label, own.reference.display) == ("ipsrec-s", "IPSRec-S, shuffled providers")
    assert abs(own.difference / own.reference_mean) < 0.04
    assert own.difference < 0 or own.verdict != "better"


def test_what_is_tested_was_run(zoo):
    check_that_what_is_tested_was_run(zoo)


@pytest.mark.parametrize("name", ["mrr@10", "ndcg@10", "hr@10"])
def test_no_model_gains_from_providers_without_information(zoo, name):
    """By chance a gain is 2% at most, of one seed."""
    found, gain = zoo.verdicts(TWINS, name), zoo.gains(TWINS, name)
    assert not [model for model, verdict in found.items() if verdict == "better" and gain[model] > 0.02]
    assert max(gain.values()) < 0.04
    learners = dict.fromkeys(["gru4rec", "caser", "sasrec", "sr-gnn", "markov"], "pop")
    assert set(zoo.verdicts(learners, name).values()) == {"better"}  # there is something to learn
    assert min(zoo.gains(learners, name).values()) > 1
    assert zoo.mean("provider-pop", name) < zoo.mean("markov", name) / 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def report(folder) -> Report:
    return controls(folder, "negative-control-small")


@pytest.fixture(scope="module")
def controlled(folder, report) -> Report:  # noqa: ARG001 (it has trained most of the cells)
    return provider_control(folder, "negative-control-small")


@pytest.fixture(scope="module")
def zoo(folder):
    return Zoo("negative-control-small", folder)
