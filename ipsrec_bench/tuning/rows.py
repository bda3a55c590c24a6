"""The search of every row of a suite, before its best settings are trained on fresh seeds: `run --tuned`."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ipsrec_bench.errors import ModelError
from ipsrec_bench.events import Emit, ExecutorNotice
from ipsrec_bench.run.control import Wanted
from ipsrec_bench.run.engine import MakeExecutor
from ipsrec_bench.run.plan import Plan
from ipsrec_bench.run.workplace import Workplace
from ipsrec_bench.suite.cells import TUNED, Cell
from ipsrec_bench.suite.load import SuiteFile, parse_suite
from ipsrec_bench.suite.schema import Tune
from ipsrec_bench.tuning.results import StudyResult
from ipsrec_bench.tuning.space import Space, check_spaces, search_space, with_settings

if TYPE_CHECKING:
    from ipsrec_bench.tuning.search import Search


@dataclass(frozen=True)
class Row:
    """A model or a variant on a dataset, and where its settings are searched."""

    cell: Cell
    space: Space
    tune: Tune
    """The suite's, with one seed where no seed changes the ranks."""

    @property
    def place(self) -> tuple[str, str, str]:
        """What cells have in common that take their settings from this search."""
        return place_of_row(self.cell)


def place_of_row(cell: Cell) -> tuple[str, str, str]:
    """Return what a cell has in common with the one whose search gives it its settings: dataset, label and training.

    A control changes one thing, so its cells take the settings of the dataset itself. So do protocols that share its
    training. A protocol with another training is searched on its own validation targets, and so is each test period:
    the validation targets of one are test targets of another.
    """
    return cell.condition.base, cell.label, json.dumps(cell.protocol.training, sort_keys=True)


def tuned_file(file: SuiteFile) -> SuiteFile:
    """Return the suite as it is run after its search: with `tune.before`, and with the fresh seeds as its own."""
    seeds = json.dumps(list(file.suite.tune.fresh_seeds))
    return parse_suite(file.path, file.text, (*file.overrides, "tune.before=true", f"seeds={seeds}"))


def rows_of(file: SuiteFile, cells: Sequence[Cell]) -> list[Row]:
    """Return the rows that are searched: all but those with published or tuned settings, or with nothing to search.

    Args:
        file: the suite.
        cells: its cells.

    Raises:
        SuiteError: a search space is wrong.
    """
    check_spaces(file, cells)
    wholes = {(cell.dataset, cell.model): cell for cell in cells if not cell.variant}
    found: dict[tuple[str, str, str], Row] = {}
    for cell in cells:
        if cell.condition.control or place_of_row(cell) in found or cell.tuning.startswith((TUNED, "published")):
            continue
        try:
            space = search_space(file, cell, wholes[cell.dataset, cell.model] if cell.variant else None)
        except ModelError:  # there is nothing to search
            continue
        tune = file.suite.tune
        if cell.deterministic:
            tune = tune.model_copy(update={"seeds": tune.seeds[:1]})
        found[place_of_row(cell)] = Row(cell, space, tune)
    return list(found.values())


@dataclass(frozen=True)
class Work:
    """Where and how the searches of a run are done."""

    storage: str
    """Folder of the journals."""
    make_executor: MakeExecutor
    workplace: Workplace
    emit: Emit
    wanted: Callable[[], Wanted] = lambda: "run"


def search_rows(plan: Plan, work: Work) -> bool:
    """Search every row of a plan with the budget of its suite; searches that are done are not repeated.

    A search in which too many trials fail is given up until the next command, and a notice says so.

    Returns:
        Whether all searches came to their end; False after an interruption.

    Raises:
        StudyError, StoreError, BenchError: as `run_search`.
    """
    rows = rows_of(plan.file, [cell for _, cell in plan.cells])
    return all(_search(row, plan, work) for row in rows)


def _search(row: Row, plan: Plan, work: Work) -> bool:
    from ipsrec_bench.tuning.search import budget_of, run_search
    from ipsrec_bench.tuning.study import study_result
    from ipsrec_bench.tuning.subject import open_search

    search = open_search(row.cell, row.space, row.tune, plan.datasets[row.cell.dataset], work.storage)
    name = f"{row.cell.label} on {row.cell.dataset}"
    try:
        return run_search(search, budget_of(row.tune), work.make_executor, work.workplace, work.emit, work.wanted)
    except ModelError as error:
        best = study_result(search.study, search.place).best
        fate = "it takes the best of the complete trials" if best else "it keeps its settings"
        again = "the same command tries again"
        work.emit(ExecutorNotice(f"the search of {name} was given up, so {fate}; {again}: {error}"))
    return True


def with_winners(plan: Plan, storage: str, store: Path) -> Plan:
    """Return the plan with the best settings that the studies in the folder `storage` have for each row so far."""
    return with_best(plan, {row.place: _counted(row, search) for row, search in _searches_begun(plan, storage)}, store)


def ended_searches(plan: Plan, storage: str) -> dict[tuple[str, str, str], StudyResult]:
    """Return the results of the searches of `plan` that have come to their end, by `Row.place`; none is begun."""
    from ipsrec_bench.tuning.search import budget_of, has_ended

    return {
        row.place: _counted(row, search)
        for row, search in _searches_begun(plan, storage)
        if has_ended(search, budget_of(row.tune))
    }


def with_best(plan: Plan, found: Mapping[tuple[str, str, str], StudyResult], store: Path) -> Plan:
    """Return the plan with the best settings of `found`, results of searches by `Row.place`."""

    def winner(cell: Cell) -> Cell:
        won = found.get(place_of_row(cell))
        if won is None or won.best is None:
            return cell
        parent = None if cell.parent is None else winner(cell.parent)
        return replace(with_settings(cell, won.best.settings), parent=parent, tuning=won.words)

    return plan.with_cells([winner(cell) for _, cell in plan.cells], store)


def unsearched(plan: Plan, storage: str) -> list[str]:
    """Return the names of the rows of a plan that have no study in the folder `storage`."""
    searched = {row.place for row, _ in _searches_begun(plan, storage)}
    rows = rows_of(plan.file, [cell for _, cell in plan.cells])
    return [f"{row.cell.label} on {row.cell.dataset}" for row in rows if row.place not in searched]


def _counted(row: Row, search: "Search") -> StudyResult:
    """Return the results of the trials that count.

    With a budget of equal trials, only the first `tune.trials` of a study count: `tune` may have added more.
    """
    from ipsrec_bench.tuning.study import study_result

    found = study_result(search.study, search.place)
    return found.first(row.tune.trials) if row.tune.budget == "equal trials" else found


def _searches_begun(plan: Plan, storage: str) -> "Iterator[tuple[Row, Search]]":
    """Yield the rows that have a study, with their search; none is begun."""
    from ipsrec_bench.tuning.subject import has_study, open_search

    for row in rows_of(plan.file, [cell for _, cell in plan.cells]):
        wanted = (row.cell, row.space, row.tune, plan.datasets[row.cell.dataset], storage)
        if has_study(*wanted):
            yield row, open_search(*wanted)
