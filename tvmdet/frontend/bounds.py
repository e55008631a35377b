"""Interval arithmetic on what is known of values: which operators made them, how large they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["BINARY", "UNARY", "Facts", "apply_binary", "apply_unary", "join"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What holds of some values for any image.

    Attributes:
        operators: Operator types that made them; none for constants.
        low: No value is smaller.
        high: No value is larger.
    """

    operators: frozenset[str] = frozenset()
    low: float = -math.inf
    high: float = math.inf


def join(facts: Iterable[Facts]) -> Facts:
    """Returns what holds of all values together; there is at least one."""
    known = tuple(dict.fromkeys(facts))
    if len(known) == 1:
        return known[0]
    return Facts(
        operators=frozenset().union(*(fact.operators for fact in known)),
        low=min(fact.low for fact in known),
        high=max(fact.high for fact in known),
    )


def apply_unary(operator: str, value: Facts) -> Facts:
    """Returns what holds of the results of one of :data:`UNARY`."""
    low, high = UNARY[operator](value.low, value.high)
    return Facts(operators=value.operators | {operator}, low=low, high=high)


def apply_binary(operator: str, left: Facts, right: Facts) -> Facts:
    """Returns what holds of the results of one of :data:`BINARY`."""
    low, high = BINARY[operator]((left.low, left.high), (right.low, right.high))
    operators = left.operators | right.operators
    return Facts(operators=operators | {operator}, low=low, high=high)


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + _exp(-value))


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _product(left: float, right: float) -> float:
    # No value is infinite, bounds are: 0 times anything is 0.
    return 0.0 if 0.0 in (left, right) else left * right


def _multiply(left: tuple[float, float], right: tuple[float, float]) -> tuple[float, float]:
    corners = [_product(a, b) for a in left for b in right]
    return min(corners), max(corners)


def _divide(left: tuple[float, float], right: tuple[float, float]) -> tuple[float, float]:
    if right[0] <= 0.0 <= right[1]:
        return -math.inf, math.inf
    return _multiply(left, (1.0 / right[1], 1.0 / right[0]))


def _power(base: tuple[float, float], exponent: tuple[float, float]) -> tuple[float, float]:
    power = exponent[0]
    if power != exponent[1] or not 0 < power <= 16:
        return -math.inf, math.inf
    if base[0] >= 0:
        return base[0] ** power, base[1] ** power
    if power % 2 == 0:
        return 0.0, max(-base[0], base[1]) ** power
    return -math.inf, math.inf


UNARY: dict[str, Callable[[float, float], tuple[float, float]]] = {
    "Abs": lambda low, high: (0.0, max(-low, high)),
    "Exp": lambda low, high: (_exp(low), _exp(high)),
    "HardSigmoid": lambda low, high: (0.0, 1.0),
    "Neg": lambda low, high: (-high, -low),
    "Relu": lambda low, high: (max(low, 0.0), max(high, 0.0)),
    "Sigmoid": lambda low, high: (_sigmoid(low), _sigmoid(high)),
    "Softplus": lambda low, high: (0.0, math.inf),
    "Sqrt": lambda low, high: (math.sqrt(max(low, 0.0)), math.sqrt(max(high, 0.0))),
    "Tanh": lambda low, high: (-1.0, 1.0),
}

BINARY: dict[str, Callable[..., tuple[float, float]]] = {
    "Add": lambda left, right: (left[0] + right[0], left[1] + right[1]),
    "Div": _divide,
    "Max": lambda left, right: (max(left[0], right[0]), max(left[1], right[1])),
    "Min": lambda left, right: (min(left[0], right[0]), min(left[1], right[1])),
    "Mul": _multiply,
    "Pow": _power,
    "Sub": lambda left, right: (left[0] - right[1], left[1] - right[0]),
}
