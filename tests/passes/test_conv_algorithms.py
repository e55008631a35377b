"""Which algorithms of a convolution are tried, and in what order."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tvmdet.passes.conv_algorithms import (
    ALGORITHMS,
    ROUNDED,
    WINOGRAD,
    AlgorithmName,
    ConvLayer,
    promising_algorithms,
    usual_algorithm,
)

ALL: tuple[AlgorithmName, ...] = tuple(ALGORITHMS)
FLOAT32: tuple[AlgorithmName, ...] = tuple(name for name in ALL if name not in ROUNDED)
BF16: tuple[AlgorithmName, ...] = (*FLOAT32, "bf16", "bf16_winograd2", "bf16_winograd4")


def _layer(possible: tuple[AlgorithmName, ...], algorithms: tuple[AlgorithmName, ...]) -> ConvLayer:
    return ConvLayer(
        anchor="conv2d",
        weights_sha256="",
        possible=possible,
        algorithms=algorithms,
        fine=algorithms,
        exact=("direct",),
    )


def guess(
    side: int, depth: int, filters: int, possible: tuple[AlgorithmName, ...], **changes: Any
) -> tuple[AlgorithmName, ...]:
    options: dict[str, Any] = {"dilation": (1, 1), "taps": 9, "batch": 1, "possible": possible}
    lanes = changes.pop("lanes", 16)
    return promising_algorithms((side, side), (depth, filters), lanes, **{**options, **changes})


@pytest.mark.parametrize("side", [1, 5, 10, 20, 75, 300])
@pytest.mark.parametrize("channels", [16, 64, 512])
def test_the_direct_way_stays_and_winograd_is_tried_twice_at_most(side: int, channels: int) -> None:
    tried = guess(side, channels, channels, ALL)
    assert {"direct", "bf16"} <= set(tried) <= set(ALL)
    for bf16 in (False, True):
        assert sum(WINOGRAD[name].bf16 == bf16 for name in tried if name in WINOGRAD) <= 2
    assert len(set(tried)) == len(tried)


def test_nothing_is_tried_that_is_not_possible() -> None:
    assert guess(40, 64, 64, ("direct",)) == ("direct",)
    assert set(guess(40, 64, 64, ("direct", "bf16"))) == {"direct", "bf16"}


def test_large_tiles_for_large_pictures_and_small_ones_for_small() -> None:
    assert guess(300, 64, 64, FLOAT32)[0] == "winograd6"
    assert "winograd6" not in guess(2, 64, 64, FLOAT32)
    assert "winograd2" in guess(2, 64, 64, FLOAT32, batch=64)


def test_tiles_of_bfloat16_before_those_of_float32() -> None:
    assert guess(80, 64, 64, BF16)[0] == "bf16_winograd4"
    assert guess(10, 128, 128, BF16)[0] == "bf16_winograd2", "4x4 tiles would be a third empty"


def test_weights_that_are_read_for_one_pixel_stay_small() -> None:
    assert not set(WINOGRAD) & set(guess(1, 512, 512, FLOAT32))


def test_bfloat16_before_float32_for_a_pointwise_convolution() -> None:
    assert guess(40, 256, 256, ("direct", "bf16"), taps=1) == ("bf16", "direct")


def test_a_dilated_picture_has_the_tiles_of_its_phases() -> None:
    # 6 phases of 2x2 pixels per axis: a 4x4 tile would be three quarters empty.
    plain, dilated = (guess(12, 256, 256, FLOAT32, dilation=(d, d)) for d in (1, 6))
    assert "winograd4" in plain
    assert "winograd2" in dilated and "winograd4" not in dilated


def test_matrix_tiles_are_not_compared() -> None:
    possible: tuple[AlgorithmName, ...] = ("direct", "winograd4", "amx")
    tried = guess(40, 64, 64, possible)
    assert tried[0] == "amx" and "direct" in tried, "for layers that are kept in float32"
    layer = _layer(possible, tried)
    assert layer.compared == ("amx",)
    others = dataclasses.replace(layer, algorithms=tried[1:])
    assert others.compared == tried[1:]


def test_the_usual_one_is_the_best_guess() -> None:
    layer = _layer(ALL, ("winograd4", "direct"))
    assert usual_algorithm(layer) == "winograd4"


# The cycles that are predicted of a Cortex-A76, of each Winograd algorithm over the fastest.
@pytest.mark.parametrize(
    ("side", "depth", "filters", "first"),
    [
        (80, 16, 16, "winograd4"),  # 1.00; F(6x6) 1.21
        (40, 32, 32, "winograd4"),  # 1.00; 1.09
        (20, 128, 128, "winograd4"),  # 1.00; 1.21
        (40, 128, 128, "winograd6"),  # F(4x4) 1.03; 1.00
        (10, 256, 256, "winograd2"),  # 1.45; 1.78: both transform weights in every call
    ],
)
def test_neon_s_transforms_are_dearer(side: int, depth: int, filters: int, first: str) -> None:
    assert guess(side, depth, filters, FLOAT32, lanes=4)[0] == first
