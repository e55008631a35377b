"""From values to places along an axis, with round numbers to label it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Scale", "linear", "logarithmic", "number"]

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_LOG_STEPS = ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))
_FEWEST_TICKS = 3


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis.

    Attributes:
        low: Value at its start.
        high: Value at its end, over ``low``.
        start: Place of ``low``, in units of the drawing.
        end: Place of ``high``; under ``start`` for axes that go up.
        is_log: Whether equal ratios are equally far apart.
        ticks: Values to label.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """Returns the place of a value, held inside the axis."""
        held = min(max(value, self.low), self.high)
        if self.is_log:
            share = math.log(held / self.low) / math.log(self.high / self.low)
        else:
            share = (held - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def linear(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    zero: bool = False,
    most_ticks: int = 6,
    slack: float = 0.06,
) -> Scale:
    """Returns an axis that holds all values.

    Args:
        values: Finite ones; none at all gives 0 to 1.
        start: Place of the low end.
        end: Place of the high end.
        zero: Whether it begins at 0.
        most_ticks: Labels to have at most.
        slack: Share of the span to leave free at open ends.
    """
    known = list(values) or [0.0, 1.0]
    low, high = (min(0.0, *known) if zero else min(known)), max(known)
    span = (high - low) or 0.2 * abs(high) or 1.0
    if low == high and not zero:
        low, high = low - span / 2, high + span / 2
    high += slack * span
    low = low if zero else low - slack * span
    return Scale(
        low=low,
        high=high,
        start=start,
        end=end,
        is_log=False,
        ticks=_linear_ticks(low, high, most_ticks),
    )


def logarithmic(
    values: Iterable[float], start: float, end: float, *, most_ticks: int = 6, slack: float = 0.06
) -> Scale:
    """Returns a logarithmic axis that holds all values.

    Args:
        values: Positive and finite; none at all gives 1 to 10.
        start: Place of the low end.
        end: Place of the high end.
        most_ticks: Labels to have at most.
        slack: Share of the span, in logarithms, to leave free at both ends.
    """
    known = list(values) or [1.0, 10.0]
    low, high = min(known), max(known)
    room = max(math.log(high / low) * slack, 0.05)
    low, high = low * math.exp(-room), high * math.exp(room)
    return Scale(
        low=low,
        high=high,
        start=start,
        end=end,
        is_log=True,
        ticks=_log_ticks(low, high, most_ticks),
    )


def number(value: float) -> str:
    """Returns a short text of a tick: ``0.25``, ``40``, ``1,000.5``."""
    return f"{value:,.10g}"


def _linear_ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * one for one in _STEPS if (high - low) / (power * one) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(index * step, 12) for index in range(first, last + 1))


def _log_ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _LOG_STEPS:
        ticks = [step * 10.0**power for power in powers for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    if len(ticks) < _FEWEST_TICKS:
        return _linear_ticks(low, high, most)
    return tuple(ticks[:: -(-len(ticks) // most)])
