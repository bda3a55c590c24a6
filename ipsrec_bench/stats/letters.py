"""Letters that show which of many rows are not shown to differ (compact letter display)."""

from collections.abc import Sequence
from itertools import combinations
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray


def letters(p: NDArray[np.float64], means: Sequence[float], alpha: float) -> tuple[str, ...]:
    """Return the letters of every row: two rows share a letter exactly if they are not shown to differ.

    The algorithm is insert-and-absorb (Piepho, Journal of Computational and Graphical Statistics, 2004). The letter `a`
    goes to the group with the highest mean.

    Args:
        p: adjusted p-values of all pairs, float64 `[rows, rows]`, symmetric.
        means: mean of every row.
        alpha: level below which a pair differs.
    """
    order = np.argsort(-np.asarray(means), kind="stable").tolist()
    groups = [frozenset(order)]
    for one, other in combinations(order, 2):
        if p[one, other] < alpha:
            split = [part for group in groups for part in _without_both(group, one, other)]
            distinct = list(dict.fromkeys(split))
            groups = [group for group in distinct if not any(group < larger for larger in distinct)]
    places = {row: place for place, row in enumerate(order)}
    groups.sort(key=lambda group: sorted(places[row] for row in group))
    return tuple("".join(_name(number) for number, group in enumerate(groups) if row in group) for row in range(len(p)))


def _without_both(group: frozenset[int], one: int, other: int) -> list[frozenset[int]]:
    return [group - {one}, group - {other}] if {one, other} <= group else [group]


def _name(number: int) -> str:
    """Return the name of a group: a to z, then with a number, like a2."""
    turn, letter = divmod(number, len(ascii_lowercase))
    return ascii_lowercase[letter] + (str(turn + 1) if turn else "")
