"""Reference of the training tasks, from the registry, their modules and their settings."""

from collections.abc import Iterator

from ipsrec_bench.models import registry as models
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.models.stages import MAIN
from ipsrec_bench.settings import Settings
from ipsrec_bench.training.tasks.registry import REGISTRY, TaskEntry
from reference.markdown import code, module_docstring, table, term
from reference.settings import Setting, described

_INTRODUCTION = """\
# Tasks

A task turns a batch of training samples into one loss. A model is trained for the weighted sum of the losses of its
tasks. Each model has tasks of its own. `[models.NAME.tasks.TASK]` in a [suite](suite.md#models) adds one to the main
stage of any model that is trained by gradients, with the settings below and a `weight` above 0 (default `1`).
`module:Class` names a task of your own, see [Add your own training task](../how-to/own-task.md).

Some tasks need a model that can do more than encode histories; their sections say what. If the model lacks it, its
training fails with a message that names the task, and the other trainings of the suite go on.

Batches are of training *targets* with the histories before them, of *histories* without targets, or of single
*interactions*. A model chooses for each stage; its main stage nearly always has targets.
"""


def settings_of(config: type[Settings]) -> list[Setting]:
    """Return the settings of a task."""
    return list(described(config, lambda inner: code(inner.__name__)))


def page() -> str:
    """Return the page."""
    rows = [(f"[{code(name)}](#{name})", ", ".join(sorted(one.samples))) for name, one in REGISTRY.items()]
    overview = table(("Task", "Computed on"), rows)
    return "\n\n".join([_INTRODUCTION, overview, *(_section(name, entry) for name, entry in REGISTRY.items())])


def trained_for(config: type[Settings]) -> Iterator[tuple[str, list[str]]]:
    """Yield name and tasks of each stage of a model with its defaults; nothing for a model that counts."""
    if issubclass(config, NeuralConfig):
        yield from ((stage.name, [use.name for use in stage.tasks]) for stage in config().stages())


def _section(name: str, entry: TaskEntry) -> str:
    entries = [term(one.key, f"{name}.{one.key}", one.said) for one in settings_of(entry.config)]
    return "\n\n".join(
        [
            f"## {code(name)} {{#{name}}}",
            module_docstring(entry.path.partition(":")[0]),
            *_models(name),
            *(["**Settings**", *entries] if entries else ["It has no settings."]),
        ]
    )


def _models(name: str) -> Iterator[str]:
    """Yield the sentence with the models that have the task by default."""
    found = []
    for model, entry in models.REGISTRY.items():
        stages = [stage for stage, tasks in trained_for(entry.config) if name in tasks]
        if stages:
            before = [stage for stage in stages if stage != MAIN]
            found.append(f"[{entry.title}](models.md#{model})" + (f" (stage {', '.join(before)})" if before else ""))
    if found:
        yield f"By default a task of {', '.join(found)}."
