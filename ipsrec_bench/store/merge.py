"""Merging the rows of one store into another.

Here, `connection` is to the target store, and has the other one attached as the database `part`
(`writing(into, part=part)`). Unqualified tables are those of the target.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ipsrec_bench.errors import SuiteError
from ipsrec_bench.store.connect import Connection
from ipsrec_bench.store.ingest import remove_cell
from ipsrec_bench.store.queries import other_file, place_of
from ipsrec_bench.store.records import EXTERNAL, Environment, columns_of


@dataclass(frozen=True)
class Conflict:
    """A result that differs between the two stores; the target keeps its own."""

    row: str
    """Row, dataset and seed, as text."""
    key: str
    difference: str
    """What differs, as a clause."""


@dataclass(frozen=True)
class Merged:
    """Result of merging a part."""

    complete: int
    """Complete cells that were entered."""
    failed: int
    """Failed cells that were entered."""
    shared: frozenset[str]
    """Keys of the complete cells for which both stores now have the same ranks."""
    conflicts: tuple[Conflict, ...]


_COUNTED_LATER = ("tied_targets", "leaked_targets", "repeated_targets", "unseen_targets", "unknown_users")
"""Columns of `splits` that older versions did not record."""


def merge_part(connection: Connection, into: Path, part: Path) -> Merged:
    """Enter everything of `part` that `into` lacks.

    A complete cell replaces a failed one. A suite's runs are entered if they began after its newest run in `into`, so
    that the newest run is still the one that began last. Merging is idempotent.

    Args:
        connection: connection to the store `into`, in a transaction.
        into: path of that store; the paths of suite files are relative to its folder.
        part: path of the other store.

    Raises:
        SuiteError: the two have different suites of one name.
    """
    _merge_suites(connection, into, part)
    unequal, imports = list(_conflicting_ranks(connection)), _merge_imports(connection)
    for table in ("environments", "datasets", "splits"):
        connection.execute(f"INSERT OR IGNORE INTO {table} BY NAME SELECT * FROM part.main.{table}")
    known = ", ".join(f"{name} = coalesce(splits.{name}, theirs.{name})" for name in _COUNTED_LATER)
    connection.execute(
        f"UPDATE splits SET {known} FROM part.main.splits AS theirs"
        " WHERE (splits.fingerprint, splits.split) = (theirs.fingerprint, theirs.split)"
    )
    connection.execute(
        "INSERT INTO targets BY NAME SELECT * FROM part.main.targets"
        " WHERE (fingerprint, split) NOT IN (SELECT DISTINCT (fingerprint, split) FROM targets)"
    )
    lacking = connection.execute(
        """
        SELECT theirs.cell, key, theirs.status
        FROM part.main.cells AS theirs LEFT JOIN cells AS ours USING (key)
        WHERE (ours.key IS NULL OR (ours.status = 'failed' AND theirs.status = 'complete'))
          AND (theirs.type <> ? OR key IN (SELECT key FROM imported_cells))
        ORDER BY theirs.cell
        """,
        [EXTERNAL],
    ).fetchall()
    for cell, key, _ in lacking:
        _copy_cell(connection, cell, key)
    _merge_runs(connection)
    complete = connection.execute(
        "SELECT key FROM cells AS ours JOIN part.main.cells AS theirs USING (key)"
        " WHERE ours.status = 'complete' AND theirs.status = 'complete'"
    ).fetchall()
    states = [status for _, _, status in lacking]
    return Merged(
        complete=states.count("complete"),
        failed=states.count("failed"),
        shared=frozenset(key for (key,) in complete) - {conflict.key for conflict in unequal},
        conflicts=(*unequal, *imports),
    )


def _merge_suites(connection: Connection, into: Path, part: Path) -> None:
    """Enter the paths of the files of the part's suites; for a suite that both have, `into` keeps its own."""
    for suite, place in connection.execute("SELECT suite, place FROM part.main.suites").fetchall():
        file = part.resolve().parent / place
        other = other_file(connection, suite, file, into) if file.is_file() else None
        if other is not None:
            raise SuiteError(
                f"{part}: its suite '{suite}' is that of {file.resolve()}, but {into} has another one of this name, of"
                f" {other}; merge into another store, or give one of the two another `name` and run it again"
            )
        connection.execute("INSERT OR IGNORE INTO suites (suite, place) VALUES (?, ?)", [suite, place_of(file, into)])


