"""From a cell's folder to the store: results of this run, and those that earlier runs left beside the store."""

import contextlib
import json
import os
import shutil
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open

from ipsrec_bench.errors import StoreError
from ipsrec_bench.events import Emit, StoreBusy
from ipsrec_bench.run.kept import kept_record, release
from ipsrec_bench.run.workplace import LOG, PARENT, Workplace
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.ingest import record_cell
from ipsrec_bench.store.queries import CellOutcome, best_epoch_of, outcome_of, outcomes
from ipsrec_bench.store.records import OUTPUT_FOLLOWS, CellRecord
from ipsrec_bench.suite.cells import TRAINED_UNDER
from ipsrec_bench.training.curve import best_of

Keep = Literal["best", "none"]
"""Whether the best weights of a cell are kept once the store has its ranks."""
LOG_LINES = 20
"""Number of last lines of a worker's output that are recorded with a failed cell."""
LOG_BYTES = 1 << 14


@dataclass
class Recorder:
    """The store of a run, open for writing only while a cell is recorded."""

    store: Path
    workplace: Workplace
    emit: Emit
    keep: Keep = "best"
    _outcomes: dict[str, CellOutcome] = field(default_factory=dict, init=False)
    """How cells had ended when the store was last read."""
    _recorded: int = field(default=-1, init=False)
    """How many cells all runs had recorded by then."""

    def found(self, key: str) -> CellOutcome | None:
        """Return how a claimed cell ended, or None if the store does not have it.

        The store is opened only if another run has recorded a cell since.
        """
        recorded = self.workplace.recorded()
        if recorded != self._recorded:
            with reading(self.store, patience=inf, on_wait=self.on_wait) as connection:
                self._outcomes = outcomes(connection)
            self._recorded = recorded
        return self._outcomes.get(key)

    def enter_kept(self) -> set[str]:
        """Enter the results that earlier runs left beside the store; return the keys of complete cells."""
        entered = set()
        for key in self.workplace.kept():
            claim = self.workplace.claim(key, "")
            if claim is None:
                continue
            record = None
            try:
                record = kept_record(claim.folder)
                if record is not None:
                    record = self.enter(record, claim.folder)
            finally:
                claim.give_back(done=record is not None)
            if record is not None and record.error is None:
                entered.add(key)
        return entered

    def enter(self, record: CellRecord, folder: Path) -> CellRecord:
        """Write a result to the store unless it is there already, and move its weights to the checkpoints.

        The validation ranks of a trained cell must give the metric of its best epoch. A cell that ranks another cell's
        model has that cell's best epoch, which was chosen under another protocol: `lend_weights` compares that.

        Args:
            record: the result in the cell's folder.
            folder: the cell's folder, from which the result is removed.

        Returns:
            The record as the store has it.

        Raises:
            StoreError: the store cannot be written; the result stays in `folder`.
        """
        is_trained = TRAINED_UNDER not in json.loads(record.settings)
        if is_trained and record.ranks is not None and record.best_valid is not None:
            assert record.stop_metric is not None
            found = record.ranks["valid"].mean(record.stop_metric)
            if found != record.best_valid:
                reason = f"its validation ranks give {record.stop_metric} = {found}, the best epoch had"
                record = replace(record, error=f"ModelError: {reason} {record.best_valid}", ranks=None, epochs=())
        if record.error is not None:
            record = replace(record, error=record.error + last_lines(folder / LOG))
        try:
            if record.error is None and self.keep == "best":
                _move_weights(folder / f"{record.key}.safetensors", self.workplace.checkpoints)
            elif record.error is None:  # those of an earlier run do not belong to this record
                (self.workplace.checkpoints / f"{record.key}.safetensors").unlink(missing_ok=True)
            # A trained cell is not given up because another process reads the store: wait as long as it takes.
            with writing(self.store, patience=inf, on_wait=self.on_wait) as connection:
                before = outcome_of(connection, record.key)
                if before is None or before.started != record.started.replace(tzinfo=None):
                    record_cell(connection, record)
            is_news = self.workplace.recorded() != self._recorded
            self.workplace.tell_recorded()
            self._recorded += not is_news
        except StoreError as error:
            raise StoreError(f"{error}. A trained cell is kept in {folder}, and the next run enters it") from error
        if record.error is None:
            self.workplace.forget_deaths({record.key})  # earlier deaths do not count against a later run of the cell
        release(folder)
        return record

    def lend_weights(self, parent: str, folder: Path) -> None:
        """Put the best weights of the cell `parent` into the folder of another cell, which ranks its model.

        Nothing is put there if the weights were not kept, or are not those of the epoch that the store has as the best:
        the cell is then trained again there.

        Raises:
            StoreError: the folder cannot be written.
        """
        weights, there = self.workplace.checkpoints / f"{parent}.safetensors", folder / PARENT
        about: dict[str, str] = {}
        with contextlib.suppress(OSError, SafetensorError), safe_open(weights, framework="numpy") as file:
            about = file.metadata() or {}
        with reading(self.store, patience=inf, on_wait=self.on_wait) as connection:
            best = best_epoch_of(connection, parent)
        try:
            there.unlink(missing_ok=True)
            if best is not None and best == best_of(about) and about.get("key") == parent:
                part = there.with_suffix(".part")
                part.unlink(missing_ok=True)
                try:
                    os.link(weights, part)  # weights are replaced, never changed
                except OSError:  # of another disk, or of one without links
                    shutil.copyfile(weights, part)
                part.replace(there)
        except FileNotFoundError:  # the weights were removed meanwhile
            return
        except OSError as error:
            raise StoreError(f"{folder}: the weights cannot be put there: {error.strerror}") from error

    def on_wait(self, message: str) -> None:
        """Emit which process is waited for."""
        self.emit(StoreBusy(message))


def last_lines(log: Path) -> str:
    """Return the end of a worker's output under a heading; empty if there is no output."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_BYTES))
            lines = file.read().decode(errors="backslashreplace").splitlines()[-LOG_LINES:]
    except OSError:
        return ""
    return "\n".join([f"\n{OUTPUT_FOLLOWS}", *lines]) if lines else ""


def _move_weights(path: Path, folder: Path) -> None:
    """Move the best weights of a cell to the checkpoints of all cells."""
    if not path.exists():  # an earlier run has done so
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.replace(folder / path.name)
    except OSError as error:
        raise StoreError(f"{folder}: the weights cannot be moved there: {error.strerror}") from error
