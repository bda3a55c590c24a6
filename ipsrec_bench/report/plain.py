"""Dataclasses as values that JSON can represent."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any


def plain(value: Any) -> Any:  # noqa: ANN401 (whatever the content holds)
    """Return `value` with dataclasses as dictionaries of their fields and properties.

    NaN and infinities, which JSON lacks, become null.
    """
    if is_dataclass(value):
        derived = [name for name, member in vars(type(value)).items() if isinstance(member, property)]
        return {name: plain(getattr(value, name)) for name in (*(field.name for field in fields(value)), *derived)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.isoformat() if isinstance(value, datetime) else value
