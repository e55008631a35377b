"""What the rewriting knows of a value: bounds, which rows count, and sizes as symbols.

A dimension whose size depends on the image is a :class:`Symbol`: a bound B and a mask that says
which of the B rows are real. Rows are never moved to the front on the way ("masked", not
"compacted"), so a selection costs one comparison, and a position means the same in every value
that carries the symbol.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Comparison", "Extent", "Lanes", "Size", "Symbol", "Value", "extent_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Symbol:
    """A size that depends on the image.

    Attributes:
        bound: Rows that the rewritten network computes, B.
        mask: Name of a bool ``[B]`` value: which rows are real, in the original's order.
        prefix: Whether the real rows always come first, so that positions are ranks.
        count: Name of an int64 scalar, the number of real rows; None until somebody asks.
        parts: Where the dimension is others flattened: sizes and one symbol, outer first.
        at_least: How many rows are real whatever the image shows.
    """

    bound: int
    mask: str
    prefix: bool
    count: str | None = None
    parts: tuple[int | Symbol, ...] = ()
    at_least: int = 0


@dataclass(frozen=True, kw_only=True)
class Extent:
    """A size computed from sizes: ``factor`` times the counts of symbols, sorted by identity."""

    factor: int
    symbols: tuple[Symbol, ...]

    @property
    def upper(self) -> int:
        """The largest value it can have."""
        return self.factor * math.prod(symbol.bound for symbol in self.symbols)


Size = int | Extent


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two sizes of which the image decides whether the first is less than the second."""

    first: Size
    second: Size


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """Spaces that differ along an axis, such as the columns of NonMaxSuppression.

    Attributes:
        axis: The axis.
        spaces: One space per entry along it.
    """

    axis: int
    spaces: tuple[Symbol | None, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Value:
    """A value of the original network, as the rewritten one computes it.

    Attributes:
        name: Its name in the rewritten network; None for sizes that nothing computed yet.
        dtype: ONNX element type.
        shape: Static shape, bounds in open dimensions.
        symbols: Per dimension the symbol, None where the size is fixed.
        sizes: Its elements where they are sizes: an object array of ``int``, ``bool`` and
            :class:`Extent`.
        comparisons: Its elements where it compares sizes: an object array of ``bool`` and
            :class:`Comparison`.
        space: For positions: the symbol whose masked rows they count, None for plain numbers
            (and for positions in dimensions whose real rows come first: the same numbers).
        iota_axis: The axis along which the value is 0, 1, 2, ... at every row, real or not.
        grid: With ``iota_axis``: the dimensions whose coordinates it enumerates.
        in_range: Whether rows that are not real hold valid positions all the same.
    """

    name: str | None
    dtype: int
    shape: tuple[int, ...]
    symbols: tuple[Symbol | None, ...]
    sizes: np.ndarray | None = None
    comparisons: np.ndarray | None = None
    space: Symbol | Lanes | None = None
    iota_axis: int | None = None
    grid: tuple[int, ...] = ()
    in_range: bool = False

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def is_open(self) -> bool:
        """Whether a dimension depends on the image."""
        return any(self.symbols)

    @property
    def is_plain(self) -> bool:
        """Whether nothing about it depends on the image but its numbers."""
        return self.name is not None and not self.is_open and self.space is None


def extent_of(size: int, symbol: Symbol | None) -> Size:
    """Returns the size of a dimension as an expression in symbols that are not flattened."""
    if symbol is None:
        return size
    factor, symbols = 1, []
    for part in symbol.parts or (symbol,):
        if isinstance(part, int):
            factor *= part
        else:
            symbols.append(part)
    return Extent(factor=factor, symbols=tuple(sorted(symbols, key=id)))
