"""Reference of the models, from the registry, their modules and their settings."""

from collections.abc import Iterator

from ipsrec_bench.models.configs import IPSRecConfig, ModelConfig
from ipsrec_bench.models.registry import REGISTRY, ModelEntry
from reference.markdown import code, module_docstring, table, term, toml
from reference.settings import Setting, described
from reference.tasks import trained_for

_INTRODUCTION = """\
# Models

These are the models of the registry, with the settings that [`[models.NAME]`](suite.md#models) of a suite takes.
Defaults are the paper's and, where it is silent, those of the code that produced its tables: RecBole 1.0 for the
baselines, the released code for IPSRec. `module:Class` names a model of your own, see
[Add your own model](../how-to/own-model.md).

A *counting* model is fitted in one pass over the training interactions. All others are trained by gradients, on
*packed* windows, which predict every position in one pass, or on *prefixes*, which predict one position each. Only
causal models pack. Some settings let a causal model look ahead; it is trained on prefixes then.
"""


def settings_of(config: type[ModelConfig]) -> list[Setting]:
    """Return the settings of a model, its own first, then those that it shares with others."""
    shared = {name for base in config.__mro__[1:] if issubclass(base, ModelConfig) for name in base.model_fields}
    found = described(config, lambda inner: code(inner.__name__))
    return sorted(found, key=lambda one: one.field in shared)


def page() -> str:
    """Return the page."""
    rows = [(f"[{entry.title}](#{name})", code(name), ", ".join(_facts(entry))) for name, entry in REGISTRY.items()]
    overview = table(("Model", "Name", "Properties"), rows)
    return "\n\n".join([_INTRODUCTION, overview, *(_section(name, entry) for name, entry in REGISTRY.items())])


def _section(name: str, entry: ModelEntry) -> str:
    entries = [term(one.key, f"{name}.{one.key}", one.said) for one in settings_of(entry.config)]
    return "\n\n".join(
        [
            f"## {entry.title} {{#{name}}}",
            f"{code(name)}: {', '.join(_facts(entry))}.",
            module_docstring(entry.path.partition(":")[0]),
            *_tasks(entry),
            *(["**Settings**", *entries] if entries else ["It has no settings."]),
            *_preset(entry.config),
        ]
    )


def _facts(entry: ModelEntry) -> Iterator[str]:
    if entry.counts:
        yield "counting"
    else:
        yield "trained on packed windows" if entry.packs(entry.config()) else "trained on prefixes"
    if entry.uses_providers:
        yield "reads providers"
    if entry.uses_times:
        yield "reads times"
    if entry.uses_users:
        yield "knows users by id"
    if entry.deterministic:
        yield "deterministic"


def _preset(config: type[ModelConfig]) -> Iterator[str]:
    """Yield the settings of the model's preset, if it has one."""
    if issubclass(config, IPSRecConfig):
        changed = {name: value for name, value in config.released.items() if value != config.model_fields[name].default}
        yield 'With `preset = "released"`, the defaults are those of the released code instead:'
        yield table(("Setting", "Value"), [(code(name), code(toml(value))) for name, value in changed.items()])


def _tasks(entry: ModelEntry) -> Iterator[str]:
    """Yield the sentence with the tasks of each stage."""
    stages = [
        (", ".join(f"[{code(task)}](tasks.md#{task})" for task in tasks), stage)
        for stage, tasks in trained_for(entry.config)
    ]
    if len(stages) == 1:
        yield f"It is trained for {stages[0][0]}."
    elif stages:
        yield f"It is trained in stages: {'; then '.join(f'{tasks} (stage {stage})' for tasks, stage in stages)}."
