"""Preparation: filters, duplicates, samples, every kind of bad file, and the leftovers of a crash."""

import gzip
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipsrec_bench.data import prepare as module
from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.errors import DataError
from ipsrec_bench.suite.schema import Filter, SyntheticSource, TableSource

from .conftest import raw_sequences

HEADER = "user,item,provider,time\n"
Row = tuple[int, int]


def table(rows, path: Path) -> TableSource:
    path.write_text(HEADER + "".join(",".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return TableSource(path=str(path))


def kept(data) -> Counter[tuple[str, str]]:
    return Counter((user, item) for user, items in raw_sequences(data).items() for item in items)


def within(rows: list[Row], wanted: Filter) -> list[Row]:
    users, items = Counter(u for u, _ in rows), Counter(i for _, i in rows)

    def fits(count: int, bounds) -> bool:
        return bounds.min <= count and (bounds.max is None or count <= bounds.max)

    return [(u, i) for u, i in rows if fits(users[u], wanted.users) and fits(items[i], wanted.items)]


bounds = st.fixed_dictionaries({"min": st.integers(1, 3)}, optional={"max": st.integers(3, 6)})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=50),
    st.fixed_dictionaries({"users": bounds, "items": bounds, "passes": st.sampled_from(["all", "one"])}),
)
def test_a_filter_makes_one_pass_or_repeats_to_the_fixpoint(tmp_path_factory, rows, table_of_filter):
    folder = tmp_path_factory.mktemp("f")
    wanted = Filter.model_validate(table_of_filter)
    expected = within(rows, wanted)
    while wanted.passes == "all" and (again := within(expected, wanted)) != expected:
        expected = again
    written = table(((u, i, "p", 0) for u, i in rows), folder / "l.csv").model_copy(update={"filter": wanted})
    if not expected:
        with pytest.raises(DataError, match="leaves nothing; give it wider bounds"):
            prepare("x", written, folder)
        return
    assert kept(prepare("x", written, folder)) == Counter((str(u), str(i)) for u, i in expected)


def test_filters_in_short():
    core = Filter.model_validate("5-core")
    assert core == Filter.model_validate({"users": {"min": 5}, "items": {"min": 5}})
    assert str(Filter.model_validate("5-100")) == (
        "users with 5 to 100 interactions and items with 5 to 100 interactions"
    )
    assert not Filter.model_validate("none").active
    for wrong in ("5", "core", "-5", "9-5"):
        with pytest.raises(ValueError, match=r'expected "none"|may not exceed'):
            Filter.model_validate(wrong)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=20),
    st.sampled_from(["newest", "oldest"]),
)
def test_the_newest_or_oldest_duplicate_by_time_then_row_is_kept(tmp_path_factory, rows, keep):
    folder = tmp_path_factory.mktemp("d")
    chosen: dict[Row, tuple[int, int]] = {}
    better = max if keep == "newest" else min
    for number, (u, i, t) in enumerate(rows):
        chosen[u, i] = better(chosen.get((u, i), (t, number)), (t, number))
    expected: dict[str, list[str]] = {}
    for (u, i), _ in sorted(chosen.items(), key=lambda entry: (entry[0][0], entry[1])):
        expected.setdefault(str(u), []).append(str(i))
    written = TableSource.model_validate(
        {
            **table(((u, i, "p", t) for u, i, t in rows), folder / "l.csv").model_dump(),
            "duplicates": {"columns": ["user", "item"], "keep": keep},
        }
    )
    assert raw_sequences(prepare("x", written, folder)) == expected


def test_duplicates_are_recognised_by_columns_of_a_file_with_joined_providers(tmp_path):
    (tmp_path / "i.csv").write_text("item,brand\na,p\nb,q\n", encoding="utf-8")
    written = TableSource.model_validate(
        {
            **table([("u", "a", "", 1), ("u", "b", "", 2), ("u", "a", "", 3)], tmp_path / "l.csv").model_dump(),
            "items": {"path": str(tmp_path / "i.csv"), "item": "item", "provider": "brand"},
            "duplicates": {"columns": ["user", "item"]},
        }
    )
    data = prepare("x", written, tmp_path)
    assert raw_sequences(data) == {"u": ["b", "a"]}
    assert data.providers.tolist() == [3, 2]


def test_json_lines_support_conditions_alternatives_and_missing_columns(tmp_path):
    (tmp_path / "l.json").write_text(
        '{"user": "u", "item": "a", "ts": 5, "stars": 5, "style": {"x": 1}}\n'
        '{"user": "u", "item": "b", "ts": 4, "stars": 5, "brand": "p"}\n'
        '{"user": "u", "item": "c", "ts": 3, "stars": 1}\n',
        encoding="utf-8",
    )
    written = TableSource(path=str(tmp_path / "l.json"), time=("time", "ts"), provider="brand", where="stars = '5'")
    data = prepare("x", written, tmp_path)
    assert raw_sequences(data) == {"u": ["b", "a"]}
    assert data.statistics.known_provider_actions == 1
    with pytest.raises(DataError, match=r"there is no column 'brnd' \(provider column\).*did you mean 'brand'"):
        prepare("x", written.model_copy(update={"provider": "brnd"}), tmp_path)


