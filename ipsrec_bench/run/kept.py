"""Results beside the store: written before the store is opened, entered by the next run if the store failed."""

import contextlib
import json
import os
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ipsrec_bench.data.split import TargetSet
from ipsrec_bench.data.staging import is_full
from ipsrec_bench.errors import StoreError
from ipsrec_bench.ranking.ranks import Ranks
from ipsrec_bench.run.workplace import KEPT
from ipsrec_bench.store.records import CellRecord, Environment
from ipsrec_bench.training.curve import Epoch

_ROOM_FOR_TEXT = 1 << 16
_PER_EPOCH, _PER_TARGET = 1024, 16
"""Upper bounds on the bytes of a result."""


def reserve(folder: Path, epochs: int, targets: int) -> None:
    """Reserve disk space for the result of a cell, so that a full disk is noticed before training and not after it.

    Raises:
        StoreError: there is not enough.
    """
    size = _ROOM_FOR_TEXT + _PER_EPOCH * epochs + _PER_TARGET * targets
    try:
        with _unfinished(folder).open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise _refusal(folder, error) from error


def keep(record: CellRecord, folder: Path) -> None:
    """Write `record` into its cell's folder; the file appears only once it is complete.

    Raises:
        StoreError: it cannot be written.
    """
    ranks = record.ranks or {}
    arrays = {
        f"{split}.{name}": np.ascontiguousarray(getattr(found, name), dtype)
        for split, found in ranks.items()
        for name, dtype in (("users", np.int64), ("higher", np.int32), ("ties", np.int32))
    }
    plain = {field.name: getattr(record, field.name) for field in fields(record) if field.name not in _NOT_PLAIN}
    about = {
        **plain,
        "environment": asdict(record.environment),
        "started": record.started.isoformat(),
        "epochs": [asdict(epoch) for epoch in record.epochs],
        "target_sets": {split: asdict(found) for split, found in record.target_sets.items()},
        "splits": list(ranks) if record.ranks is not None else None,
    }
    try:
        # In place, so that it uses the reserved space.
        with _unfinished(folder).open("r+b" if _unfinished(folder).exists() else "w+b") as file:
            file.write(save(arrays, metadata={"record": json.dumps(about)}))
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        _unfinished(folder).replace(folder / KEPT)
    except OSError as error:
        raise _refusal(folder, error) from error


def kept_record(folder: Path) -> CellRecord | None:
    """Return the result that lies in a cell's folder, if there is one.

    Raises:
        StoreError: it cannot be read; it stays there.
    """
    path = folder / KEPT
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["record"])
            splits = about.pop("splits")
            ranks = {
                split: Ranks(*(file.get_tensor(f"{split}.{name}") for name in ("users", "higher", "ties")))
                for split in splits or ()
            }
        return CellRecord(
            **{
                **about,
                "environment": Environment(**about["environment"]),
                "started": datetime.fromisoformat(about["started"]),
                "epochs": tuple(Epoch(**epoch) for epoch in about["epochs"]),
                "target_sets": {split: TargetSet(**found) for split, found in about["target_sets"].items()},
            },
            ranks=ranks if splits is not None else None,
        )
    except OSError as error:  # missing permissions, for example
        raise StoreError(f"{path}: a kept result cannot be read: {error.strerror or error}") from error
    except (SafetensorError, KeyError, TypeError, ValueError):  # of another version, or damaged
        release(folder)
        return None


def release(folder: Path) -> None:
    """Remove the result from a cell's folder: the store has it."""
    with contextlib.suppress(OSError):
        (folder / KEPT).unlink()


_NOT_PLAIN = {"environment", "started", "epochs", "target_sets", "ranks"}


def _unfinished(folder: Path) -> Path:
    return folder / f"{KEPT}.part"


def _refusal(folder: Path, error: OSError) -> StoreError:
    reason = "the disk is full" if is_full(error) else error.strerror or str(error)
    return StoreError(f"{folder}: cannot be written: {reason}; make room and run the same command again")
