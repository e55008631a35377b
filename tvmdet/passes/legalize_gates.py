"""Squeeze-and-excitation gates kept apart from the convolution that computes them.

A gate ``[N, 1, 1, C]`` that a convolution has just computed is multiplied with a whole picture
``[N, H, W, C]``. TVM would fuse the convolution into that product, whose result has another shape:
no template then schedules it, and the convolution is computed by a plain loop. The product is
marked injective, which a convolution does not fuse with.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, topi

from tvmdet.passes.relax_tools import legalize_as_usual, static_shape

__all__ = ["GATES"]

_INJECTIVE = 2  # tvm::relax::OpPatternKind::kInjective
_OUT_ELEMENTWISE_FUSABLE = 4
_FAR = 12  # kernels between a convolution and its gate: a bias and an activation


def _legalize(compute: Any) -> Any:
    def legalize(builder: relax.BlockBuilder, call: Any) -> Any:
        if not any(
            _is_gate(builder, gate, picture) for gate, picture in (call.args, reversed(call.args))
        ):
            return legalize_as_usual(builder, call)
        name = call.op.name.split(".")[-1]
        return builder.call_te(
            compute,
            *call.args,
            primfunc_name_hint=f"gate_{name}",
            primfunc_attrs={"op_pattern": _INJECTIVE},
        )

    return legalize


def _is_gate(builder: relax.BlockBuilder, gate: Any, picture: Any) -> bool:
    if not all(isinstance(side, relax.Var) for side in (gate, picture)):
        return False
    shapes = [_shape(side) for side in (gate, picture)]
    if any(shape is None or len(shape) != 4 for shape in shapes) or shapes[0] == shapes[1]:
        return False
    return shapes[0][1:3] == (1, 1) and _from_convolution(builder, gate, shapes[0])


def _from_convolution(builder: relax.BlockBuilder, var: Any, shape: tuple[int, ...]) -> bool:
    """Returns whether elementwise kernels lead from a convolution to a value."""
    module = builder.get()
    for _ in range(_FAR):
        bound = builder.lookup_binding(var)
        if not isinstance(bound, relax.Call) or bound.op != tvm.ir.Op.get("relax.call_tir"):
            return False
        attrs = module[bound.args[0]].attrs
        if attrs is not None and int(attrs.get("op_pattern", -1)) == _OUT_ELEMENTWISE_FUSABLE:
            return True
        before = [
            arg for arg in bound.args[1] if isinstance(arg, relax.Var) and _shape(arg) == shape
        ]
        if not before:
            return False
        var = before[0]
    return False


def _shape(expr: Any) -> Any:
    return static_shape(expr) if isinstance(expr.ty, relax.TensorType) else None


GATES = {"relax.multiply": _legalize(topi.multiply), "relax.add": _legalize(topi.add)}
