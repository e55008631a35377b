"""Operators along the last axis, legalised to rows that a template schedules.

Other axes are left to TVM's expressions, but for softmax, whose exponential has to be one that
vectorises.
"""

from __future__ import annotations

from typing import Any

from tvm import relax, te, topi

from tvmdet.passes.exponential import exp
from tvmdet.passes.relax_tools import legalize_as_usual, static_shape
from tvmdet.passes.row_expressions import layer_norm, reduce_rows, softmax
from tvmdet.targets import Target

__all__ = ["row_legalizers"]

_OUT_ELEMENTWISE_FUSABLE = 4  # tvm::relax::OpPatternKind::kOutEWiseFusable
_REDUCTION = 3  # kCommReduce


def row_legalizers(target: Target) -> dict[str, Any]:
    """Returns the legalisations for the vectors of a target, by operator."""
    lanes = target.vector_lanes_f32

    def legalize_softmax(builder: relax.BlockBuilder, call: Any) -> Any:
        if str(call.ty.dtype) != "float32":
            return legalize_as_usual(builder, call)
        rank, axis = len(call.ty.shape), int(call.attrs.axis)
        if rank > 1 and axis % rank == rank - 1:
            return builder.call_te(
                lambda x: softmax(x, lanes),
                call.args[0],
                primfunc_name_hint="softmax",
                primfunc_attrs={"op_pattern": _OUT_ELEMENTWISE_FUSABLE},
            )
        return builder.call_te(_softmax_across, call.args[0], axis, primfunc_name_hint="softmax")

    def legalize_layer_norm(builder: relax.BlockBuilder, call: Any) -> Any:
        attrs, rank = call.attrs, len(call.ty.shape)
        axes = [int(axis) % rank for axis in attrs.axes]
        vectors = all(len(arg.ty.shape) == 1 for arg in call.args[1:])
        if not (_is_float32(call) and rank > 1 and axes == [rank - 1] and vectors):
            return legalize_as_usual(builder, call)
        return builder.call_te(
            lambda x, gamma, beta: layer_norm(x, gamma, beta, lanes, float(attrs.epsilon)),
            *call.args,
            primfunc_name_hint="layer_norm",
            primfunc_attrs={"op_pattern": _OUT_ELEMENTWISE_FUSABLE},
        )

    def legalize_reduction(builder: relax.BlockBuilder, call: Any) -> Any:
        shape = static_shape(call.args[0])
        axes = [int(axis) % len(shape) for axis in call.attrs.axis or []]
        if not _is_float32(call) or len(shape) < 2 or axes != [len(shape) - 1] or shape[-1] < 4:
            return legalize_as_usual(builder, call)
        operator = call.op.name.removeprefix("relax.")
        return builder.call_te(
            lambda x: reduce_rows(x, lanes, operator, keepdims=bool(call.attrs.keepdims)),
            call.args[0],
            primfunc_name_hint=operator,
            primfunc_attrs={"op_pattern": _REDUCTION},
        )

    reductions = ("sum", "mean", "max", "min")
    return {
        "relax.nn.softmax": legalize_softmax,
        "relax.nn.layer_norm": legalize_layer_norm,
        **{f"relax.{name}": legalize_reduction for name in reductions},
    }


def _is_float32(call: Any) -> bool:
    return all(str(arg.ty.dtype) == "float32" for arg in call.args)


def _softmax_across(x: te.Tensor, axis: int) -> te.Tensor:
    greatest = topi.max(x, axis=axis, keepdims=True)
    exponential = exp(topi.subtract(x, greatest))
    return topi.divide(exponential, topi.sum(exponential, axis=axis, keepdims=True))
