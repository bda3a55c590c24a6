"""Raw files that were once misread silently, and similar ones: each gives the right value or an error of one sentence.

The files in `tests/cases/` were reported; the others are made here.
"""

import gzip
import json
import lzma
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import duckdb
import numpy as np
import pytest

from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER
from ipsrec_bench.errors import DataError
from ipsrec_bench.suite.schema import ItemTable, TableSource

from .conftest import raw_sequences, vocabulary

CASES = Path(__file__).parent / "cases"
HEADER = "user,item,provider,time\n"
ORDER = ["first", "second", "third", "fourth"]
SECOND = 1_000_000


def read(name: str, tmp_path: Path, **settings):
    return prepare("case", TableSource.model_validate({"path": str(CASES / name), **settings}), tmp_path)


def refusal(path: Path, data_dir: Path, **settings) -> str:
    """Return the error message of preparing the file, without the path at its beginning."""
    with pytest.raises(DataError) as caught:
        prepare("x", TableSource.model_validate({"path": str(path), **settings}), data_dir)
    sentence = str(caught.value)
    assert sentence.startswith(str(path)), sentence
    assert sentence.isprintable(), sentence
    return sentence.removeprefix(str(path))


def at(moments: list[str], prepared_table, **settings) -> list[int]:
    """Return the times of rows with these texts, in the order of the rows."""
    rows = "".join(f'u{n},i,p,"{moment}"\n' for n, moment in enumerate(moments, start=10))
    return prepared_table(HEADER + rows, **settings).times.tolist()


# The reported files


@pytest.mark.parametrize("name", ["offset.csv", "slash_pm.csv"])
def test_offsets_and_halves_of_the_day_are_applied(name, tmp_path):
    assert raw_sequences(read(name, tmp_path)) == {"u": ORDER}


def test_nanoseconds_keep_their_order_even_if_some_have_no_decimals(tmp_path):
    data = read("nsmix.csv", tmp_path)
    assert raw_sequences(data) == {"u": ORDER}
    assert data.times.tolist() == [1_700_000_000_000_000_000 + n for n in (10, 20, 30, 40)]


def test_times_with_zone_are_the_same_on_every_machine(tmp_path):
    program = (
        "import sys; from pathlib import Path; from ipsrec_bench.data.prepare import prepare;"
        "from ipsrec_bench.suite.schema import TableSource;"
        "print(prepare('x', TableSource(path=sys.argv[1], where=sys.argv[2]), Path(sys.argv[3])).fingerprint)"
    )
    where = "strftime(time, '%H') < '04'"  # in which zone?
    found = {
        subprocess.run(
            [sys.executable, "-c", program, CASES / "p_tstz.parquet", where, tmp_path / zone.replace("/", "-")],
            env={**os.environ, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for zone in ("UTC", "Asia/Tokyo", "America/New_York")
    }
    assert len(found) == 1
    data = read("p_tstz.parquet", tmp_path)
    utc = duckdb.sql(f"SELECT min(epoch_us(time)), max(epoch_us(time)) FROM '{CASES / 'p_tstz.parquet'}'").fetchall()
    assert [(data.times.min(), data.times.max())] == utc
    assert data.statistics.tie_share == 0


def test_a_users_placeholder_is_refused_and_can_be_allowed(tmp_path):
    assert ":2: the user is 'NaN', a placeholder for a missing one;" in refusal(CASES / "id_none.csv", tmp_path)
    data = read("id_none.csv", tmp_path, unknown=[])
    assert {"NaN", "None", "NULL", "null"} <= raw_sequences(data).keys()


def test_several_providers_in_a_row_are_refused_by_name(tmp_path):
    assert refusal(CASES / "rb_provseq.inter", tmp_path) == (
        ": the column 'provider_id:token_seq' (provider column) is of type token_seq, with several values in a row;"
        " name a column with one value in each row"
    )


def test_a_quote_does_not_join_lines_of_tab_separated_files(tmp_path):
    data = read("openq3.tsv", tmp_path)
    assert data.statistics.actions == 25
    assert set(vocabulary(data, "providers").values()) == {"p0", '"Q1', 'Q2"'}
    assert ":3: the provider contains a line break" in refusal(CASES / "openq3.tsv", tmp_path, quoting="double")


def test_text_in_other_encodings_is_named(tmp_path):
    assert refusal(CASES / "bom16.csv", tmp_path).startswith(": the file is UTF-16 text; convert it to UTF-8")
    assert refusal(CASES / "latin1.csv", tmp_path).startswith(":3: the line is not UTF-8; if the file is Latin-1,")


def test_an_error_after_long_fields_names_the_right_line(tmp_path):
    assert ":4: the time is 'x'" in refusal(CASES / "bigfield3.csv.gz", tmp_path)


@pytest.mark.parametrize(
    ("suite", "words"),
    [
        ("items", ("items_float.csv: none of the interactions' items", "an interaction has '0', the table has '0.0'")),
        ("ml", ("ml.dat:4: the time is 'oops'",)),
        ("delimiter", ("shop.csv: there is no column 'user'", "the file has 'user,item,provider,time'", "`delimiter`")),
    ],
)
def test_suites_on_these_files_end_in_a_sentence(suite, words, bench):
    for command in (("run", CASES / f"{suite}.toml"), ("data", "stats", "d", "--suite", CASES / f"{suite}.toml")):
        done = bench(*command, IPSREC_BENCH_CASES=str(CASES))
        assert done.returncode == 2
        assert all(word in done.stderr for word in words), done.stderr


def test_a_suite_on_times_with_zone_runs(bench):
    done = bench("data", "stats", "d", "--suite", CASES / "tz.toml", "--json", IPSREC_BENCH_CASES=str(CASES))
    assert (done.returncode, json.loads(done.stdout)["actions"]) == (0, 25)


# Times


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        (["0", "9223372036854775807"], [0, 2**63 - 1]),
        (["1700000000000000001", "1700000000000000000"], [1_700_000_000_000_000_001, 1_700_000_000_000_000_000]),
        (["5.", " 7.000 "], [5, 7]),
        (["1.5", "2", "1e3"], [1.5, 2.0, 1000.0]),
        (["1970-01-01", "1970/1/2 1:02"], [0, 86400 * SECOND + 3720 * SECOND]),
        (["1970-01-01T00:00:01.5", "1970-01-01 00:00:01,25"], [1_500_000, 1_250_000]),
        (["1970-01-01 00:00:00.000000001", "1970-01-01 00:00:01"], [1, 10**9]),
        (["1970-01-01 00:00:00.1230000"], [123_000]),
        (["1970-01-01T05:30:00+05:30", "1970-01-01 05:30:00 +0530", "1970-01-01T01:00+01"], [0, 0, 0]),
        (["1969-12-31T23:00:00-01:00", "1970-01-01t00:00:00z", "1970-01-01 00:00:00 GMT"], [0, 0, 0]),
        (["1970-01-01 00:00:00 UTC", "1970-01-01 00:00:01UTC"], [0, SECOND]),
        (["1970-01-01 12:00:00 AM", "1970-01-01 12:00 pm", "1970-01-01 1:00PM"], [0, 43200 * SECOND, 46800 * SECOND]),
        (["1970-01-01 1:00:00.5 AM +01:00"], [500_000]),
    ],
)
def test_each_format_of_times_is_read_exactly(moments, expected, prepared_table):
    assert at(moments, prepared_table) == expected


