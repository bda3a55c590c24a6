"""The suites that ship with the toolkit, and the lookup of a suite's file."""

import os
from functools import cache
from pathlib import Path


@cache
def shipped_suites() -> dict[str, Path]:
    """Return the files of the shipped suites by name, sorted.

    A wheel has them inside the package, a clone beside it.
    """
    package = Path(__file__).parent.parent
    inside = package / "suites"
    folder = inside if inside.is_dir() else package.parent / "suites"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_suite(given: Path) -> Path:
    """Return the file that `given`, a path or a name, refers to.

    Files take precedence over shipped suites: first `given` itself, then `NAME.toml` in the working folder, then the
    shipped suite of that name. If none of them exists, `given` is returned, so that reading it reports the error.
    """
    name = str(given)
    if os.path.isfile(given) or name != given.name:  # noqa: PTH113 (false, not an error, for a name that is too long)
        return given
    beside = f"{name}.toml"
    return Path(beside) if os.path.isfile(beside) else shipped_suites().get(name, given)  # noqa: PTH113
