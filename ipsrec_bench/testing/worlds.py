"""Tiny worlds in which the next item is certain, so that a model of the right kind must rank it first.

The exception is `mixture`, on which tasks are tested. Each world is a log (user, item, provider, time) over `ITEMS`
items, which `build` prepares like any other dataset.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Split
from ipsrec_bench.suite.schema import TableSource

ITEMS = 12
PROVIDERS = 4
USERS = 60
LENGTHS = (8, 10, 12)
"""Numbers of interactions of a user; groups of `ITEMS` users take turns."""
MAX_LENGTH = 7
"""Maximum length of the history that a model sees in these worlds: tests use no length that training lacks."""


def cycle(user: int, step: int, length: int) -> int:  # noqa: ARG001 (worlds have one signature)
    """Order decides: every item is followed by the one after it, wherever the user began."""
    return (user + step) % ITEMS


def habit(user: int, step: int, length: int) -> int:  # noqa: ARG001 (worlds have one signature)
    """The user decides: every user has a single item, again and again."""
    return user % ITEMS


def fashion(user: int, step: int, length: int) -> int:
    """Popularity decides: every other interaction, the last one included, is with the item that everybody has."""
    return 0 if (length - step) % 2 else 1 + (user + step) % (ITEMS - 1)


def pairs(user: int, step: int, length: int) -> int:  # noqa: ARG001 (worlds have one signature)
    """Pairing decides: items come in pairs, and each user alternates between the two items of one pair."""
    return (2 * user + step % 2) % ITEMS


def loyalty(user: int, step: int, length: int) -> int:
    """The provider decides: every user stays with one provider and ends with its most popular item."""
    away = 0 if (length - step) % 2 else 1 + (step // 2) % (ITEMS // PROVIDERS - 1)
    return user % PROVIDERS + PROVIDERS * away


def mixture(user: int, step: int, length: int) -> int:  # noqa: ARG001 (worlds have one signature)
    """Nothing decides: histories look random, some items come twice in a row, and some users are alike."""
    return (5 * (user % 50) + 7 * step * step + 3 * (user % 7) * step) % 97 % ITEMS


WORLDS = {"cycle": cycle, "habit": habit, "fashion": fashion, "pairs": pairs, "loyalty": loyalty, "mixture": mixture}


@cache
def build(world: str) -> PreparedDataset:
    """Prepare the world of that name, once in a process; item i is of provider i modulo `PROVIDERS`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve() / f"{world}.csv"
        path.write_text("user,item,provider,time\n" + "\n".join(_rows(world)), encoding="utf-8")
        data = prepare(world, TableSource(path=str(path)), Path(folder))
        return replace(
            data,
            items=_in_memory(data.items),
            providers=_in_memory(data.providers),
            times=_in_memory(data.times),
            offsets=_in_memory(data.offsets),
        )


def _in_memory(column: NDArray[Any]) -> NDArray[Any]:
    """Return a copy that needs no file; it is read-only, because all tests share it."""
    copy = np.array(column)
    copy.setflags(write=False)
    return copy


def with_other_held_out(data: PreparedDataset, split: Split) -> PreparedDataset:
    """Return `data` with other items, providers and times in all interactions that `split` does not train on."""
    held_out = ~split.trained(data)
    items, providers = (
        np.where(held_out, ids % top + 1, ids).astype(ids.dtype)
        for ids, top in ((data.items, data.num_items), (data.providers, data.num_providers))
    )
    return replace(data, items=items, providers=providers, times=data.times + 1000 * held_out)


def _rows(world: str) -> Iterator[str]:
    for user in range(USERS):
        length = LENGTHS[user // ITEMS % len(LENGTHS)]
        for step in range(length):
            item = WORLDS[world](user, step, length)
            yield f"u{user},i{item},p{item % PROVIDERS},{step}"
