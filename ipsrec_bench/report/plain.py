"""Dataclasses as values that JSON can represent."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Any


def plain(value: Any) -> Any:  # noqa: ANN401 (whatever the content holds)
    """Return `value` with dataclasses as dictionaries of their fields and properties.

    NaN and infinities, which JSON lacks, become null.
    """
    names = _names(type(value))  # type: ignore[arg-type]  # a class is hashable
    if names is not None:
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value


@cache
def _names(kind: type) -> tuple[str, ...] | None:
    """Return the names of the fields and properties of a dataclass; None for another type."""
    if not is_dataclass(kind):
        return None
    derived = (name for name, member in vars(kind).items() if isinstance(member, property))
    return (*(field.name for field in fields(kind)), *derived)
