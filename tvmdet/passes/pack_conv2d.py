"""Convolutions in the form that the templates schedule: constant weights packed, one TIR function.

Dense and grouped weights become ``[OC/v, KH, KW, IC, v]`` for a vector of v lanes, so that the
innermost loop of a kernel reads one aligned vector of output channels; depthwise weights become
``[KH, KW, C]``. Output channels are padded with zeros to whole vectors, and the width of the
computed domain is given some slack, so that every tile is full: only the stores are cut to size.

Each function's main block is annotated with what it computes (``tvmdet.conv2d``), which is how a
template recognises it after fusion.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from tvm import relax, te, topi

from tvmdet.passes.relax_tools import (
    constant_array,
    is_constant,
    legalize_as_usual,
    static_shape,
)
from tvmdet.passes.winograd import pack_weights, winograd_conv2d
from tvmdet.targets import Target

__all__ = ["WIDTH_SLACK", "Algorithm", "Conv2dPacker", "usual_algorithm"]

# Which algorithm computes the convolution of an anchor ("conv2d n1 h80 ...").
Algorithm: TypeAlias = Callable[[str], Literal["direct", "winograd"]]

# No template's tile is wider than this and one.
WIDTH_SLACK = 31

_OUT_ELEMENTWISE_FUSABLE = 4  # tvm::relax::OpPatternKind::kOutEWiseFusable


def usual_algorithm(anchor: str) -> Literal["direct", "winograd"]:
    """Returns Winograd, which was faster on every eligible layer measured so far."""
    del anchor
    return "winograd"


class Conv2dPacker:
    """Legalises ``relax.nn.conv2d`` on NHWC data with constant weights.

    Weights that several functions share (one per batch bucket) are packed once.
    """

    def __init__(self, target: Target, algorithm: Algorithm = usual_algorithm) -> None:
        """Packs for the vectors of ``target``.

        Args:
            target: Whose vectors the weights are packed for.
            algorithm: Asked for each convolution that Winograd's algorithm could compute.
        """
        self._lanes = target.vector_lanes_f32
        self._algorithm = algorithm
        self._packed: dict[tuple[str, str, int], Any] = {}

    def __call__(self, builder: relax.BlockBuilder, call: Any) -> Any:
        """Returns the legalised call; TVM's own where there is no packed form."""
        attrs = call.attrs
        data, weight = call.args
        if attrs.data_layout != "NHWC" or not is_constant(weight):
            return legalize_as_usual(builder, call)
        channels, filters = static_shape(data)[3], static_shape(weight)[0]
        groups = int(attrs.groups)
        if groups == channels and filters == channels:
            return self._depthwise(builder, call)
        lanes = self._lanes
        if groups > 1:
            while (filters // groups) % lanes:
                lanes //= 2
        if self._winograd_fits(call):
            anchor = dense_anchor(
                static_shape(data), static_shape(weight), str(data.ty.dtype), **_geometry(attrs)
            )
            if self._algorithm(anchor) == "winograd":
                return self._winograd(builder, call, anchor)
        return self._dense(builder, call, lanes)

    def _winograd_fits(self, call: Any) -> bool:
        filters, kernel_h, kernel_w, depth = static_shape(call.args[1])
        plain = _geometry(call.attrs)
        return (
            (kernel_h, kernel_w) == (3, 3)
            and plain["strides"] == plain["dilation"] == (1, 1)
            and plain["groups"] == 1
            and depth % self._lanes == 0
            and filters * 2 >= self._lanes
            and str(call.args[0].ty.dtype) == "float32"
        )

    def _winograd(self, builder: relax.BlockBuilder, call: Any, anchor: str) -> Any:
        kernel = self._constant(
            "winograd", self._lanes, call.args[1], lambda array: pack_weights(array, self._lanes)
        )
        padding, filters = _geometry(call.attrs)["padding"], static_shape(call.args[1])[0]
        return builder.call_te(
            lambda data, packed: winograd_conv2d(data, packed, filters, padding, anchor),
            call.args[0],
            kernel,
            primfunc_name_hint="winograd_conv2d",
            primfunc_attrs={"op_pattern": _OUT_ELEMENTWISE_FUSABLE},
        )

    def _constant(self, kind: str, lanes: int, weight: Any, pack: Any) -> Any:
        array = constant_array(weight)
        digest = hashlib.sha256(array.tobytes() + repr(array.shape).encode()).hexdigest()
        key = (digest, kind, lanes)
        if key not in self._packed:
            self._packed[key] = relax.const(np.ascontiguousarray(pack(array)))
        return self._packed[key]

    def _dense(self, builder: relax.BlockBuilder, call: Any, lanes: int) -> Any:
        def pack(array: np.ndarray) -> np.ndarray:
            blocks = -(-array.shape[0] // lanes)
            padded = np.zeros((blocks * lanes, *array.shape[1:]), array.dtype)
            padded[: array.shape[0]] = array
            return padded.reshape(blocks, lanes, *array.shape[1:]).transpose(0, 2, 3, 4, 1)

        filters = static_shape(call.args[1])[0]
        kernel = self._constant("dense", lanes, call.args[1], pack)

        def compute(data: te.Tensor, packed: te.Tensor) -> te.Tensor:
            return dense_conv2d(data, packed, filters, **_geometry(call.attrs))

        return builder.call_te(
            compute,
            call.args[0],
            kernel,
            primfunc_name_hint="conv2d",
            primfunc_attrs={"op_pattern": _OUT_ELEMENTWISE_FUSABLE},
        )

    def _depthwise(self, builder: relax.BlockBuilder, call: Any) -> Any:
        def pack(array: np.ndarray) -> np.ndarray:
            return array[..., 0].transpose(1, 2, 0)

        kernel = self._constant("depthwise", 1, call.args[1], pack)

        def compute(data: te.Tensor, packed: te.Tensor) -> te.Tensor:
            return depthwise_conv2d(data, packed, **_geometry(call.attrs))

        return builder.call_te(
            compute,
            call.args[0],
            kernel,
            primfunc_name_hint="depthwise_conv2d",
            primfunc_attrs={"op_pattern": _OUT_ELEMENTWISE_FUSABLE},
        )


def dense_conv2d(
    data: te.Tensor,
    packed: te.Tensor,
    filters: int,
    *,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> te.Tensor:
    """Returns the tensor expression of a dense or grouped convolution.

    Args:
        data: ``[N, H, W, C]``.
        packed: ``[ceil(OC/v), KH, KW, C/groups, v]``.
        filters: OC.
        strides: Vertical and horizontal.
        padding: Top, left, bottom, right.
        dilation: Vertical and horizontal.
        groups: Groups of channels; OC/groups is a multiple of v when there are several.
    """
    batch, height, width, _ = (int(d) for d in data.shape)
    blocks, kernel_h, kernel_w, depth, lanes = (int(d) for d in packed.shape)
    out_h, out_w = _out_size((height, width), (kernel_h, kernel_w), strides, padding, dilation)
    padded = _pad(data, padding, strides)
    kh = te.reduce_axis((0, kernel_h), name="kh")
    kw = te.reduce_axis((0, kernel_w), name="kw")
    ic = te.reduce_axis((0, depth), name="ic")
    per_group = filters // groups

    def product(n: Any, h: Any, w: Any, c: Any) -> Any:
        channel = ic if groups == 1 else c // per_group * depth + ic
        picture = padded[
            n, h * strides[0] + kh * dilation[0], w * strides[1] + kw * dilation[1], channel
        ]
        return te.sum(picture * packed[c // lanes, kh, kw, ic, c % lanes], axis=[kh, kw, ic])

    anchor = dense_anchor(
        (batch, height, width, int(data.shape[3])),
        (filters, kernel_h, kernel_w, depth),
        str(data.dtype),
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    flop = 2 * batch * out_h * out_w * filters * kernel_h * kernel_w * depth
    conv = te.compute(
        (batch, out_h, out_w + WIDTH_SLACK, blocks * lanes),
        product,
        name="conv2d",
        attrs={"tvmdet.conv2d": anchor, "tvmdet.flop": flop, "tvmdet.lanes": lanes},
    )
    return _cut(conv, (batch, out_h, out_w, filters))


def dense_anchor(
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    dtype: str,
    *,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> str:
    """Returns a convolution of NHWC data with OHWI weights as one line of text."""
    batch, height, width, channels = shape
    return (
        f"conv2d n{batch} h{height} w{width} c{channels} oc{weight[0]} "
        f"k{weight[1]}x{weight[2]} s{strides[0]}x{strides[1]} p{'.'.join(map(str, padding))} "
        f"d{dilation[0]}x{dilation[1]} g{groups} {dtype}"
    )


def depthwise_conv2d(
    data: te.Tensor,
    packed: te.Tensor,
    *,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> te.Tensor:
    """Returns the tensor expression of a depthwise convolution with one filter per channel.

    Args:
        data: ``[N, H, W, C]``.
        packed: ``[KH, KW, C]``.
        strides: Vertical and horizontal.
        padding: Top, left, bottom, right.
        dilation: Vertical and horizontal.
        groups: C.
    """
    batch, height, width, channels = (int(d) for d in data.shape)
    kernel_h, kernel_w, _ = (int(d) for d in packed.shape)
    out_h, out_w = _out_size((height, width), (kernel_h, kernel_w), strides, padding, dilation)
    padded = _pad(data, padding, strides)
    kh = te.reduce_axis((0, kernel_h), name="kh")
    kw = te.reduce_axis((0, kernel_w), name="kw")

    def product(n: Any, h: Any, w: Any, c: Any) -> Any:
        picture = padded[n, h * strides[0] + kh * dilation[0], w * strides[1] + kw * dilation[1], c]
        return te.sum(picture * packed[kh, kw, c], axis=[kh, kw])

    anchor = (
        f"depthwise_conv2d n{batch} h{height} w{width} c{channels} k{kernel_h}x{kernel_w} "
        f"s{strides[0]}x{strides[1]} p{'.'.join(map(str, padding))} d{dilation[0]}x{dilation[1]} "
        f"{data.dtype}"
    )
    flop = 2 * batch * out_h * out_w * channels * kernel_h * kernel_w
    conv = te.compute(
        (batch, out_h, out_w + WIDTH_SLACK, channels),
        product,
        name="depthwise_conv2d",
        attrs={"tvmdet.depthwise_conv2d": anchor, "tvmdet.flop": flop},
    )
    return _cut(conv, (batch, out_h, out_w, groups))


def _geometry(attrs: Any) -> dict[str, Any]:
    return {
        "strides": tuple(int(v) for v in attrs.strides),
        "padding": tuple(int(v) for v in attrs.padding),
        "dilation": tuple(int(v) for v in attrs.dilation),
        "groups": int(attrs.groups),
    }


def _out_size(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> tuple[int, int]:
    top, left, bottom, right = padding
    height = size[0] + top + bottom - (kernel[0] - 1) * dilation[0] - 1
    width = size[1] + left + right - (kernel[1] - 1) * dilation[1] - 1
    return height // strides[0] + 1, width // strides[1] + 1


def _pad(
    data: te.Tensor, padding: tuple[int, int, int, int], strides: tuple[int, int]
) -> te.Tensor:
    top, left, bottom, right = padding
    slack = WIDTH_SLACK * strides[1]
    return topi.nn.pad(data, (0, top, left, 0), (0, bottom, right + slack, 0), name="pad")


def _cut(conv: te.Tensor, shape: tuple[int, ...]) -> te.Tensor:
    return te.compute(shape, lambda *i: conv(*i), name="cut")
