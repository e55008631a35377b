"""FoldConv2dAffine: batch normalisation and other per-channel arithmetic melts into convolutions.

A convolution with constant weights, followed by additions, subtractions, multiplications or
divisions with constants that have one value per output channel (or one altogether), is again a
convolution with other weights and one addition. Batch normalisation is decomposed into such
arithmetic first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmdet.passes.relax_tools import (
    constant_array,
    is_call_to,
    is_constant,
    rewrite_functions,
    static_shape,
)

__all__ = ["FoldConv2dAffine"]


@tvm.ir.transform.module_pass(opt_level=0, name="FoldConv2dAffine")
class FoldConv2dAffine:
    """Module pass on NCHW networks, before the layout is changed."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with affine chains folded."""
        mod = relax.transform.DecomposeOpsForInference()(mod)
        mod = relax.transform.FoldConstant()(mod)
        return rewrite_functions(mod, lambda func: _Folder(func).run())


class _Folder:
    """Folds one function: every value knows the convolution and affine map it came from."""

    def __init__(self, func: relax.Function) -> None:
        self.func = func
        self.uses = _count_uses(func)
        # Variable -> (convolution call, scale per channel, offset per channel).
        self.chains: dict[Any, tuple[Any, np.ndarray, np.ndarray]] = {}

    def run(self) -> relax.Function:
        builder = relax.BlockBuilder()
        renamed: dict[Any, Any] = {}

        def rename(expr: Any) -> Any:
            if isinstance(expr, relax.Tuple):
                return relax.Tuple([rename(field) for field in expr.fields])
            if isinstance(expr, relax.TupleGetItem):
                return relax.TupleGetItem(rename(expr.tuple_value), expr.index)
            if isinstance(expr, relax.Call):
                args = [rename(arg) for arg in expr.args]
                return relax.Call(expr.op, args, expr.attrs, expr.ty_args)
            return renamed.get(expr, expr)

        with builder.function("main", list(self.func.params)):
            with builder.dataflow():
                for block in self.func.body.blocks:
                    for binding in block.bindings:
                        value = binding.value
                        self._follow(binding.var, value)
                        chain = self.chains.get(binding.var)
                        if chain is not None and not is_call_to(value, "relax.nn.conv2d"):
                            renamed[binding.var] = _emit_chain(builder, chain, rename)
                        else:
                            renamed[binding.var] = builder.emit(rename(value))
                out = builder.emit_output(rename(self.func.body.body))
            builder.emit_func_output(out)
        func = builder.get()["main"]
        return func.with_attrs(self.func.attrs) if self.func.attrs else func

    def _follow(self, var: Any, value: Any) -> None:
        if is_call_to(value, "relax.nn.conv2d"):
            if is_constant(value.args[1]) and value.attrs.data_layout == "NCHW":
                filters = static_shape(value.args[1])[0]
                self.chains[var] = (value, np.ones(filters, "f8"), np.zeros(filters, "f8"))
            return
        for name in ("add", "subtract", "multiply", "divide"):
            if is_call_to(value, f"relax.{name}"):
                self._extend(var, name, *value.args)

    def _extend(self, var: Any, name: str, left: Any, right: Any) -> None:
        if is_constant(left) and name in ("add", "multiply"):
            left, right = right, left
        if left not in self.chains or not is_constant(right) or self.uses[left] != 1:
            return
        conv, scale, offset = self.chains[left]
        factor = _per_channel(right, len(scale))
        if factor is None:
            return
        if name == "add":
            self.chains[var] = (conv, scale, offset + factor)
        elif name == "subtract":
            self.chains[var] = (conv, scale, offset - factor)
        elif name == "multiply":
            self.chains[var] = (conv, scale * factor, offset * factor)
        elif np.all(factor != 0):
            self.chains[var] = (conv, scale / factor, offset / factor)


def _emit_chain(
    builder: relax.BlockBuilder, chain: tuple[Any, np.ndarray, np.ndarray], rename: Any
) -> Any:
    conv, scale, offset = chain
    weight = conv.args[1]
    if np.any(scale != 1):
        array = constant_array(weight)
        scaled = array * scale.reshape(-1, 1, 1, 1)
        weight = relax.const(scaled.astype(array.dtype))
    call = relax.Call(conv.op, [rename(conv.args[0]), weight], conv.attrs, conv.ty_args)
    result = builder.emit(call)
    if np.any(offset != 0):
        dtype = constant_array(weight).dtype
        bias = relax.const(offset.astype(dtype).reshape(1, -1, 1, 1))
        result = builder.emit(relax.op.add(result, bias))
    return result


def _per_channel(constant: Any, channels: int) -> np.ndarray | None:
    """Returns one float64 per channel of an NCHW tensor, or None if the constant has more."""
    array = constant_array(constant)
    if array.dtype.kind != "f" or not np.all(np.isfinite(array)):
        return None
    if array.size == 1 and array.ndim <= 4:  # of more axes, it adds axes to the result
        return np.full(channels, float(array.reshape(())), "f8")
    if array.shape in ((channels, 1, 1), (1, channels, 1, 1)):
        return array.reshape(channels).astype("f8")
    return None


def _count_uses(func: relax.Function) -> dict[Any, int]:
    uses: dict[Any, int] = {}

    def visit(expr: Any) -> None:
        if isinstance(expr, relax.Var):
            uses[expr] = uses.get(expr, 0) + 1

    for block in func.body.blocks:
        for binding in block.bindings:
            value = binding.value
            parts = list(getattr(value, "args", [])) or [value]
            while parts:
                part = parts.pop()
                if isinstance(part, relax.Tuple):
                    parts.extend(part.fields)
                elif isinstance(part, relax.TupleGetItem):
                    parts.append(part.tuple_value)
                else:
                    visit(part)
    visit(func.body.body)
    return uses
