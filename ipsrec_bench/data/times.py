"""Formats of times in raw files, and the SQL that reads them exactly.

A time column holds one of these, the same in all rows:

- whole numbers of up to 64 bits, kept as int64;
- numbers, some with decimals, kept as float64 as long as distinct ones stay distinct; if all decimals are 0
  (`1700000000000000020.0`), columns with numbers beyond 2**53 are kept as int64;
- dates and times that begin with the year: `2019-10-01`, `2019/10/1 9:05`, `2019-10-01T09:05:07.123456789`, with AM or
  PM, and with `Z`, `UTC`, `GMT` or an offset such as `+05:30` at the end: microseconds since 1970 (UTC), or nanoseconds
  where some row needs them;
- whatever `time_format` describes, in the notation of strptime.

Times are never read in part: text that does not match one of these forms completely is refused. No result depends on
the machine's time zone; a time without a zone is UTC.
"""

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import shorten
from typing import NoReturn

import duckdb

from ipsrec_bench.errors import DataError
from ipsrec_bench.words import visible

RowPlace = Callable[[int], str]
"""Returns the location of a row of the file."""

MICROSECONDS, NANOSECONDS = 1_000_000, 1_000_000_000
"""In a second."""
MOST_NUMBER = 2**63
MOST_EXACT = 2**53
"""Up to this, a 64-bit float represents every whole number."""
MAX_OFFSET_MINUTES = 15 * 60 + 59
MOST_SECONDS = (2**63 - 1) // 10**9 - 1
"""Largest distance from 1970, in seconds, that 64 bits can count in nanoseconds."""
_NOT_A_TIME = "which is neither a finite number of at least 0 nor a timestamp such as 2019-10-01 00:00:00"

# A shape is a time with every digit replaced by 0. A column of millions of times has few shapes, and the form of a time
# depends only on its shape.
_SHAPES = """
CREATE OR REPLACE TEMP TABLE time_shapes AS
SELECT translate(time, '123456789', '000000000') AS shape, count(*) AS rows, min(row) AS first FROM {table} GROUP BY ALL
"""
_DECIMAL = r"[+-]?0+(\.0*)?"
_NUMBER = r"[+-]?(0+\.?0*|\.0+)([eE][+-]?0+)?"
_DAY = r"0000[-/]00?[-/]00?"
_FRACTION = r"[.,]0{1,9}"
_HALF = r"\s*[AaPp][Mm]"
_ZONE = r"\s*(?:[Zz]|UTC|GMT|[+-]00(?::?00)?)"
_STAMP = rf"{_DAY}(?:[ Tt]00?:00(?::00(?:{_FRACTION})?)?(?:{_HALF})?(?:{_ZONE})?)?"
_ZONED = rf".*:00(?:{_FRACTION})?(?:{_HALF})?{_ZONE}"
_SHIFTED = r".*:.*[+-]00(?::?00)?"
_HALVED = rf".*{_HALF}(?:{_ZONE})?"
_FINE = r".*[.,]0{7,9}\D*.*"

# Parts of one time. DuckDB's cast to TIMESTAMP ignores or applies what follows the seconds, depending on its version,
# so it gets only the date and the time of day.
_BASE = (
    r"TRY_CAST(replace(upper(regexp_extract(time, '\d{4}[-/]\d{1,2}[-/]\d{1,2}(?:[ Tt]\d{1,2}:\d{2}(?::\d{2})?)?')),"
    " 'T', ' ') AS TIMESTAMP)"
)
_FIXED = "0000[-/]00[-/]00[ T]00:00:00.*"
_FIXED_BASE = "TRY_CAST(left(time, 19) AS TIMESTAMP)"
"""The same where all shapes are of the form `_FIXED`, as in most large files."""
_OFFSET = r"regexp_extract(time, ':.*([+-]\d{2}):?(\d{2})?\s*$', ['hours', 'minutes'])"
_OFFSET_HOURS = f"coalesce(TRY_CAST(({_OFFSET}).hours AS BIGINT), 0)"
_OFFSET_MINUTES = f"coalesce(TRY_CAST(({_OFFSET}).minutes AS BIGINT), 0)"
_OF_ZONE = (
    f"({_OFFSET_HOURS} * 60 + CASE WHEN starts_with(({_OFFSET}).hours, '-') THEN -{_OFFSET_MINUTES}"
    f" ELSE {_OFFSET_MINUTES} END)"
)
_OF_SECOND = r"coalesce(TRY_CAST(rpad(regexp_extract(time, ':\d{2}[.,](\d{1,9})', 1), 9, '0') AS BIGINT), 0)"


