"""Tasks beside a model's own: in a suite's table, from a user's file, and in stages, as the page shows them."""

import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from ipsrec_bench.errors import ModelError, SuiteError
from ipsrec_bench.models.configs import TransformerConfig
from ipsrec_bench.report.build import build_report
from ipsrec_bench.report.charts import charts_of
from ipsrec_bench.report.material import read_material
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.run import cell as cell_module
from ipsrec_bench.run.costs import most_memory
from ipsrec_bench.run.executors.api import Place
from ipsrec_bench.run.plan import cells_of, make_plan
from ipsrec_bench.run.probe import probe
from ipsrec_bench.store.connect import reading
from ipsrec_bench.store.queries import learning_curves
from ipsrec_bench.suite.load import load_suite, parse_suite
from ipsrec_bench.testing import TaskCase
from ipsrec_bench.training.tasks.registry import task_entry

from .conftest import ROOT, TINY_SUITE, clean_environment

PAGE = "docs/how-to/own-task.md"
FILES = ("my_tasks.py", "my_models.py", "mine.toml", "test_my_models.py")
MINE = 'models.sasrec.variants.agreeing.tasks."my_tasks:Agreement"'

LOSS = "from ipsrec_bench.training.tasks.api import Task\nclass Mine(Task):\n    def loss(self, step):\n        return "


