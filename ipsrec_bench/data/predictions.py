"""Predictions of other systems, read as ranks of this dataset's test targets."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.raw_files import place_of
from ipsrec_bench.data.repeats import count_as_misses
from ipsrec_bench.data.sources import confined, find_column, materialise, open_table
from ipsrec_bench.data.split import Targets, repeated
from ipsrec_bench.errors import DataError, listed
from ipsrec_bench.suite.schema import MaskHistory, TableSource


@dataclass(frozen=True, eq=False)
class Predictions:
    """The position of every test target, as arrays `[targets]`, users ascending."""

    users: NDArray[np.int64]
    higher: NDArray[np.int32]
    """Items that score above the target."""
    ties: NDArray[np.int32]
    """Other items that score the same."""
    depth: int | None
    """Length of the shortest list that does not cover the catalogue: ranks are known up to it. None if all are."""


def read_predictions(path: Path, data: PreparedDataset, targets: Targets, *, mask_history: MaskHistory) -> Predictions:
    """Read a table of predictions (delimited text, JSON lines, Parquet) for the users of `targets`.

    The table has one row per user, with the columns `user` and `rank` (the target's; 1 is best), or one row per item of
    a user's list, with the columns `user`, `item` and `score` (higher is better) or `rank`. Users and items are given
    by their raw ids. In a list with ranks, the target's rank is looked up and scores are ignored. In a list with
    scores, the target's rank and ties are counted. A target that is not in the list is ranked last in the catalogue.
    With `mask_history`, items of the user's history are removed from lists, and a target among them is a miss. Users
    without a test target are ignored. Only ranks are taken for targets that are ranked among available items.

    Raises:
        DataError: the file cannot be read, lacks a column, has lists where only ranks are taken, contains unknown users
            or items, names one twice, lacks a test user, or contains an invalid rank or score.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'it is not a file' if path.exists() else 'there is no such file'}")
    vocabularies = [data.path / f"{name}.parquet" for name in ("users", "items")]
    with TemporaryDirectory() as folder, confined([path, *vocabularies], Path(folder)) as connection:
        table = open_table(connection, path, TableSource(path=str(path)))
        there = {column.partition(":")[0] for column in table.columns}  # RecBole writes name:type
        roles = ("item", "rank") if {"item", "rank"} <= there else ("rank",) if "rank" in there else ("item", "score")
        if not {"user", *roles} <= there:
            raise DataError(
                f"{path}: expected columns 'user' and 'rank', or 'user', 'item' and 'score' or 'rank'; the file has"
                f" {listed(table.columns)}"
            )
        if "item" in roles and targets.lifetimes is not None:
            raise DataError(
                f"{path}: lists cannot be ranked under protocol.candidates = 'available'; give the columns 'user' and"
                " 'rank', with each target's rank among the items that exist at its time"
            )
        columns = {name: find_column(table, name, f"{name} column", path) for name in ("user", *roles)}
        chosen = ", ".join(f'CAST({column} AS VARCHAR) AS "{name}"' for name, column in columns.items())
        materialise(connection, path, table.project(f"{chosen}, row_number() OVER () AS row"), "given")
        for vocabulary in vocabularies:
            connection.read_parquet(str(vocabulary.absolute())).create(vocabulary.stem)
        arrays = {"user": targets.users, "target": np.asarray(data.items[targets.positions])}
        connection.register("arrays", arrays)
        connection.execute("CREATE TABLE wanted AS SELECT * FROM arrays")
        _refuse(connection, path, '"user" IS NULL OR "user" = \'\'', "the user is missing")
        _refuse(connection, path, '"user" NOT IN (SELECT raw FROM users)', "the data have no user '{user}'")
        if roles == ("rank",):
            found = _ranked(connection, path, data.num_items)
        else:
            _note_history(connection, data, targets, masked=bool(mask_history))
            found = _listed(connection, path, data.num_items, by_rank="rank" in roles)
    if mask_history:
        count_as_misses(found.higher, found.ties, repeated(data, targets), data.num_items)
    return found


