"""Stores of separate runs, merged into one."""

import functools
import lzma
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from safetensors.numpy import load_file

from ipsrec_bench.report.build import build_report
from ipsrec_bench.report.material import read_material
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.run.engine import execute
from ipsrec_bench.run.merge import check_parts, merge
from ipsrec_bench.run.plan import make_plan
from ipsrec_bench.run.workplace import KEPT
from ipsrec_bench.store import queries
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.ingest import begin_run, claim_name, record_cell, record_import
from ipsrec_bench.store.records import EXTERNAL
from ipsrec_bench.suite.load import load_suite, parse_suite
from ipsrec_bench.suite.shards import Shard
from ipsrec_bench.words import counted

from .conftest import TINY_SUITE
from .test_migrate import STORES, tables
from .test_run import ALL_RANKS, STORE, table
from .test_run import HERE as IN_PROCESS
from .test_store import HERE, held_by_another_process, planned, record

FAILED = {"error": "Traceback\nValueError: no", "ranks": None, "epochs": ()}


def run_share(suite, folder, store, share, overrides=()):
    """Run a share of `suite`, or nothing if the share is None; return how the run ended."""
    plan = make_plan(load_suite(suite, overrides), folder / "data", store, lambda _: None)
    plan = plan.limited_to(share) if share else replace(plan, share=frozenset())
    return execute(plan, store, IN_PROCESS, lambda _: None)


@functools.cache
def empty_store():
    """Return the file of a store without rows: copying it is faster than building its schema."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.duckdb"
        with writing(path):
            pass
        return path.read_bytes()


def make_store(path, *records, suite="tiny.toml", wanted=()):
    """Make a store with a run of `suite` that planned the cells `wanted`, and with `records`."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(empty_store())
    with writing(path) as connection:
        begin_run(connection, parse_suite(Path(suite), TINY_SUITE), [], wanted or [planned(r.key) for r in records])
        for one in records:
            record_cell(connection, one)
    return path


def merged(into, *parts):
    check_parts(into, parts, pytest.fail)
    return [merge(into, part, pytest.fail) for part in parts]


def statuses(store):
    return dict(table(store, "SELECT key, status FROM cells"))


CURVES = """
    SELECT key, epochs.* EXCLUDE (cell, train_seconds, valid_seconds) FROM epochs JOIN cells USING (cell) ORDER BY ALL
"""
LOSSES = "SELECT key, losses.* EXCLUDE (cell) FROM losses JOIN cells USING (cell) ORDER BY ALL"
WANTED = "SELECT * EXCLUDE (run) FROM run_cells WHERE run = (SELECT max(run) FROM runs) ORDER BY position"
OF_DATA = (
    "FROM datasets ORDER BY ALL",
    "FROM splits ORDER BY ALL",
    "FROM targets ORDER BY ALL",
    "SELECT key, cell_targets.* EXCLUDE (cell) FROM cell_targets JOIN cells USING (cell) ORDER BY ALL",
    "SELECT * EXCLUDE (run) FROM run_datasets WHERE run = (SELECT max(run) FROM runs) ORDER BY ALL",
)


def weights_beside(store: Path) -> dict[str, dict[str, bytes]]:
    """Return the tensors of every file of weights; the order of a file's metadata is arbitrary."""
    files = (store.parent / "checkpoints").iterdir()
    return {path.name: {name: one.tobytes() for name, one in load_file(path).items()} for path in files}


def test_shares_run_apart_and_merged_equal_the_whole(finished, tmp_path, bench):
    suite, whole = finished / "tiny.toml", finished / STORE
    parts = [Path(f"part-{number}") / "part.duckdb" for number in (1, 2, 3)]
    ended = [run_share(suite, tmp_path, tmp_path / part, Shard(n, 3)) for n, part in enumerate(parts, 1)]
    assert sum(one.complete for one in ended) == 8
    assert all(one.complete < 8 for one in ended)
    done = bench("merge", "all/all.duckdb", *parts)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(" entered")[0] for line in done.stdout.splitlines()] == [
        f"{part}: {counted(one.complete, 'cell')}" for part, one in zip(parts, ended, strict=True)
    ]
    everything = tmp_path / "all" / "all.duckdb"
    for sql in (ALL_RANKS, CURVES, LOSSES, WANTED, *OF_DATA):
        assert table(everything, sql) == table(whole, sql) != []
    assert weights_beside(everything) == weights_beside(whole)
    done = bench("report", "tiny.toml", "--store", "all/all.duckdb", "--format", "md")
    assert (done.returncode, done.stderr) == (0, "")
    assert "8 of 8 cells complete" in (tmp_path / "all" / "tiny" / "tiny.md").read_text(encoding="utf-8")


