"""The result of a search as a suite ready to run: the settings before it against the best ones, on fresh seeds."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from ipsrec_bench.errors import BenchError
from ipsrec_bench.files import replace_files
from ipsrec_bench.suite.cells import TUNED
from ipsrec_bench.suite.load import SuiteFile
from ipsrec_bench.tuning.results import StudyResult, as_table
from ipsrec_bench.tuning.study import file_stem
from ipsrec_bench.words import counted


def tuned_suite(file: SuiteFile, results: Sequence[StudyResult], folder: Path) -> str:
    """Return the text of the suite for `folder`: every tuned model, and its best settings as the variant `tuned`.

    A report treats this variant as a separate row and compares tuned models with tuned baselines. Its ablation table
    shows whether the best settings are better than those before, or were only lucky in the search.
    The suite names the folder of the modules of own models, because they are not beside it.
    """
    said = file.suite.model_dump(mode="json", exclude_unset=True, exclude_none=True, by_alias=True)
    models = {}
    for result in results:
        if result.best is not None:
            own = {key: value for key, value in file.suite.models[result.model].items() if key != "variants"}
            best = as_table(result.best.settings, own.get("tasks", {}))
            models[result.model] = {**own, "variants": {TUNED: {**best, "settings_from": result.words}}}
    dataset = results[0].dataset
    suite: dict[str, Any] = {
        "title": f"Tuned: {', '.join(models)} on {dataset}",
        "description": " ".join(_told(result) for result in results),
        "seeds": list(file.suite.tune.fresh_seeds),
        **_modules(file, models, folder),
        **{key: said[key] for key in ("scale", "stand_in") if key in said},
        "protocol": said.get("protocol", {}),
        "training": said.get("training", {}),
        "statistics": _statistics(file, models),
        "datasets": {dataset: file.suite.datasets[dataset]},
        "models": models,
    }
    return tomli_w.dumps(suite)


def _statistics(file: SuiteFile, models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the suite's statistics settings, adapted to `models`.

    If there are several models and a baseline is among them, the best baseline is the reference. Otherwise, all are
    compared with the first model in its settings before the search.
    """
    said = file.suite.statistics.model_dump(mode="json", exclude_unset=True)
    proposed = said.get("proposed") or [m for m, own in models.items() if own.get("type", m).startswith("ipsrec")]
    baselines = [model for model in models if model not in proposed]
    first = next(iter(models), "best")
    said["baseline"] = "best" if baselines and len(models) > 1 else first
    if "proposed" in said:
        said["proposed"] = [model for model in said["proposed"] if model in models]
    return said


def write_tuned_suite(file: SuiteFile, results: Sequence[StudyResult], folder: Path) -> Path:
    """Write the suite into `folder`, named after the study or, with several models, after all models; return its path.

    Raises:
        BenchError: the folder cannot be written.
    """
    names = [result.name for result in results]
    stem = names[0]
    if len(names) > 1:  # names of studies differ if data, settings or ranges do, and so do those of their suites
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
        stem = file_stem(f"{results[0].dataset}-{'-'.join(result.model for result in results)}-{digest}")
    path = folder / f"{stem}.toml"
    try:
        replace_files(folder, {path.name: tuned_suite(file, results, folder)})
    except OSError as error:
        raise BenchError(f"{path}: the tuned suite cannot be written there: {error.strerror}") from None
    return path


def _modules(file: SuiteFile, models: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, str]:
    """Return the key `modules` for the suite, if a model is named by its module."""
    if not any(":" in str(settings.get("type", label)) for label, settings in models.items()):
        return {}
    return {"modules": Path(os.path.relpath(file.modules, folder.resolve())).as_posix()}


def _told(result: StudyResult) -> str:
    seeds = ", ".join(map(str, result.seeds))
    return (
        f"{result.model}: {counted(len(result.trials), 'trial')}, {result.pruned} of them pruned,"
        f" in {result.seconds:.0f} s ({result.sampler}, validation {result.metric} over seeds {seeds}),"
        f" study {result.name}."
    )
