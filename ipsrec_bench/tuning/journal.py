"""A study's journal: a file of JSON lines, one for each operation on the study."""

import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from ipsrec_bench.errors import StudyError
from ipsrec_bench.tuning.lock import SystemLock

OPERATION = "op_code"
"""The key that every line of a journal has."""


class _Journal(JournalFileBackend):
    """Optuna's journal, which reports failures of its file as a `StudyError`."""

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the entries from number `log_number_from` on.

        Raises:
            StudyError: the file cannot be read: it was removed or damaged since it was opened, for example.
        """
        try:
            yield from super().read_logs(log_number_from)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is damaged"
            raise StudyError(f"{self._file_path}: the study cannot be read: {reason}") from None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines at the end, under the lock.

        Raises:
            StudyError: the file cannot be written, for example because the disk is full.
        """
        try:
            super().append_logs(logs)
        except OSError as error:
            raise StudyError(
                f"{self._file_path}: the study cannot be written: {error.strerror or error}; once it can, the same"
                " command resumes the search"
            ) from None


def open_journal(path: Path) -> JournalStorage:
    """Open the journal at `path`, or begin one if it is missing. An incomplete last line is skipped.

    Raises:
        StudyError: the file is not the journal of a study, is broken before its last line, or cannot be read or made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _check(path)
        return JournalStorage(_Journal(str(path), SystemLock(path)))
    except OSError as error:
        raise StudyError(f"{path}: the study cannot be opened: {error.strerror or error}") from None
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError, IndexError):  # whatever a replay meets
        raise StudyError(
            f"{path}: the journal cannot be replayed; another version of Optuna may have written it: open it with that"
            " version, or move it away to begin the study anew"
        ) from None


def _check(path: Path) -> None:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n") and not _is_entry(line):
                kept = f"to keep what came before it, cut the file there (head -n {number - 1}); " if number > 1 else ""
                raise StudyError(
                    f"{path}: line {number} is not an entry of a study's journal: the file is damaged or not a journal;"
                    f" {kept}to begin the study anew, move the file away"
                )


def _is_entry(line: bytes) -> bool:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, Mapping) and OPERATION in found
