"""The base of everything that is configured, and how a wrong setting is explained.

Settings are frozen pydantic models that refuse unknown keys. They import neither torch nor duckdb, so that a
suite can be checked in a moment.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from ipsrec_bench.errors import did_you_mean, listed

Path = tuple[str | int, ...]


class Settings(BaseModel):
    """A frozen group of settings; an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

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
                        "hint": did_you_mean(str(key), known) or f"; known: {listed(known)}",
                    },
                )
        return value


@dataclass(frozen=True)
class LogRange:
    """Search range of a positive number, uniform in its logarithm; stands beside the field it belongs to."""

    low: float
    high: float


def explain(error: ValidationError) -> Iterator[tuple[Path, str]]:
    """Yield, for every mistake pydantic found, its path and a sentence: what was found, what is allowed."""
    for mistake in error.errors(include_url=False):
        path: Path = tuple(mistake["loc"])
        context = mistake.get("ctx", {})
        if mistake["type"] == "unknown_key":
            yield (*path, context["key"]), mistake["msg"]
        elif mistake["type"] == "missing":
            yield path, "this key is required"
        else:
            yield path, f"found {mistake['input']!r}; {_lower_first(mistake['msg'])}"


def _lower_first(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def in_words(settings: Mapping[str, object]) -> str:
    """Return settings and their values as a person reads them; reals with three significant digits."""
    return ", ".join(
        f"{name} = {value:.3g}" if isinstance(value, float) else f"{name} = {value}" for name, value in settings.items()
    )
