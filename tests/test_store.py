"""The store: one transaction a cell, its views, and every way in which it cannot be opened."""

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

from ipsrec_bench.errors import StoreError
from ipsrec_bench.ranking.metrics import metric, realistic_rank
from ipsrec_bench.ranking.rank import Ranks
from ipsrec_bench.store import queries
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.ingest import begin_run, record_cell
from ipsrec_bench.store.records import CellRecord, Environment, PlannedCell
from ipsrec_bench.suite.load import parse_suite
from ipsrec_bench.training.fit import Epoch

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
        epochs=(Epoch(1, 2.0, 1.5, None, 0.5, 0.5, 0.1, 9),),
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
def test_a_cutoff_that_is_none_is_refused_by_the_macro(store, n):
    with reading(store) as connection, pytest.raises(StoreError, match="the query failed"):
        queries.free_query(connection, f"SELECT * FROM metrics_at({n})")


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


def test_a_cell_is_written_whole_or_not_at_all(store):
    bad = record("new", ranks={"test": ranks([1]), "nonsense": ranks([1])})
    with pytest.raises(StoreError, match="the store cannot be read or written"), writing(store) as connection:
        record_cell(connection, bad)
    with reading(store) as connection:
        assert queries.complete_keys(connection, ["k", "new"]) == {"k"}
        assert counts(connection) == (1, 1, 6)


def counts(connection) -> tuple[int, int, int]:
    return tuple(
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("cells", "epochs", "ranks")
    )


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


def test_what_is_no_store_is_refused(tmp_path):
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
    with pytest.raises(StoreError, match="cannot be made there"), writing(tmp_path / "file" / "s.duckdb"):
        pass


def test_making_a_store_at_once_makes_one(tmp_path):
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
    with pytest.raises(StoreError, match="has schema version 99, this program reads versions up to 5"), reading(store):
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
