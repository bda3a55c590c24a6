"""MSSR and DIFF: what their docstrings say beyond the conformance suite."""

import numpy as np
import pytest
import torch

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import Sizes, TrainingLog
from ipsrec_bench.models.diff import low_frequencies
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.training.objective import batch_losses
from ipsrec_bench.training.samples import Batch
from ipsrec_bench.training.tasks.alignment import Alignment, alignment_loss
from ipsrec_bench.training.tasks.api import TrainingStep
from ipsrec_bench.training.tasks.configs import AlignmentConfig, StreamContrastConfig
from ipsrec_bench.training.tasks.stream_contrast import StreamContrast

SIZES = Sizes(users=5, items=30, providers=9, max_length=10)
SMALL = {"embedding_size": 16, "inner_size": 32}


def built(name, **settings):
    torch.manual_seed(0)
    config = model_entry(name).config.model_validate({**SMALL, **settings})
    model = build_model(name, config, SIZES).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model, config


def some_batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([10, 1, 7, 4, 9])
    real = torch.arange(10) < lengths[:, None]
    items, providers = (torch.randint(1, top, (5, 10), generator=generator) * real for top in (31, 10))
    targets = torch.randint(1, 31, (5,), generator=generator)
    return Batch(Histories(torch.arange(5), items, providers, lengths), targets, targets, targets % 9 + 1)


