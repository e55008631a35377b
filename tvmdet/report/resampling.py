"""The interval of a median of values in time order, by resampling blocks of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

__all__ = ["Interval", "block_length", "median_interval"]

Values = npt.NDArray[np.float64]

_RESAMPLES = 1000
_CHUNK = 1 << 21  # resampled values held at once
_CONFIDENCE = 0.95
_FEWEST_BLOCKS = 4

# Quantiles of Student's t at 97.5 %, over the normal one, by degrees of freedom.
_T_OVER_NORMAL = {2: 2.195, 3: 1.624, 4: 1.417, 5: 1.312, 6: 1.248, 7: 1.206, 8: 1.177, 9: 1.154}
_T_OVER_NORMAL |= {10: 1.137, 12: 1.112, 15: 1.087, 20: 1.064, 30: 1.042, 60: 1.021, 120: 1.010}


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A median and between what it lies with 95 % confidence.

    Attributes:
        centre: The median.
        low: Lower end.
        high: Upper end.
        rounds: Values that it is of.
        block: Neighbouring values that were resampled together.
    """

    centre: float
    low: float
    high: float
    rounds: int
    block: int = 1

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2

    def widened(self, *, at_least: float, by: float) -> Interval:
        """Returns the interval with another error added.

        Args:
            at_least: Half-width that it has at least.
            by: An independent error, which is added as such: squares add up.
        """
        low = math.hypot(max(self.centre - self.low, at_least), by)
        high = math.hypot(max(self.high - self.centre, at_least), by)
        return replace(self, low=self.centre - low, high=self.centre + high)


def median_interval(values: Values, *, seed: int = 0) -> Interval:
    """Returns the median of values in time order, with its interval.

    The circular block bootstrap (Politis and Romano, 1992) of :func:`block_length`, percentile
    ends. As few blocks as there are say little of their own spread: the ends are moved out by
    Student's t over the normal distribution, with one degree of freedom less than blocks.

    Args:
        values: One or more, in the order in which they came.
        seed: Of the resampling.
    """
    centre = float(np.median(values))
    block = block_length(values)
    medians = _resampled_medians(values, block, np.random.default_rng(seed))
    tail = (1 - _CONFIDENCE) / 2
    low, high = (float(value) for value in np.quantile(medians, (tail, 1 - tail)))
    wider = _t_over_normal(len(values) / block - 1)
    return Interval(
        centre=centre,
        low=centre - wider * max(centre - low, 0.0),
        high=centre + wider * max(high - centre, 0.0),
        rounds=len(values),
        block=block,
    )


def block_length(values: Values) -> int:
    """Returns how many neighbouring values to resample together.

    Politis and White, Automatic Block-Length Selection for the Dependent Bootstrap (2004), with
    the correction of Patton, Politis and White (2009), for the circular bootstrap; at least the
    cube root of the count, at most a quarter of it. What a median depends on is which values lie
    above it: the rule is applied to that.
    """
    count = len(values)
    most, least = max(count // _FEWEST_BLOCKS, 1), math.ceil(math.cbrt(count))
    above = (values > np.median(values)).astype(np.float64)
    above -= above.mean()
    variance = float(above @ above)
    if variance == 0 or count < 2 * _FEWEST_BLOCKS:
        return min(least, most)
    lags = min(count // 3, 200)
    correlation = np.array([above[: count - k] @ above[k:] for k in range(lags + 1)]) / variance
    reach = min(2 * max(_last_correlated(correlation, count), 1), lags)
    distance = np.abs(np.arange(-reach, reach + 1))
    # The flat-top window: one up to the half, then falling to zero.
    window = np.clip(2 * (1 - distance / reach), 0, 1)
    spectrum = float(window @ correlation[distance])
    slope = float(window @ (distance * correlation[distance]))
    if spectrum <= 0:
        return min(least, most)
    ideal = math.cbrt(1.5 * (slope / spectrum) ** 2 * count)
    return min(max(math.ceil(ideal), least), most)


def _last_correlated(correlation: Values, count: int) -> int:
    """Returns the lag after which five correlations in a row are insignificant."""
    threshold = 2 * math.sqrt(math.log10(count) / count)
    for lag in range(1, len(correlation)):
        if np.all(np.abs(correlation[lag : lag + 5]) < threshold):
            return lag - 1
    return len(correlation) - 1


def _resampled_medians(values: Values, block: int, rng: np.random.Generator) -> Values:
    count = len(values)
    blocks = math.ceil(count / block)
    offsets, parts, left = np.arange(block), [], _RESAMPLES
    while left > 0:
        drawn = min(left, max(_CHUNK // count, 1))
        starts = rng.integers(0, count, (drawn, blocks, 1))
        picks = ((starts + offsets) % count).reshape(drawn, -1)[:, :count]
        parts.append(np.median(values[picks], axis=1))
        left -= drawn
    return np.concatenate(parts)


def _t_over_normal(freedom: float) -> float:
    """Returns Student's quantile over the normal one, of the next smaller table entry."""
    known = [ratio for degrees, ratio in _T_OVER_NORMAL.items() if degrees <= freedom]
    return known[-1] if known else _T_OVER_NORMAL[2]
