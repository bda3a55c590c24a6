"""Known datasets: those that a suite can name without describing them. The shipped ones are in `datasets.toml`."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, field_validator

from ipsrec_bench.data.download import unpack
from ipsrec_bench.data.stand_ins import WRITERS, write_stand_in
from ipsrec_bench.errors import DataError, did_you_mean, listed
from ipsrec_bench.settings import Path as KeyPath
from ipsrec_bench.settings import Settings, explain
from ipsrec_bench.suite.conditions import SOURCES
from ipsrec_bench.suite.load import find_line
from ipsrec_bench.suite.schema import Filter

OWN = "datasets.toml"
"""File of the user's own entries, in the data directory."""
FORMER_OWN = "catalog.toml"
"""Name of that file in older versions."""
_BRACES = re.compile(r"\{(\w+)\}")


def _inside(place: str) -> str:
    """Return `place` if it lies below the folder that it is relative to.

    Raises:
        ValueError: it does not.
    """
    parts = PurePosixPath(place).parts
    if not parts or place.startswith(("/", "~")) or ".." in parts or "\\" in place or "\0" in place:
        raise ValueError("expected a path below data/raw, which neither begins with / nor contains ..")
    return place


def _alone(name: str) -> str:
    """Return `name` if it is the name of a file or folder, without parent folders.

    Raises:
        ValueError: it is not.
    """
    if _inside(name) != PurePosixPath(name).name:
        raise ValueError("expected a name without folders")
    return name


def _reachable(path: str) -> str:
    """Return the path of a raw file, absolute or below data/raw.

    Raises:
        ValueError: it is relative and leaves data/raw.
    """
    return path if path.startswith(("/", "${")) and ".." not in PurePosixPath(path).parts else _inside(path)


Inside = Annotated[str, AfterValidator(_inside)]
Alone = Annotated[str, AfterValidator(_alone)]


class Download(Settings):
    """A file that can be downloaded without a login."""

    url: str
    file: Inside
    """Its path below `raw/`."""
    sha256: str = ""
    """Empty if none is published."""


class Published(Settings):
    """Published counts of a dataset; None for a count that is not published."""

    users: int | None = None
    items: int | None = None
    providers: int | None = None
    actions: tuple[int, ...]
    """More than one if sources differ."""
    source: str


