"""All checks in order."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from ipsrec_bench.run.doctor import machine
from ipsrec_bench.run.doctor.finding import Finding
from ipsrec_bench.run.executors.choice import available_cores
from ipsrec_bench.suite.load import SuiteFile


def diagnose(file: SuiteFile | None, store: Path, data_dir: Path) -> Iterator[Finding]:
    """Yield the outcome of every check; nothing is changed.

    If DuckDB does not work, the checks that need it are skipped.

    Args:
        file: the suite to check; None for none.
        store: the store's file, which may be missing.
        data_dir: raw and prepared data.
    """
    cores = available_cores()
    processor = machine.check_processor(cores)  # before the checks themselves load it
    process = machine.start_torch()
    try:
        yield machine.check_python()
        libraries = list(machine.check_libraries())
        yield from libraries
        yield processor
        yield machine.check_memory()
        folders = {"store folder": store.parent, "data folder": data_dir, "temporary": Path(tempfile.gettempdir())}
        for name, folder in folders.items():
            yield from machine.check_folder(name, folder)
        if not any(finding.name == "duckdb" and finding.state == "problem" for finding in libraries):
            yield from _data_and_store(file, store, data_dir)
        yield from machine.check_torch(process, cores)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def _data_and_store(file: SuiteFile | None, store: Path, data_dir: Path) -> Iterator[Finding]:
    from ipsrec_bench.run.doctor.store import check_claims, check_leftovers, check_store, check_weights
    from ipsrec_bench.run.doctor.suite import check_disk, check_suite

    of_store, health = check_store(store)
    needs = None
    if file is not None:
        findings, needs = check_suite(file, data_dir, health.keys.complete if health else frozenset())
        yield from findings
    unknown = needs.unknown if needs else ()
    yield check_disk("disk of the store", store.parent, needs.store if needs else None, unknown)
    yield check_disk("disk of the data", data_dir, needs.data if needs else None)
    yield check_disk("disk for temporary files", Path(tempfile.gettempdir()), None)
    yield from of_store
    yield from check_claims(store)
    yield from check_weights(store, health.keys.complete - health.keys.without_weights) if health else ()
    yield check_leftovers(store, data_dir)
