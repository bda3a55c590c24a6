"""Lifetimes of items: columns of the data, or first and last interactions."""

import numpy as np
import pytest

from ipsrec_bench.data.lifetimes import lifetimes_of
from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.errors import DataError
from ipsrec_bench.suite.schema import TableSource

ROWS = ["u,a,p,10,5,20", "v,a,p,12,6,25", "u,b,p,15,15,16", "v,c,q,30,40,50", "w,c,q,9,,"]
"""Of user, item, provider, time, beginning and end."""


def prepared(folder, rows, **settings):
    """Return the prepared form of rows, and its items' lifetimes as a list of pairs, by item."""
    (folder / "log.csv").write_text("\n".join(["user,item,provider,time,start,stop", *rows]))
    data = prepare("log", TableSource(path=str(folder / "log.csv"), **settings), folder / "data")
    lifetimes = data.lifetimes
    return data, list(zip(lifetimes.first.tolist(), lifetimes.last.tolist(), strict=True))


def test_an_item_exists_from_its_first_to_its_last_interaction(tmp_path):
    data, found = prepared(tmp_path, ROWS)
    assert found == [(10, 12), (15, 15), (9, 30)]
    assert not data.lifetimes.given
    assert not list(data.path.glob("available*"))


def test_columns_say_when_an_item_exists(tmp_path):
    """The earliest beginning, and the last moment before the latest end; of c two interactions are outside."""
    data, found = prepared(tmp_path, ROWS, available_from="start", available_until="stop")
    assert found == [(5, 24), (15, 15), (40, 49)]
    assert data.lifetimes.given
    (note,) = data.reading.notes
    assert note.startswith("2 of 5 interactions (40.0%) are outside of the lifetime of their item")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ({"available_from": "start"}, [(5, 12), (15, 15), (40, 30)]),
        ({"available_until": ["end", "stop"]}, [(10, 24), (15, 15), (9, 49)]),
    ],
)
def test_one_column_alone_leaves_the_other_side_to_interactions(tmp_path, column, expected):
    assert prepared(tmp_path, ROWS, **column)[1] == expected


def test_an_item_without_a_value_has_its_interactions(tmp_path):
    rows = [*ROWS[:3], "v,c,q,30,,", "w,c,q,9,,"]
    assert prepared(tmp_path, rows, available_from="start", available_until="stop")[1][2] == (9, 30)


def test_only_given_columns_change_the_fingerprint(tmp_path):
    plain, _ = prepared(tmp_path, ROWS)
    given, _ = prepared(tmp_path, ROWS, available_from="start")
    other, _ = prepared(tmp_path, [*ROWS[:-1], "w,c,q,9,8,"], available_from="start")
    again, _ = prepared(tmp_path, [*ROWS[:-1], "w,c,q,9,8,"])
    assert len({plain.fingerprint, given.fingerprint, other.fingerprint}) == 3
    assert again.fingerprint == plain.fingerprint


def test_lifetimes_are_read_before_rows_are_left_out(tmp_path):
    """A filter leaves users out; it does not change when items existed."""
    rows = [*ROWS, "x,a,p,3,1,90"]
    _, found = prepared(tmp_path, rows, available_from="start", available_until="stop", filter={"users": {"min": 2}})
    assert found == [(1, 89), (15, 15), (40, 49)]


def test_times_of_all_columns_have_one_unit(tmp_path):
    """A nanosecond in one column makes all of them nanoseconds."""
    rows = ["u,a,p,2020-01-02,2020-01-01 00:00:00.000000001,2020-02-01", "u,a,p,2020-01-03,2020-01-01,2020-02-01"]
    data, found = prepared(tmp_path, rows, available_from="start", available_until="stop")
    assert data.times_per_second == 1_000_000_000
    day = 86_400 * 10**9
    start = 18_262 * day
    assert found == [(start, start + 31 * day - 1)]


def test_fractions_have_a_last_moment_before_the_end(tmp_path):
    _, found = prepared(tmp_path, ["u,a,p,1.5,1.25,2.5", "v,b,p,2,1,3"], available_from="start", available_until="stop")
    assert found == [(1.25, np.nextafter(2.5, 0)), (1.0, np.nextafter(3.0, 0))]