def test_a_sample_hides_no_bad_row(tmp_path):
    rows = [(f"u{n}", "a", "p", n) for n in range(100)]
    written = table([*rows, ("", "a", "p", 1)], tmp_path / "x.csv").model_copy(update={"scale": 0.01})
    with pytest.raises(DataError, match=r"x\.csv:102: the user is missing"):
        prepare("x", written, tmp_path)


def test_a_file_that_is_removed_during_reading_is_named(tmp_path, monkeypatch):
    written = table([("u", "a", "p", 1)], tmp_path / "x.csv")
    monkeypatch.setattr(module, "_filter", lambda *_: (tmp_path / "x.csv").unlink())
    with pytest.raises(DataError, match=r"x\.csv: the file was removed while it was being read"):
        prepare("x", written, tmp_path / "data")


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "data/prepared/.mine.part").mkdir(parents=True)
    prepare("x", table([("u", "a", "p", 1)], tmp_path / "x.csv"), tmp_path / "data")
    assert (tmp_path / "data/prepared/.mine.part").is_dir()


def test_a_sample_of_users_has_whole_histories_and_is_the_same_everywhere(tmp_path):
    rows = [(u, i, "p", i) for u in range(2000) for i in range(3)]
    whole = table(rows, tmp_path / "a.csv")
    moved = table([*rows[::-1], (9999, 1, "q", 0)], tmp_path / "b.csv")
    sampled = [prepare("x", s.model_copy(update={"scale": 0.1}), tmp_path) for s in (whole, moved)]
    users = [set(raw_sequences(data)) - {"9999"} for data in sampled]
    assert users[0] == users[1]
    assert 140 < len(users[0]) < 260
    assert set(map(tuple, raw_sequences(sampled[0]).values())) == {("0", "1", "2")}
    assert sampled[0].scale == 0.1
    larger = prepare("x", whole.model_copy(update={"scale": 0.2}), tmp_path)
    assert users[0] < set(raw_sequences(larger))
    world = prepare("w", SyntheticSource(scale=0.1), tmp_path)
    assert 100 < world.num_users < 200


def test_files_without_header_and_conditions(tmp_path):
    (tmp_path / "x.csv").write_text("1,a,5,p\n1,b,4,q\n2,a,x,p\n", encoding="utf-8")
    written = TableSource(
        path=str(tmp_path / "x.csv"), columns=("user", "item", "time", "provider"), where="\"user\" <> '2'"
    )
    assert raw_sequences(prepare("x", written, tmp_path)) == {"1": ["b", "a"]}
    with pytest.raises(DataError, match=r"x\.csv:3: the time is 'x'"):
        prepare("x", written.model_copy(update={"where": ""}), tmp_path)
    with pytest.raises(
        DataError, match=r"where = 'nope = 1' cannot be evaluated on this file.*its columns, all text, are"
    ):
        prepare("x", written.model_copy(update={"where": "nope = 1"}), tmp_path)
    with pytest.raises(DataError, match="it has no row of data left by `where`"):
        prepare("x", written.model_copy(update={"where": "false"}), tmp_path)


def test_a_column_may_have_one_of_several_names(tmp_path):
    written = table([("u", "a", "p", 1)], tmp_path / "x.csv").model_copy(update={"time": ("when", "time")})
    assert prepare("x", written, tmp_path).num_users == 1
    with pytest.raises(DataError, match="there is no column 'when', 'then'"):
        prepare("x", written.model_copy(update={"time": ("when", "then")}), tmp_path)


# Bad files

