"""The base class of all settings, and the messages for wrong ones.

Settings are frozen pydantic models that refuse unknown keys. They import neither torch nor duckdb, so a
suite is checked in a moment.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from ipsrec_bench.errors import did_you_mean, listed

Path = tuple[str | int, ...]


class Settings(BaseModel):
    """A frozen group of settings; an unknown key is an error that names the nearest known one.

    Numbers are finite, unless a field sets `allow_inf_nan=True`; true and false do not count as numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @classmethod
    def keys(cls) -> list[str]:
        """Return the keys as they are written in a suite (aliases where a field has one)."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        known = cls.keys()
        for key in value:
            if key not in known:
                raise PydanticCustomError(
                    "unknown_key",
                    "unknown key '{key}'{hint}",
                    {
                        "key": str(key),
                        "hint": known_keys_hint(str(key), known),
                    },
                )
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_as_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse true and false where a number is expected; pydantic would convert them to 1 and 0."""
        held = value if isinstance(value, list | tuple) else (value,)
        takes = _kinds_in(cls.model_fields[str(info.field_name)].annotation)
        if any(isinstance(one, bool) for one in held) and takes & {int, float} and not takes & {bool, Any, object}:
            raise PydanticCustomError("number_type", "input should be a number")
        return value


def known_keys_hint(key: str, known: Sequence[str]) -> str:
    """Return what follows "unknown key" in an error message: the known key that was meant, or all known keys."""
    return did_you_mean(key, known) or f"; known: {listed(known)}"


def whole_numbers(settings: type[Settings]) -> frozenset[str]:
    """Return the keys whose values are whole numbers."""
    kinds = {field.alias or name: _kinds_in(field.annotation) for name, field in settings.model_fields.items()}
    return frozenset(name for name, takes in kinds.items() if int in takes and float not in takes)


def _kinds_in(annotation: object) -> set[object]:
    """Return the types that a field's annotation consists of."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kinds_in(parts[0])
    return set().union(*map(_kinds_in, parts)) if parts and origin is not Literal else {annotation}


@dataclass(frozen=True)
class LinearRange:
    """Range in which a search draws a number uniformly."""

    low: float
    high: float


@dataclass(frozen=True)
class LogRange:
    """Range in which a search draws a positive number uniformly in its logarithm."""

    low: float
    high: float


Values = tuple[float | bool | str, ...]
"""Values from which a search chooses one."""
SearchSpace = Mapping[str, LinearRange | LogRange | Values]
"""The settings that a search varies by default, by their keys in a suite."""


_KINDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "number_type"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("string_type", "string_sub_type", "string_unicode"), "a text"),
    **dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type", "iterable_type"), "a list"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"),
        "a table",
    ),
}
"""The expected kind of value, by the pydantic error type that reports a wrong one."""
_OWN_SENTENCE = {"value_error", "assertion_error"}
"""Error types whose message comes from this package, or from the author of a model."""
_SAID_ALONE = {"missing": "this key is required", "extra_forbidden": "unknown key"}
_SAID = {
    **dict.fromkeys(("too_short", "string_too_short"), "at least {min_length} must be given"),
    **dict.fromkeys(("too_long", "string_too_long"), "at most {max_length} may be given"),
    "string_pattern_mismatch": "it does not have the form {pattern}",
    "union_tag_invalid": "allowed: {expected_tags}",
    "union_tag_not_found": "a key {discriminator} must say which kind of table it is",
}
"""Replacements for pydantic's own messages."""
LONGEST_SHOWN = 60
"""Maximum number of characters of a wrong value that an error message quotes."""


def explain(error: ValidationError, raw: object) -> Iterator[tuple[Path, str]]:
    """Yield, for every error that pydantic found in `raw`, its path and a sentence: what was found, what is allowed.

    Where a value may be of several kinds, pydantic reports errors for each of them. Only those of the intended kind are
    kept; if the value is of none of the kinds, one sentence names all of them.
    """
    found = [(_written(mistake, raw), mistake) for mistake in error.errors(include_url=False)]
    given: set[tuple[Path, str]] = set()
    for path, mistake in found:
        here = [other["type"] for place, other in found if place == path]
        deeper = any(len(place) > len(path) and place[: len(path)] == path for place, _ in found)
        if mistake["type"] in _KINDS:
            if deeper or not all(kind in _KINDS for kind in here):
                continue  # the value is of another kind that the key allows
            kinds = list(dict.fromkeys(_KINDS[kind] for kind in here))
            sentence = path, f"found {shown(mistake['input'])}; input should be {_either(kinds)}"
        elif deeper and mistake["type"] == "too_short":
            continue  # pydantic does not count wrong elements, which are reported themselves
        else:
            sentence = _sentence(path, mistake)
        if sentence not in given:
            given.add(sentence)
            yield sentence


def _written(mistake: ErrorDetails, raw: Any) -> Path:  # noqa: ANN401 (whatever TOML holds)
    """Return the error's path in the raw input, without the steps that pydantic adds, such as members of a union."""
    path: list[str | int] = []
    for number, part in enumerate(mistake["loc"], start=1):
        holds = isinstance(raw, Mapping) and part in raw
        if holds or (isinstance(raw, list | tuple) and isinstance(part, int) and part < len(raw)):
            raw = raw[part]
        elif mistake["type"] != "missing" or number < len(mistake["loc"]):
            continue
        path.append(part)
    return tuple(path)


def _sentence(path: Path, mistake: ErrorDetails) -> tuple[Path, str]:
    kind, context, message = mistake["type"], mistake.get("ctx", {}), mistake["msg"]
    if kind == "unknown_key":
        return (*path, context["key"]), message
    if kind in _SAID_ALONE:
        return path, _SAID_ALONE[kind]
    if kind in _OWN_SENTENCE:
        message = message.partition(", ")[2]
    elif kind == "literal_error":
        message = re.sub(r"(?<!')\b(True|False)\b(?!')", lambda match: match[0].lower(), message)
        if isinstance(mistake["input"], str):
            message += did_you_mean(mistake["input"], re.findall("'([^']*)'", context["expected"]))
    elif kind in _SAID:
        message = _SAID[kind].format(**context)
    if isinstance(mistake["input"], Mapping | BaseModel):  # the message itself says what is wrong in it
        return path, _lower_first(message)
    return path, f"found {shown(mistake['input'])}; {_lower_first(message)}"


def shown(value: object) -> str:
    """Return a value as an error message quotes it: in a suite's notation, shortened, and without line breaks."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping | BaseModel):
        return "a table"
    if isinstance(value, date | time):
        return str(value)
    if isinstance(value, list | tuple):
        text = f"[{', '.join(shown(one) for one in value[:LONGEST_SHOWN])}]"
        return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write integers of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _either(kinds: Sequence[str]) -> str:
    return " or ".join([", ".join(kinds[:-1]), kinds[-1]]) if len(kinds) > 1 else kinds[0]


def _lower_first(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def in_words(settings: Mapping[str, object]) -> str:
    """Return settings and their values as readable text; floats have three significant digits."""
    return ", ".join(
        f"{name} = {value:.3g}" if isinstance(value, float) else f"{name} = {value}" for name, value in settings.items()
    )
