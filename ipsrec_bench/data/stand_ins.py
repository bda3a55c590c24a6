"""Stand-ins: raw files in the format and of the size of a published dataset, with made-up content.

The numbers of users, items, providers and rows are the published ones (times a scale), so the whole pipeline from raw
file to report can be run, and timed, without the data. Everything else is made up: the lengths of histories, the
distribution of popularity and how often a user stays with a provider are not published. They are chosen here and say
nothing about the dataset. User ids begin with "~", by which preparation recognises a stand-in wherever its files are;
with six digits they still fit into the twelve bytes that DuckDB stores inline.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.staging import staged
from ipsrec_bench.errors import DataError, did_you_mean, listed

MARK = "~"
"""Prefix of every user id of a stand-in."""
STICKINESS = 0.3
"""Share of a user's steps that stay with the provider of the step before."""
POPULARITY_EXPONENT = 0.8
"""Exponent of the power law of how often an item is chosen."""
ASSORTMENT_EXPONENT = 0.6
"""Exponent of the power law of how many items a provider has."""
LENGTH_SPREAD = 1.0
"""Standard deviation of the logarithm of history lengths."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Counts that preparation with the dataset's default settings finds in a full-size stand-in."""

    users: int
    items: int
    providers: int
    actions: int

    def scaled(self, scale: float) -> "Counts":
        """Return the counts of a smaller world of the same density."""
        counts = (self.users, self.items, self.providers, self.actions)
        return Counts(*(max(1, round(count * scale)) for count in counts))


TMALL = Counts(users=885_759, items=1_144_124, providers=9_997, actions=7_592_214)
TMALL_CLICKED = Counts(users=626_041, items=2_200_291, providers=9_997, actions=24_363_557)
TMALL_USERS, TMALL_ITEMS = 963_923, 2_353_207
"""Purchases and clicks together."""
TMALL_BUY_ROWS, TMALL_CLICK_ROWS = 9_348_756, 35_179_371
"""With duplicates."""
TMALL_CATEGORIES = 72
TMALL_FIRST_DAY, TMALL_DAYS = "2015-07-01", 153
TWITCH = Counts(users=100_000, items=739_991, providers=162_625, actions=3_051_732)
TWITCH_STEPS = 6_148
"""Steps of ten minutes each, 43 days in total."""
WECHAT = Counts(users=20_000, items=96_564, providers=18_429, actions=7_317_882)
WECHAT_DAYS = 14
WECHAT_FEEDS_UNSEEN = 0.1
"""Feeds without actions in the table of feeds, as a share of the others."""
WECHAT_FLAGS = ("read_comment", "comment", "like", "click_avatar", "forward", "follow", "favorite")


def write_stand_in(name: str, scale: float, folder: Path) -> None:
    """Write the raw files of the stand-in for the dataset `name` into `folder`, unless it exists.

    Equal names and scales give equal files.

    Raises:
        DataError: there is no stand-in for `name`, or the files cannot be written.
    """
    if name not in WRITERS:
        raise DataError(
            f"there is no stand-in for '{name}'{did_you_mean(name, WRITERS)}; available: {listed(sorted(WRITERS))}"
        )
    with staged(folder) as staging:
        if staging is not None:
            WRITERS[name](scale, staging)