LINES = HEADER + "".join(f"u{n % 50},i{n % 31},p{n % 5},{n}\n" for n in range(20_000))
PACKED = gzip.compress(LINES.encode(), mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv.gz", PACKED[: len(PACKED) // 2], "x.csv.gz: the gzip file is truncated or damaged"),
        ("x.csv.gz", PACKED[:-4], "x.csv.gz: the gzip file is truncated or damaged"),
        ("x.csv.gz", PACKED[:5000] + b"\0\0\0\0" + PACKED[5004:], "x.csv.gz: the gzip file is truncated or damaged"),
        ("x.csv.gz", gzip.compress(b"", mtime=0), "x.csv.gz: the file is empty"),
        ("x.csv", b"", "x.csv: the file is empty"),
        ("x.csv", HEADER.encode(), "x.csv: the dataset is empty: it has no row of data"),
        ("x.csv", LINES.replace("user", "who", 1).encode(), "there is no column 'user'"),
        ("x.csv", (LINES + "u,i\n" + LINES).encode(), "x.csv:20002: Expected Number of Columns: 4 Found: 2"),
        (
            "x.csv",
            LINES.encode() + b"u\xff,i,p,1\n",
            "x.csv:20002: the line is not UTF-8; if the file is Latin-1, convert it",
        ),
        ("x.csv", (LINES + "u,i,p,NaN\nu,i,p,1\n").encode(), "x.csv:20002: the time is 'NaN'"),
        ("x.csv", (LINES + "u,i,p,-1\n").encode(), "x.csv:20002: the time is '-1', which is neither a finite number"),
        ("x.csv", (LINES + "u,i,p,1e999\n").encode(), "x.csv:20002: the time is '1e999'"),
        ("x.csv", (LINES + "u" * 10_000 + ",i,p,1\n").encode(), "x.csv:20002: the user has more than 1,000 characters"),
        ("x.csv", (LINES + '"u,i,p,1\n' + LINES).encode(), "x.csv:20002: Value with unterminated quote found"),
        (
            "x.csv",
            (LINES + "u,i,p,1\r\n").encode(),
            r"x.csv: line 1 ends in \n and line 20002 in \r\n; use one line ending",
        ),
        ("x.json", b'{"user": 1, "item": 2, "time": 3}\n{"user"\n', "x.json:2: the line is not JSON"),
    ],
)
def test_a_bad_file_is_named_with_its_line_and_leaves_nothing(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        prepare("x", TableSource(path=str(tmp_path / name)), tmp_path / "data")
    assert words in str(caught.value)
    assert list((tmp_path / "data").rglob("*")) in ([], [tmp_path / "data/prepared"])


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    written = table([("u", "a", "p", 1)], tmp_path / "x.csv")

    def check_and_change(*arguments):
        check(*arguments)
        table([("u", "a", "p", 1), ("u", "b", "p", 2)], tmp_path / "x.csv")

    check = module._check_rows
    monkeypatch.setattr(module, "_check_rows", check_and_change)
    with pytest.raises(DataError, match=r"x\.csv: the file changed while it was being read; prepare it again"):
        prepare("x", written, tmp_path / "data")
    assert list((tmp_path / "data/prepared").iterdir()) == []


def in_another_process(folder: Path, *, limit: int | None = None) -> subprocess.Popen[str]:
    program = f"""
        import resource
        from pathlib import Path
        from ipsrec_bench.data.prepare import prepare
        from ipsrec_bench.errors import DataError
        from ipsrec_bench.suite.schema import TableSource
        if {limit}:
            resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        try:
            print(prepare("x", TableSource(path={str(folder / "x.csv")!r}), Path({str(folder)!r})).fingerprint)
        except DataError as error:
            print(error)
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def large(folder: Path) -> None:
    rng = np.random.default_rng(0)
    columns = (rng.integers(size, size=400_000) for size in (20_000, 5_000, 50, 10**6))
    table(zip(*columns, strict=True), folder / "x.csv")


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path):
    large(tmp_path)
    out, err = in_another_process(tmp_path, limit=1_000_000).communicate(timeout=60)
    assert "cannot be written: the disk is full; nothing was kept" in out, err
    assert list((tmp_path / "prepared").iterdir()) == []


def test_a_killed_preparation_leaves_nothing_that_looks_complete(tmp_path):
    large(tmp_path)
    whole = prepare("x", TableSource(path=str(tmp_path / "x.csv")), tmp_path / "other").fingerprint
    for wait in (0.05, 0.15, 0.3):
        process = in_another_process(tmp_path)
        prepared = tmp_path / "prepared"
        deadline = time.monotonic() + 60
        while not (prepared.exists() and list(prepared.glob(".*.part"))):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == 0:  # it was done before
            break
        assert [path.name for path in prepared.iterdir() if not path.name.startswith(".")] == []
    out, err = in_another_process(tmp_path).communicate(timeout=60)
    assert out.strip() == whole, err
    assert not list(prepared.glob(".*"))


def test_two_preparations_at_once_make_one(tmp_path):
    large(tmp_path)
    processes = [in_another_process(tmp_path) for _ in range(2)]
    one, two = (process.communicate(timeout=60)[0] for process in processes)
    assert one == two
    assert len(list((tmp_path / "prepared").iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    written = table([("u", "a", "p", 1)], tmp_path / "x.csv")
    (tmp_path / "data").write_text("a file where a folder should be", encoding="utf-8")
    with pytest.raises(DataError, match=r"data/prepared/x-.*: cannot be written"):
        prepare("x", written, tmp_path / "data")


def test_prepared_files_are_readable_for_other_users(tmp_path):
    data = prepare("x", table([("u", "a", "p", 1)], tmp_path / "x.csv"), tmp_path / "data")
    umask = os.umask(0)
    os.umask(umask)
    assert data.path.stat().st_mode & 0o777 == 0o777 & ~umask


def test_prepared_data_can_be_sent_to_a_process_that_works_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(prepare("world", SyntheticSource(users=20, items=9, mean_length=5), Path("data")))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(sent).num_users == 20  # noqa: S301
