"""Read a suite file, apply overrides, and locate mistakes."""

import codecs
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from ipsrec_bench import settings
from ipsrec_bench.errors import SuiteError, did_you_mean, listed
from ipsrec_bench.suite.schema import Suite, check_suite_name
from ipsrec_bench.suite.shipped import shipped_suites

S = TypeVar("S", bound=settings.Settings)
MOST_MISTAKES = 20
"""Maximum number of mistakes that are shown at once; locating one takes a while in a long file."""


@dataclass(frozen=True)
class SuiteFile:
    """A suite as written, and as parsed."""

    name: str
    """The suite's own `name`, else the file's stem; used in the store and for its folder below `reports/`."""
    path: Path
    text: str
    overrides: tuple[str, ...]
    suite: Suite

    @property
    def modules(self) -> Path:
        """The folder of the modules of the suite's own models."""
        return (self.path.parent / self.suite.modules).resolve()

    def error(self, path: settings.Path, message: str) -> SuiteError:
        """Return an error that points at the line, or the override, that set `path`."""
        return SuiteError(_located(self.path, self.text, self.overrides, path, message))


def is_suite_path(text: str) -> bool:
    """Return whether `text` refers to a suite's file, not to its name."""
    return text.lower().endswith(".toml")


def suite_name(text: str) -> str:
    """Return the name of a suite that is given by its name or by its file, which may no longer exist.

    Raises:
        SuiteError: the file cannot be read, or is not TOML.
    """
    path = Path(text)
    if not is_suite_path(text):
        return text
    named = _toml(path, _read(path)).get("name") if path.is_file() else None
    return named if isinstance(named, str) else path.stem


def load_suite(path: Path, overrides: Iterable[str] = ()) -> SuiteFile:
    """Read and check the suite at `path`; `overrides` are `key.path=value` in TOML notation.

    Names of datasets and models and the models' parameters are checked by `suite.cells.expand`.

    Raises:
        SuiteError: the file is missing, is not TOML, or does not follow the schema.
    """
    file = parse_suite(path, _read(path), overrides)
    if file.suite.name is None:
        try:
            check_suite_name(path.stem)
        except ValueError as error:
            raise SuiteError(f"{path}: the file names the suite: {error}; give it the key `name`") from None
    return file


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        shipped = shipped_suites()
        raise SuiteError(
            f"{path}: there is no such suite file; shipped suites are {listed(shipped)}"
            f"{did_you_mean(path.stem, shipped)}"
        ) from None
    except OSError as error:
        raise SuiteError(f"{path}: the suite cannot be read: {error.strerror or error}") from None
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SuiteError(f"{path}: the file is written in UTF-16; save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SuiteError(
            f"{path}:{line}: the file is not UTF-8 text (byte 0x{raw[error.start]:02x}); save it as UTF-8"
        ) from None
    if "\0" in text:
        raise SuiteError(f"{path}: the file has zero bytes: it is not text, or is written in UTF-16; save it as UTF-8")
    return text.replace("\r\n", "\n")


