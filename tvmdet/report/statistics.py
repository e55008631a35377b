"""What a list of timings says: percentiles, a ratio with its interval, and a verdict.

Timings of neighbouring rounds are not independent: clocks rise and fall, neighbours come and go.
Three things keep an interval honest in spite of that. The ratio is taken within each round, so that
what slows a whole round cancels. Blocks of rounds are resampled, as long as what remains is
correlated. And two copies of the same code are timed in the same rounds: what those differ by,
others may differ by too, for no reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tvmdet.report.resampling import Interval, median_interval

__all__ = [
    "FAR_OUT",
    "FEWEST_ROUNDS",
    "LEAST_DIFFERENCE",
    "Comparison",
    "Summary",
    "Verdict",
    "compare",
    "could_see",
    "far_out",
    "noise_between",
    "summarise",
]

Verdict = Literal["faster", "slower", "undecided"]
Timed = Sequence[float] | npt.NDArray[np.float64]

FEWEST_ROUNDS = 6
"""Rounds below which nothing is decided.

If both sides were equally fast, five rounds would all go the same way in 6 % of cases, and six in
3 %: with fewer than six not even agreement of all rounds is a finding at the 5 % level.
"""

LEAST_DIFFERENCE = 0.01
"""No smaller difference is ever called, however many rounds.

The same code in two processes, its memory on other pages, differs by about as much.
"""

FAR_OUT = 3.0
"""Interquartile ranges above the third quartile from where on a timing is an outlier."""

# 0.84 is what 80 % of a normal distribution lie below. The interval's own width varies from run to
# run: with 0.84 such differences were called in two of three simulated runs, with this in four of
# five (tests/report/test_verdicts_under_noise.py).
_POWER_Z = 1.28
_CONFIDENCE_Z = 1.96
_SHORTEST_S = 1e-9  # what a clock may call nothing


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Timings of one contestant, in seconds.

    Attributes:
        count: How many there are.
        median_s: Half were faster.
        p90_s: Nine of ten were faster, interpolated linearly as the other percentiles.
        p95_s: 95 of 100 were faster.
        p99_s: Of fewer than 100 timings this is nearly the slowest.
        p999_s: Of fewer than 1000 timings this is nearly the slowest.
        min_s: The fastest.
        max_s: The slowest.
        mean_s: The arithmetic mean.
        outliers: How many lie far out: more than three interquartile ranges above the third
            quartile (Tukey, Exploratory Data Analysis, ch. 2). They count in all the others.
    """

    count: int
    median_s: float
    p90_s: float
    p95_s: float
    p99_s: float
    p999_s: float
    min_s: float
    max_s: float
    mean_s: float
    outliers: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values, in milliseconds."""
        values = {"median": self.median_s, "p90": self.p90_s, "p95": self.p95_s}
        values |= {"p99": self.p99_s, "p999": self.p999_s}
        values |= {"min": self.min_s, "max": self.max_s, "mean": self.mean_s}
        return {
            "count": self.count,
            **{f"{key}_ms": round(value * 1e3, 6) for key, value in values.items()},
            "outliers": self.outliers,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How one side's time relates to the other's.

    Attributes:
        ratio: The median over the rounds of our time over theirs; under 1 we are faster.
        low: Lower end of its 95 % interval, widened by the noise between equal sides.
        high: Upper end.
        verdict: Of our side: ``faster`` when the whole interval is below 1 by more than
            ``LEAST_DIFFERENCE``, ``slower`` when it is above, else ``undecided``.
        noise_floor: Share of the time that is noise: no smaller difference can be called.
        could_see: Smallest difference, as a share, that would be called in four of five such runs.
    """

    ratio: float
    low: float
    high: float
    verdict: Verdict
    noise_floor: float = LEAST_DIFFERENCE
    could_see: float = LEAST_DIFFERENCE

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "ratio": round(self.ratio, 5),
            "interval_95": [round(self.low, 5), round(self.high, 5)],
            "verdict": self.verdict,
            "noise_floor": round(self.noise_floor, 5),
            "could_see": round(self.could_see, 5),
        }


def summarise(seconds: Timed) -> Summary:
    """Returns the percentiles of one or more timings."""
    values = np.asarray(seconds, np.float64)
    percents = (50, 90, 95, 99, 99.9)
    median, p90, p95, p99, p999 = (float(value) for value in np.percentile(values, percents))
    return Summary(
        count=len(values),
        median_s=median,
        p90_s=p90,
        p95_s=p95,
        p99_s=p99,
        p999_s=p999,
        min_s=float(values.min()),
        max_s=float(values.max()),
        mean_s=float(values.mean()),
        outliers=int(far_out(values).sum()),
    )


def far_out(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Returns which of one or more timings are outliers, as :class:`Summary` counts them."""
    first, third = np.percentile(values, (25, 75))
    return np.asarray(values > third + FAR_OUT * (third - first))


def compare(
    ours_s: Timed, theirs_s: Timed, *, noise: Interval | None = None, seed: int = 0
) -> Comparison:
    """Compares two sides that were timed in turn, round by round.

    Args:
        ours_s: Seconds of our side, one a round.
        theirs_s: Seconds of the other side in the same rounds.
        noise: Of two equal sides in the same rounds, as :func:`noise_between` returns it. The
            interval is made at least as wide as theirs, and wider by what they differ by, the two
            added as independent errors are.
        seed: Of the resampling; equal seeds give equal intervals.

    Raises:
        ValueError: The sides have different numbers of rounds, or none.
    """
    found = noise_between(ours_s, theirs_s, seed=seed)
    least = 0.0
    if noise is not None:
        found = found.widened(at_least=noise.half_width, by=abs(noise.centre))
        least = math.hypot(noise.half_width, noise.centre)
    verdict: Verdict = "undecided"
    if found.rounds >= FEWEST_ROUNDS and found.high < -math.log1p(LEAST_DIFFERENCE):
        verdict = "faster"
    elif found.rounds >= FEWEST_ROUNDS and found.low > math.log1p(LEAST_DIFFERENCE):
        verdict = "slower"
    return Comparison(
        ratio=math.exp(found.centre),
        low=math.exp(found.low),
        high=math.exp(found.high),
        verdict=verdict,
        noise_floor=math.expm1(least) + LEAST_DIFFERENCE,
        could_see=could_see(found.half_width),
    )


def could_see(half_width: float) -> float:
    """Returns the smallest difference, as a share, that is called in four of five such runs.

    Args:
        half_width: Of the 95 % interval of a ratio's logarithm, all known noise in it.
    """
    return math.expm1(half_width * (1 + _POWER_Z / _CONFIDENCE_Z)) + LEAST_DIFFERENCE


def noise_between(first_s: Timed, second_s: Timed, *, seed: int = 0) -> Interval:
    """Returns by how much one side is slower in the median round, as a logarithm.

    Args:
        first_s: Seconds, one a round.
        second_s: Seconds of the other side in the same rounds.
        seed: Of the resampling.

    Raises:
        ValueError: The sides have different numbers of rounds, or none.
    """
    first, second = np.asarray(first_s, np.float64), np.asarray(second_s, np.float64)
    if first.shape != second.shape or not first.size:
        raise ValueError(f"{first.size} rounds of one side and {second.size} of the other")
    logs = np.log(np.maximum(first, _SHORTEST_S)) - np.log(np.maximum(second, _SHORTEST_S))
    return median_interval(logs, seed=seed)