@pytest.mark.parametrize(
    ("moments", "time_format", "expected"),
    [
        (["02.01.1970", "1.1.1970"], "%d.%m.%Y", [86400 * SECOND, 0]),
        (["01 02, 1970", "1 1, 1970"], "%m %d, %Y", [86400 * SECOND, 0]),
        (["19700102", "19700101"], "%Y%m%d", [86400 * SECOND, 0]),
        (["01/Jan/1970:01:00:00 +0100"], "%d/%b/%Y:%H:%M:%S %z", [0]),
        (["1/2/1970 12:30 AM", "1/1/1970 12:30 PM"], "%m/%d/%Y %I:%M %p", [88200 * SECOND, 45000 * SECOND]),
        (["1970-01-01 00:00:00.000000002", "1970-01-01 00:00:00.000000001"], "%Y-%m-%d %H:%M:%S.%n", [2, 1]),
    ],
)
def test_other_formats_of_times_are_read_by_time_format(moments, time_format, expected, prepared_table):
    assert at(moments, prepared_table, time_format=time_format) == expected


@pytest.mark.parametrize(
    ("moments", "line", "words"),
    [
        (["1", "9223372036854775808"], 3, "which is beyond 64 bits; write it in a larger unit"),
        (["1.5", "1e25"], 3, "which is beyond 64 bits"),
        (["0.5", "1700000000000000001", "1700000000000000002"], 4, "which a 64-bit float cannot distinguish from"),
        (["1700000000.00000001", "1700000000.00000002"], 3, "which a 64-bit float cannot distinguish"),
        (["1", "-2"], 3, "which is neither a finite number of at least 0 nor"),
        (["inf"], 2, "which is neither a finite number"),
        (["2020-01-01 09:00:00 CET"], 2, "which is neither a finite number"),
        (["2020-01-01 09:00:00 Europe/Berlin"], 2, "set time_format, such as %d.%m.%Y"),
        (["2020-01-01 09:00:00 noon"], 2, "which is neither a finite number"),
        (["2020-01-01 09:00:00.1234567891"], 2, "which is neither a finite number"),
        (["28.01.2017"], 2, "set time_format"),
        (["01/28/2017"], 2, "set time_format"),
        (["2019-10"], 2, "set time_format"),
        (["10:00:00"], 2, "set time_format"),
        (["0x10"], 2, "which is neither"),
        (["1_000"], 2, "which is neither"),
        (["infinity"], 2, "which is neither"),
        (["2020-02-30"], 2, "but there is no such date or time"),
        (["2020-01-01 25:00:00"], 2, "but there is no such date or time"),
        (["2020-01-01 13:00 PM"], 2, "an hour before AM or PM must be from 1 to 12"),
        (["2020-01-01 00:30 AM"], 2, "an hour before AM or PM must be from 1 to 12"),
        (["2020-01-01 09:00:00+05:75"], 2, "there is no such offset from UTC"),
        (["2020-01-01 09:00:00+2500"], 2, "there is no such offset from UTC"),
        (["2020-01-01T09:00:00Z", "2020-01-01T09:00:00"], 3, "without a time zone, unlike the rows before it"),
        (["2020-01-01T09:00:00", "2020-01-01T09:00:00+01"], 3, "with a time zone, unlike the rows before it"),
        (["2020-01-01 9:00 PM", "2020-01-01 9:00"], 3, "without AM or PM, unlike the rows before it"),
        (["5", "2020-01-01"], 3, "the time column mixes numbers and timestamps"),
        (["1600-01-01 00:00:00.000000001"], 2, "too far from 1970 for nanoseconds"),
    ],
)
def test_any_other_time_is_refused_with_its_line(moments, line, words, tmp_path):
    rows = "".join(f'u,i,p,"{moment}"\n' for moment in moments)
    (tmp_path / "log.csv").write_text(HEADER + rows, encoding="utf-8")
    sentence = refusal(tmp_path / "log.csv", tmp_path)
    assert sentence.startswith(f":{line}: the time is '{moments[line - 2]}', ")
    assert words in sentence


def test_times_that_do_not_match_the_time_format_are_refused(tmp_path):
    (tmp_path / "log.csv").write_text(HEADER + "u,i,p,1.2.2020\nu,i,p,2020-02-01\n", encoding="utf-8")
    words = ":3: the time is '2020-02-01', which does not match time_format = '%d.%m.%Y'"
    assert refusal(tmp_path / "log.csv", tmp_path, time_format="%d.%m.%Y") == words
    assert ": time_format = '%Q' is not a time format: " in refusal(tmp_path / "log.csv", tmp_path, time_format="%Q")


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("TIMESTAMPTZ", ["1970-01-01 01:00:00+01", "1970-01-01 00:00:01+00"], [0, SECOND]),
        ("TIMESTAMP_NS", ["1970-01-01 00:00:00.000000002", "1970-01-01 00:00:00.000000001"], [2, 1]),
        ("TIMESTAMP_S", ["1970-01-01 00:00:02", "1970-01-01 00:00:01"], [2 * SECOND, SECOND]),
        ("DATE", ["1970-01-02", "1970-01-01"], [86400 * SECOND, 0]),
        ("DOUBLE", ["1.7e18", "2.5"], [1.7e18, 2.5]),
        ("DECIMAL(20, 3)", ["7.000", "8.000"], [7, 8]),
        ("UBIGINT", ["7", "9223372036854775807"], [7, 2**63 - 1]),
    ],
)
def test_times_of_parquet_files_are_exact_whatever_their_type(kind, values, expected, tmp_path):
    table = ", ".join(f"('u{n}', 'i', 'p', CAST('{value}' AS {kind}))" for n, value in enumerate(values))
    path = tmp_path / "log.parquet"
    duckdb.execute(f"COPY (SELECT * FROM (VALUES {table}) AS t(user, item, provider, time)) TO '{path}'")
    assert prepare("x", TableSource(path=str(path)), tmp_path).times.tolist() == expected


