"""Stores of every schema that has landed: each file in tests/stores was made by the commit in its name.

The first number is the version of the schema. That commit's code ran a small suite with DuckDB 1.4: complete cells of
four rows, one failed cell, and from version 4 on an import.
"""

import json
import lzma
import subprocess
import sys
import textwrap
from functools import reduce
from pathlib import Path

import duckdb
import numpy as np
import pytest

from ipsrec_bench.errors import StoreError
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.store import migrate, queries
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.ingest import begin_run, record_cell
from ipsrec_bench.suite.load import parse_suite

from .conftest import TINY_SUITE
from .test_cli import refused
from .test_store import planned, record

STORES = sorted((Path(__file__).parent / "stores").glob("*.xz"))
ROWS = ("sasrec", "ipsrec-s", "ipsrec-s w/o CL", "pop")


@pytest.fixture(params=STORES, ids=lambda path: path.name.removesuffix(".duckdb.xz"))
def old(request, tmp_path) -> tuple[Path, int]:
    return unpacked(request.param, tmp_path)


@pytest.fixture
def newest(tmp_path) -> Path:
    return unpacked(STORES[-1], tmp_path)[0]


def unpacked(packed: Path, folder: Path) -> tuple[Path, int]:
    path = folder / "reports" / "ipsrec-bench.duckdb"
    path.parent.mkdir()
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    return path, int(packed.name.partition("-")[0])


def tables(path: Path) -> dict[str, tuple[list[str], list[tuple]]]:
    """Return columns and rows of all tables but `store`, rows in order; read by DuckDB alone."""
    with duckdb.connect(str(path), read_only=True) as connection:
        names = [
            name
            for (name,) in connection.execute(
                "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"
            ).fetchall()
            if name != "store"
        ]
        return {
            name: (
                [column[0] for column in connection.execute(f"DESCRIBE {name}").fetchall()],
                connection.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall(),
            )
            for name in names
        }


def picked(columns: list[str], rows: list[tuple], wanted: list[str]) -> list[str]:
    return sorted(repr([row[columns.index(column)] for column in wanted]) for row in rows)


def test_every_version_of_the_schema_is_among_the_stores():
    assert {int(path.name.partition("-")[0]) for path in STORES} == {1, 2, 3, 4, 5}


def test_an_old_store_is_migrated_with_every_row_and_kept(old, caplog):
    path, version = old
    content, before = path.read_bytes(), tables(path)
    with reading(path) as connection:
        assert [(s.suite, s.cells, s.complete, s.failed) for s in queries.suite_summaries(connection)] == [
            ("tiny", 4, 4, 0)
        ]
        run = read_run(connection)
        ranks = queries.test_ranks(connection, [cell.key for cell in run.cells])
        failed = connection.execute("SELECT count(*), min(error) FROM cells WHERE status = 'failed'").fetchall()
        metrics = connection.execute("SELECT count(*) FROM metrics WHERE split = 'test'").fetchall()
        known = connection.execute("SELECT DISTINCT stand_in, scale, revision = '' FROM datasets, environments")
        assert known.fetchall()[0][:2] == (False, 1.0)
    assert not run.not_taken
    assert {*ROWS} <= {cell.label for cell in run.cells}
    assert failed[0][0] == 1
    assert "not finite" in failed[0][1]
    assert metrics == [(len(run.cells),)]
    assert all(np.all(found.ranks >= 1) and len(found.ranks) == 54 for found in ranks.values())
    kept = path.with_name(f"ipsrec-bench.schema-{version}.duckdb")
    assert kept.read_bytes() == content
    assert sorted(path.parent.iterdir()) == [path, kept]
    after = tables(path)
    for name, (columns, rows) in before.items():
        now, copied = after[name]
        shared = [column for column in columns if column in now]
        assert shared == columns or name in {"datasets", "epochs"}  # otherwise measured, or in a table of its own
        assert picked(now, copied, shared) == picked(columns, rows, shared)
    (said,) = caplog.messages
    assert f"from schema version {version} to" in said
    assert kept.name in said
    with reading(path):  # once
        assert len(caplog.messages) == 1


def test_a_migrated_store_continues_where_the_old_one_stopped(old):
    path, _ = old
    cells = len(tables(path)["cells"][1])
    with writing(path) as connection:
        number = begin_run(connection, parse_suite(Path("tiny.toml"), TINY_SUITE), [], [planned("k")])
        record_cell(connection, record())
        assert number == len(tables_of(connection, "runs"))
        assert len(tables_of(connection, "cells")) == cells + 1
    with reading(path) as connection:
        assert queries.find_run(connection).run == number
        assert queries.complete_keys(connection, ["k"]) == {"k"}


