"""Texts that are no id of a user, an item or a provider, and their refusal."""

from collections.abc import Sequence
from textwrap import shorten

import duckdb

from ipsrec_bench.data.times import RowPlace
from ipsrec_bench.errors import DataError
from ipsrec_bench.words import visible

MAX_ID = 1000
"""Characters; what is longer is no id but a mistake, such as a quote that was never closed."""
Check = tuple[str, str]
"""SQL condition on the text `id`, and what is wrong where it holds; `{role}` and `{value}` are filled in."""

# JSON or Python notation of several values; titles such as [unknown] or {S} are none.
_VALUE = r"""("[^"]*"|''[^'']*''|[-+]?\d[\d.]*|null|true|false|None|True|False)"""
_LIST = rf"""\s*(\[\s*(\]|\[.*\]|\{{.*\}}\s*\]|{_VALUE}\s*(,.*)?\])|\{{\s*(\}}|{_VALUE}\s*[:,}}].*))\s*"""
TOO_LONG: Check = (
    f"length(id) > {MAX_ID}",
    f"the {{role}} has more than {MAX_ID:,} characters; is a quote not closed?",
)
MARKED: Check = (
    "contains(id, '\ufeff')",
    "the {role} has a byte order mark (U+FEFF), as is left where files were put together; remove it",
)
BROKEN: Check = (
    r"regexp_matches(id, '[\n\r]')",
    'the {role} has a line break in it; is a quote not closed? If quotes are plain here, set quoting = "none"',
)
SEVERAL: Check = (
    f"regexp_full_match(id, '{_LIST}', 's')",
    "the {role} is a list or a structure, '{value}', and not one id; write one {role} in each row",
)
ODD = (TOO_LONG, MARKED, BROKEN, SEVERAL)


def refuse_ids(
    connection: duckdb.DuckDBPyConnection, rows: str, role: str, checks: Sequence[Check], place: RowPlace
) -> None:
    """Raise an error on the first id for which one of the `checks` holds, in the order of the checks.

    Args:
        connection: holds the rows.
        rows: table, or query in brackets, with the columns `row` and `role`.
        role: what the ids are of.
        checks: what no id may be.
        place: returns where a row stands.

    Raises:
        DataError: an id is one of these.
    """
    # Each distinct text once, at its first row.
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE ids AS SELECT {role} AS id, min(row) AS row FROM {rows} GROUP BY 1"
    )
    for condition, reason in checks:
        found = connection.execute(f"SELECT row, id FROM ids WHERE {condition} ORDER BY row LIMIT 1").fetchone()
        if found is not None:
            row, value = found
            value = visible(shorten(value or "", 50))
            raise DataError(f"{place(row)}: {reason.format(role=role, value=value)}")
