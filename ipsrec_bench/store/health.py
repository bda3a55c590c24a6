"""Integrity of a store, and the cells whose files it needs."""

from dataclasses import dataclass
from pathlib import Path

from ipsrec_bench.errors import StoreError
from ipsrec_bench.store.connect import Connection, looking
from ipsrec_bench.store.database import SCHEMA_VERSION
from ipsrec_bench.store.records import EXTERNAL
from ipsrec_bench.suite.cells import TRAINED_UNDER

PATIENCE_SECONDS = 2.0
_MAGIC, _MAGIC_AT = b"DUCK", 8
"""Bytes that every DuckDB file has after its first checksum, and their offset."""


@dataclass(frozen=True)
class Keys:
    """Keys of a store's cells."""

    complete: frozenset[str]
    """Complete cells that were trained; imported ranks have no weights."""
    planned: frozenset[str]
    """Cells of the newest run of every suite."""
    without_weights: frozenset[str] = frozenset()
    """Complete cells that rank the model of another cell, whose weights they use."""


@dataclass(frozen=True)
class Health:
    """Result of reading every row of a store."""

    version: int
    complete: int
    failed: int
    """Among all cells of the store, not only those of the newest runs."""
    keys: Keys
    faults: tuple[str, ...]
    """A clause for each fault that no version of the toolkit writes; an older schema is not checked."""

    @property
    def is_current(self) -> bool:
        """Whether the store has the schema of this version."""
        return self.version == SCHEMA_VERSION


def examine(path: Path) -> Health:
    """Read every rank in the store at `path`, so that DuckDB verifies the checksums of their blocks, and count cells.

    Raises:
        MissingStoreError: there is no store yet.
        LockedStoreError: another process keeps it locked for two seconds.
        StoreError: it cannot be read, or it is damaged.
    """
    with looking(path, PATIENCE_SECONDS) as (connection, version):
        counted = dict(connection.execute("SELECT status, count(*) FROM cells GROUP BY status").fetchall())
        faults = _faults(connection) if version == SCHEMA_VERSION else []
        return Health(version, counted.get("complete", 0), counted.get("failed", 0), _keys(connection), tuple(faults))


def keys_of(path: Path) -> Keys:
    """Return the cells of the store at `path`, of any version.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """
    with looking(path) as (connection, _):
        return _keys(connection)


def stores_in(folder: Path) -> list[Path]:
    """Return the DuckDB files in `folder`, whatever their names.

    Raises:
        StoreError: a file there cannot be read.
    """
    found = []
    for path in sorted(folder.iterdir()):
        if not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                head = file.read(_MAGIC_AT + len(_MAGIC))
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
        if head[_MAGIC_AT:] == _MAGIC:
            found.append(path)
    return found


def _keys(connection: Connection) -> Keys:
    complete = connection.execute(
        "SELECT key FROM cells WHERE status = 'complete' AND type <> ?", [EXTERNAL]
    ).fetchall()
    planned = connection.execute(
        "SELECT key FROM run_cells WHERE run IN (SELECT max(run) FROM runs GROUP BY suite)"
    ).fetchall()
    ranked_again = connection.execute(
        "SELECT key FROM cells WHERE status = 'complete' AND json_exists(settings, '$.' || ?)", [TRAINED_UNDER]
    ).fetchall()
    return Keys(*(frozenset(key for (key,) in keys) for keys in (complete, planned, ranked_again)))


def _faults(connection: Connection) -> list[str]:
    connection.execute(
        """
        CREATE TEMP TABLE ranked AS
        SELECT cell, "split", count(DISTINCT "user") AS users,
               least(min("user"), min(higher), min(ties)) < 0 AS is_negative
        FROM ranks GROUP BY ALL
        """
    )
    counts = connection.execute(
        """
        SELECT 'has ranks of ' || coalesce(ranked.users, 0) || ' ' || "split"::VARCHAR || ' users instead of '
               || cell_targets.users, list(key ORDER BY key)
        FROM cells JOIN cell_targets USING (cell) LEFT JOIN ranked USING (cell, "split")
        WHERE status = 'complete' AND ranked.users IS DISTINCT FROM cell_targets.users GROUP BY 1
        UNION ALL
        SELECT 'has no ranks of test users', list(key ORDER BY key) FROM cells
        WHERE status = 'complete' AND cell NOT IN (SELECT cell FROM ranked WHERE "split" = 'test')
              AND cell NOT IN (SELECT cell FROM cell_targets WHERE "split" = 'test')
        HAVING count(*) > 0
        UNION ALL
        SELECT 'has negative ranks', list(DISTINCT key ORDER BY key) FROM cells JOIN ranked USING (cell)
        WHERE is_negative HAVING count(*) > 0
        UNION ALL
        SELECT 'is of a dataset that the store does not describe', list(key ORDER BY key) FROM cells
        WHERE status = 'complete' AND fingerprint NOT IN (SELECT fingerprint FROM datasets) HAVING count(*) > 0
        """
    ).fetchall()
    found = [f"cell {keys[0]}{f' and {len(keys) - 1} more' if len(keys) > 1 else ''} {what}" for what, keys in counts]
    for table in ("ranks", "epochs", "losses", "cell_targets"):
        orphans = connection.execute(
            f"SELECT count(DISTINCT cell) FROM {table} WHERE cell NOT IN (SELECT cell FROM cells)"
        ).fetchall()[0][0]
        if orphans:
            found.append(f"the table {table} has rows of {orphans} cells that do not exist")
    return found
