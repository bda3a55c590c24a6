"""What a cell takes: measured on complete cells, else by training it for a moment."""

import dataclasses
import json
import re
from functools import partial
from pathlib import Path

import duckdb
import pytest

from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import EpochDone, StepDone
from ipsrec_bench.run import cell as cell_module
from ipsrec_bench.run import probe as probe_module
from ipsrec_bench.run.costs import Cost, NoCost, kind_of, measured_costs
from ipsrec_bench.run.executors.api import Place, Slot
from ipsrec_bench.run.executors.inline import Inline
from ipsrec_bench.run.executors.pool import Pool
from ipsrec_bench.run.plan import cells_of, make_plan
from ipsrec_bench.run.probe import Costs, probe
from ipsrec_bench.suite.load import load_suite

STORE = Path("reports/ipsrec-bench.duckdb")


def ignore(_=None):
    pass


def table_of(store, sql):
    with duckdb.connect(str(store), read_only=True) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def cell(tiny_suite):
    return next(cell for cell in cells_of(load_suite(tiny_suite)) if cell.label == "sasrec")


def trained_for(cell, **training):
    return dataclasses.replace(cell, training=cell.training.model_copy(update=training))


@pytest.fixture
def found(tmp_path, world):
    """Probe a cell on one thread of this process."""

    def probed(cell, data=world, device="cpu"):
        return probe(cell, Place("here", device, 1, tmp_path), data, ignore)

    return probed


def test_a_probe_extrapolates_from_a_short_training_to_all_epochs(cell, found):
    cost = found(trained_for(cell, epochs=1000))
    assert cost.source == "probed"
    assert cost.seconds > 1000 * cost.epoch_seconds > 0
    assert cost.memory > 100e6
    assert cost.device_memory is None


def test_the_start_of_a_training_is_counted_once_and_validation_is_not_a_step(cell, found, monkeypatch):
    """A training, on a clock of its own, whose first step takes 5 s, every other one 0.1 s, and validation 7 s."""
    now = 100.0
    monkeypatch.setattr(probe_module.time, "perf_counter", lambda: now)

    def train_cell(key, cell, place, data, emit, way):  # noqa: ARG001 (the real one's form)
        nonlocal now
        for epoch in range(1, cell.training.epochs + 1):
            for step in range(1, 5):
                now += 5 if (epoch, step) == (1, 1) else 0.1
                emit(StepDone(key, "d", "m", 1, epoch, step, 4, 0.5, 10.0))
            now += 7
            emit(EpochDone(key, "d", "m", 1, epoch, 0.5, 0.5, 10.0))

    monkeypatch.setattr(cell_module, "train_cell", train_cell)
    cost = found(trained_for(cell, epochs=10))  # ranking takes no time on this clock
    assert cost.epoch_seconds == pytest.approx(0.4)
    assert cost.seconds == pytest.approx(4.9 + 10 * 0.4)


def test_a_long_epoch_is_not_trained_to_its_end(cell, found, monkeypatch):
    now, steps = 100.0, []
    monkeypatch.setattr(probe_module.time, "perf_counter", lambda: now)

    def train_cell(key, cell, place, data, emit, way):  # noqa: ARG001 (the real one's form)
        nonlocal now
        for step in range(1, 1001):
            now += 0.25
            steps.append(step)
            emit(StepDone(key, "d", "m", 1, 1, step, 1000, 0.5, 10.0))

    monkeypatch.setattr(cell_module, "train_cell", train_cell)
    assert found(cell).epoch_seconds == pytest.approx(250)
    assert 0.25 * len(steps) < 3


def test_a_model_that_counts_is_fitted_to_a_part_and_has_no_epochs(tiny_suite, found, monkeypatch):
    cell = next(cell for cell in cells_of(load_suite(tiny_suite)) if cell.counts)
    monkeypatch.setattr(probe_module, "COUNTED", 300)
    cost = found(cell)
    assert (cost.epoch_seconds, cost.source) == (None, "probed")
    assert cost.seconds > 0
    assert cost.memory > 100e6


def test_a_cell_that_does_not_fit_is_a_finding(cell, found, world):
    cost = found(cell, dataclasses.replace(world, num_items=10**14))  # tables larger than any address space
    assert isinstance(cost, NoCost)
    assert cost.does_not_fit


def test_a_training_that_fails_is_a_finding_of_another_kind(cell, found):
    cost = found(trained_for(cell, learning_rate=1e30))
    assert isinstance(cost, NoCost)
    assert not cost.does_not_fit
    assert "not finite" in cost.reason


def test_a_missing_device_is_an_error_and_not_a_finding(cell, found):
    with pytest.raises(BenchError, match="nothing:0"):
        found(cell, device="nothing:0")


def test_the_kernel_is_asked_to_end_a_probe_before_others(cell, found, tmp_path, monkeypatch):
    score, seen = tmp_path / "oom_score_adj", []
    score.write_text("7", encoding="ascii")
    monkeypatch.setattr(probe_module, "OOM_SCORE", score)

    def train_cell(*_):
        seen.append(score.read_text(encoding="ascii"))
        raise MemoryError

    monkeypatch.setattr(cell_module, "train_cell", train_cell)
    assert found(cell) == NoCost("MemoryError", does_not_fit=True)
    assert (seen, score.read_text(encoding="ascii")) == (["1000"], "7")


