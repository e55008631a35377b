"""Convolutions and matrix products for a GPU: one product of two matrices, as a tensor expression.

A convolution of NHWC data is the product of a matrix with one row per output pixel and one column
per tap and channel, and of the weights ``[KH * KW * IC, OC]`` (implicit GEMM: the left matrix is
never stored; each tile of it is gathered from the picture when it is copied to shared memory).
Rows, columns and depth are padded with zeros to whole tiles, so that every tile is full; only the
stores are cut to size.

Source: Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning" (2014), section 3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from tvmdet.passes.conv2d_expressions import dense_anchor, out_size

__all__ = ["FACTORS", "batch_product", "implicit_gemm", "pack_matrix", "padded_to_tiles"]

FACTORS = {"direct": "float32", "tf32": "float32", "fp16": "float16"}
"""What both factors of the products are stored as, by algorithm. Sums are float32."""

_TILE = 16  # of a tensor-core product, on every axis
_DEPTH = 32


def padded_to_tiles(extent: int) -> int:
    """Returns the rows or columns of whole tiles: of 16, of 32, or of 64 where there are many."""
    for tile in (16, 32):
        if extent <= tile:
            return tile
    return -(-extent // 64) * 64


def padded_depth(depth: int) -> int:
    """Returns a depth of whole steps."""
    return _TILE if depth <= _TILE else -(-depth // _DEPTH) * _DEPTH


def pack_matrix(matrix: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    """Returns a right factor ``[depth, columns]`` padded to whole tiles."""
    depth, columns = matrix.shape
    packed = np.zeros((padded_depth(depth), padded_to_tiles(columns)), dtype)
    packed[:depth, :columns] = matrix
    return packed


def implicit_gemm(
    data: te.Tensor,
    packed: te.Tensor,
    weight_shape: tuple[int, int, int, int],
    algorithm: str,
    *,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> te.Tensor:
    """Returns a dense convolution.

    Args:
        data: ``[N, H, W, C]``.
        packed: From :func:`pack_matrix`, of weights ``[KH * KW * C, OC]``.
        weight_shape: ``OHWI``.
        algorithm: Of :data:`FACTORS`.
        strides: Vertical and horizontal.
        padding: Top, left, bottom, right.
        dilation: Vertical and horizontal.
        groups: 1.
    """
    batch, height, width, channels = (int(d) for d in data.shape)
    filters, kernel_h, kernel_w, _ = weight_shape
    out_h, out_w = out_size((height, width), (kernel_h, kernel_w), strides, padding, dilation)
    top, left, _, _ = padding
    rows, depth = batch * out_h * out_w, kernel_h * kernel_w * channels
    factor = FACTORS[algorithm]

    def gathered(m: Any, k: Any) -> Any:
        n, h, w = m // (out_h * out_w), m // out_w % out_h, m % out_w
        kh, kw, c = k // (kernel_w * channels), k // channels % kernel_w, k % channels
        y = h * strides[0] + kh * dilation[0] - top
        x = w * strides[1] + kw * dilation[1] - left
        inside = []
        if rows % _rows_tile(rows):
            inside.append(m < rows)
        if depth != padded_depth(depth):
            inside.append(k < depth)
        if any(padding):
            inside += [y >= 0, y < height, x >= 0, x < width]
        value = data[n, y, x, c].astype(factor)
        if not inside:
            return value
        return tirx.if_then_else(tirx.all(*inside), value, tirx.const(0, factor))

    shape = (batch, height, width, channels)
    anchor = dense_anchor(
        shape,
        weight_shape,
        str(data.dtype),
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    product = _product(
        (rows, depth, filters), gathered, packed, algorithm, anchor, _steps(channels, depth)
    )

    def cut(n: Any, h: Any, w: Any, c: Any) -> Any:
        return product[0, (n * out_h + h) * out_w + w, c]

    return te.compute((batch, out_h, out_w, filters), cut, name="cut")


def batch_product(left: te.Tensor, right: te.Tensor, algorithm: str) -> te.Tensor:
    """Returns ``left @ right`` for many pairs of matrices.

    Args:
        left: ``[..., M, K]``, float32.
        right: ``[..., K, N]``, float32, with the same leading axes.
        algorithm: Of :data:`FACTORS`.
    """
    *lead, rows, depth = (int(d) for d in left.shape)
    columns = int(right.shape[-1])
    many = math.prod(lead)
    factor = FACTORS[algorithm]
    rows_padded, columns_padded = _padded_rows(rows), padded_to_tiles(columns)

    def place(b: Any) -> list[Any]:
        found = []
        for axis, extent in enumerate(lead):
            inner = math.prod(lead[axis + 1 :])
            found.append(b // inner % extent)
        return found

    def guarded(value: Any, *conditions: Any) -> Any:
        value = value.astype(factor)
        if not conditions:
            return value
        return tirx.if_then_else(tirx.all(*conditions), value, tirx.const(0, factor))

    deep = padded_depth(depth)

    def left_at(b: Any, m: Any, k: Any) -> Any:
        conditions = [] if rows == rows_padded else [m < rows]
        conditions += [] if depth == deep else [k < depth]
        return guarded(left(*place(b), m, k), *conditions)

    def right_at(b: Any, k: Any, n: Any) -> Any:
        conditions = [] if columns == columns_padded else [n < columns]
        conditions += [] if depth == deep else [k < depth]
        return guarded(right(*place(b), k, n), *conditions)

    lefts = te.compute((many, rows_padded, deep), left_at, name="left")
    rights = te.compute((many, deep, columns_padded), right_at, name="right")
    k = te.reduce_axis((0, deep), name="k")
    product = te.compute(
        (many, rows_padded, columns_padded),
        lambda b, m, n: te.sum(
            lefts[b, m, k].astype("float32") * rights[b, k, n].astype("float32"), axis=k
        ),
        name="product",
        attrs=_notes(
            algorithm, f"batch_matmul {many}x{rows}x{depth}x{columns}", (many, rows, depth, columns)
        ),
    )

    def cut(*i: Any) -> Any:
        b: Any = tirx.const(0, "int64") if not lead else i[0]
        for axis, extent in enumerate(lead[1:], 1):
            b = b * extent + i[axis]
        return product[b, i[-2], i[-1]]

    return te.compute((*lead, rows, columns), cut, name="cut")


def _product(
    sizes: tuple[int, int, int],
    gathered: Any,
    packed: te.Tensor,
    algorithm: str,
    anchor: str,
    steps: int,
) -> te.Tensor:
    rows, depth, filters = sizes
    deep, columns = (int(d) for d in packed.shape)
    left = te.compute((_padded_rows(rows), deep), gathered, name="left")
    right = te.compute((deep, columns), lambda k, n: packed[k, n], name="right")
    k = te.reduce_axis((0, deep), name="k")
    notes = _notes(algorithm, anchor, (1, rows, depth, filters))
    return te.compute(
        (1, _padded_rows(rows), columns),
        lambda b, m, n: te.sum(
            left[m, k].astype("float32") * right[k, n].astype("float32"), axis=k
        ),
        name="product",
        attrs=notes | {"tvmdet.run": steps},
    )


def _notes(algorithm: str, anchor: str, sizes: tuple[int, int, int, int]) -> dict[str, Any]:
    prefix = "" if algorithm == "direct" else f"{algorithm}_"
    return {
        "tvmdet.product": algorithm,
        "tvmdet.anchor": f"{prefix}{anchor}",
        "tvmdet.flop": 2 * math.prod(sizes),
        "tvmdet.rows": sizes[1],
        "tvmdet.columns": sizes[3],
        "tvmdet.run": 1,
    }


def _padded_rows(rows: int) -> int:
    return -(-rows // _rows_tile(rows)) * _rows_tile(rows)


def _rows_tile(rows: int) -> int:
    """Returns what the rows are padded to a multiple of."""
    for tile in (16, 32, 64):
        if rows <= tile:
            return tile
    return 128


def _steps(channels: int, depth: int) -> int:
    """Returns how many neighbours along the depth lie side by side in the picture."""
    return next(n for n in (8, 4, 2, 1) if channels % n == 0 and depth % n == 0)
