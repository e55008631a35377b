"""Winograd's F(4x4, 3x3): a 3x3 convolution with a quarter of the multiplications.

A tile of 4x4 outputs is computed from 6x6 inputs as ``A^T [(G g G^T) * (B^T d B)] A``. The weights
are transformed here, once, at compile time. Source of the matrices: Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.

The transforms are written as chains of selects over the row index, which unrolling folds to plain
sums. Rounding grows: on data of unit variance the result is off by up to 1e-4 where the direct
convolution is off by 1e-6; the parity check of a build sees the sum of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

__all__ = ["OUTPUT_TILE", "pack_weights", "winograd_conv2d"]

OUTPUT_TILE = 4
_INPUT_TILE = 6

_B_T = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    "f8",
)
_G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    "f8",
)
_A_T = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ],
    "f8",
)


def pack_weights(weight: npt.NDArray[np.float32], lanes: int) -> npt.NDArray[np.float32]:
    """Returns transformed weights ``[36, ceil(OC/v), IC, v]`` of weights ``[OC, 3, 3, IC]``."""
    filters, depth = weight.shape[0], weight.shape[3]
    blocks = -(-filters // lanes)
    moved = np.zeros((_INPUT_TILE, _INPUT_TILE, depth, blocks * lanes))
    moved[..., :filters] = np.einsum("ar,orsi,bs->abio", _G, weight.astype("f8"), _G)
    blocked = moved.reshape(_INPUT_TILE**2, depth, blocks, lanes)
    return np.ascontiguousarray(blocked.transpose(0, 2, 1, 3), dtype=np.float32)


def winograd_conv2d(
    data: te.Tensor,
    packed: te.Tensor,
    filters: int,
    padding: tuple[int, int, int, int],
    anchor: str,
) -> te.Tensor:
    """Returns the tensor expression of a 3x3 convolution with stride and dilation 1.

    Args:
        data: ``[N, H, W, C]``.
        packed: ``[36, ceil(OC/v), C, v]``.
        filters: OC.
        padding: Top, left, bottom, right.
        anchor: Of the direct convolution; the template's mark.
    """
    batch, height, width, depth = (int(d) for d in data.shape)
    blocks, lanes = int(packed.shape[1]), int(packed.shape[3])
    top, left, bottom, right = padding
    out_h, out_w = height + top + bottom - 2, width + left + right - 2
    tiles_h, tiles_w = -(-out_h // OUTPUT_TILE), -(-out_w // OUTPUT_TILE)
    edge = _INPUT_TILE

    padded = te.compute(
        (batch, tiles_h * OUTPUT_TILE + 2, tiles_w * OUTPUT_TILE + 2, depth),
        lambda n, h, w, c: tirx.if_then_else(
            tirx.all(h >= top, h < height + top, w >= left, w < width + left),
            data[n, h - top, w - left, c],
            tirx.const(0.0, data.dtype),
        ),
        name="pad",
    )
    # The tiles of a picture are one axis, so that a register tile may run over the end of a row.
    tiles = tiles_h * tiles_w
    columns = te.compute(
        (batch, tiles, edge, edge, depth),
        lambda n, t, e, x, c: _row_of(
            _B_T,
            e,
            lambda r: padded[n, t // tiles_w * OUTPUT_TILE + r, t % tiles_w * OUTPUT_TILE + x, c],
        ),
        name="input_columns",
    )
    moved = te.compute(
        (batch, edge, edge, tiles, depth),
        lambda n, e, f, t, c: _row_of(_B_T, f, lambda r: columns[n, t, e, r, c]),
        name="input_tiles",
    )
    k = te.reduce_axis((0, depth), name="k")
    product = te.compute(
        (batch, edge, edge, tiles, blocks * lanes),
        lambda n, e, f, t, o: te.sum(
            moved[n, e, f, t, k] * packed[e * edge + f, o // lanes, k, o % lanes], axis=k
        ),
        name="product",
        attrs={
            "tvmdet.winograd_conv2d": f"winograd_{anchor}",
            "tvmdet.flop": 2 * batch * tiles * edge * edge * depth * filters,
            "tvmdet.lanes": lanes,
        },
    )
    rows = te.compute(
        (batch, tiles, OUTPUT_TILE, edge, blocks * lanes),
        lambda n, t, i, f, o: _row_of(_A_T, i, lambda r: product[n, r, f, t, o]),
        name="output_rows",
    )
    results = te.compute(
        (batch, tiles, OUTPUT_TILE, OUTPUT_TILE, blocks * lanes),
        lambda n, t, i, j, o: _row_of(_A_T, j, lambda r: rows[n, t, i, r, o]),
        name="output_tiles",
    )
    side = OUTPUT_TILE
    return te.compute(
        (batch, out_h, out_w, filters),
        lambda n, h, w, o: results[n, h // side * tiles_w + w // side, h % side, w % side, o],
        name="cut",
    )


def _row_of(matrix: npt.NDArray[np.float64], index: Any, entry: Callable[[int], Any]) -> Any:
    """Row ``index`` of a matrix times a vector, as selects that unrolling resolves."""

    def product(row: int) -> Any:
        total = None
        for column in np.flatnonzero(matrix[row]):
            factor, term = float(matrix[row, column]), entry(int(column))
            term = term if factor == 1 else tirx.const(factor, "float32") * term
            total = term if total is None else total + term
        return total

    last = len(matrix) - 1
    result = product(last)
    for row in reversed(range(last)):
        result = tirx.Select(index == row, product(row), result)
    return result
