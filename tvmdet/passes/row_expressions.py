"""Softmax, layer norm and reductions along the last axis, in the form that a template schedules.

A row is taken apart into whole vectors and a rest, which is filled up to a vector with what its
reduction does not notice. Each lane reduces its share of the row, and halves of lanes are combined
until one is left: vector arithmetic for rows of any length, without a test inside a loop. Several
vectors of lanes hide the latency of the additions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tvm import te, tirx

from tvmdet.passes.exponential import exp

__all__ = ["MARK", "layer_norm", "reduce_rows", "softmax"]

MARK = "tvmdet.rows"
_PART = {MARK: "part"}

Combine = Callable[[Any, Any], Any]


class _Row:
    """Values of one row: whole vectors ``[..., n * lanes]`` and a rest ``[..., lanes]``."""

    def __init__(self, whole: te.Tensor | None, rest: te.Tensor | None) -> None:
        self.whole, self.rest = whole, rest

    def map(self, compute: Callable[[te.Tensor, bool], te.Tensor]) -> _Row:
        """Returns what ``compute(values, whether they are the rest)`` makes of both parts."""
        return _Row(
            None if self.whole is None else compute(self.whole, False),
            None if self.rest is None else compute(self.rest, True),
        )

    def at(self, *i: Any) -> Any:
        """Returns one value, by its place in the row."""
        if self.rest is None:
            assert self.whole is not None, "a row has one part at least"
            return self.whole(*i)
        if self.whole is None:
            return self.rest(*i)
        border = int(self.whole.shape[-1])
        rest = self.rest(*i[:-1], i[-1] - border)
        return tirx.if_then_else(i[-1] < border, self.whole(*i), rest)


class _Rows:
    """The rows ``[..., length]`` of a tensor."""

    def __init__(self, x: te.Tensor, lanes: int, fill: Any) -> None:
        *self.lead, self.length = (int(d) for d in x.shape)
        self.lanes = _lanes(self.length, lanes)
        border = self.length // self.lanes * self.lanes
        self.left = self.length - border  # values in the rest
        whole = rest = None
        if border:
            shape = (*self.lead, border)
            whole = te.compute(shape, lambda *i: x(*i), name="whole", attrs={MARK: "row"})
        if self.left:
            rest = te.compute(
                (*self.lead, self.lanes),
                lambda *i: tirx.Select(
                    i[-1] < self.left,
                    x(*i[:-1], tirx.min(i[-1] + border, self.length - 1)),
                    fill,
                ),
                name="rest",
                attrs=_PART,
            )
        self.values = _Row(whole, rest)

    def reduce(self, name: str, row: _Row, reduction: Any, combine: Combine) -> te.Tensor:
        """Returns ``[..., 1]``: vectors reduced lane by lane, then the lanes in halves."""
        part = row.rest
        if row.whole is not None:
            vectors = int(row.whole.shape[-1]) // self.lanes
            chains = max(c for c in (1, 2, 3, 4, 5, 6) if vectors % c == 0)
            part = self._reduce_whole(name, row, reduction, combine, vectors, chains)
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            part = self._halve(f"{name}_{lanes}", part, lanes, combine)
        return part

    def _reduce_whole(
        self, name: str, row: _Row, reduction: Any, combine: Combine, vectors: int, chains: int
    ) -> te.Tensor:
        whole, width = row.whole, chains * self.lanes
        assert whole is not None, "there are vectors, so there is a whole part"
        step = te.reduce_axis((0, vectors // chains), name="step")
        sums = te.compute(
            (*self.lead, width),
            lambda *i: reduction(whole(*i[:-1], step * width + i[-1]), axis=step),
            name=f"{name}_chains",
            attrs=_PART,
        )

        def join(*i: Any) -> Any:
            parts = [sums(*i[:-1], i[-1] + chain * self.lanes) for chain in range(chains)]
            return functools.reduce(combine, parts + ([] if row.rest is None else [row.rest(*i)]))

        return te.compute((*self.lead, self.lanes), join, name=f"{name}_lanes", attrs=_PART)

    def _halve(self, name: str, part: te.Tensor, lanes: int, combine: Combine) -> te.Tensor:
        return te.compute(
            (*self.lead, lanes),
            lambda *i: combine(part(*i), part(*i[:-1], i[-1] + lanes)),
            name=name,
            attrs=_PART,
        )

    def describe(self, operator: str) -> dict[str, str]:
        """Returns the mark of the result."""
        return {MARK: f"{operator} {'x'.join(map(str, (*self.lead, self.length)))}"}


def _lanes(length: int, lanes: int) -> int:
    """Returns the lanes for a row: for a short one fewer, best without a rest."""
    if length >= lanes:
        return lanes
    short = next(n for n in (16, 8, 4, 2, 1) if length % n == 0)
    if short >= 4:
        return short
    while lanes > length:
        lanes //= 2
    return lanes


def _add(a: Any, b: Any) -> Any:
    return a + b


def softmax(x: te.Tensor, lanes: int) -> te.Tensor:
    """Returns the softmax along the last axis of a float32 tensor."""
    rows = _Rows(x, lanes, tirx.min_value("float32"))
    greatest = rows.reduce("greatest", rows.values, te.max, tirx.max)

    def power(values: te.Tensor, is_rest: bool) -> te.Tensor:
        shifted = te.compute(
            values.shape, lambda *i: values(*i) - greatest(*i[:-1], 0), name="shifted"
        )
        # What the rest was filled up with becomes 1e-38 each, beside a sum of at least one.
        powers = exp(shifted)
        return te.compute(powers.shape, lambda *i: powers(*i), name="power", attrs=_PART)

    kept = rows.values.map(power)
    total = rows.reduce("total", kept, te.sum, _add)
    share = te.compute((*rows.lead, 1), lambda *i: 1.0 / total(*i), name="share", attrs=_PART)
    return te.compute(
        x.shape,
        lambda *i: kept.at(*i) * share(*i[:-1], 0),
        name="softmax",
        attrs=rows.describe("softmax"),
    )


def layer_norm(
    x: te.Tensor, gamma: te.Tensor, beta: te.Tensor, lanes: int, epsilon: float
) -> te.Tensor:
    """Returns rows with mean 0 and variance 1, times ``gamma``, plus ``beta``; float32.

    The variance is that of the centred values: nothing cancels.
    """
    zero = tirx.const(0.0, "float32")
    rows = _Rows(x, lanes, zero)
    part = tirx.const(1.0 / rows.length, "float32")
    total = rows.reduce("total", rows.values, te.sum, _add)
    mean = te.compute((*rows.lead, 1), lambda *i: total(*i) * part, name="mean", attrs=_PART)

    def centre(values: te.Tensor, is_rest: bool) -> te.Tensor:
        def of(*i: Any) -> Any:
            value = values(*i) - mean(*i[:-1], 0)
            return tirx.Select(i[-1] < rows.left, value, zero) if is_rest else value

        return te.compute(values.shape, of, name="centred", attrs=_PART)

    def square(values: te.Tensor, is_rest: bool) -> te.Tensor:
        return te.compute(values.shape, lambda *i: values(*i) * values(*i), name="square")

    centred = rows.values.map(centre)
    squares = rows.reduce("squares", centred.map(square), te.sum, _add)
    scale = te.compute(
        (*rows.lead, 1),
        lambda *i: 1.0 / tirx.sqrt(squares(*i) * part + tirx.const(epsilon, "float32")),
        name="scale",
        attrs=_PART,
    )
    return te.compute(
        x.shape,
        lambda *i: centred.at(*i) * scale(*i[:-1], 0) * gamma(i[-1]) + beta(i[-1]),
        name="layer_norm",
        attrs=rows.describe("layer_norm"),
    )


def reduce_rows(x: te.Tensor, lanes: int, operator: str, *, keepdims: bool) -> te.Tensor:
    """Returns the ``sum``, ``mean``, ``max`` or ``min`` along the last axis; float32."""
    fill, reduction, combine = {
        "sum": (tirx.const(0.0, "float32"), te.sum, _add),
        "mean": (tirx.const(0.0, "float32"), te.sum, _add),
        "max": (tirx.min_value("float32"), te.max, tirx.max),
        "min": (tirx.max_value("float32"), te.min, tirx.min),
    }[operator]
    rows = _Rows(x, lanes, fill)
    found = rows.reduce(operator, rows.values, reduction, combine)
    factor = 1.0 / rows.length if operator == "mean" else 1.0

    def result(*i: Any) -> Any:
        value = found(*(i[:-1] if keepdims else i), 0)
        return value * tirx.const(factor, "float32") if operator == "mean" else value

    shape = (*rows.lead, 1) if keepdims else tuple(rows.lead)
    return te.compute(shape, result, name=operator, attrs=rows.describe(operator))
