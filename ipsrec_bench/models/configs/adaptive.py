"""The settings of models whose depth depends on the user."""

from typing import Literal

from pydantic import Field

from ipsrec_bench.models.configs.base import DEEPEST, DROPOUTS, HEAVIEST, TransformerConfig
from ipsrec_bench.settings import LogRange


class SkipRecConfig(TransformerConfig):
    """Settings of `ipsrec_bench.models.skiprec`.

    The temperature is the paper's. Its Transformer has 32 layers of width 256; here it has the width of the other
    Transformers, and four times their depth.

    Searched: dropout, depth up to twice the default, and the temperature around the paper's.
    """

    search = {"hidden_dropout": DROPOUTS, "n_layers": (2, 4, 8, 16), "temperature": LogRange(1.0, 100.0)}  # noqa: RUF012 (a class variable by its base)

    n_layers: int = Field(8, ge=1, le=DEEPEST)
    gates: Literal["position", "user"] = "position"
    """Who chooses the layers. `position`: every position, from the items up to it. `user`, as in the paper: the newest
    position for all of them; it sees what follows the others, so the model is trained on prefixes."""
    temperature: float = Field(10.0, ge=1e-4, le=HEAVIEST)
    """Temperature of the relaxed gates, whose gradient replaces that of the hard ones."""

    @property
    def packs(self) -> bool:
        """Only with gates that do not depend on what follows."""
        return self.gates == "position"
