"""Weights moved out of the compiled code, into one block of bytes that the runtime maps.

TVM keeps constants inside the library and copies each to the heap when it is loaded: every weight
lies in memory twice or more. As parameters they lie where they are in the file, and the functions
for several batch sizes share one copy.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmdet.passes.relax_tools import constant_array, is_call_to, is_constant, make_call

__all__ = ["Weights", "lift_weights"]

ALIGNMENT_BYTES = 64
"""Of each tensor; what compiled code assumes of its buffers."""

_SMALLEST_BYTES = 1024
"""Smaller constants stay in the code: a parameter costs a check in every call."""


@dataclass(kw_only=True)
class Weights:
    """The tensors that compiled functions are given after their own arguments.

    Attributes:
        data: The tensors, one after the other.
        tensors: Offset, type and shape of each.
        functions: Which tensors each function takes, in order.
    """

    data: bytearray = field(default_factory=bytearray)
    tensors: list[tuple[int, str, tuple[int, ...]]] = field(default_factory=list)
    functions: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Starts without tensors."""
        self._known: dict[tuple[str, str, tuple[int, ...]], int] = {}

    def index_of(self, array: np.ndarray) -> int:
        """Returns the number of a tensor, which is added unless it is there."""
        data = np.ascontiguousarray(array).tobytes()
        key = (hashlib.sha256(data).hexdigest(), str(array.dtype), array.shape)
        if key not in self._known:
            self._known[key] = len(self.tensors)
            self.tensors.append((len(self.data), str(array.dtype), array.shape))
            self.data += data
            self.data += bytes(-len(self.data) % ALIGNMENT_BYTES)
        return self._known[key]

    def describe(self, member: str) -> dict[str, Any]:
        """Returns what the manifest says about them."""
        return {
            "member": member,
            "tensors": [[offset, dtype, list(shape)] for offset, dtype, shape in self.tensors],
            "functions": self.functions,
        }


def lift_weights(module: tvm.IRModule) -> tuple[tvm.IRModule, Weights]:
    """Makes the large constants of every Relax function its last parameters.

    Args:
        module: Functions in which each call of a kernel is a binding of its own.

    Returns:
        The module, and what to pass for the new parameters.
    """
    weights = Weights()
    result = tvm.IRModule(dict(module.functions))
    if module.attrs:
        result = result.with_attrs(module.attrs)
    for var in sorted(module.get_global_vars(), key=lambda v: v.name_hint):
        func = module[var]
        if isinstance(func, relax.Function):
            lifter = _Lifter(weights)
            result[var] = lifter.lift(func)
            weights.functions[var.name_hint] = list(lifter.params)
    return result, weights


@relax.expr_functor.mutator
class _Lifter(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self._weights = weights
        self.params: dict[int, Any] = {}

    def lift(self, func: relax.Function) -> relax.Function:
        body = self.visit_expr(func.body)
        return relax.Function(
            [*func.params, *self.params.values()],
            body,
            func.ret_ty,
            is_pure=func.is_pure,
            attrs=func.attrs,
        )

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        if not is_call_to(call, "relax.call_tir") or not isinstance(call.args[1], relax.Tuple):
            return call
        fields = [self._param(entry) for entry in call.args[1].fields]
        return make_call(call, [call.args[0], relax.Tuple(fields), *call.args[2:]])

    def _param(self, entry: Any) -> Any:
        if not is_constant(entry):
            return entry
        array = constant_array(entry)
        if array.nbytes < _SMALLEST_BYTES:
            return entry
        index = self._weights.index_of(array)
        if index not in self.params:
            self.params[index] = relax.Var(f"weight_{index}", entry.ty)
        return self.params[index]
