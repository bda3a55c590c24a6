"""Operators that change histories, against a loop over rows; and the tasks that use them."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import Sizes
from ipsrec_bench.models.configs import CL4SRecConfig, DuoRecConfig
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.testing.references.api import ReferenceFile
from ipsrec_bench.training import augmentation
from ipsrec_bench.training.objective import batch_losses
from ipsrec_bench.training.samples import Batch
from ipsrec_bench.training.tasks.augmented_next_item import AugmentedNextItem
from ipsrec_bench.training.tasks.configs import AugmentationConfig, AugmentedContrastConfig, AugmentedNextItemConfig

from .conftest import ROOT

MASK = 99
FIELDS = ("users", "items", "providers", "lengths", "times", "next_times")
shares = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.6, 0.7, 0.9, 1.0])


def histories_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    real = np.arange(max(lengths)) < np.array(lengths)[:, None]
    items, providers = (torch.from_numpy(rng.integers(1, top, real.shape) * real) for top in (50, 9))
    times = torch.from_numpy(rng.integers(1, 9, real.shape).cumsum(axis=1) * real).double()
    users = torch.arange(len(lengths))
    return Histories(users, items, providers, torch.tensor(lengths), times, times.amax(dim=1) + 1)


def rows(histories):
    """Return each row as lists of its items, providers and times; check that all behind its length is padding."""
    found = []
    for row, length in enumerate(histories.lengths.tolist()):
        both = [getattr(histories, name)[row].tolist() for name in ("items", "providers", "times")]
        assert not any(any(values[length:]) for values in both)
        found.append(tuple(values[:length] for values in both))
    return found


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    eta=shares.filter(bool),
    gamma=shares,
    beta=shares,
    window=st.integers(1, 14),
    seed=st.integers(0, 1000),
)
def test_every_operator_is_what_a_loop_over_rows_allows(lengths, eta, gamma, beta, window, seed):
    config = AugmentationConfig(eta=eta, gamma=gamma, beta=beta, window=window)
    histories = histories_of(lengths, seed)
    before = rows(histories)
    rng = np.random.default_rng(seed)
    changed = {
        name: augmentation.augment(histories, name, config, MASK, rng) for name in ("crop", "mask", "reorder", "slide")
    }
    after = {name: rows(one.histories) for name, one in changed.items()}
    assert rows(histories) == before  # nothing is changed in place
    for row, (items, providers, times) in enumerate(before):
        n = len(items)
        for name, count in (("crop", max(math.floor(eta * n), 1)), ("slide", min(window, n))):
            possible = [tuple(part[b : b + count] for part in before[row]) for b in range(n - count + 1)]
            end = int(changed[name].ends[row])
            assert after[name][row] == possible[end - count]
            asked = times[end] if end < n else histories.next_times[row]
            assert changed[name].histories.next_times[row] == asked
        for name in ("mask", "reorder"):
            assert changed[name].ends[row] == n
            assert changed[name].histories.next_times[row] == histories.next_times[row]
        hidden = [t for t in range(n) if after["mask"][row][0][t] == MASK]
        assert len(hidden) == (math.floor(gamma * n) if n > 1 else 0)
        expected = [MASK if t in hidden else items[t] for t in range(n)]
        without = [0 if t in hidden else providers[t] for t in range(n)]
        assert after["mask"][row] == (expected, without, times)
        count = math.floor(beta * n)
        pairs = list(zip(items, providers, strict=True))
        shuffled = list(zip(*after["reorder"][row][:2], strict=True))
        assert after["reorder"][row][2] == times
        assert any(
            shuffled[:b] == pairs[:b]
            and shuffled[b + count :] == pairs[b + count :]
            and Counter(shuffled[b : b + count]) == Counter(pairs[b : b + count])
            for b in range(n - count + 1)
        )


def test_draws_are_uniform():
    """Of many equal histories, every place, position and order comes equally often."""
    count = 6000
    items = torch.tensor([[1, 2, 3, 4, 0]]).repeat(count, 1)
    histories = Histories(torch.arange(count), items, items, torch.full((count,), 4), torch.zeros(count, 5))
    config = AugmentationConfig(eta=0.5, gamma=0.5, beta=0.75)
    expected = {
        "crop": [[1, 2], [2, 3], [3, 4]],
        "mask": [[MASK if t in hidden else t + 1 for t in range(4)] for hidden in
                 ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))],
    }  # fmt: skip
    for name, possible in expected.items():
        drawn = augmentation.augment(histories, name, config, MASK, np.random.default_rng(0)).histories
        found = Counter(tuple(one) for one, _, _ in rows(drawn))
        assert set(found) == set(map(tuple, possible))
        share = count / len(possible)
        assert all(abs(times - share) < 5 * share**0.5 for times in found.values())
    drawn = augmentation.augment(histories, "reorder", config, MASK, np.random.default_rng(0)).histories
    found = Counter(tuple(one) for one, _, _ in rows(drawn))
    assert len(found) == 6 + 6 - 2  # the identity and the swap of the middle are common to both places
    assert abs(found[1, 2, 3, 4] - count / 6) < 5 * (count / 6) ** 0.5
    assert abs(found[3, 1, 2, 4] - count / 12) < 5 * (count / 12) ** 0.5


def step_of(histories, seed=0, **attributes):
    model = SimpleNamespace(reads_mask_token=True)
    batch = SimpleNamespace(histories=histories)
    rng = np.random.default_rng(seed)
    return SimpleNamespace(batch=batch, model=model, rng=rng, item_vectors=torch.zeros(MASK, 2), **attributes)


def kinds_of(view, histories):
    """Return for each row which operator made it: a crop is shorter, a mask hides, anything else reorders."""
    hidden = (view.items == MASK).any(dim=1)
    shorter = view.lengths < histories.lengths
    return ["mask" if h else "crop" if s else "reorder" for h, s in zip(hidden, shorter, strict=True)]


def test_the_two_views_of_a_history_come_from_different_operators_drawn_uniformly():
    count = 3000
    histories = histories_of([10] * count)
    both = augmentation.views(step_of(histories), 2, AugmentedContrastConfig()).histories
    halves = [Histories(*(getattr(both, name)[part] for name in FIELDS)) for part in (slice(count), slice(count, None))]
    assert torch.equal(halves[0].users, histories.users)
    assert torch.equal(halves[1].users, histories.users)
    pairs = Counter(zip(*(kinds_of(view, histories) for view in halves), strict=True))
    assert len(pairs) == 6
    assert all(first != second for first, second in pairs)
    assert all(abs(times - count / 6) < 5 * (count / 6) ** 0.5 for times in pairs.values())


def test_views_depend_on_the_generator_alone_and_one_interaction_stays_as_it_is():
    histories = histories_of([1, 5, 1, 9, 12], seed=3)
    config = AugmentedContrastConfig(gamma=1.0)
    one, same, other = (augmentation.views(step_of(histories, seed), 2, config).histories for seed in (1, 1, 2))
    for name in FIELDS:
        assert torch.equal(getattr(one, name), getattr(same, name))
    assert not torch.equal(one.items, other.items)
    for row in (0, 2, 5, 7):
        assert rows(one)[row] == rows(histories)[row % 5]


def test_a_reference_with_the_same_draws_has_the_same_histories():
    """`testing.references.duorec` takes the views from these operators."""
    file = ReferenceFile.read(ROOT / "tests" / "fixtures" / "cl4srec.safetensors")
    histories, width = file.histories(), file.size("max_length")
    eta, gamma, beta = (float(file.about[name]) for name in ("eta", "gamma", "beta"))
    kept = augmentation.share_of(histories.lengths, eta, width).clamp(min=1)
    cropped = augmentation.crop(histories, file.given("crop_begin"), kept)
    assert torch.equal(cropped.items, file.given("crop_items"))
    assert torch.equal(cropped.lengths, file.given("crop_length"))
    hidden = file.given("mask_positions").bool()
    assert torch.equal(hidden.sum(dim=1), augmentation.share_of(histories.lengths, gamma, width))
    masked = augmentation.mask(histories, hidden, file.size("mask_token"))
    assert torch.equal(masked.items, file.given("mask_items"))
    order = augmentation.order_within(
        file.given("reorder_begin"),
        augmentation.share_of(histories.lengths, beta, width),
        file.given("reorder_order").clamp(min=0),
    )
    assert torch.equal(augmentation.reorder(histories, order).items, file.given("reorder_items"))


def losses_of(name, tasks, **config):
    entry = model_entry(name)
    small = {"embedding_size": 8, "inner_size": 16, **config, "tasks": tasks}
    sizes = Sizes(users=9, items=49, providers=9, max_length=12)
    histories = histories_of([1, 5, 3, 9, 12])
    targets = torch.arange(1, 6)
    torch.manual_seed(0)
    checked = entry.config.model_validate(small)
    batch = Batch(histories, torch.empty(0).long(), targets, targets)
    return batch_losses(build_model(name, checked, sizes).eval(), checked, batch, packed=False)


def test_a_model_without_mask_token_refuses_the_mask_and_names_the_remedy():
    with pytest.raises(ModelError, match=r'SASRec has no mask token; set operators = \["crop", "reorder"\]'):
        losses_of("sasrec", {"augmented-contrast": {"weight": 0.1}})
    losses = losses_of("sasrec", {"augmented-contrast": {"weight": 0.1, "operators": ["crop", "reorder"]}})
    contrast = losses.parts["augmented-contrast"]
    assert torch.isclose(losses.total, losses.parts["next-item"] + 0.1 * contrast)


@pytest.mark.parametrize("operators", [["crop"], ["crop", "crop"], ["crop", "swap"]])
def test_a_pair_needs_two_different_known_operators(operators):
    with pytest.raises(ValueError, match="operators"):
        AugmentedContrastConfig(operators=operators)


def test_an_augmented_history_predicts_the_item_that_followed_its_newest_interaction():
    """An encoder that returns the newest item, and a loss that returns the pairs, show what is predicted from what."""
    lengths = [1, 5, 3, 9, 12]
    histories = histories_of(lengths)
    targets = torch.arange(201, 206)
    whole = [[*items, target] for (items, _, _), target in zip(rows(histories), targets.tolist(), strict=True)]
    for operator in ("crop", "slide", "mask", "reorder"):
        step = step_of(
            histories,
            newest_targets=targets,
            encode=lambda view: SimpleNamespace(user=view),
            next_item_loss=lambda view, items: (view, items),
        )
        task = AugmentedNextItem(AugmentedNextItemConfig(operators=[operator], window=4))
        view, items = task.loss(step)
        for row, (history, item) in enumerate(zip(rows(view), items.tolist(), strict=True)):
            if operator in {"mask", "reorder"}:
                assert item == targets[row]
                assert len(history[0]) == lengths[row]
            else:
                part = [*history[0], item]
                assert any(whole[row][b : b + len(part)] == part for b in range(lengths[row]))


def uses(config):
    return [(use.name, use.weight, use.settings.get("contrast"), use.settings.get("semantic_weight"))
            for use in config.own_tasks()[1:]]  # fmt: skip


def test_a_weight_of_zero_leaves_a_loss_out():
    assert CL4SRecConfig(**{"lambda": 0.0}).own_tasks() == CL4SRecConfig().own_tasks()[:1]
    name = "same-target-contrast"
    for settings_, expected in (
        ({}, [(name, 0.1, "us", 1.0)]),
        ({"lambda": 0.2, "lambda_sem": 0.3}, [(name, 0.2, "us", 0.3 / 0.2)]),
        ({"lambda": 0.0}, [(name, 0.1, "su", None)]),
        ({"lambda_sem": 0.0}, [(name, 0.1, "un", None)]),
        ({"lambda": 0.0, "lambda_sem": 0.0}, []),
        ({"contrast": "un", "lambda": 0.0}, []),
        ({"contrast": "un", "lambda": 0.2}, [(name, 0.2, "un", None)]),
        ({"preset": "released", "lambda": 0.0}, [(name, 0.1, "us_x", None)]),  # which ignores lambda
        ({"preset": "released", "lambda_sem": 0.0}, []),
    ):
        assert uses(DuoRecConfig(**settings_)) == expected, settings_
