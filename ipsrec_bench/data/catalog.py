"""The catalogue of datasets that can be named without being described."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ipsrec_bench.data.download import unpack
from ipsrec_bench.data.stand_ins import WRITERS, write_stand_in
from ipsrec_bench.errors import DataError, did_you_mean, listed
from ipsrec_bench.settings import Settings, explain
from ipsrec_bench.suite.load import find_line

OWN = "catalog.toml"
"""Below the data directory: entries of one's own."""
_BRACES = re.compile(r"\{(\w+)\}")


class Download(Settings):
    """A file that can be had without a login."""

    url: str
    file: str
    """Where it goes below `raw/`."""
    sha256: str = ""
    """Empty where none is published."""


class Published(Settings):
    """What somebody counted; what they did not count is None."""

    users: int | None = None
    items: int | None = None
    providers: int | None = None
    actions: tuple[int, ...]
    """More than one where sources differ."""
    source: str


class Entry(Settings):
    """One dataset of the catalogue."""

    title: str
    citation: str = ""
    homepage: str = ""
    terms: str = ""
    obtain: str = ""
    """What to do to get the files, as the end of a sentence."""
    archive: str = ""
    """An archive below `raw/` that is unpacked where the files are missing."""
    members: tuple[str, ...] = ()
    """What is taken out of it."""
    stand_in: str = ""
    """Whose stand-in serves, where it is not the dataset's own."""
    max_length: int | None = Field(None, ge=1)
    forms: tuple[dict[str, Any], ...] = Field(min_length=1)
    """Settings of the source for each way in which the raw files come."""
    downloads: tuple[Download, ...] = ()
    published: Published | None = None

    @property
    def embedded(self) -> bool:
        """Whether it takes no raw files."""
        return "path" not in self.forms[0]

    def files(self) -> list[list[str]]:
        """Return the raw files of every form, as they are written."""
        return [
            [str(table["path"]) for table in (form, form.get("items", {})) if "path" in table] for form in self.forms
        ]


