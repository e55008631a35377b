"""DeformConv, which TVM's importer has no converter for: samples of the picture, then a product.

Deformable ConvNets v2 (Zhu et al. 2019, section 3): each weight of a kernel meets the picture at a
place of its own, moved by an offset and scaled by a mask. Places between pixels are interpolated,
and what lies outside is 0. GridSample does both, so that what is left is a convolution of size 1
over the samples, which has a tuned kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

__all__ = ["DeformConv"]


class DeformConv(onnx_frontend.OnnxOpConverter):  # type: ignore[misc]
    """``image.grid_sample`` of every weight's place, the mask, and ``nn.conv2d`` of size 1."""

    @classmethod
    def _impl_v19(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        data, weight, offset, bias, mask = (inputs[at] for at in range(5))
        batch, channels, height, width = _shape(data)
        filters, _, *kernel = _shape(weight)
        size_hw = _shape(offset)[2:]
        parts = int(attr.get("offset_group", 1))
        points = kernel[0] * kernel[1]

        def reshaped(value: Any, *shape: int) -> Any:
            return bb.normalize(relax.op.reshape(value, shape))

        moved = reshaped(offset, batch * parts, points, 2, *size_hw)
        grid = _normalised(bb, moved, _places(kernel, size_hw, attr), (height, width))
        grid = reshaped(grid, batch * parts, 2, points * size_hw[0], size_hw[1])
        samples = relax.op.image.grid_sample(
            reshaped(data, batch * parts, channels // parts, height, width),
            grid,
            method="bilinear",
            layout="NCHW",
            padding_mode="zeros",
            align_corners=False,
        )
        rows = reshaped(bb.normalize(samples), batch, parts, channels // parts, points, *size_hw)
        if mask is not None:
            scale = reshaped(mask, batch, parts, 1, points, *size_hw)
            rows = bb.normalize(relax.op.multiply(rows, scale))
        group = int(attr.get("group", 1))
        result = relax.op.nn.conv2d(
            reshaped(rows, batch, channels * points, *size_hw),
            reshaped(weight, filters, channels // group * points, 1, 1),
            groups=group,
        )
        if bias is None:
            return result
        return relax.op.add(bb.normalize(result), reshaped(bias, 1, filters, 1, 1))


def _places(kernel: list[int], size_hw: list[int], attr: Any) -> np.ndarray:
    """Returns where each weight lies without an offset, ``[points, 2, H, W]``, y before x."""
    pads = list(attr.get("pads", (0, 0, 0, 0)))
    strides, dilations = attr.get("strides", (1, 1)), attr.get("dilations", (1, 1))
    sides = []
    for axis in range(2):
        cells = np.arange(size_hw[axis]) * int(strides[axis]) - int(pads[axis])
        sides.append(cells[None, :] + np.arange(kernel[axis])[:, None] * int(dilations[axis]))
    shape = (kernel[0], kernel[1], *size_hw)
    y = np.broadcast_to(sides[0][:, None, :, None], shape)
    x = np.broadcast_to(sides[1][None, :, None, :], shape)
    return np.stack([y, x], axis=2).reshape(-1, 2, *size_hw).astype(np.float32)


def _normalised(bb: Any, moved: Any, places: np.ndarray, size_hw: tuple[int, int]) -> Any:
    """Returns places as GridSample takes them, ``[N, 2, points, H, W]`` from -1 to 1, x first."""
    sides = np.array(size_hw, np.float32).reshape(1, 1, 2, 1, 1)
    # The centre of pixel p is at (2 p + 1) / side - 1.
    scaled = relax.op.multiply(moved, relax.const(2 / sides))
    scaled = relax.op.add(
        bb.normalize(scaled), relax.const((2 * places[None] + 1) / sides - 1, "float32")
    )
    turned = relax.op.permute_dims(bb.normalize(scaled), [0, 2, 1, 3, 4])
    return bb.normalize(relax.op.flip(bb.normalize(turned), axis=1))


def _shape(value: Any) -> list[int]:
    return [int(dim) for dim in value.ty.shape]
