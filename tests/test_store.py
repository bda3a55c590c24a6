"""The store: one transaction per cell, its views, and every way in which it cannot be opened."""

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsrec_bench.data.split import TargetSet
from ipsrec_bench.data.split_statistics import SplitStatistics
from ipsrec_bench.errors import MissingStoreError, StoreError
from ipsrec_bench.ranking.metrics import metric, realistic_rank
from ipsrec_bench.ranking.ranks import Ranks
from ipsrec_bench.store import queries
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.ingest import begin_run, record_cell
from ipsrec_bench.store.records import (
    BESIDE_CELLS,
    CellRecord,
    DatasetRow,
    Environment,
    PlannedCell,
    RunDataset,
    columns_of,
)
from ipsrec_bench.suite.load import parse_suite
from ipsrec_bench.training.curve import Epoch

from .conftest import TINY_SUITE

HERE = Environment("0", "3", "2", "2", "2", "Linux", "cpu", 2, 2, "cpu", "abc")


def ranks(values) -> Ranks:
    higher = np.asarray(values, dtype=np.int32)
    return Ranks(np.arange(len(higher)), higher, np.zeros_like(higher))


def record(key="k", values=(0, 1, 9), **changes) -> CellRecord:
    base = CellRecord(
        key=key,
        fingerprint="f",
        type="pop",
        seed=1,
        settings='{"config": {}, "training": {}, "protocol": {"max_length": 5}}',
        environment=HERE,
        started=datetime.now(UTC),
        seconds=1.0,
        train_seconds=0.5,
        peak_memory=10,
        parameters=3,
        stop_metric="mrr@10",
        best_epoch=1,
        best_valid=0.5,
        epochs=(Epoch(1, 2.0, 0.5, 0.5, 0.1, 9, losses={"next-item": 1.5}),),
        ranks={"valid": ranks(values), "test": ranks(values)},
    )
    return replace(base, **changes)


@pytest.fixture
def store(tmp_path) -> Path:
    path = tmp_path / "s.duckdb"
    with writing(path) as connection:
        begin_run(connection, parse_suite(Path("tiny.toml"), TINY_SUITE), [], [planned("k")])
        record_cell(connection, record())
    return path


COLUMNS = {
    "cells": {*columns_of(CellRecord)} - BESIDE_CELLS | {"cell", "status", "environment"},
    "cell_targets": {*columns_of(TargetSet), "cell", "split"},
    "datasets": {*columns_of(DatasetRow)},
    "environments": {*columns_of(Environment), "environment"},
    "epochs": {*columns_of(Epoch), "cell"} - {"losses"},
    "imported_cells": {*columns_of(PlannedCell), "suite"},
    "run_cells": {*columns_of(PlannedCell), "run", "position"},
    "run_datasets": {*columns_of(RunDataset), "run", "dataset"},
    "splits": {*columns_of(SplitStatistics), "fingerprint", "split"},
}


def test_the_fields_of_a_record_are_the_columns_of_its_table(store):
    with reading(store) as connection:
        rows = connection.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
    found = {table: {name for of, name in rows if of == table} for table in COLUMNS}
    assert found == COLUMNS


def planned(key, label="pop", variant="", seed=1) -> PlannedCell:
    return PlannedCell(key, "world", label, label.title(), label, variant, seed)


def test_views_give_metrics_at_any_cutoff(store):
    with reading(store) as connection:
        row = connection.execute('SELECT users, "hr@5", "mrr@10" FROM metrics WHERE split = \'test\'').fetchone()
        assert row == (3, pytest.approx(2 / 3), pytest.approx((1 + 1 / 2 + 1 / 10) / 3))
        at_one = connection.execute("SELECT hr, mrr, ndcg FROM metrics_at(1) WHERE split = 'valid'").fetchone()
        assert at_one == pytest.approx((1 / 3, 1 / 3, 1 / 3))
        assert connection.execute("SELECT min(rank), max(rank), count(*) FROM user_ranks").fetchone() == (1, 10, 6)


