"""Shell completion: names that are cheap to find, because each Tab starts the program anew."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer


def suite_files(incomplete: str) -> list[str]:
    """Return shipped suites, and suite files and folders, that begin with `incomplete`."""
    from ipsrec_bench.suite.shipped import shipped_suites

    return _beginning(incomplete, [*shipped_suites(), *_files(incomplete)])


def suites(context: typer.Context, incomplete: str) -> list[str]:
    """Return suites with a journal beside the store, then suite files."""
    return _beginning(incomplete, [*_known(context), *suite_files(incomplete)])


def datasets(incomplete: str) -> list[str]:
    """Return the known datasets that begin with `incomplete`."""
    return _listed(incomplete, _tables("datasets.toml"))


def datasets_or_files(incomplete: str) -> list[str]:
    """Return the known datasets, and all files, that begin with `incomplete`."""
    return _beginning(incomplete, [*datasets(incomplete), *_files(incomplete, suffix="")])


def models(incomplete: str) -> list[str]:
    """Return the models of the registry that begin with what follows the last comma of `incomplete`."""
    from ipsrec_bench.models.registry import REGISTRY

    return _listed(incomplete, REGISTRY)


def _listed(incomplete: str, names: Iterable[str]) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _files(incomplete: str, suffix: str = ".toml") -> Iterator[str]:
    folder = Path(incomplete).parent if not incomplete.endswith("/") else Path(incomplete)
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                yield f"{path}/"
            elif path.name.endswith(suffix):
                yield str(path)


def _known(context: typer.Context) -> list[str]:
    from ipsrec_bench.cli.options import STORE
    from ipsrec_bench.run.journal import header, journals

    store = context.params.get("store") or os.environ.get("IPSREC_BENCH_STORE") or STORE
    return [opened.suite for path in reversed(journals(Path(store))) if (opened := header(path)) is not None]


def _tables(name: str) -> list[str]:
    import tomllib
    from importlib.resources import files

    entries = tomllib.loads(files("ipsrec_bench.data").joinpath(name).read_text(encoding="utf-8"))
    return [entry for entry in entries if "{" not in entry]
