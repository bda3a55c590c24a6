"""The catalogue of datasets that can be named without being described."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class CatalogueEntry:
    """One catalogued dataset: a line about it, and the settings of its source."""

    title: str
    settings: Mapping[str, Any]


@cache
def catalogue() -> Mapping[str, CatalogueEntry]:
    """Return the entries of `catalog.toml` by name."""
    text = resources.files("ipsrec_bench.data").joinpath("catalog.toml").read_text(encoding="utf-8")
    return {name: CatalogueEntry(entry.pop("title"), entry) for name, entry in tomllib.loads(text).items()}


def catalogue_settings() -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of every catalogued source by name, as `suite.cells.expand` wants them."""
    return {name: entry.settings for name, entry in catalogue().items()}
