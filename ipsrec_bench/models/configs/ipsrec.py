"""The settings of the paper's models, and of their contrastive loss."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ipsrec_bench.models.configs.base import DROPOUTS, HEAVIEST, TransformerConfig, filled_in
from ipsrec_bench.models.stages import TaskUse
from ipsrec_bench.settings import LogRange


class ContrastiveConfig(TransformerConfig):
    """Settings of the contrastive loss between the item view and the provider view (eq. 12 and 13).

    Searched: dropout, and weight and temperature of the contrastive loss, the paper's figures over lambda and tau.
    """

    search = {"hidden_dropout": DROPOUTS, "lambda": LogRange(1e-3, 1.0), "tau": LogRange(0.05, 5.0)}  # noqa: RUF012 (a class variable by its base)
    idle_without = {"tau": "lambda"}  # noqa: RUF012 (likewise)

    lambda_: float = Field(0.1, ge=0, le=HEAVIEST, alias="lambda")
    """Weight of the contrastive loss; 0 is the paper's variant "w/o CL"."""
    tau: float = Field(1.0, ge=1e-4, le=HEAVIEST)
    """Temperature of the contrastive loss."""
    contrast: Literal["item-to-provider", "symmetric", "nt-xent"] = "item-to-provider"
    """Form of the contrastive loss. `item-to-provider`: eq. 12, from the item view. `symmetric`: the mean of both
    directions. `nt-xent`: both directions with negatives from both views, as released."""
    similarity: Literal["dot", "cosine"] = "dot"
    """Similarity of two views: dot product or cosine."""
    same_user_negatives: bool = False
    """Whether other samples of the same user are negatives, too. They are in the released code, whose samples are
    prefixes and whose loss ignores users. Eq. 12 uses only other users."""

    @property
    def packs(self) -> bool:
        """Not with `same_user_negatives`: in a packed window, samples of one user are never each other's negatives."""
        return not self.same_user_negatives

    def own_tasks(self) -> tuple[TaskUse, ...]:
        """Return the next item, and the contrastive loss unless lambda is 0 (eq. 13)."""
        if not self.lambda_:
            return super().own_tasks()
        settings = {key: getattr(self, key) for key in ("tau", "contrast", "similarity", "same_user_negatives")}
        return (*super().own_tasks(), TaskUse("provider-contrast", self.lambda_, settings))


class IPSRecConfig(ContrastiveConfig):
    """Settings of both IPSRec models. `preset = "released"` selects what the released code does differently."""

    released: ClassVar[Mapping[str, object]] = {
        "contrast": "nt-xent",
        "same_user_negatives": True,
        "padding_class": True,
    }

    preset: Literal["paper", "released"] = Field("paper", exclude=True)
    """Source of the defaults: the paper or the released code. The preset itself does not enter a cell's key; the
    resulting settings do."""
    tie_weights: bool = True
    """Whether the projection W_1 of eq. 5 is the item embedding table; `false` learns a separate table."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, value: Any) -> Any:  # noqa: ANN401 (any value)
        return filled_in(value, {"released": cls.released})


class IPSRecSConfig(IPSRecConfig):
    """Settings of `ipsrec_bench.models.ipsrec_s`."""

    released = {**IPSRecConfig.released, "attention": "concat-causal"}  # noqa: RUF012 (a class variable by its base)

    attention: Literal["block-causal", "concat-causal", "full"] = "block-causal"
    """Attention mask over [items; providers]. `block-causal`: position t of either half sees positions <= t of both.
    `concat-causal`, as released: one lower triangle, so items see only items and providers see all items. `full`: all
    positions. In the last two a position sees later ones, so they are trained on prefixes."""

    @property
    def packs(self) -> bool:
        """Only the block-causal mask hides the future from both views."""
        return super().packs and self.attention == "block-causal"


class IPSRecCConfig(IPSRecConfig):
    """Settings of `ipsrec_bench.models.ipsrec_c`."""

    released = {**IPSRecConfig.released, "encoder": "co-only"}  # noqa: RUF012 (a class variable by its base)

    encoder: Literal["self-then-co", "co-only"] = "self-then-co"
    """Architecture. `self-then-co`: a Transformer of `n_layers` per side, then one co-attention block (eq. 9 to 11).
    `co-only`, as released: `n_layers` co-attention blocks without self-attention."""
