"""Providers of items: item tables, placeholders for unknown providers, and notes on both."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.ids import BROKEN, MARKED, SEVERAL, TOO_LONG, refuse_ids
from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER, Reading
from ipsrec_bench.data.raw_files import kind_of, place_of
from ipsrec_bench.data.sources import find_column, materialise, open_table, where
from ipsrec_bench.errors import DataError
from ipsrec_bench.suite.schema import ItemTable, TableSource
from ipsrec_bench.words import visible

LARGEST = 5
"""Number of providers that are named with their share."""
BLANKS = " \t\n\r\v\f\u00a0\u3000\ufeff"
_SHOWN = 10
# Equal for ids that differ only in number formatting, blanks or case.
_LOOSE = rf"lower(regexp_replace(regexp_replace(trim({{0}}, '{BLANKS}'), '\.0+$', ''), '^0+(.)', '\1'))"


def is_unknown(column: str, unknown: Sequence[str]) -> str:
    """Return the SQL condition that `column` names no provider: it is NULL, blank, or one of the texts `unknown`."""
    texts = ", ".join("'" + text.strip(BLANKS).lower().replace("'", "''") + "'" for text in ("", *unknown))
    return f"({column} IS NULL OR lower(trim({column}, '{BLANKS}')) IN ({texts}))"


def join_items(connection: duckdb.DuckDBPyConnection, source: TableSource, path: Path) -> None:
    """Set the provider of every row of the table `raw` from the item table, and add the column `listed`.

    Raises:
        DataError: the item table cannot be read, has an invalid item or provider id, names two providers for one item,
            or contains none of the items.
    """
    assert source.items is not None
    table = open_table(connection, path, source.items)
    item = find_column(table, source.items.item, "item column", path)
    provider = find_column(table, source.items.provider, "provider column", path)
    numbered = table.project('*, row_number() OVER () AS "row of the file"')
    rows = where(connection, numbered, source.items.where, path, table.columns).project(
        f'CAST({item} AS VARCHAR) AS item, CAST({provider} AS VARCHAR) AS provider, "row of the file" AS row'
    )
    distinct = rows.filter("item <> ''").aggregate("item, provider, min(row) AS row", "item, provider")
    materialise(connection, path, distinct, "item_rows")
    _refuse_odd_rows(connection, source.items, path)
    known = f"FILTER (NOT {is_unknown('provider', source.unknown)})"
    ambiguous = connection.execute(
        f"SELECT item, count(provider) {known} AS providers, min(provider) {known}, max(provider) {known}"
        " FROM item_rows GROUP BY item HAVING providers > 1 ORDER BY item LIMIT 1"
    ).fetchone()
    if ambiguous is not None:
        raise DataError(
            f"{path}: item '{visible(ambiguous[0])}' has {ambiguous[1]} different providers, such as"
            f" '{visible(ambiguous[2])}' and '{visible(ambiguous[3])}'; an item table must name one"
        )
    connection.execute(
        "CREATE TABLE item_providers AS"
        f" SELECT item, coalesce(max(provider) {known}, max(provider)) AS provider FROM item_rows GROUP BY item"
    )
    connection.execute(
        "CREATE OR REPLACE TABLE raw AS"
        " SELECT raw.* REPLACE (named.provider AS provider), named.item IS NOT NULL AS listed"
        " FROM raw LEFT JOIN item_providers AS named ON named.item = raw.item"
    )
    _refuse_strangers(connection, path)


def _refuse_odd_rows(connection: duckdb.DuckDBPyConnection, items: ItemTable, path: Path) -> None:
    """Raise an error on the first row of the table `item_rows` with an invalid item or provider id.

    Providers of items without interactions are checked only for line breaks in a text file: these mean that a quote
    has swallowed rows.
    """
    swallowing = [BROKEN] if kind_of(path) == "text" else []

    def place(row: int) -> str:
        return place_of(path, row, items)

    refuse_ids(connection, "item_rows", "item", [TOO_LONG, MARKED, *swallowing], place)
    refuse_ids(connection, "item_rows", "provider", swallowing, place)
    wanted = "(SELECT * FROM item_rows SEMI JOIN raw USING (item))"
    refuse_ids(connection, wanted, "provider", [TOO_LONG, MARKED, SEVERAL], place)


def _refuse_strangers(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Raise an error, with an example of both sides, if the item table contains none of the items."""
    rows, matched = connection.execute("SELECT count(*), count(*) FILTER (listed) FROM raw").fetchall()[0]
    if matched or not rows:
        return
    alike = connection.execute(
        "SELECT r.item, i.item FROM (SELECT DISTINCT item FROM raw) AS r JOIN item_providers AS i"
        f" ON {_LOOSE.format('r.item')} = {_LOOSE.format('i.item')} ORDER BY ALL LIMIT 1"
    ).fetchone()
    ours, theirs = (
        alike
        or connection.execute("SELECT (SELECT min(item) FROM raw), (SELECT min(item) FROM item_providers)").fetchall()[
            0
        ]
    )
    if theirs is None:
        raise DataError(f"{path}: the item table has no row with an item")
    which = "which are not the same text" if alike else "which is of another kind"
    raise DataError(
        f"{path}: none of the interactions' items is in the item table: an interaction has '{visible(ours)}', the"
        f" table has '{visible(theirs)}', {which}; set its `item` to the right column, or write both ids alike"
    )


