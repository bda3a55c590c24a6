"""Merging the stores of separate runs, with the files beside them."""

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipsrec_bench.errors import StoreError
from ipsrec_bench.files import replacing
from ipsrec_bench.run.workplace import Workplace
from ipsrec_bench.store.connect import check_current, writing
from ipsrec_bench.store.database import OnWait
from ipsrec_bench.store.merge import Merged, merge_part


@dataclass(frozen=True)
class MergedPart:
    """Result of merging a part."""

    rows: Merged
    waiting: int
    """Number of results that wait beside the part, which it does not have yet."""


def check_parts(into: Path, parts: Sequence[Path], on_wait: OnWait) -> None:
    """Check that each of `parts` is a store that can be merged into `into`, before anything is written.

    Raises:
        StoreError: one is missing, is not a store, has an older schema, is locked for long, or is `into` itself.
    """
    for part in parts:
        check_current(part, on_wait=on_wait)
        if os.path.exists(into) and os.path.samefile(into, part):  # noqa: PTH110, PTH121 (any name, without an error)
            raise StoreError(f"{part}: a store cannot be merged into itself; name the store that receives all first")


def merge(into: Path, part: Path, on_wait: OnWait) -> MergedPart:
    """Enter everything of the store `part` that `into` lacks, in one transaction; copy best weights that it lacks.

    Args:
        into: the store that is written; made if missing.
        part: the other store, which is only read.
        on_wait: callback that receives one sentence about the process that is waited for.

    Raises:
        SuiteError: the two have different suites of one name.
        StoreError: one of them cannot be read or written, or the weights cannot be copied.
    """
    with writing(into, on_wait=on_wait, part=part) as connection:
        rows = merge_part(connection, into, part)
    ours, theirs = Workplace(into), Workplace(part)
    if (rows.complete or rows.failed) and ours.folder.exists():
        ours.tell_recorded()  # a live run on the store would train them otherwise
    _copy_weights(theirs.checkpoints, ours.checkpoints, rows.shared)
    return MergedPart(rows, waiting=len(theirs.kept()))


def _copy_weights(source: Path, target: Path, keys: Iterable[str]) -> None:
    for name in sorted(f"{key}.safetensors" for key in keys):
        if not (source / name).exists() or (target / name).exists():
            continue
        try:
            with replacing(target / name) as new:
                shutil.copyfile(source / name, new)
        except OSError as error:
            raise StoreError(
                f"{target / name}: the weights cannot be copied there: {error.strerror or error}; the results are"
                " entered, and the same command copies the rest"
            ) from error