def test_times_that_32_bit_floats_have_merged_are_refused(tmp_path):
    path = tmp_path / "log.parquet"
    for moment, refused in ((1_569_888_000, True), (16_000_000, False)):
        duckdb.execute(f"COPY (SELECT 'u' AS user, 'i' AS item, 'p' AS provider, {moment}::FLOAT AS time) TO '{path}'")
        if refused:
            words = (
                ': the column "time" (time column) has 32-bit floats, which cannot distinguish times above 16,777,216'
            )
            assert refusal(path, tmp_path).startswith(words)
        else:
            assert prepare("x", TableSource(path=str(path)), tmp_path).times.tolist() == [moment]


# Providers


@pytest.mark.parametrize(
    ("theirs", "example"),
    [
        ("1.0", "an interaction has '1', the table has '1.0', which are not the same text"),
        ("001", "an interaction has '1', the table has '001', which are not the same text"),
        ("1 ", "an interaction has '1', the table has '1 ', which are not the same text"),
        ("x", "an interaction has '1', the table has 'x', which is of another kind"),
    ],
)
def test_an_item_table_that_lists_nothing_is_refused_with_both_sides(theirs, example, tmp_path):
    (tmp_path / "log.csv").write_text(HEADER + "u,1,,1\nu,2,,2\n", encoding="utf-8")
    (tmp_path / "items.csv").write_text(f"item,brand\n{theirs},b\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        prepare("x", with_items(tmp_path), tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'items.csv'}: none of the interactions' items")
    assert example in str(caught.value)


def with_items(folder: Path, log: str = "log.csv", items: str = "items.csv", **settings) -> TableSource:
    item_table = {"path": str(folder / items), "item": "item", "provider": "brand", **settings.pop("table", {})}
    return TableSource.model_validate({"path": str(folder / log), "items": item_table, **settings})


def test_item_ids_are_case_sensitive(tmp_path):
    (tmp_path / "log.csv").write_text(HEADER + "u,a1,,1\n", encoding="utf-8")
    (tmp_path / "items.csv").write_text("item,brand\nA1,b\n", encoding="utf-8")
    with pytest.raises(DataError, match="an interaction has 'a1', the table has 'A1', which are not the same text"):
        prepare("x", with_items(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("items.jsonl", '{"item":"b","brand":"p"}\n\n{"item":"a","brand":["p","q"]}\n', ":3: the provider is a list"),
        ("items.csv", "item,brand\nb,q\na,\"['p', 'q']\"\n", ":3: the provider is a list"),
        ("items.csv", "item,brand\nb,q\n\ufeffa,p\n", ":3: the item has a byte order mark"),
        ("items.csv", "item,brand\na,\ufeffp\n", ":2: the provider has a byte order mark"),
        (
            "items.csv",
            'item,brand\nx,"p\na,q\nb,"\n',
            ":2: the provider contains a line break; is a quote not closed?",
        ),
        ("items.csv", f"item,brand\na,{'p' * 1001}\n", ":2: the provider has more than 1,000 characters"),
    ],
)
def test_an_item_table_names_one_provider_in_a_row(tmp_path, name, text, message):
    (tmp_path / "log.csv").write_text(HEADER + "u,a,,1\nu,b,,2\n", encoding="utf-8")
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"{re.escape(name + message)}"):
        prepare("x", with_items(tmp_path, items=name), tmp_path)


def test_providers_of_items_without_interactions_may_be_anything(tmp_path):
    (tmp_path / "log.csv").write_text(HEADER + "u,a,,1\nu,b,,2\n", encoding="utf-8")
    rows = [{"item": "x", "brand": ["p", "q"]}, {"item": "y", "brand": "\n\np"}, {"item": "a", "brand": "p"}]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert prepare("x", with_items(tmp_path, items="items.jsonl"), tmp_path).providers.tolist() == [2, 1]


def test_blanks_of_any_kind_around_a_number_are_ignored(tmp_path):
    (tmp_path / "log.csv").write_text(HEADER + "u,a,p,\u00a010\nu,b,p,\u00a02 \n", encoding="utf-8")
    assert prepare("x", TableSource(path=str(tmp_path / "log.csv")), tmp_path).times.tolist() == [2, 10]


def test_empty_lines_among_python_dictionaries_are_not_rows(tmp_path):
    rows = ["{'user': 'u', 'item': 'a', 'provider': 'p', 'time': 2}", "", "{'user': '', 'item': 'b', 'time': 1}"]
    (tmp_path / "log.json").write_text("\n".join(rows[:2]) + "\n\n", encoding="utf-8")
    source = TableSource(path=str(tmp_path / "log.json"), lines="python")
    assert prepare("x", source, tmp_path).times.tolist() == [2]
    (tmp_path / "log.json").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"log\.json:3: the user is missing"):
        prepare("x", source, tmp_path)


def test_an_error_on_a_json_file_does_not_suggest_a_delimiter(tmp_path):
    (tmp_path / "log.json").write_text('{"rows": [1]}', encoding="utf-8")
    with pytest.raises(DataError, match=r"the file has 'rows'$"):
        prepare("x", TableSource(path=str(tmp_path / "log.json")), tmp_path)


