"""Whether our improvement reproduces the one that a paper printed (Breuer et al., SIGIR 2020)."""

from dataclasses import dataclass
from math import inf

from ipsrec_bench.stats.effect import Estimate
from ipsrec_bench.stats.paired import MeanTest


@dataclass(frozen=True)
class Reproduction:
    """An improvement of A over B, ours beside the published one."""

    effect_ratio: Estimate | None
    """Our difference over the published one: 1 is a perfect reproduction, 0 none, and below 0 B is better. None if the
    published difference is 0."""
    ours: float
    """Our relative improvement, (A - B) / B."""
    published: float
    """The published relative improvement."""

    @property
    def lost(self) -> float:
        """Return how much of the published relative improvement ours falls short of (delta RI)."""
        return self.published - self.ours


def reproduction(test: MeanTest, reference: float, published: tuple[float, float], unit: float) -> Reproduction:
    """Return effect ratio and relative improvements of a comparison that a paper has, too.

    ER = (A - B) ours / (A - B) published; RI = (A - B) / B; delta RI = RI published - RI ours.

    The interval of ER has two parts. Our difference lies in its confidence interval. The published one was computed
    before rounding, so it lies within one `unit` of the printed difference: half a unit for each of both values. The
    interval is the range of all ratios, and unbounded if the published difference may be 0. A paper that prints no
    variance gives no other uncertainty of its own.

    Args:
        test: our test of the difference A - B, of trained models or of methods.
        reference: our mean of B.
        published: the printed values of A and B.
        unit: unit of the last printed digit, like 0.0001.

    Raises:
        ValueError: a value of B is not above 0.
    """
    theirs, base = published
    if reference <= 0 or base <= 0:
        raise ValueError(f"an improvement is relative to a value above 0, found {reference} and {base}")
    difference = theirs - base
    ratio = None
    units = round(abs(difference) / unit, 3)  # printed values differ by whole units, up to the error of floats
    if units > 0:
        least, most = difference - unit, difference + unit
        if units <= 1:
            ratio = Estimate(test.mean / difference, -inf, inf)
        else:
            ends = [ours / end for ours in (test.low, test.high) for end in (least, most)]
            ratio = Estimate(test.mean / difference, min(ends), max(ends))
    return Reproduction(ratio, test.mean / reference, difference / base)


def improvement_gap(ours: Estimate, published: tuple[float, float], unit: float) -> Estimate:
    """Return delta RI, the published relative improvement minus ours, with an interval.

    The interval is that of our relative improvement and the rounding of the printed values.

    Args:
        ours: our relative improvement with its interval.
        published: the printed values of A and B; B is above half a unit.
        unit: unit of the last printed digit, like 0.0001.
    """
    a, b = published
    least, most = (a - unit / 2) / (b + unit / 2) - 1, (a + unit / 2) / (b - unit / 2) - 1
    return Estimate(a / b - 1 - ours.value, least - ours.high, most - ours.low)