@pytest.mark.parametrize("n", ["0", "-1", "NULL", "2.5", "1e20", "3000000000", "'x'"])
def test_an_invalid_cutoff_is_refused_by_the_macro(store, n):
    with reading(store) as connection, pytest.raises(StoreError, match="the query failed"):
        queries.free_query(connection, f"SELECT * FROM metrics_at({n})", 1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=20), st.integers(1, 100))
def test_sql_metrics_equal_numpy_metrics(pairs, n):
    higher, ties = np.array(pairs).T
    rank = realistic_rank(higher, ties)
    connection = duckdb.connect()
    connection.execute((Path(queries.__file__).parent / "schema.sql").read_text())
    for (h, t), r in zip(pairs, rank, strict=True):
        found = connection.execute(
            f"SELECT realistic_rank({h}, {t}) AS r, hr(r, {n}), mrr(r, {n}), ndcg(r, {n})"
        ).fetchone()
        values = [metric(f"{name}@{n}", np.array([r]))[0] for name in ("hr", "mrr", "ndcg")]
        assert found == pytest.approx((r, *values))


def test_every_table_and_view_is_described(store):
    with reading(store) as connection:
        silent = connection.execute("SELECT table_name FROM duckdb_tables() WHERE comment IS NULL").fetchall()
    assert silent == []


def test_cells_are_written_atomically(store):
    bad = record("new", ranks={"test": ranks([1]), "nonsense": ranks([1])})
    with pytest.raises(StoreError, match="'nonsense'"), writing(store) as connection:
        record_cell(connection, bad)
    with reading(store) as connection:
        assert queries.complete_keys(connection, ["k", "new"]) == {"k"}
        assert counts(connection) == (1, 1, 6)


def counts(connection) -> tuple[int, int, int]:
    return tuple(
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("cells", "epochs", "ranks")
    )


def test_the_losses_of_every_stage_are_kept_in_the_order_of_the_training(store):
    """A pretraining stage has no validation; its epochs have numbers of their own."""
    staged = (
        Epoch(1, 3.0, None, 0.5, 0.0, 9, "warm", {"next-item": 2.0, "b": 1.0}),
        Epoch(2, 2.5, None, 0.5, 0.0, 9, "warm", {"next-item": 1.5, "b": 1.0}),
        Epoch(1, 2.0, None, 0.5, 0.0, 9, "after", {"a": 2.0}),
        Epoch(1, 1.0, 0.25, 0.5, 0.1, 9, losses={"next-item": 0.75, "penalty": 0.25}),
    )
    with writing(store) as connection:
        record_cell(connection, record("staged", epochs=staged))
    with reading(store) as connection:
        points = queries.learning_curves(connection, ["staged", "k"])
        assert [point for point in points if point.key == "staged"] == [
            queries.CurvePoint("staged", e.epoch, e.loss, e.valid, e.stage, e.losses) for e in staged
        ]
        (plain,) = (point for point in points if point.key == "k")
        assert (plain.stage, plain.valid, plain.losses) == ("main", 0.5, {"next-item": 1.5})
    with writing(store) as connection:
        record_cell(connection, record("staged"))  # replaces every row
        assert connection.execute("SELECT count(*) FROM losses").fetchall() == [(2,)]


def test_results_replace_failures_and_results_but_failures_replace_no_result(store):
    failed = {"error": "Traceback\nValueError: no", "ranks": None, "epochs": ()}
    with writing(store) as connection:
        record_cell(connection, record("other", **failed))
        assert counts(connection) == (2, 1, 6)
        assert queries.complete_keys(connection, ["k", "other"]) == {"k"}
        assert queries.cell_summaries(connection, ["other"])["other"].error.endswith("ValueError: no")
        record_cell(connection, record("other", values=(4, 4)))
        record_cell(connection, record("k", **failed))
    with reading(store) as connection:
        assert queries.complete_keys(connection, ["k", "other"]) == {"k", "other"}
        assert counts(connection) == (2, 2, 10)
        assert queries.test_ranks(connection, ["other"])["other"].ranks.tolist() == [5, 5]
    with writing(store) as connection:
        record_cell(connection, record("k", values=(7,)))
        assert counts(connection) == (2, 2, 6)


