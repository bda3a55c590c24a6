"""Tiny worlds in which the next item is certain, so that a model of the right kind must rank it first.

Each world is a log (user, item, provider, time) over `ITEMS` items, which `build` prepares like any other dataset.
"""

from collections.abc import Iterator
from pathlib import Path

from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.suite.schema import TableSource

ITEMS = 12
PROVIDERS = 4
USERS = 60
LENGTHS = (8, 10, 12)
"""Interactions of a user; users take turns."""
MAX_LENGTH = 7
"""How much of a history a model sees in these worlds, so that the test asks for no length that training lacks."""


def cycle(user: int, step: int, length: int) -> int:  # noqa: ARG001 (worlds have one signature)
    """Order decides: every item is followed by the one after it, wherever the user began."""
    return (user + step) % ITEMS


def habit(user: int, step: int, length: int) -> int:  # noqa: ARG001 (worlds have one signature)
    """The user decides: everybody has one item, again and again."""
    return user % ITEMS


def fashion(user: int, step: int, length: int) -> int:
    """Popularity decides: of any two neighbours, one is the item that everybody has, the last one always."""
    return 0 if (length - step) % 2 else 1 + (user + step) % (ITEMS - 1)


def pairs(user: int, step: int, length: int) -> int:  # noqa: ARG001 (worlds have one signature)
    """Company decides: items come in pairs, and users alternate between the two of one pair."""
    return (2 * user + step % 2) % ITEMS


def loyalty(user: int, step: int, length: int) -> int:
    """The provider decides: everybody stays with one provider and comes back, at last, to its most popular item."""
    away = 0 if (length - step) % 2 else 1 + (step // 2) % (ITEMS // PROVIDERS - 1)
    return user % PROVIDERS + PROVIDERS * away


WORLDS = {"cycle": cycle, "habit": habit, "fashion": fashion, "pairs": pairs, "loyalty": loyalty}


def build(world: str, folder: Path) -> PreparedDataset:
    """Prepare the world of that name in `folder`; item i is of provider i modulo `PROVIDERS`."""
    path = folder.resolve() / f"{world}.csv"
    path.write_text("user,item,provider,time\n" + "\n".join(_rows(world)), encoding="utf-8")
    return prepare(world, TableSource(path=str(path)), folder)


def _rows(world: str) -> Iterator[str]:
    for user in range(USERS):
        length = LENGTHS[user // ITEMS % len(LENGTHS)]
        for step in range(length):
            item = WORLDS[world](user, step, length)
            yield f"u{user},i{item},p{item % PROVIDERS},{step}"
