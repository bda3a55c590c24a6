"""Read a suite file, apply overrides, and say where a mistake stands."""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ipsrec_bench import settings
from ipsrec_bench.errors import SuiteError
from ipsrec_bench.suite.schema import Suite, check_name


@dataclass(frozen=True)
class SuiteFile:
    """A suite as it was written, and as it is understood."""

    name: str
    """What the suite calls itself, else the file's stem; names it in the store and in its folder below `reports/`."""
    path: Path
    text: str
    overrides: tuple[str, ...]
    suite: Suite

    def error(self, path: settings.Path, message: str) -> SuiteError:
        """Return an error that points at the line, or the override, that set `path`."""
        return SuiteError(_located(self.path, self.text, self.overrides, path, message))


def is_suite_path(text: str) -> bool:
    """Whether a person who writes `text` means a suite's file, not its name."""
    return text.lower().endswith(".toml")


def suite_name(text: str) -> str:
    """Return the name of a suite that is given by its name or by its file, which need not exist any more.

    Raises:
        SuiteError: the file cannot be read, or is not TOML.
    """
    path = Path(text)
    if not is_suite_path(text):
        return text
    named = _toml(path, _read(path)).get("name") if path.is_file() else None
    return named if isinstance(named, str) else path.stem


def load_suite(path: Path, overrides: Iterable[str] = ()) -> SuiteFile:
    """Read and check the suite at `path`; `overrides` are `key.path=value` in TOML's own notation.

    Names of datasets and models and the models' parameters are checked by `suite.cells.expand`.

    Raises:
        SuiteError: the file is missing, is not TOML, or does not follow the schema.
    """
    file = parse_suite(path, _read(path), overrides)
    if file.suite.name is None:
        try:
            check_name(path.stem)
        except ValueError as error:
            raise SuiteError(f"{path}: the file names the suite: {error}; give it the key `name`") from None
    return file


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SuiteError(f"{path}: there is no such suite file; shipped ones are in suites/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: cannot be read as UTF-8 text: {error}") from None


def _toml(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"{path}: not valid TOML: {error}") from None


def adhoc_suite(datasets: Iterable[str], models: Iterable[str], overrides: Iterable[str] = ()) -> SuiteFile:
    """Return a suite of catalogued datasets and models with nothing but defaults, as commands need it."""
    text = "title = 'From the command line'\n" + "".join(
        f"[{kind}.{json.dumps(name)}]\n"
        for kind, names in (("datasets", datasets), ("models", models))
        for name in names
    )
    return parse_suite(Path("(command line)"), text, overrides)


def parse_suite(path: Path, text: str, overrides: Iterable[str] = ()) -> SuiteFile:
    """Check the suite written in `text`; `path` is what errors call it."""
    overrides = tuple(overrides)
    raw = _toml(path, text)
    for override in overrides:
        _merge(raw, _parse_override(override), override)
    try:
        suite = Suite.model_validate(raw)
    except ValidationError as error:
        raise SuiteError(
            "\n".join(_located(path, text, overrides, *mistake) for mistake in settings.explain(error))
        ) from None
    return SuiteFile(suite.name or path.stem, path, text, overrides, suite)


def _parse_override(override: str) -> dict[str, Any]:
    """Parse `a.b=value`; a value that is not TOML is taken as a string, so that quotes can be left out."""
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise SuiteError(f"--set {override}: expected KEY=VALUE, for example training.epochs=5")
    try:
        return tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        pass
    try:
        parsed = tomllib.loads(f"{key} = ''")
    except tomllib.TOMLDecodeError:
        raise SuiteError(f"--set {override}: '{key}' is not a key; quote names with spaces or dots") from None
    *parents, last = _only_path(parsed)
    reduce(dict.__getitem__, parents, parsed)[last] = value.strip()
    return parsed


def _only_path(table: Mapping[str, Any]) -> list[str]:
    for key, value in table.items():
        return [key, *_only_path(value)] if isinstance(value, Mapping) else [key]
    return []


def _merge(target: dict[str, Any], source: Mapping[str, Any], override: str) -> None:
    for key, value in source.items():
        if isinstance(value, Mapping):
            inner = target.setdefault(key, {})
            if isinstance(inner, list):  # `models = ["pop"]` is short for tables without settings
                inner = target[key] = {str(name): {} for name in inner}
            if not isinstance(inner, dict):
                raise SuiteError(f"--set {override}: '{key}' is a value, not a table")
            _merge(inner, value, override)
        else:
            target[key] = value


def _located(path: Path, text: str, overrides: Sequence[str], where: settings.Path, message: str) -> str:
    key = ".".join(_quoted(part) for part in where) or "suite"
    for override in reversed(overrides):  # the last one counts
        written = _only_path(_parse_override(override))
        if list(where[: len(written)]) == written:
            return f"--set {override}: {key}: {message}"
    line = find_line(text, where)
    return f"{path}:{line}: {key}: {message}" if line else f"{path}: {key}: {message}"


def _quoted(part: str | int) -> str:
    text = str(part)
    return text if text.replace("-", "").replace("_", "").isalnum() else f'"{text}"'


def find_line(text: str, where: settings.Path) -> int | None:
    """Return the 1-based line at which the key path `where`, or its nearest written parent, begins.

    TOML readers keep no positions, but a document cut after any complete statement is a document again: the
    first cut that holds the key ends on its statement, which began after the last cut before it.
    """
    lines = text.splitlines()
    for depth in range(len(where), 0, -1):
        begin = 0
        for end in range(1, len(lines) + 1):
            try:
                document = tomllib.loads("\n".join(lines[:end]))
            except tomllib.TOMLDecodeError:
                continue  # inside a value of several lines
            if _holds(document, where[:depth]):
                return begin + 1
            begin = end
    return None


def _holds(document: Any, where: settings.Path) -> bool:  # noqa: ANN401 (whatever TOML holds)
    for part in where:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True
