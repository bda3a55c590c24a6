"""Reference of the result store, from the comments of its SQL schema."""

import re
from dataclasses import dataclass
from functools import cache

import duckdb

from ipsrec_bench.store.database import SCHEMA_VERSION, build
from reference.markdown import code, sentence, table

_INTRODUCTION = f"""\
# Result store

All results are in one DuckDB file, `reports/ipsrec-bench.duckdb` unless `--store` says otherwise. `ipsrec-bench query`
runs SQL on it, and so does any DuckDB client. This page lists every table, view and macro. It is generated from the
comments in the schema, which `duckdb_tables()`, `duckdb_views()`, `duckdb_columns()` and `duckdb_functions()` show,
too. The schema has version {SCHEMA_VERSION}. An older store is migrated when it is opened, and the old file is kept.

Start with the view [`metrics`](#metrics) and the macro [`metrics_at`](#metrics_at):

```sql
SELECT model, variant, avg("ndcg@10") AS ndcg
FROM metrics
WHERE suite = 'quick' AND split = 'test'
GROUP BY ALL
ORDER BY ndcg DESC;
```
"""


@dataclass(frozen=True)
class Column:
    """A column of a table or view."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True)
class Object:
    """A table, view, macro or type of the schema."""

    kind: str
    name: str
    comment: str
    columns: tuple[Column, ...] = ()
    parameters: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Its name as SQL uses it."""
        return f"{self.name}({', '.join(self.parameters)})" if "macro" in self.kind else self.name


@cache
def objects() -> tuple[Object, ...]:
    """Return everything in the schema of an empty store, in the order of the schema."""
    with duckdb.connect() as connection:
        build(connection)
        columns: dict[str, list[Column]] = {}
        for owner, name, kind, comment in connection.execute(
            "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal"
            " ORDER BY table_oid, column_index"
        ).fetchall():
            columns.setdefault(owner, []).append(Column(name, kind, comment or ""))
        tables = connection.execute(
            "SELECT 'table', table_name, comment FROM duckdb_tables() WHERE NOT internal ORDER BY table_oid"
        ).fetchall()
        views = connection.execute(
            "SELECT 'view', view_name, comment FROM duckdb_views() WHERE NOT internal ORDER BY view_oid"
        ).fetchall()
        macros = connection.execute(
            "SELECT replace(function_type, '_', ' '), function_name, comment, parameters FROM duckdb_functions()"
            " WHERE NOT internal ORDER BY function_oid"
        ).fetchall()
    return (
        *(Object(kind, name, comment or "", tuple(columns[name])) for kind, name, comment in (*tables, *views)),
        *(Object(kind, name, comment or "", (), tuple(parameters)) for kind, name, comment, parameters in macros),
    )


def page() -> str:
    """Return the page."""
    found = objects()
    tables = {one.name for one in found}
    sections = []
    for heading, kinds in (("Views", {"view"}), ("Macros", {"macro", "table macro"}), ("Tables", {"table"})):
        sections += [f"## {heading}", *(_section(one, tables) for one in found if one.kind in kinds)]
    return "\n\n".join([_INTRODUCTION, *sections])


def _section(one: Object, tables: set[str]) -> str:
    def linked(comment: str) -> str:
        return re.sub(r"(?<=as in )\w+", lambda name: _link(name[0], tables), sentence(comment))

    parts = [f"### {code(one.heading)} {{#{one.name}}}", linked(one.comment)]
    if one.columns:
        rows = [(code(column.name), f"{code(_short(column.type))} {linked(column.comment)}") for column in one.columns]
        parts.append(table(("Column", "Type and meaning"), rows))
    return "\n\n".join(parts)


def _link(name: str, tables: set[str]) -> str:
    return f"[{code(name)}](#{name})" if name in tables else name


def _short(kind: str) -> str:
    return kind.replace("ENUM(", "").rstrip(")").replace("', '", "' or '") if kind.startswith("ENUM") else kind
