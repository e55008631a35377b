"""How each Relax operator follows the stored axis order; one small rule per kind of operator.

A rule takes the walk and the call, emits the rewritten call, and returns its Value (a list for a
tuple), or None where the operator must have its operands in their original order.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from tvm import relax

from tvmdet.passes.conv2d_transpose import phased_conv2d
from tvmdet.passes.convert_to_nhwc import NHWC, NWHC, Rewriter, Rule, Value
from tvmdet.passes.grid_sample import samples_channels_last
from tvmdet.passes.relax_tools import constant_array, is_constant, make_call, static_shape

__all__ = ["RULES"]

_ELEMENTWISE = [
    "abs",
    "add",
    "astype",
    "ceil",
    "clip",
    "cos",
    "divide",
    "equal",
    "erf",
    "exp",
    "floor",
    "floor_divide",
    "floor_mod",
    "greater",
    "greater_equal",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "log",
    "logical_and",
    "logical_not",
    "logical_or",
    "maximum",
    "minimum",
    "mod",
    "multiply",
    "negative",
    "not_equal",
    "power",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sqrt",
    "square",
    "subtract",
    "tan",
    "tanh",
    "where",
    "nn.gelu",
    "nn.gelu_tanh",
    "nn.leakyrelu",
    "nn.relu",
    "nn.relu6",
    "nn.selu",
    "nn.silu",
    "nn.softplus",
]


def _elementwise(rewriter: Rewriter, call: Any) -> Value | None:
    operands = [rewriter.value(arg) for arg in call.args]
    tensors = [v for v in operands if isinstance(v, Value)]
    rank = max(len(v.order) for v in tensors)
    widest = max(
        (v for v in tensors if len(v.order) == rank),
        key=lambda v: (not is_constant(v.expr), np.prod(static_shape(v.expr)), not v.is_original),
    )
    args = [rewriter.broadcast_as(v, widest.order) if isinstance(v, Value) else v for v in operands]
    return Value(rewriter.emit(make_call(call, args)), widest.order)


def _swap(values: Any) -> list[int]:
    """Exchanges the vertical and horizontal entries of strides, dilation or padding."""
    values = [int(v) for v in values]
    return [values[1], values[0]] if len(values) == 2 else [values[i] for i in (1, 0, 3, 2)]


def _conv2d(rewriter: Rewriter, call: Any) -> Value | None:
    attrs = call.attrs
    if attrs.data_layout != "NCHW" or attrs.kernel_layout != "OIHW":
        return None
    if not is_constant(call.args[1]):
        return None  # weights that cannot be packed: TVM has a kernel for NCHW only
    data = rewriter.value(call.args[0])
    # A network may have left the picture on its side (N, W, H, C): convolve it as it lies.
    swapped = data.order == NWHC
    order = NWHC if swapped else NHWC
    weight = rewriter.store_as(rewriter.value(call.args[1]), order)
    strides, padding, dilation = attrs.strides, attrs.padding, attrs.dilation
    if swapped:
        strides, padding, dilation = _swap(strides), _swap(padding), _swap(dilation)
    result = relax.op.nn.conv2d(
        rewriter.store_as(data, order),
        weight,
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=int(attrs.groups),
        data_layout="NHWC",
        kernel_layout="OHWI",
        out_dtype=attrs.out_dtype or None,
    )
    return Value(rewriter.emit(result), order)


def _conv2d_transpose(rewriter: Rewriter, call: Any) -> Value | None:
    attrs = call.attrs
    if attrs.data_layout != "NCHW" or attrs.kernel_layout != "IOHW":
        return None
    if not is_constant(call.args[1]):
        return None
    data = rewriter.store_as(rewriter.value(call.args[0]), NHWC)
    batch, height, width, _ = static_shape(data)
    strides = [int(s) for s in attrs.strides]
    groups = int(attrs.groups)
    phased = phased_conv2d(
        constant_array(call.args[1]),
        (height, width),
        strides=strides,
        padding=[int(p) for p in attrs.padding],
        output_padding=[int(p) for p in attrs.output_padding],
        dilation=[int(d) for d in attrs.dilation],
        groups=groups,
    )
    phases = rewriter.emit(
        relax.op.nn.conv2d(
            data,
            relax.const(phased.weight),
            padding=phased.padding,
            groups=groups,
            data_layout="NHWC",
            kernel_layout="OHWI",
        )
    )
    _, rows, columns, filters = static_shape(phases)
    sh, sw = strides
    per_group = filters // (groups * sh * sw)
    if sh * sw > 1:
        split = relax.op.reshape(phases, (batch, rows, columns, groups, sh, sw, per_group))
        moved = relax.op.permute_dims(rewriter.emit(split), (0, 1, 4, 2, 5, 3, 6))
        shape = (batch, rows * sh, columns * sw, groups * per_group)
        phases = rewriter.emit(relax.op.reshape(rewriter.emit(moved), shape))
    if (*phased.begin, *phased.end) != (0, 0, rows * sh, columns * sw):
        cut = relax.op.strided_slice(phases, axes=[1, 2], begin=phased.begin, end=phased.end)
        phases = rewriter.emit(cut)
    return Value(phases, NHWC)


def _pool2d(rewriter: Rewriter, call: Any) -> Value | None:
    attrs = call.attrs
    if attrs.layout != "NCHW":
        return None
    op = getattr(relax.op.nn, call.op.name.removeprefix("relax.nn."))
    result = op(
        rewriter.store_as(rewriter.value(call.args[0]), NHWC),
        pool_size=attrs.pool_size,
        strides=attrs.strides,
        padding=attrs.padding,
        dilation=attrs.dilation,
        ceil_mode=attrs.ceil_mode,
        count_include_pad=attrs.count_include_pad,
        layout="NHWC",
    )
    return Value(rewriter.emit(result), NHWC)


def _adaptive_pool2d(rewriter: Rewriter, call: Any) -> Value | None:
    attrs = call.attrs
    if attrs.layout != "NCHW":
        return None
    data = rewriter.store_as(rewriter.value(call.args[0]), NHWC)
    result = relax.op.nn.adaptive_avg_pool2d(data, attrs.output_size, layout="NHWC")
    return Value(rewriter.emit(result), NHWC)


def _resize2d(rewriter: Rewriter, call: Any) -> Value | None:
    attrs = call.attrs
    if attrs.layout != "NCHW":
        return None
    result = relax.op.image.resize2d(
        rewriter.store_as(rewriter.value(call.args[0]), NHWC),
        size=call.args[1],
        roi=tuple(float(r) for r in attrs.roi),
        layout="NHWC",
        method=attrs.method,
        coordinate_transformation_mode=attrs.coordinate_transformation_mode,
        rounding_method=attrs.rounding_method,
        cubic_alpha=float(attrs.cubic_alpha),
        cubic_exclude=int(attrs.cubic_exclude),
        extrapolation_value=float(attrs.extrapolation_value),
        out_dtype=attrs.out_dtype or None,
    )
    return Value(rewriter.emit(result), NHWC)


def _grid_sample(rewriter: Rewriter, call: Any) -> Value | None:
    if call.attrs.layout != "NCHW" or not samples_channels_last(call):
        return None
    data, grid = (rewriter.value(arg) for arg in call.args)
    # Points in the order in which they lie, channels last: nothing but the points moves.
    order = (*(axis for axis in grid.order if axis != 1), 1)
    result = relax.op.image.grid_sample(
        rewriter.store_as(data, order),
        rewriter.materialize(grid),
        method=call.attrs.method,
        layout="".join("NCHW"[axis] for axis in order),
        padding_mode=call.attrs.padding_mode,
        align_corners=bool(call.attrs.align_corners),
    )
    return Value(rewriter.emit(result), order)


def _roi_align(rewriter: Rewriter, call: Any) -> Value | None:
    attrs = call.attrs
    if attrs.layout != "NCHW":
        return None
    data, rois = (rewriter.value(arg) for arg in call.args)
    result = relax.op.vision.roi_align(
        rewriter.store_as(data, NHWC),
        rewriter.materialize(rois),
        pooled_size=[int(side) for side in attrs.pooled_size],
        spatial_scale=float(attrs.spatial_scale),
        sample_ratio=int(attrs.sample_ratio),
        aligned=bool(attrs.aligned),
        layout="NHWC",
        mode=attrs.mode,
    )
    return Value(rewriter.emit(result), NHWC)


def _concat(rewriter: Rewriter, call: Any) -> Value | None:
    fields = rewriter.value(call.args[0])
    if not isinstance(fields, list):
        return None
    widest = max(fields, key=lambda v: (not is_constant(v.expr), np.prod(static_shape(v.expr))))
    axis = widest.position(int(call.attrs.axis))
    tensors = [rewriter.store_as(field, widest.order) for field in fields]
    return Value(rewriter.emit(relax.op.concat(tensors, axis=axis)), widest.order)


def _split(rewriter: Rewriter, call: Any) -> list[Value]:
    """A slice for each part, so that each reader can read its part where it lies."""
    data = rewriter.value(call.args[0])
    axis = data.position(int(call.attrs.axis))
    length = static_shape(data.expr)[axis]
    sections = call.attrs.indices_or_sections
    if hasattr(sections, "__len__"):
        cuts = [int(at) for at in sections]
    else:
        step = -(-length // int(sections))
        cuts = list(range(step, length, step))
    parts = []
    for begin, end in pairwise([0, *cuts, length]):
        part = relax.op.strided_slice(data.expr, axes=[axis], begin=[begin], end=[end])
        parts.append(Value(rewriter.emit(part), data.order))
    return parts


def _softmax(rewriter: Rewriter, call: Any) -> Value:
    data = rewriter.value(call.args[0])
    op = getattr(relax.op.nn, call.op.name.removeprefix("relax.nn."))
    axis = data.position(int(call.attrs.axis))
    return Value(rewriter.emit(op(data.expr, axis=axis)), data.order)


def _reduce(rewriter: Rewriter, call: Any) -> Value:
    data = rewriter.value(call.args[0])
    rank = len(data.order)
    axes = call.attrs.axis
    reduced = [int(a) % rank for a in axes] if axes is not None else list(range(rank))
    keep = bool(call.attrs.keepdims)
    op = getattr(relax.op, call.op.name.removeprefix("relax."))
    stored = sorted(data.position(axis) for axis in reduced)
    result = rewriter.emit(op(data.expr, axis=stored, keepdims=keep))
    if keep:
        return Value(result, data.order)
    left = [axis for axis in range(rank) if axis not in reduced]
    return Value(result, tuple(left.index(axis) for axis in data.order if axis in left))


def _strided_slice(rewriter: Rewriter, call: Any) -> Value | None:
    data = rewriter.value(call.args[0])
    axes = [int(getattr(axis, "value", axis)) for axis in call.args[1].fields]
    begin, end = call.args[2], call.args[3]
    strides = call.args[4] if len(call.args) > 4 else None
    result = relax.op.strided_slice(
        data.expr,
        axes=[data.position(axis) for axis in axes],
        begin=begin,
        end=end,
        strides=strides,
        assume_inbound=bool(call.attrs.assume_inbound),
    )
    return Value(rewriter.emit(result), data.order)


def _permute_dims(rewriter: Rewriter, call: Any) -> Value:
    data = rewriter.value(call.args[0])
    rank = len(data.order)
    axes = call.attrs.axes
    axes = [int(a) % rank for a in axes] if axes is not None else list(reversed(range(rank)))
    return Value(data.expr, tuple(axes.index(axis) for axis in data.order))


def _reshape(rewriter: Rewriter, call: Any) -> Value:
    data = rewriter.value(call.args[0])
    return rewriter.reshape(data, static_shape(call))


def _pad(rewriter: Rewriter, call: Any) -> Value:
    data = rewriter.value(call.args[0])
    width = [int(w) for w in call.attrs.pad_width]
    stored = [w for axis in data.order for w in width[2 * axis : 2 * axis + 2]]
    result = relax.op.nn.pad(
        data.expr, stored, pad_mode=call.attrs.pad_mode, pad_value=float(call.attrs.pad_value)
    )
    return Value(rewriter.emit(result), data.order)


RULES: dict[str, Rule] = {
    **{f"relax.{name}": _elementwise for name in _ELEMENTWISE},
    "relax.nn.conv2d": _conv2d,
    "relax.nn.conv2d_transpose": _conv2d_transpose,
    "relax.nn.max_pool2d": _pool2d,
    "relax.nn.avg_pool2d": _pool2d,
    "relax.nn.adaptive_avg_pool2d": _adaptive_pool2d,
    "relax.image.grid_sample": _grid_sample,
    "relax.image.resize2d": _resize2d,
    "relax.vision.roi_align": _roi_align,
    "relax.concat": _concat,
    "relax.split": _split,
    "relax.nn.softmax": _softmax,
    "relax.nn.log_softmax": _softmax,
    **{f"relax.{name}": _reduce for name in ("mean", "sum", "max", "min", "prod", "variance")},
    "relax.strided_slice": _strided_slice,
    "relax.permute_dims": _permute_dims,
    "relax.reshape": _reshape,
    "relax.squeeze": _reshape,
    "relax.expand_dims": _reshape,
    "relax.flatten": _reshape,
    "relax.nn.pad": _pad,
}
