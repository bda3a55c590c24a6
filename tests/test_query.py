"""`query` and the tables of the terminal: any value, any statement, any width; and `--suite`, which means one thing."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from ipsrec_bench.cli.printing import MOST_IN_JSON, MOST_IN_TABLE
from ipsrec_bench.store.connect import writing

from .test_cli import refused

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def store(tmp_path) -> Path:
    path = tmp_path / "reports" / "ipsrec-bench.duckdb"
    with writing(path):
        pass
    return path


@pytest.fixture
def query(bench):
    """Return the rows of a query, read as JSON that holds no NaN."""

    def rows(sql: str) -> list[dict]:
        done = bench("query", sql, "--json")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return json.loads(done.stdout, parse_constant=pytest.fail)

    return rows


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("TIMESTAMPTZ '2020-01-01 00:30:00+02'", "2019-12-31 22:30:00+00"),
        ("TIMESTAMP '2020-01-01 00:30:00.5'", "2020-01-01 00:30:00.5"),
        ("TIMESTAMP_NS '2020-01-01 00:00:00.123456789'", "2020-01-01 00:00:00.123456789"),
        ("'infinity'::TIMESTAMP", "infinity"),
        ("DATE '290000-01-01 (BC)'", "290000-01-01 (BC)"),
        ("TIMETZ '10:00:00+01'", "10:00:00+01"),
        ("TIME '10:00:00'", "10:00:00"),
        ("INTERVAL '1 month 2 days'", "1 month 2 days"),
        ("'NaN'::DOUBLE", None),
        ("'-Infinity'::FLOAT", None),
        ("[1.0, 'NaN'::DOUBLE]", [1.0, None]),
        ("{'a': ['Infinity'::DOUBLE], 'b': NULL}", {"a": [None], "b": None}),
        ("[TIMESTAMPTZ '2020-01-01 00:00:00+00']", ["2020-01-01 00:00:00+00"]),
        ("MAP {'k': 1}", {"k": 1}),
        ("[1, 2]::INTEGER[2]", [1, 2]),
        ("union_value(k := 1)", {"k": 1}),
        ("[]", []),
        ("1.50", 1.5),
        ("[1.50]", [1.5]),
        ("170141183460469231731687303715884105727::HUGEINT", 170141183460469231731687303715884105727),
        ("255::UTINYINT", 255),
        ("'\\x00\\xAB'::BLOB", "\\x00\\xAB"),
        ("'101'::BIT", "101"),
        ("'00000000-0000-0000-0000-000000000001'::UUID", "00000000-0000-0000-0000-000000000001"),
        ("'[1]'::JSON", "[1]"),
        ("'a'::ENUM ('a', 'b')", "a"),
        ("NULL::held_out", None),
        ("true", True),
        ("NULL", None),
        ("chr(27) || chr(8238)", "\x1b\u202e"),
        ("realistic_rank(NULL, 1)", None),
        ("realistic_rank(1, NULL)", None),
        *((f"{name}({values})", None) for name in ("hr", "mrr", "ndcg") for values in ("NULL, 5", "5, NULL")),
    ],
)
def test_every_value_has_a_form_in_json_and_in_tables(query, bench, sql, value):
    assert query(f"SELECT {sql} AS x") == [{"x": value}]
    done = bench("query", f"SELECT {sql} AS x")
    assert (done.returncode, done.stderr) == (0, "")


def test_columns_of_one_name_are_all_in_the_json(query):
    assert query("SELECT 1 AS a, 2 AS a, 3 AS a_2, now() IS NULL AS A") == [{"a": 1, "a_2": 2, "a_2_2": 3, "A": False}]


def test_rows_keep_the_order_that_was_asked_for(query):
    rows = query("SELECT i, TIMESTAMPTZ '2020-01-01' + to_days(i::INTEGER) AS t FROM range(5000) r(i) ORDER BY i DESC")
    assert [row["i"] for row in rows] == [*range(4999, -1, -1)]


@pytest.mark.parametrize("sql", ["", "  ", ";", ";;", "-- nothing", "/* nothing */", "-- nothing; at all\n"])
def test_an_empty_query_gets_a_sentence(bench, sql):
    refused(bench("query", sql), "the query is empty; give a statement")


@pytest.mark.parametrize("sql", ["SELECT 1; SELECT 2", "SELECT ';'; SELECT 2;", "SET threads = 1; SELECT 1"])
def test_of_several_statements_none_is_run(bench, sql):
    refused(bench("query", sql), "more than one statement")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT now() IS NULL AS x, 'a;b' AS y, now() AS t; -- and; this",
        "-- first; this\nSELECT false AS x, ';' AS y;;",
        "SELECT false AS x, 'é;' AS y /* ; */",
    ],
)
def test_semicolons_and_comments_are_not_statements(query, sql):
    assert query(sql)[0]["x"] is False


@pytest.mark.parametrize(
    "sql",
    [
        "SHOW TABLES", "DESCRIBE cells", "SUMMARIZE cells", "EXPLAIN SELECT 1", "FROM store", "PRAGMA database_list",
        "SET threads = 1", "VALUES (1)", "SELECT 1 LIMIT 0",
    ],
)  # fmt: skip
def test_statements_of_every_kind_are_shown(bench, query, sql):
    done = bench("query", sql)
    assert (done.returncode, done.stderr) == (0, "")
    query(sql)


def test_errors_are_one_line_with_the_suggestions_of_duckdb(bench):
    for sql, words in (
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("FROM metricz", 'Did you mean "metrics"?'),
        ("SELECT nam FROM datasets", 'Candidate bindings: "name"'),
        ("SELECT date_trunc(1)", "No function matches"),
        ("SELECT ?", "parameter"),
        ("DELETE FROM cells", "read-only"),
        ("FROM read_text('/etc/passwd')", "Cannot access file"),
        ("SELECT error('a' || chr(10) || 'b' || chr(27))", "a b\\x1b"),
    ):
        done = bench("query", sql)
        refused(done, "the query failed: ", words)
        assert done.stderr.count("\n") == 1


def test_a_table_shows_the_first_rows_and_says_so(bench):
    done = bench("query", f"FROM range({MOST_IN_TABLE + 1})")
    assert done.returncode == 0
    assert f" {MOST_IN_TABLE - 1} " in done.stdout
    assert f" {MOST_IN_TABLE} " not in done.stdout
    assert done.stderr.startswith(f"The first {MOST_IN_TABLE:,} rows are shown")
    assert bench("query", f"FROM range({MOST_IN_TABLE})").stderr == ""


def test_more_rows_than_json_holds_are_refused(bench):
    refused(bench("query", f"FROM range({MOST_IN_JSON + 1})", "--json"), "more than 1,000,000 rows; add a LIMIT")


def test_hidden_characters_are_written_out(bench):
    sql = "SELECT chr(27) || '[31m' AS \"\x1b]0;title\x07\", chr(8238) || 'abc' AS \"\u202ey\", [chr(155)] AS z"
    for arguments in ([], ["--json"]):
        done = bench("query", sql, *arguments)
        assert all(c.isprintable() or c == "\n" for c in done.stdout), ascii(done.stdout)
    refused(bench("query", 'FROM "\x1b[31m"'), "\\x1b[31m")
    refused(bench("report", "\x1b[31m\u202e"), "'\\x1b[31m\\u202e'")


@pytest.mark.parametrize("columns", ["1", "10", "30", "80"])
def test_narrow_terminals_show_every_value(bench, columns):
    wide = {"FORCE_COLOR": "1", "COLUMNS": columns, "TERM": "dumb"}
    sql = "SELECT " + ", ".join(f"'value{i}' AS column{i}" for i in range(8))
    done = bench("query", sql, **wide)
    assert done.returncode == 0
    text = "".join(done.stdout.split())
    assert all(f"value{i}" in text for i in range(8)), done.stdout
    assert bench("ls", **wide).returncode == 0


def test_suites_are_given_by_name_or_by_file(finished, bench):
    rows = bench("compare", "sasrec", "pop").stdout
    (finished / "other.toml").write_text((finished / "tiny.toml").read_text(encoding="utf-8"), encoding="utf-8")
    assert bench("run", "other.toml", "--quiet").returncode == 0
    (finished / "ranks.csv").write_text("user,rank\n" + "".join(f"{u},1\n" for u in range(120)), encoding="utf-8")
    for given in ("tiny", "tiny.toml", "./tiny.TOML", "gone/tiny.toml"):
        assert bench("compare", "sasrec", "pop", "--suite", given).stdout == rows
        assert bench("report", given, "--format", "md").stdout == "Report: reports/tiny/tiny.md\n"
        if given in ("tiny", "tiny.toml"):  # here the suite itself is needed
            for arguments in (["list"], ["stats", "world"], ["prepare", "world"]):
                done = bench("data", *arguments, "--suite", given)
                assert done.returncode == 0, done.stderr
        assert bench("export", "ranks", "--suite", given).returncode == 0
        assert duckdb.sql(f"SELECT DISTINCT suite FROM '{finished / 'ranks.parquet'}'").fetchall() == [("tiny",)]
    users = duckdb.sql(
        f"SELECT raw FROM '{next(finished.glob('data/prepared/*/users.parquet'))}'"
        f" JOIN (SELECT DISTINCT user AS id FROM '{finished / 'ranks.parquet'}' WHERE split = 'test') USING (id)"
    ).fetchall()
    (finished / "ranks.csv").write_text("user,rank\n" + "".join(f"{user},1\n" for (user,) in users), encoding="utf-8")
    for given, model in (("tiny", "a"), ("tiny.toml", "b")):
        done = bench("import-ranks", "ranks.csv", "--suite", given, "--model", model)
        assert done.returncode == 0, done.stderr
        assert "HR@5" in bench("compare", model, "pop", "--suite", given).stdout
    for arguments in (["compare", "sasrec", "pop", "--suite"], ["report"], ["export", "ranks", "--suite"]):
        refused(bench(*arguments, "TINI"), "no run of a suite 'TINI'; did you mean 'tiny'?")
    refused(
        bench("import-ranks", "ranks.csv", "--suite", "tini", "--model", "c"), "no run of a suite 'tini'; did you mean"
    )
    refused(bench("compare", "sasrc", "pop"), "did you mean 'sasrec'?")
    refused(bench("compare", "otter", "tiny"), "did you mean 'other'?")


def test_an_export_replaces_its_file_only_once_it_is_complete(finished, bench, monkeypatch):
    assert bench("export", "ranks", "-o", "deep/er/r.parquet").returncode == 0
    assert [path.name for path in (finished / "deep/er").iterdir()] == ["r.parquet"]
    old = finished / "old.csv"
    old.write_text("old", encoding="utf-8")
    old.chmod(0o640)
    link = finished / "link.csv"
    link.symlink_to(old)
    refused(bench("export", "ranks", "--format", "csv", "-o", "old.csv", "--suite", "none"), "no run of a suite")
    with monkeypatch.context() as patched:

        def full(*_):
            raise OSError(28, "No space left on device")

        patched.setattr("ipsrec_bench.files.shutil.copymode", lambda *_: None)
        patched.setattr(Path, "replace", full)
        refused(bench("export", "ranks", "--format", "csv", "-o", "old.csv"), "old.csv", "No space left on device")
    assert old.read_text(encoding="utf-8") == "old"
    assert bench("export", "ranks", "--format", "csv", "-o", "link.csv").returncode == 0
    assert old.read_text(encoding="utf-8").startswith("suite,dataset,")
    assert link.is_symlink()
    assert old.stat().st_mode & 0o777 == 0o640
    refused(bench("export", "ranks", "-o", "deep"), "deep: the ranks cannot be written there")
    (finished / "it's here").mkdir()
    assert bench("export", "ranks", "-o", "it's here/r.parquet").returncode == 0
    assert not list(finished.rglob("*.part"))


def test_an_export_goes_through_a_pipe(finished, bench):
    os.mkfifo(finished / "pipe")
    with ThreadPoolExecutor() as pool:
        read = pool.submit((finished / "pipe").read_text)
        done = bench("export", "ranks", "--format", "csv", "-o", "pipe")
        assert done.returncode == 0, done.stderr
        assert read.result(timeout=60).startswith("suite,dataset,")
