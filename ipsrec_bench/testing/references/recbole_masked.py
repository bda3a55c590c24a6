"""RecBole 1.2.1: BERT4Rec and S3Rec, which learn from masked histories."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER
from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.models.bert4rec import BERT4Rec
from ipsrec_bench.models.configs import BERT4RecConfig, NeuralConfig, S3RecConfig
from ipsrec_bench.models.s3rec import S3Rec
from ipsrec_bench.testing.references.api import ENCODER_NAMES, TRANSFORMER_SIZES, Outputs, Reference, ReferenceFile
from ipsrec_bench.training.masking import Segments
from ipsrec_bench.training.objective import Objective
from ipsrec_bench.training.pretraining import masked
from ipsrec_bench.training.samples import Batch
from ipsrec_bench.training.tasks.api import TrainingStep
from ipsrec_bench.training.tasks.cloze import Cloze
from ipsrec_bench.training.tasks.configs import ClozeConfig
from ipsrec_bench.training.tasks.segment import segment_states

PRETRAINING = {"attribute_prediction": "aap", "masked_item": "mip", "masked_attribute": "map", "segment": "sp"}
"""Our names of the tasks of pretraining, and RecBole's."""


def _parted(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Divide the item table into the items and the mask token, its last row."""
    table = weights["item_embedding.weight"]
    return {**weights, "item_embedding.weight": table[:-1], "mask_embedding": table[-1]}


def _with_unknown_provider(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the rows of padding and of the unknown provider before the table of providers, which has neither."""
    table = weights["feature_embedding.weight"]
    filled = torch.cat([table.new_zeros(UNKNOWN_PROVIDER + 1, table.shape[1]), table])
    return {**_parted(weights), "feature_embedding.weight": filled}


def _ids(items: Tensor, providers: Tensor | None = None) -> Histories:
    """Return histories of these items, padded on the right."""
    lengths = (items > 0).sum(dim=1)
    providers = torch.zeros_like(items) if providers is None else providers
    return Histories(torch.zeros_like(lengths), items, providers, lengths)


def _batch_of(histories: Histories) -> Batch:
    nothing = torch.empty(0, dtype=torch.int64)
    return Batch(histories, nothing, nothing, nothing)


def _bert4rec_outputs(model: SequentialModel, config: NeuralConfig, file: ReferenceFile) -> Outputs:
    assert isinstance(model, BERT4Rec)
    assert isinstance(config, BERT4RecConfig)
    whole, d = file.histories(), config.embedding_size
    target, classes = file.given("target"), {"": 1, "_with_padding_class": 0}
    user = model.encode(whole, every_position=False).user
    yield "user_vectors", user[:, :d]
    for name, first in classes.items():
        yield f"cross_entropy{name}", TrainingStep(model, file.batch(), False, first).next_item_loss(user, target)
    appending = BERT4Rec(config.model_copy(update={"prediction": "appended"}), file.sizes).eval()
    appending.load_state_dict(model.state_dict())
    appended = appending.encode(whole, every_position=False).user
    yield "appended_user_vectors", appended[:, :d]
    yield "appended_scores", appended @ appending.item_vectors().T
    yield "cloze_hidden", model.encode_masked(_ids(file.given("cloze_items")))[..., :d]
    cloze = Cloze(ClozeConfig.model_validate(dict(config.own_tasks()[0].settings)))
    bpr = Cloze(cloze.settings.model_copy(update={"loss": "bpr"}))
    for kind in ("cloze", "last"):
        hidden = file.given(f"{kind}_items") == file.sizes.mask_token
        counted = cloze.counted(hidden, file.sizes.max_length)
        for name, first in classes.items():
            step = TrainingStep(model, _batch_of(whole), False, first)
            yield f"{kind}_cross_entropy{name}", cloze.loss_of(step, hidden, hidden)
        yield f"{kind}_loss_as_released", cloze.loss_of(step, hidden, counted)
        negatives = file.given(f"{kind}_negative")[file.given(f"{kind}_index") > 0]
        yield f"{kind}_bpr_loss_as_released", bpr.loss_of(step, hidden, counted, negatives)


def _shifted(padded: Tensor, by: Tensor) -> Tensor:
    """Rotate the columns of each row of `padded [B, L, ...]` to the left by the numbers `by [B]`."""
    length = padded.shape[1]
    columns = (torch.arange(length) + by[:, None]) % length
    return padded[torch.arange(len(padded))[:, None], columns]


def _pretraining_weights(file: ReferenceFile) -> dict[str, float]:
    return {f"{ours}_weight": float(file.about[f"{theirs}_weight"]) for ours, theirs in PRETRAINING.items()}


def _pretraining_settings(file: ReferenceFile) -> Mapping[str, object]:
    """Read the settings of pretraining."""
    ratio = float(file.about["mask_ratio"])
    return {"pretrain_padding": "left", "mask_ratio": ratio, **_pretraining_weights(file)}


def _s3rec_outputs(model: SequentialModel, config: NeuralConfig, file: ReferenceFile) -> Outputs:
    assert isinstance(model, S3Rec)
    assert isinstance(config, S3RecConfig)
    user = model.encode(file.histories(), every_position=False).user
    classes = torch.cat([model.item_vectors(), model.mask_embedding[None]])
    step = TrainingStep(model, file.batch(), False, 0)
    yield "finetune_loss_as_released", step.catalogue_loss(user, classes, file.given("target"), first=0)

    length = file.sizes.max_length
    lengths = (file.given("pretrain_items") > 0).sum(dim=1)

    def right(name: str) -> Tensor:
        return _shifted(file.given(name), length - lengths)

    features = right("pretrain_features")
    of_known = features.argmax(dim=2) + UNKNOWN_PROVIDER + 1
    real = torch.arange(length) < lengths[:, None]
    providers = torch.where(features.any(dim=2), of_known, UNKNOWN_PROVIDER) * real
    whole, hidden = _ids(right("pretrain_positive"), providers), right("pretrain_items") == file.sizes.mask_token
    context, positive, negative = (right(f"segment_{name}") for name in ("context", "positive", "negative"))
    segments = Segments(_ids(context), _ids(positive), _ids(negative))

    stage, ratio = config.stages()[0], config.mask_ratio
    step = TrainingStep(model, _batch_of(whole), False)
    # The file's draws take the place of ours.
    step.once(("hidden", ratio), lambda: hidden)
    negatives = right("pretrain_negative")[hidden]  # RecBole can draw the mask token
    step.once(("negative-items", ratio), lambda: classes[negatives])
    step.once("segments", lambda: segments)
    yield "pretrain_hidden", _shifted(masked(step, ratio).states, lengths)
    for name, states in zip(("context", "positive", "negative"), segment_states(step, segments), strict=True):
        yield f"segment_vector_{name}", states
    count = len(lengths)  # the reference's losses are sums
    yield "pretrain_loss", Objective(config, stage).losses(step).total * count
    every = config.model_copy(update=dict.fromkeys(_pretraining_weights(file), 1.0))  # also those of weight 0
    parts = Objective(every, every.stages()[0]).losses(step).parts
    for ours, theirs in PRETRAINING.items():
        yield f"{theirs}_loss", parts[ours.replace("_", "-")] * count


REFERENCES = (
    Reference(
        model="bert4rec",
        released_as="BERT4Rec",
        names={**ENCODER_NAMES, "output_ffn": "output", "output_ln": "output_norm", "output_bias": "item_bias"},
        sizes=TRANSFORMER_SIZES,
        settings=lambda file: {"preset": "recbole", "mask_ratio": float(file.about["mask_ratio"])},
        convert=_parted,
        outputs=_bert4rec_outputs,
    ),
    Reference(
        model="s3rec",
        released_as="S3Rec",
        names={
            **ENCODER_NAMES,
            "feature_embedding": "provider_embedding",
            "aap_norm": "projections.attribute-prediction",
            "mip_norm": "projections.masked-item",
            "map_norm": "projections.masked-attribute",
            "sp_norm": "projections.segment",
        },
        sizes=TRANSFORMER_SIZES,
        settings=_pretraining_settings,
        convert=_with_unknown_provider,
        more_providers=1,
        outputs=_s3rec_outputs,
    ),
)
