"""Users x seeds: is this *method* better, whichever seed trains it and whoever uses it?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.stats.differences import rounded
from ipsrec_bench.stats.paired import MIN_USERS, MeanTest, mean_test

MIN_SEEDS = 3
"""Two seeds say next to nothing about how much seeds vary."""


NOISE = 1e-12
"""Sums of squares up to this share of the total are floating-point noise."""


@dataclass(frozen=True)
class CrossedTest:
    """The test of a method, and the variance components of the differences."""

    test: MeanTest
    users: int
    seeds: int
    user_variance: float
    """Variance component of users: some gain more than others, whatever the seed."""
    seed_variance: float
    """Variance component of seeds: some trainings turn out better than others, for all users."""
    residual_variance: float
    """Variance component of the interaction of users and seeds, and of what is left."""


def crossed_test(differences: NDArray[np.float64], confidence: float = 0.95) -> CrossedTest:
    """Test, two-sided, the hypothesis that `differences`, `[users, seeds]`, have mean 0 over all users and seeds.

    Balanced two-way crossed random effects, d[u, s] = mean + user[u] + seed[s] + residual[u, s]. The variance of the
    mean is s_u^2 / U + s_s^2 / S + s_us^2 / (U S), estimated without bias from the mean squares of the two-way analysis
    of variance as (MS_u + MS_s - MS_us) / (U S), but not below what the residual alone gives. Degrees of freedom are
    Satterthwaite's (1946). No component is dropped because its estimate is small: with few seeds that happens by
    chance, and the test would then mistake a difference between two trainings for one between methods.

    More users do not reduce the term s_s^2 / S. A comparison of single trainings omits it, and so finds
    differences between a method and itself. False alarm rates (benchmarks/README.md): with ten seeds, about nominal;
    with five up to 6.2% at 5% and 1.8% at 1%; with three up to 7.4% and 3.2%, where seeds cause most of the variance.

    Raises:
        ValueError: fewer than two users or three seeds.
    """
    if differences.ndim != 2 or differences.shape[0] < MIN_USERS or differences.shape[1] < MIN_SEEDS:  # noqa: PLR2004
        raise ValueError(f"expected differences of at least two users x three seeds, found shape {differences.shape}")
    users, seeds = differences.shape
    by_seed = differences.mean(axis=0)
    mean = float(rounded(by_seed.mean()))
    centred = np.ascontiguousarray(differences.T) - mean  # a row per seed, as a store has them
    by_user = centred.mean(axis=0)
    of_users, of_seeds = seeds * float(by_user @ by_user), users * float(((by_seed - mean) ** 2).sum())
    total = float(np.vdot(centred, centred))
    squares = np.array([of_users, of_seeds, total - of_users - of_seeds])
    squares[squares <= NOISE * total] = 0.0
    degrees = np.array([users - 1.0, seeds - 1.0, (users - 1.0) * (seeds - 1.0)])
    ms_user, ms_seed, ms_residual = (float(value) for value in squares / degrees)
    variance = max(ms_user + ms_seed - ms_residual, ms_residual)
    spread = float(((squares / degrees) ** 2 / degrees).sum())
    return CrossedTest(
        mean_test(
            mean, (variance / (users * seeds)) ** 0.5, variance**2 / spread if spread else degrees[1], confidence
        ),
        users,
        seeds,
        user_variance=max(ms_user - ms_residual, 0.0) / seeds,
        seed_variance=max(ms_seed - ms_residual, 0.0) / users,
        residual_variance=ms_residual,
    )