def test_a_run_of_no_cells_reports_what_is_there(tiny_suite, tmp_path):
    store, counting = tmp_path / STORE, ['models=["pop", "recent-pop", "repeat", "markov"]']
    complete = run_share(tiny_suite, tmp_path, store, Shard(1, 2), counting).complete
    assert 0 < complete < 4
    ended = run_share(tiny_suite, tmp_path, store, None, counting)
    assert (ended.complete, ended.failed) == (0, 0)
    with reading(store) as connection:
        report = build_report(read_material(connection, read_run(connection)))
    assert (report.cells, len(report.missing)) == (4, 4 - complete)


def test_merging_again_changes_nothing(tmp_path):
    one = make_store(tmp_path / "1.duckdb", record("a"), record("b", **FAILED))
    two = make_store(tmp_path / "2.duckdb", record("a"), record("c"))
    before = [one.read_bytes(), two.read_bytes()]
    into = tmp_path / "all.duckdb"
    merged(into, one, two)
    rows = tables(into)
    assert statuses(into) == {"a": "complete", "b": "failed", "c": "complete"}
    again = merged(into, two, one, one)
    assert tables(into) == rows
    assert all((part.rows.complete, part.rows.failed, part.rows.conflicts) == (0, 0, ()) for part in again)
    assert [one.read_bytes(), two.read_bytes()] == before
    assert {path.name for path in tmp_path.iterdir()} == {"1.duckdb", "2.duckdb", "all.duckdb"}