def tables_of(connection, name) -> list[tuple]:
    return connection.execute(f"SELECT * FROM {name}").fetchall()


@pytest.mark.usefixtures("old")
def test_every_command_reads_an_old_store(bench, tmp_path):
    for arguments in (
        ["ls"],
        ["report", "--format", "html,md,latex,json"],
        ["compare", "sasrec", "pop"],
        ["query", "SELECT * FROM metrics"],
        ["export", "ranks"],
    ):
        done = bench(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), (arguments, done)
    text = (tmp_path / "reports/tiny/tiny.md").read_text(encoding="utf-8")
    assert "| SASRec |" in text


def test_the_losses_of_old_learning_curves_are_kept_by_name(old):
    path, _ = old
    columns, rows = tables(path)["epochs"]
    before = [dict(zip(columns, row, strict=True)) for row in rows]
    with reading(path) as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM cells").fetchall()]
        points = queries.learning_curves(connection, keys)
        stages = connection.execute("SELECT DISTINCT stage FROM epochs UNION SELECT DISTINCT stage FROM losses")
        assert stages.fetchall() == [("main",)]
    old_losses = sorted((e["epoch"], e["loss"], e["cross_entropy"], e["contrastive"], e["valid"]) for e in before)
    new_losses = [(p.epoch, p.loss, p.losses["next-item"], p.losses.get("provider-contrast"), p.valid) for p in points]
    assert sorted(new_losses) == old_losses
    assert any(contrastive is not None for *_, contrastive, _ in new_losses)


def test_an_import_of_an_old_store_is_still_a_row(newest):
    with reading(newest) as connection:
        assert "elsewhere" in {cell.label for cell in queries.find_run(connection).cells}


