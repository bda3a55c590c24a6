"""Expansion of a suite into cells, and the content key of a cell."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from typing import Protocol as Interface

from pydantic import Field, ValidationError

from ipsrec_bench import settings
from ipsrec_bench.errors import BenchError, SuiteError, did_you_mean, listed
from ipsrec_bench.precision import Precision
from ipsrec_bench.settings import Settings
from ipsrec_bench.suite.conditions import Condition, ConditionName, conditions
from ipsrec_bench.suite.load import SuiteFile, checked
from ipsrec_bench.suite.schema import DatasetSpec, Protocol, Training, check_name

RANKS_FORMAT = 9
"""Version of the code that computes ranks; raised whenever the same settings give other ranks than before.

`tests/test_golden.py` fails when they do."""

OVER_CATALOGUE = frozenset({"augmented-next-item", "cloze", "next-item", "next-or-first-item"})
"""Tasks with a loss over the item catalogue, which is exact or approximated."""
TRAINED_UNDER = "trained_under"
"""Key, in a cell's settings, of the protocol under which the model that it ranks was trained; the cell itself has
another one."""
TUNED = "tuned"
"""The variant of a model that has the best settings of a search: a separate row, not part of an ablation."""
NOTHING_TO_TUNE = "nothing to tune"
"""What tables say beside a model without settings, such as one that counts."""
_FROM = re.compile(r"published|tuned, [1-9][0-9,]* trials?")
MAIN_STAGE = "main"
"""Name of the stage that every training by gradients ends with."""
REFIT = "refit"
"""Name of that stage where a model is trained again on training and validation interactions."""
REFIT_NOTE = "refit on training + validation"
"""The note in every table beside a model that was."""


def refit_name(stage: str) -> str:
    """Return the name of a stage of the second training with `training.refit`."""
    return REFIT if stage == MAIN_STAGE else f"{REFIT} {stage}"


class KnownModel(Interface):
    """Facts about a model that a suite looks up by its name."""

    @property
    def config(self) -> type[Settings]:
        """Its settings."""

    @property
    def code(self) -> str:
        """Hash of the code of a model that is not part of the toolkit; empty otherwise."""

    @property
    def counts(self) -> bool:
        """Whether it is fitted by counting, so that training settings do not apply to it."""

    @property
    def deterministic(self) -> bool:
        """Whether no seed changes its ranks."""

    @property
    def uses_users(self) -> bool:
        """Whether it knows users by id, so that it cannot rank for users without training interactions."""

    @property
    def uses_times(self) -> bool:
        """Whether it reads times, in seconds."""

    @property
    def uses_providers(self) -> bool:
        """Whether it reads providers."""

    def packs(self, config: Any) -> bool:  # noqa: ANN401 (of the model's own settings class)
        """Whether it may be trained on packed windows with these settings."""


class KnownUse(Interface):
    """A task of a stage."""

    @property
    def name(self) -> str:
        """Its name in the registry of tasks, or `module:Class`."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Its settings."""