@pytest.mark.parametrize(
    ("ours", "theirs", "kept"),
    [
        ({}, FAILED, "ours"),
        (FAILED, {}, "theirs"),
        (FAILED, FAILED, "ours"),
        ({}, {}, "ours"),
    ],
)
def test_a_result_replaces_a_failure_and_nothing_else(tmp_path, ours, theirs, kept):
    into = make_store(tmp_path / "all.duckdb", record("k", parameters=1, **ours))
    part = make_store(tmp_path / "part.duckdb", record("k", parameters=2, **theirs))
    merged(into, part)
    assert table(into, "SELECT parameters FROM cells") == [({"ours": 1, "theirs": 2}[kept],)]
    wanted = 0 if kept == "ours" and ours else 6
    assert table(into, "SELECT count(*) FROM ranks") == [(wanted,)]
    for of_epochs in ("epochs", "losses"):
        assert table(into, f"SELECT count(*) FROM {of_epochs}") == [(wanted // 6,)]


def test_unequal_ranks_are_reported_and_the_target_keeps_its_own(tmp_path, bench):
    other = replace(HERE, threads=8, processor="other")
    make_store(tmp_path / "all.duckdb", record("k", values=(0, 1, 9)), record("same"))
    part = make_store(
        tmp_path / "part.duckdb", record("k", values=(0, 5, 9), environment=other), record("same"), record("new")
    )
    (tmp_path / "elsewhere").mkdir()
    part = part.rename(tmp_path / "elsewhere" / "part.duckdb")
    (part.parent / "checkpoints").mkdir()
    for key in ("k", "same", "new"):
        (part.parent / "checkpoints" / f"{key}.safetensors").write_text(f"theirs {key}", encoding="utf-8")
    for entered in (1, 0):
        done = bench("merge", "all.duckdb", "elsewhere/part.duckdb")
        assert done.returncode == 1
        entries = counted(entered, "cell")
        assert done.stdout == f"elsewhere/part.duckdb: {entries} entered; {2 - entered} were there already\n"
        assert done.stderr == (
            "elsewhere/part.duckdb: conflict: 'pop' on 'world', seed 1 (key k): 1 of 3 users have other ranks; the"
            " environments differ in processor (cpu and other), threads (2 and 8). all.duckdb keeps its own result\n"
        )
    assert statuses(tmp_path / "all.duckdb") == dict.fromkeys(("k", "same", "new"), "complete")
    with reading(tmp_path / "all.duckdb") as connection:
        assert queries.test_ranks(connection, ["k"])["k"].ranks.tolist() == [1, 2, 10]
    weights = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert weights == {"same.safetensors", "new.safetensors"}


def test_other_users_are_a_conflict_too(tmp_path):
    into = make_store(tmp_path / "all.duckdb", record("k", values=(0, 1)))
    part = make_store(tmp_path / "part.duckdb", record("k", values=(0, 1, 2)))
    (found,) = merged(into, part)
    assert [c.difference for c in found.rows.conflicts] == ["1 of 3 users have other ranks; the environments are equal"]


def test_existing_weights_are_not_replaced(tmp_path):
    into = make_store(tmp_path / "all" / "s.duckdb", record("a"))
    part = make_store(tmp_path / "part" / "s.duckdb", record("a"))
    for store in (into, part):
        (store.parent / "checkpoints").mkdir()
        (store.parent / "checkpoints" / "a.safetensors").write_text(store.parent.name, encoding="utf-8")
    merged(into, part)
    assert (into.parent / "checkpoints" / "a.safetensors").read_text(encoding="utf-8") == "all"


def test_what_an_older_version_did_not_count_is_taken_from_the_part(tmp_path):
    stores = [make_store(tmp_path / name) for name in ("a.duckdb", "b.duckdb")]
    for store, known in zip(stores, ("0.1, 0.2, 0.3, NULL, NULL", "0.5, 0.5, 0.5, 0.4, 7"), strict=True):
        with writing(store) as connection:
            connection.execute(f"INSERT INTO splits VALUES ('f', 'leave-one-out', 9, 9, {known})")
    merged(*stores)
    (line,) = table(stores[0], "SELECT * EXCLUDE (fingerprint, split) FROM splits")
    assert line == (9, 9, 0.1, 0.2, 0.3, 0.4, 7)


def test_the_newest_run_is_the_one_that_began_last_whatever_is_merged_first(tmp_path):
    old = make_store(tmp_path / "old.duckdb", record("a"), wanted=[planned("a")])
    new = make_store(tmp_path / "new.duckdb", record("b"), wanted=[planned("a"), planned("b", seed=2)])
    other = make_store(tmp_path / "other.duckdb", record("a"), suite="other.toml")
    for name, parts in (("one", (old, new, other)), ("two", (other, new, old))):
        into = tmp_path / f"{name}.duckdb"
        merged(into, *parts)
        with reading(into) as connection:
            assert [cell.key for cell in queries.find_run(connection, "tiny").cells] == ["a", "b"]
            assert queries.find_run(connection, "other").cells == (planned("a"),)
            assert queries.complete_keys(connection, ["a", "b"]) == {"a", "b"}


def test_parts_of_a_suite_that_lay_elsewhere_on_other_machines_are_merged(tmp_path):
    parts = []
    for machine in ("here", "there"):
        folder = tmp_path / machine
        folder.mkdir()
        (folder / "tiny.toml").write_text(TINY_SUITE, encoding="utf-8")
        parts.append(make_store(folder / "results" / "s.duckdb", record(machine)))
        with writing(parts[-1]) as connection:
            claim_name(connection, load_suite(folder / "tiny.toml"), parts[-1])
    (tmp_path / "arrived").mkdir()  # without the suite's file
    parts[1] = Path(shutil.copy(parts[1], tmp_path / "arrived" / "s.duckdb"))
    into = tmp_path / "deep" / "down" / "all.duckdb"
    merged(into, *parts)
    assert statuses(into) == {"here": "complete", "there": "complete"}
    assert table(into, "SELECT suite, place FROM suites") == [("tiny", "../../here/tiny.toml")]


def test_another_suite_of_the_same_name_is_refused_and_nothing_of_the_part_entered(tmp_path, bench):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "tiny.toml"
        path.write_text(TINY_SUITE.replace("Tiny", folder), encoding="utf-8")
        store = make_store(tmp_path / folder / "s.duckdb", record(folder))
        with writing(store) as connection:
            claim_name(connection, load_suite(path), store)
    done = bench("merge", "all.duckdb", "one/s.duckdb", "two/s.duckdb")
    assert done.returncode == 2
    assert f"two/s.duckdb: its suite 'tiny' is that of {tmp_path}/two/tiny.toml" in done.stderr
    assert f"all.duckdb has another one of this name, of {tmp_path}/one/tiny.toml; merge into" in done.stderr
    assert statuses(tmp_path / "all.duckdb") == {"one": "complete"}
    assert table(tmp_path / "all.duckdb", "SELECT count(*) FROM runs") == [(1,)]


def enter_import(store, key, file, world):
    ranked = record(key, type=EXTERNAL, settings=f'{{"config": {{"file": "{file}"}}}}', epochs=(), values=(1, 2))
    with writing(store) as connection:
        record_import(connection, "tiny", world, planned(key, "theirs"), ranked)


def test_imports_of_different_files_under_one_name_are_a_conflict(tmp_path, world):
    into, part = (make_store(tmp_path / f"{name}.duckdb", record("a")) for name in ("all", "part"))
    enter_import(part, "x", "b.csv", world)
    (found,) = merged(into, part)
    assert (found.rows.complete, found.rows.conflicts) == (1, ())
    assert statuses(into) == {"a": "complete", "x": "complete"}
    other = make_store(tmp_path / "other.duckdb", record("a"))
    enter_import(other, "y", "a.csv", world)
    (found,) = merged(into, other)
    assert found.rows.complete == 0
    assert [(c.row, c.key, c.difference) for c in found.rows.conflicts] == [
        ("'theirs' on 'world', seed 1", "y", "imported from a.csv, not from b.csv")
    ]
    assert statuses(into) == {"a": "complete", "x": "complete"}


def test_results_that_wait_beside_a_part_are_reported(tmp_path, bench):
    part = make_store(tmp_path / "part-3.duckdb", record("a"))
    for key in ("b", "c"):
        folder = part.with_name(f"{part.name}.d") / "cells" / key
        folder.mkdir(parents=True)
        (folder / KEPT).touch()
    done = bench("merge", "all.duckdb", "part-3.duckdb")
    assert done.returncode == 0
    assert done.stderr == (
        "part-3.duckdb: 2 results wait beside it and are not in it; enter them with ipsrec-bench run SUITE --store"
        " part-3.duckdb --collect, and merge again\n"
    )


def test_what_cannot_be_merged_is_refused_before_anything_is_written(tmp_path, bench):
    make_store(tmp_path / "good.duckdb", record("a"))
    (tmp_path / "again.duckdb").symlink_to("good.duckdb")
    (tmp_path / "old.duckdb").write_bytes(lzma.decompress(STORES[0].read_bytes()))
    (tmp_path / "empty.duckdb").touch()
    (tmp_path / "text.duckdb").write_text("x" * 5000, encoding="utf-8")
    duckdb.connect(str(tmp_path / "table.duckdb")).execute("CREATE TABLE t (x INT)").close()
    for into, part, words in (
        ("all.duckdb", "none.duckdb", "none.duckdb: there is no result store"),
        ("all.duckdb", "empty.duckdb", "empty.duckdb: there is no result store"),
        ("all.duckdb", "text.duckdb", "text.duckdb: cannot be opened as a result store"),
        ("all.duckdb", "table.duckdb", "table.duckdb: this DuckDB file is not a result store"),
        ("all.duckdb", "old.duckdb", "bring it to version 9 with `ipsrec-bench ls --store old.duckdb`"),
        ("good.duckdb", "again.duckdb", "again.duckdb: a store cannot be merged into itself"),
        ("text.duckdb", "good.duckdb", "text.duckdb: cannot be opened as a result store"),
    ):
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        done = bench("merge", into, "good.duckdb" if into == "all.duckdb" else part, part)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_part_that_is_being_written_is_waited_for(tmp_path):
    part = make_store(tmp_path / "part.duckdb", record("a"))
    into, waited = tmp_path / "all.duckdb", []

    def on_wait(message):
        waited.append(message)
        process.stdin.close()

    with held_by_another_process(part) as process:
        merge(into, part, on_wait)
    assert statuses(into) == {"a": "complete"}
    assert [message.partition(" the store")[0] for message in waited] == [f"{part}:"]


@pytest.mark.parametrize("name", ["part", "whole", "it's"])
def test_stores_of_any_name_are_merged(tmp_path, name):
    part = make_store(tmp_path / "parts" / f"{name}.duckdb", record("a"))
    into = tmp_path / f"{name}.duckdb"
    merged(into, part)
    merged(into, make_store(tmp_path / "parts" / "part.duckdb", record("b")))
    assert statuses(into) == {"a": "complete", "b": "complete"}