def _refuse_missing(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Raise an error if some test user is not in the file."""
    missing, everybody, example = connection.execute(
        "SELECT count(*) FILTER (NOT there), count(*), min(raw) FILTER (NOT there) FROM ("
        '    SELECT raw, raw IN (SELECT "user" FROM given) AS there FROM wanted JOIN users ON id = "user")'
    ).fetchall()[0]
    if missing:
        raise DataError(
            f"{path}: {missing:,} of {everybody:,} test users are missing, such as '{example}'; a comparison needs a"
            " prediction for each"
        )


def _refuse(connection: duckdb.DuckDBPyConnection, path: Path, condition: str, what: str) -> None:
    """Raise an error on the first row for which `condition` holds."""
    row = connection.execute(f"SELECT * FROM given WHERE {condition} ORDER BY row LIMIT 1").fetchone()
    if row is not None:
        names = [name for name, *_ in connection.description or ()]
        values = dict(zip(names, row, strict=True))
        place = place_of(path, values["row"], TableSource(path=str(path)))
        raise DataError(f"{place}: {what.format(**values)}")


RANK = "TRY_CAST(rank AS DOUBLE)"


def _refuse_ranks(connection: duckdb.DuckDBPyConnection, path: Path, items: int) -> None:
    """Raise an error on the first invalid rank."""
    _refuse(
        connection,
        path,
        f"coalesce({RANK} < 1 OR {RANK} > {items} OR {RANK} <> floor({RANK}), true)",
        f"the rank is '{{rank}}'; expected a whole number from 1 to {items:,}",
    )


def _ranked(connection: duckdb.DuckDBPyConnection, path: Path, items: int) -> Predictions:
    _refuse_ranks(connection, path, items)
    _refuse(
        connection,
        path,
        _repeated('"user"'),
        "the user '{user}' occurs twice; a file of lists needs the column 'item', too",
    )
    _refuse_missing(connection, path)
    connection.execute(
        f'CREATE TABLE found AS SELECT wanted."user", {RANK}::INTEGER - 1 AS higher, 0 AS ties'
        ' FROM given JOIN users ON raw = given."user" JOIN wanted ON wanted."user" = id'
    )
    return _predictions(connection, None)


def _listed(connection: duckdb.DuckDBPyConnection, path: Path, items: int, *, by_rank: bool) -> Predictions:
    score = f"-{RANK}" if by_rank else "TRY_CAST(score AS DOUBLE)"
    if by_rank:
        _refuse_ranks(connection, path, items)
    else:
        _refuse(
            connection, path, f"NOT coalesce(isfinite({score}), false)", "the score is '{score}', not a finite number"
        )
    _refuse(connection, path, "coalesce(item NOT IN (SELECT raw FROM items), true)", "the data have no item '{item}'")
    _refuse(connection, path, _repeated('"user", item'), "the item '{item}' of user '{user}' occurs twice")
    if by_rank:
        twice = "the user '{user}' has two items at rank {rank}; if these are tied, give a 'score' instead of ranks"
        _refuse(connection, path, _repeated(f'"user", {RANK}'), twice)
    _refuse_missing(connection, path)
    connection.execute(
        f"""
        CREATE TABLE lists AS
        SELECT wanted."user", target, items.id AS item, {score} AS score,
               (wanted."user", items.id) IN (SELECT "user", item FROM history) AS masked
        FROM given JOIN users ON users.raw = given."user" JOIN wanted ON wanted."user" = users.id
        JOIN items ON items.raw = given.item
        """
    )
    # A rank gives the number of items above, even if the list does not contain them.
    above = (
        "-any_value(of_target) - 1 - count(*) FILTER (score > of_target AND masked)"
        if by_rank
        else "count(*) FILTER (score > of_target AND NOT masked)"
    )
    connection.execute(
        f"""
        CREATE TABLE found AS
        SELECT wanted."user",
               (CASE WHEN any_value(of_target) IS NULL THEN {items} - 1 ELSE {above} END)::INTEGER AS higher,
               (count(*) FILTER (score = of_target AND item <> wanted.target AND NOT masked))::INTEGER AS ties,
               count(item) FILTER (NOT masked) AS listed,
               count(item) = 1 AND any_value(of_target) IS NOT NULL AS target_alone
        FROM wanted LEFT JOIN lists USING ("user")
        LEFT JOIN (SELECT "user", score AS of_target FROM lists WHERE item = target) USING ("user")
        GROUP BY wanted."user"
        """
    )
    # If a list has only the target's row, with its rank, nothing is unknown.
    known = "target_alone" if by_rank else "false"
    (depth,) = connection.execute(
        f"""
        SELECT min(listed)
        FROM found LEFT JOIN (SELECT "user", count(*) AS masked FROM history GROUP BY "user") USING ("user")
        WHERE listed < {items} - coalesce(masked, 0) AND NOT {known}
        """
    ).fetchall()[0]
    return _predictions(connection, depth)


def _repeated(columns: str) -> str:
    """Return the SQL condition that a row repeats an earlier one in these columns."""
    return f"row IN (SELECT row FROM given QUALIFY row_number() OVER (PARTITION BY {columns} ORDER BY row) > 1)"


def _note_history(
    connection: duckdb.DuckDBPyConnection, data: PreparedDataset, targets: Targets, *, masked: bool
) -> None:
    """Create the table of the items that are not candidates of a user."""
    begins = data.offsets[targets.users]
    lengths = targets.positions - begins if masked else np.zeros_like(begins)
    ends = np.cumsum(lengths)
    places = np.arange(lengths.sum()) - np.repeat(ends - lengths - begins, lengths)
    connection.register("pairs", {"user": np.repeat(targets.users, lengths), "item": np.asarray(data.items[places])})
    connection.execute("CREATE TABLE history AS SELECT DISTINCT * FROM pairs")


def _predictions(connection: duckdb.DuckDBPyConnection, depth: int | None) -> Predictions:
    columns = connection.execute('SELECT "user", higher, ties FROM found ORDER BY "user"').fetchnumpy()
    higher, ties = (np.asarray(columns[name], dtype=np.int32) for name in ("higher", "ties"))
    return Predictions(np.asarray(columns["user"], dtype=np.int64), higher, ties, depth)
