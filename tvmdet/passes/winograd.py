"""Winograd's F(m x m, 3x3): 3x3 convolutions with a fraction of the multiplications.

A tile of m x m outputs is computed from (m+2) x (m+2) inputs as ``A^T [(G g G^T) * (B^T d B)] A``.
Weights are transformed here, once, at compile time, unless they become so large that they would
come from memory for every picture: those are kept plain and transformed by the kernel, chunk by
chunk. That takes about as long, and a fraction of the memory.

F(2x2) does 1/2.25 of the multiplications, F(4x4) 1/4 and F(6x6) 1/5.06 of them; the transformed
weights are 1.8, 4 and 7.1 times the plain ones, and larger tiles hang over the edges of small
pictures. The matrices: :mod:`tvmdet.passes.winograd_variants`.

The transforms are written as chains of selects over the row index, which unrolling folds to plain
sums. Pairs of rows that differ in the sign of their odd half share both halves: an expression that
occurs twice is computed once. Rounding grows with the tile: on data of unit variance F(6x6) is off
by some 2e-5 of the results' deviation, F(4x4) by 1e-5, where the direct convolution is off by 5e-7.

Products may be of bfloat16, summed in float32: twice as many an instruction. Pictures and weights
are transformed in float32 then, and rounded last. Values are uint16 as in
:mod:`~tvmdet.passes.bf16_conv2d`; weights are uint32, each the pair of two neighbouring channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from tvmdet.passes.bf16_conv2d import (
    float_of_bits,
    float_of_half,
    join_halves,
    round_to_bf16,
    round_to_bits,
)
from tvmdet.passes.winograd_variants import Matrix, WinogradVariant

__all__ = [
    "join_phases",
    "pack_plain_weights",
    "pack_weights",
    "split_phases",
    "winograd_conv2d",
]

_BLOCKS_TOGETHER = 4
"""Vectors of output channels are padded to a multiple of it: a prime number has no divisors."""

_TAPS = 3

_PAIR = 2

_PLAIN_DIMENSIONS = 5
"""Of weights that the kernel transforms itself."""


def pack_weights(
    weight: npt.NDArray[np.float32], lanes: int, variant: WinogradVariant
) -> npt.NDArray[np.float32] | npt.NDArray[np.uint32]:
    """Returns transformed weights ``[(m+2)^2, blocks, IC, v]`` of ``[OC, 3, 3, IC]``.

    There are ceil(OC/v) blocks, or a few more that hold zeros. For products of bfloat16 they are
    ``[(m+2)^2, blocks, IC/2, v]``, pairs of rounded ones.
    """
    filters, depth = weight.shape[0], weight.shape[3]
    blocks = _blocks(filters, lanes)
    factors = variant.weight_transform
    moved = np.zeros((variant.edge, variant.edge, depth, blocks * lanes))
    moved[..., :filters] = np.einsum(
        "ar,orsi,bs->abio", factors, weight.astype(np.float64), factors, optimize=True
    )
    blocked = moved.reshape(variant.edge**2, depth, blocks, lanes)
    packed = np.ascontiguousarray(blocked.transpose(0, 2, 1, 3), dtype=np.float32)
    return _pairs(packed) if variant.bf16 else packed


def _pairs(packed: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Returns ``[..., IC/2, v]``, the pairs of neighbours along the last axis but one, rounded."""
    low, high = (round_to_bf16(packed[..., at::_PAIR, :]).astype(np.uint32) for at in range(_PAIR))
    return low | high << np.uint32(16)


def pack_plain_weights(weight: npt.NDArray[np.float32], lanes: int) -> npt.NDArray[np.float32]:
    """Returns weights ``[blocks, 3, 3, IC, v]`` of ``[OC, 3, 3, IC]``, which kernels transform.

    There are as many blocks as in :func:`pack_weights`.
    """
    filters, height, width, depth = weight.shape
    blocks = _blocks(filters, lanes)
    padded = np.zeros((blocks * lanes, height, width, depth), np.float32)
    padded[:filters] = weight
    split = padded.reshape(blocks, lanes, height, width, depth)
    return np.ascontiguousarray(split.transpose(0, 2, 3, 4, 1))


