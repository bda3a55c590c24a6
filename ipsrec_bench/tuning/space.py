"""Search spaces of a model's settings.

Nothing here imports Optuna until a search runs, so that `validate` is fast.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from ipsrec_bench import settings
from ipsrec_bench.errors import ModelError, did_you_mean, listed
from ipsrec_bench.models.registry import model_entry
from ipsrec_bench.settings import LogRange, Settings
from ipsrec_bench.suite.cells import Cell, ConflictError, with_config
from ipsrec_bench.suite.load import SuiteFile
from ipsrec_bench.suite.schema import Choices, Range

if TYPE_CHECKING:
    from optuna import Trial

LARGEST_GRID = 100_000
"""Maximum number of points of a grid, because all are held in memory."""
LARGEST_WHOLE = 2**31 - 1
MIN_RANGES = 2


@dataclass(frozen=True)
class Space:
    """The searched settings by their names in a suite, with the range or the choices of each."""

    where: Mapping[str, Range | Choices]
    whole: frozenset[str]
    """Settings that are whole numbers."""
    own: Mapping[str, Any]
    """The suite's own values of these settings; they may lie outside the space."""

    def suggest(self, trial: "Trial") -> dict[str, Any]:
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

    def grid(self, points: int | None) -> dict[str, list[Any]]:
        """Return the values of a grid: all choices, and `points` values of a range, ends included.

        Without `points`, it has every whole number of a range.
        """
        values: dict[str, list[Any]] = {}
        for name, where in self.where.items():
            if not isinstance(where, Range):
                values[name] = list(where)
            elif points is None:
                values[name] = list(range(int(where.low), int(where.high) + 1))
            else:
                between = np.geomspace if where.log else np.linspace
                # Twelve digits, so that 0.1 is exactly 0.1 and is not trained again beside the suite's own 0.1.
                found = [float(f"{value:.12g}") for value in between(where.low, where.high, points)[1:-1]]
                found = [where.low, *found, where.high]
                values[name] = list(dict.fromkeys(map(round, found))) if name in self.whole else found
        return values

    def size(self, points: int | None) -> float:
        """Return the number of points of a grid, see `grid`; infinite without `points` if a range holds reals."""
        sizes: list[float] = []
        for name, where in self.where.items():
            if not isinstance(where, Range):
                sizes.append(len(where))
            elif name in self.whole:
                every = where.high - where.low + 1
                sizes.append(every if points is None else min(points, every))
            else:
                sizes.append(math.inf if points is None else points)
        return math.prod(sizes)

    def points(self, points: int | None, seed: int) -> list[dict[str, Any]]:
        """Return every combination of a grid's values, in an order that is determined by `seed`.

        The suite's own settings come first, even if the grid does not have them.
        """
        axes = self.grid(points)
        found = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
        shuffled = (found[i] for i in np.random.default_rng(seed).permutation(len(found)))
        return [dict(self.own), *(point for point in shuffled if point != self.own)]

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return a random point of the space."""
        drawn: dict[str, Any] = {}
        for name, where in self.where.items():
            if not isinstance(where, Range):
                drawn[name] = where[int(rng.integers(len(where)))]
            elif name in self.whole:
                drawn[name] = int(rng.integers(int(where.low), int(where.high), endpoint=True))
            elif where.log:
                drawn[name] = float(np.clip(math.exp(rng.uniform(math.log(where.low), math.log(where.high))),
                                            where.low, where.high))  # fmt: skip
            else:
                drawn[name] = float(rng.uniform(where.low, where.high))
        return drawn

    def contains(self, chosen: Mapping[str, Any]) -> bool:
        """Return whether these settings lie in the space."""
        return all(
            where.low <= chosen[name] <= where.high if isinstance(where, Range) else chosen[name] in where
            for name, where in self.where.items()
        )


def check_spaces(file: SuiteFile, cells: Sequence[Cell]) -> None:
    """Check the suite's whole `[tune.space]`, including models that are not tuned now.

    Args:
        file: the suite.
        cells: all of its cells.

    Raises:
        SuiteError: the suite names a model or a setting that does not exist, or a value that the model refuses.
    """
    for model in file.suite.tune.space:
        if model not in file.suite.models:
            raise file.error(
                ("tune", "space", model),
                f"the suite has no model '{model}'{did_you_mean(model, file.suite.models)}; it has"
                f" {listed(file.suite.models)}",
            )
        search_space(file, next(cell for cell in cells if cell.model == model and not cell.variant))


def search_space(file: SuiteFile, cell: Cell) -> Space:
    """Return the search space of `cell`'s model: from the suite's `[tune.space]`, else the model's built-in ranges.

    Raises:
        SuiteError: the suite names a setting that does not exist, or a value that the model refuses, or a grid that is
            too large.
        ModelError: there is nothing to search.
    """
    place = ("tune", "space", cell.model)
    own = {name: Range(low=span.low, high=span.high, log=True) for name, span in _ranges(type(cell.config)).items()}
    where: Mapping[str, Range | Choices] = file.suite.tune.space.get(cell.model, own)
    if not where:
        sentence = (
            f"the model '{cell.model}' has no setting with a search range, so there is nothing to tune; give it one in"
            f" [tune.space.{cell.model}]"
        )
        raise file.error(place, sentence) if cell.model in file.suite.tune.space else ModelError(sentence)
    current = _current(cell.config)
    for name in where:
        if name not in current:
            raise file.error(
                (*place, name),
                f"the model has no setting '{name}'{did_you_mean(name, current)}; it has {listed(current)}",
            )
    whole = settings.whole_numbers(type(cell.config)) & where.keys()
    for name, searched in where.items():
        if isinstance(searched, Range):
            _check_range(file, (*place, name), searched, current[name], whole=name in whole)
        for value in (searched.low, searched.high) if isinstance(searched, Range) else searched:
            try:
                with_settings(cell, {name: int(value) if name in whole and isinstance(searched, Range) else value})
            except ModelError as error:
                raise file.error((*place, name), str(error)) from None
    ranges = sum(isinstance(searched, Range) for searched in where.values())
    if file.suite.tune.sampler == "cma-es" and ranges < MIN_RANGES:
        raise file.error(
            ("tune", "sampler"),
            f"'cma-es' needs at least {MIN_RANGES} ranges and draws all other settings at random; '{cell.model}' has"
            f" {ranges}, so take 'tpe', 'random' or 'grid'",
        )
    space = Space(where, whole, {name: current[name] for name in where})
    if file.suite.tune.sampler == "grid" and (size := space.size(file.suite.tune.grid_points)) > LARGEST_GRID:
        raise file.error(
            place,
            f"the grid has {size:,.0f} points, more than a search can try; allowed: up to {LARGEST_GRID:,}, so take"
            " fewer choices, fewer grid_points or another sampler",
        )
    return space


def _check_range(file: SuiteFile, place: settings.Path, searched: Range, current: object, *, whole: bool) -> None:
    if isinstance(current, bool | str | list | dict):
        raise file.error(place, f"a range is for numbers, and this setting is {settings.shown(current)}; give a list")
    for end, value in (("low", searched.low), ("high", searched.high)):
        if whole and value != int(value):
            raise file.error((*place, end), f"found {value:g}; this setting is a whole number")
    if whole and abs(max(searched.low, searched.high, key=abs)) > LARGEST_WHOLE:
        raise file.error(place, f"whole numbers are searched up to {LARGEST_WHOLE:,}")


def with_settings(cell: Cell, chosen: Mapping[str, Any]) -> Cell:
    """Return the cell with the chosen settings in place of its own, and the training that follows from them.

    Raises:
        ModelError: the model refuses a setting, or the combination.
    """
    wanted = {**cell.config.model_dump(by_alias=True), **chosen}
    try:
        return with_config(cell, type(cell.config).model_validate(wanted), model_entry(cell.type))
    except ValidationError as error:
        _, sentence = next(settings.explain(error, wanted))
        raise ModelError(sentence) from None
    except ConflictError as error:
        raise ModelError(f"training.{error.key}: {error}") from None


def _current(config: Settings) -> dict[str, Any]:
    """Return the settings as plain JSON values, with those that a dump leaves out at their default."""
    left_out = {
        field.alias or name: getattr(config, name)
        for name, field in type(config).model_fields.items()
        if field.exclude_if is not None and not isinstance(getattr(config, name), Mapping)
    }
    return {**left_out, **config.model_dump(mode="json", by_alias=True)}


def _ranges(config: type[Settings]) -> dict[str, LogRange]:
    return {
        field.alias or name: metadata
        for name, field in config.model_fields.items()
        for metadata in field.metadata
        if isinstance(metadata, LogRange)
    }
