"""Where a model's settings are searched."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import optuna
from pydantic import ValidationError

from ipsrec_bench import settings
from ipsrec_bench.errors import ModelError, did_you_mean, listed
from ipsrec_bench.settings import LogRange, Settings
from ipsrec_bench.suite.cells import Cell
from ipsrec_bench.suite.load import SuiteFile
from ipsrec_bench.suite.schema import Range

Choices = tuple[float | bool | str, ...]


@dataclass(frozen=True)
class Space:
    """Settings by their names in a suite, and where each is searched."""

    where: Mapping[str, Range | Choices]
    whole: frozenset[str]
    """Settings that are whole numbers."""

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Ask `trial` for a value of every setting."""
        chosen: dict[str, Any] = {}
        for name, where in self.where.items():
            if not isinstance(where, Range):
                chosen[name] = trial.suggest_categorical(name, where)
            elif name in self.whole:
                chosen[name] = trial.suggest_int(name, int(where.low), int(where.high), log=where.log)
            else:
                chosen[name] = trial.suggest_float(name, where.low, where.high, log=where.log)
        return chosen

    def grid(self, points: int) -> dict[str, list[Any]]:
        """Return the values of a grid: all choices, and `points` values of a range, ends included."""
        values: dict[str, list[Any]] = {}
        for name, where in self.where.items():
            if not isinstance(where, Range):
                values[name] = list(where)
                continue
            shares = [i / (points - 1) for i in range(1, points - 1)]
            inner = [
                where.low * (where.high / where.low) ** share
                if where.log
                else where.low + share * (where.high - where.low)
                for share in shares
            ]
            found = [where.low, *inner, where.high]
            values[name] = list(dict.fromkeys(map(round, found))) if name in self.whole else found
        return values

    def points(self, points: int, seed: int) -> list[dict[str, Any]]:
        """Return every combination of a grid's values, in an order that follows from `seed`."""
        axes = self.grid(points)
        found = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
        return [found[i] for i in np.random.default_rng(seed).permutation(len(found))]

    def contains(self, chosen: Mapping[str, Any]) -> bool:
        """Return whether these settings lie in the space."""
        return all(
            where.low <= chosen[name] <= where.high if isinstance(where, Range) else chosen[name] in where
            for name, where in self.where.items()
        )


def search_space(file: SuiteFile, cell: Cell) -> Space:
    """Return what is searched of `cell`'s model: what the suite's `[tune.space]` says, or the model's own ranges.

    Raises:
        SuiteError: the suite names a model or a setting that is not there, or a value that the model refuses.
        ModelError: there is nothing to search.
    """
    for model in file.suite.tune.space:
        if model not in file.suite.models:
            raise file.error(
                ("tune", "space", model),
                f"the suite has no model '{model}'{did_you_mean(model, file.suite.models)}; it has"
                f" {listed(file.suite.models)}",
            )
    own = {name: Range(low=span.low, high=span.high, log=True) for name, span in _ranges(type(cell.config)).items()}
    where: Mapping[str, Range | Choices] = file.suite.tune.space.get(cell.model, own)
    if not where:
        raise ModelError(
            f"the model '{cell.model}' has no setting with a search range, so there is nothing to tune; give it one in"
            f" [tune.space.{cell.model}]"
        )
    current = cell.config.model_dump(by_alias=True)
    for name in where:
        if name not in current:
            raise file.error(
                ("tune", "space", cell.model, name),
                f"the model has no setting '{name}'{did_you_mean(name, current)}; it has {listed(current)}",
            )
    whole = frozenset(name for name in where if isinstance(current[name], int) and not isinstance(current[name], bool))
    for name, searched in where.items():
        for value in (searched.low, searched.high) if isinstance(searched, Range) else searched:
            try:
                with_settings(cell, {name: int(value) if name in whole and isinstance(searched, Range) else value})
            except ValidationError as error:
                _, message = next(settings.explain(error))
                raise file.error(("tune", "space", cell.model, name), message) from None
    return Space(where, whole)


def with_settings(cell: Cell, chosen: Mapping[str, Any]) -> Settings:
    """Return the cell's settings with those chosen in the place of its own."""
    return type(cell.config).model_validate({**cell.config.model_dump(by_alias=True), **chosen})


def _ranges(config: type[Settings]) -> dict[str, LogRange]:
    return {
        field.alias or name: metadata
        for name, field in config.model_fields.items()
        for metadata in field.metadata
        if isinstance(metadata, LogRange)
    }