def test_an_empty_first_line_is_named(tmp_path):
    (tmp_path / "log.csv").write_text("\n" + HEADER + "u,a,p,1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"log\.csv: the first line is empty"):
        prepare("x", TableSource(path=str(tmp_path / "log.csv")), tmp_path)


def test_items_missing_from_the_item_table_are_distinguished_from_empty_providers(tmp_path, bench):
    (tmp_path / "log.csv").write_text(HEADER + "u,a,,1\nu,b,,2\nu,c,,3\nu,c,,4\n", encoding="utf-8")
    (tmp_path / "items.csv").write_text("item,brand\na,p\nb,\n", encoding="utf-8")
    data = prepare("x", with_items(tmp_path), tmp_path / "data")
    assert data.providers.tolist() == [2, UNKNOWN_PROVIDER, UNKNOWN_PROVIDER, UNKNOWN_PROVIDER]
    assert data.reading.unlisted_actions == 2
    (note,) = data.reading.notes
    assert note.startswith("2 of 4 interactions (50.0%) have an item that ")
    assert note.endswith("items.csv does not list, such as 'c'; their provider is unknown")
    said = bench("data", "stats", "log.csv", "--items", "items.csv", "--provider", "brand").stdout
    assert "Note: 2 of 4 interactions (50.0%)" in said


def test_what_is_not_a_provider_is_unknown_and_counted(prepared_table):
    texts = ("NA", "NULL", "nan", "None", "\\N", "?", '" "', "n/a", "<NA>", "acme", "", "-")
    log = HEADER + "".join(f"u,i{n},{text},{n}\n" for n, text in enumerate(texts))
    data = prepared_table(log)
    assert set(vocabulary(data, "providers").values()) == {"acme"}
    assert data.statistics.known_provider_actions == 1
    assert data.reading.placeholders == {text.strip('"'): 1 for text in texts if text not in ("", "acme")}
    assert "10 interactions have a placeholder as their provider, which counts as unknown" in data.reading.notes[0]
    own = prepared_table(log, "own.csv", unknown=["ACME", "\\N"])
    assert "NA" in vocabulary(own, "providers").values()
    assert own.reading.placeholders == {" ": 1, "\\N": 1, "acme": 1}


@pytest.mark.parametrize("text", ["NA", "null", "nan", "None", "\\N", "?", "N/A", "undefined"])
@pytest.mark.parametrize("role", ["user", "item"])
def test_a_placeholder_is_refused_as_user_and_as_item(role, text, tmp_path):
    row = {"user": f"{text},i,p,2", "item": f"u,{text},p,2"}[role]
    (tmp_path / "log.csv").write_text(f"{HEADER}u,i,p,1\n{row}\n", encoding="utf-8")
    assert refusal(tmp_path / "log.csv", tmp_path).startswith(
        f":3: the {role} is '{text}', a placeholder for a missing one"
    )


@pytest.mark.parametrize("row", ['" ",i,p,2', 'u,"\t",p,2', "u,\u00a0,p,2"])
def test_a_blank_is_refused_as_user_and_as_item_whatever_unknown_lists(row, tmp_path):
    (tmp_path / "log.csv").write_text(f"{HEADER}u,i,p,1\n{row}\n", encoding="utf-8")
    assert "; fill it in or remove the row" in refusal(tmp_path / "log.csv", tmp_path, unknown=[])


def test_an_item_table_may_name_a_provider_and_a_placeholder(tmp_path):
    (tmp_path / "log.csv").write_text(HEADER + "u,a,,1\nu,b,,2\n", encoding="utf-8")
    (tmp_path / "items.csv").write_text("item,brand\na,NA\na,p\nb,NULL\n", encoding="utf-8")
    data = prepare("x", with_items(tmp_path), tmp_path)
    assert data.providers.tolist() == [2, UNKNOWN_PROVIDER]
    assert data.reading.placeholders == {"NULL": 1}


@pytest.mark.parametrize(
    "text",
    ['["a", "b"]', "['a', 'b']", "[]", "[1, 2]", '{"id": 1}', "{'a': 1}", "[null]", '[["a"]]', '[{"id": 1}]', "{}"],
)
def test_lists_and_structures_in_text_are_refused_as_ids(text, tmp_path):
    quoted = text.replace('"', '""')
    (tmp_path / "log.csv").write_text(f'{HEADER}u,i,p,1\nu,i,"{quoted}",2\n', encoding="utf-8")
    sentence = refusal(tmp_path / "log.csv", tmp_path)
    assert sentence.startswith(f":3: the provider is a list or a structure, '{text}', not a single id")


@pytest.mark.parametrize("text", ["[unknown]", "[no artist]", "{S}", "[", "a [1]", "[live] x", "[a, b"])
def test_brackets_alone_do_not_make_a_list(text, prepared_table):
    data = prepared_table(f'{HEADER}u,i,"{text}",1\n', unknown=[])
    assert list(vocabulary(data, "providers").values()) == [text]


@pytest.mark.parametrize("value", ['["a"]', '{"id": 1}', "[1]"])
def test_lists_and_structures_in_json_are_refused_as_ids(value, tmp_path):
    line = '{"user": "u", "item": "i", "provider": %s, "time": 1}\n'
    (tmp_path / "log.json").write_text(line % '"p"' + line % value, encoding="utf-8")
    assert refusal(tmp_path / "log.json", tmp_path).startswith(":2: the provider is a list or a structure")


@pytest.mark.parametrize(
    ("value", "kind"),
    [("['a', 'b']", "list"), ("{'id': 1}", "struct"), ("MAP {'a': 1}", "map"), ("['a']::VARCHAR[1]", "list")],
)
@pytest.mark.parametrize("role", ["provider", "item", "user", "time"])
def test_nested_columns_of_parquet_files_are_refused_by_name(role, value, kind, tmp_path):
    columns = {"user": "'u'", "item": "'i'", "provider": "'p'", "time": "1"} | {role: value}
    path = tmp_path / "log.parquet"
    duckdb.execute(f"COPY (SELECT {', '.join(f'{v} AS {k}' for k, v in columns.items())}) TO '{path}'")
    assert refusal(path, tmp_path).startswith(f": the column '{role}' ({role} column) is of type {kind}, with several")


def test_providers_that_differ_by_case_or_blanks_are_named(prepared_table):
    data = prepared_table(HEADER + 'u,a,Acme,1\nu,b,ACME,2\nu,c," acme",3\nu,d,other,4\n')
    assert data.statistics.providers == 4
    (note,) = data.reading.notes
    assert note.startswith("3 providers differ from another one only by case or by blanks around them")


def test_the_largest_providers_are_shown_with_their_share(tmp_path, bench):
    rows = "".join(f"u,i{n},{'other' if n < 6 else f'p{n}'},{n}\n" for n in range(20))
    (tmp_path / "log.csv").write_text(HEADER + rows, encoding="utf-8")
    assert "Largest providers" in (shown := bench("data", "stats", "log.csv").stdout)
    assert "other 30.0%, p10 5.0%, p11 5.0%" in shown
    found = json.loads(bench("data", "stats", "log.csv", "--json").stdout)
    assert found["largest_providers"][0] == ["other", 6]
    assert found["stickiness"] == pytest.approx(5 / 19)
    assert found["stickiness_without_largest"] == 0


def test_the_default_provider_column_may_be_missing_which_is_noted(tmp_path, bench):
    (tmp_path / "log.csv").write_text("user,item,time\nu,a,1\nu,b,2\nu,c,3\nu,d,4\n", encoding="utf-8")
    data = prepare("x", TableSource(path=str(tmp_path / "log.csv")), tmp_path / "data")
    assert data.providers.tolist() == [UNKNOWN_PROVIDER] * 4
    (note,) = data.reading.notes
    assert note == (
        f"{tmp_path / 'log.csv'}: there is no column 'provider', so every provider is unknown; name the column with"
        " `provider`, or a second file with `items`"
    )
    (tmp_path / "s.toml").write_text(
        f'title = "x"\nseeds = [1]\nmodels = ["pop"]\n[datasets.d]\npath = "{tmp_path / "log.csv"}"\n', encoding="utf-8"
    )
    assert bench("data", "prepare", "d", "--suite", "s.toml").stderr.count("so every provider is unknown") == 1
    assert bench("run", "s.toml").stdout.count("so every provider is unknown") == 1
    assert "there is no column 'maker' (provider column)" in refusal(tmp_path / "log.csv", tmp_path, provider="maker")


def test_a_byte_order_mark_in_the_middle_of_a_file_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text(f"\ufeff{HEADER}u,i,p,1\n\ufeffu,i,p,2\n", encoding="utf-8")
    assert refusal(tmp_path / "log.csv", tmp_path).startswith(":3: the user has a byte order mark (U+FEFF)")
    (tmp_path / "log.json").write_text(
        '{"user": "u", "item": "i", "time": 1}\n\ufeff{"user": "u", "item": "i", "time": 2}\n', encoding="utf-8"
    )
    assert refusal(tmp_path / "log.json", tmp_path).startswith(":2: the line begins with a byte order mark (U+FEFF)")


@pytest.mark.parametrize("row", ["u,i,p,\x1b[31mred", 'u,i\x1b[31m"\x07,p,x', "\x1b]0;t\x07,i,p,x", "u,i\u202e,p"])
def test_no_error_shows_control_characters(row, tmp_path):
    (tmp_path / "log.csv").write_text(f"{HEADER}u,i,p,1\n{row}\n", encoding="utf-8")
    assert refusal(tmp_path / "log.csv", tmp_path).startswith(":3: ")
    (tmp_path / "head.csv").write_text("us\x1b[31mer,item,provider,time\nu,i,p,1\n", encoding="utf-8")
    assert r"'us\x1b[31mer'" in refusal(tmp_path / "head.csv", tmp_path)


# Files that are none, or other ones


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.txt", "log.json", "log.jsonl.gz"])
def test_a_byte_order_mark_at_the_beginning_is_skipped(name, tmp_path):
    text = HEADER + "u,i,p,1\n" if "json" not in name else '{"user": "u", "item": "i", "provider": "p", "time": 1}\n'
    content = ("\ufeff" + text).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert raw_sequences(prepare("x", TableSource(path=str(tmp_path / name)), tmp_path)) == {"u": ["i"]}


def test_a_byte_order_mark_before_a_file_without_header_is_skipped(tmp_path):
    (tmp_path / "log.csv").write_text("\ufeffu,i,p,1\n", encoding="utf-8")
    written = TableSource(path=str(tmp_path / "log.csv"), columns=("user", "item", "provider", "time"))
    assert raw_sequences(prepare("x", written, tmp_path)) == {"u": ["i"]}


@pytest.mark.parametrize("name", ["LOG.CSV.GZ", "log.Csv", "log.TSV.gz", "log.JSON", "log.PARQUET", "log.data"])
def test_file_names_ignore_case_and_packed_files_are_recognised_by_their_first_bytes(name, tmp_path):
    if name == "log.PARQUET":
        duckdb.execute(f"COPY (SELECT 'u' AS user, 'i' AS item, 'p' AS provider, 1 AS time) TO '{tmp_path / name}'")
    else:
        text = HEADER + "u,i,p,1\n"
        if "JSON" in name:
            text = '{"user": "u", "item": "i", "provider": "p", "time": 1}\n'
        if "TSV" in name:
            text = text.replace(",", "\t")
        packed = name.lower().endswith("gz") or name == "log.data"
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert raw_sequences(prepare("x", TableSource(path=str(tmp_path / name)), tmp_path)) == {"u": ["i"]}


def zipped(text: bytes) -> bytes:
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("log.csv", text)
    return buffer.getvalue()


TEXT = (HEADER + "u,i,p,1\n").encode()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("log.zip", zipped(TEXT), ": the file is a zip archive (or a workbook); unpack it"),
        ("log.csv.zip", zipped(TEXT), ": the file is a zip archive"),
        (
            "log.csv.zst",
            b"\x28\xb5\x2f\xfd\x00\x01",
            ": the file is packed with zstd; unpack it, for example with: zstd -d",
        ),
        ("log.csv.xz", lzma.compress(TEXT), ": the file is packed with xz"),
        ("log.csv.bz2", b"BZh91AY&SY\x00\x01\x02", ": the file is packed with bzip2"),
        ("log.csv.gz", gzip.compress(gzip.compress(TEXT, mtime=0), mtime=0), ": the file is packed with gzip twice"),
        ("log.csv.gz", TEXT, ": the name ends in .gz, but the file is not packed with gzip; rename it"),
        ("log.csv.gz", gzip.compress(TEXT.decode().encode("utf-16"), mtime=0), ": the file is UTF-16 text"),
        ("log.csv", TEXT.decode().encode("utf-16-le"), ": the file contains zero bytes, so it is not UTF-8; if it is"),
        ("log.csv", TEXT.decode().encode("utf-32"), ": the file is UTF-32 text"),
        ("log.json", '{"user": 1}\n'.encode("utf-16"), ": the file is UTF-16 text"),
        ("log.csv", b"<!DOCTYPE html>\n<html>", ": the file is a web page, perhaps one that asks for a login; get"),
        ("log.csv", b"version https://git-lfs.github.com/spec/v1\n", ": the file is a pointer of Git LFS"),
        ("log.csv", b"\x89HDF\r\n\x1a\n", ": the file is an HDF5 file"),
        ("log.csv", b"us\xe9r,item,provider,time\nu,i,p,1\n", ":1: the line is not UTF-8"),
        ("log.csv", TEXT + b"u,i,caf\xe9\x1b[31m,2\n", ":3: the line is not UTF-8"),
        ("log.json", b'{"user": "caf\xe9", "item": 1, "time": 1}\n', ":1: the line is not UTF-8"),
        ("log.json", b'{"user": 1, "item": 1, "time": 1}\n{"user": "\xe9"}\n', ":2: the line is not UTF-8"),
        (
            "log.json",
            b'{"a": {"item": "x"}, "b": {"item": "y"}}\n',
            ": the file is one JSON object of objects; expected",
        ),
        ("log.json", b'{\n  "user": "u"\n}\n', ":1: the line is not JSON; expected an object on each line, or"),
        ("log.json", b"[1, 2]\n", ": "),
        ("log.json", b"[]", ": "),
        ("log.json", b'5\n"x"\n', ":1: the line is not a JSON object"),
        ("log.parquet", TEXT, ": cannot be read as a table"),
        ("log.parquet.gz", gzip.compress(b"PAR1", mtime=0), ": a Parquet file cannot be read packed"),
    ],
)
def test_files_that_are_not_tables_are_named_with_the_remedy(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name, tmp_path / "data").startswith(words)