class Entry(Settings):
    """One known dataset, or several whose names differ in the part in braces."""

    title: str
    citation: str = ""
    homepage: str = ""
    terms: str = ""
    obtain: str = ""
    """How to get the files, as the end of a sentence."""
    archive: Annotated[str, AfterValidator(lambda place: place and _inside(place))] = ""
    """An archive below `raw/` that is unpacked if the files are missing."""
    members: tuple[Alone, ...] = ()
    """Names of the files that are extracted from it."""
    unpacked_bytes: int = Field(10**10, ge=1, le=10**15)
    """Upper bound on the total size of the members; a larger archive is refused."""
    example: str = ""
    """A name with the braces filled in."""
    files_of: Annotated[str, AfterValidator(lambda name: name and _alone(name))] = ""
    """The dataset whose raw files and stand-in it reads; empty if it has its own."""
    max_length: int | None = Field(None, ge=1)
    """Default, if the suite does not set one."""
    filter: Filter | None = None
    """Likewise."""
    forms: tuple[dict[str, Any], ...] = Field(min_length=1)
    """Settings of the source, one table for each form in which the raw files are distributed."""
    downloads: tuple[Download, ...] = ()
    published: Published | None = None

    @field_validator("forms")
    @classmethod
    def _below_raw(cls, forms: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for form in forms:
            for table in (form, form.get("items", {})):
                if isinstance(table, Mapping) and isinstance(table.get("path"), str):
                    _reachable(table["path"])
        return forms

    @property
    def embedded(self) -> bool:
        """Whether it needs no raw files."""
        return "path" not in self.forms[0]

    def files(self) -> list[list[str]]:
        """Return the raw files of every form, as they are written."""
        return [
            [
                str(table["path"])
                for table in (form, form.get("items"))  # a number in a synthetic source
                if isinstance(table, Mapping) and "path" in table
            ]
            for form in self.forms
        ]


@dataclass(frozen=True)
class KnownDatasets(Mapping[str, Mapping[str, Any]]):
    """Settings of known datasets by name, as `suite.cells.expand` expects them."""

    entries: Mapping[str, Entry]
    """A part of a name in braces matches any word that begins with a capital letter or a digit."""
    data_dir: Path
    stand_in_scale: float | None = None
    """Scale of the stand-ins that are read instead of raw files, where they exist; None for no stand-ins."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        """Return the settings of the first form whose files exist, or else of the first form.

        Raises:
            KeyError: no known dataset has this name.
        """
        entry = self.entry(name)
        if entry is None:
            raise KeyError(name)
        stand_in = self.stand_in(name)
        if stand_in is not None:
            folder = f"../{stand_in_folder(*stand_in)}/"
            settings = _moved(entry.forms[0], lambda file: folder + file)
        else:
            form = self._present(name, entry) or entry.forms[0]
            settings = _moved(form, lambda file: self._place(name, entry, file))
        if entry.max_length:
            settings["max_length"] = entry.max_length
        if entry.filter:
            settings["filter"] = entry.filter
        if stand_in is not None:
            settings["scale"] = 1.0  # it is small already
            settings["origin"] = "a run makes it, or ipsrec-bench data synth --like {} --scale {:g}".format(*stand_in)
        elif not entry.embedded:
            settings["origin"] = f"{entry.obtain}; {entry.homepage}" + (
                "; or add --stand-in --scale 0.01 for made-up data of its shape" if self._served(name) else ""
            )
        return settings

    def entry(self, name: str) -> Entry | None:
        """Return the entry for `name`, with braces filled in; None if there is none."""
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
        """Return the dataset whose stand-in is read for `name`, and its scale; None if no stand-in is read."""
        served = self._served(name)
        return (served, self.stand_in_scale) if served and self.stand_in_scale is not None else None

    def provide(self, name: str) -> None:
        """Write the stand-in that is read for `name`, or unpack the archive of its files, unless they exist already.

        Raises:
            DataError: the files cannot be written, or the archive cannot be unpacked.
        """
        entry = self.entry(name)
        if entry is None:
            return
        stand_in = self.stand_in(name)
        if stand_in is not None:
            folder = self.data_dir / stand_in_folder(*stand_in)
            if not folder.exists():
                write_stand_in(*stand_in, folder)
        elif entry.archive and not self._present(name, entry):
            raw, archive = self.data_dir / "raw", self._place(name, entry, entry.archive)
            if self._is_there(archive):
                unpack(raw / archive, raw / (entry.files_of or name), entry.members, entry.unpacked_bytes)

    def state(self, name: str) -> str:
        """Return which raw files of `name` are present, or how to get them."""
        entry = self.entry(name)
        if entry is None:
            return f"one for each {', '.join(_BRACES.findall(name))}, e.g. {self.entries[name].example}"
        if entry.embedded:
            return "embedded"
        form = self._present(name, entry)
        if form:
            return f"{self._place(name, entry, form['path'])} is present"
        if entry.archive and self._is_there(archive := self._place(name, entry, entry.archive)):
            return f"{archive} is present"
        return f"missing: {entry.obtain}; {entry.homepage}" + (" (or use its stand-in)" if self._served(name) else "")

    def _served(self, name: str) -> str | None:
        """Return the dataset whose stand-in can be read for `name`; None if there is none."""
        entry = self.entry(name)
        served = (entry.files_of or name) if entry else ""
        return served if served in WRITERS else None

    def _present(self, name: str, entry: Entry) -> Mapping[str, Any] | None:
        """Return the first form whose files all exist; None if there is none."""
        for form, files in zip(entry.forms, entry.files(), strict=True):
            if files and all(self._is_there(self._place(name, entry, file)) for file in files):
                return form
        return None

    def _place(self, name: str, entry: Entry, file: str) -> str:
        """Return the path below `raw/` of `file`: itself, or in a folder of the dataset's name if it exists there."""
        places = (file, f"{name}/{file}", f"{entry.files_of or name}/{file}")
        return next(filter(self._is_there, places), file)

    def _is_there(self, place: str) -> bool:
        raw = self.data_dir / "raw"
        return (raw / place).is_file() or (raw / f"{place}.gz").is_file()


def known_datasets(data_dir: Path, stand_in_scale: float | None = None) -> KnownDatasets:
    """Return the shipped datasets and the entries of `data_dir`'s own `datasets.toml`, which take precedence.

    Raises:
        DataError: that file is invalid, or has its former name.
    """
    shipped = resources.files("ipsrec_bench.data").joinpath("datasets.toml").read_text(encoding="utf-8")
    entries = _read(shipped, "datasets.toml")
    own, former = data_dir / OWN, data_dir / FORMER_OWN
    if former.is_file():
        raise DataError(f"{former}: this file is called {OWN} now; rename it, or move its entries into {own}")
    if own.is_file():
        try:
            text = own.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{own}: cannot be read as UTF-8 text: {error}") from None
        entries |= _read(text, str(own))
    return KnownDatasets(entries, data_dir, stand_in_scale)


def _read(text: str, place: str) -> dict[str, Entry]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{place}: not valid TOML: {error}") from None
    entries = {}
    for name, table in tables.items():
        where: KeyPath = (name,)
        raw = table
        try:
            _named(name)
            _pattern(name)
            entries[name] = Entry.model_validate(table)
            for number, form in enumerate(entries[name].forms):
                where = (name, "forms", number)
                raw = form
                SOURCES[form.get("source", "table")].model_validate(form)
        except ValidationError as error:
            path, message = next(explain(error, raw))
            where = (*where, *path)
        except re.error as error:
            message = f"the parts in braces need different names, such as {{month}}: {error}"
        except ValueError as error:
            message = f"found {name!r}; {error}"
        except KeyError as error:
            message = f"found source = {error}; allowed: {listed(SOURCES)}"
        else:
            continue
        raise DataError(f"{place}:{find_line(text, where)}: {'.'.join(map(str, where))}: {message}")
    return entries


def _named(name: str) -> None:
    """Check the name of an entry, which is also a folder's name.

    Raises:
        ValueError: it cannot be one.
    """
    if not name.strip() or not name.isprintable():
        raise ValueError("expected a name of printable characters")
    _alone(name)


def known_dataset(name: str, known: KnownDatasets) -> Entry:
    """Return the entry for `name`.

    Raises:
        DataError: no known dataset has this name.
    """
    entry = known.entry(name)
    if entry is None and name in known.entries:
        raise DataError(f"'{name}' covers many datasets: fill in the braces, as in '{known.entries[name].example}'")
    if entry is None:
        raise DataError(f"'{name}' is not a known dataset{did_you_mean(name, known) or f'; known: {listed(known)}'}")
    return entry


def stand_in_folder(name: str, scale: float) -> str:
    """Return the folder of a stand-in's raw files, relative to the data directory."""
    return f"stand-ins/{name}-{scale:g}"


def _pattern(key: str) -> re.Pattern[str]:
    """Return the pattern of the names that a key covers; a key without braces matches only itself."""
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


def _moved(form: Mapping[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
    """Return `form` with `place` applied to the path of each file."""
    moved = dict(form)
    if "path" in form:
        moved["path"] = place(form["path"])
    if isinstance(form.get("items"), Mapping):
        moved["items"] = {**form["items"], "path": place(form["items"]["path"])}
    return moved
