"""Converters that replace TVM's where those leave forms that the passes cannot work with.

TVM's Clip becomes ``isnan``, ``where`` and ``call_tir``, its Pad and Tile a ``call_tir``: layout
passes and pattern matching stop there. Its Conv pads in a node of its own for ``auto_pad`` and
reshapes a constant bias in the graph. The converters here emit registered Relax operators
with folded constants only, and leave everything else to TVM's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from tvmdet.frontend.convert_deform_conv import DeformConv
from tvmdet.frontend.convert_einsum import Einsum
from tvmdet.frontend.convert_gather import Gather, GatherElements
from tvmdet.frontend.convert_roi_align import RoiAlign
from tvmdet.frontend.convert_scatter import ScatterND
from tvmdet.frontend.convert_suppression import BoundedNonMaxSuppression

__all__ = ["OWN_CONVERTERS", "converter_map", "plain_operands"]

_IMAGE_RANK = 4
_ELEMENTWISE = ("Add", "Div", "Mul", "Sub")


class _Clip(onnx_frontend.Clip):  # type: ignore[misc]
    """One ``relax.op.clip`` for constant bounds."""

    @classmethod
    def _impl_v1(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        return _clip(inputs[0], attr.get("min"), attr.get("max"))

    @classmethod
    def _impl_v11(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        low, high = inputs[1], inputs[2]
        if all(bound is None or _is_constant(bound) for bound in (low, high)):
            return _clip(inputs[0], _scalar(low), _scalar(high))
        data = inputs[0]
        if low is not None:
            data = bb.normalize(relax.op.maximum(data, low))
        return data if high is None else relax.op.minimum(data, high)

    _impl_v13 = _impl_v11


class _Conv(onnx_frontend.Conv):  # type: ignore[misc]
    """``nn.conv2d`` with its padding inside, then an add of a constant ``[1, C, 1, 1]``."""

    @classmethod
    def _impl_v11(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        data, weight, bias = inputs[0], inputs[1], inputs[2]
        plain = _rank(data) == _IMAGE_RANK and (bias is None or _is_constant(bias))
        if not plain:
            return super()._impl_v11(bb, inputs, attr, params)
        strides = list(attr.get("strides", (1, 1)))
        dilations = list(attr.get("dilations", (1, 1)))
        result = relax.op.nn.conv2d(
            data,
            weight,
            strides=strides,
            padding=_padding(data, weight, attr, strides, dilations),
            dilation=dilations,
            groups=int(attr.get("group", 1)),
        )
        if bias is None:
            return result
        values = _values(bias).reshape(1, -1, 1, 1)
        return relax.op.add(bb.normalize(result), relax.const(values))


class _Gemm(onnx_frontend.Gemm):  # type: ignore[misc]
    """Constant weights are turned here: to fold that in the graph TVM compiles a kernel."""

    @classmethod
    def _impl_v13(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        if attr.get("transB") and _is_constant(inputs[1]):
            weight = np.ascontiguousarray(_values(inputs[1]).T)
            inputs[1] = relax.const(weight, str(weight.dtype))
            attr = {**attr, "transB": 0}
        return super()._impl_v13(bb, inputs, attr, params)


class _HardSigmoid(onnx_frontend.HardSigmoid):  # type: ignore[misc]
    """``clip(x * alpha + beta, 0, 1)``."""

    @classmethod
    def _impl_v1(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        data = inputs[0]
        dtype = str(data.ty.dtype)
        scaled = relax.op.multiply(data, relax.const(float(attr.get("alpha", 0.2)), dtype))
        shifted = relax.op.add(scaled, relax.const(float(attr.get("beta", 0.5)), dtype))
        return _clip(bb.normalize(shifted), 0.0, 1.0)


class _HardSwish(onnx_frontend.HardSwish):  # type: ignore[misc]
    """``x * clip(x + 3, 0, 6) / 6``, as exporters without HardSwish spell it."""

    @classmethod
    def _impl_v14(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        data = inputs[0]
        dtype = str(data.ty.dtype)
        shifted = bb.normalize(relax.op.add(data, relax.const(3.0, dtype)))
        gated = relax.op.multiply(data, _clip(shifted, 0.0, 6.0))
        return relax.op.divide(gated, relax.const(6.0, dtype))


class _Pad(onnx_frontend.Pad):  # type: ignore[misc]
    """``nn.pad`` for constant padding that only grows."""

    @classmethod
    def _impl_v11(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        plain = _pad(inputs, attr)
        return super()._impl_v11(bb, inputs, attr, params) if plain is None else plain

    @classmethod
    def _impl_v18(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        plain = _pad(inputs, attr)
        return super()._impl_v18(bb, inputs, attr, params) if plain is None else plain

    @classmethod
    def _impl_v19(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        plain = _pad(inputs, attr)
        return super()._impl_v19(bb, inputs, attr, params) if plain is None else plain


class _Split(onnx_frontend.Split):  # type: ignore[misc]
    """The value itself where it is split into one part, which TVM makes a tuple of one.

    TensorFlow's ``unstack`` of a batch of one picture is such a Split.
    """

    @classmethod
    def _impl_v1(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        if attr["tvm_custom"]["num_outputs"] == 1:
            return inputs[0]
        return super()._impl_v1(bb, inputs, attr, params)

    @classmethod
    def _impl_v13(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        if attr["tvm_custom"]["num_outputs"] == 1:
            return inputs[0]
        return super()._impl_v13(bb, inputs, attr, params)


class _Tile(onnx_frontend.Tile):  # type: ignore[misc]
    """``relax.op.tile`` for constant repeats."""

    @classmethod
    def _impl_v6(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        if _is_constant(inputs[1]):
            return relax.op.tile(inputs[0], [int(count) for count in _values(inputs[1])])
        return super()._impl_v13(bb, inputs, attr, params)

    _impl_v13 = _impl_v6


OWN_CONVERTERS: dict[str, type] = {
    "BoundedNonMaxSuppression": BoundedNonMaxSuppression,
    "Clip": _Clip,
    "Conv": _Conv,
    "DeformConv": DeformConv,
    "Einsum": Einsum,
    "Gather": Gather,
    "GatherElements": GatherElements,
    "Gemm": _Gemm,
    "HardSigmoid": _HardSigmoid,
    "HardSwish": _HardSwish,
    "Pad": _Pad,
    "ScatterND": ScatterND,
    "RoiAlign": RoiAlign,
    "Split": _Split,
    "Tile": _Tile,
}


def converter_map() -> dict[str, Any]:
    """Returns the converter of every operator type that imports: TVM's, then ours."""
    return {**onnx_frontend._get_convert_map(), **OWN_CONVERTERS}


