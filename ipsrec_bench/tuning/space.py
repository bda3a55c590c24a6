"""Search spaces of the settings of a model and of its training.

A setting has the name that a model's table in a suite gives it: `tau`, `training.learning_rate`,
`tasks.provider-contrast.weight`.

Nothing here imports Optuna until a search runs, so that `validate` is fast.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import ValidationError

from ipsrec_bench import settings
from ipsrec_bench.errors import ModelError, did_you_mean, listed
from ipsrec_bench.models.configs import ModelConfig, NeuralConfig
from ipsrec_bench.models.registry import model_entry
from ipsrec_bench.settings import LogRange, Settings
from ipsrec_bench.suite.cells import Cell, ConflictError, Weight, with_config
from ipsrec_bench.suite.load import SuiteFile
from ipsrec_bench.suite.schema import Choices, Range, SearchTable, Training
from ipsrec_bench.training.tasks.registry import task_entry
from ipsrec_bench.tuning.results import parts_of

if TYPE_CHECKING:
    from optuna import Trial

S = TypeVar("S", bound=Settings)
LARGEST_GRID = 100_000
"""Maximum number of points of a grid, because all are held in memory."""
LARGEST_WHOLE = 2**31 - 1
MIN_RANGES = 2
SAME_FOR_ALL = frozenset({"precision", "refit", "stop_metric"})
"""Settings of `[training]` that are not searched: what trials are compared by, or what a trial does not depend on."""


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


def search_space(file: SuiteFile, cell: Cell, whole: Cell | None = None) -> Space:
    """Return the search space of `cell`: from the suite's `[tune.space]`, else the model's default space.

    Args:
        file: the suite.
        cell: of a model, or of a variant.
        whole: for a variant, a cell of its model. Settings that the variant fixes are not searched.

    Raises:
        SuiteError: the suite names a setting that does not exist, or a value that the model refuses, or a grid that is
            too large.
        ModelError: there is nothing to search.
    """
    place = ("tune", "space", cell.model)
    is_declared = cell.model in file.suite.tune.space
    where = _declared(file.suite.tune.space[cell.model]) if is_declared else default_space(cell)
    if whole is not None:
        where = _without_fixed(where, file, cell, whole)
    if not where:
        sentence = (
            f"'{cell.label}' has no setting with a search range, so there is nothing to tune; name one in"
            f" [tune.space.{cell.model}]"
        )
        raise file.error(place, sentence) if is_declared and whole is None else ModelError(sentence)
    if is_declared:
        for name, searched in where.items():
            _check_setting(file, cell, (*place, *parts_of(name)), name, searched)
    ranges = sum(isinstance(searched, Range) for searched in where.values())
    if file.suite.tune.sampler == "cma-es" and ranges < MIN_RANGES:
        raise file.error(
            ("tune", "sampler"),
            f"'cma-es' needs at least {MIN_RANGES} ranges and draws all other settings at random; '{cell.label}' has"
            f" {ranges}, so take 'tpe', 'random' or 'grid'",
        )
    current = _current(cell)
    space = Space(where, _whole_numbers(cell) & where.keys(), {name: current[name] for name in where})
    if file.suite.tune.sampler == "grid" and (size := space.size(file.suite.tune.grid_points)) > LARGEST_GRID:
        raise file.error(
            place,
            f"the grid has {size:,.0f} points, more than a search can try; allowed: up to {LARGEST_GRID:,}, so take"
            " fewer choices, fewer grid_points or another sampler",
        )
    return space


def default_space(cell: Cell) -> dict[str, Range | Choices]:
    """Return the settings that are searched for the model of `cell` unless a suite names others.

    Values that the model refuses with its other settings are left out, and so is a setting with fewer than two values.
    """
    config = type(cell.config)
    assert issubclass(config, ModelConfig)
    training = config.training_search if issubclass(config, NeuralConfig) else {}
    found: dict[str, Range | Choices] = {}
    for name, declared in {**config.search, **{f"training.{name}": one for name, one in training.items()}}.items():
        if isinstance(declared, tuple):
            allowed = tuple(value for value in declared if _refusal(cell, name, value) is None)
            if len(allowed) > 1:
                found[name] = allowed
        elif not any(_refusal(cell, name, value) for value in (declared.low, declared.high)):
            found[name] = Range(low=declared.low, high=declared.high, log=isinstance(declared, LogRange))
    return found


def _declared(table: SearchTable) -> dict[str, Range | Choices]:
    """Return the settings of a table of `[tune.space]` by their names."""
    return dict(_flat(table, ""))


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Range | Choices]]:
    for name, searched in table.items():
        if isinstance(searched, Mapping):
            yield from _flat(searched, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", searched


def _without_fixed(
    where: Mapping[str, Range | Choices], file: SuiteFile, cell: Cell, whole: Cell
) -> dict[str, Range | Choices]:
    """Return `where` without what the variant `cell` sets, by name or by a preset, and without idle settings."""
    written = file.suite.models[cell.model]["variants"][cell.variant]
    named = {".".join(path) for path in _paths(written)}
    own, theirs = _current(cell), _current(whole)
    fixed = {name for name in where if name in named or own.get(name) != theirs.get(name)}
    assert isinstance(cell.config, ModelConfig)
    idle = {name for name, other in cell.config.idle_without.items() if other in fixed and not own[other]}
    return {name: searched for name, searched in where.items() if name not in fixed | idle}


def _paths(table: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from ((key, *path) for path in _paths(value))
        else:
            yield (key,)


def _check_setting(file: SuiteFile, cell: Cell, place: settings.Path, name: str, searched: Range | Choices) -> None:
    """Raise SuiteError if a suite names a setting that `cell` does not have, or a value that it refuses."""
    current = _current(cell)
    if name.removeprefix("training.") in SAME_FOR_ALL and name.startswith("training."):
        raise file.error(place, "this setting is the same for all trials; remove it from the space")
    if name not in current:
        kin = [other for other in current if parts_of(other)[:-1] == parts_of(name)[:-1]]
        of = f"a table '{'.'.join(parts_of(name)[:-1])}' with a setting" if len(parts_of(name)) > 1 else "setting"
        sentence = f"the model has no {of} '{parts_of(name)[-1]}'".replace("no a table", "no table")
        ends = {parts_of(other)[-1]: other for other in kin}
        raise file.error(place, f"{sentence}{did_you_mean(parts_of(name)[-1], ends)}; it has {listed(kin or current)}")
    whole = name in _whole_numbers(cell)
    if isinstance(searched, Range):
        _check_range(file, place, searched, current[name], whole=whole)
    for value in (searched.low, searched.high) if isinstance(searched, Range) else searched:
        refusal = _refusal(cell, name, int(value) if whole and isinstance(searched, Range) else value)
        if refusal is not None:
            raise file.error(place, refusal)


def _refusal(cell: Cell, name: str, value: float | bool | str) -> str | None:
    """Return why `cell` does not take a value of a setting; None if it does."""
    try:
        with_settings(cell, {name: value})
    except ModelError as error:
        return str(error)
    return None


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

    Args:
        cell: the cell.
        chosen: value of each setting by its name, like `tau` or `training.learning_rate`.

    Raises:
        ModelError: the model, its training or a task refuses a setting, or the combination.
    """
    own = {name: value for name, value in chosen.items() if len(parts_of(name)) == 1}
    training = {parts_of(name)[1]: value for name, value in chosen.items() if parts_of(name)[0] == "training"}
    wanted = {**cell.config.model_dump(by_alias=True), **own}
    if tasks := _tasks(cell, chosen):
        wanted["tasks"] = tasks
    trained = _validated(Training, {**cell.training.model_dump(), **training}) if training else cell.training
    changed = replace(cell, training=trained, asked=training.get("samples", cell.asked))
    try:
        return with_config(changed, _validated(type(cell.config), wanted), model_entry(cell.type))
    except ConflictError as error:
        raise ModelError(f"training.{error.key}: {error}") from None


