"""The settings of baselines that contrast views of one history, blind to providers."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ipsrec_bench.models.configs.base import DROPOUTS, HEAVIEST, TransformerConfig, filled_in
from ipsrec_bench.models.stages import TaskUse
from ipsrec_bench.settings import LogRange


class HistoryContrastConfig(TransformerConfig):
    """Settings of a Transformer that is trained with a contrastive loss between views of a history.

    `preset = "released"` selects what the code of DuoRec's authors does differently, which has both models.

    Searched: dropout, and weight and temperature of the contrastive loss, in the ranges of the IPSRec models.
    """

    search = {"hidden_dropout": DROPOUTS, "lambda": LogRange(1e-3, 1.0), "tau": LogRange(0.05, 5.0)}  # noqa: RUF012 (a class variable by its base)
    idle_without: ClassVar[Mapping[str, str]] = {"tau": "lambda"}

    released: ClassVar[Mapping[str, object]] = {"same_user_negatives": True, "padding_class": True}

    preset: Literal["paper", "released"] = Field("paper", exclude=True)
    """Source of the defaults: the paper or the released code. The preset itself does not enter a cell's key; the
    resulting settings do."""
    lambda_: float = Field(0.1, ge=0, le=HEAVIEST, alias="lambda")
    """Weight of the contrastive loss; 0 disables it."""
    tau: float = Field(1.0, ge=1e-4, le=HEAVIEST)
    """Temperature of the contrastive loss."""
    similarity: Literal["dot", "cosine"] = "dot"
    """Similarity of two views: dot product or cosine."""
    same_user_negatives: bool = False
    """Whether views of other prefixes of the same user are negatives, too. They are in the released code, whose samples
    are prefixes. In the papers, a batch has one history of each user."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, value: Any) -> Any:  # noqa: ANN401 (any value)
        return filled_in(value, {"released": cls.released})

    @property
    def packs(self) -> bool:
        """Not with `same_user_negatives`, which means prefixes: a packed window has one pair for all its targets."""
        return not self.same_user_negatives

    @property
    def pairs(self) -> dict[str, Any]:
        """The settings of the contrastive task that both models have."""
        return {key: getattr(self, key) for key in ("tau", "similarity", "same_user_negatives")}


class CL4SRecConfig(HistoryContrastConfig):
    """Settings of `ipsrec_bench.models.cl4srec`; defaults are those of the code of DuoRec's authors."""

    eta: float = Field(0.6, gt=0, le=1)
    """Share of a history that the operator `crop` keeps."""
    gamma: float = Field(0.3, ge=0, le=1)
    """Share of the items that the operator `mask` hides."""
    beta: float = Field(0.6, ge=0, le=1)
    """Share of a history whose order the operator `reorder` shuffles."""

    def own_tasks(self) -> tuple[TaskUse, ...]:
        """Return the next item, and the contrastive loss unless lambda is 0."""
        if not self.lambda_:
            return super().own_tasks()
        settings = {**self.pairs, "eta": self.eta, "gamma": self.gamma, "beta": self.beta}
        return (*super().own_tasks(), TaskUse("augmented-contrast", self.lambda_, settings))


class DuoRecConfig(HistoryContrastConfig):
    """Settings of `ipsrec_bench.models.duorec`; defaults are those of its authors' code, except for `contrast`.

    Searched: dropout and the weights of both losses, which the paper varies from 0.1 to 0.5.
    """

    search = {"hidden_dropout": DROPOUTS, "lambda": LogRange(1e-3, 1.0), "lambda_sem": LogRange(1e-3, 1.0)}  # noqa: RUF012 (a class variable by its base)
    idle_without: ClassVar[Mapping[str, str]] = {}

    released = {**HistoryContrastConfig.released, "contrast": "us_x"}  # noqa: RUF012 (a class variable by its base)

    lambda_: float = Field(0.1, ge=0, le=HEAVIEST, alias="lambda")
    """Weight of the unsupervised loss, between two dropout passes of a history; 0 disables it."""
    lambda_sem: float = Field(0.1, ge=0, le=HEAVIEST)
    """Weight of the supervised loss, between two histories with the same target; 0 disables it."""
    contrast: Literal["un", "su", "us", "us_x"] = "us"
    """Which views are contrasted. `un`: two dropout passes. `su`: two histories with the same target. `us`: the sum of
    both, as in the paper. `us_x`, as released: a second dropout pass and a history with the same target, weighted by
    `lambda_sem`; `lambda` is ignored."""

    def own_tasks(self) -> tuple[TaskUse, ...]:
        """Return the next item, and the contrastive losses whose weights are not 0."""
        contrast, weight, settings = self.contrast, self.lambda_sem, self.pairs
        if contrast == "us" and not (self.lambda_ and self.lambda_sem):
            contrast = "un" if self.lambda_ else "su"
        if contrast == "us":
            settings["semantic_weight"] = self.lambda_sem / self.lambda_
        if contrast in {"un", "us"}:
            weight = self.lambda_
        own = TaskUse("same-target-contrast", weight, {**settings, "contrast": contrast})
        return (*super().own_tasks(), *((own,) if weight else ()))
