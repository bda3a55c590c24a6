"""Results of checks."""

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
    """What the check found, without a full stop."""
    mend: str = ""
    """The remedy, without a full stop; empty if none is needed."""
    fix: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    """Callback that applies the safe part of the remedy, which removes no result, and returns what it did."""


def fixed(finding: Finding) -> Finding:
    """Return `finding` after its fix: unchanged if it has none, a problem if the fix fails."""
    if finding.fix is None:
        return finding
    try:
        done = finding.fix()
    except (BenchError, OSError) as error:
        return Finding(finding.name, "problem", f"{finding.found}; the fix failed: {error}", finding.mend)
    return Finding(finding.name, "ok", done)
