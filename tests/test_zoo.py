"""Every model on both planted worlds, one seed each: families rank as they should.

A file beside `test_controls.py`, for files are tested side by side and both train for minutes.
"""

from pathlib import Path

import pytest

from ipsrec_bench.models.registry import REGISTRY
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.stats.correction import adjust
from ipsrec_bench.stats.paired import paired_t_test
from ipsrec_bench.store.connect import reading
from ipsrec_bench.store.queries import find_run
from ipsrec_bench.store.queries import test_ranks as ranks_of

from .conftest import ROOT

TWINS = {
    "gru4rec-f": "gru4rec",
    "sasrec-f": "sasrec",
    "fdsa": "sasrec",
    "nova": "sasrec",
    "dif-sr": "sasrec",
    "ipsrec-s": "sasrec",
    "ipsrec-c": "sasrec",
}
"""Every neural model that sees providers, and what it is without them."""
ATTENTION_ONLY = {"nova", "dif-sr"}
"""Providers direct attention in these, but only item states are attended to."""
ALPHA = 0.01


class Zoo:
    """The per-user metrics of every model of `suites/baselines.toml`, one seed."""

    def __init__(self, store: Path) -> None:
        with reading(store) as connection:
            run = find_run(connection)
            ranks = ranks_of(connection, [cell.key for cell in run.cells])
        self.ranks = {(cell.dataset, cell.model): ranks[cell.key].ranks for cell in run.cells}

    def mean(self, dataset: str, model: str, name: str = "mrr@10") -> float:
        return float(metric(name, self.ranks[dataset, model]).mean())

    def verdicts(self, dataset: str, pairs: dict[str, str], name: str) -> dict[str, str]:
        """Test each model against its counterpart, corrected by Holm over all pairs."""
        tests = [
            paired_t_test(metric(name, self.ranks[dataset, ours]) - metric(name, self.ranks[dataset, theirs]))
            for ours, theirs in pairs.items()
        ]
        adjusted = adjust([test.p for test in tests], "holm")
        return {
            model: "undecided" if p >= ALPHA else "better" if test.mean > 0 else "worse"
            for model, test, p in zip(pairs, tests, adjusted, strict=True)
        }


def test_the_whole_zoo_was_run(zoo):
    datasets = ("positive-control", "negative-control")
    assert set(zoo.ranks) == {(dataset, model) for dataset in datasets for model in REGISTRY}
    assert set(TWINS) == {name for name, entry in REGISTRY.items() if entry.uses_providers and not entry.counts}


@pytest.mark.parametrize("name", ["mrr@10", "ndcg@10"])
def test_families_rank_as_planted_where_the_provider_decides(zoo, name):
    """Models that carry providers beat their blind twins, and these beat popularity; so do the floors that should."""
    found = zoo.verdicts("positive-control", TWINS, name)
    assert {found[model] for model in TWINS if model not in ATTENTION_ONLY} == {"better"}
    assert {found[model] for model in ATTENTION_ONLY} <= {"better", "undecided"}
    floor = dict.fromkeys(["gru4rec", "sasrec", "sr-gnn", "markov", "provider-pop"], "pop")
    assert set(zoo.verdicts("positive-control", floor, name).values()) == {"better"}
    blind = {name for name, entry in REGISTRY.items() if not entry.uses_providers}
    carrying = set(TWINS) - ATTENTION_ONLY
    best_blind = max(zoo.mean("positive-control", model, name) for model in blind)
    assert all(zoo.mean("positive-control", model, name) > best_blind for model in carrying)


@pytest.mark.parametrize("name", ["mrr@10", "ndcg@10", "hr@10"])
def test_nobody_gains_from_providers_where_they_tell_nothing(zoo, name):
    assert "better" not in zoo.verdicts("negative-control", TWINS, name).values()
    learners = dict.fromkeys(["gru4rec", "caser", "sasrec", "sr-gnn", "markov"], "pop")
    assert set(zoo.verdicts("negative-control", learners, name).values()) == {"better"}  # there is something to learn
    assert zoo.mean("negative-control", "provider-pop", name) < zoo.mean("negative-control", "markov", name)


@pytest.fixture(scope="module")
def zoo(module_bench, tmp_path_factory) -> Zoo:
    folder = tmp_path_factory.mktemp("zoo")
    done = module_bench("run", ROOT / "suites" / "baselines.toml", "--quiet", "--set", "seeds=[1]", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return Zoo(folder / "reports" / "ipsrec-bench.duckdb")
