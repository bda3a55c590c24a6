"""Power: which difference a design finds, and how many seeds it takes."""

from dataclasses import dataclass
from functools import lru_cache
from math import inf

import numpy as np
from scipy import special

from ipsrec_bench.stats.method import MIN_SEEDS, MethodTest

POWER = 0.8
"""Probability with which a difference is to be found."""
NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)
"""Gauss-Legendre quadrature on -1 to 1."""
NARROW = 1e-17
"""Probability that a quadrature leaves out on either side."""
LEAST, MOST = 1e-300, 1 - 1e-16
"""Probabilities whose normal quantiles are finite; a power that rounding takes out of 0 to 1 is moved to these."""
MOST_SEEDS = 1_000_000
"""Numbers of seeds above this are as good as none."""


@dataclass(frozen=True)
class SeedsNeeded:
    """How many seeds of each row with randomness find a difference."""

    seeds: int | None
    """The smallest number; None if no number of seeds is enough, so that only more users help."""
    floor: float
    """The smallest difference that could be found with any number of seeds, on these users."""


def t_power(noncentrality: float, degrees: float, alpha: float) -> float:
    """Return the probability that a two-sided t-test at `alpha` rejects.

    Args:
        noncentrality: true mean over its standard error.
        degrees: degrees of freedom.
        alpha: level of the test.
    """
    critical = -float(special.stdtrit(degrees, alpha / 2))  # 1 - alpha / 2 would lose the digits of a small alpha
    return _above(critical, noncentrality, degrees) + _above(critical, -noncentrality, degrees)


def detectable_difference(standard_error: float, degrees: float, alpha: float, power: float = POWER) -> float:
    """Return the smallest true difference that a two-sided t-test at `alpha` finds with probability `power`.

    It is a property of the design (the number of users and seeds, and how much their differences vary), not of the
    difference that was found. Under a true difference the statistic has the noncentral t distribution.

    Args:
        standard_error: standard error of the difference.
        degrees: degrees of freedom.
        alpha: level of the test. For a comparison of a family it is that of the worst step (`correction.worst_step`).
        power: probability with which the difference is to be found.
    """
    return _noncentrality(degrees, alpha, power) * standard_error


def seeds_needed(test: MethodTest, difference: float, alpha: float, power: float = POWER) -> SeedsNeeded:
    """Return how many seeds of both rows `method_test` needs to find a true `difference` on the same users.

    S seeds change the terms of the variance to v S_now / S and r S_now / S for each row, and V0 to
    V0 - r_a (1 - S_a / S) - r_b (1 - S_b / S). All are estimates from the trainings at hand, and with three seeds they
    are rough. With S -> infinity the differences between users remain: a difference below the floor needs more users.

    Args:
        test: the comparison whose terms are known.
        difference: true difference of interest, of either sign.
        alpha: level of the test; for a comparison of a family that of the worst step (`correction.worst_step`).
        power: probability with which the difference is to be found.
    """
    floor = _detectable_with(test, inf, alpha, power)
    if abs(difference) <= floor:
        return SeedsNeeded(None, floor)
    if not (test.a_random or test.b_random):
        return SeedsNeeded(1, floor)
    enough = MIN_SEEDS
    while not _finds(test, enough, difference, alpha, power):
        if enough > MOST_SEEDS:
            return SeedsNeeded(None, floor)
        enough *= 2
    too_few = enough // 2 if enough > MIN_SEEDS else enough - 1
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if _finds(test, middle, difference, alpha, power):
            enough = middle
        else:
            too_few = middle
    return SeedsNeeded(enough, floor)


def _finds(test: MethodTest, seeds: float, difference: float, alpha: float, power: float) -> bool:
    """Return whether the design of `test` with `seeds` of both rows finds a true `difference` with this power."""
    error, degrees = _design_with(test, seeds)
    return error == 0 or t_power(abs(difference) / error, degrees, alpha) >= power


def _detectable_with(test: MethodTest, seeds: float, alpha: float, power: float) -> float:
    """Return the detectable difference of the design of `test` with another number of seeds of both rows."""
    error, degrees = _design_with(test, seeds)
    return detectable_difference(error, degrees, alpha, power) if error else 0.0


def _design_with(test: MethodTest, seeds: float) -> tuple[float, float]:
    """Return the standard error and the degrees of freedom of `test` with another number of seeds of both rows."""
    users, of_users, of_seeds, spread = test.users, test.user_variance, 0.0, 0.0
    least, smallest = users - 1.0, 1.0
    for now, variance, noise, random in (
        (test.seeds_a, test.seed_variance_a, test.noise_a, test.a_random),
        (test.seeds_b, test.seed_variance_b, test.noise_b, test.b_random),
    ):
        if random:
            share = now / seeds
            smallest = min(smallest, share)
            of_users -= noise * (1 - share)
            of_seeds += (variance - noise) * share
            spread += ((variance * share) ** 2 + (noise * share) ** 2 / (users - 1)) / (seeds - 1)
            least = min(least, seeds - 1) if variance else least
    of_users = max(of_users, test.user_variance * smallest)  # noise that both rows share is in V0 less than r says
    variance = max(of_users + of_seeds, of_users)
    spread += of_users**2 / (users - 1)
    degrees = max(variance**2 / spread, least) if spread else users - 1.0
    return variance**0.5, degrees


@lru_cache(maxsize=4096)
def _noncentrality(degrees: float, alpha: float, power: float) -> float:
    """Return the noncentrality at which a two-sided t-test at `alpha` has this power, by the Illinois method."""
    target = special.ndtri(power)

    def excess(noncentrality: float) -> float:
        """Return how much power is above the target, in normal quantiles: nearly linear, and finite."""
        return float(special.ndtri(min(max(t_power(noncentrality, degrees, alpha), LEAST), MOST)) - target)

    if power <= alpha:
        return 0.0
    low, high = 0.0, 1.0
    below, above = excess(low), excess(high)
    while above < 0:
        low, high, below = high, 2 * high, above
        above = excess(high)
    while high - low > 1e-11 * high:
        middle = low - below * (high - low) / (above - below)
        found = excess(middle)
        if abs(found) < 1e-13:  # noqa: PLR2004 (rounding)
            return middle
        if found < 0:
            low, below, above = middle, found, above / 2
        else:
            high, above, below = middle, found, below / 2
    return high


def _above(critical: float, noncentrality: float, degrees: float) -> float:
    """Return the probability that a noncentral t, (z + noncentrality) / s with a normal z and a chi s, is above.

    One of both is integrated over, the one in which the other's distribution function is smooth.
    """
    if critical < 0.5 * (2 * degrees) ** 0.5:
        ends = [special.gammaincinv(degrees / 2, NARROW), special.gammainccinv(degrees / 2, NARROW)]
        low, high = ((2 * float(end) / degrees) ** 0.5 for end in ends)
        s = (low + high) / 2 + (high - low) / 2 * NODES
        log_density = (degrees - 1) * np.log(s) - degrees * s**2 / 2 + degrees / 2 * np.log(degrees / 2)
        density = 2 * np.exp(log_density - special.gammaln(degrees / 2))
        values = density * special.ndtr(noncentrality - critical * s)
    else:
        low, high = max(-noncentrality, -9.0), 9.0
        if low >= high:
            return 0.0
        z = (low + high) / 2 + (high - low) / 2 * NODES
        density = np.exp(-(z**2) / 2) / (2 * np.pi) ** 0.5
        values = density * special.gammainc(degrees / 2, degrees / 2 * ((z + noncentrality) / critical) ** 2)
    return float(WEIGHTS @ values * (high - low) / 2)
