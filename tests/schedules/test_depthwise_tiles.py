"""How depthwise convolutions are tiled: channels that no vector divides, rows, registers."""

from __future__ import annotations

import conv_cases
import pytest
from assertions import assert_close
from scheduled_kernels import only_kernel, run_decisions
from tvmdet.schedules.common.depthwise_conv2d_nhwc import Taps, lanes_for, taps_of, tiles_of
from tvmdet.targets import Target, get_target


@pytest.mark.parametrize("channels", [16, 67, 128])
def test_each_order_of_a_depthwise_convolution_is_right(channels: int, target: Target) -> None:
    case = conv_cases.depthwise_case("orders", channels, size=(6, 40), epilogue="bias relu")
    emit, inputs, expected, atol = conv_cases.network(case, "direct")
    kernel = only_kernel(emit, inputs, target)
    of_order = {decision["order"]: decision for decision in kernel.decisions}
    cut = channels > target.vector_lanes_f32 and channels % target.vector_lanes_f32 == 0
    assert set(of_order) == ({"rows", "channels", "copied"} if cut else {"rows"})
    results = run_decisions(kernel, list(of_order.values()), target)
    for order, (result,) in zip(of_order, results, strict=True):
        assert_close(result, expected, rtol=3e-5, atol=atol, name=order)


@pytest.mark.parametrize("channels", [16, 67])
def test_a_picture_of_one_row_is_tiled_as_others(channels: int, target: Target) -> None:
    case = conv_cases.depthwise_case(
        "a row", channels, kernel=(1, 9), padding=(0, 4, 0, 4), size=(1, 37)
    )
    emit, inputs, *_ = conv_cases.network(case, "direct")
    kernel = only_kernel(emit, inputs, target)
    assert kernel.decisions[0]["order"] == "rows" and kernel.decisions[0]["tile_w"] >= 3
    assert len(set(kernel.decisions)) == len(kernel.decisions) > 1


@pytest.mark.parametrize(
    ("channels", "lanes", "tiles"),
    [
        (1, 1, {1}),
        (7, 4, {1}),
        (16, 16, {1}),
        (17, 16, {1}),
        (24, 16, {1}),
        (48, 16, {1}),
        (64, 16, {1, 2, 4}),
        (67, 16, {1, 2, 4}),
    ],
)
def test_blocks_of_channels(channels: int, lanes: int, tiles: set[int]) -> None:
    assert lanes_for(channels, 16) == lanes
    taps = taps_of("depthwise_conv2d n1 h9 w9 c1 k3x3 s1x1 p1.1.1.1 d1x1", channels, lanes)
    assert taps == Taps(channels=channels, lanes=lanes, kernel_w=3, stride_w=1)
    assert {vectors for _, vectors in tiles_of(taps, get_target("x86-64-v4"), 8)} == tiles


def test_a_tile_fits_the_registers() -> None:
    """More pixels and sums than 1.25 times the registers were spilled, counted in LLVM's code."""
    taps = Taps(channels=64, lanes=8, kernel_w=5, stride_w=1)
    found = tiles_of(taps, get_target("x86-64-v3"), 80)
    assert (8, 1) in found and (10, 1) not in found and (5, 2) not in found
