"""The settings of models of the user-item graph."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ipsrec_bench.models.configs.base import DROPOUTS, HEAVIEST, NeuralConfig, filled_in
from ipsrec_bench.models.stages import Stage, TaskUse
from ipsrec_bench.settings import LogRange


class SGLConfig(NeuralConfig):
    """Settings of `ipsrec_bench.models.sgl`.

    Defaults are those of the authors' code (wujcan/SGL-Torch, `conf/SGL.ini`), which lie in the ranges of the paper.
    `preset = "recbole"` selects what RecBole 1.2.1 does differently.

    Searched: the share of dropped edges, which is its dropout, and temperature and weight of the contrast, as in the
    paper.
    """

    search = {"drop_ratio": DROPOUTS, "tau": LogRange(0.05, 5.0), "ssl_weight": LogRange(5e-3, 1.0)}  # noqa: RUF012 (a class variable by its base)
    idle_without = {"tau": "ssl_weight", "drop_ratio": "ssl_weight"}  # noqa: RUF012 (likewise)

    recbole: ClassVar[Mapping[str, object]] = {
        "tau": 0.5,
        "ssl_weight": 0.05,
        "reg_weight": 1e-5,
        "penalty": "norms",
        "reduction": "sum",
        "padding_class": True,
    }

    preset: Literal["paper", "recbole"] = Field("paper", exclude=True)
    """Source of the defaults. The preset itself does not enter a cell's key; the resulting settings do."""
    n_layers: int = Field(3, ge=1, le=64)
    """Number of propagations over the graph."""
    drop_ratio: float = Field(0.1, ge=0, le=0.99)
    """Share of the edges that each of the two views drops."""
    tau: float = Field(0.2, ge=1e-4, le=HEAVIEST)
    """Temperature of the contrast between the two views."""
    ssl_weight: float = Field(0.1, ge=0, le=HEAVIEST)
    """Weight of that contrast; 0 is LightGCN."""
    reg_weight: float = Field(1e-4, ge=0, le=HEAVIEST)
    """Weight of the penalty on the batch's rows of the tables."""
    penalty: Literal["squares", "norms"] = "squares"
    """Form of that penalty. `squares`: half the squared norms of the three rows of each sample. `norms`, as in RecBole:
    the norms of the three matrices of the batch's rows, not squared, divided by the size of the batch."""
    reduction: Literal["mean", "sum"] = "mean"
    """Whether losses are means over the samples of a batch, or sums as released. With `squares` both have the same
    minimum, because all terms scale alike, and Adam takes nearly the same steps."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, value: Any) -> Any:  # noqa: ANN401 (any value)
        return filled_in(value, {"recbole": cls.recbole})

    def stages(self) -> tuple[Stage, ...]:
        """Return one stage, whose samples are single interactions."""
        return (Stage(self.main_tasks(), samples="interactions"),)

    def own_tasks(self) -> tuple[TaskUse, ...]:
        """Return the pairwise loss, and the contrast and the penalty unless their weight is 0."""
        alike = {"reduction": self.reduction}
        tasks = [TaskUse("bpr", settings=alike)]
        if self.ssl_weight:
            contrast = {**alike, "tau": self.tau, "drop_ratio": self.drop_ratio}
            tasks.append(TaskUse("graph-contrast", self.ssl_weight, contrast))
        if self.reg_weight:
            tasks.append(TaskUse("row-penalty", self.reg_weight, {**alike, "form": self.penalty}))
        return tuple(tasks)
