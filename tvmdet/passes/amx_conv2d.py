"""Direct convolution as products of matrix tiles, bfloat16 factors and float32 sums (Intel AMX).

The products of :mod:`~tvmdet.passes.bf16_conv2d`, in the form that a tile of 16 pixels by 16
filters wants them (``TDPBF16PS``):

- Pixels are counted through, ``[N, P, OC]``, row after row of the padded picture. A tile's pixels
  are then neighbours in memory whatever the width of the picture is, and only a picture's last tile
  may be ragged. What lies at the end of a row, where a filter would stick out of it, is computed
  and not used.
- A picture with strides is copied by phases: each ``stride``-th row and column is a picture of its
  own, in which neighbouring results read neighbouring pixels.
- 32 channels are a step of the products. The last step of a number of channels that is no multiple
  of 32 starts earlier, and its weights are zero for the channels that were read before; fewer than
  32 channels are one short step.
- Where that saves steps, a row of taps is gone through as one, its pixels' channels being
  neighbours in memory: three taps of 3 channels are one step, of 16 channels two.

A weight of zero keeps out what is read without being wanted, as long as it is finite: infinity in a
picture becomes NaN, and may reach the result left of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from tvmdet.passes.bf16_conv2d import float_of_bits, round_to_bf16, round_to_bits
from tvmdet.passes.conv2d_expressions import dense_anchor, out_size

__all__ = ["amx_conv2d", "pack_amx_weights"]

_TILE = 16
"""Filters of a tile."""

_PAIR = 2
_STEP = 32
"""Channels of a step: a row of a tile is 64 bytes."""
_VECTOR = 8
"""Of fewer channels, no vector is worth while."""


def pack_amx_weights(
    weight: npt.NDArray[np.float32], dilation: tuple[int, int] = (1, 1)
) -> npt.NDArray[np.uint16]:
    """Returns rounded weights ``[ceil(OC/16), KH, KW, S, P, 16, 2]`` of OHWI weights.

    S are the steps through the channels, of P pairs each. KW is 1 where a row of taps is gone
    through as one.
    """
    filters, height, width, depth = weight.shape
    if _joins_taps(width, depth, dilation):
        width, depth = 1, width * depth
    channels = _even(depth)
    blocks, steps, pairs = -(-filters // _TILE), _steps(channels), min(channels, _STEP) // _PAIR
    padded = np.zeros((blocks * _TILE, height, width, channels), np.float32)
    padded[:filters, ..., :depth] = weight.reshape(filters, height, width, depth)
    split = np.zeros((blocks * _TILE, height, width, steps, pairs * _PAIR), np.float32)
    for step in range(steps):
        first, start = step * _STEP, min(step * _STEP, channels - pairs * _PAIR)
        split[..., step, first - start :] = padded[..., first : first + _STEP]
    rounded = round_to_bf16(split).reshape(blocks, _TILE, height, width, steps, pairs, _PAIR)
    return np.ascontiguousarray(rounded.transpose(0, 2, 3, 4, 5, 1, 6))


def _even(channels: int) -> int:
    return channels + channels % _PAIR


def _steps(channels: int) -> int:
    return -(-channels // _STEP)


def _joins_taps(width: int, depth: int, dilation: tuple[int, int]) -> bool:
    """Returns whether a row of ``width`` taps takes fewer steps as one."""
    return dilation[1] == 1 and _steps(width * depth) < width * _steps(depth)


def _first_channel(step: Any, channels: int) -> Any:
    """Returns where a step starts, which is within the channels to its end."""
    if channels <= _STEP:
        return 0
    if channels % _STEP == 0:
        return step * _STEP
    return tirx.min(step * _STEP, channels - _STEP)


def amx_conv2d(
    data: te.Tensor,
    packed: te.Tensor,
    filters: int,
    kernel: tuple[int, int],
    *,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> te.Tensor:
    """Returns the tensor expression of a dense convolution.

    Args:
        data: ``[N, H, W, C]``, float32.
        packed: From :func:`pack_amx_weights`.
        filters: OC.
        kernel: KH and KW.
        strides: Vertical and horizontal.
        padding: Top, left, bottom, right.
        dilation: Vertical and horizontal.
        groups: 1.
    """
    batch, height, width, depth = (int(d) for d in data.shape)
    planes = _Planes.of(data, kernel, strides, padding, dilation)
    anchor = dense_anchor(
        (batch, height, width, depth),
        (filters, *kernel, depth),
        str(data.dtype),
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    out_h, out_w = planes.out
    conv = te.compute(
        (batch, out_h * planes.width, int(packed.shape[0]) * _TILE),
        _products(planes, planes.copied(data), packed, dilation),
        name="conv2d",
        attrs={
            "tvmdet.amx_conv2d": f"amx_{anchor}",
            "tvmdet.flop": 2 * batch * out_h * out_w * filters * kernel[0] * kernel[1] * depth,
            "tvmdet.row": planes.width,
            "tvmdet.copied_at_a_time": planes.copied_at_a_time,
        },
    )
    return te.compute(
        (batch, out_h, out_w, filters),
        lambda n, h, w, c: conv[n, h * planes.width + w, c],
        name="cut",
    )


def _products(
    planes: _Planes, pad: te.Tensor, packed: te.Tensor, dilation: tuple[int, int]
) -> Callable[..., Any]:
    """Returns the sum of products of a pixel and a filter, as an expression of their indices."""
    _, kernel_h, kernel_w, steps, pairs, _, _ = (int(d) for d in packed.shape)
    kh = te.reduce_axis((0, kernel_h), name="kh")
    kw = te.reduce_axis((0, kernel_w), name="kw")
    step = te.reduce_axis((0, steps), name="step")
    pair = te.reduce_axis((0, pairs), name="pair")
    half = te.reduce_axis((0, _PAIR), name="half")
    stride_h, stride_w = planes.strides

    def product(n: Any, p: Any, c: Any) -> Any:
        row, column = kh * dilation[0], kw * dilation[1]
        phase = row % stride_h * planes.phases_w + column % stride_w
        place = p + row // stride_h * planes.width + column // stride_w
        channel = _first_channel(step.var, planes.depth) + pair * _PAIR + half
        if planes.joined:
            place, channel = place + channel // planes.unit, channel % planes.unit
        picture = float_of_bits(pad[n, phase, place, channel])
        weight = float_of_bits(packed[c // _TILE, kh, kw, step, pair, c % _TILE, half])
        return te.sum(picture * weight, axis=[kh, kw, step, pair, half])

    return product


@dataclass(frozen=True, kw_only=True)
class _Planes:
    """How the picture of a convolution is copied: ``[N, phases, height * width, unit]``.

    Attributes:
        size: Height and width of the picture.
        channels: Of the picture.
        out: Height and width of the result.
        strides: Vertical and horizontal.
        padding: Top and left.
        phases_h: Vertically.
        phases_w: Horizontally.
        height: Of a plane.
        width: Of a plane: as many pixels of the result are computed in a row.
        joined: Whether a row of taps is gone through as one.
        unit: Channels of a place: of several pixels where taps are joined.
        depth: Channels that a tap, or a row of joined ones, goes through.
    """

    size: tuple[int, int]
    channels: int
    out: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int]
    phases_h: int
    phases_w: int
    height: int
    width: int
    joined: bool
    unit: int
    depth: int

    @classmethod
    def of(
        cls,
        data: te.Tensor,
        kernel: tuple[int, int],
        strides: tuple[int, int],
        padding: tuple[int, int, int, int],
        dilation: tuple[int, int],
    ) -> _Planes:
        """Returns the planes of a convolution."""
        _, height, width, channels = (int(d) for d in data.shape)
        out_h, out_w = out_size((height, width), kernel, strides, padding, dilation)
        joined = _joins_taps(kernel[1], channels, dilation)
        depth = _even(kernel[1] * channels if joined else channels)
        unit = strides[1] * channels if joined else depth
        beyond = (depth - 1) // unit if joined else (kernel[1] - 1) * dilation[1] // strides[1]
        return cls(
            size=(height, width),
            channels=channels,
            out=(out_h, out_w),
            strides=strides,
            padding=(padding[0], padding[1]),
            phases_h=strides[0] if kernel[0] > 1 else 1,
            phases_w=strides[1] if kernel[1] > 1 and not joined else 1,
            height=out_h + (kernel[0] - 1) * dilation[0] // strides[0],
            width=out_w + beyond,
            joined=joined,
            unit=unit,
            depth=depth,
        )

    @property
    def copied_at_a_time(self) -> int:
        """Channels of a place that vectors are cut from; 0 for vectors of whatever follows."""
        if not self.joined:
            return self.unit
        return 0 if self.channels % _VECTOR else self.channels

    def copied(self, data: te.Tensor) -> te.Tensor:
        """Returns the picture, padded and rounded, with zeros where nothing is to be read.

        Behind the last row there is what is read for the pixels that are not used.
        """
        slack = self.width - self.out[1]
        shape = (
            int(data.shape[0]),
            self.phases_h * self.phases_w,
            self.height * self.width + slack,
            self.unit,
        )
        return te.compute(shape, lambda *index: self._rounded(data, *index), name="pad")

    def _rounded(self, data: te.Tensor, n: Any, phase: Any, place: Any, unit: Any) -> Any:
        (height, width), channels = self.size, self.channels
        (top, left), (stride_h, stride_w) = self.padding, self.strides
        rows = self.height + (self.width > self.out[1])
        h = place // self.width * stride_h + phase // self.phases_w - top
        inside = []
        if top:
            inside.append(h >= 0)
        if (rows - 1) * stride_h + self.phases_h - 1 - top >= height:
            inside.append(h < height)
        if self.joined:
            element = place % self.width * self.unit + unit - left * channels
            w, c = element // channels, element % channels
            at, pixel = (w, 1) if self.copied_at_a_time else (element, channels)
            if left:
                inside.append(at >= 0)
            if self.width * stride_w - left > width:
                inside.append(at < width * pixel)
        else:
            w = place % self.width * stride_w + phase % self.phases_w - left
            c = unit
            if left:
                inside.append(w >= 0)
            if (self.width - 1) * stride_w + self.phases_w - 1 - left >= width:
                inside.append(w < width)
            if self.unit > channels:
                inside.append(c < channels)
        bits = round_to_bits(data[n, h, w, c])
        if not inside:
            return bits
        return tirx.if_then_else(tirx.all(*inside), bits, tirx.const(0, "uint16"))
