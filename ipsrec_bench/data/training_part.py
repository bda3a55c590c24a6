"""The interactions that models are trained on: the training part of a split, filtered if the protocol says so."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Split, Targets
from ipsrec_bench.errors import DataError
from ipsrec_bench.suite.schema import Bounds, Filter, Protocol


def trained_on(data: PreparedDataset, split: Split, protocol: Protocol) -> NDArray[np.bool_]:
    """Return, bool `[interactions]`, which interactions models are trained on.

    With `filter_for = "training"`, the filter counts the training interactions of users and items alone, so that
    nothing held out decides what a model sees.

    Args:
        data: the dataset.
        split: a split of it.
        protocol: says what the filter is, and what it is for.

    Raises:
        DataError: the filter leaves no user to train on.
    """
    trained = split.trained(data)
    if not protocol.filters_training:
        return trained
    places = np.flatnonzero(trained)
    users = np.searchsorted(data.offsets, places, side="right") - 1
    kept = within_bounds(users, np.asarray(data.items)[places], protocol.filter)
    if not (np.bincount(users[kept], minlength=1) > 1).any():
        raise DataError(
            f"{data.name}: the filter ({protocol.filter}) leaves no user to train on, because protocol.filter_for ="
            " 'training' counts training interactions alone; give it wider bounds"
        )
    trained[places[~kept]] = False
    return trained


def within_bounds(users: NDArray[np.int64], items: NDArray[np.int32], wanted: Filter) -> NDArray[np.bool_]:
    """Return, bool `[n]`, which interactions stay when those of users and items out of bounds are dropped."""
    kept = np.ones(len(users), dtype=bool)
    while True:
        now = kept & _inside(users, kept, wanted.users) & _inside(items, kept, wanted.items)
        if wanted.passes == "one" or now.sum() == kept.sum():
            return now
        kept = now


def _inside(ids: NDArray[np.integer], kept: NDArray[np.bool_], bounds: Bounds) -> NDArray[np.bool_]:
    counts = np.bincount(ids[kept], minlength=int(ids.max(initial=0)) + 1)[ids]
    return np.asarray((counts >= bounds.min) & (counts <= (bounds.max or len(ids))))


def training_view(data: PreparedDataset, split: Split, protocol: Protocol) -> tuple[PreparedDataset, Split]:
    """Return the dataset with the interactions that models are trained on alone, and its split, which holds out none.

    Users, items and providers keep their numbers. The arrays are in memory.

    Raises:
        DataError: the filter leaves no user to train on.
    """
    trained = trained_on(data, split, protocol)
    offsets = np.concatenate([[0], np.cumsum(trained)])[data.offsets]
    part = replace(
        data,
        items=data.items[trained],
        providers=data.providers[trained],
        times=data.times[trained],
        offsets=offsets,
    )
    nothing = Targets(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    return part, Split(offsets[1:], nothing, nothing, refit_ends=offsets[1:])
