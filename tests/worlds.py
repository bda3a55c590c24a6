"""Both planted worlds through the whole pipeline, in a folder for each: a cell that two suites have is trained once."""

import tomllib
from pathlib import Path

import tomli_w

from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.report.build import build_report
from ipsrec_bench.report.content import Report
from ipsrec_bench.report.material import read_material
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.stats.correction import adjust
from ipsrec_bench.stats.paired import paired_t_test
from ipsrec_bench.store.connect import reading
from ipsrec_bench.store.queries import test_ranks as ranks_of

from .conftest import ROOT, run_bench

TESTED = (
    *("pop", "recent-pop", "repeat", "markov", "item-knn", "provider-pop"),
    *("gru4rec", "caser", "sasrec", "sr-gnn"),
    *("gru4rec-f", "sasrec-f", "fdsa", "nova", "dif-sr", "ipsrec-s", "ipsrec-c"),
)
"""The models that are trained here. The whole zoo takes too long for a test; benchmarks/README.md has its figures."""
TWINS = {
    "gru4rec-f": "gru4rec",
    "sasrec-f": "sasrec",
    "fdsa": "sasrec",
    "nova": "sasrec",
    "dif-sr": "sasrec",
    "ipsrec-s": "sasrec",
    "ipsrec-c": "sasrec",
}
"""Every tested neural model that sees providers, and what it is without them."""
ATTENTION_ONLY = {"nova", "dif-sr"}
"""Providers direct attention in these, but only item states are attended to."""
ALPHA = 0.01
USERS = 1500
"""As many as in the embedded controls, for tests of their power; the small controls are easier to learn."""
SETTINGS = (
    "seeds=[1]",
    "training.batch_size=256",
    "training.learning_rate=5e-3",
    "training.epochs=6",
    "models.caser.training.epochs=3",
    "models.dif-sr.training={learning_rate=3e-3, epochs=8}",
)
"""Epochs after which models have reached what is asked of them here. DIF-SR learns nothing at the others' rate."""
SHARED = SETTINGS[:4]
"""Of both suites, whose common cells are trained once; one that lacks a model takes no settings of it."""


def run_suite(folder: Path, suite: Path, *settings: str) -> None:
    options = [word for setting in settings for word in ("--set", setting)]
    done = run_bench("run", suite, "--quiet", *options, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")


def shipped(suite: str) -> Path:
    return ROOT / "suites" / f"{suite}.toml"


def report_of(folder: Path, suite: str, *settings: str) -> Report:
    run_suite(folder, shipped(suite), *settings)
    with reading(folder / "reports" / "ipsrec-bench.duckdb") as connection:
        return build_report(read_material(connection, read_run(connection, suite)))


def only(world: str) -> tuple[str, str]:
    """Return the settings of a suite that choose one of the catalogue's small worlds."""
    return f'datasets=["{world}"]', f"datasets.{world}.users={USERS}"


def controls(folder: Path, world: str) -> Report:
    """Return the report on `suites/controls.toml` in one world."""
    return report_of(folder, "controls", *only(world), *SHARED)


def provider_control(folder: Path, world: str) -> Report:
    """Return the report on `suites/provider-control.toml` in one world; all but the twins are cells of `controls`."""
    return report_of(folder, "provider-control", *only(world), *SHARED)


def verdicts(report: Report, name: str) -> dict[str, str]:
    return {c.row.label: c.verdict for c in report.comparisons if c.metric == name}


def gains(report: Report, name: str) -> dict[str, float]:
    """Return every row's difference to the baseline, as a share of the baseline's value."""
    return {c.row.label: c.difference / c.reference_mean for c in report.comparisons if c.metric == name}


class Zoo:
    """The ranks of the models of `suites/baselines.toml` that are tested, in one world, one seed."""

    def __init__(self, world: str, folder: Path) -> None:
        suite = tomllib.loads(shipped("baselines").read_text(encoding="utf-8"))
        suite["models"] = {name: settings for name, settings in suite["models"].items() if name in TESTED}
        suite["statistics"]["proposed"] = list(TWINS)
        (folder / "baselines.toml").write_text(tomli_w.dumps(suite), encoding="utf-8")
        run_suite(folder, folder / "baselines.toml", *only(world), *SETTINGS)
        with reading(folder / "reports" / "ipsrec-bench.duckdb") as connection:
            run = read_run(connection, "baselines")
            ranks = ranks_of(connection, [cell.key for cell in run.cells])
        assert {cell.dataset for cell in run.cells} == {world}
        self.ranks = {cell.model: ranks[cell.key].ranks for cell in run.cells}

    def mean(self, model: str, name: str) -> float:
        return float(metric(name, self.ranks[model]).mean())

    def gains(self, pairs: dict[str, str], name: str) -> dict[str, float]:
        """Return each model's difference to its counterpart, as a share of the counterpart's value."""
        return {ours: self.mean(ours, name) / self.mean(theirs, name) - 1 for ours, theirs in pairs.items()}

    def verdicts(self, pairs: dict[str, str], name: str) -> dict[str, str]:
        """Test each model against its counterpart, corrected by Holm over all pairs."""
        tests = [
            paired_t_test(metric(name, self.ranks[ours]) - metric(name, self.ranks[theirs]))
            for ours, theirs in pairs.items()
        ]
        adjusted = adjust([test.p for test in tests], "holm")
        return {
            model: "undecided" if p >= ALPHA else "better" if test.mean > 0 else "worse"
            for model, test, p in zip(pairs, tests, adjusted, strict=True)
        }


def check_that_what_is_tested_was_run(zoo: Zoo) -> None:
    assert set(zoo.ranks) == set(TESTED)