def test_the_low_frequencies_are_those_of_the_fourier_transform():
    generator = torch.Generator().manual_seed(0)
    width = 9
    for count in range(1, width // 2 + 2):
        lengths = torch.arange(1, width + 1)
        x = torch.randn(len(lengths), width, 3, generator=generator, dtype=torch.float64)
        basis = low_frequencies(lengths, width, count).double()
        low = basis @ (basis.transpose(1, 2) @ x)
        for row, length in enumerate(lengths.tolist()):
            spectrum = torch.fft.rfft(x[row, :length], dim=0)
            spectrum[count:] = 0
            torch.testing.assert_close(low[row, :length], torch.fft.irfft(spectrum, n=length, dim=0), rtol=0, atol=1e-5)
            assert not low[row, length:].any()


def test_every_frequency_at_once_is_no_filter():
    """With all frequencies low, the result does not depend on beta."""
    for settings in ({}, {"preset": "released"}):
        model, _ = built("diff", c=20, **settings)
        batch = some_batch()
        with torch.no_grad():
            before = model.encode(batch.histories, every_position=False).user
            for layer in model.layers:
                layer.item_filter.beta.add_(1.0)
            after = model.encode(batch.histories, every_position=False).user
        torch.testing.assert_close(before, after, rtol=0, atol=1e-4)


def test_alignment_by_hand():
    """Two histories of lengths 3 and 1; items 0 and 2 of the first have one provider, item 1 an unknown one."""
    cosines = torch.tensor([[[0.5, 0.1, 0.5], [0.2, -0.4, 0.2], [0.3, 0.6, 0.3]], [[0.9, 0, 0], [0, 0, 0], [0, 0, 0]]])
    providers, lengths = torch.tensor([[4, 1, 4], [2, 0, 0]]), torch.tensor([3, 1])

    def by_hand(pairs, *, padding):
        total = 0.0
        for row, length in enumerate(lengths.tolist()):
            width = 3 if padding else length
            logits = cosines[row, :width, :width] / 0.5
            both = logits.log_softmax(1) + logits.log_softmax(0)
            total -= sum(float(both[i, j]) for r, i, j in pairs if r == row) / length
        return total / 2 / (3 if padding else 1)

    known = [(0, i, j) for i in (0, 2) for j in (0, 2)] + [(1, 0, 0)]
    for unknown_class, pairs in ((False, known), (True, [*known, (0, 1, 1)])):
        for padding in (False, True):
            settings = AlignmentConfig(temperature=0.5, unknown_class=unknown_class, padding=padding)
            found = float(alignment_loss(cosines, providers, lengths, settings))
            assert found == pytest.approx(by_hand(pairs, padding=padding), abs=1e-6)


def test_padding_moves_the_alignment_only_as_released():
    batch = some_batch()
    longer = Batch(
        Histories(
            batch.histories.users,
            torch.nn.functional.pad(batch.histories.items, (0, 3)),
            torch.nn.functional.pad(batch.histories.providers, (0, 3)),
            batch.histories.lengths,
        ),
        batch.predicted,
        batch.targets,
        batch.target_providers,
    )
    sizes = Sizes(5, 30, 9, 13)
    torch.manual_seed(0)
    config = model_entry("diff").config.model_validate(SMALL)
    model = build_model("diff", config, sizes).eval()
    with torch.no_grad():
        one, other = (batch_losses(model, config, b, packed=False).parts["alignment"] for b in (batch, longer))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_mssr_scores_are_the_gated_sum_of_both_streams():
    model, config = built("mssr", attribute_size=8)
    providers = torch.randint(1, 10, (30,), generator=torch.Generator().manual_seed(1))
    items = np.arange(1, 31, dtype=np.int32)
    zeros = np.zeros(30, dtype=np.int64)
    model.prepare(TrainingLog(zeros, items, providers.numpy().astype(np.int32), zeros))
    with torch.no_grad():
        views = model.encode(some_batch().histories, every_position=False)
        streams = views.extra["streams"]
        u, v, gate = streams[:, :16], streams[:, 16:], model.item_gate(streams)
        of_items = model.provider_embedding.weight[providers]
        expected = gate * (u @ model.item_embedding.weight[1:].T) + (1 - gate) * (v @ of_items.T)
        torch.testing.assert_close((views.user @ model.item_vectors().T)[:, 1:], expected)
    assert config.packs


def test_an_item_that_training_lacks_has_the_unknown_provider():
    model, _ = built("mssr")
    one = np.array([3])
    model.prepare(TrainingLog(np.zeros(1, dtype=np.int64), one.astype(np.int32), np.array([7], dtype=np.int32), one))
    assert model.item_providers.tolist() == [0, 1, 1, 7] + [1] * 27


def test_the_raw_scores_of_padding_move_the_user_only_as_released():
    """A longest history that never occurs changes nothing, unless the gate reads the scores of padded keys."""
    batch = some_batch()
    for name, moves in (("mssr", False), ("mssr", True), ("diff", False), ("diff", True)):
        settings = {"raw_scores": True} if moves else {}
        model, _ = built(name, fusion="gate", **settings) if name == "diff" else built(name, **settings)
        with torch.no_grad():
            before = model.encode(batch.histories, every_position=False).user[1:]
            gate = model.layers[0].gate if name == "mssr" else model.layers[0].item_attention.fusion
            gate.hidden.weight[:, 9] += 1.0  # of the tenth key, which only the first history has
            after = model.encode(batch.histories, every_position=False).user[1:]
        assert torch.equal(before, after) != moves


@pytest.mark.parametrize("name", ["mssr", "diff"])
def test_presets_are_sets_of_options(name):
    config = model_entry(name).config
    paper, released = config(), config(preset="released")
    assert paper == config(preset="paper")
    changed = {key for key in config.model_fields if getattr(released, key) != getattr(paper, key)} - {"preset"}
    shared = {"raw_scores", "frozen_providers", "unknown_class", "padding_class"}
    own = {"positions", "provider_layer", "same_user_negatives"}
    assert changed == shared | (own if name == "mssr" else {"padded_filter", "padded_alignment", "align_weight"})
    assert "preset" not in released.model_dump()  # equal settings, equal cells
    assert not model_entry(name).packs(released)


def test_what_makes_mssr_unfit_for_packed_windows():
    config = model_entry("mssr").config
    assert config().packs
    assert not config(positions="backward").packs
    assert not config(raw_scores=True).packs
    assert not config(same_user_negatives=True).packs
    assert config(same_user_negatives=True, contrast_weight=0).packs
    with pytest.raises(ValueError, match="must divide attribute_size"):
        config(attribute_size=7)


@pytest.mark.parametrize("name", ["mssr", "diff"])
def test_weights_of_zero_leave_only_the_next_item(name):
    config = model_entry(name).config
    none = {"mssr": {"attribute_weight": 0, "contrast_weight": 0}, "diff": {"align_weight": 0}}[name]
    assert [use.name for use in config(**none).own_tasks()] == ["next-item"]


def test_the_tasks_say_what_a_model_lacks():
    model = build_model("sasrec", model_entry("sasrec").config.model_validate(SMALL), SIZES)
    step = TrainingStep(model, some_batch(), packed=False)
    for task in (Alignment(AlignmentConfig()), StreamContrast(StreamContrastConfig())):
        with pytest.raises(ModelError, match="needs"):
            task.loss(step)
