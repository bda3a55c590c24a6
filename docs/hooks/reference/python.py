"""Reference of the Python API: the parts of the package that other code may use, described by mkdocstrings."""

SECTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Write a model": (
        (
            "A model of your own derives from `SequentialModel` or `CountingModel` and names its settings class as"
            " `config_type`. [Add your own model](../how-to/own-model.md) is a guide."
        ),
        (
            "ipsrec_bench.models.api.Model",
            "ipsrec_bench.models.api.SequentialModel",
            "ipsrec_bench.models.api.CountingModel",
            "ipsrec_bench.models.api.ProviderPredictor",
            "ipsrec_bench.models.api.MaskedEncoder",
            "ipsrec_bench.models.api.AttributeEncoder",
            "ipsrec_bench.models.api.GraphEncoder",
            "ipsrec_bench.models.api.Sizes",
            "ipsrec_bench.models.api.Views",
            "ipsrec_bench.models.api.TrainingLog",
            "ipsrec_bench.models.api.PickedScores",
            "ipsrec_bench.data.batches.Histories",
            "ipsrec_bench.models.configs.ModelConfig",
            "ipsrec_bench.models.configs.NeuralConfig",
            "ipsrec_bench.settings.Settings",
            "ipsrec_bench.settings.LinearRange",
            "ipsrec_bench.settings.LogRange",
        ),
    ),
    "Write a training task": (
        (
            "A task of your own derives from `Task`; a model names its tasks and stages in its settings class."
            " [Add your own training task](../how-to/own-task.md) is a guide."
        ),
        (
            "ipsrec_bench.training.tasks.api.Task",
            "ipsrec_bench.training.tasks.api.TrainingStep",
            "ipsrec_bench.training.tasks.api.Encoded",
            "ipsrec_bench.training.samples.Batch",
            "ipsrec_bench.training.index.TrainingIndex",
            "ipsrec_bench.models.stages.Stage",
            "ipsrec_bench.models.stages.TaskUse",
        ),
    ),
    "Test a model or a task": (
        "Derive a test class from one of these cases, and run it with pytest.",
        (
            "ipsrec_bench.testing.SequentialModelCase",
            "ipsrec_bench.testing.CountingModelCase",
            "ipsrec_bench.testing.TaskCase",
        ),
    ),
    "Load a trained model": (
        "The best weights of a finished cell carry what is needed to build the model again.",
        ("ipsrec_bench.training.weights.load_model",),
    ),
    "Read the store": (
        (
            "`reading` opens the [result store](store.md). The functions below it return typed rows; SQL on the"
            " connection returns everything else."
        ),
        (
            "ipsrec_bench.store.connect.reading",
            "ipsrec_bench.store.queries.find_run",
            "ipsrec_bench.store.queries.suite_summaries",
            "ipsrec_bench.store.queries.cell_summaries",
            "ipsrec_bench.store.queries.test_ranks",
            "ipsrec_bench.store.queries.learning_curves",
            "ipsrec_bench.store.queries.metrics_of",
        ),
    ),
    "Compute metrics": (
        "Metrics are functions of ranks.",
        ("ipsrec_bench.ranking.metrics.realistic_rank", "ipsrec_bench.ranking.metrics.metric"),
    ),
    "Compute statistics": (
        (
            "Statistics are functions of arrays; they know neither suites nor stores. [Metrics and tests](metrics.md)"
            " lists what reports use."
        ),
        (
            "ipsrec_bench.stats.differences.mean_differences",
            "ipsrec_bench.stats.paired.paired_t_test",
            "ipsrec_bench.stats.paired.mean_test",
            "ipsrec_bench.stats.paired.wilcoxon_p",
            "ipsrec_bench.stats.paired.win_tie_loss",
            "ipsrec_bench.stats.method.method_test",
            "ipsrec_bench.stats.resampling.sign_flip_p",
            "ipsrec_bench.stats.resampling.bootstrap_intervals",
            "ipsrec_bench.stats.effect.effect_size",
            "ipsrec_bench.stats.effect.relative_gain",
            "ipsrec_bench.stats.effect.superiority",
            "ipsrec_bench.stats.effect.next_training",
            "ipsrec_bench.stats.effect.next_training_beats",
            "ipsrec_bench.stats.power.detectable_difference",
            "ipsrec_bench.stats.power.seeds_needed",
            "ipsrec_bench.stats.practical.practical",
            "ipsrec_bench.stats.equivalence.equivalence_p",
            "ipsrec_bench.stats.equivalence.method_equivalence_p",
            "ipsrec_bench.stats.correction.adjust",
            "ipsrec_bench.stats.correction.worst_step",
            "ipsrec_bench.stats.all_pairs.max_t",
            "ipsrec_bench.stats.all_pairs.letters",
            "ipsrec_bench.stats.reproduction.reproduction",
        ),
    ),
}
"""Sections of the page: their purpose, and the objects that they describe."""
_INTRODUCTION = """\
# Python API

The command line is the main interface. These parts of the package are meant to be used from Python: to write and test
models, to read results and to compute statistics. Everything else may change without notice.
"""


def page() -> str:
    """Return the page."""
    parts = [_INTRODUCTION]
    for heading, (text, objects) in SECTIONS.items():
        parts += [f"## {heading}", text, *(f"::: {name}" for name in objects)]
    return "\n\n".join(parts)
