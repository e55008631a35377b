"""LowerNonMaxSuppression: the importer's bounded NonMaxSuppression as a compiled kernel.

Relax has no operator with a stated number of rows and a mask of candidates, so the importer
writes a pure call of a function that exists nowhere, and this pass replaces it.
"""

from __future__ import annotations

import json
from typing import Any

import tvm
from tvm import relax

from tvmdet.passes.non_max_suppression_kernel import non_max_suppression_func
from tvmdet.passes.relax_tools import is_call_to, static_shape
from tvmdet.passes.rewrite_calls import rewrite_calls

__all__ = ["LowerNonMaxSuppression", "call_non_max_suppression"]

_NAME = "tvmdet.non_max_suppression"


def call_non_max_suppression(
    boxes: Any, scores: Any, real: Any, *, rows: int, **attributes: Any
) -> Any:
    """Returns the call that :class:`LowerNonMaxSuppression` replaces.

    Args:
        boxes: float32 ``[N, B, 4]``.
        scores: float32 ``[N, C, B]``.
        real: bool ``[B]``.
        rows: K.
        attributes: The further arguments of
            :func:`~tvmdet.passes.non_max_suppression_kernel.non_max_suppression_func`.

    Returns:
        A tuple: selected int64 ``[K, 3]``, valid bool ``[K]``.
    """
    types = relax.TupleType(
        [relax.TensorType((rows, 3), "int64"), relax.TensorType((rows,), "bool")]
    )
    facts = tvm.ir.StringImm(json.dumps({"rows": rows, **attributes}, sort_keys=True))
    return relax.call_pure_packed(_NAME, boxes, scores, real, facts, ty_args=[types])


@tvm.ir.transform.module_pass(opt_level=0, name="LowerNonMaxSuppression")
class LowerNonMaxSuppression:
    """Module pass, before operators are legalised."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with suppressions replaced by calls of kernels."""
        return rewrite_calls(mod, _non_max_suppression)


def _non_max_suppression(builder: relax.BlockBuilder, call: Any) -> Any:
    if not is_call_to(call, "relax.call_pure_packed"):
        return call
    name, *args = call.args
    if str(getattr(name, "global_symbol", "")) != _NAME:
        return call
    boxes, scores, real, facts = args
    images, classes, count = static_shape(scores)
    func = non_max_suppression_func(images, classes, count, **json.loads(facts.value))
    var = builder.add_func(func, "non_max_suppression")
    outputs = list(call.ty.fields)
    return relax.call_tir(var, relax.Tuple([boxes, scores, real]), outputs)