def test_reading_needs_no_torch():
    program = """
        import sys
        import ipsrec_bench.store.queries, ipsrec_bench.store.ingest, ipsrec_bench.report.build
        sys.exit("torch" in sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


@contextmanager
def held_by_another_process(path):
    program = f"import duckdb, sys\nc = duckdb.connect({str(path)!r})\nprint('open', flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait()


def test_a_locked_store_names_the_holder_and_is_waited_for(store, monkeypatch):
    monkeypatch.setattr("ipsrec_bench.store.connect.PATIENCE_SECONDS", 0.2)
    waited = []

    def on_wait(message):
        waited.append(message)
        process.stdin.close()

    with held_by_another_process(store) as process:
        with pytest.raises(StoreError, match=rf"locked by another process: .*PID {process.pid}"), reading(store):
            pass
        with writing(store, patience=30, on_wait=on_wait) as connection:
            record_cell(connection, record("late"))
    assert len(waited) == 1
    with reading(store) as connection:
        assert queries.complete_keys(connection, ["late"]) == {"late"}


def test_a_file_that_is_not_a_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="there is no result store yet"), reading(tmp_path / "none.duckdb"):
        pass
    (tmp_path / "text.duckdb").write_text("x" * 5000)
    (tmp_path / "folder.duckdb").mkdir()
    duckdb.connect(str(tmp_path / "other.duckdb")).execute("CREATE TABLE t (x INT)").close()
    duckdb.connect(str(tmp_path / "alike.duckdb")).execute("CREATE TABLE store (x INT)").close()
    (tmp_path / "clock.duckdb").write_text("x" * 5000)
    for name, words in (
        ("text.duckdb", "cannot be opened as a result store"),
        ("clock.duckdb", "cannot be opened as a result store"),
        ("alike.duckdb", "is not a result store of ipsrec-bench"),
        ("folder.duckdb", "cannot be opened as a result store"),
        ("other.duckdb", "is not a result store of ipsrec-bench"),
    ):
        for opened in (reading, writing):
            with pytest.raises(StoreError, match=words), opened(tmp_path / name):
                pass
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be created there"), writing(tmp_path / "file" / "s.duckdb"):
        pass


@pytest.mark.parametrize(
    "name", [":memory:", "md:x", "s3:x", "it's", "a b.db", "x.csv", "system", "temp.duckdb", "memory"]
)
def test_a_store_has_any_name_of_a_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with writing(Path(name)) as connection:
        record_cell(connection, record())
    with reading(Path(name)) as connection:
        assert queries.complete_keys(connection, ["k"]) == {"k"}
        assert connection.execute("SELECT count(*) FROM ranks").fetchall() == [(6,)]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_no_store_can_have_gets_a_sentence(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for name, words in (
        ("a?b.duckdb", "a name with '?'"),
        ("a?b/s.duckdb", "a name with '?'"),
        ("s" * 300, "cannot be there"),
        ("loop", "cannot be there"),
        ("", "it is not a file"),
    ):
        for opened in (reading, writing):
            with pytest.raises(StoreError, match=re.escape(words)), opened(tmp_path / name):
                pass
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        for opened in (reading, writing):
            with pytest.raises(StoreError, match="it is not a file"), opened(path):
                pass
    assert not Path("/dev/null").is_file()


def test_an_empty_file_becomes_a_store(tmp_path):
    zero, empty, link = tmp_path / "zero.duckdb", tmp_path / "empty.duckdb", tmp_path / "link.duckdb"
    zero.touch()
    duckdb.connect(str(empty)).close()
    link.symlink_to(tmp_path / "elsewhere" / "s.duckdb")
    for path in (zero, empty, link):
        with pytest.raises(MissingStoreError, match="there is no result store yet"), reading(path):
            pass
    for path in (zero, empty, link):
        with writing(path) as connection:
            record_cell(connection, record())
        with reading(path) as connection:
            assert queries.complete_keys(connection, ["k"]) == {"k"}
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "s.duckdb").is_file()


def test_a_store_that_is_removed_or_replaced_while_it_is_waited_for_is_made_anew(store):
    def removed(_):
        store.unlink()
        process.stdin.close()

    with held_by_another_process(store) as process, writing(store, patience=30, on_wait=removed) as connection:
        record_cell(connection, record("late"))
    with reading(store) as connection:
        assert queries.complete_keys(connection, ["k", "late"]) == {"late"}


def test_sql_reaches_only_the_store(store, tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n", encoding="utf-8")
    with duckdb.connect(str(store)) as connection:  # as a stranger may have made it
        connection.execute(f"CREATE VIEW leak AS SELECT * FROM read_csv('{secret}', columns = {{'a': 'INTEGER'}})")
    for opened in (reading, writing):
        with opened(store) as connection:
            for sql in (
                "FROM leak",
                f"FROM '{secret}'",
                f"FROM read_text('{secret}')",
                "FROM read_text('/etc/passwd')",
                f"COPY cells TO '{tmp_path / 'leak.csv'}'",
                f"ATTACH '{tmp_path / 'other.duckdb'}'",
                f"EXPORT DATABASE '{tmp_path / 'all'}'",
                "INSTALL spatial",
                "LOAD spatial",
                "SET enable_external_access = true",
                "SET allowed_paths = ['/etc/passwd']",
                "FROM 'https://example.org/x.csv'",
            ):
                with pytest.raises(duckdb.Error):
                    connection.execute(sql)
                if opened is writing:  # its transaction has failed
                    connection.rollback()
                    connection.begin()
            for setting in ("autoinstall_known_extensions", "autoload_known_extensions", "enable_external_access"):
                assert connection.execute("SELECT current_setting(?)", [setting]).fetchall() == [(False,)]
    assert {path.name for path in tmp_path.iterdir()} == {"s.duckdb", "secret.csv"}


def test_a_file_of_another_kind_asks_for_no_extension(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "s.duckdb")) as other:
        other.execute("CREATE TABLE store (version INTEGER)")
        other.commit()
    for opened in (reading, writing):
        with pytest.raises(StoreError, match="cannot be opened as a result store"), opened(tmp_path / "s.duckdb"):
            pass


def test_large_queries_may_use_the_disk(store):
    with reading(store) as connection:
        connection.execute("SET memory_limit = '60MB'; SET threads = 1")
        rows = queries.free_query(
            connection, "SELECT max(x) FROM (SELECT x FROM range(4_000_000) t(x) ORDER BY hash(x) DESC OFFSET 1)", 1
        ).rows
    assert rows[0][0] >= 3_999_998


def test_processes_that_create_a_store_at_once_create_one(tmp_path):
    path = str(tmp_path / "s.duckdb")
    program = f"""
        from pathlib import Path
        from ipsrec_bench.store.connect import writing
        with writing(Path({path!r}), patience=60):
            pass
    """
    processes = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["s.duckdb"]


def test_another_version_is_refused(store):
    duckdb.connect(str(store)).execute("UPDATE store SET version = 99").close()
    with pytest.raises(StoreError, match="has schema version 99, this program reads versions up to 9"), reading(store):
        pass


def test_runs_are_found_by_suite_and_latest(store):
    with writing(store) as connection:
        begin_run(connection, parse_suite(Path("other.toml"), TINY_SUITE), [], [planned("missing"), planned("k")])
    with reading(store) as connection:
        assert queries.find_run(connection).suite_name == "other"
        assert queries.find_run(connection, "tiny").cells == (planned("k"),)
        with pytest.raises(StoreError, match="no run of a suite 'tini'; did you mean 'tiny'"):
            queries.find_run(connection, "tini")
        summaries = queries.suite_summaries(connection)
    assert [(s.suite, s.cells, s.complete, s.failed) for s in summaries] == [("other", 2, 1, 0), ("tiny", 1, 1, 0)]


def test_too_little_memory_is_not_mistaken_for_a_damaged_store(tmp_path):
    with writing(tmp_path / "s.duckdb"):
        pass
    with (
        pytest.raises(StoreError, match=r"there is too little memory to read or write the store: .*bad allocation"),
        reading(tmp_path / "s.duckdb"),
    ):
        raise duckdb.OutOfMemoryException("Failed to allocate block of 6643840 bytes (bad allocation)")
