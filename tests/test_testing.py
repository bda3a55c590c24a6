"""The conformance suite catches the defects that it should catch, and parity with references is really checked."""

import re
import subprocess
import sys
from typing import ClassVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ipsrec_bench.models.api import Views
from ipsrec_bench.models.configs import NeuralConfig, TransformerConfig
from ipsrec_bench.models.pop import Pop
from ipsrec_bench.models.sasrec import SASRec
from ipsrec_bench.suite.schema import Training
from ipsrec_bench.testing import CountingModelCase, SequentialModelCase
from ipsrec_bench.testing.reference import compare, main
from ipsrec_bench.testing.references import REFERENCES
from ipsrec_bench.testing.references.api import ReferenceFile

from .conftest import ROOT

EVERY_FIXTURE = sorted((ROOT / "tests" / "fixtures").glob("*.safetensors"))
FIXTURES = [path for path in EVERY_FIXTURE if any(one.matches(ReferenceFile.read(path)) for one in REFERENCES)]


class Sound(SASRec):
    """SASRec declared as a user's own model; the others below break it in one way each."""

    config_type, causal = TransformerConfig, True


class SeesTheFuture(Sound):
    def encode(self, histories, *, every_position):
        if not every_position:
            return super().encode(histories, every_position=False)
        x = super().encode(histories, every_position=True).user
        return Views(x + x.mean(dim=1, keepdim=True))


class SeesPadding(Sound):
    def encode(self, histories, *, every_position):
        x = super().encode(histories, every_position=True).user
        return Views(x if every_position else x[:, -1])


class ForgetsAPosition(Sound):
    def encode(self, histories, *, every_position):
        views = super().encode(histories, every_position=every_position)
        return Views(views.user * 1.01) if every_position else views


class HasADeadParameter(Sound):
    def __init__(self, config, sizes):
        super().__init__(config, sizes)
        self.dead = torch.nn.Linear(3, 3)


class KeepsAHiddenTable(Sound):
    def __init__(self, config, sizes):
        super().__init__(config, sizes)
        self.hidden = [torch.randn(config.embedding_size)]

    def item_vectors(self):
        return super().item_vectors() + self.hidden[0]


class IsRandom(Sound):
    def encode(self, histories, *, every_position):
        views = super().encode(histories, every_position=every_position)
        return Views(views.user + torch.randn_like(views.user))


class DeclaresProviders(Sound):
    uses_providers = True


class HasFlatVectors(Sound):
    def item_vectors(self):
        return super().item_vectors()[1:]


class LearnsNothing(Sound):
    def encode(self, histories, *, every_position):
        views = super().encode(histories, every_position=every_position)
        return Views(views.user * 0.0 + self.item_embedding.weight.mean())


class PicksTwice(Pop):
    config_type = NeuralConfig.__base__

    def pick(self, histories):
        rows = torch.zeros(2, dtype=torch.int64)
        return type(super().pick(histories))(rows, rows + 1, rows.double() + 1)


def case_of(model: type, base: type = SequentialModelCase, **attributes: object):
    settings = {"embedding_size": 8, "inner_size": 16, "hidden_dropout": 0.0, "attention_dropout": 0.0}
    attributes = {"settings": settings if base is SequentialModelCase else {}, **attributes}
    return type("Case", (base,), {"model": f"{__name__}:{model.__name__}", **attributes})()


@pytest.mark.parametrize(
    ("model", "test"),
    [
        (SeesTheFuture, "test_no_position_sees_the_future"),
        (SeesPadding, "test_padding_changes_nothing"),
        (ForgetsAPosition, "test_last_position_equals_that_position_of_all"),
        (ForgetsAPosition, "test_packed_and_prefix_losses_agree"),
        (HasADeadParameter, "test_gradient_reaches_every_parameter"),
        (KeepsAHiddenTable, "test_saved_weights_come_back"),
        (IsRandom, "test_asking_twice_gives_the_same"),
        (DeclaresProviders, "test_providers_are_used_as_declared"),
        (HasFlatVectors, "test_shapes"),
        (LearnsNothing, "test_it_learns_a_world_where_the_next_item_is_certain"),
    ],
)
def test_each_defect_fails_its_test_and_a_sound_model_passes_it(model, test):
    few = Training(epochs=20, batch_size=128, learning_rate=1e-2)
    getattr(case_of(Sound, training=few), test)()
    with pytest.raises(AssertionError):
        getattr(case_of(model, training=few), test)()


def test_a_duplicate_pick_is_caught():
    with pytest.raises(AssertionError, match="picked twice"):
        case_of(PicksTwice, CountingModelCase).test_shapes()