def test_the_item_table_may_have_the_columns(tmp_path):
    (tmp_path / "items.csv").write_text("item,maker,from,to\na,p,1,9\nz,p,5,2x\nb,q,4,\n")
    items = {"path": str(tmp_path / "items.csv"), "item": "item", "provider": "maker"}
    rows = ["u,a,,2,,", "u,b,,5,,"]
    _, found = prepared(tmp_path, rows, items=items, available_from="from", available_until="to")
    assert found == [(1, 8), (4, 5)]
    control, found = prepared(tmp_path, rows, items=items, available_from="from", providers_as="one")
    assert found == [(1, 2), (4, 5)]
    assert set(control.providers.tolist()) == {2}
    with pytest.raises(DataError, match=r"items.csv: there is no column 'till' \(available_until column\)"):
        prepared(tmp_path, rows, items=items, available_until="till")
    (tmp_path / "items.csv").write_text("item,maker,from,to\na,p,1,9\nb,q,4,3\n")
    with pytest.raises(DataError, match=r"items.csv:3: available_until is '3', which is before available_from, '4'"):
        prepared(tmp_path, rows, items=items, available_from="from", available_until="to")


def test_lifetimes_of_several_rows_or_tables_are_not_reversed(tmp_path):
    (tmp_path / "items.csv").write_text("item,maker,from\na,p,1\nb,p,2020\n")
    items = {"path": str(tmp_path / "items.csv"), "item": "item", "provider": "maker"}
    rows = ["u,a,,2,,11", "u,b,,5,,9", "v,b,,6,,11"]
    said = (
        r"log.csv and .*items.csv: the latest available_until of the item 'b' is '11', which is before its earliest"
        r" available_from, '2020'; correct one of them"
    )
    with pytest.raises(DataError, match=said):
        prepared(tmp_path, rows, items=items, available_from="from", available_until="stop")
    rows = ["u,a,p,2,1,5", "u,b,p,5,7,", "v,b,p,6,,6"]
    with pytest.raises(DataError, match=r"log.csv: the latest available_until of the item 'b' is '6', .* '7'"):
        prepared(tmp_path, rows, available_from="start", available_until="stop")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("u,a,p,1,soon,5", r"log.csv:2: available_from: the time is 'soon', which is neither"),
        ("u,a,p,1,1,2020-01-01", r"log.csv:2: available_until: the time is '2020-01-01', and the time column mixes"),
        ("u,a,p,1,1,-4", r"log.csv:2: available_until: the time is '-4', which is neither"),
        ("u,a,p,1,3,2", r"log.csv:2: available_until is '2', which is before available_from, '3'; correct one of them"),
    ],
)
def test_unusable_values_are_refused_with_their_row(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, [row], available_from="start", available_until="stop")


def test_a_column_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no column 'begin' \(available_from column\)"):
        prepared(tmp_path, ROWS, available_from="begin")


def test_lifetimes_before_an_end_are_those_of_the_interactions_before_it():
    items, times = np.array([1, 1, 2, 3, 3], dtype=np.int32), np.array([0, 7, 2, 8, 9])
    found = lifetimes_of({}, items, times, 5)
    assert (found.first.tolist(), found.last.tolist()) == ([0, 2, 5], [0, 2, 5])
    assert found.first.dtype == found.last.dtype == times.dtype
    until = np.array([7, 100, np.iinfo(np.int64).min])  # of item 1, also its last interaction; item 3 has no value
    found = lifetimes_of({"available_until": until}, items, times, 5)
    assert (found.first.tolist(), found.last.tolist()) == ([0, 2, 5], [7, 100, 5])
    exact = lifetimes_of({"available_until": np.array([7.0, np.nan, 8.5])}, items, times.astype(float), 5)
    assert exact.last.tolist() == [7.0, 2.0, 8.5]


def test_a_given_end_at_the_last_interaction_holds_in_earlier_test_periods(tmp_path):
    rows = ["u,a,p,1,,8", "v,a,p,7,,8", "u,b,p,2,,", "v,b,p,9,,"]
    data, found = prepared(tmp_path, rows, available_until="stop")
    assert found == [(1, 7), (2, 9)]
    assert data.lifetimes_before(5).last.tolist() == [7, 2]
