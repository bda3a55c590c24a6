"""RecBole 1.2.1: SGL. Its files have no histories; a batch consists of users, their items, and negatives."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import GraphEncoder, SequentialModel, TrainingLog
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.models.graphs import BipartiteGraph
from ipsrec_bench.testing.references.api import Outputs, Reference, ReferenceFile
from ipsrec_bench.training.objective import Losses, Objective
from ipsrec_bench.training.samples import Batch
from ipsrec_bench.training.tasks.api import TrainingStep
from ipsrec_bench.training.tasks.graph_contrast import GraphContrast


def _settings(file: ReferenceFile) -> Mapping[str, object]:
    shares = {"tau": "ssl_tau", "ssl_weight": "ssl_weight", "drop_ratio": "drop_ratio", "reg_weight": "reg_weight"}
    return {"preset": "recbole", **{ours: float(file.about[theirs]) for ours, theirs in shares.items()}}


def _outputs(model: SequentialModel, config: NeuralConfig, file: ReferenceFile) -> Outputs:
    assert isinstance(model, GraphEncoder)
    batch, views = _prepared(model, file)
    user = model.encode(batch.histories, every_position=False).user
    yield "user_vectors", user
    yield "scores", user @ model.item_vectors().T
    for suffix, graph in zip(("", "_1", "_2"), (model.graph(), *views), strict=True):
        yield from zip((f"user_table{suffix}", f"item_table{suffix}"), model.propagate(graph), strict=True)
    yield "total_loss_as_released", _losses(model, config, file, batch, views).total
    every_task = config.model_copy(update={"ssl_weight": 1.0, "reg_weight": 1.0})  # a task without weight is left out
    parts = _losses(model, every_task, file, batch, views).parts
    yield "bpr_sum", parts["bpr"]
    yield "penalty_unweighted", parts["row-penalty"]
    yield "ssl_sum_with_padding_rows", parts["graph-contrast"]
    # The reference counts a padding user, number 0, whom our users, from 0, do not have.
    inputs = {f"in/{name}": file.given(name) - 1 for name in ("user", "edge_user")}
    table = {"weight/user_embedding.weight": file.weights["user_embedding.weight"][1:]}
    about = {**file.about, "users": str(file.size("users") - 1)}
    real = replace(file, about=about, tensors={**file.tensors, **inputs, **table})
    model, _ = SGL.load(real)
    batch, views = _prepared(model, real)
    without_padding = every_task.model_copy(update={"padding_class": False})
    yield "ssl_sum", _losses(model, without_padding, real, batch, views).parts["graph-contrast"]


def _prepared(model: SequentialModel, file: ReferenceFile) -> tuple[Batch, tuple[BipartiteGraph, BipartiteGraph]]:
    """Give the model its graph; return the batch, and the graphs of the two views."""
    assert isinstance(model, GraphEncoder)
    users, items = file.given("edge_user"), file.given("edge_item")
    nothing = np.zeros(len(users), dtype=np.int32)
    model.prepare(TrainingLog(users.numpy(), items.int().numpy(), nothing, nothing.astype(np.int64)))
    kept = (torch.zeros(len(users), dtype=torch.bool), torch.zeros(len(users), dtype=torch.bool))
    for view, edges in zip(("1", "2"), kept, strict=True):
        edges[file.given(f"kept_edges_{view}")] = True
    target = file.given("target")
    ones, none = torch.ones_like(target), torch.empty(0, dtype=torch.int64)
    histories = Histories(file.given("user"), target[:, None], torch.zeros_like(target)[:, None], ones)
    return Batch(histories, none, none, none), (model.graph(kept[0]), model.graph(kept[1]))


def _losses(
    model: SequentialModel,
    config: NeuralConfig,
    file: ReferenceFile,
    batch: Batch,
    views: tuple[BipartiteGraph, BipartiteGraph],
) -> Losses:
    objective = Objective(config, config.stages()[-1])
    for _, _, task in objective.tasks:
        if isinstance(task, GraphContrast):
            task.graphs = views
    step = TrainingStep(model, batch, packed=False, first=objective.first)
    step.negatives = file.given("negative")
    return objective.losses(step)


def _without_edges(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the buffers of the graph, which are empty until it is prepared."""
    return {**weights, **{name: torch.zeros(0, dtype=torch.int32) for name in ("edge_users", "edge_items")}}


SGL = Reference(
    model="sgl",
    released_as="SGL",
    sizes={"embedding_size": "d", "n_layers": "layers"},
    settings=_settings,
    convert=_without_edges,
    outputs=_outputs,
    common=False,
)
REFERENCES = (SGL,)
