"""Does an effect come out again? Effect ratio and gap of relative improvements (Breuer et al., SIGIR 2020)."""

import math

from ipsrec_bench.stats.effect import Estimate


def effect_ratio(ours: Estimate, published: float, rounding: float) -> Estimate | None:
    """Return ER: our difference of two rows over the published difference of the same two.

    1 means the same effect, 0 none, and below 0 one in the other direction. The interval is that of our difference over
    the published one, each end at its least favourable rounding of the two printed values; it is unbounded if the
    printed values, as they are rounded, may be equal.

    Args:
        ours: our difference with its interval.
        published: difference of the two printed values.
        rounding: maximum rounding error of one printed value.

    Returns:
        None where the printed values are equal.
    """
    if not published:
        return None
    ratio = ours.value / published
    least, most = abs(published) - 2 * rounding, abs(published) + 2 * rounding
    if math.isnan(ours.low):
        return Estimate(ratio, math.nan, math.nan)
    if least <= 0:
        return Estimate(ratio, -math.inf, math.inf)
    ends = [math.copysign(1, published) * end / divisor for end in (ours.low, ours.high) for divisor in (least, most)]
    return Estimate(ratio, min(ends), max(ends))


def improvement_gap(ours: Estimate, better: float, baseline: float, rounding: float) -> Estimate:
    """Return dRI: the published relative improvement minus ours, which is above 0 where ours is smaller.

    Args:
        ours: our relative improvement with its interval.
        better: printed value of the row.
        baseline: printed value of its baseline, above `rounding`.
        rounding: maximum rounding error of a printed value.
    """
    least = (better - rounding) / (baseline + rounding) - 1
    most = (better + rounding) / (baseline - rounding) - 1
    return Estimate(better / baseline - 1 - ours.value, least - ours.high, most - ours.low)
