"""Convolutions on vectors of float16, whose sums are carried on in float32.

Weights are rounded once, at compile time; a picture that is float32 in memory is rounded by each
kernel as it copies the padded rows it needs. A vector holds twice as many float16 as float32.

A product is added to a float16 sum of at most :data:`MOST_PRODUCTS`, and each such sum to a float32
one, so that the error does not grow with the number of products: a thousandth of the result, four
times what the rounding of the factors costs. In float16 alone a layer of a thousand products would
be off by half a hundredth (docs/arm.md has the figures). A depthwise filter is one block.

Weights of a dense convolution are ``[ceil(OC/v), KH, KW, IC', v]``, the channels filled up with
zeros to IC' so that blocks are alike and one load brings several channels of a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from tvmdet.passes.conv2d_expressions import (
    WIDTH_SLACK,
    cut_to_shape,
    dense_anchor,
    depthwise_anchor,
    out_size,
)

__all__ = [
    "MOST_PRODUCTS",
    "fits_fp16",
    "fp16_conv2d",
    "fp16_depthwise_conv2d",
    "pack_fp16_depthwise",
    "pack_fp16_weights",
]

MOST_PRODUCTS: Final = 64
"""That are summed in float16."""

_GROUP: Final = 4
"""Channels that a load brings at least, where there are more."""


def fits_fp16(weight: npt.NDArray[np.float32]) -> bool:
    """Returns whether float16 holds weights: none is beyond its range, the greatest not tiny."""
    info = np.finfo(np.float16)
    greatest = float(np.abs(weight).max(initial=0.0))
    return float(info.tiny) <= greatest <= float(info.max)


@dataclass(frozen=True, kw_only=True)
class _Block:
    """The products of one float16 sum: taps of a filter and channels of a pixel.

    Attributes:
        rows: Of the filter, all or one.
        columns: Of the filter, all or one.
        channels: Of the picture.
        chunks: How many times ``channels`` the picture has, zeros included.
    """

    rows: int
    columns: int
    channels: int
    chunks: int

    @classmethod
    def of(cls, kernel_hw: tuple[int, int], depth: int) -> _Block:
        """Returns the greatest block for a filter of so many channels."""
        chunks = -(-depth // MOST_PRODUCTS)
        channels = -(-depth // chunks)
        if channels > _GROUP:
            channels = -(-channels // _GROUP) * _GROUP
        height, width = kernel_hw
        if height * width * channels * chunks <= MOST_PRODUCTS:
            return cls(rows=height, columns=width, channels=channels, chunks=chunks)
        if width * channels * chunks <= MOST_PRODUCTS:
            return cls(rows=1, columns=width, channels=channels, chunks=chunks)
        return cls(rows=1, columns=1, channels=channels, chunks=chunks)


def pack_fp16_weights(weight: npt.NDArray[np.float32], lanes: int) -> npt.NDArray[np.float16]:
    """Returns rounded weights ``[ceil(OC/v), KH, KW, IC', v]`` of OHWI weights."""
    filters, height, width, depth = weight.shape
    block = _Block.of((height, width), depth)
    blocks = -(-filters // lanes)
    packed = np.zeros((blocks * lanes, height, width, block.channels * block.chunks), np.float16)
    packed[:filters, ..., :depth] = weight
    split = packed.reshape(blocks, lanes, *packed.shape[1:])
    return np.ascontiguousarray(split.transpose(0, 2, 3, 4, 1))


def pack_fp16_depthwise(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Returns rounded weights ``[KH, KW, C]`` of OHWI weights of one channel."""
    return np.ascontiguousarray(weight[..., 0].transpose(1, 2, 0).astype(np.float16))


def fp16_conv2d(
    data: te.Tensor,
    packed: te.Tensor,
    filters: int,
    *,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> te.Tensor:
    """Returns the tensor expression of a dense convolution.

    Args:
        data: ``[N, H, W, C]``, float32.
        packed: From :func:`pack_fp16_weights`.
        filters: OC.
        strides: Vertical and horizontal.
        padding: Top, left, bottom, right.
        dilation: Vertical and horizontal.
        groups: 1.
    """
    batch, height, width, depth = (int(d) for d in data.shape)
    blocks, kernel_h, kernel_w, filled, lanes = (int(d) for d in packed.shape)
    out_h, out_w = out_size((height, width), (kernel_h, kernel_w), strides, padding, dilation)
    block = _Block.of((kernel_h, kernel_w), depth)
    pad = _round_and_pad(data, filled, padding, strides)
    kh = te.reduce_axis((0, block.rows), name="kh")
    kw = te.reduce_axis((0, block.columns), name="kw")
    ic = te.reduce_axis((0, block.channels), name="ic")

    def product(n: Any, h: Any, w: Any, c: Any, bh: Any, bw: Any, bc: Any) -> Any:
        y, x, channel = bh * block.rows + kh, bw * block.columns + kw, bc * block.channels + ic
        picture = pad[
            n, h * strides[0] + y * dilation[0], w * strides[1] + x * dilation[1], channel
        ]
        return te.sum(picture * packed[c // lanes, y, x, channel, c % lanes], axis=[kh, kw, ic])

    anchor = dense_anchor(
        (batch, height, width, depth),
        (filters, kernel_h, kernel_w, depth),
        str(data.dtype),
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    whole = (batch, out_h, out_w + WIDTH_SLACK, blocks * lanes)
    extents = (kernel_h // block.rows, kernel_w // block.columns, block.chunks)
    parts = te.compute(
        (*whole, *extents),
        product,
        name="conv2d",
        attrs={
            "tvmdet.fp16_conv2d": f"fp16_{anchor}",
            "tvmdet.flop": 2 * batch * out_h * out_w * filters * kernel_h * kernel_w * depth,
            "tvmdet.lanes": lanes,
        },
    )
    axes = [te.reduce_axis((0, extent), name=f"b{i}") for i, extent in enumerate(extents)]
    sums = te.compute(
        whole, lambda *i: te.sum(parts(*i, *axes).astype("float32"), axis=axes), name="sums"
    )
    return cut_to_shape(sums, (batch, out_h, out_w, filters))


def fp16_depthwise_conv2d(
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
        data: ``[N, H, W, C]``, float32.
        packed: ``[KH, KW, C]``, float16, of at most :data:`MOST_PRODUCTS` taps.
        strides: Vertical and horizontal.
        padding: Top, left, bottom, right.
        dilation: Vertical and horizontal.
        groups: C.
    """
    batch, height, width, channels = (int(d) for d in data.shape)
    kernel_h, kernel_w, _ = (int(d) for d in packed.shape)
    out_h, out_w = out_size((height, width), (kernel_h, kernel_w), strides, padding, dilation)
    pad = _round_and_pad(data, channels, padding, strides)
    kh = te.reduce_axis((0, kernel_h), name="kh")
    kw = te.reduce_axis((0, kernel_w), name="kw")

    def product(n: Any, h: Any, w: Any, c: Any) -> Any:
        y, x = h * strides[0] + kh * dilation[0], w * strides[1] + kw * dilation[1]
        return te.sum(pad[n, y, x, c] * packed[kh, kw, c], axis=[kh, kw])

    anchor = depthwise_anchor(
        (batch, height, width, channels),
        (kernel_h, kernel_w),
        str(data.dtype),
        strides=strides,
        padding=padding,
        dilation=dilation,
    )
    conv = te.compute(
        (batch, out_h, out_w + WIDTH_SLACK, channels),
        product,
        name="depthwise_conv2d",
        attrs={
            "tvmdet.fp16_depthwise_conv2d": f"fp16_{anchor}",
            "tvmdet.flop": 2 * batch * out_h * out_w * channels * kernel_h * kernel_w,
        },
    )
    return te.compute(
        (batch, out_h, out_w, groups), lambda *i: conv(*i).astype("float32"), name="cut"
    )


def _round_and_pad(
    data: te.Tensor, filled: int, padding: tuple[int, int, int, int], strides: tuple[int, int]
) -> te.Tensor:
    """Returns a picture in float16 with its zeros around it, and ``filled`` channels."""
    batch, height, width, depth = (int(d) for d in data.shape)
    top, left, bottom, right = padding

    def rounded(n: Any, h: Any, w: Any, c: Any) -> Any:
        inside = []
        if top or bottom:
            inside += [h >= top, h < height + top]
        inside += [w >= left, w < width + left]
        if filled > depth:
            inside.append(c < depth)
        value = data[n, h - top, w - left, c].astype("float16")
        return tirx.if_then_else(tirx.all(*inside), value, tirx.const(0, "float16"))

    columns = left + width + right + WIDTH_SLACK * strides[1]
    return te.compute((batch, top + height + bottom, columns, filled), rounded, name="pad")