def _blocks(filters: int, lanes: int) -> int:
    blocks = -(-filters // lanes)
    if blocks > _BLOCKS_TOGETHER:
        blocks = -(-blocks // _BLOCKS_TOGETHER) * _BLOCKS_TOGETHER
    return blocks


def winograd_conv2d(
    data: te.Tensor,
    packed: te.Tensor,
    filters: int,
    padding: tuple[int, int, int, int],
    anchor: str,
    variant: WinogradVariant,
) -> te.Tensor:
    """Returns the tensor expression of a 3x3 convolution with stride and dilation 1.

    Args:
        data: ``[N, H, W, C]``.
        packed: ``[(m+2)^2, blocks, C, v]``, see :func:`pack_weights`, or ``[blocks, 3, 3, C, v]``,
            see :func:`pack_plain_weights`, which the kernel transforms as it goes. For products
            of bfloat16 the former are ``[(m+2)^2, blocks, C/2, v]``, uint32.
        filters: OC.
        padding: Top, left, bottom, right.
        anchor: The layer and the algorithm; the template's mark.
        variant: The tiles.
    """
    batch, height, width, depth = (int(d) for d in data.shape)
    plain = len(packed.shape) == _PLAIN_DIMENSIONS
    blocks, lanes = int(packed.shape[0 if plain else 1]), int(packed.shape[-1])
    bf16 = variant.bf16
    rounded = round_to_bits if bf16 else lambda value: value
    top, left, bottom, right = padding
    out_h, out_w = height + top + bottom - 2, width + left + right - 2
    side, edge = variant.side, variant.edge
    tiles_h, tiles_w = -(-out_h // side), -(-out_w // side)

    padded = te.compute(
        (batch, tiles_h * side + 2, tiles_w * side + 2, depth),
        lambda n, h, w, c: tirx.if_then_else(
            tirx.all(h >= top, h < height + top, w >= left, w < width + left),
            data[n, h - top, w - left, c],
            tirx.const(0.0, data.dtype),
        ),
        name="pad",
    )
    # All tiles are one axis, so that a register tile may run over the end of a row or a picture.
    tiles = batch * tiles_h * tiles_w
    columns = te.compute(
        (tiles, edge, edge, depth),
        lambda t, e, x, c: _input_row(
            variant.input_transform,
            e,
            lambda r: padded[
                t // (tiles_h * tiles_w),
                t // tiles_w % tiles_h * side + r,
                t % tiles_w * side + x,
                c,
            ],
        ),
        name="input_columns",
    )
    moved = te.compute(
        (edge, edge, tiles, depth),
        lambda e, f, t, c: rounded(
            _input_row(variant.input_transform, f, lambda r: columns[t, e, r, c])
        ),
        name="input_tiles",
    )
    weights = _moved_weights(packed, variant) if plain else None

    def weight(e: Any, f: Any, o: Any, k: Any) -> Any:
        if weights is None:
            return packed[e * edge + f, o // lanes, k, o % lanes]
        return weights[e, f, o // lanes, k, o % lanes]

    k = te.reduce_axis((0, depth // _PAIR if bf16 else depth), name="k")
    half = te.reduce_axis((0, _PAIR), name="half")

    def multiplied(e: Any, f: Any, t: Any, o: Any) -> Any:
        if not bf16:
            return te.sum(moved[e, f, t, k] * weight(e, f, o, k), axis=k)
        picture = float_of_bits(moved[e, f, t, k * _PAIR + half])
        return te.sum(picture * float_of_half(weight(e, f, o, k), half), axis=[k, half])

    product = te.compute(
        (edge, edge, tiles, blocks * lanes),
        multiplied,
        name="product",
        attrs={
            f"tvmdet.{'bf16_' * bf16}winograd_conv2d": anchor,
            "tvmdet.winograd_side": side,
            "tvmdet.flop": 2 * tiles * edge * edge * depth * filters,
            "tvmdet.lanes": lanes,
            "tvmdet.filters": filters,
        },
    )
    rows = te.compute(
        (tiles, side, edge, blocks * lanes),
        lambda t, i, f, o: _output_row(variant.output_transform, i, lambda r: product[r, f, t, o]),
        name="output_rows",
    )
    results = te.compute(
        (tiles, side, side, blocks * lanes),
        lambda t, i, j, o: _output_row(variant.output_transform, j, lambda r: rows[t, i, r, o]),
        name="output_tiles",
    )
    return te.compute(
        (batch, out_h, out_w, filters),
        lambda n, h, w, o: results[
            (n * tiles_h + h // side) * tiles_w + w // side, h % side, w % side, o
        ],
        name="cut",
    )


def _moved_weights(plain: te.Tensor, variant: WinogradVariant) -> te.Tensor:
    """Returns ``G g G^T`` as ``[m+2, m+2, blocks, IC, v]`` of weights ``[blocks, 3, 3, IC, v]``.

    For products of bfloat16 it is ``[m+2, m+2, blocks, IC/2, v]``, pairs of rounded ones.
    """
    blocks, _, _, depth, lanes = (int(d) for d in plain.shape)
    edge, factors = variant.edge, variant.weight_transform
    columns = te.compute(
        (edge, _TAPS, blocks, depth, lanes),
        lambda e, s, b, k, v: _input_row(factors, e, lambda r: plain[b, r, s, k, v]),
        name="weight_columns",
    )

    def tile(e: Any, f: Any, b: Any, k: Any, v: Any) -> Any:
        return _input_row(factors, f, lambda s: columns[e, s, b, k, v])

    def pair(e: Any, f: Any, b: Any, k: Any, v: Any) -> Any:
        return join_halves(*(tile(e, f, b, k * _PAIR + half, v) for half in range(_PAIR)))

    return te.compute(
        (edge, edge, blocks, depth // _PAIR if variant.bf16 else depth, lanes),
        pair if variant.bf16 else tile,
        name="weight_tiles",
    )


def split_phases(
    data: te.Tensor, padding: tuple[int, int, int, int], dilation: tuple[int, int]
) -> te.Tensor:
    """Returns the pictures that every d-th pixel of a padded picture makes, as a batch.

    To a convolution of dilation d each of the d^2 is a picture of its own, and it is a plain one.

    Args:
        data: ``[N, H, W, C]``.
        padding: Top, left, bottom, right.
        dilation: Vertical and horizontal.

    Returns:
        ``[N * dh * dw, ceil(padded H / dh), ceil(padded W / dw), C]``.
    """
    batch, height, width, depth = (int(d) for d in data.shape)
    top, left, bottom, right = padding
    down, across = dilation
    rows, columns = -(-(height + top + bottom) // down), -(-(width + left + right) // across)

    def pixel(p: Any, h: Any, w: Any, c: Any) -> Any:
        row, column = h * down + p // across % down, w * across + p % across
        return tirx.if_then_else(
            tirx.all(row >= top, row < height + top, column >= left, column < width + left),
            data[p // (down * across), row - top, column - left, c],
            tirx.const(0.0, data.dtype),
        )

    return te.compute((batch * down * across, rows, columns, depth), pixel, name="split_phases")


def join_phases(
    data: te.Tensor, shape: tuple[int, int, int, int], dilation: tuple[int, int]
) -> te.Tensor:
    """Returns the picture ``[N, H, W, C]`` whose every d-th pixels are the pictures given."""
    down, across = dilation
    return te.compute(
        shape,
        lambda n, h, w, c: data[
            (n * down + h % down) * across + w % across, h // down, w // across, c
        ],
        name="join_phases",
    )


def _selected(index: Any, rows: Sequence[Any]) -> Any:
    """The entry of a list at an index, as selects that unrolling resolves."""
    result = rows[-1]
    for row in reversed(range(len(rows) - 1)):
        result = tirx.Select(index == row, rows[row], result)
    return result


def _input_row(matrix: Matrix, index: Any, entry: Callable[[int], Any]) -> Any:
    """Row ``index`` of ``B^T`` times a vector.

    The rows of the points p and -p are ``even + odd`` and ``even - odd``.
    """
    rows = []
    for row in matrix:
        even, odd = (
            [(float(row[c]), entry(int(c))) for c in np.flatnonzero(row) if c % 2 == parity]
            for parity in (0, 1)
        )
        sign = np.sign(odd[0][0]) if even and odd else 1.0
        half = [(sign * factor, term) for factor, term in odd]
        if not (even and odd):
            rows.append(_sum(even or half))
        else:
            rows.append(_sum(even) + _sum(half) if sign > 0 else _sum(even) - _sum(half))
    return _selected(index, rows)


def _output_row(matrix: Matrix, index: Any, entry: Callable[[int], Any]) -> Any:
    """Row ``index`` of ``A^T`` times a vector.

    The columns of the points p and -p occur as their sum or as their difference only.
    """
    last = matrix.shape[1] - 1
    rows = []
    for row in matrix:
        terms = [(float(row[0]), entry(0))] if row[0] else []
        for column in range(1, last, 2):
            factor, other = float(row[column]), float(row[column + 1])
            if factor:
                pair = entry(column) + entry(column + 1)
                if factor == -other:
                    pair = entry(column) - entry(column + 1)
                terms.append((factor, pair))
        if row[last]:
            terms.append((float(row[last]), entry(last)))
        rows.append(_sum(terms))
    return _selected(index, rows)


def _sum(terms: Sequence[tuple[float, Any]]) -> Any:
    total = None
    for factor, term in terms:
        scaled = term if factor == 1 else tirx.const(factor, "float32") * term
        total = scaled if total is None else total + scaled
    return total
