"""Small readers of Relax expressions, shared by the passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmdet.errors import ShapeError

__all__ = [
    "constant_array",
    "count_readers",
    "legalize_as_usual",
    "is_call_to",
    "is_constant",
    "make_call",
    "make_constant",
    "rewrite_functions",
    "static_shape",
]


def is_constant(expr: Any) -> bool:
    """Returns whether an expression is a constant tensor."""
    return isinstance(expr, tvm.ir.expr.GenericConst)


def constant_array(expr: Any) -> np.ndarray:
    """Returns the value of a constant tensor; do not write to it."""
    array: np.ndarray = expr.value.numpy()
    return array


def count_readers(mod: tvm.IRModule) -> Counter[Any]:
    """Returns how many times each variable is read in the Relax functions of a module."""
    readers: Counter[Any] = Counter()

    def look(node: Any) -> None:
        if isinstance(node, relax.Var):
            readers[node] += 1

    for func in mod.functions.values():
        if isinstance(func, relax.Function):
            for block in func.body.blocks:
                for binding in block.bindings:
                    relax.analysis.post_order_visit(binding.value, look)
            relax.analysis.post_order_visit(func.body.body, look)
    return readers


def make_constant(array: np.ndarray) -> Any:
    """Returns a constant tensor of the array's own type.

    ``relax.const`` without a type makes int32 of int64, and float32 of float64.
    """
    return relax.const(np.ascontiguousarray(array), str(array.dtype))


def static_shape(expr: Any) -> tuple[int, ...]:
    """Returns the shape of a tensor expression.

    Raises:
        ShapeError: A dimension is not known at compile time.
    """
    shape = expr.ty.shape
    try:
        return tuple(int(dim) for dim in shape)
    except TypeError as error:
        raise ShapeError(
            f"a tensor has the shape {shape}; every dimension must be known at compile time: "
            "give --size and --batch, or export the model without dynamic axes"
        ) from error


def is_call_to(expr: Any, name: str) -> bool:
    """Returns whether an expression calls the Relax operator of that name."""
    return isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op) and expr.op.name == name


def make_call(call: Any, args: Sequence[Any]) -> Any:
    """Returns the same call on other arguments; its type is inferred again."""
    return relax.Call(call.op, list(args), call.attrs, call.ty_args)


def legalize_as_usual(builder: relax.BlockBuilder, call: Any) -> Any:
    """Legalises a call as TVM does, for what a rule of ours does not cover."""
    return call.op.get_attr("FLegalize")(builder, call)


def rewrite_functions(
    mod: tvm.IRModule, rewrite: Callable[[relax.Function], relax.Function]
) -> tvm.IRModule:
    """Returns a module whose Relax functions are rewritten, without what nobody uses then."""
    result = tvm.IRModule(dict(mod.functions))
    for var, func in mod.functions.items():
        if isinstance(func, relax.Function):
            result[var] = rewrite(func)
    return relax.transform.DeadCodeElimination()(result)
