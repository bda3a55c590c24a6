"""Settings in words: kind, bounds, default and description of every field of a pydantic model."""

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.settings import LinearRange, LogRange, SearchSpace, Settings
from ipsrec_bench.suite.schema import Training
from reference.markdown import code, entry, sentence, toml

Link = Callable[[type[Settings]], str]
"""Returns the Markdown of a link to the description of settings."""


@dataclass(frozen=True)
class Setting:
    """One setting, in words."""

    field: str
    """Name of the field in its class."""
    key: str
    """Name in a suite."""
    kind: str
    """Allowed values: type and bounds."""
    default: str
    """As a suite would write it; empty where the key is required, or is a table with its own defaults."""
    required: bool
    description: str
    search: str
    """Range in which tuning searches it unless a suite says otherwise; empty if none."""

    @property
    def said(self) -> str:
        """Its description, in Markdown."""
        default = "required" if self.required else f"default {code(self.default)}" if self.default else ""
        return entry(self.description, [self.kind, default, self.search])


_NAMES = {bool: "`true` or `false`", int: "whole number", float: "number", str: "text", Any: "any value"}


def described(settings: type[Settings], link: Link) -> Iterator[Setting]:
    """Yield every setting of a class, those of its bases first."""
    declared: SearchSpace = getattr(settings, "search", {})
    if settings is Training:
        declared = NeuralConfig.training_search
    for name, field in settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        searched = declared.get(field.alias or name)
        yield Setting(
            field=name,
            key=field.alias or name,
            kind=_kind(field.annotation, field.metadata, link),
            default="" if default is PydanticUndefined or isinstance(default, Settings) else _default(default),
            required=field.is_required(),
            description=sentence(docstring(settings, name)),
            search="" if searched is None else _searched(searched),
        )


def _searched(space: LinearRange | LogRange | tuple[object, ...]) -> str:
    if isinstance(space, tuple):
        return f"tuning searches {', '.join(f'{value:g}' for value in space)}"
    scale = ", on a logarithmic scale" if isinstance(space, LogRange) else ""
    return f"tuning searches {space.low:g} to {space.high:g}{scale}"


def parts_of(settings: type[Settings]) -> set[type[Settings]]:
    """Return the classes of all tables within a table of settings."""
    found: set[type[Settings]] = set()
    waiting = [settings]
    while waiting:
        fields = waiting.pop().model_fields.values()
        new = {one for field in fields for one in _classes(field.annotation)} - found
        found |= new
        waiting.extend(new)
    return found


def _default(value: object) -> str:
    return "not set" if value is None else toml(value)


def docstring(settings: type[Settings], name: str) -> str:
    """Return the text below a field, in the class that declares it or in the nearest base that describes it."""
    for base in settings.__mro__:
        if issubclass(base, Settings) and name in (texts := _docstrings(base)):
            return texts[name]
    return ""


@cache
def _docstrings(settings: type[Settings]) -> dict[str, str]:
    """Return the strings that follow the fields of a class in its source, by the name of the field."""
    module = ast.parse(inspect.getsource(sys.modules[settings.__module__]))
    body = next(
        (node.body for node in ast.walk(module) if isinstance(node, ast.ClassDef) and node.name == settings.__name__),
        [],
    )
    found = {}
    for field, text in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            found[field.target.id] = inspect.cleandoc(text.value.value)
    return found


def _classes(annotation: Any) -> Iterator[type[Settings]]:  # noqa: ANN401 (any annotation)
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for part in get_args(annotation):
        yield from _classes(part)


def _kind(annotation: Any, metadata: Any, link: Link) -> str:  # noqa: ANN401 (any annotation)
    """Return what a value of this annotation may be, in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    limits = [limit for one in metadata for limit in (one.metadata if isinstance(one, FieldInfo) else [one])]
    if origin is Annotated:
        kind = _kind(parts[0], [*parts[1:], *metadata], link)
    elif origin in {Union, UnionType}:
        kinds = [_kind(part, metadata, link) for part in parts if part is not NoneType]
        kind = " or ".join(dict.fromkeys(kinds))
    elif origin is Literal:
        kind = ("one of " if len(parts) > 1 else "") + ", ".join(code(toml(part)) for part in parts)
    elif origin is tuple:
        kind = f"list{_length(limits)}; each element: {_kind(parts[0], [], link)}"
    elif origin is dict:
        kind = f"table{_length(limits)}"
    elif isinstance(annotation, type) and issubclass(annotation, Settings):
        kind = f"table, see {link(annotation)}"
    else:
        kind = _NAMES[annotation] + _bounds(limits)
    return kind


def _length(limits: list[Any]) -> str:
    least = next((limit.min_length for limit in limits if isinstance(limit, MinLen)), 0)
    most = next((limit.max_length for limit in limits if isinstance(limit, MaxLen)), None)
    words = [f"at least {least}" if least else "", f"at most {most}" if most else ""]
    return f" of {' and '.join(filter(None, words))}" if any(words) else ""


def _bounds(limits: list[Any]) -> str:
    low = next((f"at least {_number(limit.ge)}" for limit in limits if isinstance(limit, Ge)), "")
    low = next((f"above {_number(limit.gt)}" for limit in limits if isinstance(limit, Gt)), low)
    high = next((f"at most {_number(limit.le)}" for limit in limits if isinstance(limit, Le)), "")
    high = next((f"below {_number(limit.lt)}" for limit in limits if isinstance(limit, Lt)), high)
    both = " and ".join(filter(None, (low, high)))
    return f", {both}" if both else ""


def _number(value: Any) -> str:  # noqa: ANN401 (whatever pydantic compares with)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.12g}"
