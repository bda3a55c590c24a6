"""The code of DuoRec's authors, a fork of RecBole: CL4SRec and DuoRec."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.models.configs import CL4SRecConfig, DuoRecConfig, NeuralConfig
from ipsrec_bench.testing.references.api import ENCODER_NAMES, TRANSFORMER_SIZES, Outputs, Reference, ReferenceFile
from ipsrec_bench.training import augmentation
from ipsrec_bench.training.contrast import alignment, pair_loss, uniformity
from ipsrec_bench.training.objective import batch_losses
from ipsrec_bench.training.tasks.augmented_contrast import AugmentedContrast
from ipsrec_bench.training.tasks.configs import PairContrastConfig
from ipsrec_bench.training.tasks.registry import build_task
from ipsrec_bench.training.tasks.same_target_contrast import SameTargetContrast

PAIR_LOSS = re.compile(r"(?:(unsupervised|semantic|given)_)?nt_xent(_cosine)?_tau(\d+(?:\.\d+)?)")
"""Name of an output that is the contrastive loss of a pair of views."""
WITHOUT_CONTRAST = {"preset": "released", "lambda": 0.0}
"""The settings with which the common outputs are computed: the contrastive loss needs views that the file gives."""


def _contrast(file: ReferenceFile) -> dict[str, object]:
    """Return the settings of the contrastive loss, by field."""
    similarity = "dot" if file.about["sim"] == "dot" else "cosine"
    return {"lambda_": float(file.about["lmd"]), "tau": float(file.about["tau"]), "similarity": similarity}


def _pair_losses(file: ReferenceFile, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> Outputs:
    """Yield the contrastive losses in the file, of `pairs` of views by the first word of their names."""
    for name in file.expected:
        if match := PAIR_LOSS.fullmatch(name):
            settings = {"similarity": "cosine" if match[2] else "dot", "tau": match[3], "same_user_negatives": True}
            first, second = pairs[match[1] or ""]
            yield name, pair_loss(first, second, file.given("user"), PairContrastConfig.model_validate(settings))


def _of_cl4srec(model: SequentialModel, config: NeuralConfig, file: ReferenceFile) -> Outputs:
    update = {**_contrast(file), **{name: float(file.about[name]) for name in ("eta", "gamma", "beta")}}
    config = config.model_copy(update=update)
    assert isinstance(config, CL4SRecConfig)
    first, second = (_user(model, _view(file, config, number)) for number in (1, 2))
    yield "view_1", first
    yield "view_2", second
    yield from _pair_losses(file, {"": (first, second)})
    yield "alignment", alignment(first, second)
    yield "uniformity", uniformity(_user(model, file.histories()))
    total = _next_item_loss(model, config, file)
    for use in config.own_tasks()[1:]:
        task = build_task(use)
        assert isinstance(task, AugmentedContrast)
        total = total + use.weight * task.contrast(first, second, file.given("user"))
    yield "total_loss_as_released", total


def _view(file: ReferenceFile, config: CL4SRecConfig, number: int) -> Histories:
    """Return the histories of a view, made by our operators with the draws that the file gives.

    The file does not name the operator of each history, so it is the one whose result in the file is the view.
    """
    view = file.histories(f"view_{number}_items", f"view_{number}_length")
    histories = file.histories()
    lengths, longest = histories.lengths, file.size("max_length")
    shuffled = augmentation.share_of(lengths, config.beta, longest)
    order = augmentation.order_within(file.given("reorder_begin"), shuffled, file.given("reorder_order").clamp(min=0))
    kept = augmentation.share_of(lengths, config.eta, longest).clamp(min=1)
    changed = {
        "crop": augmentation.crop(histories, file.given("crop_begin"), kept),
        "mask": augmentation.mask(histories, file.given("mask_positions").bool(), file.size("items") + 1),
        "reorder": augmentation.reorder(histories, order),
    }
    results = torch.stack([file.given(f"{name}_items") for name in changed])
    is_view = (results == view.items).all(dim=2)
    none = ~is_view.any(dim=0, keepdim=True)
    chosen = torch.cat([is_view, none]).int().argmax(dim=0)
    return augmentation.selected([*changed.values(), view], chosen)


def _of_duorec(model: SequentialModel, config: NeuralConfig, file: ReferenceFile) -> Outputs:
    user = _user(model, file.histories())
    semantic = _user(model, file.histories("semantic_items", "semantic_length"))
    yield "semantic_view", semantic
    # Dropout is off, so a second pass gives the same views.
    pairs = {"unsupervised": (user, user), "semantic": (user, semantic)}
    pairs["given"] = file.given("given_view_1"), file.given("given_view_2")
    yield from _pair_losses(file, pairs)
    next_item = _next_item_loss(model, config, file)
    for contrast in ("un", "su", "us", "us_x"):
        update = {**_contrast(file), "lambda_sem": float(file.about["lmd_sem"]), "contrast": contrast}
        trained = config.model_copy(update=update)
        assert isinstance(trained, DuoRecConfig)
        total = next_item
        for use in trained.own_tasks()[1:]:
            task = build_task(use)
            assert isinstance(task, SameTargetContrast)
            total = total + use.weight * task.contrast(user, user, semantic, file.given("user"))
        yield f"total_loss_{contrast}_as_released", total


def _user(model: SequentialModel, histories: Histories) -> Tensor:
    return model.encode(histories, every_position=False).user


def _next_item_loss(model: SequentialModel, config: NeuralConfig, file: ReferenceFile) -> Tensor:
    without = config.model_copy(update={"lambda_": 0.0, "lambda_sem": 0.0})
    return batch_losses(model, without, file.batch(), packed=False).parts["next-item"]


def _with_mask_vector(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split off the last row of the reference's item table, which is the mask token's."""
    table = weights.pop("item_embedding.weight")
    return {**weights, "item_embedding.weight": table[:-1], "mask_embedding": table[-1]}


REFERENCES = (
    Reference(
        model="cl4srec",
        released_as="CL4SRec",
        names=ENCODER_NAMES,
        sizes=TRANSFORMER_SIZES,
        settings=WITHOUT_CONTRAST,
        convert=_with_mask_vector,
        outputs=_of_cl4srec,
    ),
    Reference(
        model="duorec",
        released_as="DuoRec",
        names=ENCODER_NAMES,
        sizes=TRANSFORMER_SIZES,
        settings={**WITHOUT_CONTRAST, "lambda_sem": 0.0},
        outputs=_of_duorec,
    ),
)
