"""Errors that a user can cause and correct.

Each message is one sentence that names the place and the remedy. The command line prints that sentence and
exits with code 2; any other exception is a defect of the package and keeps its traceback.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType


class BenchError(Exception):
    """Base of all errors that the user of the toolkit can correct."""


class SuiteError(BenchError):
    """A suite file, or an override of one of its keys, is wrong."""


class DataError(BenchError):
    """A raw file, a column or a dataset name is wrong."""


class MissingDataError(DataError):
    """A raw file is missing; a suite can continue with its other datasets."""


class StoreError(BenchError):
    """The result store cannot be opened, is of another version, or a query on it is wrong."""


class MissingStoreError(StoreError):
    """The result store does not exist yet, or its file is empty."""


class MissingRunError(StoreError):
    """The store holds no run of a suite."""


class LockedStoreError(StoreError):
    """Another process has the result store open."""


class StudyError(BenchError):
    """A tuning study cannot be read or written."""


class ModelError(BenchError):
    """A model cannot be used as requested, or produced scores that cannot be ranked."""


def did_you_mean(found: str, known: Iterable[str], short: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return `; did you mean 'x'?` for the known name closest to `found`, else an empty string.

    `short` has shorter forms of names, by which they are found, too.
    """
    names = {form.casefold(): name for form, name in short.items()} | {name.casefold(): name for name in known}
    close = get_close_matches(found.casefold(), names, n=1, cutoff=0.6)
    return f"; did you mean '{names[close[0]]}'?" if close else ""


def listed(names: Iterable[str]) -> str:
    """Return names quoted and joined by commas, for use in an error message."""
    return ", ".join(f"'{name}'" for name in names) or "(none)"
