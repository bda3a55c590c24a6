"""Classes that users write, named in a suite as `module:Class`."""

import hashlib
import inspect
from collections.abc import Hashable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from ipsrec_bench.errors import ModelError, did_you_mean, listed


def imported(path: str) -> Any:  # noqa: ANN401 (any attribute)
    """Import and return the attribute at `module:attribute`."""
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def own_class(name: str, path: str, bases: tuple[type, ...]) -> Any:  # noqa: ANN401 (a class of any kind)
    """Import and return the class at `path` (`module:Class`), which a suite calls `name`.

    Raises:
        ModelError: it cannot be imported, is not derived from one of `bases`, or lacks a method of its base class.
    """
    module, _, attribute = path.partition(":")
    try:
        found = getattr(import_module(module), attribute, None)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            raise ModelError(
                f"'{name}': there is no module '{module}'; put its file beside the suite, or install its package"
            ) from None
        raise ModelError(f"'{name}' cannot be imported: {type(error).__name__}: {error}") from error
    if found is None:
        known = [key for key, value in vars(import_module(module)).items() if isinstance(value, type)]
        raise ModelError(f"'{name}': the module '{module}' has no class '{attribute}'{did_you_mean(attribute, known)}")
    if not (isinstance(found, type) and issubclass(found, bases)):
        raise ModelError(f"'{name}' is not a class derived from {' or '.join(base.__name__ for base in bases)}")
    if lacking := getattr(found, "__abstractmethods__", None):
        raise ModelError(f"'{name}' lacks {listed(sorted(lacking))}, which its base class requires")
    return found


@cache
def hash_of_code(own: Hashable, version: str) -> str:
    """Return a hash of the version of the class's package and the files of its classes, excluding the toolkit's.

    The files are read once, right after the class is imported: a later edit does not change the class.
    """
    digest = hashlib.sha256(version.encode())
    assert isinstance(own, type)
    for part in own.__mro__:
        if part.__module__.partition(".")[0] not in {"ipsrec_bench", "torch", "abc", "builtins", "typing"}:
            digest.update(Path(inspect.getfile(part)).read_bytes())
    return digest.hexdigest()
