"""Operators that change a history: crop, mask, reorder (CL4SRec, Xie et al., ICDE 2022) and a sliding window.

For a history of n interactions,

- `crop` keeps floor(eta n) in a row, from a place drawn at random, and moves them to the first position;
- `mask` hides floor(gamma n) items: each becomes the mask token, without provider;
- `reorder` shuffles floor(beta n) items in a row, with their providers; times stay in place, so that they ascend;
- `slide` keeps up to `window` in a row, as `crop` does.

A history of one interaction stays as it is, and at least one interaction is kept. The operators return new tensors:
the released code masks and reorders in place, so that its main loss, later epochs and the other view of the pair see
the changed history too.

An operator takes its draws as tensors, and a function draws them for a whole batch. They are uniform numbers of the
generator that is given, one for each history or position, so that neither lengths nor items are copied from the device
on which they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.training.tasks.api import TrainingStep
from ipsrec_bench.training.tasks.configs import AugmentationConfig


@dataclass(frozen=True, eq=False)
class Changed:
    """Histories that an operator has made of others."""

    histories: Histories
    ends: Tensor
    """int64 `[B]`: the position in the old history that follows the newest interaction of the new one."""


def crop(histories: Histories, begin: Tensor, count: Tensor) -> Histories:
    """Return the `count [B]` interactions from the position `begin [B]` on, moved to the first position.

    The next item is asked for when the user had the interaction that follows them.
    """
    last = histories.items.shape[1] - 1
    steps = _steps(histories)
    source = (begin[:, None] + steps).clamp(max=last)
    kept = steps < count[:, None]
    times, next_times = histories.times, histories.next_times
    if times is not None and next_times is not None:
        end = begin + count
        following = times.gather(1, end.clamp(max=last)[:, None])[:, 0]
        next_times = torch.where(end < histories.lengths, following, next_times)
    return replace(
        histories,
        items=histories.items.gather(1, source) * kept,
        providers=histories.providers.gather(1, source) * kept,
        lengths=count,
        times=None if times is None else times.gather(1, source) * kept,
        next_times=next_times,
    )


def mask(histories: Histories, hidden: Tensor, mask_token: int) -> Histories:
    """Return histories whose items are hidden where `hidden [B, L]` is true."""
    return replace(
        histories,
        items=histories.items.masked_fill(hidden, mask_token),
        providers=histories.providers.masked_fill(hidden, 0),
    )


def reorder(histories: Histories, source: Tensor) -> Histories:
    """Return histories whose position t has the item and the provider of position `source[:, t]`, `[B, L]`."""
    return replace(histories, items=histories.items.gather(1, source), providers=histories.providers.gather(1, source))


def share_of(lengths: Tensor, share: float, longest: int) -> Tensor:
    """Return floor(share n) of each of `lengths`, which are at most `longest`, rounded as in float64."""
    table = np.floor(np.arange(longest + 1) * share).astype(np.int64)
    return torch.from_numpy(table).to(lengths.device)[lengths]


def draw_begins(lengths: Tensor, count: Tensor, rng: np.random.Generator) -> Tensor:
    """Return where `count [B]` positions in a row begin within `lengths [B]`, drawn uniformly."""
    free = lengths - count + 1
    return torch.minimum((_uniform((len(lengths),), rng, lengths.device) * free).long(), free - 1)


def draw_positions(histories: Histories, count: Tensor, rng: np.random.Generator) -> Tensor:
    """Return bool `[B, L]`, true at `count [B]` different positions of each history, drawn uniformly."""
    real = _steps(histories) < histories.lengths[:, None]
    order = _shuffled(real, rng)
    chosen = _steps(histories) < count[:, None]
    return torch.zeros_like(real).scatter_(1, order, chosen.expand_as(real))


def draw_order(histories: Histories, begin: Tensor, count: Tensor, rng: np.random.Generator) -> Tensor:
    """Return a permutation of the positions, `[B, L]`, that shuffles the `count [B]` ones from `begin [B]` on."""
    return order_within(begin, count, _shuffled(_within(histories, begin, count), rng))


def order_within(begin: Tensor, count: Tensor, order: Tensor) -> Tensor:
    """Return the permutation whose positions from `begin [B]` on are the first `count [B]` entries of `order [B, L]`.

    All other positions stay.
    """
    steps = torch.arange(order.shape[1], device=order.device)
    nth = steps - begin[:, None]
    return torch.where((nth >= 0) & (nth < count[:, None]), order.gather(1, nth.clamp(min=0)), steps)


def augment(
    histories: Histories, operator: str, settings: AugmentationConfig, mask_token: int, rng: np.random.Generator
) -> Changed:
    """Return every history changed by `operator`, with draws of `rng`."""
    lengths, longest = histories.lengths, histories.items.shape[1]
    match operator:
        case "crop" | "slide":
            if operator == "crop":
                count = share_of(lengths, settings.eta, longest).clamp(min=1)
            else:
                count = lengths.clamp(max=settings.window)
            begin = draw_begins(lengths, count, rng)
            return Changed(crop(histories, begin, count), begin + count)
        case "mask":
            count = share_of(lengths, settings.gamma, longest) * (lengths > 1)
            return Changed(mask(histories, draw_positions(histories, count, rng), mask_token), lengths)
        case "reorder":
            count = share_of(lengths, settings.beta, longest)
            begin = draw_begins(lengths, count, rng)
            return Changed(reorder(histories, draw_order(histories, begin, count, rng)), lengths)
    raise ValueError(f"there is no operator '{operator}'")


def views(step: TrainingStep, number: int, settings: AugmentationConfig) -> Changed:
    """Return `number` views of the step's B histories: first the B first ones, then the B second ones, and so on.

    Each view of a history is made by another of the operators, drawn at random.

    Raises:
        ModelError: an operator hides items, and the model has no mask token.
    """
    check_operators(settings, step.model)
    histories, rng, operators = step.batch.histories, step.rng, settings.operators
    mask_token = len(step.item_vectors)
    changed = [augment(histories, name, settings, mask_token, rng) for name in operators]
    order = rng.permuted(np.tile(np.arange(len(operators)), (len(histories.items), 1)), axis=1)[:, :number]
    chosen = torch.from_numpy(order.T.copy().reshape(-1)).to(histories.items.device)
    ends = torch.stack([one.ends for one in changed])[chosen, _row(chosen, len(histories.items))]
    return Changed(selected([one.histories for one in changed], chosen), ends)


def selected(given: Sequence[Histories], chosen: Tensor) -> Histories:
    """Return for each entry i of `chosen [number * B]` row i modulo B of the histories `given[chosen[i]]`."""
    row = _row(chosen, len(given[0].items))

    def of(name: str) -> Tensor:
        return torch.stack([getattr(histories, name) for histories in given])[chosen, row]

    return Histories(
        users=of("users"),
        items=of("items"),
        providers=of("providers"),
        lengths=of("lengths"),
        times=None if given[0].times is None else of("times"),
        next_times=None if given[0].next_times is None else of("next_times"),
    )


def check_operators(settings: AugmentationConfig, model: SequentialModel) -> None:
    """Check that `model` reads what the operators make.

    Raises:
        ModelError: an operator hides items, and the model has no mask token.
    """
    if "mask" in settings.operators and not model.reads_mask_token:
        others = ", ".join(f'"{name}"' for name in settings.operators if name != "mask")
        raise ModelError(
            f"an augmentation hides items, and {type(model).__name__} has no mask token; set operators = [{others}]"
        )


def _steps(histories: Histories) -> Tensor:
    return torch.arange(histories.items.shape[1], device=histories.items.device)


def _row(chosen: Tensor, count: int) -> Tensor:
    return torch.arange(len(chosen), device=chosen.device) % count


def _within(histories: Histories, begin: Tensor, count: Tensor) -> Tensor:
    nth = _steps(histories) - begin[:, None]
    return (nth >= 0) & (nth < count[:, None])


def _shuffled(eligible: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the positions of each row of `eligible [B, L]`, in random order, the eligible ones first."""
    keys = _uniform(tuple(eligible.shape), rng, eligible.device).masked_fill_(~eligible, 2.0)
    return keys.argsort(dim=1, stable=True)


def _uniform(shape: tuple[int, ...], rng: np.random.Generator, device: torch.device) -> Tensor:
    """Return numbers from 0 up to, not including, 1; float32, which every device has."""
    return torch.from_numpy(rng.random(shape, dtype=np.float32)).to(device)
