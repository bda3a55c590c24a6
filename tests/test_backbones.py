"""The newer backbones: what is theirs alone, computed by hand."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import Sizes
from ipsrec_bench.models.hstu import time_buckets
from ipsrec_bench.models.lrurec import linear_recurrence
from ipsrec_bench.models.padding import padded_left, padded_right, positions_of
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.models.tisasrec import _Pick, _SumBy, intervals_of
from ipsrec_bench.training.objective import Objective, batch_losses
from ipsrec_bench.training.samples import Batch
from ipsrec_bench.training.tasks.api import TrainingStep

SIZES = Sizes(users=3, items=9, providers=1, max_length=5)
HISTORIES = Histories(
    users=torch.arange(3),
    items=torch.tensor([[4, 5, 6, 7], [3, 0, 0, 0], [1, 2, 0, 0]]),
    providers=torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]]),
    lengths=torch.tensor([4, 1, 2]),
    times=torch.tensor([[10.0, 12.0, 12.0, 18.0], [7.0, 0.0, 0.0, 0.0], [5.0, 9.0, 0.0, 0.0]], dtype=torch.float64),
    next_times=torch.tensor([20.0, 8.0, 1009.0], dtype=torch.float64),
)


def built(name, **settings):
    config = model_entry(name).config.model_validate({"embedding_size": 8, **settings})
    torch.manual_seed(0)
    return build_model(name, config, SIZES).eval(), config


def test_padding_moves_to_the_left_and_back():
    moved = padded_left(HISTORIES, 5)
    assert moved.items.tolist() == [[0, 4, 5, 6, 7], [0, 0, 0, 0, 3], [0, 0, 0, 1, 2]]
    assert moved.times[2].tolist() == [0, 0, 0, 5, 9]
    assert moved.lengths.tolist() == [5, 5, 5]
    back = padded_right(moved.items[..., None], HISTORIES)[..., 0]
    real = HISTORIES.items > 0
    assert torch.equal(back[real], HISTORIES.items[real])


def test_positions_count_from_either_end():
    assert positions_of(HISTORIES, backward=False).tolist() == [0, 1, 2, 3]
    assert positions_of(HISTORIES, backward=True).tolist() == [[3, 2, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert positions_of(padded_left(HISTORIES, 5), backward=True).tolist() == [[4, 3, 2, 1, 0]] * 3


@pytest.mark.parametrize(
    ("model", "released"),
    [
        ("esasrec", {"positions": "backward", "sees_padding": True}),
        ("tisasrec", {"positions": "backward", "sees_padding": True}),
        ("hstu", {"positions": "backward"}),
    ],
)
def test_the_released_presets_are_sets_of_options(model, released):
    config = model_entry(model).config
    plain, preset = config(), config(preset="released")
    assert preset.model_dump() == plain.model_copy(update=released).model_dump()
    assert "preset" not in preset.model_dump()
    assert model_entry(model).packs(plain)
    assert not model_entry(model).packs(preset)


def test_padding_is_seen_only_with_positions_that_it_can_have():
    for model in ("esasrec", "tisasrec"):
        with pytest.raises(ValidationError, match="sees_padding = true needs positions = 'backward'"):
            model_entry(model).config(sees_padding=True)


@pytest.mark.parametrize("model", ["esasrec", "tisasrec"])
def test_padding_that_is_seen_changes_short_histories_only(model):
    hidden, seen = (
        built(model, positions="backward", sees_padding=sees)[0].encode(whole_and_short(), every_position=False).user
        for sees in (False, True)
    )
    torch.testing.assert_close(hidden[0], seen[0])
    assert (hidden[1] - seen[1]).abs().max() > 1e-4


def whole_and_short():
    items = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0]])
    times = torch.tensor([[1.0, 2, 3, 4, 5], [6, 7, 0, 0, 0]], dtype=torch.float64)
    return Histories(torch.arange(2), items, items.sign(), torch.tensor([5, 2]), times, times[:, 0] + 9)


def test_time_buckets_are_logarithms_of_the_time_to_the_next_request():
    """Row i, column j: from item j to what follows item i, which after the newest item is the request."""
    found = time_buckets(HISTORIES, last=20)

    def bucket(seconds):
        return math.floor(math.log(max(seconds, 1)) / 0.301)

    assert found[0].tolist() == [[bucket(abs(after - t)) for t in (10, 12, 12, 18)] for after in (12, 12, 18, 20)]
    assert int(found[1, 0, 0]) == bucket(8 - 7)
    assert found[2, 1, :2].tolist() == [20, 20]  # the last bucket
    assert bucket(1000) > 20
    with pytest.raises(ValueError, match="reads times"):
        time_buckets(Histories(*(getattr(HISTORIES, key) for key in ("users", "items", "providers", "lengths"))), 20)


def test_hstu_knows_when_the_next_item_is_asked_for():
    timed, _ = built("hstu", n_heads=2)
    timeless, _ = built("hstu", n_heads=2, time=False)
    for layer in timed.layers:
        torch.nn.init.normal_(layer.time_bias)
    later = Histories(
        *(getattr(HISTORIES, key) for key in ("users", "items", "providers", "lengths", "times")),
        HISTORIES.next_times + 10_000,
    )
    for model, moves in ((timed, True), (timeless, False)):
        before, after = (model.encode(one, every_position=False).user for one in (HISTORIES, later))
        assert torch.equal(before, after) != moves


def test_intervals_are_in_units_of_the_shortest_so_far():
    times = torch.tensor([[10.0, 10.0, 22.0, 25.0, 45.0]], dtype=torch.float64)
    own = intervals_of(times, own_unit=True, span=6)[0]
    # Without a shortest one yet, all intervals are 0; then it is 12, and from the fourth item on 3.
    assert own[0, :1].tolist() == [0]
    assert own[1, :2].tolist() == [0, 0]
    assert own[2, :3].tolist() == [1, 1, 0]
    assert own[3, :4].tolist() == [5, 5, 1, 0]
    assert own[4].tolist() == [6, 6, 6, 6, 0]
    assert intervals_of(times, own_unit=False, span=15)[0, 3].tolist() == [15, 15, 3, 0, 15]


def test_sums_by_interval_and_look_ups_are_each_others_gradients():
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, 4, (2, 3, 5), generator=generator)
    table = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda table: _Pick.apply(table, index), table)
    assert torch.autograd.gradcheck(lambda values: _SumBy.apply(values, index, 4), values)
    summed = _SumBy.apply(values, index, 4)
    assert summed[1, 2, 3] == sum(values[1, 2, place] for place in range(5) if index[1, 2, place] == 3)


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_the_recurrence_equals_its_definition(length):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.complex(*(torch.randn(2, length, 3, generator=generator, dtype=torch.float64) for _ in range(2)))
    decay = torch.polar(torch.tensor([0.5, 0.9, 0.99]).double(), torch.tensor([0.1, 1.0, 6.0]).double())
    state, expected = torch.zeros_like(inputs[:, 0]), []
    for step in range(length):
        state = decay * state + inputs[:, step]
        expected.append(state)
    torch.testing.assert_close(linear_recurrence(inputs, decay), torch.stack(expected, dim=1))


def test_first_items_are_predicted_from_nothing():
    """Of three histories, one is of the maximum length, and has no first item to predict."""
    model, config = built("lrurec", predicts_first=True)
    items = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [8, 0, 0, 0, 0]])
    histories = Histories(torch.arange(3), items, items.sign(), torch.tensor([5, 2, 1]))
    targets = torch.tensor([9, 1, 2])
    batch = Batch(histories, targets, targets, targets)
    found = batch_losses(model, config, batch, packed=False).total
    nothing = Histories(*(one[:1] for one in (targets, items[:, :1] * 0, items[:, :1] * 0, targets * 0 + 1)))
    users = model.encode(histories, every_position=False).user
    state = model.encode(nothing, every_position=False).user
    scores = torch.cat([users, state, state]) @ model.item_vectors()[1:].T
    expected = torch.nn.functional.cross_entropy(scores, torch.tensor([9, 1, 2, 6, 8]) - 1)
    torch.testing.assert_close(found, expected)
    objective = Objective(config, config.stages()[-1])
    step = TrainingStep(model, batch, False, objective.first, rng=np.random.default_rng(0))
    torch.testing.assert_close(objective.losses(step).total, expected)


def test_scores_are_cosines_over_a_temperature():
    model, _ = built("hstu", n_heads=1, temperature=0.05)
    users, items = model.encode(HISTORIES, every_position=False).user, model.item_vectors()
    scores = users @ items.T
    assert scores.abs().max() <= 1 / 0.05
    torch.testing.assert_close(users.norm(dim=1), torch.full((3,), 1 / 0.05))
    torch.testing.assert_close(items[1:].norm(dim=1), torch.ones(9))
    assert not items[0].any()


def test_tisasrec_has_a_penalty_on_its_tables_alone():
    model, config = built("tisasrec", table_norm=0.5)
    tables = ("item_embedding.weight", "key_positions.weight", "value_positions.weight", "key_times", "value_times")
    weights = dict(model.named_parameters())
    torch.testing.assert_close(model.penalty(), 0.5 * sum(weights[name].norm() for name in tables))
    assert built("tisasrec", table_norm=0)[0].penalty() is None
    assert config.table_norm == 0.5