def test_changes_in_a_log_beside_an_old_store_are_migrated(newest):
    killed = f"""
        import duckdb, os
        connection = duckdb.connect({str(newest)!r})
        connection.execute("INSERT INTO cells SELECT * REPLACE ('late' AS key, 99 AS cell) FROM cells LIMIT 1")
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(killed)], check=True)
    assert newest.with_name(f"{newest.name}.wal").exists()
    with reading(newest) as connection:
        assert queries.complete_keys(connection, ["late"]) == {"late"}
    assert not list(newest.parent.glob("*.wal"))


@pytest.mark.parametrize("step", ["_copy", "_keep", "confine", "Path.replace"])
def test_a_kill_within_a_migration_loses_nothing(newest, step):
    killed = f"""
        import os
        from pathlib import Path
        from ipsrec_bench.store import migrate
        from ipsrec_bench.store.connect import reading
        def end(*arguments):
            os._exit(9)
        migrate.{step} = end
        with reading(Path({str(newest)!r})):
            pass
    """
    before = tables(newest)["ranks"]
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(killed)], check=False).returncode == 9
    assert tables(newest)["ranks"] == before
    with reading(newest):
        pass
    assert tables(newest)["ranks"] == before
    assert sorted(path.name for path in newest.parent.iterdir()) == [
        "ipsrec-bench.duckdb",
        "ipsrec-bench.schema-5.duckdb",
    ]


def test_an_old_store_that_cannot_be_replaced_is_left_as_it_was(newest, monkeypatch):
    content = newest.read_bytes()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(migrate, "_keep", refuse)
        with pytest.raises(StoreError, match=r"older schema .* Permission denied; nothing in it"), reading(newest):
            pass
    assert newest.read_bytes() == content
    assert [path.name for path in newest.parent.iterdir()] == [newest.name]


def test_an_old_store_in_a_place_that_cannot_be_written_gets_a_sentence(newest, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != newest.parent)  # root may write anywhere
    for opened in (reading, writing):
        with (
            pytest.raises(StoreError, match=r"older schema .* cannot be written; .* copy it to a writable folder"),
            opened(newest),
        ):
            pass
    assert [path.name for path in newest.parent.iterdir()] == [newest.name]


def test_a_kept_store_is_never_overwritten(newest):
    other = newest.with_name("ipsrec-bench.schema-5.duckdb")
    other.write_text("mine", encoding="utf-8")
    with reading(newest):
        pass
    assert other.read_text(encoding="utf-8") == "mine"
    assert newest.with_name("ipsrec-bench.schema-5.2.duckdb").exists()


def test_processes_that_find_an_old_store_at_once_migrate_it_once_and_lose_no_cell(newest):
    program = f"""
        import sys
        from pathlib import Path
        from ipsrec_bench.store.connect import writing
        with writing(Path({str(newest)!r}), patience=60) as connection:
            connection.execute(
                "INSERT INTO cells SELECT * REPLACE (? AS key, nextval('cell_numbers') AS cell) FROM cells LIMIT 1",
                [sys.argv[1]],
            )
    """
    keys = [f"k{number}" for number in range(4)]
    started = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), key]) for key in keys]
    assert [process.wait() for process in started] == [0] * 4
    with reading(newest) as connection:
        assert queries.complete_keys(connection, keys) == {*keys}
    assert len(list(newest.parent.iterdir())) == 2


def test_a_store_behind_a_link_is_migrated_where_it_lies(newest, tmp_path):
    link = tmp_path / "link.duckdb"
    link.symlink_to(newest)
    with reading(link):
        pass
    assert link.is_symlink()
    assert newest.with_name("ipsrec-bench.schema-5.duckdb").exists()


def test_what_only_looks_like_an_old_store_is_refused_and_stays(tmp_path, newest):
    alike = tmp_path / "alike.duckdb"
    with duckdb.connect(str(alike)) as connection:
        connection.execute("CREATE TABLE store (version INTEGER); INSERT INTO store VALUES (1)")
    for opened in (reading, writing):
        with pytest.raises(StoreError, match="is not a result store"), opened(alike):
            pass
    for value in ("0", "-1", "NULL"):
        with duckdb.connect(str(newest)) as connection:
            connection.execute("ALTER TABLE store ALTER version DROP NOT NULL")
            connection.execute(f"UPDATE store SET version = {value}")
        with pytest.raises(StoreError, match="is not a result store"), reading(newest):
            pass


@pytest.mark.usefixtures("newest")
def test_the_sentence_on_a_migration_reaches_the_terminal(bench_process):
    done = bench_process("ls")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "from schema version 5" in done.stderr


@pytest.fixture
def stored_otherwise(finished):
    """Change the suite of the only run as another version of the toolkit may have stored it."""

    def change(*changes: tuple[str, object]) -> None:
        with duckdb.connect(str(finished / "reports/ipsrec-bench.duckdb")) as connection:
            ((text,),) = connection.execute("SELECT settings FROM runs").fetchall()
            suite = json.loads(text)
            for where, value in changes:
                *parents, key = where.split(".")
                reduce(dict.__getitem__, parents, suite)[key] = value
            connection.execute(
                "UPDATE runs SET settings = ?, text = 'new = true' || chr(10) || text", [json.dumps(suite)]
            )

    return change


def test_settings_that_this_version_lacks_are_left_out_of_a_stored_suite_with_a_note(stored_otherwise, finished, bench):
    before = bench("compare", "sasrec", "pop").stdout
    stored_otherwise(
        ("new", {"a": [1]}),
        ("training.warm_up", 3),
        ("training.learning_rate", None),  # as infinity was stored
        ("protocol.filter.users.most", 7),
        ("statistics.test", "sign"),
        ("tune.space", {"pop": {"x": {"low": 2, "high": 1}}}),
    )
    with duckdb.connect(str(finished / "reports/ipsrec-bench.duckdb")) as connection:
        connection.execute(
            'UPDATE cells SET settings = json_merge_patch(settings, \'{"training": {"warm_up": 3}}\')'
            " WHERE type = 'sasrec'"
        )
    done = bench("compare", "sasrec", "pop")
    assert done.stdout == before
    assert "does not accept these of its settings" in done.stderr
    assert bench("compare", "sasrec", "pop", "--set", "protocol.cutoffs=[1]").returncode == 0
    assert bench("report", "--format", "md").returncode == 0
    text = (finished / "reports/tiny/tiny.md").read_text(encoding="utf-8").replace("\\", "")
    for words in (
        'new = {"a": [1]}',
        "training.warm_up = 3",
        "training.learning_rate = null",
        "protocol.filter.users.most = 7",
        'statistics.test = "sign"',
        "tune.space.pop.x",
        ", warm_up = 3",  # of the cells
    ):
        assert words in text, words
    assert json.loads(bench("ls", "--json").stdout)[0]["complete"] == 8


def test_an_invalid_stored_suite_gets_a_sentence(stored_otherwise, bench, finished):
    stored_otherwise(("datasets", {}))
    refused(bench("report"), "the suite of run 1 of 'tiny' cannot be read", "datasets")
    with duckdb.connect(str(finished / "reports/ipsrec-bench.duckdb")) as connection:
        connection.execute("UPDATE runs SET settings = 'no JSON'")
    refused(bench("report"), "the suite of run 1 of 'tiny' cannot be read")
