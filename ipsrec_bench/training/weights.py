"""Files of weights, as safetensors: they hold tensors and text and run no code when read."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ipsrec_bench.data.staging import is_full
from ipsrec_bench.errors import ModelError, StoreError
from ipsrec_bench.models.api import Model, Sizes
from ipsrec_bench.models.registry import build_model, model_entry

REMEDY = "run the cell again with this version (run --force)"
FORMAT = "1"
"""Version of the metadata in a file of weights."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str], *, durably: bool) -> None:
    """Write `tensors` and the metadata `about` to `path` atomically.

    Args:
        path: a file in a folder that nothing else writes to meanwhile.
        tensors: by name, on any device; some may share memory.
        about: metadata.
        durably: wait until the content is on the disk, so that a power failure leaves the old file or the new one.

    Raises:
        OSError: the file cannot be written.
        SafetensorError: the same.
    """
    unfinished = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(_apart(tensors), unfinished, metadata=dict(about))
    if durably:
        file = os.open(unfinished, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    unfinished.replace(path)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `tensors` on the CPU, copying only those that share memory, such as tied weights and an RNN's.

    safetensors accepts neither tensors that share memory nor ones that are not contiguous.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != plain.nbytes:
            plain = plain.clone()
        seen.add(storage.data_ptr())
        found[name] = plain
    return found


def save_weights(model: Model, path: Path, about: Mapping[str, str] | None = None) -> None:
    """Write the model's weights to `path` (safetensors) atomically.

    Args:
        model: the model.
        path: the file.
        about: metadata for `load_model`, from `describe`; without it, only `load_weights` can read the file.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        write_tensors(path, model.state_dict(), about or {}, durably=False)
    except (OSError, SafetensorError) as error:
        reason = "the disk is full" if is_full(error) else str(error).splitlines()[0]
        raise StoreError(f"{path}: the best weights cannot be written: {reason}") from error


def load_weights(model: Model, path: Path) -> None:
    """Load into `model` the weights that `save_weights` wrote to `path`."""
    model.load_state_dict(load_file(path))


def about_weights(path: Path) -> dict[str, str]:
    """Return the metadata of a file of weights, which `describe` made; empty if it has none.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path}: the weights cannot be read ({error}); {REMEDY}") from error


def describe(key: str, fingerprint: str, settings: Mapping[str, object], sizes: Sizes) -> dict[str, str]:
    """Return the metadata about a model for its file of weights.

    Args:
        key: key of the cell.
        fingerprint: fingerprint of the dataset.
        settings: settings of the cell, as plain JSON values: `type`, `config`, `code` for your own model, and others.
        sizes: sizes of the dataset and the protocol.
    """
    return {
        "format": FORMAT,
        "key": key,
        "fingerprint": fingerprint,
        "type": str(settings["type"]),
        "settings": json.dumps(settings, sort_keys=True),
        "sizes": json.dumps(vars(sizes)),
    }


def load_model(path: Path) -> Model:
    """Build the model of a file of best weights on the CPU, with these weights, in evaluation mode.

    Raises:
        StoreError: the file cannot be read, or is of another version.
        ModelError: the model's class cannot be found, or its code has changed since.
    """
    about = about_weights(path)
    if about.get("format") != FORMAT:
        raise StoreError(f"{path}: the file does not state which model its weights belong to; {REMEDY}")
    settings, sizes = json.loads(about["settings"]), Sizes(**json.loads(about["sizes"]))
    entry = model_entry(about["type"])
    if settings.get("code", "") != entry.code:
        raise ModelError(f"{path}: the code of '{about['type']}' has changed since it was trained; {REMEDY}")
    with torch.random.fork_rng(devices=[]):  # weights are drawn, only to be replaced
        model = build_model(about["type"], entry.config.model_validate(settings["config"]), sizes)
    load_weights(model, path)
    return model.eval()
