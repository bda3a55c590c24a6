# ruff: noqa: INP001 (MkDocs loads this file by its path)
"""Hooks of MkDocs: they generate the reference pages and warn of resources from other hosts.

MkDocs loads this file with its folder on the import path, so that `reference` is found there.
"""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from reference import pages

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_log = logging.getLogger("mkdocs.hooks.reference")  # below "mkdocs", so that a warning fails a strict build
_GALLERY = "gallery/site"
_LOADED = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\"' >]+"
    r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|icon|preload|preconnect))[^>]*\bhref=[\"']?(?:https?:)?//[^\"' >]+"
)
"""HTML that makes a browser load a file from another host."""


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """Refuse a strict build with `--quiet`, which hides the warnings that `--strict` counts.

    Raises:
        ConfigurationError: nothing would be checked.
    """
    from mkdocs.exceptions import ConfigurationError

    if config.strict and not _log.isEnabledFor(logging.WARNING):
        raise ConfigurationError("--quiet hides the warnings that --strict counts: leave --quiet out")
    return config


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the generated pages, and the chart library of the gallery, which is not part of this project."""
    from mkdocs.structure.files import File

    from ipsrec_bench.report.renderer import javascript
    from ipsrec_bench.report.site import LIBRARY

    generated = pages(Path(config.config_file_path).parent)
    if files.get_file_from_path(f"{_GALLERY}/{LIBRARY}") is None:  # docs/gallery.py leaves one on disk
        generated[f"{_GALLERY}/{LIBRARY}"] = javascript()
    for path, content in generated.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_post_page(output: str, page: "Page", config: "MkDocsConfig") -> str:  # noqa: ARG001 (MkDocs calls it so)
    """Warn of everything on a page that a browser would load from another host."""
    for found in _LOADED.findall(output):
        _log.warning("%s loads a file from another host: %s", page.file.src_path, found)
    return output
