"""Tasks that hide items: what they draw, their losses, and the stages that they are trained in."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from ipsrec_bench.data.batches import Histories, ResidentSequences
from ipsrec_bench.data.split import leave_one_out
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import Sizes
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.suite.schema import Training
from ipsrec_bench.testing import worlds
from ipsrec_bench.training import logistic
from ipsrec_bench.training.fit import Loop, TrainingData, Validation, fit
from ipsrec_bench.training.logistic import binary_cross_entropy_sum
from ipsrec_bench.training.masking import draw_each, draw_segments, draw_share, hide, items_outside
from ipsrec_bench.training.objective import Objective
from ipsrec_bench.training.samples import Batch, history_windows
from ipsrec_bench.training.tasks.api import TrainingStep
from ipsrec_bench.training.tasks.cloze import Cloze
from ipsrec_bench.training.tasks.configs import ClozeConfig, MaskingConfig
from ipsrec_bench.training.tasks.masked_item import MaskedItem

LENGTHS = torch.tensor([1, 2, 5, 8, 8, 3])
ITEMS = 30
MASK = ITEMS + 1
SMALL = {"embedding_size": 8, "inner_size": 16, "hidden_dropout": 0.0, "attention_dropout": 0.0}


def histories(lengths=LENGTHS, seed=0, items=ITEMS):
    generator = torch.Generator().manual_seed(seed)
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    ids, providers = (torch.randint(1, top + 1, real.shape, generator=generator) * real for top in (items, 5))
    return Histories(torch.arange(len(lengths)), ids, providers, lengths)


def step_of(model, batch, seed=0, **further):
    nothing = torch.empty(0, dtype=torch.int64)
    index = SimpleNamespace(max_length=8)
    return TrainingStep(
        model, Batch(batch, nothing, nothing, nothing), False, index=index, rng=np.random.default_rng(seed), **further
    )


def built(name, **settings):
    torch.manual_seed(0)
    config = model_entry(name).config.model_validate({**SMALL, **settings})
    model = build_model(name, config, Sizes(users=6, items=ITEMS, providers=5, max_length=8)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_the_share_of_a_historys_items_is_hidden_and_one_at_least():
    batch, hidden = histories(), Counter()
    for seed in range(200):
        drawn = draw_share(batch, 0.4, np.random.default_rng(seed))
        assert drawn.sum(dim=1).tolist() == [1, 1, 2, 3, 3, 1]
        assert not (drawn & (batch.items == 0)).any()
        hidden.update(drawn[2].nonzero()[:, 0].tolist())
    assert all(55 < hidden[place] < 105 for place in range(5))  # 80 expected


def test_each_item_is_hidden_with_the_probability_asked_for():
    batch = histories(torch.full((50,), 40))
    assert draw_each(batch, 0.3, np.random.default_rng(0)).float().mean() == pytest.approx(0.3, abs=0.03)
    assert not (draw_each(histories(), 1.0, np.random.default_rng(0)) != (histories().items > 0)).any()


def test_a_hidden_item_has_the_mask_token_and_no_provider():
    batch = histories()
    hidden = draw_share(batch, 0.5, np.random.default_rng(0))
    masked = hide(batch, hidden, MASK)
    assert (masked.items[hidden] == MASK).all()
    assert (masked.providers[hidden] == 0).all()
    assert torch.equal(masked.items[~hidden], batch.items[~hidden])
    assert torch.equal(masked.providers[~hidden], batch.providers[~hidden])


def test_negative_items_are_drawn_uniformly_from_those_that_a_history_lacks():
    items = torch.tensor([[3, 1, 3, 6, 0], [1, 2, 3, 4, 5], [6, 5, 4, 2, 1]])
    rows = torch.arange(3).repeat_interleave(3000)
    drawn = items_outside(items, rows, 6, np.random.default_rng(0))
    for row, lacking in enumerate(([2, 4, 5], [6], [3])):
        found = Counter(drawn[rows == row].tolist())
        assert sorted(found) == lacking
        assert all(abs(found[item] - 3000 / len(lacking)) < 150 for item in lacking)
    full = torch.tensor([[2, 1, 3]])
    assert 1 <= int(items_outside(full, torch.tensor([0]), 3, np.random.default_rng(0))) <= 3


def test_segments_are_of_their_history_and_negative_ones_of_one_other():
    batch, begins, rows = histories(items=10**6), Counter(), Counter()
    runs = {
        tuple(row[i : i + size].tolist()): number
        for number, row in enumerate(batch.items)
        for size in range(1, 5)
        for i in range(int(batch.lengths[number]) - size + 1)
    }
    for seed in range(300):
        drawn = draw_segments(batch, 10**6 + 1, np.random.default_rng(seed))
        assert drawn.context.users.tolist() == [1, 2, 3, 4, 5]  # not the one with a single item
        for row, user in enumerate(drawn.context.users.tolist()):
            length = int(batch.lengths[user])
            inside = (drawn.context.items[row] == 10**6 + 1).nonzero()[:, 0]
            size, begin = len(inside), int(inside[0])
            assert 1 <= size <= length // 2
            assert inside.tolist() == list(range(begin, begin + size))
            positive, negative = (of.items[row, inside].tolist() for of in (drawn.positive, drawn.negative))
            assert positive == batch.items[user, inside].tolist()
            assert runs[tuple(negative)] != user
            outside = [place for place in range(length) if place not in inside]
            assert drawn.context.items[row, outside].tolist() == batch.items[user, outside].tolist()
            for of in (drawn.positive, drawn.negative):
                assert (of.items[row, outside] == 10**6 + 1).all()
                assert (of.items[row, length:] == 0).all()
            if user == 2:
                begins[size, begin] += 1
                rows[size, runs[tuple(negative)]] += 1
    assert len(begins) == 5 + 4  # 150 draws of each size, so 30 or more of each place
    assert min(begins.values()) > 12
    assert set(rows) == {(1, 0), *((size, row) for size in (1, 2) for row in (1, 3, 4, 5))}


def test_a_history_without_others_takes_its_own_segment_and_one_item_gives_none():
    alone = draw_segments(histories(torch.tensor([4])), MASK, np.random.default_rng(0))
    assert len(alone.context.items) == 1
    assert set(alone.negative.items.flatten().tolist()) <= {*histories(torch.tensor([4])).items[0].tolist(), MASK}
    assert len(draw_segments(histories(torch.tensor([1, 1])), MASK, np.random.default_rng(0)).context.items) == 0


def test_a_batch_of_single_interactions_can_be_pretrained():
    """Batches are sorted by length, so that one may have no history with a segment."""
    config = model_entry("s3rec").config.model_validate(SMALL)
    objective = Objective(config, config.stages()[0])
    losses = objective.losses(step_of(built("s3rec").train(), histories(torch.tensor([1, 1]))))
    assert losses.parts["segment"].item() == 0.0
    losses.total.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_tiled_binary_cross_entropy_is_the_plain_one(monkeypatch, dtype):
    monkeypatch.setattr(logistic, "ROWS", 16)
    monkeypatch.setattr(logistic, "TILE", 7)
    torch.manual_seed(0)
    states, vectors = (torch.randn(size, 6, requires_grad=True) for size in (37, 23))
    own = torch.randint(-1, 23, (37,))
    labels = functional.one_hot(own + 1, 24)[:, 1:].float()
    plain = functional.binary_cross_entropy_with_logits(states @ vectors.T, labels, reduction="sum")
    expected = [plain, *torch.autograd.grad(2 * plain, [states, vectors])]
    tiled = binary_cross_entropy_sum(states, vectors, own, dtype)
    found = [tiled, *torch.autograd.grad(2 * tiled, [states, vectors])]
    for one, other in zip(found, expected, strict=True):
        limit = 1e-5 if dtype == torch.float32 else 0.02
        assert (one - other).norm() < limit * other.norm()
    none = binary_cross_entropy_sum(states, vectors[:0], torch.full((37,), -1), dtype)
    assert none.item() == 0.0


def test_the_cloze_loss_is_the_mean_cross_entropy_of_hidden_items():
    model, batch = built("bert4rec"), histories()
    task = Cloze(ClozeConfig(mask_ratio=0.5))
    loss = task.loss(step_of(model, batch, seed=3))
    hidden = task.hidden(step_of(model, batch, seed=3))
    states = model.encode_masked(hide(batch, hidden, MASK))[hidden]
    logits = states @ model.item_vectors()[1:].T
    torch.testing.assert_close(loss, functional.cross_entropy(logits, batch.items[hidden] - 1))


def test_the_last_item_alone_is_hidden_in_its_share_of_histories_or_batches():
    model, batch = built("bert4rec"), histories()
    last = torch.arange(8) == (LENGTHS - 1)[:, None]
    whole = Cloze(ClozeConfig(mask_ratio=1.0, last_share=0.5))
    drawn = torch.stack([whole.hidden(step_of(model, batch, seed)) for seed in range(100)])
    only_last = (drawn == last).all(dim=2)[:, 2:]
    assert 0.4 < only_last.float().mean() < 0.6
    assert only_last.any(dim=1).float().mean() > 0.8
    per_batch = Cloze(ClozeConfig(mask_ratio=1.0, last_share=0.5, last_for="batch"))
    drawn = torch.stack([per_batch.hidden(step_of(model, batch, seed)) for seed in range(100)])
    only_last = (drawn == last).all(dim=2)[:, 2:]
    assert set(only_last.float().mean(dim=1).tolist()) == {0.0, 1.0}


def test_recbole_counts_no_first_item_and_no_more_than_its_share_of_the_maximum_length():
    task = Cloze(ClozeConfig(mask_ratio=0.3, masks="each", counted="recbole"))  # int(0.3 * 8) = 2
    hidden = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 1], [0, 0, 0, 0, 0]]).bool()
    counted = torch.tensor([[0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0]]).bool()
    assert torch.equal(task.counted(hidden, 8), counted)
    model, one = built("bert4rec"), histories(torch.tensor([1]))
    loss = task.loss_of(step_of(model, one), hidden[:1, :1], counted[:1, :1])
    assert loss.item() == 0.0
    loss.backward()


@pytest.mark.parametrize("name", ["bpr", "catalogue"])
def test_hidden_items_are_learnt_with_either_loss(name):
    model, batch = built("bert4rec").train(), histories(torch.full((5,), 6))
    task = Cloze(ClozeConfig(mask_ratio=0.3, loss=name))
    optimiser = torch.optim.Adam(model.parameters(), 3e-2)
    losses = []
    for seed in range(40):
        loss = task.loss(step_of(model, batch, seed))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_a_task_that_hides_items_needs_a_model_for_it():
    for task in (Cloze(ClozeConfig()), MaskedItem(MaskingConfig())):
        with pytest.raises(ModelError, match=r"MaskedEncoder|AttributeEncoder"):
            task.loss(step_of(built("sasrec"), histories()))


def test_bert4rec_appends_the_mask_and_drops_the_oldest_item_of_full_histories_only():
    model = built("bert4rec")
    asked = model.with_mask_appended(histories())
    assert asked.lengths.tolist() == [2, 3, 6, 8, 8, 4]
    for before, after, length in zip(histories().items, asked.items, LENGTHS.tolist(), strict=True):
        kept = before[:length].tolist()[-7:]
        assert after.tolist() == [*kept, MASK, *[0] * (7 - len(kept))]
    short = model.with_mask_appended(histories(torch.tensor([1, 3])))
    assert short.items.shape == (2, 4)
    assert short.lengths.tolist() == [2, 4]
    shifted = built("bert4rec", preset="recbole").with_mask_appended(histories())
    assert shifted.lengths.tolist() == LENGTHS.tolist()
    assert shifted.items[0].tolist() == [MASK, *[0] * 7]
    with pytest.raises(ValueError, match="both sides"):
        model.encode(histories(), every_position=True)


def test_presets_of_bert4rec_are_sets_of_options():
    config = model_entry("bert4rec").config
    authors, recbole = config(), config(preset="recbole")
    assert authors == config(preset="authors")
    assert recbole.model_dump() == authors.model_copy(update=dict(config.recbole)).model_dump()
    assert "preset" not in recbole.model_dump()
    (stage,) = authors.stages()
    assert (stage.samples, stage.copies, stage.stride) == ("histories", 11, 0.1)
    (stage,) = recbole.stages()
    assert (stage.samples, stage.copies, stage.stride) == ("targets", 1, 1.0)


@pytest.mark.parametrize("stride", [1.0, 0.5, 0.1])
def test_windows_of_histories_are_their_stride_apart(stride):
    data = worlds.build("cycle")
    split = leave_one_out(data)
    windows = history_windows(data, split, 4, stride)
    step = max(int(4 * stride), 1)
    users, begins = windows._users_and_begins(np.arange(len(windows.ends)))
    for user, (start, end) in enumerate(zip(data.offsets[:-1], split.train_ends, strict=True)):
        mine = users == user
        held = [*range(end - 4, start, -step), start] if step < 4 else [*range(end - 4, start, -4), start]
        assert sorted(begins[mine], reverse=True) == held
        assert windows.ends[mine].max() == end
        if step < 4:
            assert (windows.ends[mine] - begins[mine] == min(4, end - start)).all()
    covered = np.concatenate([np.arange(b, e) for b, e in zip(begins, windows.ends, strict=True)])
    assert set(covered) == set(np.flatnonzero(split.trained(data)))
    assert stride < 1 or len(covered) == len(set(covered))


def test_every_loss_of_s3rec_falls_in_pretraining(tmp_path):
    data = worlds.build("loyalty")
    config = model_entry("s3rec").config.model_validate({**SMALL, "pretrain_epochs": 30})
    assert [stage.name for stage in config.stages()] == ["pretrain", "main"]
    torch.manual_seed(0)
    sizes = Sizes(data.num_users, data.num_items, data.num_providers, worlds.MAX_LENGTH)
    fitted = fit(
        build_model("s3rec", config, sizes),
        config,
        TrainingData(data, ResidentSequences(data, torch.device("cpu")), leave_one_out(data)),
        Training(epochs=1, batch_size=30, learning_rate=1e-2),
        Loop(
            packed=True,
            max_length=worlds.MAX_LENGTH,
            seed=0,
            validate=lambda: Validation(1.0),
            checkpoint=tmp_path / "best.safetensors",
        ),
    )
    epochs = [epoch for epoch in fitted.epochs if epoch.stage == "pretrain"]
    assert len(epochs) == 30
    assert {epoch.valid for epoch in epochs} == {None}
    assert set(epochs[0].losses) == {"attribute-prediction", "masked-item", "masked-attribute", "segment"}
    for task, at_first in epochs[0].losses.items():
        at_last = np.mean([epoch.losses[task] for epoch in epochs[-3:]])
        assert at_last < 0.95 * at_first, task


def test_batches_of_short_and_of_long_histories_are_no_divergence(tmp_path, prepared_table):
    """Losses of pretraining are sums over a history's places: here a batch has 200 times the places of another."""
    lengths = [1] * 96 + [202] * 32
    rows = [f"u{user},i{(user + n) % 9},p{n % 5},{n}" for user, length in enumerate(lengths) for n in range(length)]
    data = prepared_table("user,item,provider,time\n" + "\n".join(rows))
    only = {"pretrain_epochs": 1, "masked_item_weight": 0, "masked_attribute_weight": 0, "segment_weight": 0}
    config = model_entry("s3rec").config.model_validate({**SMALL, **only, "attribute_prediction_weight": 1})
    for seed in range(3):
        fit(
            build_model("s3rec", config, Sizes(data.num_users, data.num_items, data.num_providers, 200)),
            config,
            TrainingData(data, ResidentSequences(data, torch.device("cpu")), leave_one_out(data)),
            Training(epochs=1, batch_size=32, learning_rate=1e-4),
            Loop(
                packed=True,
                max_length=200,
                seed=seed,
                validate=lambda: Validation(1.0),
                checkpoint=tmp_path / "best.safetensors",
            ),
        )


def test_s3rec_without_pretraining_or_a_task_leaves_it_out():
    config = model_entry("s3rec").config
    assert len(config(pretrain_epochs=0).stages()) == 1
    first, _ = config(segment_weight=0.0).stages()
    assert [use.name for use in first.tasks] == ["attribute-prediction", "masked-item", "masked-attribute"]
    assert [use.weight for use in config().stages()[0].tasks] == [0.2, 1.0, 1.0, 0.5]
