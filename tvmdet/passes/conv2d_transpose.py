"""Transposed convolutions as convolutions, so that the convolution templates serve them too.

With stride s and k taps, output pixel ``s*q + r`` sums ``x[q - t] * w[r + s*t]`` over
``ceil(k / s)`` steps t: each of the s phases r is a plain convolution of the small picture. The
phases of both axes are computed as s*s times as many filters of one convolution, and their pixels
are interleaved after it. No product with an inserted zero is made; where s does not divide k, some
weights are zeros.

Source: Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["PhasedConv2d", "phased_conv2d"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PhasedConv2d:
    """The convolution that computes all phases, and what of their interleaved pixels is wanted.

    Attributes:
        weight: ``[groups * sh * sw * OC/groups, TH, TW, IC/groups]``.
        padding: Top, left, bottom, right.
        begin: First row and column of the interleaved picture.
        end: Its last ones, exclusive.
    """

    weight: npt.NDArray[np.float32]
    padding: tuple[int, int, int, int]
    begin: tuple[int, int]
    end: tuple[int, int]


def phased_conv2d(
    weight: npt.NDArray[np.float32],
    size: tuple[int, int],
    *,
    strides: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> PhasedConv2d:
    """Returns the convolution of all phases of a transposed one.

    Args:
        weight: ``[IC, OC/groups, KH, KW]``.
        size: Height and width of the picture.
        strides: Vertical and horizontal.
        padding: Top, left, bottom, right: what is cut off.
        output_padding: Rows added below and columns added to the right.
        dilation: Vertical and horizontal.
        groups: Groups of channels.
    """
    taps = weight
    axes = []
    for axis in (0, 1):
        before, after = padding[axis], padding[axis + 2]
        taps = _spread(taps, 2 + axis, dilation[axis])
        length = taps.shape[2 + axis]
        out = (size[axis] - 1) * strides[axis] - before - after + length + output_padding[axis]
        # Rows beyond the last tap are sums of nothing.
        steps = -(-max(length, length - after + output_padding[axis]) // strides[axis])
        first = min(before // strides[axis], steps - 1)
        last = max(-(-(before + out) // strides[axis]), size[axis])
        begin = before - first * strides[axis]
        axes.append((steps, steps - 1 - first, last - size[axis], begin, begin + out))
        added = [(0, 0)] * 4
        added[2 + axis] = (0, steps * strides[axis] - length)
        taps = np.pad(taps, added)
    (steps_h, top, bottom, begin_h, end_h), (steps_w, left, right, begin_w, end_w) = axes
    depth, filters = weight.shape[0] // groups, weight.shape[1]
    split = taps.reshape(groups, depth, filters, steps_h, strides[0], steps_w, strides[1])
    # A convolution of a framework is a correlation: its first tap meets the earliest pixel.
    split = split[:, :, :, ::-1, :, ::-1, :].transpose(0, 4, 6, 2, 3, 5, 1)
    return PhasedConv2d(
        weight=np.ascontiguousarray(split.reshape(-1, steps_h, steps_w, depth)),
        padding=(top, left, bottom, right),
        begin=(begin_h, begin_w),
        end=(end_h, end_w),
    )


def _spread(weight: npt.NDArray[np.float32], axis: int, dilation: int) -> npt.NDArray[np.float32]:
    """Returns weights with zeros between their taps along an axis."""
    if dilation == 1:
        return weight
    shape = list(weight.shape)
    shape[axis] = (shape[axis] - 1) * dilation + 1
    spread = np.zeros(shape, weight.dtype)
    spread[(slice(None),) * axis + (slice(None, None, dilation),)] = weight
    return spread
