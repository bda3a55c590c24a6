"""Models: what every one of them must hold, and parity with an independent implementation."""

import pytest
import torch
from safetensors import safe_open

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import Sizes
from ipsrec_bench.models.registry import REGISTRY, SASRecConfig, build_model, model_entry
from ipsrec_bench.models.sasrec import SASRec

from .conftest import ROOT

SIZES = Sizes(items=30, providers=7, max_length=6)
NEURAL = [name for name in REGISTRY if name != "pop"]


def built(name: str, **settings):
    torch.manual_seed(0)
    entry = model_entry(name)
    small = {} if name == "pop" else {"embedding_size": 8, "inner_size": 16, **settings}
    model = build_model(name, entry.config.model_validate(small), SIZES)
    for parameter in model.parameters():  # larger than at the start, so that differences show
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def histories(lengths=(6, 1, 4), width=None, seed=1) -> Histories:
    generator = torch.Generator().manual_seed(seed)
    width = width or max(lengths)
    real = torch.arange(width) < torch.tensor(lengths)[:, None]
    items = torch.randint(1, SIZES.items + 1, (len(lengths), width), generator=generator)
    providers = torch.randint(1, SIZES.providers + 1, (len(lengths), width), generator=generator)
    return Histories(torch.arange(len(lengths)), items * real, providers * real, torch.tensor(lengths))


def views(model, batch, every_position=False):
    with torch.no_grad():
        result = model.encode(batch, every_position=every_position)
    return [view for view in (result.user, result.provider) if view is not None]


@pytest.mark.parametrize("name", REGISTRY)
def test_shapes(name):
    model, batch = built(name), histories()
    d = model.item_vectors().shape[1]
    assert model.item_vectors().shape == (SIZES.items + 1, d)
    assert {view.shape for view in views(model, batch)} == {(3, d)}
    assert {view.shape for view in views(model, batch, every_position=True)} == {(3, 6, d)}


@pytest.mark.parametrize("name", REGISTRY)
def test_padding_changes_nothing(name):
    model, batch = built(name), histories((4, 1, 3), width=6)
    trimmed = Histories(batch.users, batch.items[:, :4], batch.providers[:, :4], batch.lengths)
    for padded, tight in zip(views(model, batch), views(model, trimmed), strict=True):
        torch.testing.assert_close(padded, tight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", REGISTRY)
def test_last_position_equals_that_position_of_all(name):
    model, batch = built(name), histories()
    for last, every in zip(views(model, batch), views(model, batch, every_position=True), strict=True):
        assert torch.equal(last, batch.last(every))


@pytest.mark.parametrize("name", REGISTRY)
def test_no_position_sees_the_future(name):
    model, batch = built(name), histories((6, 6, 6))
    changed = Histories(batch.users, batch.items.clone(), batch.providers.clone(), batch.lengths)
    changed.items[:, 4:] = SIZES.items + 1 - changed.items[:, 4:]
    changed.providers[:, 4:] = SIZES.providers + 1 - changed.providers[:, 4:]
    for before, after in zip(views(model, batch, True), views(model, changed, True), strict=True):
        assert torch.equal(before[:, :4], after[:, :4])
        if name != "pop":
            assert not torch.equal(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("name", REGISTRY)
def test_providers_are_used_as_declared(name):
    model, batch = built(name), histories((6, 5, 6))
    others = (SIZES.providers + 1 - batch.providers) * (batch.providers > 0)
    other = Histories(batch.users, batch.items, others, batch.lengths)
    assert torch.equal(views(model, batch)[0], views(model, other)[0]) != REGISTRY[name].uses_providers


@pytest.mark.parametrize("name", NEURAL)
def test_gradient_reaches_every_parameter(name):
    model = built(name)
    result = model.encode(histories((6, 6, 6)), every_position=True)
    loss = (result.user @ model.item_vectors()[1:].T).logsumexp(-1).sum()
    if result.provider is not None:
        loss = loss + (result.user * result.provider).sum()
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        # A bias of keys moves all scores of a query alike, which softmax cannot see.
        if not parameter_name.endswith("key.bias"):
            assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", NEURAL)
def test_a_seed_fixes_the_weights(name):
    entry = model_entry(name)
    weights = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        weights.append(build_model(name, entry.config(), SIZES).state_dict())
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert not all(torch.equal(weights[0][k], weights[2][k]) for k in weights[0])
    assert not weights[0][next(k for k in weights[0] if k.endswith("embedding.weight"))][0].any()


def test_unknown_models_are_named():
    with pytest.raises(ModelError, match="there is no model 'ipsrec'; did you mean 'ipsrec-"):
        model_entry("ipsrec")


SASREC_NAMES = {
    "LayerNorm": "norm",
    "trm_encoder.layer": "transformer.layers",
    "multi_head_attention.LayerNorm": "norm",
    "multi_head_attention": "attention",
    "feed_forward.dense_1": "feed_forward.inner",
    "feed_forward.dense_2": "feed_forward.outer",
    "feed_forward.LayerNorm": "feed_forward.norm",
}
"""RecBole's names on the left, ours on the right; applied from the longest on."""


def test_sasrec_equals_recbole():
    with safe_open(ROOT / "tests" / "fixtures" / "sasrec.safetensors", "pt") as file:
        sizes = {k: int(v) for k, v in file.metadata().items() if v.isdigit()}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
    config = SASRecConfig(
        embedding_size=sizes["d"], n_layers=sizes["layers"], n_heads=sizes["heads"], inner_size=sizes["inner"]
    )
    model = SASRec(config, Sizes(sizes["items"], sizes["providers"], sizes["max_length"])).eval()
    weights = {}
    for name, tensor in tensors.items():
        if name.startswith("weight/"):
            ours = name.removeprefix("weight/")
            for theirs in sorted(SASREC_NAMES, key=len, reverse=True):
                ours = ours.replace(theirs, SASREC_NAMES[theirs])
            weights[ours] = tensor
    model.load_state_dict(weights)
    length = tensors["in/length"].long()
    items = tensors["in/items"].long()
    batch = Histories(torch.zeros_like(length), items, torch.zeros_like(items), length)
    user = views(model, batch)[0]
    torch.testing.assert_close(user, tensors["out/user_vectors"], rtol=0, atol=1e-5)
    scores = user @ model.item_vectors().T
    torch.testing.assert_close(scores, tensors["out/scores"], rtol=0, atol=1e-5)
    loss = torch.nn.functional.cross_entropy(scores[:, 1:], tensors["in/target"].long() - 1)
    torch.testing.assert_close(loss, tensors["out/cross_entropy"].reshape(()), rtol=0, atol=1e-5)