def test_stored_costs_of_like_cells_take_precedence_over_a_probe(finished, tmp_path):
    """Their seed may differ; their settings, data and threads may not."""
    store, probed = tmp_path / STORE, []
    ((threads,),) = set(table_of(store, "SELECT DISTINCT threads FROM environments"))
    file = load_suite(finished / "tiny.toml", ["seeds=[2, 9]", "models.sasrec.n_layers=1"])
    plan = make_plan(file, finished / "data", store, ignore)
    todo = plan.todo()
    assert {cell.seed for _, cell in todo} == {2, 9}
    with Inline("cpu", threads, ignore, ignore) as here:
        costs = Costs(store, here, tmp_path / "probes", probed.append)
        found = {(cell.label, cell.seed): costs.of(cell, plan.datasets["world"]) for _, cell in todo}
    assert [cell.label for cell in probed] == ["sasrec"]
    assert {label: cost.source for (label, _), cost in found.items()} == {
        "sasrec": "probed",
        "ipsrec-s": "measured",
        "ipsrec-s w/o CL": "measured",
    }
    seconds, epoch, memory = table_of(
        store,
        "SELECT median(seconds), median(epoch), max(peak_memory) FROM cells JOIN (SELECT cell, avg(train_seconds +"
        " valid_seconds) AS epoch FROM epochs GROUP BY cell) USING (cell) WHERE type = 'ipsrec-s' AND"
        " json_extract(settings, '$.config.lambda')::DOUBLE > 0",
    )[0]
    assert found["ipsrec-s", 9] == Cost(epoch, seconds, memory, None, "measured")
    kinds = [kind_of(cell, plan.datasets["world"]) for _, cell in plan.cells]
    assert measured_costs(store, kinds, cuda=False, threads=threads)
    assert not measured_costs(store, kinds, cuda=False, threads=threads + 1)
    assert not measured_costs(store, kinds, cuda=True, threads=threads)


KILLER = """
import os, signal
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.models.sasrec import SASRec
from ipsrec_bench.models.configs import TransformerConfig

class Killer(SASRec):
    config_type = TransformerConfig
    causal = True

    def encode(self, histories, *, every_position):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_probe_that_is_killed_leaves_the_others_to_be_probed(tiny_suite, world, tmp_path):
    (tmp_path / "killer.py").write_text(KILLER, encoding="utf-8")
    file = load_suite(tiny_suite, ["seeds=[1]", 'models.killed.type="killer:Killer"'])
    cells = {cell.label: cell for cell in cells_of(file)}
    with Pool([Slot("worker 1", "cpu", 1)], ignore, ignore) as pool:
        costs = Costs(tmp_path / "none.duckdb", pool, tmp_path / "probes", ignore)
        killed, other = (costs.of(cells[label], world) for label in ("killed", "pop"))
    assert killed == NoCost("it was killed by SIGKILL, perhaps out of memory", does_not_fit=True)
    assert isinstance(other, Cost)


@pytest.mark.usefixtures("finished")
def test_a_dry_run_says_what_cells_and_the_suite_take(tiny_suite, bench, monkeypatch):
    monkeypatch.setattr(probe_module, "probe", lambda *_: Cost(60.0, 7200.0, 10**9, None, "probed"))
    threads = table_of(tiny_suite.parent / STORE, "SELECT DISTINCT threads FROM environments")[0][0]
    ask = ("run", tiny_suite, "--dry-run", "--threads", threads, "--jobs", 2, "--set", "seeds=[1, 3]")
    ask = (*ask, "--set", "models.ipsrec-s.n_layers=1")
    shown = bench(*ask).stdout
    assert re.search(r"8 cells, 5 to run; 2 at a time with \d threads? each: at most about 4.0 h, 2.0 GB", shown)
    assert shown.count("measured") == 1  # by the other seed of sasrec
    assert shown.count("≤ 2.0 h") == shown.count("probed") == 4
    cells = json.loads(bench(*ask, "--json").stdout)
    sources = {(cell["label"], cell["seed"]): (cell["estimate"] or {}).get("source") for cell in cells}
    assert sources["sasrec", 1] is None  # it is done
    assert (sources["sasrec", 3], sources["ipsrec-s", 1]) == ("measured", "probed")


def test_a_dry_run_names_what_would_fail_or_not_fit(tiny_suite, bench, monkeypatch):
    make_plan(load_suite(tiny_suite), tiny_suite.parent / "data", tiny_suite.parent / STORE, ignore)  # prepares data
    cost = partial(Cost, 1.0, 10.0, device_memory=None, source="probed")
    answers = iter([cost(memory=10**9), cost(memory=10**9), cost(memory=10**18), NoCost("ValueError: no", False)])
    monkeypatch.setattr(probe_module, "probe", lambda *_: next(answers, NoCost("it was killed", does_not_fit=True)))
    shown = bench("run", tiny_suite, "--dry-run", "--set", "seeds=[1]").stdout
    assert shown.count("does not fit") == 3
    assert "ipsrec-s on world would fail: ValueError: no" in shown
    assert "ipsrec-s w/o CL on world does not fit: it was killed" in shown
