"""How fair a comparison was: what each row was given, in search and in training."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Literal

from ipsrec_bench.report.content import Fairness, FairnessLine, Row
from ipsrec_bench.report.results import Results
from ipsrec_bench.report.sentences import EQUAL
from ipsrec_bench.store.queries import CellSummary
from ipsrec_bench.suite.cells import TUNED
from ipsrec_bench.tuning.results import StudyResult, split_settings, trials_in
from ipsrec_bench.words import counted, joined

Budget = Literal["equal trials", "equal seconds"]


def fairness_of(results: Results, studies: Sequence[tuple[str, StudyResult]]) -> Fairness:
    """Return what every row was given on every dataset.

    Args:
        results: the run.
        studies: the studies of the run's rows, each with its dataset. One belongs to a tuned row that has its best
            settings.
    """
    return judged(tuple(_lines(results, studies)), results.run.suite.tune.budget)


def _lines(results: Results, studies: Sequence[tuple[str, StudyResult]]) -> Iterator[FairnessLine]:
    for dataset in results.datasets:
        for row in (results.on(dataset, row) for row in results.rows):
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
                exhausted=study is not None and study.exhausted,
            )


def _is_source(study: StudyResult, row: Row, summary: CellSummary) -> bool:
    """Return whether a tuned row has the best settings of `study`."""
    name = row.model if row.variant == TUNED else row.label
    if not row.tuned or study.model != name or study.best is None:
        return False
    fixed, searched = split_settings(summary.settings, study.default)
    return searched == dict(study.best.settings) and study.fixed in (None, fixed)


def judged(lines: tuple[FairnessLine, ...], budget: Budget) -> Fairness:
    """Return what the lines say in sentences, those that favour some rows first."""
    datasets = dict.fromkeys(line.dataset for line in lines)
    tuned = {line.dataset for line in lines if line.row.tuned}
    found = {name: [line for line in lines if line.dataset == name] for name in datasets if name in tuned}
    if not found:
        untouched = "Nothing was tuned here: the rows have the settings that the suite gives them"
        return Fairness(lines, (untouched, *_rising(lines)), first=(untouched,))
    budgets: dict[tuple[bool | None, str], list[str]] = defaultdict(list)
    for dataset, of_dataset in found.items():
        budgets[_of_budgets(of_dataset, budget)].append(dataset)
    untuned: dict[str, list[str]] = defaultdict(list)
    for dataset, of_dataset in found.items():
        also_tuned = {line.row.model for line in of_dataset if line.row.tuned and line.row.whole}
        for row in (line.row for line in of_dataset):
            if row.tunable and not row.tuned and not (row.whole and row.model in also_tuned):
                untuned[row.named].append(dataset)
    names = [name if len(on) == len(found) else f"{name} on {joined(on)}" for name, on in untuned.items()]
    not_tuned = f"Not tuned, which favours the rows that were: {', '.join(names)}" if names else ""
    without = [dataset for dataset in datasets if dataset not in tuned]
    said = {
        kind: [f"On {joined(on)}, {words}" for (equal, words), on in budgets.items() if equal is kind]
        for kind in (False, None, True)
    }
    nothing = [f"On {joined(without)}, nothing was tuned"] if without else []
    favouring = [*said[False], *([not_tuned] if not_tuned else [])]
    unequal = [dataset for (equal, _), on in budgets.items() if equal is False for dataset in on]
    sentences = (*favouring, *said[None], *said[True], *nothing, *_rising(lines))
    equal = [dataset for (kind, _), on in budgets.items() if kind for dataset in on]
    several = [f"Budgets of searches favour no row on {joined(equal)}"] if len(said[True]) > 1 else said[True]
    return Fairness(lines, sentences, not_tuned, tuple(unequal), (*said[None], *several, *nothing))


def _rising(lines: Sequence[FairnessLine]) -> Iterator[str]:
    rising = dict.fromkeys(f"{line.row.display} on {line.dataset}" for line in lines if line.rising)
    if rising:
        yield f"Still improving when the last epoch ended: {', '.join(rising)}"


def _of_budgets(lines: Sequence[FairnessLine], budget: Budget) -> tuple[bool | None, str]:
    """Return whether the budgets on one dataset were equal, and what is to be said of them; some row is tuned there.

    It is None where they are not known, and for the only budget.
    They are equal by the unit of `budget`. With equal trials, equal seconds will do, too: a search may have been given
    its own limit. Seconds are equal up to the ratio `EQUAL`. A row whose whole space was tried has not got less: more
    would have brought it nothing.
    """
    known = [line for line in lines if line.trials is not None and line.search_seconds is not None]
    if not known:
        return None, "the searches of the tuned rows are not at hand, so their budgets are not known"
    unknown = [line.row.named for line in lines if line.row.tuned and line.trials is None]
    if unknown:
        return None, f"the search of {', '.join(unknown)} is not at hand, so budgets cannot be compared"
    got = ", ".join(
        f"{line.row.display} {counted(line.trials or 0, 'trial')} in {line.search_seconds:,.0f} s"
        f"{' (every point of its space)' if line.exhausted else ''}"
        for line in known
    )
    if len(known) == 1:
        return None, f"only one row was tuned: {got}"
    trials, seconds = [line.trials or 0 for line in known], [line.search_seconds or 0.0 for line in known]
    rest = [line for line in known if not line.exhausted]
    least = min((line.trials or 0 for line in rest), default=max(trials))
    shortest = min((line.search_seconds or 0.0 for line in rest), default=max(seconds))
    same_trials, same_seconds = least == max(trials), max(seconds) <= EQUAL * shortest
    by_trials = budget == "equal trials" and same_trials
    if not (by_trials or same_seconds):
        return False, f"budgets were not equal, which favours the rows that got more: {got}"
    if len(rest) < len(known):
        return True, f"budgets favour no row: {got}"
    of_trials = "1 trial" if max(trials) == 1 else f"{_span(trials)} trials"
    of_seconds = f"about {fmean(seconds):,.0f}" if same_seconds else _span(seconds)
    of_seconds += " s of training"
    given, also = (of_trials, of_seconds) if by_trials else (of_seconds, of_trials)
    return True, f"budgets were equal: each of {counted(len(known), 'tuned row')} got {given} ({also})"


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
    return low if low == high else f"{low} to {high}"
