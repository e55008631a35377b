"""ConvertToNHWC: every image operator works on NHWC data, and transposes melt away.

Strategy. The pass walks the dataflow once and keeps each value in whatever axis order it was
computed in, together with that order (:class:`Value`). A transpose is then no work at all, it
only changes the bookkeeping; convolutions, pools and resizes ask for NHWC; elementwise
operators, concat, split, slices, reductions and reshapes follow their operands. Data is moved
only where an operator without a rule needs the original order (:meth:`Rewriter.materialize`).

Relax's own ``ConvertLayout`` does this per operator kind, and stops at scalars, at
squeeze-and-excite broadcasts and at every reshape: it left 8 transposes in a YOLOv8n and 400 in
a PicoDet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from tvmdet.passes.relax_tools import (
    constant_array,
    is_constant,
    make_call,
    make_constant,
    rewrite_functions,
    static_shape,
)

__all__ = ["ConvertToNHWC", "Rewriter", "Value"]

NHWC = (0, 2, 3, 1)
NWHC = (0, 3, 2, 1)


@dataclass(frozen=True)
class Value:
    """A tensor of the graph as the rewritten graph keeps it.

    Attributes:
        expr: The stored tensor.
        order: ``order[i]`` is the original axis that is stored at position ``i``.
    """

    expr: Any
    order: tuple[int, ...]

    @property
    def is_original(self) -> bool:
        """Whether the axes are stored in their original order."""
        return self.order == tuple(range(len(self.order)))

    def position(self, axis: int) -> int:
        """Returns where an original axis is stored; negative axes count from the end."""
        return self.order.index(axis % len(self.order))

    def original_shape(self) -> tuple[int, ...]:
        """Returns the shape in original axis order."""
        stored = static_shape(self.expr)
        return tuple(stored[self.order.index(axis)] for axis in range(len(stored)))


Rule = Callable[["Rewriter", Any], Any]


class Rewriter:
    """State of one walk: the block builder and where every variable now lives."""

    def __init__(self, builder: relax.BlockBuilder, rules: dict[str, Rule]) -> None:
        """Starts an empty walk."""
        self.builder = builder
        self.rules = rules
        self.values: dict[Any, Any] = {}

    def emit(self, expr: Any) -> Any:
        """Emits a binding and returns its variable."""
        return self.builder.emit(expr)

    def value(self, expr: Any) -> Any:
        """Returns the :class:`Value` of an argument, or a list of them for a tuple."""
        if expr in self.values:
            return self.values[expr]
        if isinstance(expr, relax.Tuple):
            return [self.value(field) for field in expr.fields]
        if is_constant(expr):
            return Value(expr, tuple(range(len(static_shape(expr)))))
        return expr

    def store_as(self, value: Value, order: Sequence[int]) -> Any:
        """Returns the tensor with its axes stored in ``order``, moving data if it must."""
        order = tuple(order)
        if value.order == order:
            return value.expr
        axes = tuple(value.order.index(axis) for axis in order)
        if is_constant(value.expr):
            return make_constant(constant_array(value.expr).transpose(axes))
        shape = static_shape(value.expr)
        kept = [axis for axis in axes if shape[axis] != 1]
        if kept == sorted(kept):  # only axes of length 1 move: the bytes stay where they are
            return self.emit(relax.op.reshape(value.expr, [shape[axis] for axis in axes]))
        return self.emit(relax.op.permute_dims(value.expr, axes))

    def materialize(self, value: Any) -> Any:
        """Returns the tensor (or tuple) in its original axis order."""
        if isinstance(value, list):
            return relax.Tuple([self.materialize(field) for field in value])
        if isinstance(value, Value):
            return self.store_as(value, range(len(value.order)))
        return value

    def broadcast_as(self, value: Value, order: Sequence[int]) -> Any:
        """Returns an operand of an elementwise operator, fit to a result stored in ``order``."""
        missing = len(order) - len(value.order)
        if len(value.order) == 0 or (missing == 0 and value.order == tuple(order)):
            return value.expr
        if missing:
            shape = (1,) * missing + value.original_shape()
            value = self.reshape(value, shape)
        return self.store_as(value, order)

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """Reshapes in original axis order, without moving data where the order allows it."""
        plan = plan_reshape(value.original_shape(), tuple(shape), value.order)
        if plan is None:
            expr = relax.op.reshape(self.materialize(value), list(shape))
            return Value(self.emit(expr), tuple(range(len(shape))))
        if is_constant(value.expr):
            stored = constant_array(value.expr).reshape([shape[axis] for axis in plan])
            return Value(make_constant(stored), plan)
        return Value(self.emit(relax.op.reshape(value.expr, [shape[a] for a in plan])), plan)

    def visit(self, expr: Any) -> Any:
        """Rewrites the right-hand side of one binding and returns where it now lives."""
        if isinstance(expr, relax.TupleGetItem):
            fields = self.value(expr.tuple_value)
            return fields[expr.index]
        if isinstance(expr, relax.Tuple):
            return [self.value(field) for field in expr.fields]
        if not isinstance(expr, relax.Call):
            return self.value(expr)
        rule = self.rules.get(expr.op.name) if isinstance(expr.op, tvm.ir.Op) else None
        result = rule(self, expr) if rule is not None else None
        return self.fall_back(expr) if result is None else result

    def fall_back(self, call: Any) -> Any:
        """Emits an operator without a rule, on operands in their original axis order."""
        args = [self.materialize(self.value(arg)) for arg in call.args]
        result = self.emit(make_call(call, args))
        return split_tuple(self, result)


def split_tuple(rewriter: Rewriter, expr: Any) -> Any:
    """Returns the Value of a tensor in its original order, or a list for a tuple."""
    if isinstance(expr.ty, relax.TupleType):
        count = len(expr.ty.fields)
        return [split_tuple(rewriter, rewriter.emit(expr[i])) for i in range(count)]
    if not isinstance(expr.ty, relax.TensorType):
        return expr
    return Value(expr, tuple(range(len(static_shape(expr)))))


def plan_reshape(
    old: tuple[int, ...], new: tuple[int, ...], order: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Returns the stored order after a reshape that moves no data, or None if it must.

    Axes are matched in groups of equal product, such as ``(H, W) -> (HW,)``; a group can be
    reshaped in place when its axes are stored side by side in their original sequence.

    Args:
        old: Shape before, in original axis order.
        new: Shape after, in original axis order.
        order: Stored order before.
    """
    if math.prod(old) != math.prod(new) or 0 in old:
        return None
    placed: list[tuple[float, list[int]]] = []
    key = -1.0
    for old_axes, new_axes in _reshape_groups(old, new):
        long_axes = [axis for axis in old_axes if old[axis] != 1]
        positions = [order.index(axis) for axis in long_axes]
        if positions:
            between = order[positions[0] : positions[-1] + 1]
            strangers = [a for a in between if old[a] != 1 and a not in long_axes]
            if strangers or positions != sorted(positions):
                return None
            key = positions[0]
        else:
            key = order.index(old_axes[0]) if old_axes else key + 0.25
        placed.append((key, new_axes))
    placed.sort(key=lambda item: item[0])
    return tuple(axis for _, axes in placed for axis in axes)