def _tmall(scale: float, folder: Path) -> None:
    """Write purchases and clicks, with duplicates, in the order of days."""
    rng = np.random.default_rng(1)
    counts = TMALL.scaled(scale)
    users, items = round(TMALL_USERS * scale), round(TMALL_ITEMS * scale)
    shop = _Shop.open(max(items, counts.items), counts.providers, rng, first=counts.items)
    parts: dict[str, list[NDArray[Any]]] = {"user": [], "item": [], "action": [], "day": []}
    for bought, wanted, rows in ((0, TMALL_CLICKED.scaled(scale), TMALL_CLICK_ROWS), (1, counts, TMALL_BUY_ROWS)):
        # Purchases are of the first items, by the first users; clicks are of the last items, by the last users.
        log = _walk(shop if bought else shop.reversed(), wanted, rng, distinct=True)
        if not bought:
            log = _Log(users - 1 - log.user, len(shop.provider_of) - 1 - log.item, log.time)
        day = np.floor(log.time * TMALL_DAYS).astype(np.int16)
        again = rng.integers(wanted.actions, size=max(0, round(rows * scale) - wanted.actions))
        parts["day"] += [np.floor(day[again] * rng.random(len(again))).astype(np.int16), day]
        parts["user"] += [log.user[again], log.user]
        parts["item"] += [log.item[again], log.item]
        parts["action"].append(np.full(len(again) + len(day), bought, dtype=np.int8))
    table = {name: np.concatenate(pieces) for name, pieces in parts.items()}
    order = np.argsort(table["day"], kind="stable")
    table = {name: column[order] for name, column in table.items()}
    table |= {"seller": shop.provider_of[table["item"]], "category": table["item"] % TMALL_CATEGORIES}
    _write(
        folder / "ijcai2016_taobao.csv",
        table,
        f"""'{MARK}' || "user" AS use_ID, seller AS sel_ID, item AS ite_ID, category AS cat_ID, action AS act_ID,
        strftime(DATE '{TMALL_FIRST_DAY}' + "day"::INTEGER, '%Y%m%d') AS time_Stamp""",
    )


def _twitch(scale: float, folder: Path) -> None:
    rng = np.random.default_rng(2)
    counts = TWITCH.scaled(scale)
    shop = _Shop.open(counts.items, counts.providers, rng)
    log = _walk(shop, counts, rng, distinct=False)
    start = np.floor(log.time * TWITCH_STEPS).astype(np.int32)
    columns: dict[str, NDArray[Any]] = {
        "user": log.user,
        "stream": log.item,
        "streamer": shop.provider_of[log.item],
        "start": start,
        "stop": start + 1 + rng.geometric(0.3, size=len(start)).astype(np.int32),
    }
    select = f"""'{MARK}' || "user", stream, 'streamer' || streamer, "start", "stop" """
    _write(folder / "100k_a.csv", columns, select, header=False)


def _wechat(scale: float, folder: Path) -> None:
    """Write the log in the order of days, within a day in each user's order, and the table of feeds."""
    rng = np.random.default_rng(3)
    counts = WECHAT.scaled(scale)
    shop = _Shop.open(counts.items, counts.providers, rng)
    log = _walk(shop, counts, rng, distinct=False)
    day = np.floor(log.time * WECHAT_DAYS).astype(np.int16)
    order = np.argsort(day, kind="stable")
    size = len(order)
    play = rng.integers(60_000, size=size, dtype=np.int32)
    columns: dict[str, NDArray[Any]] = {
        "user": log.user[order],
        "feed": log.item[order],
        "day": day[order],
        "device": rng.integers(1, 3, size=size, dtype=np.int8),
        "play": play,
        **{flag: (rng.random(size, dtype=np.float32) < 0.02).astype(np.int8) for flag in WECHAT_FLAGS},  # noqa: PLR2004
    }
    _write(
        folder / "user_action.csv",
        columns,
        f"""'{MARK}' || "user" AS userid, feed AS feedid, "day" + 1 AS date_, device, read_comment, "comment", "like",
        play, play + 500 AS stay, click_avatar, forward, "follow", favorite""",
    )
    feeds = counts.items + round(counts.items * WECHAT_FEEDS_UNSEEN)
    table: dict[str, NDArray[Any]] = {
        "feed": np.arange(feeds),
        "author": np.concatenate([shop.provider_of, rng.integers(counts.providers, size=feeds - counts.items)]),
        "seconds": rng.integers(5, 60, size=feeds),
    }
    _write(folder / "feed_info.csv", table, 'feed AS feedid, author AS authorid, "seconds" AS videoplayseconds')


WRITERS: Mapping[str, Callable[[float, Path], None]] = {"tmall": _tmall, "twitch": _twitch, "wechat": _wechat}


@dataclass(frozen=True)
class _Log:
    """Actions in user-then-time order."""

    user: Ints
    item: Ints
    time: NDArray[np.float64]
    """In [0, 1)."""


