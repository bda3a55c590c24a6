"""What `gc` removes beside a store, and what it leaves."""

import re
import shutil
from pathlib import Path

import duckdb
import pytest

from ipsrec_bench.run.workplace import KEPT, STATE, Workplace

from .test_run import ALL_RANKS, STORE, table

UNKNOWN = "0" * 32
"""Key of no cell."""


def weights(folder: Path) -> set[str]:
    return {path.stem for path in (folder / STORE).with_name("checkpoints").iterdir()}


def change(store: Path, *statements: str) -> None:
    with duckdb.connect(str(store)) as connection:
        for statement in statements:
            connection.execute(statement)


def left_by_a_dead_run(place: Workplace, key: str, file: str) -> Path:
    claim = place.claim(key, "a cell")
    (claim.folder / file).write_bytes(b"x" * 2**20)
    claim.give_back()
    return claim.folder


def test_gc_removes_weights_of_no_cell_and_says_how_many(finished, bench):
    before, ranks = weights(finished), table(finished / STORE, ALL_RANKS)
    assert bench("gc").stdout == "There is nothing to remove\n"
    checkpoints = (finished / STORE).with_name("checkpoints")
    for name in (f"{UNKNOWN}.safetensors", "mine.safetensors", f"{UNKNOWN}.txt"):
        (checkpoints / name).write_bytes(b"x" * 2**20)
    dry = bench("gc", "--dry-run").stdout.splitlines()
    assert dry == [
        f"reports/checkpoints/{UNKNOWN}.safetensors: checkpoint, 1.0 MiB",
        "Would remove 1 file, 1.0 MiB: 1 checkpoint",
    ]
    assert UNKNOWN in weights(finished)
    assert bench("gc").stdout == "Removed 1 file, 1.0 MiB: 1 checkpoint\n"
    assert {path.name for path in checkpoints.iterdir()} == {
        *(f"{key}.safetensors" for key in before),
        "mine.safetensors",
        f"{UNKNOWN}.txt",
    }
    assert table(finished / STORE, ALL_RANKS) == ranks


def test_gc_keeps_weights_of_superseded_cells(finished, bench):
    before = weights(finished)
    change(finished / STORE, "DELETE FROM run_cells WHERE seed = 2")
    assert bench("gc").stdout == "There is nothing to remove\n"
    assert weights(finished) == before


def test_gc_keeps_unfinished_trainings_that_the_newest_run_plans(finished, bench):
    store = finished / STORE
    planned, failed = (key for (key,) in table(store, "SELECT key FROM cells WHERE type = 'sasrec' ORDER BY seed"))
    change(
        store,
        f"DELETE FROM cells WHERE key = '{planned}'",
        f"UPDATE cells SET status = 'failed' WHERE key = '{failed}'",
    )
    complete = table(store, "SELECT min(key) FROM cells WHERE status = 'complete'")[0][0]
    place = Workplace(store)
    folders = {key: left_by_a_dead_run(place, key, STATE) for key in (planned, failed, complete, UNKNOWN)}
    said = bench("gc").stdout
    assert re.fullmatch(r"Removed \d+ files, 2\.0 MiB: 2 unfinished trainings\n", said), said
    assert {key for key, folder in folders.items() if folder.exists()} == {planned, failed}
    # Weights of a cell that is being trained again are not looked at.
    assert {planned, failed} <= weights(finished)


def test_gc_keeps_running_cells_and_results_that_wait_for_the_store(finished, bench):
    place = Workplace(finished / STORE)
    claim = place.claim(UNKNOWN, "a cell")
    (claim.folder / STATE).touch()
    kept = left_by_a_dead_run(place, UNKNOWN[:-1] + "1", KEPT)
    checkpoints = (finished / STORE).with_name("checkpoints")
    for key in (claim.folder.name, kept.name):
        (checkpoints / f"{key}.safetensors").touch()
    dead = finished / f"{STORE}.d" / "trials" / "dead"
    dead.mkdir(parents=True)
    (dead / "weights").touch()
    with place.scratch() as trial:
        assert "1 abandoned trial" in bench("gc").stdout
        assert trial.exists()
    assert not dead.exists()
    assert (claim.folder / STATE).exists()
    assert (kept / KEPT).exists()
    assert {claim.folder.name, kept.name} <= weights(finished)
    claim.give_back()


def test_stores_that_share_a_folder_share_the_weights(finished, bench):
    store = finished / STORE
    other = store.with_name("part-2")
    shutil.copy(store, other)
    change(store, "DELETE FROM cells WHERE type = 'pop'")
    before = weights(finished)
    assert bench("gc").stdout == "There is nothing to remove\n"
    other.write_bytes(other.read_bytes()[:20_000])  # still a DuckDB file by its first bytes
    done = bench("gc")
    assert done.stdout == "There is nothing to remove\n"
    assert "nothing is removed there, since a store may need it: " in done.stderr
    assert "part-2" in done.stderr
    assert weights(finished) == before
    other.unlink()
    assert "1 checkpoint" in bench("gc").stdout
    assert len(weights(finished)) == len(before) - 1


@pytest.mark.parametrize("store", ["reports/typo.duckdb", "reports/junk.duckdb"])
def test_without_a_readable_store_gc_removes_nothing(finished, bench, store):
    (finished / "reports/junk.duckdb").write_text("junk" * 2000)
    before = weights(finished)
    done = bench("gc", "--store", store)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert weights(finished) == before
    assert not (finished / f"{store}.d").exists()