def plain_operands(operator: str, inputs: list[Any]) -> list[Any]:
    """Returns the inputs of a node with constant operands in the shape the passes want.

    In Add, Sub, Mul and Div a constant of one element becomes a scalar, so that it never
    broadcasts by position, and one of lower rank than the other operand gets leading
    dimensions of 1. An empty constant of Resize, which opset 11 has where a later one has no input,
    becomes none. Inputs of other operators come back as they are.
    """
    if operator == "Resize":
        empty = [_is_constant(one) and _values(one).size == 0 for one in inputs]
        return [None if none else one for none, one in zip(empty, inputs, strict=True)]
    if operator not in _ELEMENTWISE or len(inputs) != 2:
        return inputs
    return [_plain_operand(inputs[at], inputs[1 - at]) for at in range(2)]


def _plain_operand(value: Any, other: Any) -> Any:
    if not _is_constant(value) or _is_constant(other):
        return value
    array, rank = _values(value), _rank(other)
    if array.size == 1 and array.ndim <= rank:
        # Without its type, TVM would make a whole number an int32.
        return relax.const(array.reshape(()), str(array.dtype))
    if 0 < array.ndim < rank:
        wide = array.reshape((1,) * (rank - array.ndim) + array.shape)
        return relax.const(wide, str(array.dtype))
    return value


def _is_constant(value: Any) -> bool:
    return isinstance(value, tvm.ir.expr.GenericConst)


def _values(constant: Any) -> np.ndarray:
    return np.asarray(constant.value.numpy())


def _rank(value: Any) -> int:
    return int(getattr(value.ty, "ndim", -1)) if value is not None else -1


def _shape(value: Any) -> list[int]:
    return [int(dim) for dim in value.ty.shape]


def _scalar(constant: Any) -> float | None:
    return None if constant is None else float(_values(constant).reshape(-1)[0])


def _clip(data: Any, low: float | None, high: float | None) -> Any:
    """Emits a clip; a bound that is None, NaN or infinite does not bound, as in ONNX Runtime."""
    dtype = str(data.ty.dtype)
    low = None if low is None or math.isnan(low) or low == -math.inf else low
    high = None if high is None or math.isnan(high) or high == math.inf else high
    if low is None and high is None:
        return data
    if high is None:
        return relax.op.maximum(data, relax.const(low, dtype))
    if low is None:
        return relax.op.minimum(data, relax.const(high, dtype))
    if low > high:  # ONNX: everything becomes the upper bound
        low = high
    if not dtype.startswith("float"):
        low, high = math.ceil(low), math.floor(high)
    return relax.op.clip(data, low, high)


def _padding(
    data: Any, weight: Any, attr: Any, strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """Returns top, left, bottom, right; ``auto_pad`` as the ONNX standard computes it."""
    mode = attr.get("auto_pad", b"NOTSET").decode("utf-8")
    if mode == "NOTSET":
        return [int(pad) for pad in attr.get("pads", (0, 0, 0, 0))]
    if mode == "VALID":
        return [0, 0, 0, 0]
    before, after = [], []
    for axis in range(2):
        size, kernel = _shape(data)[2 + axis], _shape(weight)[2 + axis]
        outputs = -(-size // strides[axis])
        span = (outputs - 1) * strides[axis] + (kernel - 1) * dilations[axis] + 1
        total = max(span - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return before + after


def _pad(inputs: Any, attr: Any) -> Any | None:
    """Returns a plain ``nn.pad``, or None when the padding is of another kind."""
    if attr.get("mode", b"constant") != b"constant":
        return None
    if not all(one is None or _is_constant(one) for one in inputs[1:4]) or inputs[1] is None:
        return None
    pads = [int(pad) for pad in _values(inputs[1])]
    if min(pads, default=0) < 0:
        return None
    named, rank = len(pads) // 2, _rank(inputs[0])
    axes = range(named) if inputs[3] is None else [int(a) % rank for a in _values(inputs[3])]
    widths = [0] * (2 * rank)
    for at, axis in enumerate(axes):
        widths[2 * axis : 2 * axis + 2] = pads[at], pads[at + named]
    return relax.op.nn.pad(inputs[0], widths, "constant", _scalar(inputs[2]) or 0.0)