def count_providers(connection: duckdb.DuckDBPyConnection, unknown: Sequence[str]) -> None:
    """Create the table `provider_counts` from `raw`: provider, its interactions, and whether it is unknown."""
    connection.execute(
        f"CREATE TABLE provider_counts AS SELECT provider, actions, {is_unknown('provider', unknown)} AS is_unknown"
        " FROM (SELECT provider, count(*) AS actions FROM raw GROUP BY provider)"
    )


def reading_of(connection: duckdb.DuckDBPyConnection, notes: Sequence[str], items: Path | None) -> Reading:
    """Return what readers of the results should know about the providers in `provider_counts` and `raw`.

    Args:
        connection: holds both tables.
        notes: sentences collected so far.
        items: the item table, if there is one.
    """
    placeholders = dict(
        connection.execute(
            "SELECT provider, actions FROM provider_counts WHERE is_unknown AND provider <> '' ORDER BY 2 DESC, 1"
        ).fetchall()
    )
    found = list(notes)
    if placeholders:
        texts = [f"'{visible(text)}' ({count:,})" for text, count in placeholders.items()]
        more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
        found.append(
            f"{sum(placeholders.values()):,} interactions have a placeholder as their provider, which counts as"
            f" unknown: {', '.join(texts[:_SHOWN])}{more}; the dataset's key `unknown` lists such texts"
        )
    unlisted = None
    if items is not None:
        actions, unlisted = connection.execute("SELECT count(*), count(*) FILTER (NOT listed) FROM raw").fetchall()[0]
        if unlisted:
            (example,) = connection.execute("SELECT min(item) FROM raw WHERE NOT listed").fetchall()[0]
            found.append(
                f"{unlisted:,} of {actions:,} interactions ({unlisted / actions:.1%}) have an item that {items} does"
                f" not list, such as '{visible(example)}'; their provider is unknown"
            )
    alike = connection.execute(
        "SELECT sum(n), arg_min(one, n), arg_min(other, n) FROM ("
        " SELECT count(*) AS n, min(provider) AS one, max(provider) AS other FROM provider_counts WHERE NOT is_unknown"
        f" GROUP BY lower(trim(provider, '{BLANKS}')) HAVING n > 1)"
    ).fetchall()[0]
    if alike[0]:
        found.append(
            f"{alike[0]:,} providers differ from another one only by case or by blanks around them, such as"
            f" '{visible(alike[1])}' and '{visible(alike[2])}'; each counts as a separate provider"
        )
    return Reading(tuple(found), placeholders, unlisted)


def largest_providers(
    connection: duckdb.DuckDBPyConnection, providers: NDArray[np.int32]
) -> tuple[tuple[str, int, int], ...]:
    """Return name, number and interactions of the known providers with the most interactions, the largest first.

    Args:
        connection: holds the table `providers`.
        providers: int32 `[actions]`.
    """
    counts = np.bincount(providers)
    counts[: UNKNOWN_PROVIDER + 1] = 0
    chosen = [int(number) for number in np.argsort(-counts, kind="stable")[:LARGEST] if counts[number]]
    names = dict(
        connection.execute("SELECT id, raw FROM providers WHERE id IN (SELECT unnest(?))", [chosen]).fetchall()
    )
    return tuple((names[number], number, int(counts[number])) for number in chosen)