@dataclass(frozen=True)
class _Shop:
    """The provider and the popularity of each item."""

    provider_of: Ints
    popularity: NDArray[np.float64]

    @classmethod
    def open(cls, items: int, providers: int, rng: np.random.Generator, first: int | None = None) -> "_Shop":
        """Give every item a provider; every provider has at least one of the `first` items (by default, of all)."""
        share = np.cumsum(np.arange(1.0, providers + 1.0) ** -ASSORTMENT_EXPONENT)
        provider_of = np.searchsorted(share, rng.random(items) * share[-1], side="right")
        provider_of[rng.permutation(first or items)[:providers]] = np.arange(providers)
        return cls(provider_of, rng.permutation(np.arange(1.0, items + 1.0) ** -POPULARITY_EXPONENT))

    def reversed(self) -> "_Shop":
        """Return the same with the last item first."""
        return _Shop(self.provider_of[::-1], self.popularity[::-1])

    def draw(self, items: int, size: int, rng: np.random.Generator) -> Ints:
        """Return `size` of the first `items` items: each once, the others by popularity, in random order."""
        share = np.cumsum(self.popularity[:items])
        drawn = np.searchsorted(share, rng.random(max(0, size - items)) * share[-1], side="right")
        return rng.permutation(np.concatenate([np.arange(items), drawn])[:size])

    def draw_alike(self, like: Ints, items: int, rng: np.random.Generator) -> Ints:
        """Return, for each item of `like`, one of the first `items` of the same provider, by popularity."""
        provider_of = self.provider_of[:items]
        order = np.argsort(provider_of, kind="stable")
        share = np.concatenate([[0.0], np.cumsum(self.popularity[order])])
        bounds = np.searchsorted(provider_of[order], np.arange(provider_of.max() + 2))
        provider = provider_of[like]
        low, high = share[bounds[provider]], share[bounds[provider + 1]]
        place = np.searchsorted(share, low + rng.random(len(like)) * (high - low), side="right") - 1
        return np.asarray(order[np.clip(place, bounds[provider], bounds[provider + 1] - 1)])


def _walk(shop: _Shop, counts: Counts, rng: np.random.Generator, *, distinct: bool) -> _Log:
    """Draw histories in which every user and every item appears; `distinct`: no user has an item twice."""
    spread = np.exp(rng.normal(0.0, LENGTH_SPREAD, counts.users))
    more = np.cumsum(spread / spread.sum() * (counts.actions - counts.users))
    ends = np.arange(1, counts.users + 1) + np.round(more).astype(np.int64)
    lengths = ends - np.concatenate([[0], ends[:-1]])
    user = np.repeat(np.arange(counts.users), lengths)
    starts = ends - lengths

    stays = rng.random(counts.actions) < STICKINESS
    stays[starts] = False
    since = np.maximum.accumulate(np.where(stays, 0, np.arange(counts.actions)))
    item = np.empty(counts.actions, dtype=np.int64)
    item[~stays] = shop.draw(counts.items, int((~stays).sum()), rng)
    item[stays] = shop.draw_alike(item[since[stays]], counts.items, rng)
    if distinct and lengths.max() > counts.items // 2:
        raise DataError(
            f"a stand-in of {counts.items} items is too small for a user with {lengths.max()} different ones; use a"
            " larger scale"
        )
    while distinct:
        pairs = user * counts.items + item
        order = np.argsort(pairs, kind="stable")
        repeated = order[1:][pairs[order][1:] == pairs[order][:-1]]  # the first of each stays
        if not len(repeated):
            break
        item[repeated] = rng.integers(counts.items, size=len(repeated))

    # Order statistics of uniform times: running sums of exponential gaps over their total, user by user.
    gaps = np.cumsum(rng.exponential(size=counts.actions + 1))
    begin = np.concatenate([[0.0], gaps])[starts]
    end = gaps[starts + lengths]
    time = (gaps[:-1] - begin[user]) / (end - begin)[user]
    return _Log(user, item, time)


def _write(path: Path, columns: Mapping[str, NDArray[Any]], select: str, *, header: bool = True) -> None:
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.register("columns", dict(columns))
        literal = str(path).replace("'", "''")
        connection.execute(f"COPY (SELECT {select} FROM columns) TO '{literal}' (FORMAT csv, HEADER {header})")
