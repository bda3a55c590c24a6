"""LiveRec: repeat buckets and scores of available candidates, for the model that reads no padding."""

from dataclasses import replace

import pytest
import torch

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import Sizes
from ipsrec_bench.models.registry import build_model, model_entry

SIZES = Sizes(users=5, items=30, providers=3, max_length=6)
SMALL = {"embedding_size": 8, "n_heads": 2, "context_layers": 2, "context_heads": 1, "top_k": 3, "time_unit": 1.0}
HISTORIES = Histories(
    users=torch.tensor([0, 1]),
    items=torch.tensor([[4, 7, 4, 9], [7, 7, 0, 0]]),
    providers=torch.ones(2, 4, dtype=torch.int64),
    lengths=torch.tensor([4, 2]),
    times=torch.tensor([[0.0, 10.0, 60.0, 300.0], [5.0, 5.0, 0.0, 0.0]], dtype=torch.float64),
)
ASKED_AT = torch.tensor([[10.0, 60.0, 300.0, 3500.0], [5.0, 83.0, 0.0, 0.0]], dtype=torch.float64)


def build(**settings):
    torch.manual_seed(0)
    model = build_model("liverec", model_entry("liverec").config(**{**SMALL, **settings}), SIZES).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def buckets(**settings):
    """Return the buckets of the items 4, 7 and none at every position."""
    available = torch.tensor([4, 7, 0]).expand(2, 4, 3)
    return build(**settings).repeat_buckets(HISTORIES, ASKED_AT, available).tolist()


def test_buckets_count_the_bounds_below_the_time_since_the_last_consumption():
    """Bounds are 0, 77, 221, ..., 3101."""
    by_position, short = buckets()
    assert by_position == [[2, 0, 0], [2, 2, 0], [4, 4, 0], [24, 24, 0]]
    assert short == [[0, 1, 0], [0, 3, 0], [0, 0, 0], [0, 0, 0]]


def test_released_buckets_count_from_the_first_consumption():
    assert buckets(repeats_since="first")[0] == [[2, 0, 0], [2, 2, 0], [4, 4, 0], [24, 24, 0]]
    late = replace(HISTORIES, times=HISTORIES.times + torch.tensor([[0.0, 0.0, 200.0, 0.0]], dtype=torch.float64))
    available = torch.full((2, 4, 1), 4)
    last, first = (
        build(repeats_since=since).repeat_buckets(late, ASKED_AT, available)[0, 2].item() for since in ("last", "first")
    )
    assert (last, first) == (2, 4)


def test_bounds_scale_with_the_unit_of_time():
    times, asked_at = 600 * HISTORIES.times, 600 * ASKED_AT
    found = build(time_unit=600.0).repeat_buckets(
        replace(HISTORIES, times=times), asked_at, torch.tensor([4, 7, 0]).expand(2, 4, 3)
    )
    assert found.tolist() == buckets()


def test_empty_places_among_the_candidates_change_nothing_unless_as_released():
    states = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    available = torch.randint(1, 31, (20, 4), generator=torch.Generator().manual_seed(2))
    with_empty = torch.cat([available[:, :2], torch.zeros(20, 5, dtype=torch.int64), available[:, 2:]], dim=1)
    places = [0, 1, 7, 8]
    for preset, equal in (("default", True), ("released", False)):
        model = build(preset=preset)
        model.item_embedding.weight.data[0] = model.repeat_embedding.weight.data[0] = 0.0
        alone, among = (model.candidate_scores(states, a, torch.zeros_like(a)) for a in (available, with_empty))
        assert torch.allclose(alone, among[:, places], atol=1e-6) == equal
        assert not among[:, 2:7].any()


def test_only_the_best_candidates_have_scores():
    states = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    available = torch.arange(1, 11).expand(20, 10)
    model = build()
    scores = model.candidate_scores(states, available, torch.zeros_like(available))
    candidates = model.item_embedding(available) + model.repeat_embedding.weight[0]
    best = (candidates @ states[:, :, None])[..., 0].topk(3, dim=1).indices
    assert torch.equal(scores != 0, torch.zeros(20, 10, dtype=torch.bool).scatter(1, best, value=True))


def test_states_without_candidates_have_finite_scores_and_gradients():
    model = build()
    available = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0]])
    scores = model.candidate_scores(torch.ones(2, 8), available, torch.zeros_like(available))
    assert (scores != 0).tolist() == [[False] * 4, [True, False, False, False]]
    scores.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_what_is_missing_is_said():
    available = torch.ones(2, 4, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="needs histories with times"):
        build().repeat_buckets(replace(HISTORIES, times=None), ASKED_AT, available)
    with pytest.raises(ValueError, match="need context_layers above 0"):
        build(context_layers=0).candidate_scores(torch.ones(2, 8), available[0, :2], available[0, :2])
    with pytest.raises(ValueError, match="context_heads = 3 must divide embedding_size = 64"):
        model_entry("liverec").config(context_heads=3)