class Tied(Sound):
    """Weights under two names, as they are often tied."""

    def __init__(self, config, sizes):
        super().__init__(config, sizes)
        self.output = torch.nn.Linear(config.embedding_size, sizes.items + 1, bias=False)
        self.output.weight = self.item_embedding.weight

    def item_vectors(self):
        return self.output.weight


class TestTied(SequentialModelCase):
    model = f"{__name__}:Tied"
    settings: ClassVar = {"embedding_size": 16, "hidden_dropout": 0.1, "attention_dropout": 0.1}


class TestSound(SequentialModelCase):
    model = f"{__name__}:Sound"
    settings: ClassVar = {"embedding_size": 16, "hidden_dropout": 0.1, "attention_dropout": 0.1}


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_every_output_equals_the_references(path):
    _, comparisons = compare(path)
    assert comparisons
    assert {comparison.output: comparison.error for comparison in comparisons if not comparison.equal} == {}


def test_one_bad_file_does_not_hide_the_others(tmp_path, capsys):
    wrong = altered(FIXTURES[0], tmp_path, lambda tensors: tensors["out/scores"].add_(1.0))
    assert main([str(tmp_path / "none"), str(wrong), str(FIXTURES[1])]) == 1
    shown = capsys.readouterr()
    assert "there is no such file" in shown.err
    assert str(FIXTURES[1]) in shown.out


def altered(path, folder, change):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
    change(tensors)
    target = folder / path.name
    save_file(tensors, target, metadata)
    return target


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_every_weight_and_every_output_counts(path, tmp_path, capsys):
    """Changing any weight tensor takes some output out of tolerance; so does changing any output."""
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.startswith(("weight/", "out/"))]  # noqa: SIM118 (no iterator)
    reference = next(one for one in REFERENCES if one.matches(ReferenceFile.read(path)))
    for name in names:
        if name.removeprefix("weight/") in reference.unused or re.search(r"\.key\w*(\.\d+)?\.bias$", name):
            continue  # softmax cannot see the bias of a key
        moved = altered(path, tmp_path, lambda tensors, name=name: move(tensors[name]))
        assert main([str(moved)]) == 1, name
    capsys.readouterr()


def move(tensor):
    generator = torch.Generator().manual_seed(0)
    tensor.add_(0.01 * torch.randn(tensor.shape, generator=generator))  # layer normalisation forgives a constant


def run_reference(*paths):
    command = [sys.executable, "-m", "ipsrec_bench.testing.reference", *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_reference_command_reports_and_exits(tmp_path):
    good = run_reference(*FIXTURES)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.count("ok\n") == sum(line.startswith("  ") for line in good.stdout.splitlines()) > 0
    wrong = altered(FIXTURES[0], tmp_path, lambda tensors: tensors["out/scores"].fill_(float("nan")))
    bad = run_reference(wrong)
    assert bad.returncode == 1
    assert "exceeds 1e-05" in bad.stdout


def test_an_output_that_we_do_not_compute_is_a_failure(tmp_path, capsys):
    path = altered(FIXTURES[0], tmp_path, lambda tensors: tensors.update({"out/other": torch.zeros(1)}))
    assert main([str(path)]) == 1
    assert "other" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("in/length"), "the file lacks 'in/length'"),
        (lambda tensors: tensors.pop("weight/dense.bias"), "does not fit gru4rec"),
        (lambda tensors: tensors["in/items"].fill_(99), "does not fit gru4rec"),
        (lambda tensors: [tensors.pop(name) for name in [*tensors] if name.startswith("out/")], "has no output"),
        (
            lambda tensors: tensors.pop("weight/gru_layers.weight_hh_l0"),
            "its content matches no known reference; known: ",
        ),
    ],
)
def test_an_unusable_file_is_reported(tmp_path, capsys, change, message):
    path = altered(ROOT / "tests" / "fixtures" / "gru4rec.safetensors", tmp_path, change)
    assert main([str(path)]) == 2
    assert message in capsys.readouterr().err


def test_other_bad_calls_of_the_reference_command(tmp_path, capsys):
    (tmp_path / "text.safetensors").write_text("not tensors")
    for arguments, code, message in (
        ([], 2, "usage: "),
        (["--help"], 0, "usage: "),
        ([str(tmp_path / "none")], 2, "there is no such file"),
        ([str(tmp_path / "text.safetensors")], 2, "not a safetensors file"),
        ([str(tmp_path / "none"), str(FIXTURES[0])], 2, "there is no such file"),
    ):
        assert main(arguments) == code
        assert message in capsys.readouterr().err
