"""Tasks: the conformance suite over all of them, and lookups in the training interactions."""

import inspect
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
import torch

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.own_code import imported
from ipsrec_bench.suite.cells import OVER_CATALOGUE
from ipsrec_bench.testing import TaskCase
from ipsrec_bench.testing.tasks import SPLITS
from ipsrec_bench.testing.worlds import with_other_held_out
from ipsrec_bench.training.index import TrainingIndex
from ipsrec_bench.training.tasks.registry import REGISTRY

SMALL = {"embedding_size": 8, "inner_size": 16}
GRAPH = {"embedding_size": 8, "n_layers": 2}


class TestNextItem(TaskCase):
    task, model, model_settings = "next-item", "sasrec", SMALL


class TestNextItemOfPrefixes(TaskCase):
    task, model = "next-item", "caser"
    model_settings: ClassVar = {"embedding_size": 8}


class TestProviderContrast(TaskCase):
    task, model, model_settings, weight = "provider-contrast", "ipsrec-c", SMALL, 0.1


class TestProviderContrastReleased(TaskCase):
    task, model, model_settings = "provider-contrast", "ipsrec-s", SMALL
    settings: ClassVar = {"contrast": "nt-xent", "same_user_negatives": True, "similarity": "cosine", "tau": 0.5}
    packed = False  # windows hold several samples of one user


class TestProviderPrediction(TaskCase):
    task, model, model_settings, weight = "provider-prediction", "dif-sr", SMALL, 10.0


class TestProviderPredictionWithUnknown(TaskCase):
    task, model, model_settings = "provider-prediction", "dif-sr", SMALL
    settings: ClassVar = {"unknown_class": True}


class TestNextOrFirstItem(TaskCase):
    task, model = "next-or-first-item", "lrurec"
    model_settings: ClassVar = {"embedding_size": 8}


class TestAugmentedContrast(TaskCase):
    task, model, model_settings, weight = "augmented-contrast", "cl4srec", SMALL, 0.1


class TestAugmentedContrastOfUsers(TaskCase):
    task, model, model_settings = "augmented-contrast", "cl4srec", SMALL
    settings: ClassVar = {"operators": ["slide", "mask"], "window": 2, "similarity": "cosine", "tau": 0.2}


class TestAugmentedNextItem(TaskCase):
    task, model, model_settings = "augmented-next-item", "cl4srec", SMALL


class TestSameTargetContrast(TaskCase):
    task, model, model_settings, weight = "same-target-contrast", "duorec", SMALL, 0.1


class TestSameTargetContrastReleased(TaskCase):
    task, model, model_settings = "same-target-contrast", "duorec", SMALL
    settings: ClassVar = {"contrast": "us_x", "same_user_negatives": True}


class TestBPR(TaskCase):
    task, model, model_settings = "bpr", "sasrec", SMALL


class TestBPROfUsers(TaskCase):
    task, model, model_settings = "bpr", "sgl", GRAPH
    settings: ClassVar = {"reduction": "sum"}


class TestGraphContrast(TaskCase):
    task, model, model_settings, weight = "graph-contrast", "sgl", GRAPH, 0.05


class TestRowPenalty(TaskCase):
    task, model, model_settings, weight = "row-penalty", "sgl", GRAPH, 1e-4


class TestRowPenaltyReleased(TaskCase):
    task, model, model_settings = "row-penalty", "sgl", GRAPH
    settings: ClassVar = {"form": "norms"}


class TestStreamContrast(TaskCase):
    task, model, model_settings, weight = "stream-contrast", "mssr", SMALL, 0.1


class TestAlignment(TaskCase):
    task, model, model_settings, weight = "alignment", "diff", SMALL, 100.0


class TestCloze(TaskCase):
    task, model, model_settings = "cloze", "bert4rec", SMALL
    settings: ClassVar = {"mask_ratio": 0.4, "last_share": 0.3}


class TestClozeOfRecBole(TaskCase):
    task, model, model_settings = "cloze", "bert4rec", SMALL
    settings: ClassVar = {
        "mask_ratio": 0.4,
        "masks": "each",
        "last_share": 0.5,
        "last_for": "batch",
        "counted": "recbole",
        "loss": "bpr",
    }


class TestAttributePrediction(TaskCase):
    task, model, model_settings, weight = "attribute-prediction", "s3rec", SMALL, 0.2


class TestMaskedItem(TaskCase):
    task, model, model_settings = "masked-item", "s3rec", SMALL


class TestMaskedAttribute(TaskCase):
    task, model, model_settings = "masked-attribute", "s3rec", SMALL


class TestSegment(TaskCase):
    task, model, model_settings, weight = "segment", "s3rec", SMALL, 0.5


def test_every_task_is_under_test():
    assert {case.task for case in TaskCase.__subclasses__() if hasattr(case, "task")} >= set(REGISTRY)


def targets(data, split):
    """Return the flat positions of all training targets."""
    return np.flatnonzero(data.ranges(data.offsets[:-1] + 1, split.train_ends))


