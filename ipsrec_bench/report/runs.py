"""A run of the store with its suite, as reports and comparisons read it."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import tomli_w

from ipsrec_bench.errors import MissingRunError, MissingStoreError, StoreError, SuiteError, did_you_mean, listed
from ipsrec_bench.store import queries
from ipsrec_bench.store.connect import Connection, reading
from ipsrec_bench.store.records import PlannedCell
from ipsrec_bench.suite.load import SuiteFile, is_suite_path, load_suite, parse_suite, stored_suite
from ipsrec_bench.suite.schema import Suite
from ipsrec_bench.suite.shipped import find_suite


@dataclass(frozen=True)
class Run:
    """One start of a suite, with its cells in the suite's order."""

    run: int
    suite_name: str
    suite: Suite
    text: str
    overrides: tuple[str, ...]
    started: datetime
    cells: tuple[PlannedCell, ...]
    """Those of the main tables, including imports for the suite."""
    stale: tuple[PlannedCell, ...] = ()
    """Cells left out: with other targets or candidates than `cells`, or imported under the label of a row."""
    further: tuple[PlannedCell, ...] = ()
    """Those under further protocols and with other providers, whose `dataset` names the condition."""
    not_taken: tuple[str, ...] = ()
    """Settings of the suite that this version of the toolkit does not accept, like `training.warm_up = 3`."""


def read_run(connection: Connection, suite: str | None = None, number: int | None = None) -> Run:
    """Return the newest run of the store or of the named suite, or the run with this number.

    Raises:
        StoreError: there is no such run, or this version cannot read its suite.
    """
    row = queries.find_run(connection, suite, number)
    try:
        understood, not_taken = stored_suite(row.settings)
    except (SuiteError, ValueError) as error:
        raise StoreError(
            f"the suite of run {row.run} of '{row.suite_name}' cannot be read: {error}; use the version of ipsrec-bench"
            " that ran it, or run the suite again"
        ) from None
    main = tuple(cell for cell in row.cells if cell.is_main)
    return Run(
        row.run,
        row.suite_name,
        understood,
        row.text,
        row.overrides,
        row.started,
        main,
        tuple(cell for cell in row.stale if cell.is_main),
        tuple(cell for cell in row.cells if not cell.is_main),
        not_taken,
    )


def basis_of(connection: Connection, run: Run, studies: object) -> str:
    """Return a digest of what a report on `run` depends on: suite, cells, how and when each cell ended, and `studies`.

    It does not depend on the number and the start of the run: if nothing changed between two runs of a suite, their
    digests are equal.
    """
    ended = connection.execute(
        "SELECT key, status, started, seconds FROM cells WHERE key IN (SELECT unnest(?)) ORDER BY key",
        [[cell.key for cell in (*run.cells, *run.further)]],
    ).fetchall()
    made_of = sorted(queries.run_datasets(connection, run.run).items())  # equal ranks may come from another file
    content = (
        run.suite_name,
        run.suite.model_dump_json(),
        run.text,
        run.overrides,
        run.cells,
        run.further,
        ended,
        studies,
        made_of,
    )
    return hashlib.sha256(repr(content).encode()).hexdigest()


def suite_file(suite: str, store: Path, overrides: Iterable[str] = ()) -> SuiteFile:
    """Return the suite of a file, or the named suite: as its newest run in the store had it, else as it ships.

    Raises:
        SuiteError: the file is missing or wrong, or an override is.
        StoreError: the store holds no run of that name, and no suite of that name ships.
    """
    if is_suite_path(suite):
        return load_suite(Path(suite), overrides)
    try:
        with reading(store) as connection:
            run = queries.find_run(connection, suite)
    except (MissingStoreError, MissingRunError):
        file = find_suite(Path(suite))
        if not file.is_file():
            raise
        return load_suite(file, overrides)
    return parse_suite(Path(f"{suite}.toml"), run.text, (*run.overrides, *overrides))


def shown_otherwise(run: Run, overrides: Iterable[str]) -> Run:
    """Return `run` with `overrides` of its suite, which may change what is shown, not what was run.

    Raises:
        SuiteError: an override is wrong.
        StoreError: an override needs another run.
    """
    overrides = tuple(overrides)
    if not overrides:
        return run
    stored = tomli_w.dumps(run.suite.model_dump(mode="json", by_alias=True, exclude_none=True))
    changed = parse_suite(Path(f"{run.suite_name}.toml"), stored, overrides).suite
    protocol = run.suite.protocol.model_copy(
        update={name: getattr(changed.protocol, name) for name in ("metrics", "cutoffs", "ties")}
    )
    suite = run.suite.model_copy(update={"protocol": protocol, "statistics": changed.statistics})
    if suite != changed:
        raise StoreError(
            f"--set {' --set '.join(overrides)}: a report can change protocol.metrics, protocol.cutoffs,"
            " protocol.ties and statistics.*; anything else needs another run"
        )
    labels = {cell.label for cell in run.cells}
    baseline = suite.statistics.baseline
    if baseline not in {"best", *labels}:
        raise StoreError(
            f"--set statistics.baseline={baseline}: allowed: 'best', {listed(sorted(labels))}"
            f"{did_you_mean(baseline, labels)}"
        )
    for name in suite.statistics.proposed:
        if name not in suite.models:
            raise StoreError(
                f"--set statistics.proposed: found '{name}'; allowed: {listed(suite.models)}"
                f"{did_you_mean(name, suite.models)}"
            )
    return replace(run, suite=suite, overrides=(*run.overrides, *overrides))