def _conflicting_ranks(connection: Connection) -> Iterator[Conflict]:
    """Yield the cells that are complete in both stores with unequal ranks."""
    shared = connection.execute(
        """
        SELECT key, ours.cell, theirs.cell, ours.environment, theirs.environment
        FROM cells AS ours JOIN part.main.cells AS theirs USING (key)
        WHERE ours.status = 'complete' AND theirs.status = 'complete'
        ORDER BY theirs.cell
        """
    ).fetchall()
    for key, ours, theirs, our_place, their_place in shared:
        users, differing = connection.execute(
            """
            WITH ours AS (
                SELECT split::VARCHAR AS split, "user", higher, ties,
                       row_number() OVER (PARTITION BY split, "user" ORDER BY rowid) AS nth
                FROM ranks WHERE cell = ?
            ), theirs AS (
                SELECT split::VARCHAR AS split, "user", higher, ties,
                       row_number() OVER (PARTITION BY split, "user" ORDER BY rowid) AS nth
                FROM part.main.ranks WHERE cell = ?
            )
            SELECT count(DISTINCT "user"), count(DISTINCT "user") FILTER (
                ours.higher IS DISTINCT FROM theirs.higher OR ours.ties IS DISTINCT FROM theirs.ties
            )
            FROM ours FULL JOIN theirs USING (split, "user", nth)
            """,
            [ours, theirs],
        ).fetchall()[0]
        if differing:
            places = _environment(connection, "whole", our_place), _environment(connection, "part", their_place)
            differences = [
                f"{name} ({mine} and {yours})"
                for (name, mine), yours in zip(places[0].items(), places[1].values(), strict=True)
                if mine != yours
            ]
            where = (
                f"the environments differ in {', '.join(differences)}" if differences else "the environments are equal"
            )
            yield Conflict(_row_of(connection, key), key, f"{differing:,} of {users:,} users have other ranks; {where}")


def _environment(connection: Connection, database: str, name: str) -> dict[str, object]:
    columns = columns_of(Environment)
    row = connection.execute(
        f"SELECT {', '.join(columns)} FROM {database}.main.environments WHERE environment = ?", [name]
    ).fetchall()[0]
    return dict(zip(columns, row, strict=True))


def _row_of(connection: Connection, key: str) -> str:
    """Return a readable name of a cell of the part: its labels in the newest run that has it."""
    row = connection.execute(
        """
        SELECT label, dataset, seed FROM (
            SELECT 2 + run AS place, key, trim(model || ' ' || variant) AS label, dataset, seed FROM part.main.run_cells
            UNION ALL
            SELECT 1, key, trim(model || ' ' || variant), dataset, seed FROM part.main.imported_cells
            UNION ALL
            SELECT 0, key, type, coalesce(name, fingerprint), seed
            FROM part.main.cells LEFT JOIN part.main.datasets USING (fingerprint)
        ) WHERE key = ? ORDER BY place DESC LIMIT 1
        """,
        [key],
    ).fetchall()[0]
    return "'{}' on '{}', seed {}".format(*row)


def _merge_imports(connection: Connection) -> list[Conflict]:
    """Enter the labels of imported cells; return those under which the two stores have ranks of different files."""
    same_row = """
        ours.suite = theirs.suite AND ours.dataset = theirs.dataset AND ours.seed = theirs.seed
        AND trim(ours.model || ' ' || ours.variant) = trim(theirs.model || ' ' || theirs.variant)
    """
    found = connection.execute(
        f"""
        SELECT trim(theirs.model || ' ' || theirs.variant), theirs.dataset, theirs.seed, theirs.key,
               (SELECT json_extract_string(settings, '$.config.file') FROM cells WHERE key = ours.key),
               (SELECT json_extract_string(settings, '$.config.file') FROM part.main.cells WHERE key = theirs.key)
        FROM imported_cells AS ours JOIN part.main.imported_cells AS theirs ON {same_row}
        WHERE ours.key <> theirs.key ORDER BY ALL
        """
    ).fetchall()
    connection.execute(
        "INSERT INTO imported_cells BY NAME SELECT * FROM part.main.imported_cells AS theirs"
        f" WHERE NOT EXISTS (FROM imported_cells AS ours WHERE {same_row})"
    )
    return [
        Conflict(f"'{row}' on '{dataset}', seed {seed}", key, f"imported from {theirs}, not from {ours}")
        for row, dataset, seed, key, ours, theirs in found
    ]


def _copy_cell(connection: Connection, theirs: int, key: str) -> None:
    """Enter a cell of the part with all its rows, replacing a failed one with its key."""
    remove_cell(connection, key)
    ours = connection.execute(
        "INSERT INTO cells BY NAME SELECT * EXCLUDE (cell) FROM part.main.cells WHERE cell = ? RETURNING cell", [theirs]
    ).fetchall()[0][0]
    for table in ("epochs", "losses", "ranks", "cell_targets"):
        connection.execute(
            f"INSERT INTO {table} BY NAME SELECT * REPLACE (? AS cell) FROM part.main.{table} WHERE cell = ?",
            [ours, theirs],
        )


def _merge_runs(connection: Connection) -> None:
    """Enter the part's runs that began after the newest one of their suite."""
    later = connection.execute(
        """
        SELECT run FROM part.main.runs AS theirs
        WHERE NOT EXISTS (FROM runs AS ours WHERE ours.suite = theirs.suite AND ours.started >= theirs.started)
        ORDER BY run
        """
    ).fetchall()
    for (theirs,) in later:
        ours = connection.execute(
            "INSERT INTO runs BY NAME SELECT * EXCLUDE (run) FROM part.main.runs WHERE run = ? RETURNING run", [theirs]
        ).fetchall()[0][0]
        for table in ("run_cells", "run_datasets"):
            connection.execute(
                f"INSERT INTO {table} BY NAME SELECT * REPLACE (? AS run) FROM part.main.{table} WHERE run = ?",
                [ours, theirs],
            )