def _tasks(cell: Cell, chosen: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the further tasks of `cell` with the chosen settings; empty if none of them is chosen."""
    names = [name for name in chosen if parts_of(name)[0] == "tasks"]
    tables = {task: dict(table) for task, table in getattr(cell.config, "tasks", {}).items()} if names else {}
    for name in names:
        _, task, key = parts_of(name)
        if task not in tables or key not in tables[task]:
            raise ModelError(f"the model has no further task '{task}' with a setting '{key}'")
        tables[task][key] = chosen[name]
    for task in dict.fromkeys(parts_of(name)[1] for name in names):
        weight, *_ = _validated(Weight, {"weight": tables[task]["weight"]}).model_dump().values()
        rest = {key: value for key, value in tables[task].items() if key != "weight"}
        settled = _validated(task_entry(task).config, rest).model_dump(mode="json", by_alias=True)
        tables[task] = {"weight": weight, **settled}
    return tables


def _validated(schema: type[S], wanted: Mapping[str, Any]) -> S:
    try:
        return schema.model_validate(wanted)
    except ValidationError as error:
        _, sentence = next(settings.explain(error, wanted))
        raise ModelError(sentence) from None


def _current(cell: Cell) -> dict[str, Any]:
    """Return the settings of a cell by their names, as plain JSON values."""
    found = _values(cell.config)
    tasks = found.pop("tasks", {})
    for task, table in tasks.items():
        found |= {f"tasks.{task}.{key}": value for key, value in table.items()}
    if not cell.counts:
        training = {**_values(cell.training), "samples": cell.asked}
        found |= {f"training.{name}": value for name, value in training.items()}
    return found


def _values(of: Settings) -> dict[str, Any]:
    """Return settings as plain JSON values, with those that a dump leaves out at their default."""
    left_out = {
        field.alias or name: getattr(of, name)
        for name, field in type(of).model_fields.items()
        if field.exclude_if is not None and not isinstance(getattr(of, name), Mapping)
    }
    return {**left_out, **of.model_dump(mode="json", by_alias=True)}


def _whole_numbers(cell: Cell) -> frozenset[str]:
    """Return the names of the settings of `cell` that are whole numbers."""
    found = set(settings.whole_numbers(type(cell.config)))
    found |= {f"training.{name}" for name in settings.whole_numbers(Training)}
    for task in getattr(cell.config, "tasks", {}):
        found |= {f"tasks.{task}.{name}" for name in settings.whole_numbers(task_entry(task).config)}
    return frozenset(found)
