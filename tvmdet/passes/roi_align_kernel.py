"""The kernel of RoiAlign on channels-last pictures, in TVMScript.

He et al., "Mask R-CNN" (2017), section 3, in the arithmetic of ONNX's reference: a bin is the mean
of bilinear samples on a regular grid inside it.

Strategy, for one region:

1. Samples lie on a grid and bilinear weights are products, so that a bin is a sum over pixels of a
   vertical weight times a horizontal one. The weights of all samples of a bin are added up per row
   and per column first: a pixel that several samples touch is then read once.
2. For each bin, the few pixels with a weight are summed as vectors of channels in registers.

Why not one sample after the other, as the definition reads: with two samples a side that is 16
reads for each bin and channel, where two or three pixels a side have a weight.
"""

# TVMScript is not Python to a type checker.
# mypy: ignore-errors

from __future__ import annotations

import math

from tvm import tirx
from tvm.script import tirx as T

__all__ = ["roi_align_func"]

_OPAQUE = 8  # tvm::relax::OpPatternKind::kOpaque: never fused with a neighbour
_LANES = 64  # float32: enough sums at once to hide the latency of each
_MOST_SAMPLES = 4096  # on a side of a bin; a grid that depends on the region has to end


def roi_align_func(
    data_shape: tuple[int, int, int, int],
    regions: int,
    pooled_hw: tuple[int, int],
    *,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tirx.PrimFunc:
    """Returns the kernel.

    Args:
        data_shape: ``[N, H, W, C]``.
        regions: Number of regions K, rows of batch index and ``x1 y1 x2 y2``; a region whose
            batch index is out of range becomes zeros.
        pooled_hw: Bins per region.
        spatial_scale: Pixels of the data per unit of the regions.
        sampling_ratio: Samples on each side of a bin; 0 for one per pixel of the data.
        aligned: Pixel centres lie at half units; else regions are at least one pixel large, as
            before ONNX opset 16.
    """
    batch, height, width, channels = data_shape
    rows, columns = pooled_hw
    lanes = math.gcd(channels, _LANES)
    offset = 0.5 if aligned else 0.0
    smallest = -3.0e38 if aligned else 1.0

    @T.prim_func(s_tir=True)
    def roi_align(
        data: T.Buffer((batch, height, width, channels), "float32"),
        rois: T.Buffer((regions, 5), "float32"),
        out: T.Buffer((regions, rows, columns, channels), "float32"),
    ):
        T.func_attr({"op_pattern": _OPAQUE, "tirx.noalias": True})
        for k in T.parallel(regions):
            down = T.alloc_buffer((rows, height), "float32")
            across = T.alloc_buffer((columns, width), "float32")
            first_y = T.alloc_buffer((rows,), "int32")
            last_y = T.alloc_buffer((rows,), "int32")
            first_x = T.alloc_buffer((columns,), "int32")
            last_x = T.alloc_buffer((columns,), "int32")
            start = T.alloc_buffer((2,), "float32", scope="local")
            size = T.alloc_buffer((2,), "float32", scope="local")
            samples = T.alloc_buffer((2,), "int32", scope="local")
            place = T.alloc_buffer((1,), "float32", scope="local")
            low = T.alloc_buffer((1,), "int32", scope="local")
            image = T.alloc_buffer((1,), "int32", scope="local")
            total = T.alloc_buffer((lanes,), "float32", scope="local")

            inside: T.let[T.bool] = rois[k, 0] >= T.float32(0) and rois[k, 0] < T.float32(batch)
            image[0] = T.cast(T.if_then_else(inside, rois[k, 0], T.float32(0)), "int32")
            # Side 0 is vertical (y1, y2), side 1 horizontal (x1, x2).
            for side in T.unroll(2):
                start[side] = rois[k, 2 - side] * T.float32(spatial_scale) - T.float32(offset)
                size[side] = T.max(
                    rois[k, 4 - side] * T.float32(spatial_scale) - T.float32(offset) - start[side],
                    T.float32(smallest),
                )
            size[0] = size[0] / T.float32(rows)
            size[1] = size[1] / T.float32(columns)
            for side in T.unroll(2):
                if sampling_ratio > 0:
                    samples[side] = sampling_ratio
                else:
                    # min takes its second operand for NaN.
                    samples[side] = T.cast(
                        T.max(T.min(T.ceil(size[side]), T.float32(_MOST_SAMPLES)), T.float32(0)),
                        "int32",
                    )

            # 1. Weights of rows, then of columns.
            for i in T.serial(rows):
                first_y[i] = height
                last_y[i] = -1
                for y in T.serial(height):
                    down[i, y] = T.float32(0)
                for s in T.serial(samples[0]):
                    place[0] = (
                        start[0]
                        + T.cast(i, "float32") * size[0]
                        + (T.cast(s, "float32") + T.float32(0.5))
                        * size[0]
                        / T.cast(samples[0], "float32")
                    )
                    if place[0] >= T.float32(-1) and place[0] <= T.float32(height):
                        place[0] = T.min(T.max(place[0], T.float32(0)), T.float32(height - 1))
                        low[0] = T.min(T.cast(place[0], "int32"), T.max(height - 2, 0))
                        down[i, low[0]] = down[i, low[0]] + (
                            T.float32(1) - (place[0] - T.cast(low[0], "float32"))
                        )
                        first_y[i] = T.min(first_y[i], low[0])
                        last_y[i] = T.max(last_y[i], low[0])
                        if place[0] > T.cast(low[0], "float32"):
                            down[i, low[0] + 1] = down[i, low[0] + 1] + (
                                place[0] - T.cast(low[0], "float32")
                            )
                            last_y[i] = T.max(last_y[i], low[0] + 1)
            for j in T.serial(columns):
                first_x[j] = width
                last_x[j] = -1
                for x in T.serial(width):
                    across[j, x] = T.float32(0)
                for s in T.serial(samples[1]):
                    place[0] = (
                        start[1]
                        + T.cast(j, "float32") * size[1]
                        + (T.cast(s, "float32") + T.float32(0.5))
                        * size[1]
                        / T.cast(samples[1], "float32")
                    )
                    if place[0] >= T.float32(-1) and place[0] <= T.float32(width):
                        place[0] = T.min(T.max(place[0], T.float32(0)), T.float32(width - 1))
                        low[0] = T.min(T.cast(place[0], "int32"), T.max(width - 2, 0))
                        across[j, low[0]] = across[j, low[0]] + (
                            T.float32(1) - (place[0] - T.cast(low[0], "float32"))
                        )
                        first_x[j] = T.min(first_x[j], low[0])
                        last_x[j] = T.max(last_x[j], low[0])
                        if place[0] > T.cast(low[0], "float32"):
                            across[j, low[0] + 1] = across[j, low[0] + 1] + (
                                place[0] - T.cast(low[0], "float32")
                            )
                            last_x[j] = T.max(last_x[j], low[0] + 1)
                # The mean over all samples, those outside counted as zeros.
                for x in T.serial(width):
                    across[j, x] = across[j, x] / T.cast(
                        T.max(samples[0] * samples[1], 1), "float32"
                    )

            # 2. Sums over the pixels of each bin.
            if not inside:
                for i in T.serial(rows):
                    last_y[i] = -1
            for i, j, block in T.grid(rows, columns, channels // lanes):
                for c in T.vectorized(lanes):
                    total[c] = T.float32(0)
                for y_off in T.serial(last_y[i] + 1 - first_y[i]):
                    if down[i, first_y[i] + y_off] != T.float32(0):
                        for x_off in T.serial(last_x[j] + 1 - first_x[j]):
                            for c in T.vectorized(lanes):
                                total[c] = (
                                    total[c]
                                    + (down[i, first_y[i] + y_off] * across[j, first_x[j] + x_off])
                                    * data[
                                        image[0],
                                        first_y[i] + y_off,
                                        first_x[j] + x_off,
                                        block * lanes + c,
                                    ]
                                )
                for c in T.vectorized(lanes):
                    out[k, i, j, block * lanes + c] = total[c]

    return roi_align