@dataclass(frozen=True)
class TimeExpression:
    """The SQL that turns the text `time` into int64 or float64, in the order of time."""

    sql: str
    per_second: int = 1
    """How many of the resulting numbers make a second. The unit of numbers is unknown; they count as seconds."""


def time_expression(
    connection: duckdb.DuckDBPyConnection, time_format: str, file: str, place: RowPlace, table: str = "raw"
) -> TimeExpression:
    """Return the SQL that reads the times of a table, and their unit.

    Args:
        connection: holds the table.
        time_format: their format; empty for the forms above.
        file: name of the file, for errors about all of it.
        place: returns the location of a row.
        table: name of the table; its columns `time` are texts that are not empty, and `row` are different numbers.

    Raises:
        DataError: a time has a different format, or not that of the others.
    """
    column = _Column(connection, file, place, table)
    if time_format:
        return column.described(time_format)
    if column.are_plain_numbers():
        return TimeExpression("CAST(time AS BIGINT)")
    connection.execute(_SHAPES.format(table=table))
    if column.are_whole():
        return TimeExpression(column.whole())
    if column.all_are(_NUMBER):
        return TimeExpression(column.fractional())
    if not column.all_are(_STAMP):
        column.refuse_other_forms()
    return column.stamped()


class _Column:
    """The texts in the column `time` of a table, and their shapes."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, file: str, place: RowPlace, table: str) -> None:
        self._connection = connection
        self._file = file
        self._place = place
        self._table = table

    def are_plain_numbers(self) -> bool:
        """Return whether every time consists of digits and fits into 64 bits, as in most large files."""
        plain = r"regexp_full_match(time, '\d+') AND TRY_CAST(time AS BIGINT) IS NOT NULL"
        return self._connection.execute(f"SELECT 1 FROM {self._table} WHERE NOT ({plain}) LIMIT 1").fetchone() is None

    def all_are(self, form: str) -> bool:
        """Return whether every time has this form."""
        return self._first_rows(form)[1] is None

    def are_whole(self) -> bool:
        """Return whether every time is a whole number, possibly with zero decimals."""
        fraction = r"contains(time, '.') AND NOT regexp_full_match(time, '[^.]*\.0*\s*')"
        return self.all_are(_DECIMAL) and not (
            self._some_are(r".*\..*")
            and self._connection.execute(f"SELECT 1 FROM {self._table} WHERE {fraction} LIMIT 1").fetchone()
        )

    def _begin_with(self, form: str) -> bool:
        matches = f"regexp_full_match(shape, '{form}', 's')"
        return self._connection.execute(f"SELECT bool_and({matches}) FROM time_shapes").fetchall()[0][0] is True

    def _some_are(self, form: str) -> bool:
        return self._first_rows(form)[0] is not None

    def _first_rows(self, form: str, among: str = ".*") -> tuple[int | None, int | None]:
        """Return the first row whose time has this form, and the first whose time does not."""
        matches = f"regexp_full_match(trim(shape), '{form}', 's')"
        with_form, without = self._connection.execute(
            f"SELECT min(first) FILTER ({matches}), min(first) FILTER (NOT {matches}) FROM time_shapes"
            f" WHERE regexp_full_match(trim(shape), '{among}', 's')"
        ).fetchall()[0]
        return with_form, without

    def _refuse(self, condition: str, reason: str, of: str = "") -> None:
        """Raise an error on the first row for which `condition` holds."""
        query = f"SELECT row, time FROM {of or self._table} WHERE {condition} ORDER BY row LIMIT 1"
        found = self._connection.execute(query).fetchone()
        if found is not None:
            row, time = found
            raise DataError(f"{self._place(row)}: the time is '{visible(shorten(str(time), 50))}', {reason}")

    def _refuse_mixture(self, form: str, what: str, among: str = ".*") -> None:
        """Raise an error if some times have this form and some do not."""
        rows = self._first_rows(form, among)
        if None not in rows:
            later = max(row for row in rows if row is not None)
            having = "with" if later == rows[0] else "without"
            self._refuse(f"row = {later}", f"{having} {what}, unlike the rows before it; write all times alike")

    def whole(self) -> str:
        """Return the SQL for whole numbers."""
        value = "TRY_CAST(trim(time) AS BIGINT)"
        self._refuse(f"{value} IS NULL", "which is beyond 64 bits; write it in a larger unit")
        self._refuse(f"{value} < 0", _NOT_A_TIME)
        ((largest,),) = self._connection.execute(f"SELECT max({value}) FROM {self._table}").fetchall()
        is_float = self._some_are(r".*\..*") and largest <= MOST_EXACT
        return f"CAST(trim(time) AS {'DOUBLE' if is_float else 'BIGINT'})"

    def fractional(self) -> str:
        """Return the SQL for numbers, some with decimals or an exponent."""
        value = "TRY_CAST(trim(time) AS DOUBLE)"
        self._refuse(
            f"coalesce(abs({value}) >= {MOST_NUMBER}, true)", "which is beyond 64 bits; write it in a larger unit"
        )
        self._refuse(f"{value} < 0", _NOT_A_TIME)
        exact = "TRY_CAST(trim(time) AS DECIMAL(38, 18))"
        self._refuse(
            "true",
            "which a 64-bit float cannot distinguish from another row's time; write whole numbers of a smaller unit",
            of=f"(SELECT max(row) AS row, arg_max(time, row) AS time FROM {self._table} GROUP BY {value}"
            f" HAVING min({exact}) < max({exact}))",
        )
        return "CAST(trim(time) AS DOUBLE)"

    def stamped(self) -> TimeExpression:
        """Return the SQL for dates and times that begin with the year."""
        self._refuse_mixture(_ZONED, "a time zone")
        self._refuse_mixture(_HALVED, "AM or PM", among=".*:.*")
        base = _FIXED_BASE if self._begin_with(_FIXED) else _BASE
        self._refuse(f"{base} IS NULL", "but there is no such date or time; correct it")
        micros = f"epoch_us({base})"
        if self._some_are(_HALVED):
            hour = f"hour({base})"
            self._refuse(
                f"contains(time, ':') AND {hour} NOT BETWEEN 1 AND 12",
                "but an hour before AM or PM must be from 1 to 12; correct it",
            )
            noon = r"CASE WHEN regexp_matches(time, '[Pp][Mm]') THEN 12 ELSE 0 END"
            shift = rf"CASE WHEN regexp_matches(time, '[AaPp][Mm]') THEN {hour} % 12 - {hour} + {noon} ELSE 0 END"
            micros = f"({micros} + ({shift}) * 3600000000)"
        if self._some_are(_SHIFTED):
            self._refuse(
                f"{_OFFSET_MINUTES} > 59 OR abs({_OF_ZONE}) > {MAX_OFFSET_MINUTES}",
                "but there is no such offset from UTC; correct it",
            )
            micros = f"({micros} - {_OF_ZONE} * 60000000)"
        fine = (
            self._some_are(_FINE)
            and self._connection.execute(
                f"SELECT 1 FROM {self._table} WHERE {_OF_SECOND} % 1000 > 0 LIMIT 1"
            ).fetchone()
        )
        if fine:
            self._refuse(f"abs({micros}) > {MOST_SECONDS} * 1000000", "which is too far from 1970 for nanoseconds")
            return TimeExpression(f"({micros} * 1000 + {_OF_SECOND})", NANOSECONDS)
        with_fraction = self._some_are(f".*{_FRACTION}.*")
        return TimeExpression(f"({micros} + {_OF_SECOND} // 1000)" if with_fraction else micros, MICROSECONDS)

    def described(self, time_format: str) -> TimeExpression:
        """Return the SQL for times in the format `time_format`."""
        quoted = time_format.replace("'", "''")
        moment = f"try_strptime(trim(time), '{quoted}')"
        fine = "%n" in time_format
        try:
            self._refuse(f"{moment} IS NULL", f"which does not match time_format = '{time_format}'")
        except duckdb.Error as error:
            raise DataError(
                f"{self._file}: time_format = '{time_format}' is not a time format: {str(error).splitlines()[0]}; use"
                " strptime notation, for example %d.%m.%Y %H:%M:%S"
            ) from None
        return TimeExpression(f"epoch_{'ns' if fine else 'us'}({moment})", NANOSECONDS if fine else MICROSECONDS)

    def refuse_other_forms(self) -> NoReturn:
        """Raise an error on the first time of an unknown form, or else of another form than those before it."""
        _, unknown = self._first_rows(f"{_NUMBER}|{_STAMP}")
        if unknown is not None:
            self._refuse(
                f"row = {unknown}",
                f"{_NOT_A_TIME}; correct it or, if all times are written like this, set time_format, such as %d.%m.%Y",
            )
        later = max(row for row in self._first_rows(_STAMP) if row is not None)
        self._refuse(f"row = {later}", "and the time column mixes numbers and timestamps; use one of them")
        raise AssertionError("every time has a form, and not all have the same")