def file_of_page(name: str) -> str:
    """Return the file that the page gives under this name."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    found = re.search(rf'^```\w+ title="{re.escape(name)}"\n(.*?)^```$', text, re.DOTALL | re.MULTILINE)
    assert found, f"{PAGE} has no file {name}"
    return found[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).write_text(file_of_page(name), encoding="utf-8")
    return tmp_path


@pytest.fixture(autouse=True)
def _forget_modules(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("my_tasks", "my_models", "mine_broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def ran(folder, bench):
    done = bench("run", "mine.toml", "--set", "training.epochs=2")
    assert (done.returncode, "FAILED" in done.stdout) == (0, False)
    return folder, done.stdout


def test_the_pages_tasks_and_stages_are_trained_recorded_and_shown(ran, bench):
    folder, said = ran
    assert "world, pretrained, seed 1: pretrain 3/3, loss " in said
    assert re.search(r"pretrained, seed 1: epoch 2, loss \S+, validation ", said)
    with duckdb.connect(str(folder / "reports/ipsrec-bench.duckdb"), read_only=True) as connection:
        cells = dict(connection.execute("SELECT trim(model || ' ' || variant), key FROM run_cells").fetchall())
        points = learning_curves(connection, [*cells.values()])
        curves = {name: [point for point in points if point.key == key] for name, key in cells.items()}
        ((best,),) = connection.execute("SELECT best_epoch FROM cells WHERE key = ?", [cells["pretrained"]]).fetchall()
        spent = connection.execute(
            "SELECT train_seconds, (SELECT sum(train_seconds) FROM epochs WHERE epochs.cell = cells.cell) FROM cells"
        ).fetchall()
    staged = curves["pretrained"]
    assert [(p.stage, p.epoch) for p in staged] == [("pretrain", e) for e in (1, 2, 3)] + [("main", 1), ("main", 2)]
    assert [list(p.losses) for p in staged] == [["my_tasks:Neighbours"]] * 3 + [["next-item"]] * 2
    assert [p.valid is None for p in staged] == [True] * 3 + [False] * 2
    assert staged[best + 2].valid == max(p.valid for p in staged[3:])
    assert all(whole == pytest.approx(parts) for whole, parts in spent)  # the pretraining, too
    own, extra = curves["agreeing"], curves["sasrec agreeing"]
    assert [p.losses for p in own] == [p.losses for p in extra]  # the same tasks, named by the model or by the suite
    for p in own:
        assert p.loss == pytest.approx(p.losses["next-item"] + 0.2 * p.losses["my_tasks:Agreement"])
    assert list(curves["sasrec"][0].losses) == ["next-item"]
    text = (folder / "reports/mine/mine.md").read_text(encoding="utf-8").replace("\\", "")
    assert "task my_tasks:Agreement (least = 0.7, weight = 0.2)" in text
    with reading(folder / "reports/ipsrec-bench.duckdb") as connection:
        report = build_report(read_material(connection, read_run(connection)))
    charts = {chart.name.partition("-")[2].partition("-")[2]: chart.spec for chart in charts_of(report)}
    assert [panel["encoding"]["y"]["title"] for panel in charts["losses-world"]["concat"]] == [
        "loss of next-item",
        "loss of my_tasks:Agreement",
        "loss of my_tasks:Neighbours",
    ]
    (validation,) = charts["learning-curves-world"]["datasets"].values()
    assert [value["epoch"] for value in validation if value["row"] == "pretrained"] == [1, 2]
    again = bench("run", "mine.toml", "--set", "training.epochs=2", "--dry-run", "--json")
    assert again.stdout.count('"done"') == 4


def test_the_pages_conformance_test_passes(folder):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_models.py"]
    done = subprocess.run(
        command, cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout


def keys(folder, *overrides) -> dict[str, str]:
    return {cell.label: cell.key("data") for cell in cells_of(load_suite(folder / "mine.toml", overrides))}


def test_a_tasks_settings_enter_the_key_and_defaults_need_not_be_written(folder):
    before = keys(folder)
    assert len({*before.values()}) == 4
    other = keys(folder, f"{MINE}.weight=0.5")
    assert {label for label in before if before[label] != other[label]} == {"sasrec agreeing"}
    assert keys(folder, f"{MINE}.least=0.7", f"{MINE}.weight=0.2") == before
    written = keys(folder, f"{MINE}.least=0.5", f"{MINE}.weight=1")
    text = (folder / "mine.toml").read_text(encoding="utf-8").replace("{ weight = 0.2, least = 0.7 }", "{}")
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    assert keys(folder) == written != before


def test_the_order_of_tasks_in_a_table_changes_nothing():
    first, second = (TransformerConfig(tasks={name: {} for name in names}).main_tasks() for names in ("ab", "ba"))
    assert first == second


def test_a_changed_file_of_a_task_gives_new_cells_for_those_that_have_it(folder):
    before = keys(folder)
    source = folder / "my_tasks.py"
    source.write_text(source.read_text(encoding="utf-8") + "\n# another line\n", encoding="utf-8")
    assert keys(folder) == before  # the class is what it was until it is imported again
    for name in ("my_tasks", "my_models"):
        sys.modules.pop(name)
    after = keys(folder)
    assert {label for label in before if before[label] != after[label]} == {"sasrec agreeing", "agreeing", "pretrained"}


def test_a_suite_without_tasks_has_the_keys_that_it_had():
    for cell in cells_of(parse_suite(Path("tiny.toml"), TINY_SUITE)):
        assert cell.task_code == ()
        assert "tasks" not in cell.settings()
        assert "tasks" not in cell.settings()["config"]


def test_a_worker_with_other_code_of_a_task_refuses_the_cell(folder):
    plan = make_plan(load_suite(folder / "mine.toml"), folder / "data", folder / "s.duckdb", lambda _: None)
    cell = next(cell for _, cell in plan.cells if cell.model == "pretrained")
    source = folder / "my_tasks.py"
    source.write_text(source.read_text(encoding="utf-8") + "\n# another line\n", encoding="utf-8")
    sys.modules.pop("my_tasks")
    with pytest.raises(ModelError, match="the code of the task 'my_tasks:Neighbours' has changed since the run began"):
        cell_module.train_cell("k", cell, Place("here", "cpu", 1, folder), plan.datasets["world"], lambda _: None)


def test_an_estimate_counts_the_epochs_of_every_stage(folder):
    """Each stage is measured alone, so the main one is not hidden behind a long pretraining."""
    overrides = ["models.pretrained.pretrain_epochs=1000", "training.epochs=1"]
    plan = make_plan(load_suite(folder / "mine.toml", overrides), folder / "data", folder / "s.duckdb", lambda _: None)
    data, cells = plan.datasets["world"], {cell.label: cell for _, cell in plan.cells}
    cell = cells["pretrained"]
    assert (cell.stages, cell.epochs) == ((("pretrain", 1000), ("main", 1)), 1001)
    assert cells["sasrec"].stages == (("main", 1),)
    (folder / "probe").mkdir()
    place = Place("here", "cpu", 1, folder / "probe")
    long, short = (probe(cells[label], place, data, lambda _: None) for label in ("pretrained", "sasrec"))
    assert long.seconds > 10 * short.seconds
    assert long.seconds > 1001 * long.epoch_seconds
    assert most_memory(cells["sasrec"], data) is not None
    assert most_memory(cells["sasrec agreeing"], data) is None  # what a task outside the toolkit needs is not known


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('tasks."my_tasks:Agreement".least = 2', r'tasks."my_tasks:Agreement".least: found 2; .* less than or equal'),
        ('tasks."my_tasks:Agreement".leest = 1', ".*leest: unknown key 'leest'; did you mean 'least'"),
        ('tasks."my_tasks:Agreement".weight = 0', ".*weight: found 0; input should be greater than 0"),
        ('tasks."my_tasks:Agreement".weight = true', ".*weight: found true; input should be a number"),
        ('tasks."my_tasks:Agreement" = 1', ".*: found 1; input should be a table"),
        ("tasks.provider-contrats = {}", ".*: there is no task 'provider-contrats'; did you mean 'provider-contrast'"),
        ("tasks.provider-contrast.tao = 1", "tasks.provider-contrast.tao: unknown key 'tao'; did you mean 'tau'"),
        ("tasks.next-item = {}", "tasks.next-item: the model has the task 'next-item' already; change the model's own"),
        ('tasks."my_tasks:Nothing" = {}', ".*: 'my_tasks:Nothing': the module 'my_tasks' has no class 'Nothing'"),
        ('tasks."my_models:Agreeing" = {}', ".*: 'my_models:Agreeing' is not a class derived from Task"),
        ('tasks."nowhere:X" = {}', ".*: 'nowhere:X': there is no module 'nowhere'; put its file beside the suite"),
        ('variants.v = { tasks = { "my_tasks:Agreement" = { least = 0 } } }', "variants.v.tasks.*least: found 0"),
    ],
)
def test_a_wrong_task_is_a_sentence_with_its_line(folder, table, message):
    text = TINY_SUITE.replace("[models.pop]", f'[models.x]\ntype = "sasrec"\n{table}')
    path = folder / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    line = text[: text.index(table)].count("\n") + 1
    with pytest.raises(SuiteError, match=rf"wrong.toml:{line}: models.x.{message}"):
        cells_of(load_suite(path))


def test_a_model_that_counts_has_no_tasks(folder):
    with pytest.raises(SuiteError, match=r"models.pop.tasks: unknown key 'tasks'"):
        cells_of(parse_suite(folder / "t.toml", TINY_SUITE, ["models.pop.tasks.next-item={}"]))


def test_a_models_own_task_cannot_be_added_again(folder):
    override = 'models.agreeing.tasks."my_tasks:Agreement".weight=1'
    with pytest.raises(SuiteError, match=r"--set .*the model has the task 'my_tasks:Agreement' already"):
        cells_of(load_suite(folder / "mine.toml", [override]))


HEAD = """
from ipsrec_bench.models.configs import TransformerConfig
from ipsrec_bench.models.sasrec import SASRec
from ipsrec_bench.models.stages import Stage, TaskUse
NEXT = (TaskUse("next-item"),)
class Config(TransformerConfig):
    def stages(self):
        return {stages}
