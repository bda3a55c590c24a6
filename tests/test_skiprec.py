"""SkipRec: who chooses which layers, and what the backbone is without a choice."""

import pytest
import torch

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import Sizes
from ipsrec_bench.models.registry import build_model, model_entry

SIZES = Sizes(users=40, items=30, providers=3, max_length=9)
SMALL = {"embedding_size": 16, "inner_size": 32, "n_layers": 3, "hidden_dropout": 0.0, "attention_dropout": 0.0}


def build(name="skiprec", seed=0, **settings):
    torch.manual_seed(seed)
    return build_model(name, model_entry(name).config(**{**SMALL, **settings}), SIZES).eval()


def histories(users=40):
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 10, (users,), generator=generator)
    items = torch.randint(1, 31, (users, 9), generator=generator) * (torch.arange(9) < lengths[:, None])
    return Histories(torch.arange(users), items, torch.zeros_like(items), lengths)


def fix_gates(model, value):
    """Let the policy always choose `value`."""
    torch.nn.init.zeros_(model.policy.output.weight)
    torch.nn.init.constant_(model.policy.output.bias, 2 * value - 1)


def test_gates_of_an_untrained_model_are_hard_and_differ_between_users():
    batch = histories()
    model = build()
    gates = batch.last(model.gates(batch))
    assert set(gates.unique().tolist()) == {0.0, 1.0}
    assert len(gates.unique(dim=0)) > 2
    assert all(0 < gates[:, layer].mean() < 1 for layer in range(3))


@pytest.mark.parametrize("gates", ["position", "user"])
def test_with_all_layers_it_is_the_plain_backbone(gates):
    model, plain, batch = build(gates=gates), build("sasrec"), histories()
    names = {"item_embedding": "item_embedding", "layers": "encoder.transformer.layers"}
    names |= {part: f"encoder.{part}" for part in ("position_embedding", "norm")}
    backbone = {
        name.replace(first, names[first], 1): weight
        for name, weight in model.state_dict().items()
        if (first := name.partition(".")[0]) in names
    }
    plain.load_state_dict(backbone)
    before = model.encode(batch, every_position=False).user
    fix_gates(model, 1)
    found, expected = (one.encode(batch, every_position=False).user for one in (model, plain))
    assert torch.equal(found, expected)
    assert not torch.allclose(before, expected)


def test_without_any_layer_it_is_the_embedding():
    model, batch = build(), histories()
    fix_gates(model, 0)
    embedded = model.norm(model.item_embedding(batch.items) + model.position_embedding(torch.arange(9)))
    assert torch.equal(model.encode(batch, every_position=True).user, embedded)


def test_the_newest_positions_gates_are_the_users():
    by_position, of_user, batch = build(), build(gates="user"), histories()
    torch.testing.assert_close(batch.last(by_position.gates(batch)), of_user.gates(batch)[:, 0])
    assert not model_entry("skiprec").packs(model_entry("skiprec").config(gates="user"))


def test_training_draws_gates_from_torchs_generator():
    model, batch = build().train(), histories()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(model.gates(batch).detach())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert 0.4 < float(drawn[0].mean()) < 0.6  # the logits of an untrained policy are near 0


def test_the_gradient_of_a_hard_gate_is_that_of_the_relaxed_one():
    model, batch = build(temperature=2.0), histories()
    model.gates(batch).sum().backward()
    (expected,) = torch.autograd.grad(torch.sigmoid(model.policy.logits(batch) / 2.0).sum(), model.policy.output.weight)
    torch.testing.assert_close(model.policy.output.weight.grad, expected)