class KnownStage(Interface):
    """A stage of a model's training."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def tasks(self) -> Sequence[KnownUse]:
        """What is trained."""

    @property
    def samples(self) -> str:
        """What a batch consists of."""


class KnownTask(Interface):
    """Facts about a training task that a suite looks up by its name."""

    @property
    def config(self) -> type[Settings]:
        """Its settings."""

    @property
    def code(self) -> str:
        """Hash of the code of a task that is not part of the toolkit; empty otherwise."""

    @property
    def samples(self) -> frozenset[str]:
        """The kinds of batches that it can be computed on."""

    @property
    def uses_providers(self) -> bool:
        """Whether its loss depends on providers."""


@dataclass(frozen=True)
class Finders:
    """Look up what a suite names."""

    model: Callable[[str], KnownModel]
    task: Callable[[str], KnownTask]


class Weight(Settings):
    """The weight of a task, beside its own settings."""

    weight: float = Field(1.0, gt=0, le=1e6)


@dataclass(frozen=True)
class Cell:
    """One training run: dataset, model, variant, seed, and every setting that can change its ranks."""

    dataset: str
    """Label of the condition: that of the dataset in the suite, and what differs from the suite's main protocol."""
    source: DatasetSpec
    model: str
    """Label of the model in the suite; equal to `type` unless the suite says otherwise."""
    type: str
    """Name of the model in the registry, or `module:Class`."""
    code: str
    """Hash of the code of a model that is not part of the toolkit; empty otherwise."""
    counts: bool
    """Whether the model is fitted by counting; `training` does not apply to it then."""
    deterministic: bool
    """Whether no seed changes its ranks: the cells of all seeds then have one key, and are trained once."""
    variant: str
    """Name of the set of overrides; empty for the model itself."""
    config: Settings
    training: Training
    """With `samples` resolved to `packed` or `prefix`, and `precision` to what `auto` means on this machine."""
    protocol: Protocol
    """With the dataset's own `max_length` already applied."""
    seed: int
    task_code: tuple[tuple[str, str], ...] = ()
    """Name and hash of the code of each task that is not part of the toolkit."""
    asked: str = "auto"
    """`training.samples` as the suite sets it, before it was resolved for `config`."""
    uses_times: bool = False
    """Whether the model reads times, in seconds."""
    uses_providers: bool = False
    """Whether the model reads providers, or a task of its training does."""
    condition: ConditionName = field(default_factory=lambda: ConditionName(""))
    """What `dataset` is made of: a dataset of the suite, a choice of providers, and a protocol."""
    parent: "Cell | None" = None
    """The cell whose trained model this one ranks under its own protocol; None for a cell that is trained."""
    tuning: str = ""
    """Where the settings are from, in words, like `tuned, 20 trials`; empty where neither a search nor the suite says
    so. It does not enter the key."""

    @property
    def label(self) -> str:
        """The row's name in tables: the model, and the variant if there is one."""
        return f"{self.model} {self.variant}".strip()

    @property
    def shown(self) -> str:
        """The label, and the note on its training, if any."""
        return f"{self.label}{self.note}"

    @property
    def note(self) -> str:
        """In parentheses, the note in every table on how the model was trained; empty if that needs none.

        It names the approximation of a model that was not trained on the exact softmax; this does not concern a model
        none of whose tasks is a loss over the catalogue. It also says that the model was refit.
        """
        stages: Sequence[KnownStage] = getattr(self.config, "stages", tuple)()
        concerned = any(_is_over_catalogue(use) for stage in stages for use in stage.tasks)
        approximation = self.training.approximation if concerned else ""
        notes = [part for part in (approximation, REFIT_NOTE if self.training.refit else "") if part]
        return f" ({'; '.join(notes)})" if notes else ""

    @property
    def stages(self) -> tuple[tuple[str, int], ...]:
        """Name and maximum number of epochs of each stage of the training, in order.

        The main one is the last. The stages of a second training, for `training.refit`, follow it.
        """
        stages = getattr(self.config, "stages", None)
        if stages is None:
            return ((MAIN_STAGE, self.training.epochs),)
        first = tuple((s.name, self.training.epochs if s.epochs is None else s.epochs) for s in stages())
        again = ((refit_name(name), epochs) for name, epochs in first) if self.training.refit else ()
        return *first, *again

    def without_refit(self) -> "Cell":
        """Return the cell without its second training."""
        return replace(self, training=self.training.model_copy(update={"refit": False}))

    @property
    def epochs(self) -> int:
        """Maximum number of epochs of the training, over all stages."""
        return sum(epochs for _, epochs in self.stages)

    def settings(self) -> dict[str, Any]:
        """Return the resolved settings that enter the key, as plain JSON values; settings without effect do not."""
        idle = {
            "negatives": self.training.objective == "softmax",
            "negatives_per": self.training.objective == "softmax" or self.training.negatives_per == "batch",
            "calibration": self.training.objective != "gbce",
            "min_context": self.training.samples == "prefix",
        }
        training = self.training.model_dump(mode="json", exclude={name for name, unused in idle.items() if unused})
        return {
            "type": self.type,
            **({"code": self.code} if self.code else {}),
            **({"tasks": dict(self.task_code)} if self.task_code else {}),
            "config": self.config.model_dump(mode="json", by_alias=True),
            **({} if self.counts else {"training": training}),
            **({REFIT: True} if self.counts and self.training.refit else {}),
            "protocol": self.protocol.model_dump(mode="json", exclude=_without_effect(self.protocol)),
            **({TRAINED_UNDER: self.parent.settings()["protocol"]} if self.parent else {}),
        }

    def key(self, fingerprint: str, times_per_second: int = 1) -> str:
        """Return the content key, given the fingerprint of the prepared dataset and the unit of its times.

        The fingerprint is of the times as numbers: a model that reads them in seconds depends on their unit, too.

        Two cells with equal keys have equal ranks on one machine. A machine that trains in bfloat16 by default shares
        no keys with one that does not. Labels, metrics and cutoffs do not enter: they change what a table shows, not
        what was trained.
        """
        content = {
            "format": RANKS_FORMAT,
            "dataset": fingerprint,
            **({} if self.deterministic else {"seed": self.seed}),
            **({"times_per_second": times_per_second} if self.uses_times and times_per_second != 1 else {}),
            **self.settings(),
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _is_over_catalogue(use: KnownUse) -> bool:
    """Return whether a task, which may be a user's, has the loss that `training.objective` names."""
    return (use.name in OVER_CATALOGUE and use.settings.get("loss") != "bpr") or ":" in use.name


class ConflictError(SuiteError):
    """Settings that exclude each other; `key` is the one of `training` that can be changed."""

    def __init__(self, key: str, sentence: str) -> None:
        super().__init__(sentence)
        self.key = key


def with_config(cell: Cell, config: Settings, known: KnownModel) -> Cell:
    """Return `cell` with other settings of its model, and with the training that follows from them.

    Raises:
        ConflictError: `training` requires something that the model does not support with these settings.
    """
    changed = replace(cell, config=config, training=_resolved(cell.training, cell.asked, config, known))
    _check_context(changed)
    return changed


def trainings(cells: Iterable[Cell]) -> Iterator[Cell]:
    """Yield the cells that are trained: for a deterministic row, only that of the first seed."""
    seen = set()
    for cell in cells:
        place = (cell.dataset, cell.label)
        if not cell.deterministic or place not in seen:
            yield cell
        seen.add(place)


def expand(
    file: SuiteFile,
    known_datasets: Mapping[str, Mapping[str, Any]],
    find: Finders,
    precision: Precision,
) -> list[Cell]:
    """Return the suite's cells: for each dataset, each seed, each model followed by its variants.

    Args:
        file: the suite.
        known_datasets: settings of the datasets that a suite may name without describing them.
        find: look up a model, or a task, by its name.
        precision: what `auto` means on this machine.

    Raises:
        SuiteError: a dataset or model is unknown, or one of its settings is wrong.
    """
    suite = file.suite
    if not suite.models:
        raise file.error(("models",), "the suite has no models; add at least one, like [models.pop]")
    found = conditions(file, known_datasets)
    rows = [row for name in suite.models for row in _rows(file, name, find, precision, found)]
    everywhere = [
        row(dataset=one.label, source=one.source, protocol=one.protocol, seed=seed, condition=one.name)
        for one in found
        for seed in suite.seeds
        for row in rows
    ]
    cells = [cell for cell in everywhere if cell.uses_providers or not cell.condition.control]
    _check_controlled(file, cells)
    cells = _with_parents(cells, found)
    for cell in cells:
        try:
            _check_context(cell)
        except ConflictError as error:
            raise file.error(("training", error.key), str(error)) from None
        _check_length(file, cell)
    _check_names(file, Counter(cell.label for cell in cells[: len(rows)]))
    return cells


def _check_length(file: SuiteFile, cell: Cell) -> None:
    """Refuse histories that are longer than the model can be built for."""
    longest: int | None = getattr(cell.config, "longest_history", None)
    if longest is not None and cell.protocol.max_length > longest:
        protocol = cell.condition.protocol
        place: settings.Path = ("protocol", "max_length")
        if "max_length" in file.suite.datasets[cell.condition.base]:
            place = ("datasets", cell.condition.base, "max_length")
        elif protocol and "max_length" in file.suite.protocols[protocol]:
            place = ("protocols", protocol, "max_length")
        raise file.error(
            place,
            f"found {cell.protocol.max_length}; the model '{cell.label}', as it is set, can be built for {longest}"
            " at most",
        )


def _check_names(file: SuiteFile, labels: Mapping[str, int]) -> None:
    """Refuse names of rows that several have, and names in `statistics` that none has; `labels` counts each."""
    suite = file.suite
    for label, count in labels.items():
        if count > 1 or label == "best":
            raise file.error(("models",), f"the name '{label}' is taken; each row of the tables needs a different name")
    baseline = suite.statistics.baseline
    if baseline not in {"best", *labels}:
        raise file.error(
            ("statistics", "baseline"),
            f"found '{baseline}'; allowed: 'best', {listed(sorted(labels))}{did_you_mean(baseline, labels)}",
        )
    for name in suite.statistics.proposed:
        if name not in suite.models:
            raise file.error(
                ("statistics", "proposed"),
                f"found '{name}'; allowed: {listed(suite.models)}{did_you_mean(name, suite.models)}",
            )


def _with_parents(cells: Sequence[Cell], found: Iterable[Condition]) -> list[Cell]:
    """Return `cells`, with a parent for those of conditions in which models of another condition are ranked.

    A model that counts has no parent: it chooses no epoch by the validation targets, so it is the same under both
    protocols, and fitting it again is exact. `refit` has none, because its validation ranks are of another model.
    """
    trained_under = {one.label: one.trained_under.label for one in found if one.trained_under is not None}
    places = {(cell.dataset, cell.label, cell.seed): cell for cell in cells}
    return [
        replace(cell, parent=places[trained_under[cell.dataset], cell.label, cell.seed])
        if cell.dataset in trained_under and not cell.counts and not cell.training.refit
        else cell
        for cell in cells
    ]


def _check_controlled(file: SuiteFile, cells: Sequence[Cell]) -> None:
    if file.suite.controls.providers and not any(cell.uses_providers for cell in cells):
        raise file.error(
            ("controls", "providers"),
            "no row of the suite uses providers, so there is nothing to control; remove the key, or add a model that"
            " uses providers",
        )


def _without_effect(protocol: Protocol) -> set[str]:
    """Return the keys of `protocol` that do not enter a cell's key.

    Metrics, cutoffs and ties only affect tables. The filter and the order of equal times are applied to the dataset,
    whose fingerprint enters; a filter for training alone is not.
    """
    without = {"metrics", "cutoffs", "ties", "tie_order"} | protocol.idle
    return without if protocol.filters_training else without | {"filter", "filter_for"}


def _unseen_users(protocol: Protocol) -> tuple[str, str] | None:
    """Return the setting by which users are ranked of whom training sees nothing, and its remedy; None if none does."""
    if protocol.split == "user-holdout":
        return "split = 'user-holdout'", "split = 'leave-one-out', or 'temporal', which lacks only users who join late"
    if protocol.validation == "users":
        return "validation = 'users'", "validation = 'time' or 'last-train'"
    if protocol.filters_training:
        return "filter_for = 'training'", "filter_for = 'all'"
    return None


def _rows(
    file: SuiteFile, name: str, find: Finders, precision: Precision, conditions: Sequence[Condition]
) -> Iterator[Callable[..., Cell]]:
    """Yield, for the suite's model `name` and each of its variants, a factory of cells."""
    where: settings.Path = ("models", name)
    base = dict(file.suite.models[name])
    variants: Mapping[str, Any] = _of_type(file, where, base, "variants", Mapping, {})
    type_name: str = _of_type(file, where, base, "type", str, name)
    own_training: Mapping[str, Any] = _of_type(file, where, base, "training", Mapping, {})
    own_source = _source_of_settings(file, where, base)
    try:
        known = find.model(type_name)
    except BenchError as error:
        raise file.error((*where, "type") if type_name != name else where, str(error)) from None
    for condition in conditions if known.uses_users else ():
        if found := _unseen_users(condition.protocol):
            setting, remedy = found
            further = condition.name.protocol
            key = f"protocols.{further}" if further in file.suite.protocols else "protocol"
            raise file.error(
                where,
                f"'{type_name}' learns a vector for each user, and {key}.{setting} ranks users that training does"
                f" not see; remove the model, or set {remedy}",
            )
    for variant in variants:
        try:
            check_name(variant)
        except ValueError as error:
            raise file.error((*where, "variants", variant), f"found {settings.shown(variant)}; {error}") from None
    for variant in ("", *variants):
        place = (*where, "variants", variant) if variant else where
        overrides = dict(_of_type(file, (*where, "variants"), dict(variants), variant, Mapping, {}))
        variant_training = _of_type(file, place, overrides, "training", Mapping, {})
        source = _source_of_settings(file, place, overrides) or (TUNED if variant == TUNED else "")
        training = checked(
            file,
            Training,
            {**file.suite.training.model_dump(), **own_training, **variant_training},
            (*place, "training"),
        )
        config = checked(file, known.config, {**base, **overrides}, place)
        config = _with_tasks(file, config, place if "tasks" in overrides else where, find)
        task_code = _checked_stages(file, config, place, find, own_model=bool(known.code))
        if training.precision == "auto":
            training = training.model_copy(update={"precision": precision})
        asked = training.samples
        try:
            training = _resolved(training, asked, config, known)
        except ConflictError as error:
            raise file.error((*place, "training", error.key), str(error)) from None
        yield partial(
            Cell,
            model=name,
            type=type_name,
            code=known.code,
            counts=known.counts,
            deterministic=known.deterministic,
            variant=variant,
            config=config,
            training=training,
            task_code=task_code,
            asked=asked,
            uses_times=known.uses_times,
            uses_providers=known.uses_providers or _tasks_use_providers(file, config, place, find),
            tuning=source if variant else own_source,
        )


def _source_of_settings(file: SuiteFile, place: settings.Path, table: dict[str, Any]) -> str:
    """Remove the key `settings_from` from a model's or a variant's table, and return it in the words of tables.

    Raises:
        SuiteError: it has another form.
    """
    said: str = _of_type(file, place, table, "settings_from", str, "")
    if said and not _FROM.fullmatch(said):
        raise file.error(
            (*place, "settings_from"), f"found {settings.shown(said)}; allowed: 'published', 'tuned, 20 trials'"
        )
    return f"{said} settings" if said == "published" else said


def _tasks_use_providers(file: SuiteFile, config: Settings, where: settings.Path, find: Finders) -> bool:
    """Return whether a task of the stages of a model with these settings depends on providers."""
    return any(find.task(use.name).uses_providers for stage in _stages(file, config, where) for use in stage.tasks)


def _with_tasks(file: SuiteFile, config: Settings, where: settings.Path, find: Finders) -> Settings:
    """Return a model's settings with those of its further tasks completed; `where` is the table that has `tasks`.

    Raises:
        SuiteError: there is no such task, the model has it already or ignores it, or one of its settings is wrong.
    """
    tables: Mapping[str, Mapping[str, Any]] = getattr(config, "tasks", {}) if hasattr(config, "stages") else {}
    if not tables:
        return config
    main = _stages(file, config.model_copy(update={"tasks": {}}), where)[-1]
    own = {use.name for use in main.tasks}
    completed = {}
    for name in sorted(tables):
        place = (*where, "tasks", name)
        if name in own:
            raise file.error(place, f"the model has the task '{name}' already; change the model's own settings instead")
        try:
            known = find.task(name)
        except BenchError as error:
            raise file.error(place, str(error)) from None
        if main.samples not in known.samples:
            raise file.error(
                place,
                f"the task is computed on {' or '.join(sorted(known.samples))}, but this model is trained on"
                f" {main.samples}",
            )
        table, keys = dict(tables[name]), [*known.config.keys(), *Weight.keys()]
        for key in (key for key in table if key not in keys):
            raise file.error((*place, key), f"unknown key '{key}'{settings.known_keys_hint(key, keys)}")
        weight = checked(file, Weight, {"weight": table.pop("weight", 1.0)}, place).weight
        own_settings = checked(file, known.config, table, place)
        completed[name] = {"weight": weight, **own_settings.model_dump(mode="json", by_alias=True)}
    config = config.model_copy(update={"tasks": completed})
    for name in set(completed) - {use.name for use in _stages(file, config, where)[-1].tasks}:
        raise file.error(
            (*where, "tasks", name),
            "this model's own main stage leaves further tasks out; its class must build that stage of main_tasks()",
        )
    return config


def _checked_stages(
    file: SuiteFile, config: Settings, where: settings.Path, find: Finders, *, own_model: bool
) -> tuple[tuple[str, str], ...]:
    """Return name and hash of the tasks outside the toolkit that a model with these settings is trained for.

    Raises:
        SuiteError: the model's class, which may be a user's, asks for stages or tasks that cannot be trained.
    """
    code = {}
    for stage in _stages(file, config, where):
        names = [use.name for use in stage.tasks]
        if not names or len({*names}) < len(names):
            raise file.error(
                where, f"the stage '{stage.name}' of this model needs at least one task, and each only once"
            )
        for use in stage.tasks:
            try:
                known = find.task(use.name)
                known.config.model_validate(dict(use.settings))
            except BenchError as error:
                raise file.error(where, f"stage '{stage.name}' of this model: {error}") from None
            except ValidationError as error:
                path, message = next(settings.explain(error, dict(use.settings)))
                key = ".".join(map(str, path)) or "settings"
                raise file.error(where, f"task '{use.name}' of this model: {key}: {message}") from None
            if known.code:
                code[use.name] = known.code
            if own_model and stage.samples not in known.samples:  # a model of the toolkit has no such mistake
                raise file.error(
                    where,
                    f"stage '{stage.name}' of this model: the task '{use.name}' is computed on"
                    f" {' or '.join(sorted(known.samples))}, but the stage has samples = '{stage.samples}'",
                )
    return tuple(sorted(code.items()))


def _stages(file: SuiteFile, config: Settings, where: settings.Path) -> Sequence[KnownStage]:
    """Return the stages of a model with these settings; none if it is not trained by gradients.

    Raises:
        SuiteError: its class, which may be a user's, does not return stages that end with the main one.
    """
    try:
        stages: Sequence[KnownStage] = getattr(config, "stages", tuple)()
        names = [stage.name for stage in stages]
    except ValueError as error:
        raise file.error(where, f"the stages of this model cannot be trained: {error}") from None
    except Exception as error:  # noqa: BLE001 (whatever a user's class raises)
        raise file.error(where, f"the stages of this model cannot be read: {type(error).__name__}: {error}") from None
    if any(name == REFIT or name.startswith(f"{REFIT} ") for name in names):
        raise file.error(where, f"this model has the stages {listed(names)}; '{REFIT}' is the name of another training")
    if hasattr(config, "stages") and (names[-1:] != [MAIN_STAGE] or len({*names}) < len(names)):
        raise file.error(
            where,
            f"this model has the stages {listed(names)}; their names must differ, with '{MAIN_STAGE}' as the last",
        )
    return stages


def _resolved(training: Training, asked: str, config: Settings, known: KnownModel) -> Training:
    """Return `training` with `samples` resolved for a model with the settings `config`.

    Raises:
        ConflictError: `training` requires something that the model does not support with these settings.
    """
    packs = known.packs(config)
    if asked == "packed" and not packs:
        raise ConflictError(
            "samples",
            "found 'packed', but this model, as it is set, is trained on prefixes only; allowed: 'auto', 'prefix'",
        )
    weight_norm: float = getattr(config, "weight_norm", 0)
    if training.optimiser == "lazy-adam" and weight_norm:
        raise ConflictError(
            "optimiser",
            f"found 'lazy-adam', but weight_norm = {weight_norm:g} moves every row of every table; set weight_norm = 0,"
            " or optimiser = 'adam'",
        )
    if training.optimiser == "lazy-adam" and training.weight_decay:
        raise ConflictError(
            "weight_decay",
            f"found {training.weight_decay:g}, but 'lazy-adam' leaves rows alone that a batch does not use; set"
            " weight_decay = 0, or optimiser = 'adam'",
        )
    return training.model_copy(update={"samples": "packed" if packs and asked != "prefix" else "prefix"})


def _check_context(cell: Cell) -> None:
    training, longest = cell.training, cell.protocol.max_length
    if training.samples == "packed" and training.min_context >= longest:
        raise ConflictError(
            "min_context",
            f"found {training.min_context}, but on '{cell.dataset}' a model sees {longest} inputs at most (max_length);"
            f" allowed: up to {longest - 1}",
        )


def _of_type(
    file: SuiteFile, where: settings.Path, table: dict[str, Any], key: str, kind: type, default: object
) -> Any:  # noqa: ANN401 (of the type asked for)
    """Remove `key` from `table` and return its value, checked to be of type `kind`."""
    value = table.pop(key, default)
    if not isinstance(value, kind):
        raise file.error(
            (*where, key), f"found {settings.shown(value)}; expected {'a text' if kind is str else 'a table'}"
        )
    return value
