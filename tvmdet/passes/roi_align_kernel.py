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

from tvmdet.passes.kernel_marks import mark_kernel

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
    bins, longest = max(rows, columns), max(height, width)
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
            # Side 0 is vertical (rows, y1, y2), side 1 horizontal (columns, x1, x2).
            weight = T.alloc_buffer((2, bins, longest), "float32")
            first = T.alloc_buffer((2, bins), "int32")
            last = T.alloc_buffer((2, bins), "int32")
            count = T.alloc_buffer((2,), "int32", scope="local")
            extent = T.alloc_buffer((2,), "int32", scope="local")
            start = T.alloc_buffer((2,), "float32", scope="local")
            size = T.alloc_buffer((2,), "float32", scope="local")
            samples = T.alloc_buffer((2,), "int32", scope="local")
            place = T.alloc_buffer((1,), "float32", scope="local")
            share = T.alloc_buffer((1,), "float32", scope="local")
            low = T.alloc_buffer((1,), "int32", scope="local")
            image = T.alloc_buffer((1,), "int32", scope="local")
            total = T.alloc_buffer((lanes,), "float32", scope="local")

            inside: T.let[T.bool] = rois[k, 0] >= T.float32(0) and rois[k, 0] < T.float32(batch)
            image[0] = T.cast(T.if_then_else(inside, rois[k, 0], T.float32(0)), "int32")
            count[0] = rows
            count[1] = columns
            extent[0] = height
            extent[1] = width
            for side in T.unroll(2):
                start[side] = rois[k, 2 - side] * T.float32(spatial_scale) - T.float32(offset)
                size[side] = T.max(
                    rois[k, 4 - side] * T.float32(spatial_scale) - T.float32(offset) - start[side],
                    T.float32(smallest),
                ) / T.cast(count[side], "float32")
                if sampling_ratio > 0:
                    samples[side] = sampling_ratio
                else:
                    # min takes its second operand for NaN.
                    samples[side] = T.cast(
                        T.max(T.min(T.ceil(size[side]), T.float32(_MOST_SAMPLES)), T.float32(0)),
                        "int32",
                    )

            # 1. Weights of rows, then of columns.
            for side in T.serial(2):
                for i in T.serial(count[side]):
                    first[side, i] = extent[side]
                    last[side, i] = -1
                    for pixel in T.serial(extent[side]):
                        weight[side, i, pixel] = T.float32(0)
                    for s in T.serial(samples[side]):
                        place[0] = (
                            start[side]
                            + T.cast(i, "float32") * size[side]
                            + (T.cast(s, "float32") + T.float32(0.5))
                            * size[side]
                            / T.cast(samples[side], "float32")
                        )
                        if place[0] >= T.float32(-1) and place[0] <= T.cast(
                            extent[side], "float32"
                        ):
                            place[0] = T.min(
                                T.max(place[0], T.float32(0)), T.cast(extent[side] - 1, "float32")
                            )
                            low[0] = T.min(T.cast(place[0], "int32"), T.max(extent[side] - 2, 0))
                            share[0] = place[0] - T.cast(low[0], "float32")
                            weight[side, i, low[0]] = weight[side, i, low[0]] + (
                                T.float32(1) - share[0]
                            )
                            first[side, i] = T.min(first[side, i], low[0])
                            last[side, i] = T.max(last[side, i], low[0])
                            if share[0] > T.float32(0):
                                weight[side, i, low[0] + 1] = weight[side, i, low[0] + 1] + share[0]
                                last[side, i] = T.max(last[side, i], low[0] + 1)
                    # The mean over all samples, those outside counted as zeros.
                    for pixel in T.serial(extent[side]):
                        weight[side, i, pixel] = weight[side, i, pixel] / T.cast(
                            T.max(samples[side], 1), "float32"
                        )

            # 2. Sums over the pixels of each bin.
            if not inside:
                for i in T.serial(rows):
                    last[0, i] = -1
            for i, j, block in T.grid(rows, columns, channels // lanes):
                for c in T.vectorized(lanes):
                    total[c] = T.float32(0)
                for y_off in T.serial(last[0, i] + 1 - first[0, i]):
                    if weight[0, i, first[0, i] + y_off] != T.float32(0):
                        for x_off in T.serial(last[1, j] + 1 - first[1, j]):
                            for c in T.vectorized(lanes):
                                total[c] = (
                                    total[c]
                                    + (
                                        weight[0, i, first[0, i] + y_off]
                                        * weight[1, j, first[1, j] + x_off]
                                    )
                                    * data[
                                        image[0],
                                        first[0, i] + y_off,
                                        first[1, j] + x_off,
                                        block * lanes + c,
                                    ]
                                )
                for c in T.vectorized(lanes):
                    out[k, i, j, block * lanes + c] = total[c]

    return mark_kernel(
        roi_align,
        "roi_align",
        data_shape=data_shape,
        regions=regions,
        pooled_hw=pooled_hw,
        scale=spatial_scale,
        ratio=sampling_ratio,
        offset=offset,
        smallest=smallest,
    )
