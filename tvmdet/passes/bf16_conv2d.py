"""Direct convolution with both factors of every product rounded to bfloat16, summed in float32.

Weights are rounded once, at compile time; a picture that is float32 in memory is rounded by each
kernel as it copies the padded rows it needs. Values are kept as uint16, the upper half of a
float32: TVM widens its own bfloat16 type before LLVM sees it, and dot product instructions are then
out of reach.

Pairs of neighbouring channels lie side by side in the weights, as the dot product of AVX-512 BF16
(``VDPBF16PS``) wants them: ``[ceil(OC/v), KH, KW, ceil(IC/2), v, 2]``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from tvmdet.passes.conv2d_expressions import (
    WIDTH_SLACK,
    cut_to_shape,
    dense_anchor,
    out_size,
)

__all__ = [
    "bf16_conv2d",
    "float_of_bits",
    "float_of_half",
    "join_halves",
    "pack_bf16_weights",
    "round_to_bf16",
    "round_to_bits",
]

_PAIR = 2


def round_to_bf16(array: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Returns the upper halves of the nearest bfloat16 values, ties away from zero."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x8000)) >> np.uint32(16)).astype(np.uint16)


def pack_bf16_weights(weight: npt.NDArray[np.float32], lanes: int) -> npt.NDArray[np.uint16]:
    """Returns rounded weights ``[ceil(OC/v), KH, KW, ceil(IC/2), v, 2]`` of OHWI weights."""
    filters, height, width, depth = weight.shape
    blocks, pairs = -(-filters // lanes), -(-depth // _PAIR)
    padded = np.zeros((blocks * lanes, height, width, pairs * _PAIR), np.float32)
    padded[:filters, ..., :depth] = weight
    split = round_to_bf16(padded).reshape(blocks, lanes, height, width, pairs, _PAIR)
    return np.ascontiguousarray(split.transpose(0, 2, 3, 4, 1, 5))


def round_to_bits(value: Any) -> Any:
    """Returns a float32 expression rounded to bfloat16, as uint16; ties away from zero.

    Ties to even would take twice the instructions, and differ in one case of 65536.
    """
    bits = tirx.reinterpret("uint32", value)
    rounded = (bits + tirx.const(0x8000, "uint32")) >> tirx.const(16, "uint32")
    return rounded.astype("uint16")


def float_of_bits(bits: Any) -> Any:
    """Returns the float32 expression whose upper half is a uint16 expression."""
    return tirx.reinterpret("float32", bits.astype("uint32") << tirx.const(16, "uint32"))


def join_halves(low: Any, high: Any) -> Any:
    """Returns two float32 expressions rounded to bfloat16, as one uint32; ties away from zero."""
    half = tirx.const(0x8000, "uint32")
    low, high = (tirx.reinterpret("uint32", value) + half for value in (low, high))
    return low >> tirx.const(16, "uint32") | high & tirx.const(0xFFFF0000, "uint32")


def float_of_half(pair: Any, half: Any) -> Any:
    """Returns the float32 expression of one half of a uint32 one: 0 is the lower half."""
    half_bits = tirx.const(16, "uint32")
    bits = tirx.Select(half == 0, pair << half_bits, (pair >> half_bits) << half_bits)
    return tirx.reinterpret("float32", bits)


def bf16_conv2d(
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
        packed: From :func:`pack_bf16_weights`.
        filters: OC.
        strides: Vertical and horizontal.
        padding: Top, left, bottom, right.
        dilation: Vertical and horizontal.
        groups: 1.
    """
    batch, height, width, depth = (int(d) for d in data.shape)
    blocks, kernel_h, kernel_w, pairs, lanes, _ = (int(d) for d in packed.shape)
    out_h, out_w = out_size((height, width), (kernel_h, kernel_w), strides, padding, dilation)
    top, left, bottom, right = padding
    columns = left + width + right + WIDTH_SLACK * strides[1]

    def rounded(n: Any, h: Any, w: Any, c: Any) -> Any:
        bits = round_to_bits(data[n, h - top, w - left, c])
        inside = []
        if top or bottom:
            inside += [h >= top, h < height + top]
        inside += [w >= left, w < width + left]
        if depth % _PAIR:
            inside.append(c < depth)
        return tirx.if_then_else(tirx.all(*inside), bits, tirx.const(0, "uint16"))

    pad = te.compute((batch, top + height + bottom, columns, pairs * _PAIR), rounded, name="pad")
    kh = te.reduce_axis((0, kernel_h), name="kh")
    kw = te.reduce_axis((0, kernel_w), name="kw")
    ic = te.reduce_axis((0, pairs), name="ic")
    half = te.reduce_axis((0, _PAIR), name="half")

    def product(n: Any, h: Any, w: Any, c: Any) -> Any:
        row, column = h * strides[0] + kh * dilation[0], w * strides[1] + kw * dilation[1]
        picture = float_of_bits(pad[n, row, column, ic * _PAIR + half])
        weight = float_of_bits(packed[c // lanes, kh, kw, ic, c % lanes, half])
        return te.sum(picture * weight, axis=[kh, kw, ic, half])

    anchor = dense_anchor(
        (batch, height, width, depth),
        (filters, kernel_h, kernel_w, depth),
        str(data.dtype),
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    conv = te.compute(
        (batch, out_h, out_w + WIDTH_SLACK, blocks * lanes),
        product,
        name="conv2d",
        attrs={
            "tvmdet.bf16_conv2d": f"bf16_{anchor}",
            "tvmdet.flop": 2 * batch * out_h * out_w * filters * kernel_h * kernel_w * depth,
            "tvmdet.lanes": lanes,
        },
    )
    return cut_to_shape(conv, (batch, out_h, out_w, filters))