def _toml(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also raised for integers with thousands of digits
        raise SuiteError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise SuiteError(f"{path}: not a suite: lists or tables are nested too deeply") from None


def adhoc_suite(datasets: Iterable[str], models: Iterable[str], overrides: Iterable[str] = ()) -> SuiteFile:
    """Return a suite of known datasets and models with default settings, for commands without a suite file."""
    text = "title = 'From the command line'\n" + "".join(
        f"[{kind}.{json.dumps(name, ensure_ascii=False)}]\n"
        for kind, names in (("datasets", datasets), ("models", models))
        for name in names
    )
    return parse_suite(Path("(command line)"), text, overrides)


def parse_suite(path: Path, text: str, overrides: Iterable[str] = ()) -> SuiteFile:
    """Parse and check the suite in `text`; errors name it `path`."""
    overrides = tuple(overrides)
    raw = _toml(path, text)
    for override in overrides:
        _merge(raw, _parse_override(override), override)
    try:
        suite = Suite.model_validate(raw)
    except ValidationError as error:
        mistakes = list(settings.explain(error, raw))
        shown = [_located(path, text, overrides, *mistake) for mistake in mistakes[:MOST_MISTAKES]]
        more = len(mistakes) - len(shown)
        raise SuiteError("\n".join([*shown, *([f"and {more} more mistakes"] if more else [])])) from None
    return SuiteFile(suite.name or path.stem, path, text, overrides, suite)


def stored_suite(text: str) -> tuple[Suite, tuple[str, ...]]:
    """Read a suite as another version of the toolkit stored it, in JSON.

    Returns:
        The suite, and the settings that this version does not accept, like `training.warm_up = 3`. The suite has the
        defaults in their place.

    Raises:
        SuiteError: what is left is not a suite.
    """
    raw = json.loads(text)
    if raw.get("statistics", {}).get("test") == "crossed":  # the name of older versions
        raw["statistics"]["test"] = "method"
    dropped: list[str] = []
    while True:
        try:
            return Suite.model_validate_json(json.dumps(raw)), tuple(dropped)
        except ValidationError as error:
            where, message = next(settings.explain(error, raw))
            found = _drop(raw, where)
            if found is None:
                raise SuiteError(f"{'.'.join(map(str, where)) or 'suite'}: {message}") from None
            dropped.append(found)


def _drop(raw: Any, where: settings.Path) -> str | None:  # noqa: ANN401 (whatever JSON holds)
    """Remove the innermost value at or above `where` in `raw`; return it with its key, None if there is none."""
    holders, keys = [raw], list[str | int]()
    for part in where:
        holder = holders[-1]
        if not (
            part in holder if isinstance(holder, dict) else isinstance(holder, list) and part in range(len(holder))
        ):
            break
        holders.append(holder[part])
        keys.append(part)
    if not keys:
        return None
    del holders[-2][keys[-1]]
    return f"{'.'.join(map(_quoted, keys))} = {json.dumps(holders[-1], ensure_ascii=False)}"


def _parse_override(override: str) -> dict[str, Any]:
    """Parse `a.b=value`; a value that is not TOML is taken as a string, so that quotes can be left out."""
    ends = [place for place, sign in enumerate(override) if sign == "="]
    if not ends or not override[: ends[0]].strip():
        raise SuiteError(f"--set {override}: expected KEY=VALUE, for example training.epochs=5")
    for end in ends:  # a quoted key may contain one, too
        key, value = override[:end], override[end + 1 :]
        try:
            parsed = tomllib.loads(f"{key} = ''")
        except ValueError:
            continue
        if "\n" in key.strip():
            break
        try:
            return tomllib.loads(f"{key} = {value}")
        except (ValueError, RecursionError):
            (path,) = _paths(parsed)
            *parents, last = path
            reduce(dict.__getitem__, parents, parsed)[last] = value.strip()
            return parsed
    raise SuiteError(f"--set {override}: '{override[: ends[0]]}' is not a key; quote names with spaces or dots")


def _paths(table: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the path of every value that is written in `table`."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from ([key, *path] for path in _paths(value))
        else:
            yield [key]


def _merge(target: dict[str, Any], source: Mapping[str, Any], override: str, *, top: bool = True) -> None:
    for key, value in source.items():
        if isinstance(value, Mapping):
            inner = target.setdefault(key, {})
            if isinstance(inner, list) and top and key in {"datasets", "models"}:  # a list of names
                inner = target[key] = {str(name): {} for name in inner}
            if not isinstance(inner, dict):
                raise SuiteError(f"--set {override}: '{key}' is a value, not a table")
            _merge(inner, value, override, top=False)
        else:
            target[key] = value


def _located(path: Path, text: str, overrides: Sequence[str], where: settings.Path, message: str) -> str:
    key = ".".join(_quoted(part) for part in where) or "suite"
    for override in reversed(overrides):  # the last one counts
        if any(_concerns(written, where, message, text) for written in _paths(_parse_override(override))):
            return f"--set {override}: {key}: {message}"
    line = find_line(text, where)
    return f"{path}:{line}: {key}: {message}" if line else f"{path}: {key}: {message}"


def _concerns(written: Sequence[str], where: settings.Path, message: str, text: str) -> bool:
    """Return whether the override of the key `written` caused the mistake at `where`.

    It did if it wrote there, or within a table that is wrong as a whole: one that the file does not have, or one whose
    mistake's message names what was written.
    """
    if list(where[: len(written)]) == written:
        return True
    if list(where) != written[: len(where)]:
        return False
    named = (re.search(rf"(?<!\w){re.escape(part)}(?!\w)", message) for part in written[len(where) :])
    return any(named) or not _holds(tomllib.loads(text), where)


def _quoted(part: str | int) -> str:
    text = str(part)
    plain = text.replace("-", "").replace("_", "").isalnum()
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def find_line(text: str, where: settings.Path) -> int | None:
    """Return the 1-based line at which the key path `where`, or its nearest written parent, begins.

    TOML readers keep no positions, but a document cut after any complete statement is a document again: the
    first cut that holds the key ends on its statement, which began after the last cut before it.
    """
    lines = text.split("\n")
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


def checked(file: SuiteFile, schema: type[S], raw: Mapping[str, Any], where: settings.Path) -> S:
    """Return the table `raw`, which stands at `where` in the suite, as `schema`.

    Raises:
        SuiteError: one of its settings is wrong.
    """
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        path, message = next(settings.explain(error, raw))
        raise file.error((*where, *path), message) from None
