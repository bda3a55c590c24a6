"""The settings of models that learn by restoring hidden items."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ipsrec_bench.models.configs.base import DEPTHS, DROPOUTS, HEAVIEST, Rate, TransformerConfig, filled_in
from ipsrec_bench.models.stages import Stage, TaskUse
from ipsrec_bench.settings import LogRange


class BERT4RecConfig(TransformerConfig):
    """Settings of `ipsrec_bench.models.bert4rec`.

    The defaults are those of the authors' code (FeiSun/BERT4Rec, `run_*.sh` and `gen_data_fin.py`);
    `preset = "recbole"` selects those of RecBole 1.2.1 (`properties/model/BERT4Rec.yaml`, `data/transform.py`).

    Searched: dropout, depth, and the share of hidden items, the authors' setting that depends on the data.
    """

    search = {"hidden_dropout": DROPOUTS, "n_layers": DEPTHS, "mask_ratio": LogRange(0.1, 0.8)}  # noqa: RUF012 (a class variable by its base)

    recbole: ClassVar[Mapping[str, object]] = {
        "samples": "prefixes",
        "copies": 1,
        "stride": 1.0,
        "masks": "each",
        "last_share": 0.5,
        "last_for": "batch",
        "counted": "recbole",
        "prediction": "shifted",
        "padding_class": True,
    }

    preset: Literal["authors", "recbole"] = Field("authors", exclude=True)
    """Source of the defaults: the authors' code, or RecBole's. The preset itself does not enter a cell's key; the
    resulting settings do."""
    hidden_dropout: Rate = 0.2
    attention_dropout: Rate = 0.2
    mask_ratio: float = Field(0.2, gt=0, le=1)
    """Share of a history's items that are hidden. The authors take 0.2 for MovieLens, 0.4 for Steam and 0.6 for Amazon
    Beauty: the shorter the histories, the more."""
    samples: Literal["histories", "prefixes"] = "histories"
    """What items are hidden in. `histories`: the whole training part of each history, so that its last item is learnt,
    too. `prefixes`, as RecBole: the history before each training target, which itself is never learnt."""
    copies: int = Field(11, ge=1, le=1000)
    """How often an epoch goes through the samples, hiding other items each time."""
    stride: float = Field(0.1, gt=0, le=1)
    """Distance between the windows of a history that is longer than the maximum length, as a share of that length;
    with `samples = "histories"`."""
    masks: Literal["share", "each"] = "share"
    """How many items are hidden. `share`: `mask_ratio` of a history's items, rounded, and at least one. `each`: every
    item with probability `mask_ratio`."""
    last_share: float = Field(1 / 11, ge=0, le=1)
    """Probability that the last item is the only hidden one, as it is when the model predicts. By default one copy of a
    history in eleven, as the authors add one such copy to ten others."""
    last_for: Literal["history", "batch"] = "history"
    """Whether that is drawn for every history, or for a whole batch."""
    counted: Literal["all", "recbole"] = "all"
    """Hidden items that enter the loss. `recbole`: the last int(`mask_ratio` * maximum length) of a history, and never
    its first item."""
    loss: Literal["catalogue", "bpr"] = "catalogue"
    """Loss of a hidden item: that of the training settings over the catalogue, or BPR with one negative that is not in
    the history (RecBole's `loss_type = "BPR"`)."""
    prediction: Literal["appended", "shifted"] = "appended"
    """Where the mask token is put to predict the next item. `appended`: behind the history, which loses its oldest item
    only if it has the maximum length. `shifted`, as RecBole: a history always loses its oldest item."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, value: Any) -> Any:  # noqa: ANN401 (any value)
        return filled_in(value, {"recbole": cls.recbole})

    def own_tasks(self) -> tuple[TaskUse, ...]:
        """Return the cloze task."""
        names = ("mask_ratio", "masks", "last_share", "last_for", "counted", "loss")
        return (TaskUse("cloze", 1.0, {name: getattr(self, name) for name in names}),)

    def stages(self) -> tuple[Stage, ...]:
        """Return the main stage, on histories or on prefixes."""
        if self.samples == "prefixes":
            return (Stage(self.main_tasks(), copies=self.copies),)
        return (Stage(self.main_tasks(), samples="histories", copies=self.copies, stride=self.stride),)


class S3RecConfig(TransformerConfig):
    """Settings of `ipsrec_bench.models.s3rec`.

    The defaults are those of the authors' code (RUCAIBox/CIKM2020-S3Rec), which RecBole shares. Only the number of
    epochs of pretraining differs: the authors have 300 and RecBole 500, both on every prefix of a history. RecBole's
    maintainers advise 100.

    Searched: dropout, depth, and the share of items that pretraining hides.
    """

    search = {"hidden_dropout": DROPOUTS, "n_layers": DEPTHS, "mask_ratio": LogRange(0.1, 0.8)}  # noqa: RUF012 (a class variable by its base)
    idle_without = {"mask_ratio": "pretrain_epochs"}  # noqa: RUF012 (likewise)

    pretrain_epochs: int = Field(100, ge=0, le=1_000_000)
    """Epochs of pretraining; 0 is SASRec."""
    pretrain_padding: Literal["right", "left"] = "right"
    """Side on which histories are padded in pretraining. With `left`, as RecBole, the last item has the last position,
    whereas the main stage counts positions from the first item: the position embeddings change their meaning."""
    mask_ratio: float = Field(0.2, gt=0, le=1)
    """Probability that an item is hidden in pretraining."""
    attribute_prediction_weight: float = Field(0.2, ge=0, le=HEAVIEST)
    """Weight of the prediction of visible items' providers (AAP); 0 disables it."""
    masked_item_weight: float = Field(1.0, ge=0, le=HEAVIEST)
    """Weight of the prediction of hidden items (MIP); 0 disables it."""
    masked_attribute_weight: float = Field(1.0, ge=0, le=HEAVIEST)
    """Weight of the prediction of hidden items' providers (MAP); 0 disables it."""
    segment_weight: float = Field(0.5, ge=0, le=HEAVIEST)
    """Weight of the prediction of hidden segments (SP); 0 disables it."""

    def stages(self) -> tuple[Stage, ...]:
        """Return pretraining with the tasks whose weight is not 0, and the main stage."""
        masked = {"mask_ratio": self.mask_ratio}
        uses = (
            TaskUse("attribute-prediction", self.attribute_prediction_weight, masked),
            TaskUse("masked-item", self.masked_item_weight, masked),
            TaskUse("masked-attribute", self.masked_attribute_weight, masked),
            TaskUse("segment", self.segment_weight),
        )
        tasks = tuple(use for use in uses if use.weight)
        if not tasks or not self.pretrain_epochs:
            return super().stages()
        return (Stage(tasks, "pretrain", "histories", self.pretrain_epochs), *super().stages())
