"""Is this *method* better, whichever seeds train it and whoever uses it? Trainings of two rows are never paired."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.stats.differences import over_seeds, rounded
from ipsrec_bench.stats.paired import MIN_USERS, MeanTest, mean_test

MIN_SEEDS = 3
"""Two seeds say next to nothing about how much seeds vary."""
NOISE = 1e-12
"""Sums of squares up to this share of a table's total are floating-point noise."""


@dataclass(frozen=True)
class MethodTest:
    """The test of a method, and the terms of the variance of its mean difference."""

    test: MeanTest
    users: int
    seeds_a: int
    seeds_b: int
    user_variance: float
    """V0: variance over users of the difference of both rows' means over seeds, divided by the number of users."""
    seed_variance_a: float
    """v of the first row: variance of its trainings' means, divided by their number; 0 without randomness."""
    seed_variance_b: float
    """v of the second row."""
    noise_a: float
    """r of the first row: the part of its v, and of V0, that comes from noise of single users in single trainings."""
    noise_b: float
    """r of the second row."""
    a_random: bool = True
    """Whether trainings of the first row differ."""
    b_random: bool = True
    """Whether trainings of the second row differ."""


@dataclass(frozen=True)
class _Seeds:
    """What the trainings of one row add to the variance, with the degrees of freedom of both terms."""

    variance: float
    noise: float
    degrees: float
    noise_degrees: float

    @property
    def spread(self) -> float:
        """Return this row's terms in the denominator of Satterthwaite's formula."""
        return self.variance**2 / self.degrees + self.noise**2 / self.noise_degrees


FIXED = _Seeds(0.0, 0.0, 1.0, 1.0)
"""A row without randomness."""


def method_test(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    confidence: float = 0.95,
    *,
    a_random: bool = True,
    b_random: bool = True,
) -> MethodTest:
    """Test, two-sided, the hypothesis that two methods have the same mean over all users and all seeds.

    Users are crossed with the seeds of each row, and the seeds of the two rows are independent samples: nothing ties
    seed 1 of one row to seed 1 of the other, and the numbers of seeds may differ. With d[u] the difference of the means
    over seeds of user u, for U users and S seeds of a row:

    - V0 = var(d) / U;
    - v = var(means of trainings) / S, for each row;
    - r = MS / (U S), for each row, with MS the residual mean square of its table users x seeds;
    - variance of the mean W = max(V0 + v_a - r_a + v_b - r_b, V0). V0 contains r once, and v contains it once more. The
      floor V0 keeps a method from being more certain than its trainings.

    Degrees of freedom are Satterthwaite's (1946): W^2 over the sum of squares of all terms, each over its own degrees
    of freedom: U - 1, S - 1 and (U - 1)(S - 1). They are not below the smallest of U - 1 and S - 1, those of a term
    that makes up W alone. Where trainings of both rows share their noise, as with equal seeds of near-equal models, V0
    lies far below v and r, and the formula gives nearly 0. More users reduce V0 and r, and never v.

    The result is the same, bit for bit, for every order of either row's seeds. False alarm rates and power are in
    benchmarks/README.md.

    Args:
        a: metric of the first row, float `[users, seeds]`.
        b: metric of the second row for the same users, float `[users, seeds]`; the number of seeds may be another one.
        confidence: confidence level of the interval.
        a_random: False for a row without randomness, `[users, 1]`: it then has no terms v and r.
        b_random: likewise.

    Raises:
        ValueError: fewer than two users, other users in `b`, or fewer than three seeds of a row with randomness.
    """
    for values, random in ((a, a_random), (b, b_random)):
        least = MIN_SEEDS if random else 1
        if values.ndim != 2 or values.shape[0] < MIN_USERS or values.shape[1] < least:  # noqa: PLR2004
            needed = "three seeds" if random else "one column"
            raise ValueError(f"expected a metric of at least two users x {needed}, found shape {values.shape}")
    if len(a) != len(b):
        raise ValueError(f"both rows need the same users, found {len(a):,} and {len(b):,}")
    by_user_a, by_user_b = over_seeds(a), over_seeds(b)
    of_a = _of_seeds(a, by_user_a) if a_random else FIXED
    of_b = _of_seeds(b, by_user_b) if b_random else FIXED
    difference = rounded(by_user_a - by_user_b)
    users, mean = len(difference), float(difference.mean())
    of_users = float(difference.var(ddof=1)) / users
    variance = max(of_users + ((of_a.variance - of_a.noise) + (of_b.variance - of_b.noise)), of_users)
    spread = of_users**2 / (users - 1) + (of_a.spread + of_b.spread)
    fewest = min([users - 1.0, *(row.degrees for row in (of_a, of_b) if row.variance)])
    degrees = max(variance**2 / spread, fewest) if spread else users - 1.0
    return MethodTest(
        mean_test(mean, variance**0.5, degrees, confidence),
        users,
        a.shape[1],
        b.shape[1],
        of_users,
        of_a.variance,
        of_b.variance,
        of_a.noise,
        of_b.noise,
        a_random,
        b_random,
    )


def _of_seeds(values: NDArray[np.float64], by_user: NDArray[np.float64]) -> _Seeds:
    """Return the terms of a row's seeds from its table, float `[users, seeds]`, and the table's means over seeds."""
    users, seeds = values.shape
    rows = np.ascontiguousarray(values.T)  # every training is summed alone and in the same order
    by_seed = rows.mean(axis=1)
    ordered = np.sort(by_seed)
    residuals = rows - by_user
    residuals -= (by_seed - ordered.mean())[:, None]
    squares = float(np.sort(np.einsum("su,su->s", residuals, residuals)).sum())
    of_seeds = float(ordered.var(ddof=1))
    if squares <= NOISE * (squares + seeds * users * float(by_user.var()) + users * (seeds - 1) * of_seeds):
        squares = 0.0
    degrees = (users - 1.0) * (seeds - 1.0)
    return _Seeds(of_seeds / seeds, squares / degrees / (users * seeds), seeds - 1.0, degrees)
