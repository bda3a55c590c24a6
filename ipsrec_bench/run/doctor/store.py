"""Checks of a store and of the files beside it."""

from collections.abc import Iterator
from pathlib import Path

from ipsrec_bench import files
from ipsrec_bench.data import staging
from ipsrec_bench.errors import LockedStoreError, MissingStoreError, StoreError
from ipsrec_bench.run.doctor.finding import Finding
from ipsrec_bench.run.garbage import collect, in_words
from ipsrec_bench.run.workplace import Workplace
from ipsrec_bench.store.health import Health, examine

LOCK_SECONDS = 5.0
NAMED = 3
"""Number of cells that a finding names; the others are counted."""


def check_store(store: Path) -> tuple[list[Finding], Health | None]:
    """Return findings on the store's integrity, and its health; the health is None if the store cannot be read."""
    try:
        health = examine(store)
    except MissingStoreError:
        return [Finding("store", "ok", f"{store}: does not exist yet; the first run creates it")], None
    except LockedStoreError as error:
        found = str(error).partition("; close it")[0]
        return [Finding("store", "note", found, "look again when that process has ended")], None
    except StoreError as error:
        mend = "move the file away, then restore a copy or choose another place with --store"
        return [Finding("store", "problem", str(error), mend)], None
    return list(_of_health(store, health)), health


def _of_health(store: Path, health: Health) -> Iterator[Finding]:
    yield _size(store, health)
    for fault in health.faults:
        yield Finding(
            "store", "problem", f"{store}: {fault}", "restore a copy, or run the cells again with run SUITE --force"
        )
    if health.failed:
        yield Finding(
            "failed cells",
            "note",
            f"{health.failed} in the store",
            "the report says why: ipsrec-bench report SUITE; run SUITE tries them again",
        )
    log = store.with_name(f"{store.name}.wal")
    if log.exists():
        yield Finding(
            "store",
            "note",
            f"{log}: a command was killed while it wrote; DuckDB reads this log with the store",
            "keep both files together: the next run merges them",
        )


def _size(store: Path, health: Health) -> Finding:
    size = f"{store.stat().st_size / 2**20:,.1f} MiB"
    said = f"{store}: {health.complete} complete cells, {size}, schema version {health.version}"
    if health.is_current:
        return Finding("store", "ok", said)
    return Finding(
        "store",
        "note",
        f"{said}, written by an older version: its ranks were not checked",
        "nothing: the next command that reads it migrates it, and keeps the old file beside it",
    )


def check_claims(store: Path) -> Iterator[Finding]:
    """Yield which cells are running, what dead processes left behind, and which results wait for the store."""
    workplace = Workplace(store)
    try:
        with workplace.looked_at(LOCK_SECONDS) as places:
            held = [place.title for place in places if place.is_held]
            kept = [place.title for place in places if place.is_kept and not place.is_held]
            on = [place.title for place in places if place.goes_on and not (place.is_kept or place.is_held)]
            stale = [place.title for place in places if not (place.goes_on or place.is_held)]
    except StoreError as error:
        yield Finding("claims", "problem", str(error), "end the process that holds it, or try again")
        return
    yield Finding("claims", "ok", f"running now: {_named(held)}")
    if on:
        yield Finding("unfinished", "ok", f"trainings that the next run resumes: {_named(on)}")
    if kept:
        yield Finding(
            "kept results",
            "note",
            f"results that the store does not have yet: {_named(kept)}",
            "doctor --fix enters them, and so does the next run on this store",
            lambda: f"entered into the store: {len(_entered(store))}",
        )
    if stale:

        def sweep() -> str:
            workplace.sweep()
            return f"removed: {_named(stale)}"

        yield Finding("scratch", "note", f"left by dead processes: {_named(stale)}", "doctor --fix removes it", sweep)
    deaths = workplace.deaths()
    if deaths:
        causes = "; ".join(dict.fromkeys(cause for found in deaths.values() for cause in found))
        yield Finding(
            "deaths",
            "note",
            f"{'1 cell ended its' if len(deaths) == 1 else f'{len(deaths)} cells ended their'} process: {causes}",
            "find the cause, such as too little memory; run --retry-failed retries the cells that are skipped",
        )


def check_weights(store: Path, complete: frozenset[str]) -> Iterator[Finding]:
    """Yield which files beside the store no cell needs, and how many of its `complete` cells (keys) have no weights."""
    try:
        garbage = collect(store, dry_run=True)
    except StoreError as error:  # for example, a program has just locked it
        yield Finding("weights", "note", f"not checked: {error}", "try again")
        return
    if garbage.found:
        said = in_words(garbage, removed=False).replace("Would remove ", "no cell needs ")
        yield Finding("weights", "note", said, "ipsrec-bench gc removes them; gc --dry-run lists them")
    if garbage.not_looked_at:
        yield Finding("weights", "note", garbage.not_looked_at, "repair or move that file")
    checkpoints = Workplace(store).checkpoints
    bare = sum(not (checkpoints / f"{key}.safetensors").exists() for key in complete)
    if bare:
        yield Finding(
            "weights",
            "note",
            f"{bare} of {len(complete)} complete cells have no best weights in {checkpoints}",
            "nothing, if run --keep none was intended: ranks and reports do not need them",
        )
    if not (garbage.found or garbage.not_looked_at or bare):
        yield Finding("weights", "ok", f"{checkpoints}: those of {len(complete)} complete cells, and no others")


def check_leftovers(store: Path, data_dir: Path) -> Finding:
    """Return the half-written files and folders that killed processes left behind."""
    reports = [store.parent, *sorted(path for path in store.parent.glob("*") if path.is_dir())]
    made = [data_dir / name for name in ("prepared", "stand-ins")]
    left = [path for folder in reports if folder.is_dir() for path in files.left_behind(folder)]
    left += [path for folder in made for path in staging.left_behind(folder)]
    if not left:
        return Finding("leftovers", "ok", "no half-written files")

    def sweep() -> str:
        for folder in dict.fromkeys(path.parent for path in left):
            (staging if folder in made else files).sweep(folder)
        return f"removed: {_named([str(path) for path in left])}"

    said = f"half-written by killed processes: {_named([str(path) for path in left])}"
    return Finding("leftovers", "note", said, "doctor --fix removes them", sweep)


def _entered(store: Path) -> list[str]:
    """Enter the results that wait for the store; return their keys."""
    from ipsrec_bench.run.recording import Recorder

    workplace = Workplace(store)
    before = workplace.kept()
    Recorder(store, workplace, lambda _: None).enter_kept()
    return sorted({*before} - {*workplace.kept()})


def _named(titles: list[str]) -> str:
    if not titles:
        return "none"
    more = len(titles) - NAMED
    return f"{len(titles)} ({'; '.join(titles[:NAMED])}{f' and {more} more' if more > 0 else ''})"
