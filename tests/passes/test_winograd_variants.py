"""The matrices of Winograd's algorithm: exact without rounding, and how far off with it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scheduled_kernels import nearest_bf16

from tvmdet.passes.conv_algorithms import WINOGRAD
from tvmdet.passes.winograd_variants import BF16_F2, BF16_F4, F4, WinogradVariant

Array = npt.NDArray[np.float64]


def _transformed(
    variant: WinogradVariant, tiles: Array, weight: Array
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Tiles ``[t, m+2, m+2, c]`` and weights ``[3, 3, c, k]`` as the products take them."""
    inputs, filters = variant.input_transform, variant.weight_transform
    return (
        np.einsum("ai,bj,tijc->tabc", inputs, inputs, tiles),
        np.einsum("ai,bj,ijck->abck", filters, filters, weight),
    )


def _results(variant: WinogradVariant, moved: Array, weights: Array) -> Array:
    products = np.einsum("tabc,abck->tabk", moved, weights)
    out = variant.output_transform
    return np.einsum("ia,jb,tabk->tijk", out, out, products)


def _direct(variant: WinogradVariant, tiles: Array, weight: Array) -> Array:
    side = variant.side
    return sum(
        (tiles[:, i : i + side, j : j + side] @ weight[i, j] for i in range(3) for j in range(3)),
        np.zeros(()),
    )


def _bf16(array: Array) -> Array:
    return nearest_bf16(array.astype("float32")).astype("float64")


def _data(variant: WinogradVariant) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    tiles = np.maximum(rng.standard_normal((200, variant.edge, variant.edge, 64)), 0)
    return tiles, rng.standard_normal((3, 3, 64, 32))


@pytest.mark.parametrize("variant", WINOGRAD.values(), ids=WINOGRAD)
def test_without_rounding_the_result_is_the_convolution(variant: WinogradVariant) -> None:
    tiles, weight = _data(variant)
    result = _results(variant, *_transformed(variant, tiles, weight))
    np.testing.assert_allclose(result, _direct(variant, tiles, weight), rtol=0, atol=1e-10)


def _rounded_error(variant: WinogradVariant) -> float:
    """Over the deviation of the results, of factors rounded where the kernels round them."""
    tiles, weight = _data(variant)
    moved, weights = _transformed(variant, _bf16(tiles), weight)
    right = _direct(variant, tiles, weight)
    error = _results(variant, _bf16(moved), _bf16(weights)) - right
    return float(np.sqrt(np.mean(error**2)) / right.std())


def test_what_rounding_costs_is_bounded() -> None:
    tiles, weight = _data(BF16_F4)
    right = _direct(BF16_F4, tiles, weight)
    direct = _direct(BF16_F4, _bf16(tiles), _bf16(weight)) - right
    direct_error = np.sqrt(np.mean(direct**2)) / right.std()
    assert 0.002 < direct_error < 0.004
    assert _rounded_error(BF16_F2) < 2 * direct_error
    assert _rounded_error(BF16_F4) < 5 * direct_error


def test_the_points_of_float32_lose_twice_as_much() -> None:
    assert _rounded_error(F4) > 1.7 * _rounded_error(BF16_F4)