def fields(value):
    return [one for one in vars(value).values() if one is not None]


def drawing(name):
    """Return a call of a lookup that draws random numbers."""
    return lambda index, asked: [getattr(index, name)(asked, np.random.default_rng(0))]


LOOKUPS = {
    "log": lambda index, _: fields(index.log),
    "item_counts": lambda index, _: [index.item_counts],
    "item_providers": lambda index, _: [index.item_providers],
    "other_items": drawing("other_items"),
    "same_target": drawing("same_target"),
    "another_of_same_target": drawing("another_of_same_target"),
    "histories_before": lambda index, asked: fields(index.histories_before(asked)),
}
"""Every lookup of the index, called for all training targets: their users, their items or their positions."""


def index_of(data, split, max_length=5):
    return TrainingIndex(data, ResidentSequences(data, torch.device("cpu"), times=True), split, max_length)


def test_the_tasks_with_a_loss_over_the_catalogue_are_known():
    """By them, tables tell which models were trained on an approximation."""
    sources = {name: inspect.getsource(imported(entry.path)) for name, entry in REGISTRY.items()}
    assert {name for name, source in sources.items() if "next_item_loss" in source} == OVER_CATALOGUE


def test_every_lookup_is_under_test():
    assert {name for name in vars(TrainingIndex) if not name.startswith("_")} == set(LOOKUPS)


@pytest.mark.parametrize("rule", SPLITS)
def test_held_out_interactions_alone_are_replaced(world, rule):
    split = SPLITS[rule](world)
    trained, other = split.trained(world), with_other_held_out(world, split)
    for name in ("items", "providers", "times"):
        assert np.array_equal(getattr(world, name) == getattr(other, name), trained)


@pytest.mark.parametrize("rule", SPLITS)
@pytest.mark.parametrize("lookup", LOOKUPS)
def test_no_lookup_returns_what_is_held_out(world, rule, lookup):
    split = SPLITS[rule](world)
    positions = targets(world, split)
    users = np.searchsorted(world.offsets, positions, side="right") - 1
    asked = {"other_items": users, "same_target": np.array(world.items[positions])}.get(lookup, positions)
    found = [LOOKUPS[lookup](index_of(data, split), asked) for data in (world, with_other_held_out(world, split))]
    for one, other in zip(*found, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("rule", SPLITS)
def test_same_target_draws_among_all_training_targets_of_the_item(world, rule):
    split = SPLITS[rule](world)
    positions = targets(world, split)
    index, items = index_of(world, split), np.array(world.items[positions])
    rng = np.random.default_rng(0)
    found = np.stack([index.same_target(items, rng) for _ in range(50)])
    assert np.array_equal(world.items[found], np.broadcast_to(items, found.shape))
    assert set(np.unique(found)) <= set(positions)
    item, count = Counter(items.tolist()).most_common()[-1]
    drawn = np.bincount(found[:, items == item].ravel(), minlength=len(world.items))
    assert (drawn > 0).sum() == count
    assert drawn.max() <= 4 * 50  # 50 are expected of each
    absent = np.setdiff1d(np.arange(1, world.num_items + 1), items)[:1]
    for wrong in (*absent, 0):
        with pytest.raises(ValueError, match="no training target"):
            index.same_target(np.array([items[0], wrong]), rng)


@pytest.mark.parametrize("rule", SPLITS)
def test_histories_before_are_those_of_training_targets_only(world, rule):
    split = SPLITS[rule](world)
    index, positions = index_of(world, split), targets(world, split)
    found = index.histories_before(positions)
    for row, position in enumerate(positions.tolist()):
        user = int(np.searchsorted(world.offsets, position, side="right")) - 1
        begin = max(int(world.offsets[user]), position - index.max_length)
        length = position - begin
        assert (int(found.users[row]), int(found.lengths[row])) == (user, length)
        for name in ("items", "providers", "times"):
            assert np.array_equal(getattr(found, name)[row, :length], getattr(world, name)[begin:position])
            assert not getattr(found, name)[row, length:].any()
        assert float(found.next_times[row]) == world.times[position]
    for wrong in np.setdiff1d(np.arange(len(world.items)), positions):
        with pytest.raises(ValueError, match="not that of a training target"):
            index.histories_before(np.array([positions[0], wrong]))


def test_counts_and_providers_are_those_of_the_training_interactions(world):
    split = SPLITS["leave-one-out"](world)
    index, inside = index_of(world, split), split.trained(world)
    counts = Counter(world.items[inside].tolist())
    assert index.item_counts.tolist() == [counts[item] for item in range(world.num_items + 1)]
    for item, provider in enumerate(index.item_providers.tolist()):
        theirs = Counter(world.providers[inside & (world.items == item)].tolist())
        most = max(theirs.values(), default=0)
        expected = min((one for one, count in theirs.items() if count == most), default=1 if item else 0)
        assert provider == expected
