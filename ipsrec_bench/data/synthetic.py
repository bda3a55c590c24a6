"""A small world in which it is known whether the provider matters.

Every item belongs to one topic, is offered by `providers_per_item` providers, all drawn at random, and has a
popularity that follows a power law. A user walks from interaction to interaction. At a share of the steps
(`provider_strength`) the *provider* decides: the next item comes from the assortment of the same provider with
probability `loyalty`, of the provider that always follows it (a fixed random cycle) with probability `drift`, and
of any provider otherwise. At the other steps the *topic* decides in exactly the same way, and the provider is any
that offers the item. The item itself is drawn by popularity among those that qualify.

With strength "high", a model that sees providers has an advantage over one that has to infer them from items. With
"none", providers are noise, and no model should gain from them. Both worlds have the same catalogue, the same
lengths and the same popularity.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.suite.schema import PROVIDER_STRENGTHS, SyntheticSource

STAY, FOLLOW, JUMP = range(3)


@dataclass(frozen=True)
class Interactions:
    """Rows of a synthetic log, one entry per interaction, in user-then-time order."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    provider: NDArray[np.int64]
    time: NDArray[np.int64]


def generate(source: SyntheticSource) -> Interactions:
    """Draw the log that `source` describes; equal settings give equal rows on every machine."""
    rng = np.random.default_rng(source.seed)
    popularity = np.arange(1.0, source.items + 1.0) ** -source.popularity_exponent
    ranking = rng.random((source.items, source.providers))
    offered_by = np.argpartition(ranking, source.providers_per_item - 1, axis=1)[:, : source.providers_per_item]
    topic_of = rng.integers(source.providers, size=(source.items, 1))
    assortments = _Groups.build(offered_by, popularity, source.providers, rng)
    topics = _Groups.build(topic_of, popularity, source.providers, rng)
    lengths = 1 + rng.poisson(rng.gamma(4.0, (source.mean_length - 1) / 4.0, source.users))
    strength = PROVIDER_STRENGTHS[source.provider_strength]

    # All users take their n-th step together; steps beyond a user's length are discarded below.
    walks = np.zeros((2, source.users, int(lengths.max())), dtype=np.int64)
    item = rng.choice(source.items, size=source.users, p=popularity / popularity.sum())
    provider = offered_by[item, rng.integers(source.providers_per_item, size=source.users)]
    walks[:, :, 0] = item, provider
    for step in range(1, walks.shape[2]):
        by_provider = rng.random(source.users) < strength
        fate = rng.random(source.users)
        move = np.select([fate < source.loyalty, fate < source.loyalty + source.drift], [STAY, FOLLOW], default=JUMP)
        pick = rng.random(source.users)
        offer = offered_by[:, rng.integers(source.providers_per_item)]
        next_provider = assortments.next_group(provider, move, rng)
        next_topic = topics.next_group(topic_of[item, 0], move, rng)
        item = np.where(by_provider, assortments.draw(next_provider, pick), topics.draw(next_topic, pick))
        provider = np.where(by_provider, next_provider, offer[item])
        walks[:, :, step] = item, provider

    taken = np.arange(walks.shape[2]) < lengths[:, None]
    user, time = np.nonzero(taken)
    return Interactions(user=user, item=walks[0][taken], provider=walks[1][taken], time=time)


@dataclass(frozen=True)
class _Groups:
    """Items grouped by provider (or by topic), with running sums of their popularity."""

    members: NDArray[np.int64]
    cumulative: NDArray[np.float64]
    bounds: NDArray[np.float64]
    """Group g's share of `cumulative` lies between `bounds[g]` and `bounds[g + 1]`."""
    successor: NDArray[np.int64]
    filled: NDArray[np.int64]
    """The groups that have items."""

    @classmethod
    def build(
        cls,
        groups_of: NDArray[np.int64],
        popularity: NDArray[np.float64],
        groups: int,
        rng: np.random.Generator,
    ) -> "_Groups":
        """Group the items by `groups_of [items, groups per item]`."""
        flat = groups_of.ravel()
        order = np.argsort(flat, kind="stable")
        members = order // groups_of.shape[1]
        cumulative = np.cumsum(popularity[members])
        ends = np.searchsorted(flat[order], np.arange(groups), side="right")
        bounds = np.concatenate([[0.0], np.concatenate([[0.0], cumulative])[ends]])
        # A cycle over the groups that have items, so that every successor can be drawn from.
        filled = np.unique(flat)
        cycle = rng.permutation(filled)
        successor = np.arange(groups)
        successor[cycle] = np.roll(cycle, -1)
        return cls(members, cumulative, bounds, successor, filled)

    def next_group(
        self, group: NDArray[np.int64], move: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Return the group of the next step: the same, its successor, or any that has items."""
        return np.choose(move, [group, self.successor[group], rng.choice(self.filled, size=len(group))])

    def draw(self, group: NDArray[np.int64], pick: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return an item of each group by popularity; `pick` in [0, 1) chooses."""
        low, high = self.bounds[group], self.bounds[group + 1]
        place = np.searchsorted(self.cumulative, low + pick * (high - low), side="right")
        return self.members[np.minimum(place, len(self.members) - 1)]
