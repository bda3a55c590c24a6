"""A user's own model, exactly as the documentation shows it: in a file beside the suite, and from a package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ipsrec_bench.errors import ModelError, SuiteError
from ipsrec_bench.models.registry import ENTRY_POINTS, model_entry
from ipsrec_bench.run.plan import cells_of, planned_cell
from ipsrec_bench.suite.load import load_suite, parse_suite
from ipsrec_bench.testing import CountingModelCase

from .conftest import ROOT, clean_environment

PAGE = "docs/how-to/own-model.md"
WORLD = """
title = "Mine"
seeds = [1]
[datasets.world]
source = "synthetic"
users = 120
items = 40
providers = 6
mean_length = 7
max_length = 8
[training]
epochs = 2
batch_size = 128
"""


def file_of_page(name: str) -> str:
    """Return the file that the page gives under this name."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    found = re.search(rf'^```\w+ title="{re.escape(name)}"\n(.*?)^```$', text, re.DOTALL | re.MULTILINE)
    assert found, f"{PAGE} has no file {name}"
    return found[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("my_models.py", "test_my_models.py"):
        (tmp_path / name).write_text(file_of_page(name), encoding="utf-8")
    (tmp_path / "mine.toml").write_text(file_of_page("mine.toml"), encoding="utf-8")
    return tmp_path


@pytest.fixture(autouse=True)
def _forget_modules(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("my_models", None)


def test_the_pages_model_is_benchmarked_beside_the_zoo(folder, bench):
    done = bench("run", "mine.toml", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    report = (folder / "reports" / "mine" / "mine.md").read_text(encoding="utf-8")
    header = next(line for line in report.splitlines() if line.startswith("| Dataset | Metric |"))
    assert "SASRec" in header
    assert "decayed-sum" in header
    again = bench("run", "mine.toml", "--dry-run", "--json")
    assert again.stdout.count('"done"') == again.stdout.count('"seed"') > 0


def test_the_pages_conformance_test_passes(folder):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_models.py"]
    done = subprocess.run(
        command, cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def test_a_changed_file_gives_new_cells(folder):
    file = load_suite(folder / "mine.toml")
    keys = [[cell.key("data") for cell in cells_of(file)]]
    source = folder / "my_models.py"
    source.write_text(source.read_text(encoding="utf-8") + "\n# another line\n", encoding="utf-8")
    sys.modules.pop("my_models")
    keys.append([cell.key("data") for cell in cells_of(file)])
    changed = [cell.type for cell, a, b in zip(cells_of(file), *keys, strict=True) if a != b]
    assert changed == ["my_models:DecayedSum"] * 2  # the model and its variant


def test_a_class_that_derives_from_another_file_depends_on_that_file_too(folder):
    (folder / "derived.py").write_text(
        "from my_models import DecayedSum\nclass Mine(DecayedSum): pass\n", encoding="utf-8"
    )
    sys.path.append(str(folder))
    before = model_entry("derived:Mine").code
    source = folder / "my_models.py"
    source.write_text(source.read_text(encoding="utf-8") + "\n# another line\n", encoding="utf-8")
    assert model_entry("derived:Mine").code == before  # the class is what it was until it is imported again
    for name in ("derived", "my_models"):
        sys.modules.pop(name)
    assert model_entry("derived:Mine").code != before
    sys.modules.pop("derived")


def test_a_users_counting_model_accepts_both_kinds_of_samples(folder):
    (folder / "counts.py").write_text(COUNTS, encoding="utf-8")
    text = WORLD + '[models.mine]\ntype = "counts:Last"\n[models.pop]\n'
    path = folder / "counting.toml"
    path.write_text(text, encoding="utf-8")
    for samples in ("auto", "packed", "prefix"):
        cells = cells_of(load_suite(path, [f"training.samples={samples}"]))
        assert [cell.model for cell in cells] == ["mine", "pop"]
    case = type("Case", (CountingModelCase,), {"model": "counts:Last", "world": "habit"})()
    for name in dir(case):
        if name.startswith("test_"):
            getattr(case, name)()
    sys.modules.pop("counts")


COUNTS = """
import torch
from ipsrec_bench.models.api import CountingModel, PickedScores
from ipsrec_bench.models.configs import ModelConfig

class Last(CountingModel):
    config_type = ModelConfig
    def __init__(self, config, sizes):
        super().__init__(sizes)
    def fit(self, log):
        pass
    def pick(self, histories):
        rows = torch.arange(len(histories.items))
        return PickedScores(rows, histories.last(histories.items), torch.ones(len(rows), dtype=torch.float64))
"""


def test_a_package_adds_models_by_entry_points(folder, monkeypatch):
    package = folder / "site" / "my_package-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n", encoding="utf-8")
    (package / "entry_points.txt").write_text(
        f"[{ENTRY_POINTS}]\ndecayed-sum = my_models:DecayedSum\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.syspath_prepend(str(folder))
    entry = model_entry("decayed-sum")
    suite = parse_suite(folder / "installed.toml", WORLD + "[models.decayed-sum]\nembedding_size = 8\n")
    (cell,) = cells_of(suite)
    assert (cell.type, cell.code, cell.training.samples) == ("decayed-sum", entry.code, "packed")
    assert planned_cell("key", cell).display == "Decayed sum"
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.1\n", encoding="utf-8")
    assert model_entry("decayed-sum").code != entry.code
    assert (entry.title, entry.causal, entry.uses_providers, entry.counts) == ("Decayed sum", True, False, False)
    with pytest.raises(ModelError, match="did you mean 'decayed-sum'"):
        model_entry("decayd-sum")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "no_such_module:Model", "there is no module 'no_such_module'; put its file beside the suite"),
        ("", "mine_broken:Model", "the module 'mine_broken' has no class 'Model'"),
        ("Model = 1", "mine_broken:Model", "is not a class derived from SequentialModel or CountingModel"),
        (
            "import no_such_library",
            "mine_broken:Model",
            "cannot be imported: ModuleNotFoundError: No module named 'no_such_library'",
        ),
        ("1 / 0", "mine_broken:Model", "cannot be imported: ZeroDivisionError"),
        (
            "import torch\ntorch.no_such_thing",
            "mine_broken:Model",
            "cannot be imported: AttributeError: module 'torch'",
        ),
        (
            "from ipsrec_bench.models.api import SequentialModel\nclass Model(SequentialModel): pass",
            "mine_broken:Model",
            "'mine_broken:Model' lacks 'encode', 'item_vectors', which its base class requires",
        ),
        (
            "from ipsrec_bench.models.sasrec import SASRec\nclass Model(SASRec): config_type = int",
            "mine_broken:Model",
            "must set 'config_type' to its settings class, derived from NeuralConfig",
        ),
        (
            (
                "from ipsrec_bench.models.sasrec import SASRec\nfrom ipsrec_bench.models.configs import NeuralConfig\n"
                "class Model(SASRec): config_type = type('Hidden', (NeuralConfig,), {'__module__': __name__})"
            ),
            "mine_broken:Model",
            "worker processes cannot import its settings class Hidden; define it at the top level of a module",
        ),
    ],
)
def test_a_model_that_cannot_be_used_is_a_sentence_with_its_line(folder, text, name, message):
    sys.modules.pop("mine_broken", None)
    if text is not None:
        (folder / "mine_broken.py").write_text(text, encoding="utf-8")
    suite = folder / "mine.toml"
    suite.write_text(WORLD + f'[models.mine]\ntype = "{name}"\n', encoding="utf-8")
    with pytest.raises(SuiteError, match=r"mine.toml:15: models.mine.type: ") as error:
        cells_of(load_suite(suite))
    assert message in str(error.value)


def test_a_users_settings_are_checked_like_the_zoos(folder):
    with pytest.raises(SuiteError, match="unknown key 'decai'; did you mean 'decay'"):
        cells_of(load_suite(folder / "mine.toml", ["models.decayed-sum.decai=0.5"]))


def test_a_tuned_suite_finds_the_module_of_its_model(folder, bench):
    text = file_of_page("mine.toml") + "[tune.space.decayed-sum]\ndecay = [0.25, 0.75]\n"
    (folder / "mine.toml").write_text(text.replace("epochs = 5", "epochs = 1"), encoding="utf-8")
    done = bench("tune", "mine.toml", "--model", "decayed-sum", "--trials", "2", "--set", "protocol.filter=2-core")
    assert (done.returncode, done.stderr) == (0, "")
    (tuned,) = (folder / "suites/tuned").glob("*.toml")
    assert 'modules = "../.."' in tuned.read_text(encoding="utf-8")
    sys.modules.pop("my_models")
    sys.path[:] = [place for place in sys.path if place != str(folder)]
    again = bench("validate", tuned)
    notice = "models.decayed-sum.type imports the module 'my_models' from outside of the suite's folder"
    assert (again.returncode, again.stderr) == (0, f"{notice}: {folder / 'my_models.py'}\n")
    keys = {cell.type for cell in cells_of(load_suite(tuned))}
    assert keys == {"my_models:DecayedSum"}


def test_a_missing_folder_of_modules_is_named(folder):
    with pytest.raises(SuiteError, match=r"--set modules=nowhere: modules: there is no folder .*nowhere"):
        cells_of(load_suite(folder / "mine.toml", ["modules=nowhere"]))


def test_a_module_from_elsewhere_is_announced_before_it_is_imported(folder, bench, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far_models.py").write_text("import sys\nsys.exit('imported')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(elsewhere))
    suite = folder / "far.toml"
    suite.write_text(WORLD + '[models.x]\ntype = "far_models:X"\n', encoding="utf-8")
    for command in (["validate", suite], ["run", suite], ["tune", suite, "--model", "x"]):
        done = bench(*command)
        notice, error = done.stderr.splitlines()
        assert notice == (
            "models.x.type imports the module 'far_models' from outside of the suite's folder:"
            f" {elsewhere / 'far_models.py'}"
        )
        assert (done.returncode, "cannot be imported: SystemExit: imported" in error) == (2, True)


def test_a_module_shadowed_by_another_one_is_named(folder, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "my_models.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(elsewhere))
    with pytest.raises(SuiteError, match=r"mine.toml:.*the module 'my_models' is .*, which hides .*rename your file"):
        cells_of(load_suite(folder / "mine.toml"))


@pytest.mark.parametrize("name", [":X", "..x:Y", "a b:C", "x:", "json:JSONEncoder", "sys:X", "__main__:X", "/etc:X"])
def test_odd_names_of_classes_are_a_sentence(folder, name):
    suite = folder / "odd.toml"
    suite.write_text(WORLD + f"[models.x]\ntype = '{name}'\n", encoding="utf-8")
    with pytest.raises(SuiteError, match=r"odd.toml:15: models.x.type: "):
        cells_of(load_suite(suite))


def test_a_suite_without_models_is_for_its_data_alone(folder, bench):
    suite = folder / "data.toml"
    suite.write_text(WORLD, encoding="utf-8")
    assert list(load_suite(suite).suite.datasets) == ["world"]
    for command in (["validate", suite], ["run", suite], ["tune", suite]):
        done = bench(*command)
        assert (done.returncode, "data.toml: models: the suite has no models" in done.stderr) == (2, True)
    assert bench("data", "stats", "world", "--suite", suite).returncode == 0
