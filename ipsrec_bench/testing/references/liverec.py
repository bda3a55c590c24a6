"""The LiveRec authors' released code."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.models.liverec import LiveRec, logistic_loss
from ipsrec_bench.testing.references.api import Outputs, Reference, ReferenceFile, padded_left, padded_right


def _settings(file: ReferenceFile) -> Mapping[str, object]:
    return {"preset": "released", "time_unit": 1.0, "context_layers": file.size("context_layers")}


def _weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name layers before their parts, split projections, count positions from the newest, and drop biases of keys."""
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        ours = re.sub(r"^(att|att_ctx)\.(\w+?)s\.(\d+)", r"\1.\3.\2", name)
        if "in_proj" in name:
            kind = name.rpartition("_")[2]
            for part, third in zip(("query", "key", "value"), weight.chunk(3), strict=True):
                if (part, kind) != ("key", "bias"):
                    found[ours.replace(f"attention_layer.in_proj_{kind}", f"{part}.{kind}")] = third
        elif "conv" in name:
            found[ours] = weight[..., 0] if kind_of(name) == "weight" else weight
        else:
            found[ours] = weight.flip(0) if name == "pos_emb.weight" else weight
    return found


def kind_of(name: str) -> str:
    return name.rpartition(".")[2]


def _outputs(model: SequentialModel, _config: NeuralConfig, file: ReferenceFile) -> Outputs:
    """Yield the states, and buckets, scores and losses over the available candidates of every step."""
    assert isinstance(model, LiveRec)
    histories, lengths = file.histories(), file.given("length")
    real = torch.arange(histories.items.shape[1]) < lengths[:, None]
    if histories.times is None:
        histories = replace(histories, times=padded_right(file.given("times_left").double(), lengths))
    states = model.encode(histories, every_position=True).user
    yield "hidden", padded_left(states, lengths)
    asked_at = padded_right(file.given("target_times").double(), lengths)
    available = padded_right(file.given("available"), lengths)
    targets, negatives = (padded_right(file.given(name), lengths) for name in ("shifted_targets", "negatives"))
    readings: tuple[tuple[Literal["last", "first"], str], ...] = (("last", ""), ("first", "first_"))
    for since, prefix in readings:
        model.since = since
        buckets = model.repeat_buckets(histories, asked_at, available)
        yield f"{prefix}repeat_bucket", padded_left(buckets, lengths)
        scores = torch.zeros(available.shape)
        scores[real] = model.candidate_scores(states[real], available[real], buckets[real])
        yield f"{prefix}available_scores", histories.last(scores)
        logits = [
            (scores * (available == items[..., None])).sum(dim=2).masked_fill(~real, 0.0)
            for items in (targets, negatives)
        ]
        for name, found in zip(("positive", "negative"), logits, strict=True):
            yield f"{prefix}{name}_logits", padded_left(found, lengths)
        yield f"{prefix}loss_sum", logistic_loss(*(found[real] for found in logits))


REFERENCES = (
    Reference(
        model="liverec",
        released_as="LiveRec",
        names={
            "pos_emb": "position_embedding",
            "rep_emb": "repeat_embedding",
            "att.last_layernorm": "norm",
            "att_ctx.last_layernorm": "context_norm",
            "att": "layers",
            "att_ctx": "context_layers",
            "attention_layernorm": "attention_norm",
            "forward_layernorm": "inner_norm",
            "attention_layer.out_proj": "dense",
            "forward_layer.conv1": "inner",
            "forward_layer.conv2": "outer",
        },
        sizes={
            "embedding_size": "d",
            "n_layers": "layers",
            "n_heads": "heads",
            "context_heads": "context_heads",
            "top_k": "top_k",
        },
        settings=_settings,
        convert=_weights,
        outputs=_outputs,
    ),
)