def test_words_that_begin_like_binary_files_are_words(tmp_path):
    (tmp_path / "log.csv").write_text("ORCID,item,provider,time\nu,i,p,1\n", encoding="utf-8")
    assert raw_sequences(prepare("x", TableSource(path=str(tmp_path / "log.csv"), user="ORCID"), tmp_path)) == {
        "u": ["i"]
    }


def test_a_json_array_is_read(tmp_path):
    rows = [{"user": "u", "item": "a", "time": 2}, {"user": "u", "item": "b", "time": 1}]
    (tmp_path / "log.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    (tmp_path / "items.json").write_text(json.dumps([{"item": "a", "brand": "p"}]), encoding="utf-8")
    data = prepare("x", with_items(tmp_path, "log.json", "items.json"), tmp_path / "data")
    assert raw_sequences(data) == {"u": ["b", "a"]}
    assert data.providers.tolist() == [UNKNOWN_PROVIDER, 2]
    rows[1]["time"] = "x"
    (tmp_path / "log.json").write_text(json.dumps(rows), encoding="utf-8")
    assert refusal(tmp_path / "log.json", tmp_path).startswith(": row 2: the time is 'x'")


@pytest.mark.parametrize("name", ["log*.csv", "log?.csv", "log[1].csv", "it's.csv", "a{b,c}.csv", "ü ☕.csv"])
def test_a_path_is_one_file_whatever_characters_it_has(name, tmp_path):
    for other in ("log1.csv", "log22.csv"):
        (tmp_path / other).write_text(HEADER + "other,i,p,1\n", encoding="utf-8")
    (tmp_path / name).write_text(HEADER + "u,i,p,1\n", encoding="utf-8")
    assert raw_sequences(prepare("x", TableSource(path=str(tmp_path / name)), tmp_path)) == {"u": ["i"]}


# Delimiters, quotes, lines


@pytest.mark.parametrize("delimiter", ["::", "||", "\t", "\\t", "<>", ";", " ", "☕"])
def test_a_delimiter_may_have_several_characters(delimiter, tmp_path):
    shown = delimiter.replace("\\t", "\t")
    text = (
        HEADER.replace(",", shown) + shown.join(["u", "i", "p", "1"]) + "\n" + shown.join(["u", "j", "p", "x"]) + "\n"
    )
    (tmp_path / "log.dat").write_text(text, encoding="utf-8")
    assert ":3: the time is 'x'" in refusal(tmp_path / "log.dat", tmp_path, delimiter=delimiter)
    (tmp_path / "log.dat").write_text(text.replace("x\n", "0\n"), encoding="utf-8")
    written = TableSource(path=str(tmp_path / "log.dat"), delimiter=delimiter)
    assert raw_sequences(prepare("x", written, tmp_path)) == {"u": ["j", "i"]}


@pytest.mark.parametrize("delimiter", ["", ":::::", "\n", '"', "a\n", "\0"])
def test_other_delimiters_are_refused_with_the_key(delimiter, tmp_path, bench):
    (tmp_path / "s.toml").write_text(
        f'title = "x"\nmodels = ["pop"]\n[datasets.d]\npath = "x.csv"\ndelimiter = {json.dumps(delimiter)}\n', "utf-8"
    )
    done = bench("data", "stats", "d", "--suite", "s.toml")
    assert done.returncode == 2
    assert "s.toml:5: datasets.d.delimiter: " in done.stderr
    assert "expected 1 to 4 characters, none of them a quote or a line break" in done.stderr


def test_a_line_break_within_an_id_is_refused_and_quotes_can_be_switched_off(tmp_path):
    (tmp_path / "log.csv").write_text(HEADER + 'u,i,p,1\nu,"Q,p,2\nu,Q",p,3\nu,j,p,4\n', encoding="utf-8")
    sentence = refusal(tmp_path / "log.csv", tmp_path)
    assert sentence.startswith(":3: the item contains a line break; is a quote not closed?")
    assert 'set quoting = "none"' in sentence
    written = TableSource(path=str(tmp_path / "log.csv"), quoting="none")
    assert raw_sequences(prepare("x", written, tmp_path)) == {"u": ["i", '"Q', 'Q"', "j"]}


def test_tab_separated_files_with_quotes_can_be_read_as_others(tmp_path):
    (tmp_path / "log.tsv").write_text('"user"\t"item"\t"provider"\t"time"\n"u"\t"i"\t"p"\t1\n', encoding="utf-8")
    assert "there is no column 'user' (user column)" in refusal(tmp_path / "log.tsv", tmp_path)
    written = TableSource(path=str(tmp_path / "log.tsv"), quoting="double")
    assert raw_sequences(prepare("x", written, tmp_path)) == {"u": ["i"]}


LONG = "x" * 200_000


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f'user,item,time,review\nu,i,1,"{LONG}"\nu,i,x,r\n', 3),
        ('user,item,time,review\nu,i,1,"a\nb\nc"\n\n\nu,i,x,r\n', 7),
        ('user,item,time,review\r\nu,i,1,"a\r\nb"\r\nu,i,x,r\r\n', 4),
        ('user,item,time,review\nu,i,1,5" screen\nu,i,x,r\n', 3),
        ('user,item,time,review\nu,i,1,"a ""b"" c"\nu,i,x,r\n', 3),
        ("\n\nuser,item,time,review\nu,i,x,r\n", None),
    ],
)
def test_the_line_of_a_bad_time_is_that_of_the_file(text, line, tmp_path):
    (tmp_path / "log.csv").write_bytes(text.encode())
    sentence = refusal(tmp_path / "log.csv", tmp_path, provider="")
    assert line is None or sentence.startswith(f":{line}: the time is 'x'")


