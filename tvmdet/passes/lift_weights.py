"""Weights are taken out of the code: every entry function gets them as one more argument."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from tvmdet.artifact import WEIGHT_DTYPES

__all__ = ["LiftWeights"]

_BUILT_IN: Final = tvm.ir.Op.get("relax.call_builtin_with_ctx")
_RECORD: Final = "vm.builtin.cuda_graph.run_or_capture"

_LEAST_BYTES: Final = 2048
"""Smaller constants stay in the code: there are many, and together they are small."""


@tvm.ir.transform.module_pass(opt_level=0, name="LiftWeights")
class LiftWeights:
    """Module pass, last of all: large constants become elements of an added last parameter.

    The parameter is a tuple of tensors, the same for every Relax function of the module. Equal
    constants share an element. A function that TVM's CUDA runtime records is handed the tuple by
    the one that has it recorded. Earlier passes would guard the tuple with checks of every tensor
    in every call, and unpack it by instructions that then have to be undone; after them, one
    instruction of the virtual machine per weight is all.

    Attributes:
        weights: The lifted constants, in the order of the tuple; empty until the pass has run, and
            afterwards if there was nothing to lift: no function has the parameter then.
    """

    def __init__(self) -> None:
        """Starts without weights."""
        self.weights: list[npt.NDArray[Any]] = []

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module without its large constants."""
        lifted = _Lifted()
        functions = {
            var: func for var, func in mod.functions_items() if isinstance(func, relax.Function)
        }
        bodies = {}
        for var, func in functions.items():
            lifter = _Lifter(mod, lifted)
            bodies[var] = lifter.visit_expr(func.body), lifter.elements
        self.weights = lifted.arrays
        if not lifted.arrays:
            return mod
        changed = mod.clone()
        for var, (body, elements) in bodies.items():
            if not functions[var].params:
                continue  # it allocates what others use
            weights = relax.Var("weights", relax.TupleType(lifted.types))
            handed_on = _HandOn(mod, weights).visit_expr(body)
            changed.update_func(var, _with_parameter(functions[var], handed_on, elements, weights))
        return changed


class _Lifted:
    """The constants that were found so far, each of equal ones once."""

    def __init__(self) -> None:
        self.arrays: list[npt.NDArray[Any]] = []
        self.types: list[Any] = []
        self._indices: dict[tuple[str, bytes], int] = {}

    def index_of(self, constant: Any) -> int | None:
        """Returns the element that holds a constant; None for one that stays in the code."""
        if not isinstance(constant.ty, relax.TensorType):
            return None
        if str(constant.ty.dtype) not in WEIGHT_DTYPES:
            return None
        # The compiler's own bytes: a network's weights would fill the memory twice.
        array = np.from_dlpack(constant.value)
        if array.nbytes < _LEAST_BYTES:
            return None
        key = (str(constant.ty), hashlib.sha256(np.ascontiguousarray(array).data).digest())
        if key not in self._indices:
            self._indices[key] = len(self.arrays)
            self.arrays.append(array)
            self.types.append(constant.ty)
        return self._indices[key]


@relax.expr_functor.mutator
class _Lifter(relax.PyExprMutator):  # type: ignore[misc]
    """Replaces the constants of one function by variables for elements of the tuple."""

    def __init__(self, mod: tvm.IRModule, lifted: _Lifted) -> None:
        super().__init__(mod)
        self._lifted = lifted
        self.elements: dict[int, Any] = {}

    def visit_generic_const_(self, constant: Any) -> Any:
        index = self._lifted.index_of(constant)
        if index is None:
            return constant
        if index not in self.elements:
            self.elements[index] = relax.Var(f"weight{index}", constant.ty)
        return self.elements[index]


@relax.expr_functor.mutator
class _HandOn(relax.PyExprMutator):  # type: ignore[misc]
    """Adds the tuple of weights to the arguments of what is recorded."""

    def __init__(self, mod: tvm.IRModule, weights: relax.Var) -> None:
        super().__init__(mod)
        self._weights = weights

    def visit_call_(self, call: Any) -> Any:
        if call.op != _BUILT_IN or call.args[0].global_symbol != _RECORD:
            return call
        builtin, (function, arguments, which) = call.args[0], call.args[1].fields
        given = relax.Tuple([*arguments.fields, self._weights])
        return relax.Call(
            call.op, [builtin, relax.Tuple([function, given, which])], call.attrs, call.ty_args
        )


def _with_parameter(
    func: relax.Function, body: Any, elements: Mapping[int, Any], weights: relax.Var
) -> relax.Function:
    unpacking = relax.BindingBlock(
        [
            relax.VarBinding(var, relax.TupleGetItem(weights, index))
            for index, var in sorted(elements.items())
        ]
    )
    return relax.Function(
        [*func.params, weights],
        relax.SeqExpr([unpacking, *body.blocks], body.body),
        func.ret_ty,
        func.is_pure,
        func.attrs,
    )
