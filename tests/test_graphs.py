"""The user-item graph, the tasks on single interactions, and models that know their users."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from ipsrec_bench.data.batches import Histories, ResidentSequences
from ipsrec_bench.data.split import leave_one_out
from ipsrec_bench.models.api import Sizes, TrainingLog
from ipsrec_bench.models.configs import SGLConfig
from ipsrec_bench.models.graphs import OrderedEdges
from ipsrec_bench.models.sgl import SGL
from ipsrec_bench.testing import worlds
from ipsrec_bench.training.index import TrainingIndex
from ipsrec_bench.training.objective import Objective
from ipsrec_bench.training.optimiser import Optimiser
from ipsrec_bench.training.samples import interaction_windows
from ipsrec_bench.training.tasks.api import TrainingStep
from ipsrec_bench.training.weights import load_weights, save_weights

USERS, ITEMS, EDGES = 7, 9, 30
EDGE_USERS = torch.from_numpy(np.random.default_rng(0).integers(0, USERS - 1, EDGES).astype(np.int32))
EDGE_ITEMS = torch.from_numpy(np.random.default_rng(1).integers(1, ITEMS, EDGES).astype(np.int32))
KEPT = torch.from_numpy(np.random.default_rng(2).random(EDGES) < 0.7)


def dense_mean(users, items, kept, layers):
    """Return the mean of the layers by products with the whole matrix."""
    counts = torch.zeros(USERS, ITEMS, dtype=torch.float64)
    for user, item in zip(EDGE_USERS[kept].tolist(), EDGE_ITEMS[kept].tolist(), strict=True):
        counts[user, item] += 1
    weights = counts * counts.sum(1, keepdim=True).clamp(min=1).rsqrt() * counts.sum(0).clamp(min=1).rsqrt()
    vectors = [(users, items)]
    for _ in range(layers):
        users, items = weights @ items, weights.T @ users
        vectors.append((users, items))
    return [torch.stack(side).mean(0) for side in zip(*vectors, strict=True)]


@pytest.mark.parametrize("kept", [None, KEPT], ids=["all edges", "some edges"])
@pytest.mark.parametrize("layers", [1, 3])
def test_propagation_and_its_gradient_are_products_with_the_normalised_matrix(kept, layers):
    """Repeated edges count repeatedly; one user and one item have no edge, and so only their own layer 0."""
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, 5, generator=generator, requires_grad=True) for n in (USERS, ITEMS))
    graph = OrderedEdges(EDGE_USERS, EDGE_ITEMS, USERS, ITEMS).graph(kept)
    chosen = torch.ones(EDGES, dtype=torch.bool) if kept is None else kept
    found, expected = graph.propagated(users, items, layers), dense_mean(users.double(), items.double(), chosen, layers)
    weights = [torch.randn(n, 5, generator=generator) for n in (USERS, ITEMS)]
    gradients = []
    for results in (found, expected):
        loss = sum((result * weight).sum() for result, weight in zip(results, weights, strict=True))
        gradients.append(torch.autograd.grad(loss, (users, items)))
    for one, other in zip([*found, *gradients[0]], [*expected, *gradients[1]], strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-5, atol=1e-6)


def test_a_graph_without_edges_leaves_every_vector_its_own_layer():
    nothing = torch.zeros(0, dtype=torch.int32)
    users, items = OrderedEdges(nothing, nothing, 2, 3).graph().propagated(torch.ones(2, 4), torch.ones(3, 4), 3)
    assert torch.equal(users, torch.full((2, 4), 0.25))
    assert torch.equal(items, torch.full((3, 4), 0.25))


def test_negatives_are_uniform_among_the_items_that_a_user_lacks():
    data = worlds.build("pairs")
    split = leave_one_out(data)
    index = TrainingIndex(data, ResidentSequences(data, torch.device("cpu")), split, 7)
    had = {user: set(index.log.items[index.log.users == user].tolist()) for user in range(data.num_users)}
    users = np.repeat(np.arange(data.num_users), 2000)
    drawn = index.other_items(users, np.random.default_rng(0))
    for user, own in had.items():
        items, counts = np.unique(drawn[users == user], return_counts=True)
        assert set(items.tolist()) == set(range(1, data.num_items + 1)) - own
        assert counts.min() > 0.6 * 2000 / len(items)


def test_a_user_with_all_items_gets_any_of_them():
    data = worlds.build("cycle")
    index = TrainingIndex(data, ResidentSequences(data, torch.device("cpu")), leave_one_out(data), 7)
    everything = np.arange(1, data.num_items + 1, dtype=np.int32)
    users = np.concatenate([np.zeros(data.num_items, np.int64), [1]])
    items = np.concatenate([everything, everything[:1]])
    index.__dict__["log"] = TrainingLog(users, items, items, users)
    drawn = index.other_items(np.repeat([0, 1], 500), np.random.default_rng(0))
    assert set(drawn[:500].tolist()) == set(everything.tolist())
    assert set(drawn[500:].tolist()) == set(everything[1:].tolist())


def sgl(data, **settings):
    torch.manual_seed(0)
    model = SGL(SGLConfig(embedding_size=8, **settings), Sizes(data.num_users, data.num_items, 1, 7))
    index = TrainingIndex(data, ResidentSequences(data, torch.device("cpu")), leave_one_out(data), 7)
    model.prepare(index.log)
    return model, index


def one_step(model, index, data, config):
    """Train one step on all interactions."""
    objective, rng = Objective(config, config.stages()[-1]), np.random.default_rng(0)
    for _, _, task in objective.tasks:
        task.begin_epoch(model, index, rng)
    windows = interaction_windows(data, leave_one_out(data))
    sequences = ResidentSequences(data, torch.device("cpu"))
    optimiser = Optimiser(model, 0.1, lazy=False)
    model.train()
    for _ in range(2):
        batch = windows.gather(sequences, np.arange(len(windows.ends)))
        optimiser.step(objective.losses(TrainingStep(model, batch, False, index=index, rng=rng)).total)


def vectors(model):
    user = torch.arange(3)
    ids = user[:, None]
    with torch.no_grad():
        views = model.encode(Histories(user, ids, ids, torch.ones(3, dtype=torch.int64)), every_position=False)
        return torch.cat([views.user, model.item_vectors()]).clone()


def test_kept_vectors_are_those_of_the_present_weights(tmp_path):
    """After a step, new weights by hand, and loaded ones, nothing old is returned."""
    data = worlds.build("habit")
    model, index = sgl(data)

    def anew():
        fresh, _ = sgl(data)
        fresh.load_state_dict(model.state_dict())
        return vectors(fresh.eval())

    seen = [vectors(model.eval())]
    save_weights(model, tmp_path / "first.safetensors")
    one_step(model, index, data, SGLConfig(embedding_size=8))
    assert torch.equal(vectors(model), anew())
    seen.append(vectors(model.eval()))
    assert torch.equal(seen[-1], anew())
    with torch.no_grad():
        model.user_embedding.weight.add_(1.0)
    seen.append(vectors(model))
    assert torch.equal(seen[-1], anew())
    load_weights(model, tmp_path / "first.safetensors")
    assert torch.equal(vectors(model), seen[0])
    assert not any(torch.equal(one, other) for one, other in pairwise(seen))


def test_evaluation_propagates_once(monkeypatch):
    data = worlds.build("habit")
    model, _ = sgl(data)
    model.eval()
    calls = []
    propagate = model.propagate
    monkeypatch.setattr(model, "propagate", lambda graph: calls.append(1) or propagate(graph))
    for _ in range(3):
        vectors(model)
    assert len(calls) == 1


def test_each_epoch_draws_two_other_graphs():
    data = worlds.build("habit")
    model, index = sgl(data, drop_ratio=0.25)
    config = SGLConfig(embedding_size=8, drop_ratio=0.25)
    (contrast,) = (task for name, _, task in Objective(config, config.stages()[-1]).tasks if name == "graph-contrast")
    rng, offsets = np.random.default_rng(0), []
    for _ in range(2):
        contrast.begin_epoch(model, index, rng)
        for graph in contrast.graphs:
            assert len(graph.items_of_users.columns) == int(0.75 * model.num_edges)
            offsets.append(graph.items_of_users.offsets)
    assert not any(torch.equal(offsets[i], offsets[j]) for i in range(4) for j in range(i))


def test_the_whole_graph_has_only_training_interactions():
    data = worlds.build("cycle")
    model, index = sgl(data)
    assert model.num_edges == len(index.log.items) == int(leave_one_out(data).trained(data).sum())


@pytest.mark.parametrize("model", ["sgl", "caser"])
def test_a_split_by_users_refuses_models_that_know_users(tmp_path, bench, model):
    suite = tmp_path / "suite.toml"
    suite.write_text(
        f'title = "T"\nseeds = [1]\n[datasets.world]\nsource = "synthetic"\nusers = 60\nitems = 20\n[models.{model}]\n'
        '[protocol]\nsplit = "user-holdout"\n',
        encoding="utf-8",
    )
    result = bench("run", str(suite), "--dry-run")
    assert result.returncode == 2
    assert f"'{model}' learns a vector for each user" in result.stderr
    assert "set split = 'leave-one-out', or 'temporal', which lacks only users who join late" in " ".join(
        result.stderr.split()
    )