@pytest.mark.parametrize("packed", [False, True])
def test_the_line_of_a_short_row_is_that_of_the_file(packed, tmp_path):
    text = 'user,item,time,review\nu,i,1,"a\nb\nc"\n' + f'u,i,1,"{LONG}"\n' * 3 + "\n\nu,i,1\n"
    path = tmp_path / ("log.csv.gz" if packed else "log.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert refusal(path, tmp_path, provider="").startswith(":10: Expected Number of Columns: 4 Found: 3")


def test_an_item_table_may_have_any_format_of_the_interactions(tmp_path):
    (tmp_path / "log.csv").write_text(HEADER + "u,a,,1\nu,b,,2\nu,c,,3\n", encoding="utf-8")
    (tmp_path / "items.dat").write_text('a::"p::1\nb::q::1\nb::r::0\n', encoding="utf-8")
    table = {"columns": ["item", "brand", "kept"], "delimiter": "::", "where": "kept = '1'", "quoting": "none"}
    data = prepare("x", with_items(tmp_path, items="items.dat", table=table), tmp_path)
    assert vocabulary(data, "providers") == {2: '"p', 3: "q"}
    table["where"] = "keep = 1"
    with pytest.raises(DataError, match=r"items\.dat: where = 'keep = 1' cannot be evaluated on this file"):
        prepare("x", with_items(tmp_path, items="items.dat", table=table), tmp_path)
    (tmp_path / "items.dat").write_text("a::p::1\nb::q\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"items\.dat:2: Expected Number of Columns: 3 Found: 2"):
        prepare("x", with_items(tmp_path, items="items.dat", table={**table, "where": ""}), tmp_path)


# The command line


def test_a_file_is_read_by_options_as_by_a_suite(tmp_path, bench):
    (tmp_path / "log.dat").write_text("u::a::buy::28.01.2017\nu::b::buy::27.01.2017\nu::b::view::x\n", encoding="utf-8")
    (tmp_path / "items.csv").write_text("item,brand\na,p\n", encoding="utf-8")
    options = ["--columns", "user, item,event,time", "--delimiter", "::", "--where", "event = 'buy'", "--json"]
    options += ["--items", "items.csv", "--provider", "brand", "--set", "time_format=%d.%m.%Y"]
    found = json.loads(bench("data", "stats", "log.dat", *options).stdout)
    assert (found["actions"], found["providers"], found["known_provider_actions"]) == (2, 1, 1)
    assert found["unlisted_actions"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch.csv"], "nosuch.csv: there is no such file, and no known dataset has this name"),
        (["no/such"], "no/such: there is no such file"),
        (
            ["positive-contro"],
            "is not a known dataset; did you mean 'positive-control'?; a dataset of a suite needs --suite SUITE",
        ),
        (["nosuch.csv", "--columns", "a,b"], "nosuch.csv: there is no such file, and --columns needs one"),
        (["positive-control", "--user", "u"], "positive-control: there is no such file, and --user needs one"),
        (["log.csv", "--suite", "s.toml"], "log.csv: --suite and --stand-in do not apply to a file"),
        (["log.csv", "--stand-in"], "log.csv: --suite and --stand-in do not apply to a file"),
        (["log.csv", "--set", "time_fromat=x"], "unknown key 'time_fromat'; did you mean 'time_format'?"),
        (["log.csv", "--columns", "a,a,b"], "each column needs a different name"),
        (["log.csv", "--items", "none.csv"], "none.csv: there is no such file"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, words, tmp_path, bench):
    (tmp_path / "log.csv").write_text(HEADER + "u,i,p,1\n", encoding="utf-8")
    done = bench("data", "stats", *arguments)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_a_suite_without_models_is_enough_for_its_data(tmp_path, bench):
    (tmp_path / "log.csv").write_text(HEADER + "u,i,p,1\nu,j,p,2\nu,k,p,3\n", encoding="utf-8")
    (tmp_path / "s.toml").write_text(f'title = "x"\n[datasets.d]\npath = "{tmp_path / "log.csv"}"\n', encoding="utf-8")
    done = bench("data", "stats", "d", "--suite", "s.toml", "--json")
    assert (done.returncode, json.loads(done.stdout)["actions"]) == (0, 3)


def test_a_sample_of_a_file_is_read(tmp_path, bench):
    rows = "".join(f"u{n},i,p,1\n" for n in range(1000))
    (tmp_path / "log.csv").write_text(HEADER + rows, encoding="utf-8")
    found = json.loads(bench("data", "stats", "log.csv", "--scale", "0.1", "--json").stdout)
    assert 50 < found["users"] < 200


# Security


@pytest.mark.parametrize(
    "condition",
    [
        "(SELECT count(*) FROM read_text('{secret}')) > 0",
        "EXISTS (SELECT * FROM '{secret}')",
        "EXISTS (SELECT * FROM read_csv('{secret}'))",
        "EXISTS (SELECT * FROM read_blob('{folder}/*'))",
        "EXISTS (SELECT * FROM glob('{folder}/*'))",
        "EXISTS (SELECT * FROM read_parquet('https://127.0.0.1:1/x.parquet'))",
        "EXISTS (SELECT * FROM sqlite_scan('{secret}', 'x'))",
        "EXISTS (SELECT * FROM sniff_csv('{secret}'))",
        "EXISTS (SELECT * FROM duckdb_secrets())",
        "getenv('HOME') <> ''",
        "true) UNION ALL SELECT * FROM read_csv('{secret}') WHERE (true",
        "true; COPY (SELECT 1) TO '{folder}/written.csv'",
    ],
)
@pytest.mark.parametrize("of", ["log", "items"])
def test_a_condition_reads_no_other_file_and_fetches_nothing(of, condition, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "elsewhere").mkdir()
    secret = tmp_path / "elsewhere" / "secret.csv"
    secret.write_text("secret\n1\n", encoding="utf-8")
    (tmp_path / "log.csv").write_text(HEADER + "u,a,p,1\n", encoding="utf-8")
    (tmp_path / "items.csv").write_text("item,brand\na,p\n", encoding="utf-8")
    where = condition.format(secret=secret, folder=secret.parent)
    settings = {"where": where} if of == "log" else {"table": {"where": where}}
    with pytest.raises(DataError, match=r"cannot be evaluated on this file|may read only the file's columns"):
        prepare("x", with_items(tmp_path, **settings), tmp_path / "data")
    assert [path.name for path in secret.parent.iterdir()] == ["secret.csv"]
    assert not (tmp_path / "home" / ".duckdb" / "extensions").exists()


@pytest.mark.parametrize(
    "condition", ["random() < 0.5", "time < NOW ()", "CAST(time AS DATE) < current_date", "uuid() > '8'"]
)
def test_a_condition_that_is_not_deterministic_is_refused(condition, tmp_path):
    (tmp_path / "log.csv").write_text(HEADER + "u,a,p,1\n", encoding="utf-8")
    assert "gives a different result each time" in refusal(tmp_path / "log.csv", tmp_path, where=condition)


def test_names_of_functions_may_be_texts_and_columns(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,random,time\nu,a,random(),1\nu,b,x,2\n", encoding="utf-8")
    written = TableSource(
        path=str(tmp_path / "log.csv"), provider="", where="random = 'random()' OR \"random\" = 'now'"
    )
    assert raw_sequences(prepare("x", written, tmp_path)) == {"u": ["a"]}


def own_datasets(folder: Path, text: str) -> None:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "datasets.toml").write_text(text, encoding="utf-8")


PLAIN = 'title = "x"\nforms = [{ path = "x.csv" }]\n'


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ('[mine]\ntitle = "x"\nforms = [{ path = "../../x.csv" }]\n', "mine.forms"),
        ('[mine]\ntitle = "x"\nforms = [{ path = "${HOME}/../x.csv" }]\n', "mine.forms"),
        (
            '[mine]\ntitle = "x"\nforms = [{ path = "x.csv", items = { path = "..", item = "i", provider = "p" } }]\n',
            "mine.forms",
        ),
        (f'[mine]\n{PLAIN}files_of = "../tmall"\n', "mine.files_of"),
        (f'[mine]\n{PLAIN}files_of = "a/b"\n', "mine.files_of"),
        (f'[mine]\n{PLAIN}archive = "/tmp/x.zip"\n', "mine.archive"),
        (f'[mine]\n{PLAIN}members = ["../x"]\n', "mine.members.0"),
        (f'[mine]\n{PLAIN}downloads = [{{ url = "u", file = "../x" }}]\n', "mine.downloads.0.file"),
        (f'[mine]\n{PLAIN}downloads = [{{ url = "u", file = "/x" }}]\n', "mine.downloads.0.file"),
        (f'["../mine"]\n{PLAIN}', "../mine"),
        (f'["a/b"]\n{PLAIN}', "a/b"),
        (f'[".."]\n{PLAIN}', ".."),
        (f'["/"]\n{PLAIN}', "/"),
        (f'[""]\n{PLAIN}', ""),
        (f'["a\\u001b"]\n{PLAIN}', ""),
    ],
)
def test_entries_of_datasets_stay_below_the_data_folder(entry, key, tmp_path, bench):
    own_datasets(tmp_path, entry)
    done = bench("data", "list")
    assert done.returncode == 2
    assert "datasets.toml:" in done.stderr
    assert f": {key}: " in done.stderr or not key
    assert "expected a " in done.stderr


def test_a_users_own_entry_may_name_any_absolute_path(tmp_path, bench):
    (tmp_path / "log.csv").write_text(HEADER + "u,i,p,1\n", encoding="utf-8")
    own_datasets(tmp_path, f'[mine]\ntitle = "x"\nforms = [{{ path = "{tmp_path / "log.csv"}" }}]\n')
    assert bench("data", "stats", "mine").returncode == 0


def test_unpacking_stops_at_the_limit_of_the_entry(tmp_path, bench):
    entry = '[mine]\ntitle = "x"\narchive = "a.zip"\nmembers = ["log.csv"]\nforms = [{ path = "log.csv" }]\n'
    own_datasets(tmp_path, entry + "unpacked_bytes = 1000\n")
    raw = tmp_path / "data" / "raw"
    raw.mkdir()
    with zipfile.ZipFile(raw / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("log.csv", HEADER + "u,i,p,1\n" * 1000)
    done = bench("data", "prepare", "mine")
    assert done.returncode == 2
    assert "a.zip: its files exceed 1,000 bytes unpacked, the limit of this dataset (unpacked_bytes)" in done.stderr
    assert [path.name for path in raw.rglob("*") if path.is_file()] == ["a.zip"]
    own_datasets(tmp_path, entry)
    assert bench("data", "prepare", "mine").returncode == 0


def test_an_encrypted_archive_is_a_sentence(tmp_path, bench):
    own_datasets(
        tmp_path, '[mine]\ntitle = "x"\narchive = "a.zip"\nmembers = ["log.csv"]\nforms = [{ path = "log.csv" }]\n'
    )
    raw = tmp_path / "data" / "raw"
    raw.mkdir()
    content = bytearray(zipped(TEXT))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    (raw / "a.zip").write_bytes(content)
    done = bench("data", "prepare", "mine")
    assert done.returncode == 2
    assert "a.zip: 'log.csv' in it is encrypted; unpack it with its password" in done.stderr


# Speed


def test_checks_of_times_and_ids_stay_within_what_reading_takes(tmp_path):
    """Ten times the rows of a test take a second or two; a loop in Python would take a minute."""
    rows = 400_000
    rng = np.random.default_rng(0)
    path = tmp_path / "log.parquet"
    columns = {"user": rng.integers(20_000, size=rows), "item": rng.integers(5_000, size=rows)}  # noqa: F841 (by name)
    duckdb.sql(
        "SELECT *, 'p' || item % 50 AS provider, strftime(make_timestamp(1500000000000000 + user * 1000000),"
        " '%Y-%m-%dT%H:%M:%S+02:00') AS time FROM columns"
    ).write_parquet(str(path))
    began = time.process_time()
    data = prepare("x", TableSource(path=str(path)), tmp_path)
    assert data.statistics.actions == rows
    assert time.process_time() - began < 15


def test_an_item_table_may_be_written_in_a_suite_as_before():
    table = ItemTable(path="i.csv", item="item", provider="brand")
    assert (table.columns, table.where, table.quoting) == ((), "", "auto")
