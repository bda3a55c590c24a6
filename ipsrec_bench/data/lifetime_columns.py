"""Reading times: those of interactions, and the columns `available_from` and `available_until`.

The latter two are in the file of interactions or in the item table. All are written alike and have one unit. An item
has the earliest of its beginnings and the latest of its ends.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from ipsrec_bench.data.lifetimes import FROM, UNTIL, Moments, missing_moment
from ipsrec_bench.data.raw_files import place_of
from ipsrec_bench.data.sources import find_column, materialise, open_table, where
from ipsrec_bench.data.times import RowPlace, TimeExpression, time_expression
from ipsrec_bench.errors import DataError
from ipsrec_bench.suite.schema import DatasetSpec, TableSource
from ipsrec_bench.words import visible

_KINDS = 3
"""Kinds of times in the table `moments`: those of interactions, beginnings and ends."""
_OF_ITEMS = "item_moments"
"""Name of the table with those of the item table."""


def read_times(
    connection: duckdb.DuckDBPyConnection, source: DatasetSpec, paths: Sequence[Path], place: RowPlace
) -> TimeExpression:
    """Return the SQL that reads the times of the table `raw`, and their unit.

    If `source` has columns of lifetimes, create the table `lifetimes`: each item's beginning and end, NULL where no row
    has a value.

    Args:
        connection: holds `raw`.
        source: the dataset.
        paths: the file of interactions, then the item table if there is one; empty for synthetic data.
        place: returns the location of a row of `raw`.

    Raises:
        DataError: a time cannot be read, a column does not exist, or an end is before its beginning, in a row or of an
            item.
    """
    file = str(paths[0]) if paths else "synthetic data"
    if not isinstance(source, TableSource) or not (tables := _tables(connection, source, paths)):
        return time_expression(connection, getattr(source, "time_format", ""), file, place)
    keys = list(tables)
    places: dict[str, RowPlace] = {"raw": place}
    if source.items is not None:
        places[_OF_ITEMS] = partial(place_of, paths[1], written=source.items)
    parts = [f"SELECT time, {_KINDS} * row AS row FROM raw"] + [
        f"SELECT {key} AS time, {_KINDS} * row + {number} FROM {tables[key]} WHERE {key} <> ''"
        for number, key in enumerate(keys, start=1)
    ]
    connection.execute(f"CREATE TEMP VIEW moments AS {' UNION ALL '.join(parts)}")

    def place_of_moment(row: int) -> str:
        row, kind = divmod(row, _KINDS)
        return f"{places[tables[keys[kind - 1]]](row)}: {keys[kind - 1]}" if kind else place(row)

    time = time_expression(connection, source.time_format, file, place_of_moment, "moments")
    if len({*tables.values()}) == 1 < len(tables):
        (table,) = {*tables.values()}
        _refuse_reversed(connection, time, table, places[table])
    _gather(connection, time, tables)
    if len(tables) > 1:
        _refuse_reversed_items(connection, time, tables, " and ".join(map(str, paths)))
    return time


def _tables(connection: duckdb.DuckDBPyConnection, source: TableSource, paths: Sequence[Path]) -> dict[str, str]:
    """Return the table that has each column of lifetimes, by key, after reading those of the item table.

    Raises:
        DataError: neither the interactions nor the item table have a column.
    """
    wanted = {key: getattr(source, key) for key in (FROM, UNTIL) if getattr(source, key)}
    there = {name for name, *_ in connection.execute("DESCRIBE raw").fetchall()}
    others = {key: name for key, name in wanted.items() if key not in there}
    if others:
        assert source.items is not None
        path = paths[1]
        table = open_table(connection, path, source.items)
        columns = {
            "item": find_column(table, source.items.item, "item column", path),
            **{key: find_column(table, name, f"{key} column", path) for key, name in others.items()},
        }
        numbered = table.project('*, row_number() OVER () AS "row of the file"')
        rows = where(connection, numbered, source.items.where, path, table.columns).project(
            ", ".join(f"CAST({column} AS VARCHAR) AS {key}" for key, column in columns.items())
            + ', "row of the file" AS row'
        )
        materialise(connection, path, rows, "read_moments")
        connection.execute(f"CREATE TABLE {_OF_ITEMS} AS SELECT * FROM read_moments SEMI JOIN raw USING (item)")
    return {key: _OF_ITEMS if key in others else "raw" for key in wanted}


def _applied(time: TimeExpression, key: str) -> str:
    """Return the SQL that reads the column `key` as a time; NULL if it has no value."""
    return f"(SELECT {time.sql} FROM (SELECT {key} AS time) WHERE time <> '')"


def _refuse_reversed(connection: duckdb.DuckDBPyConnection, time: TimeExpression, table: str, place: RowPlace) -> None:
    found = connection.execute(
        f"SELECT row, {FROM}, {UNTIL} FROM {table} WHERE {_applied(time, UNTIL)} < {_applied(time, FROM)}"
        " ORDER BY row LIMIT 1"
    ).fetchone()
    if found is not None:
        row, begin, end = found
        raise DataError(
            f"{place(row)}: {UNTIL} is '{visible(end)}', which is before {FROM}, '{visible(begin)}'; correct one of"
            " them"
        )


def _refuse_reversed_items(
    connection: duckdb.DuckDBPyConnection, time: TimeExpression, tables: Mapping[str, str], files: str
) -> None:
    """Refuse an item whose beginning and end, perhaps of different rows or tables, are reversed."""
    found = connection.execute(f"SELECT min(item) FROM lifetimes WHERE {UNTIL} < {FROM}").fetchone()
    if found is None or found[0] is None:
        return
    begin, end = (
        connection.execute(
            f"SELECT {chosen}({key}, {_applied(time, key)}) FROM {tables[key]} WHERE item = ?", found
        ).fetchall()[0][0]
        for key, chosen in ((FROM, "arg_min"), (UNTIL, "arg_max"))
    )
    raise DataError(
        f"{files}: the latest {UNTIL} of the item '{visible(found[0])}' is '{visible(end)}', which is before its"
        f" earliest {FROM}, '{visible(begin)}'; correct one of them"
    )


def _gather(connection: duckdb.DuckDBPyConnection, time: TimeExpression, tables: Mapping[str, str]) -> None:
    columns = ", ".join(f"{key}.moment AS {key}" for key in tables)
    joins = " ".join(
        f"LEFT JOIN (SELECT item, {'min' if key == FROM else 'max'}({_applied(time, key)}) AS moment"
        f" FROM {table} GROUP BY item) AS {key} ON {key}.item = listed.item"
        for key, table in tables.items()
    )
    items = "(SELECT DISTINCT item FROM raw) AS listed"
    connection.execute(f"CREATE TABLE lifetimes AS SELECT listed.item, {columns} FROM {items} {joins}")


def given_lifetimes(connection: duckdb.DuckDBPyConnection, dtype: np.dtype[Any]) -> dict[str, Moments]:
    """Return the prepared arrays, by key, of the tables `lifetimes` and `items`: first and last moments `[items]`.

    Their type is that of the data's times, `dtype`. Empty if there is no table `lifetimes`. An item without a value has
    `missing_moment`.
    """
    tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if "lifetimes" not in tables:
        return {}
    keys = [name for name, *_ in connection.execute("DESCRIBE lifetimes").fetchall() if name != "item"]
    columns = connection.execute(
        f"SELECT {', '.join(keys)} FROM items JOIN lifetimes ON lifetimes.item = items.raw ORDER BY id"
    ).fetchnumpy()
    found: dict[str, Moments] = {}
    for key in keys:
        column = np.ma.masked_array(columns[key])
        missing = np.ma.getmaskarray(column)
        moments = np.where(missing, 0, column.data).astype(dtype)
        if key == UNTIL:  # the last moment before the end
            moments = np.nextafter(moments, -np.inf) if dtype.kind == "f" else moments - 1
        found[key] = np.where(missing, np.array(missing_moment(dtype), dtype), moments)
    return found
