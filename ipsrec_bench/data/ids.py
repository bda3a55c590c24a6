"""Texts that cannot be the id of a user, an item or a provider, and their refusal."""

from collections.abc import Sequence
from textwrap import shorten

import duckdb

from ipsrec_bench.data.times import RowPlace
from ipsrec_bench.errors import DataError
from ipsrec_bench.words import visible

MAX_ID = 1000
"""Maximum length of an id in characters; a longer text is a mistake, such as an unclosed quote."""
Check = tuple[str, str]
"""SQL condition on the text `id`, and the message if it holds; `{role}` and `{value}` are filled in."""

# JSON or Python notation of several values; titles such as [unknown] or {S} do not match.
_VALUE = r"""("[^"]*"|''[^'']*''|[-+]?\d[\d.]*|null|true|false|None|True|False)"""
_LIST = rf"""\s*(\[\s*(\]|\[.*\]|\{{.*\}}\s*\]|{_VALUE}\s*(,.*)?\])|\{{\s*(\}}|{_VALUE}\s*[:,}}].*))\s*"""
TOO_LONG: Check = (
    f"length(id) > {MAX_ID}",
    f"the {{role}} has more than {MAX_ID:,} characters; is a quote not closed?",
)
MARKED: Check = (
    "contains(id, '\ufeff')",
    "the {role} has a byte order mark (U+FEFF), a trace of concatenated files; remove it",
)
BROKEN: Check = (
    r"regexp_matches(id, '[\n\r]')",
    'the {role} contains a line break; is a quote not closed? If quotes are plain characters, set quoting = "none"',
)
SEVERAL: Check = (
    f"regexp_full_match(id, '{_LIST}', 's')",
    "the {role} is a list or a structure, '{value}', not a single id; write one {role} in each row",
)
ODD = (TOO_LONG, MARKED, BROKEN, SEVERAL)


def refuse_ids(
    connection: duckdb.DuckDBPyConnection, rows: str, role: str, checks: Sequence[Check], place: RowPlace
) -> None:
    """Raise an error on the first id for which one of the `checks` holds, in the order of the checks.

    Args:
        connection: holds the rows.
        rows: table, or query in brackets, with the columns `row` and `role`.
        role: user, item or provider.
        checks: conditions that no id may meet.
        place: returns the location of a row.

    Raises:
        DataError: an id meets one of the conditions.
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