@dataclass(frozen=True)
class Catalogue(Mapping[str, Mapping[str, Any]]):
    """Settings of catalogued sources by name, as `suite.cells.expand` wants them."""

    entries: Mapping[str, Entry]
    """A name with a part in braces stands for all names in which something capital or a number stands there."""
    data_dir: Path
    stand_in_scale: float | None = None
    """Read stand-ins of this scale where there are such."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        """Return the settings of the form that is there, or of the first.

        Raises:
            KeyError: the catalogue lacks the name.
        """
        entry = self.entry(name)
        if entry is None:
            raise KeyError(name)
        form: Mapping[str, Any] = entry.forms[0]
        folder = ""
        stand_in = self.stand_in(name)
        if stand_in is not None:
            folder = f"../{stand_in_folder(*stand_in)}/"
        elif found := self._present(name, entry):
            form, folder = found
        settings: dict[str, Any] = _below(form, folder)
        if entry.max_length:
            settings["max_length"] = entry.max_length
        if stand_in is not None:
            settings["scale"] = 1.0  # it is small already
            settings["origin"] = "a run makes it, and ipsrec-bench data synth --like {} --scale {:g}".format(*stand_in)
        elif not entry.embedded:
            settings["origin"] = f"{entry.obtain}; {entry.homepage}" + (
                "; or add --stand-in --scale 0.01 for made-up data of its shape" if self._served(name) else ""
            )
        return settings

    def entry(self, name: str) -> Entry | None:
        """Return the entry for `name`, a part in braces filled in."""
        if name in self.entries:
            return self.entries[name] if "{" not in name else None
        matching = [
            (len(key), match, entry) for key, entry in self.entries.items() if (match := _pattern(key).fullmatch(name))
        ]
        if not matching:
            return None
        _, match, entry = max(matching, key=lambda found: found[0])
        return Entry.model_validate(_filled(entry.model_dump(), match.groupdict()))

    def stand_in(self, name: str) -> tuple[str, float] | None:
        """Return whose stand-in is to be read for `name`, and its scale; None if none is."""
        served = self._served(name)
        return (served, self.stand_in_scale) if served and self.stand_in_scale is not None else None

    def provide(self, name: str) -> None:
        """Write the stand-in that is to be read for `name`, or unpack its archive, where its files are not there yet.

        Raises:
            DataError: that fails.
        """
        entry, raw = self.entry(name), self.data_dir / "raw"
        if entry is None:
            return
        stand_in = self.stand_in(name)
        if stand_in is not None:
            folder = self.data_dir / stand_in_folder(*stand_in)
            if not folder.exists():
                write_stand_in(*stand_in, folder)
        elif entry.archive and (raw / entry.archive).is_file() and not self._present(name, entry):
            unpack(raw / entry.archive, raw / name, entry.members)

    def state(self, name: str) -> str:
        """Return which raw files of `name` are there, or what to do to get them."""
        entry = self.entry(name)
        if entry is None:
            return "one for each " + ", ".join(_BRACES.findall(name))
        if entry.embedded:
            return "embedded"
        found = self._present(name, entry)
        if found:
            form, folder = found
            return f"{folder}{form['path']} is there"
        if entry.archive and (self.data_dir / "raw" / entry.archive).is_file():
            return f"{entry.archive} is there"
        return f"missing: {entry.obtain}" + (" (or use its stand-in)" if self._served(name) else "")

    def _served(self, name: str) -> str | None:
        """Return whose stand-in serves for `name`; None where there is none."""
        entry = self.entry(name)
        served = (entry.stand_in or name) if entry else ""
        return served if served in WRITERS else None

    def _present(self, name: str, entry: Entry) -> tuple[Mapping[str, Any], str] | None:
        """Return the first form whose files are all there, and the folder below `raw/` that they lie in."""
        raw = self.data_dir / "raw"
        for form, files in zip(entry.forms, entry.files(), strict=True):
            for folder in ("", f"{name}/"):
                if files and all(
                    (raw / f"{folder}{file}").is_file() or (raw / f"{folder}{file}.gz").is_file() for file in files
                ):
                    return form, folder
        return None


def catalogue(data_dir: Path, stand_in_scale: float | None = None) -> Catalogue:
    """Return the shipped catalogue with the entries of `data_dir`'s own `catalog.toml`, which go first.

    Raises:
        DataError: that file is wrong.
    """
    shipped = resources.files("ipsrec_bench.data").joinpath("catalog.toml").read_text(encoding="utf-8")
    entries = _read(shipped, "catalog.toml")
    own = data_dir / OWN
    if own.is_file():
        entries |= _read(own.read_text(encoding="utf-8"), str(own))
    return Catalogue(entries, data_dir, stand_in_scale)


def _read(text: str, place: str) -> dict[str, Entry]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{place}: not valid TOML: {error}") from None
    entries = {}
    for name, table in tables.items():
        try:
            entries[name] = Entry.model_validate(table)
        except ValidationError as error:
            path, message = next(explain(error))
            where = (name, *path)
            line = find_line(text, where)
            raise DataError(f"{place}:{line}: {'.'.join(map(str, where))}: {message}") from None
    return entries


def catalogued(name: str, known: Catalogue) -> Entry:
    """Return the entry for `name`.

    Raises:
        DataError: the catalogue lacks it.
    """
    entry = known.entry(name)
    if entry is None:
        raise DataError(f"'{name}' is not in the catalogue{did_you_mean(name, known) or f'; known: {listed(known)}'}")
    return entry


def stand_in_folder(name: str, scale: float) -> str:
    """Return where the raw files of a stand-in lie, below the data directory."""
    return f"stand-ins/{name}-{scale:g}"


def _pattern(key: str) -> re.Pattern[str]:
    """Return what names a key with braces stands for; without braces, nothing but itself."""
    parts = _BRACES.split(key)
    return re.compile(
        "".join(f"(?P<{part}>[A-Z0-9][A-Za-z0-9_-]*)" if i % 2 else re.escape(part) for i, part in enumerate(parts))
    )


def _filled(value: Any, parts: Mapping[str, str]) -> Any:  # noqa: ANN401 (whatever TOML holds)
    if isinstance(value, str):
        return _BRACES.sub(lambda match: parts.get(match[1], match[0]), value)
    if isinstance(value, Mapping):
        return {key: _filled(inner, parts) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(inner, parts) for inner in value]
    return value


def _below(form: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return `form` with its paths in `folder`."""
    moved = dict(form)
    if folder:
        moved["path"] = folder + form["path"]
        if "items" in form:
            moved["items"] = {**form["items"], "path": folder + form["items"]["path"]}
    return moved