class Model(SASRec):
    config_type, causal = Config, True
"""


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ('(Stage(NEXT, "main"), Stage(NEXT, "a", epochs=1))', "has the stages 'main', 'a'; .* 'main' as the last"),
        ('(Stage(NEXT, "a", epochs=1), Stage(NEXT, "a", epochs=1), Stage(NEXT))', "their names must differ"),
        ('(Stage(NEXT, "a"), Stage(NEXT))', r"stage 'a': found epochs = None; .* \(only the stage 'main' has none"),
        ('(Stage(NEXT, "a", epochs=0), Stage(NEXT))', "found epochs = 0; it must be a whole number from 1"),
        ('(Stage(NEXT, "a", epochs=1.5), Stage(NEXT))', "found epochs = 1.5; it must be a whole number from 1"),
        ("(Stage(NEXT, epochs=3),)", "found epochs = 3; the suite sets that of the last stage, as training.epochs"),
        ('(Stage(NEXT, "a", "history", 1), Stage(NEXT))', "found samples = 'history'; allowed: 'targets', 'histories'"),
        ("(Stage(NEXT, copies=0),)", "found copies = 0; it must be a whole number from 1"),
        ("(Stage(NEXT, stride=0),)", "found stride = 0; it must be above 0"),
        ('(Stage(TaskUse("next-item")),)', "its tasks must be a tuple of TaskUse"),
        ('(Stage(("next-item",)),)', "its tasks must be a tuple of TaskUse"),
        ('(Stage((TaskUse("next-item", -1.0),)),)', "found the weight -1.0; it must be a finite number from 0"),
        ('(Stage(NEXT, "a", "histories", 1), Stage(NEXT))', "'next-item' is computed on targets, but the stage has"),
        ("()", r"has the stages \(none\); .* 'main' as the last"),
        ('(Stage(NEXT, "a", epochs="3"), Stage(NEXT))', "cannot be trained: stage 'a': found epochs = '3'; it must be"),
        ("1 / 0", "the stages of this model cannot be read: ZeroDivisionError"),
        ("(Stage(()),)", "the stage 'main' of this model needs at least one task"),
        ("(Stage(NEXT + NEXT),)", "each only once"),
        ('(Stage((TaskUse("nexd-item"),)),)', "stage 'main' of this model: there is no task 'nexd-item'; did you mean"),
        (
            '(Stage((TaskUse("provider-contrast", 1.0, {"tau": 0}),)),)',
            "task 'provider-contrast' of this model: tau: found 0; ",
        ),
    ],
)
def test_a_model_with_stages_that_cannot_be_trained_is_a_sentence_with_its_line(folder, stages, message):
    (folder / "mine_broken.py").write_text(HEAD.replace("{stages}", stages), encoding="utf-8")
    suite = parse_suite(folder / "t.toml", TINY_SUITE.replace("[models.pop]", '[models.x]\ntype = "mine_broken:Model"'))
    with pytest.raises(SuiteError, match=rf"t.toml:\d+: models.x: .*{message}"):
        cells_of(suite)


def test_further_tasks_that_a_models_own_stages_leave_out_are_refused(folder):
    (folder / "mine_broken.py").write_text(HEAD.replace("{stages}", "(Stage(NEXT),)"), encoding="utf-8")
    table = '[models.x]\ntype = "mine_broken:Model"\ntasks.bpr = {}'
    suite = parse_suite(folder / "t.toml", TINY_SUITE.replace("[models.pop]", table))
    with pytest.raises(SuiteError, match=r"t.toml:\d+: models.x.tasks.bpr: this model's own main stage leaves"):
        cells_of(suite)


@pytest.mark.parametrize("settings", ["int", "type('S', (Settings,), {'__annotations__': {'weight': float}})"])
def test_a_task_declares_settings_without_a_weight(folder, settings):
    text = LOSS.replace("Task\n", "Task, Settings\n", 1) + f"0\n    settings_type = {settings}"
    (folder / "mine_broken.py").write_text(text, encoding="utf-8")
    sys.path.append(str(folder))
    with pytest.raises(ModelError, match="must set 'settings_type' to a class derived from Settings, without a key"):
        task_entry("mine_broken:Mine")


@pytest.mark.parametrize("samples", ['"targets"', 'frozenset({"history"})', "frozenset()"])
def test_a_task_declares_samples_that_exist(folder, samples):
    text = f"from ipsrec_bench.training.tasks.api import Task\nclass Mine(Task):\n    samples = {samples}\n"
    (folder / "mine_broken.py").write_text(text + "    def loss(self, step): ...\n", encoding="utf-8")
    sys.path.append(str(folder))
    with pytest.raises(
        ModelError, match="must set 'samples' to a frozenset of one or more of 'targets', 'histories', "
    ):
        task_entry("mine_broken:Mine")


def test_a_task_without_a_loss_is_refused_before_it_is_trained(folder):
    text = "from ipsrec_bench.training.tasks.api import Task\nclass Mine(Task): ...\n"
    (folder / "mine_broken.py").write_text(text, encoding="utf-8")
    sys.path.append(str(folder))
    with pytest.raises(ModelError, match="'mine_broken:Mine' lacks 'loss', which its base class requires"):
        task_entry("mine_broken:Mine")
    with pytest.raises(ModelError, match="has no class 'Mime'; did you mean 'Mine'"):
        task_entry("mine_broken:Mime")


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("step.main.user.square().mean(1)", r"its loss must be .*, but it is a tensor \[\d+\]"),
        ("0.5", "its loss must be a tensor without dimensions, but it is float"),
        ("step.encode_masked(step.batch.histories).mean()", "it hides items, but the model does not implement"),
    ],
)
def test_a_loss_that_cannot_be_minimised_is_named(folder, loss, message):
    (folder / "mine_broken.py").write_text(LOSS + loss, encoding="utf-8")
    sys.path.append(str(folder))
    case = type("Case", (TaskCase,), {"task": "mine_broken:Mine", "model_settings": {"embedding_size": 8}})()
    with pytest.raises(ModelError, match=f"task 'mine_broken:Mine': {message}"):
        next(case.trials()).loss()


def test_a_task_whose_first_loss_is_not_finite_is_named(folder, bench):
    (folder / "mine_broken.py").write_text(f"{LOSS}step.main.user.sum() * float('nan')", encoding="utf-8")
    suite = TINY_SUITE.partition("[models.pop]")[0].replace("[1, 2]", "[1]")
    (folder / "t.toml").write_text(suite + '[models.sasrec]\ntasks."mine_broken:Mine" = {}\n', encoding="utf-8")
    said = bench("run", "t.toml").stdout
    assert "at step 1 of epoch 1 (that of 'mine_broken:Mine'): no step was trained before" in said


def test_a_task_that_is_not_computed_on_the_models_samples_is_refused(folder):
    source = folder / "my_tasks.py"
    text = source.read_text(encoding="utf-8")
    declared = "    settings_type = AgreementConfig\n"
    source.write_text(text.replace(declared, f"{declared}    samples = frozenset({{'histories'}})\n"), encoding="utf-8")
    with pytest.raises(SuiteError, match="the task is computed on histories, but this model is trained on targets"):
        cells_of(load_suite(folder / "mine.toml"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("{ wieght = 0.1 }", "wieght: unknown key 'wieght'; did you mean 'weight'"),
        ("{ x = 1 }", "x: unknown key 'x'; known: 'least', 'weight'"),
        ("{ weight = 0 }", "weight: found 0; input should be greater than 0"),
    ],
)
def test_the_settings_of_a_further_task_are_checked_with_its_weight(folder, table, message):
    path = folder / "mine.toml"
    text = path.read_text(encoding="utf-8")
    assert "{ weight = 0.2, least = 0.7 }" in text
    path.write_text(text.replace("{ weight = 0.2, least = 0.7 }", table), encoding="utf-8")
    with pytest.raises(SuiteError, match=rf'tasks."my_tasks:Agreement".{message}'):
        cells_of(load_suite(path))


def test_the_module_of_a_task_is_announced_and_may_not_be_hidden(folder, bench, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far_tasks.py").write_text((folder / "my_tasks.py").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(elsewhere))
    text = file_of_page("mine.toml").replace("my_tasks:", "far_tasks:")
    (folder / "far.toml").write_text(text, encoding="utf-8")
    said = bench("validate", "far.toml").stderr
    place = "models.sasrec.variants.agreeing.tasks.far_tasks:Agreement"
    assert f"{place} imports the module 'far_tasks' from outside of the suite's folder" in said
    (folder / "far_tasks.py").write_text("", encoding="utf-8")
    with pytest.raises(SuiteError, match=r"the module 'far_tasks' is .*, which hides .*rename your file"):
        cells_of(load_suite(folder / "far.toml"))
    sys.modules.pop("far_tasks", None)
