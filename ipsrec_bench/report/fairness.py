"""How fair a comparison was: what each row was given, in search and in training."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from ipsrec_bench.report.content import Fairness, FairnessLine, Row
from ipsrec_bench.report.results import Results
from ipsrec_bench.report.sentences import EQUAL
from ipsrec_bench.store.queries import CellSummary
from ipsrec_bench.suite.cells import TUNED
from ipsrec_bench.tuning.results import StudyResult, split_settings, trials_in
from ipsrec_bench.words import counted


def fairness_of(results: Results, studies: Sequence[tuple[str, StudyResult]]) -> Fairness:
    """Return what every row was given on every dataset.

    Args:
        results: the run.
        studies: the studies of the run's rows, each with its dataset. One belongs to a tuned row that has its best
            settings.
    """
    lines = tuple(_lines(results, studies))
    return Fairness(lines, tuple(_sentences(lines)))


def _lines(results: Results, studies: Sequence[tuple[str, StudyResult]]) -> Iterator[FairnessLine]:
    for dataset in results.datasets:
        for row in results.rows:
            keys = results.keys.get((dataset, row.label), {}).values()
            summaries = [results.summaries[key] for key in dict.fromkeys(keys) if key in results.summaries]
            if not summaries:
                continue
            given = trials_in(row.tuning)
            there = [study.first(given) if given else study for place, study in studies if place == dataset]
            own = [study for study in there if _is_source(study, row, summaries[0])]
            study = max(own, key=lambda one: len(one.trials), default=None)
            trained = [one.train_seconds for one in summaries if one.train_seconds is not None]
            epochs = summaries[0].settings.get("training", {}).get("epochs")
            yield FairnessLine(
                dataset,
                row,
                complete=len(study.complete) if study else None,
                pruned=study.pruned if study else None,
                failed=study.failed if study else None,
                search_seconds=study.seconds if study else None,
                searched=len(study.default) if study else None,
                seen=fmean(study.seen.get(name, 0.0) for name in study.default) if study and study.seen else None,
                train_seconds=fmean(trained) if trained else None,
                epochs=epochs,
                best_epochs=tuple(one.best_epoch for one in summaries if one.best_epoch) if epochs else (),
                rising=sum(one.cut_off for one in summaries),
            )


def _is_source(study: StudyResult, row: Row, summary: CellSummary) -> bool:
    """Return whether a tuned row has the best settings of `study`."""
    name = row.model if row.variant == TUNED else row.label
    if not row.tuned or study.model != name or study.best is None:
        return False
    fixed, searched = split_settings(summary.settings, study.default)
    return searched == dict(study.best.settings) and study.fixed in (None, fixed)


def _sentences(lines: Sequence[FairnessLine]) -> Iterator[str]:
    if not any(line.row.tuned for line in lines):
        yield "Nothing was tuned here: the rows have the settings that the suite gives them"
    else:
        for dataset in dict.fromkeys(line.dataset for line in lines):
            yield _of_budgets(dataset, [line for line in lines if line.dataset == dataset])
        others = dict.fromkeys(line.row.named for line in lines if line.row.tunable and not line.row.tuned)
        if others:
            yield f"Not tuned, which favours the rows that were: {', '.join(others)}"
    rising = dict.fromkeys(f"{line.row.display} on {line.dataset}" for line in lines if line.rising)
    if rising:
        yield f"Still improving when the last epoch ended: {', '.join(rising)}"


def _of_budgets(dataset: str, lines: Sequence[FairnessLine]) -> str:
    known = [line for line in lines if line.trials is not None and line.search_seconds is not None]
    if not known:
        return f"On {dataset}, the searches of the tuned rows are not at hand, so their budgets are not known"
    unknown = [line.row.named for line in lines if line.row.tuned and line.trials is None]
    if unknown:
        return f"On {dataset}, the search of {', '.join(unknown)} is not at hand, so budgets cannot be compared"
    trials = {line.trials for line in known}
    seconds = [line.search_seconds or 0.0 for line in known]
    if len(trials) == 1:
        return f"On {dataset}, budgets were equal: each of {counted(len(known), 'tuned row')} got {trials.pop()} trials"
    if max(seconds) <= EQUAL * min(seconds):
        return f"On {dataset}, budgets were equal: about {fmean(seconds):,.0f} s of training for each tuned row"
    got = ", ".join(f"{line.row.display} {line.trials} trials in {line.search_seconds:,.0f} s" for line in known)
    return f"On {dataset}, budgets were not equal, which favours the rows that got more: {got}"
