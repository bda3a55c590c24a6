"""What a check has found."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ipsrec_bench.errors import BenchError

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    name: str
    """What was checked."""
    state: State
    found: str
    """What there is, without a full stop."""
    mend: str = ""
    """What to do about it, without a full stop; empty where nothing is to be done."""
    fix: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    """Does the safe part of it, which removes no result, and returns what was done."""


def fixed(finding: Finding) -> Finding:
    """Return `finding` after its fix, as it is if it has none or if the fix fails."""
    if finding.fix is None:
        return finding
    try:
        done = finding.fix()
    except (BenchError, OSError) as error:
        return Finding(finding.name, "problem", f"{finding.found}; that could not be mended: {error}", finding.mend)
    return Finding(finding.name, "ok", done)
