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
    kind: Any = type(value)
    if is_dataclass(kind):
        return {name: plain(getattr(value, name)) for name in _names(kind)}
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
def _names(kind: Any) -> tuple[str, ...]:  # noqa: ANN401 (the type of any dataclass)
    """Return the names of the fields and properties of a dataclass."""
    derived = (name for name, member in vars(kind).items() if isinstance(member, property))
    return (*(field.name for field in fields(kind)), *derived)
