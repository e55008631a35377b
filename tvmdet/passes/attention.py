"""FuseAttention: scores, their softmax and what they weigh, as one kernel.

``softmax(Q @ K * scale + mask) @ V`` writes the scores ``[..., M, N]`` to memory and reads them
twice where it is three kernels. As one, a block of rows goes from scores to results while it lies
in L2, where that has room for it (:mod:`tvmdet.schedules.common.attention`).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax, te, tirx

from tvmdet.passes.batch_matmul import pack_columns, packed_product
from tvmdet.passes.relax_tools import (
    constant_array,
    count_readers,
    is_call_to,
    is_constant,
    static_shape,
)
from tvmdet.passes.rewrite_calls import rewrite_calls
from tvmdet.passes.row_expressions import softmax
from tvmdet.targets import Target

__all__ = ["FuseAttention", "row_blocks"]

_OUT_ELEMENTWISE_FUSABLE = 4  # tvm::relax::OpPatternKind::kOutEWiseFusable
_LEAST_ROWS, _MOST_ROWS = 8, 80
"""Of a block: fewer read the keys too often, more leave no room in L2."""
_MOST_WASTE = 0.03
"""Rows computed beyond the last one, as a share of all: of a prime number there are some."""


@tvm.ir.transform.module_pass(opt_level=0, name="FuseAttention")
class FuseAttention:
    """Module pass, just before operators are legalised; for targets that have the template."""

    def __init__(self, target: Target) -> None:
        """Packs columns for the vectors of ``target``."""
        self._target = target

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module; what only one kernel of attention read is gone."""
        if self._target.family not in ("x86", "arm"):
            return mod
        uses = count_readers(mod)
        lanes = self._target.vector_lanes_f32

        def fused(builder: relax.BlockBuilder, call: Any) -> Any:
            found = _find(builder, call, uses)
            if found is None:
                return call
            tensors = [found.queries, found.keys, found.values]
            tensors += [] if found.mask is None else [found.mask]
            return builder.call_te(
                lambda q, k, v, mask=None: _attention(q, k, v, mask, found.scale, lanes),
                *tensors,
                primfunc_name_hint="attention",
                primfunc_attrs={"op_pattern": _OUT_ELEMENTWISE_FUSABLE},
            )

        return relax.transform.DeadCodeElimination()(rewrite_calls(mod, fused))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    queries: Any
    keys: Any
    values: Any
    mask: Any
    scale: float


class _Reader:
    """Reads a function backwards, along variables with one reader."""

    def __init__(self, builder: relax.BlockBuilder, uses: Counter[Any]) -> None:
        self._builder, self._uses = builder, uses

    def made_by(self, value: Any, name: str) -> Any:
        """Returns the call to an operator that only this reader's variable is the result of."""
        if not isinstance(value, relax.Var) or self._uses[value] != 1:
            return None
        made = self._builder.lookup_binding(value)
        return made if made is not None and is_call_to(made, name) else None

    def scores(self, value: Any) -> tuple[Any, float] | None:
        """Returns the product that a value is, and the number that it is multiplied by."""
        scale = np.float32(1.0)
        if (scaled := self.made_by(value, "relax.multiply")) is not None:
            value, factor = sorted(scaled.args, key=is_constant)
            scale = _number(factor)
        elif (scaled := self.made_by(value, "relax.divide")) is not None:
            value, factor = scaled.args
            with np.errstate(divide="ignore", over="ignore"):
                scale = np.float32(1.0) / _number(factor)
        product = self.made_by(value, "relax.matmul")
        # TVM computes no product that is multiplied by 0.
        if product is None or not np.isfinite(scale) or scale == 0.0:
            return None
        return product, float(scale)


def _number(factor: Any) -> np.float32:
    """Returns the value of a constant of one element, or one that is not a number."""
    if not is_constant(factor) or constant_array(factor).size != 1:
        return np.float32(np.nan)
    return np.float32(constant_array(factor).reshape(()))


