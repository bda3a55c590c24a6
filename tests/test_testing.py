"""The conformance suite catches the defects that it should catch, and parity with references is really checked."""

import random
import re
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import Views
from ipsrec_bench.models.configs import NeuralConfig, TransformerConfig
from ipsrec_bench.models.pop import Pop
from ipsrec_bench.models.sasrec import SASRec
from ipsrec_bench.suite.schema import Training
from ipsrec_bench.testing import CountingModelCase, SequentialModelCase, TaskCase
from ipsrec_bench.testing.reference import compare, main
from ipsrec_bench.testing.references import REFERENCES
from ipsrec_bench.testing.references.api import ReferenceFile
from ipsrec_bench.training.tasks.api import Task

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


class SeesLaterTimes(Sound):
    uses_times = True

    def encode(self, histories, *, every_position):
        user = super().encode(histories, every_position=every_position).user
        latest = histories.times.amax(dim=1).float()
        return Views(user * latest.view(-1, *[1] * (user.dim() - 1)))


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


class DividesByItems(Sound):
    """A batch is filled up with histories of padding alone, for which this divides by 0."""

    def encode(self, histories, *, every_position):
        views = super().encode(histories, every_position=every_position)
        count = (histories.items > 0).sum(dim=1, keepdim=True)
        return Views(views.user / (count[..., None] if every_position else count))


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
        (SeesLaterTimes, "test_no_position_sees_the_future"),
        (SeesPadding, "test_padding_changes_nothing"),
        (ForgetsAPosition, "test_last_position_equals_that_position_of_all"),
        (ForgetsAPosition, "test_packed_and_prefix_losses_agree"),
        (HasADeadParameter, "test_gradient_reaches_every_parameter"),
        (KeepsAHiddenTable, "test_saved_weights_come_back"),
        (IsRandom, "test_asking_twice_gives_the_same"),
        (DividesByItems, "test_gradients_with_dropout_are_finite"),
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


class SoundTask(Task):
    """Each target against a random item; the others below break it in one way each."""

    per_target = True

    def losses(self, step):
        """Return a loss for each target."""
        drawn = torch.from_numpy(step.rng.integers(1, step.item_vectors.shape[0], size=len(step.batch.targets)))
        ahead = step.item_vectors[step.batch.targets] - step.item_vectors[drawn]
        return torch.nn.functional.softplus(-(step.main.user * ahead).sum(dim=1))

    def loss(self, step):
        return self.losses(step).mean()


class IsInfinite(SoundTask):
    def loss(self, step):
        return super().loss(step) / 0.0


class HasALossForEachTarget(SoundTask):
    def loss(self, step):
        return self.losses(step)


class HasNoGradient(SoundTask):
    def loss(self, step):
        return super().loss(step).detach() + 0.0 * step.item_vectors.sum()


class HasAnInfiniteGradient(SoundTask):
    def loss(self, step):
        return super().loss(step) + (step.item_vectors[0].detach() * 0.0 * step.item_vectors.sum()).sqrt().sum()


class MakesItsOwnGenerator(SoundTask):
    def loss(self, step):
        return super().loss(step) * np.random.default_rng().random()


class RemembersEarlierEpochs(SoundTask):
    epochs = 0

    def begin_epoch(self, model, index, rng):  # noqa: ARG002 (as tasks declare it)
        self.epochs += 1

    def loss(self, step):
        return super().loss(step) * self.epochs


class DrawsFromTorch(SoundTask):
    def loss(self, step):
        return super().loss(step) + torch.rand(())


class DrawsFromNumpy(SoundTask):
    def begin_epoch(self, model, index, rng):  # noqa: ARG002 (as tasks declare it)
        self.drawn = np.random.rand()  # noqa: NPY002 (the defect)

    def loss(self, step):
        return super().loss(step) + self.drawn


class DrawsFromPython(SoundTask):
    def loss(self, step):
        return super().loss(step) + random.random()  # noqa: S311 (the defect)


class ReadsTheFirstRow(SoundTask):
    def loss(self, step):
        return self.losses(step)[0]


class DrawsEarlyRows(SoundTask):
    def loss(self, step):
        losses = self.losses(step)
        return losses[: step.rng.integers(1, 4)].mean()