def _reshape_groups(
    old: tuple[int, ...], new: tuple[int, ...]
) -> list[tuple[list[int], list[int]]]:
    """Pairs runs of axes before a reshape with the runs of equal product after it."""
    groups = []
    i = j = 0
    while i < len(old) or j < len(new):
        old_axes, new_axes = (
            list(range(i, min(i + 1, len(old)))),
            list(range(j, min(j + 1, len(new)))),
        )
        i, j = i + len(old_axes), j + len(new_axes)
        while (left := math.prod(old[a] for a in old_axes)) != (
            right := math.prod(new[a] for a in new_axes)
        ):
            if left < right:
                old_axes.append(i)
                i += 1
            else:
                new_axes.append(j)
                j += 1
        groups.append((old_axes, new_axes))
    return groups


@tvm.ir.transform.module_pass(opt_level=0, name="ConvertToNHWC")
class ConvertToNHWC:
    """Module pass; rewrites every Relax function made of one dataflow block."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with image operators in NHWC."""
        from tvmdet.passes.nhwc_rules import RULES

        return rewrite_functions(mod, lambda func: _convert(func, RULES))


def _convert(func: relax.Function, rules: dict[str, Rule]) -> relax.Function:
    builder = relax.BlockBuilder()
    rewriter = Rewriter(builder, rules)
    with builder.function("main", list(func.params)):
        for param in func.params:
            rewriter.values[param] = split_tuple(rewriter, param)
        with builder.dataflow():
            for block in func.body.blocks:
                for binding in block.bindings:
                    rewriter.values[binding.var] = rewriter.visit(binding.value)
            out = builder.emit_output(rewriter.materialize(rewriter.value(func.body.body)))
        builder.emit_func_output(out)
    return builder.get()["main"].with_attrs(func.attrs) if func.attrs else builder.get()["main"]