def _find(builder: relax.BlockBuilder, call: Any, uses: Counter[Any]) -> _Found | None:
    """Returns the parts of attention if a call is its last product."""
    if not is_call_to(call, "relax.matmul"):
        return None
    reader = _Reader(builder, uses)
    weights = reader.made_by(call.args[0], "relax.nn.softmax")
    if weights is None or int(weights.attrs.axis) not in (-1, len(static_shape(weights)) - 1):
        return None
    (logits,) = weights.args
    ways = [(logits, None)]
    if (added := reader.made_by(logits, "relax.add")) is not None:
        ways = [tuple(added.args), tuple(reversed(added.args))]
    for one, mask in ways:
        found = reader.scores(one)
        if found is None or static_shape(found[0]) != static_shape(weights):
            continue
        (queries, keys), values = found[0].args, call.args[1]
        if _fits(queries, keys, values, mask):
            return _Found(queries=queries, keys=keys, values=values, mask=mask, scale=found[1])
    return None


def _fits(queries: Any, keys: Any, values: Any, mask: Any) -> bool:
    shapes = [static_shape(one) for one in (queries, keys, values)]
    if any(len(shape) < 3 or shape[:-2] != shapes[0][:-2] for shape in shapes):
        return False
    parts = [queries, keys, values, *([] if mask is None else [mask])]
    return all(str(one.ty.dtype) == "float32" for one in parts)


def row_blocks(rows: int) -> list[int]:
    """Returns into how many rows at a time the rows can be cut, without a rest if possible."""
    if rows < _LEAST_ROWS:
        return [rows]
    sizes = range(_LEAST_ROWS, min(rows, _MOST_ROWS) + 1)
    whole = [n for n in sizes if rows % n == 0]
    return whole or [n for n in sizes if -rows % n <= _MOST_WASTE * rows]


def _attention(
    queries: te.Tensor,
    keys: te.Tensor,
    values: te.Tensor,
    mask: te.Tensor | None,
    scale: float,
    lanes: int,
) -> te.Tensor:
    """Returns ``softmax(queries @ keys * scale + mask) @ values``; all float32.

    Args:
        queries: ``[..., M, D]``.
        keys: ``[..., D, N]``.
        values: ``[..., N, E]``.
        mask: Of a shape that is broadcast to ``[..., M, N]``, or None.
        scale: Of the scores.
        lanes: Elements of a vector.
    """
    *lead, rows, depth = (int(d) for d in queries.shape)
    tokens, width = (int(d) for d in values.shape[-2:])
    blocks = row_blocks(rows)
    whole = max(-(-rows // n) * n for n in blocks)

    def clamp(*i: Any) -> Any:
        """Returns a place whose row is the last one beyond it: every block is full."""
        return i if whole == rows else (*i[:-2], tirx.min(i[-2], rows - 1), i[-1])

    if whole > rows:
        every = queries
        queries = te.compute((*lead, whole, depth), lambda *i: every(*clamp(*i)), name="clamped")
    scores = packed_product(queries, pack_columns(keys, lanes, "pack_keys"), "scores", {})

    def logit(*i: Any) -> Any:
        value = scores(*i) * tirx.const(scale, "float32")
        return value if mask is None else value + mask(*_broadcast(clamp(*i), mask))

    logits = te.compute((*lead, whole, tokens), logit, name="logits")
    many = math.prod(lead)
    notes = {
        "tvmdet.attention": f"attention {many}x{rows}x{depth}x{tokens}x{width}",
        "tvmdet.flop": 2 * many * rows * tokens * (depth + width),
        "tvmdet.lanes": lanes,
        "tvmdet.row_blocks": " ".join(map(str, blocks)),
    }
    weights = softmax(logits, lanes)
    sums = packed_product(weights, pack_columns(values, lanes, "pack_values"), "sums", notes)
    return te.compute((*lead, rows, width), lambda *i: sums(*i), name="cut")


def _broadcast(indices: Any, tensor: te.Tensor) -> list[Any]:
    """Returns where a tensor is read that is broadcast to more or longer axes."""
    own = indices[len(indices) - len(tensor.shape) :]
    return [0 if int(n) == 1 else i for i, n in zip(own, tensor.shape, strict=True)]
