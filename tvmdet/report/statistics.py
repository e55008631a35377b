"""What a list of timings says: percentiles, a ratio with its interval, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["FEWEST_ROUNDS", "Comparison", "Summary", "Verdict", "compare", "summarise"]

Verdict = Literal["faster", "slower", "undecided"]

FEWEST_ROUNDS = 6
"""Rounds below which nothing is decided.

If both sides were equally fast, five rounds would all go the same way in 6 % of cases, and six in
3 %: with fewer than six not even agreement of all rounds is a finding at the 5 % level.
"""

_CONFIDENCE = 0.95
_RESAMPLES = 4000
_FAR_OUT = 3.0
_CHUNK = 1 << 21  # resampled values held at once


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
    """How one side's median relates to the other's.

    Attributes:
        ratio: Our median over theirs; under 1 we are faster.
        low: Lower end of its 95 % interval.
        high: Upper end.
        verdict: Of our side: ``faster`` when the whole interval lies below 1, ``slower`` when
            it lies above, else ``undecided``.
    """

    ratio: float
    low: float
    high: float
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "ratio": round(self.ratio, 5),
            "interval_95": [round(self.low, 5), round(self.high, 5)],
            "verdict": self.verdict,
        }


def summarise(seconds: Sequence[float] | npt.NDArray[np.float64]) -> Summary:
    """Returns the percentiles of one or more timings."""
    values = np.asarray(seconds, np.float64)
    percents = (25, 50, 75, 90, 95, 99, 99.9)
    found = [float(value) for value in np.percentile(values, percents)]
    first, median, third, p90, p95, p99, p999 = found
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
        outliers=int((values > third + _FAR_OUT * (third - first)).sum()),
    )


def compare(ours_s: Sequence[float], theirs_s: Sequence[float], *, seed: int = 0) -> Comparison:
    """Compares two sides that were timed in turn, round by round.

    The interval is a percentile bootstrap of the ratio of medians (Efron and Tibshirani, An
    Introduction to the Bootstrap, ch. 13). Whole rounds are drawn, so that what disturbed both
    sides of a round alike stays paired and cancels.

    Args:
        ours_s: Seconds of our side, one a round.
        theirs_s: Seconds of the other side in the same rounds.
        seed: Of the resampling; equal seeds give equal intervals.

    Raises:
        ValueError: The sides have different numbers of rounds, or none.
    """
    ours, theirs = np.asarray(ours_s, np.float64), np.asarray(theirs_s, np.float64)
    if ours.shape != theirs.shape or not ours.size:
        raise ValueError(f"{ours.size} rounds of one side and {theirs.size} of the other")
    ratio = float(np.median(ours) / np.median(theirs))
    ratios = _resampled_ratios(ours, theirs, np.random.default_rng(seed))
    tail = (1 - _CONFIDENCE) / 2
    low, high = (float(value) for value in np.quantile(ratios, (tail, 1 - tail)))
    verdict: Verdict = "undecided"
    if ours.size >= FEWEST_ROUNDS and high < 1:
        verdict = "faster"
    elif ours.size >= FEWEST_ROUNDS and low > 1:
        verdict = "slower"
    return Comparison(ratio=ratio, low=low, high=high, verdict=verdict)


def _resampled_ratios(
    ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    rounds, parts, left = ours.size, [], _RESAMPLES
    while left > 0:
        drawn = min(left, max(_CHUNK // rounds, 1))
        picks = rng.integers(0, rounds, (drawn, rounds))
        parts.append(np.median(ours[picks], axis=1) / np.median(theirs[picks], axis=1))
        left -= drawn
    return np.concatenate(parts)