class CountsPadding(SoundTask):
    def loss(self, step):
        return super().loss(step) * (step.batch.histories.items == 0).float().mean()


class DrawsAmongPadding(SoundTask):
    def loss(self, step):
        rows, width = step.batch.histories.items.shape
        drawn = torch.from_numpy(step.rng.integers(width, size=(rows, 1)))
        return super().loss(step) + (step.batch.histories.items.gather(1, drawn) > 0).float().mean()


class SumsOverTargets(SoundTask):
    def loss(self, step):
        return super().loss(step) * len(step.batch.histories.items)


class MasksInPlace(SoundTask):
    def loss(self, step):
        step.batch.histories.items[:, 0] = 1
        return super().loss(step)


class ChangesTheModel(SoundTask):
    def loss(self, step):
        loss = super().loss(step)
        with torch.no_grad():
            step.model.item_embedding.weight[0] = 1.0
        return loss


class TrainsTheModel(SoundTask):
    def loss(self, step):
        step.model.train()
        return super().loss(step)


class ReadsAfterTheTarget(SoundTask):
    def loss(self, step):
        data, last = step.index._data, step.index._split.train_ends
        newest = torch.from_numpy(np.array(data.items)[np.minimum(last, len(data.items) - 1)]).long()
        return super().loss(step) + step.item_vectors[newest].mean()


class CountsAllInteractions(SoundTask):
    def begin_epoch(self, model, index, rng):  # noqa: ARG002 (as tasks declare it)
        self.counts = torch.from_numpy(np.bincount(index._data.items, minlength=index.num_items + 1))

    def loss(self, step):
        return super().loss(step) + (step.item_vectors.mean(dim=1) * self.counts).mean()


class ReadsHeldOutTimes(SoundTask):
    def loss(self, step):
        return super().loss(step) * float(step.index._data.times.max())


def task_case_of(task: type, **attributes: object):
    settings = {"embedding_size": 8, "inner_size": 16}
    return type(
        "Case", (TaskCase,), {"task": f"{__name__}:{task.__name__}", "model_settings": settings, **attributes}
    )()


@pytest.mark.parametrize(
    ("task", "test"),
    [
        (IsInfinite, "test_its_loss_is_a_finite_number"),
        (HasALossForEachTarget, "test_its_loss_is_a_finite_number"),
        (HasNoGradient, "test_it_has_a_gradient"),
        (HasAnInfiniteGradient, "test_it_has_a_gradient"),
        (MakesItsOwnGenerator, "test_equal_generators_give_equal_losses"),
        (RemembersEarlierEpochs, "test_equal_generators_give_equal_losses"),
        (DrawsFromTorch, "test_equal_generators_give_equal_losses"),
        (DrawsFromTorch, "test_it_draws_from_the_steps_generator_alone"),
        (DrawsFromNumpy, "test_it_draws_from_the_steps_generator_alone"),
        (DrawsFromPython, "test_it_draws_from_the_steps_generator_alone"),
        (ReadsTheFirstRow, "test_the_order_of_the_batch_does_not_matter"),
        (DrawsEarlyRows, "test_the_order_of_the_batch_does_not_matter"),
        (CountsPadding, "test_padding_changes_nothing"),
        (DrawsAmongPadding, "test_padding_changes_nothing"),
        (SumsOverTargets, "test_packed_and_prefix_losses_agree"),
        (MasksInPlace, "test_it_leaves_model_and_batch_as_they_are"),
        (ChangesTheModel, "test_it_leaves_model_and_batch_as_they_are"),
        (TrainsTheModel, "test_it_leaves_model_and_batch_as_they_are"),
        (ReadsAfterTheTarget, "test_it_never_reads_held_out_interactions"),
        (CountsAllInteractions, "test_it_never_reads_held_out_interactions"),
        (ReadsHeldOutTimes, "test_it_never_reads_held_out_interactions"),
    ],
)
def test_each_defect_of_a_task_fails_its_test_and_a_sound_task_passes_it(task, test):
    getattr(task_case_of(SoundTask), test)()
    with pytest.raises((AssertionError, ModelError)):
        getattr(task_case_of(task), test)()


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
    if not tensor.is_floating_point():
        tensor.add_(1)
        return
    generator = torch.Generator().manual_seed(0)
    tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))  # layer normalisation forgives a constant


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
