"""`ipsrec-bench run --tuned`: search every row of a suite, then train the best settings."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from ipsrec_bench.errors import BenchError, listed
from ipsrec_bench.extras import require
from ipsrec_bench.words import counted

if TYPE_CHECKING:
    from ipsrec_bench.events import Emit
    from ipsrec_bench.run.control import Wanted
    from ipsrec_bench.run.engine import MakeExecutor
    from ipsrec_bench.run.plan import Plan
    from ipsrec_bench.suite.load import SuiteFile


def storage_of(store: Path) -> str:
    """Return the folder of the studies beside a store."""
    return str(store.parent / "studies")


def suite_to_tune(file: "SuiteFile", shard: str | None) -> "SuiteFile":
    """Return the suite as it is run after its searches, with its fresh seeds.

    Raises:
        BenchError: optuna is missing, or a share of the cells is asked for.
    """
    from ipsrec_bench.tuning.rows import tuned_file

    require("tune", "run --tuned")
    if shard:
        raise BenchError(
            f"--shard {shard}: the cells of a tuned run are known after its searches only; search all rows in one run,"
            " with --jobs or --executor ray, or write a tuned suite with the command tune and share that"
        )
    return tuned_file(file)


def search_first(
    plan: "Plan", store: Path, make_executor: "MakeExecutor | None", emit: "Emit", wanted: "Callable[[], Wanted]"
) -> "Plan":
    """Search every row of `plan` on validation targets; return the plan of the best settings.

    Without `make_executor` nothing is searched, and the best settings so far are taken.

    Raises:
        KeyboardInterrupt: a user has stopped the search.
    """
    from ipsrec_bench.events import ExecutorNotice
    from ipsrec_bench.run.workplace import Workplace
    from ipsrec_bench.tuning.rows import Work, search_rows, unsearched, with_winners

    storage, workplace = storage_of(store), Workplace(store)
    if make_executor is not None:
        workplace.sweep()
        if not search_rows(plan, Work(storage, make_executor, workplace, emit, wanted)):
            raise KeyboardInterrupt
    elif rows := unsearched(plan, storage):
        emit(
            ExecutorNotice(
                f"{storage} has no search of {listed(rows)} under these settings by this version, so they keep the"
                " settings of the suite; run without --collect to search them"
            )
        )
    return with_winners(plan, storage, store)


def searches_in_words(file: "SuiteFile", data_dir: Path, ended: "Collection[tuple[str, str, str]]" = ()) -> str:
    """Return how many searches come before the cells of a suite, how long each is, and how many settings it has.

    Searches of the rows at the places `ended` are left out. Return an empty text if none is left.
    """
    from ipsrec_bench.run.plan import cells_of
    from ipsrec_bench.tuning.rows import rows_of

    cells = cells_of(file, data_dir)
    rows = [row for row in rows_of(file, cells) if row.place not in ended]
    if not rows:
        return ""
    tune = file.suite.tune
    seeds = f", each trained with {counted(len(tune.seeds), 'seed')}" if len(tune.seeds) > 1 else ""
    budget = counted(tune.trials, "trial") if tune.budget == "equal trials" else f"{tune.seconds:g} s of training"
    searches = f"{counted(len(rows), 'search', 'searches')} of {budget}{seeds}"
    by_size: dict[int, dict[str, None]] = {}
    for row in sorted(rows, key=lambda row: len(row.space.where)):
        by_size.setdefault(len(row.space.where), {})[row.cell.label] = None
    sizes = "; ".join(f"{', '.join(labels)} {size}" for size, labels in by_size.items())
    return f"{searches} (searched settings: {sizes})" if sizes else searches
