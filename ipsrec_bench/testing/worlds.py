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
