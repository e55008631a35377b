"""Slices and concatenations are read where they lie; the numbers stay."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_models
import pytest
from assertions import assert_close
from scheduled_kernels import (
    conv2d_reference,
    kernels_of,
    lower_network,
    nearest_bf16,
    only_kernel,
    run_decisions,
)
from tvm import relax
from tvmdet.targets import get_target

V4 = get_target("x86-64-v4")
PLAIN: dict[str, Any] = {"strides": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
LAYOUTS = {"data_layout": "NHWC", "kernel_layout": "OHWI"}


def _noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def _slice(builder: relax.BlockBuilder, x: Any, begin: int, end: int) -> Any:
    return builder.emit(relax.op.strided_slice(x, axes=[3], begin=[begin], end=[end]))


def _conv(builder: relax.BlockBuilder, x: Any, weight: np.ndarray, **more: Any) -> Any:
    return builder.emit(relax.op.nn.conv2d(x, relax.const(weight), **LAYOUTS, **more))


def _kernels(emit: Any, *inputs: np.ndarray, algorithm: str = "direct") -> list[str]:
    return [kernel.template.name for kernel in kernels_of(emit, inputs, V4, algorithm)]


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("parts", [(16, 32), (16, 16, 16), (5, 11), (1, 1), (24, 8, 3)], ids=str)
@pytest.mark.parametrize("width", [8, 11])
def test_a_pointwise_convolution_gathers(parts: tuple[int, ...], width: int, target: str) -> None:
    inputs = [_noise(1, 6, width, channels, seed=i) for i, channels in enumerate(parts)]
    weight = _noise(24, 1, 1, sum(parts), seed=9)

    def emit(builder: relax.BlockBuilder, *xs: Any) -> Any:
        joined = builder.emit(relax.op.concat(list(xs), axis=3))
        return builder.emit(relax.op.nn.relu(_conv(builder, joined, weight)))

    chosen = get_target(target)
    kernel = only_kernel(emit, inputs, chosen)
    wanted = np.maximum(conv2d_reference(np.concatenate(inputs, 3), weight, **PLAIN, groups=1), 0)
    decisions = kernel.decisions[:: max(1, len(kernel.decisions) // 5)]
    for decision, (got,) in zip(decisions, run_decisions(kernel, decisions, chosen), strict=True):
        assert_close(got, wanted, rtol=1e-4, atol=1e-4, name=str(decision))


@pytest.mark.parametrize("parts", [(16, 32), (5, 11), (24, 8, 3)], ids=str)
def test_bfloat16_products_of_a_gathered_picture(parts: tuple[int, ...]) -> None:
    chosen = V4.at_precision("bf16")
    if chosen.missing_features():
        pytest.skip(f"this machine lacks {', '.join(chosen.missing_features())}")
    inputs = [_noise(1, 6, 11, channels, seed=i) for i, channels in enumerate(parts)]
    weight = _noise(24, 1, 1, sum(parts), seed=9)

    def emit(builder: relax.BlockBuilder, *xs: Any) -> Any:
        return _conv(builder, builder.emit(relax.op.concat(list(xs), axis=3)), weight)

    kernel = only_kernel(emit, inputs, chosen, "bf16")
    joined = nearest_bf16(np.concatenate(inputs, 3))
    wanted = conv2d_reference(joined, nearest_bf16(weight), **PLAIN, groups=1)
    decisions = kernel.decisions[:: max(1, len(kernel.decisions) // 5)]
    for decision, (got,) in zip(decisions, run_decisions(kernel, decisions, chosen), strict=True):
        assert_close(got, wanted, rtol=1e-4, atol=1e-3, name=str(decision))


@pytest.mark.parametrize("begin", [0, 16, 3])
@pytest.mark.parametrize(
    ("algorithm", "kernel", "groups"),
    [
        ("direct", 1, 1),
        ("direct", 3, 1),
        ("direct", 3, 32),
        ("winograd4", 3, 1),
        ("bf16", 3, 1),
        ("bf16_winograd4", 3, 1),
    ],
)
def test_convolutions_read_slices_where_they_lie(
    algorithm: str, kernel: int, groups: int, begin: int
) -> None:
    data = _noise(1, 8, 10, 64)
    weight = _noise(32, kernel, kernel, 32 // groups, seed=1)
    target = V4.at_precision("bf16") if algorithm.startswith("bf16") else V4
    if target.missing_features():
        pytest.skip(f"this machine lacks {', '.join(target.missing_features())}")

    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        part = _slice(builder, x, begin, begin + 32)
        padding = [kernel // 2] * 4
        y = _conv(builder, part, weight, padding=padding, groups=groups)
        return builder.emit(relax.op.add(y, part))

    made = only_kernel(emit, [data], target, algorithm)
    part = data[..., begin : begin + 32]
    geometry = {**PLAIN, "padding": (kernel // 2,) * 4}
    wanted = conv2d_reference(part, weight, **geometry, groups=groups) + part
    of_greatest = {"bf16": 2**-6, "bf16_winograd4": 2**-5}
    worst = of_greatest[algorithm] * np.abs(wanted).max() if algorithm in of_greatest else 1e-3
    ((got,),) = run_decisions(made, made.decisions[:1], target)
    assert_close(got, wanted, rtol=1e-4, atol=worst)


def test_a_split_of_which_every_reader_can_index_is_not_computed() -> None:
    """The block of YOLOv8: both halves go on, and one is convolved."""
    weight = _noise(16, 3, 3, 16, seed=1)
    last = _noise(8, 1, 1, 48, seed=2)

    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        first, second = _slice(builder, x, 0, 16), _slice(builder, x, 16, 32)
        third = _conv(builder, second, weight, padding=[1] * 4)
        joined = builder.emit(relax.op.concat([first, second, third], axis=3))
        return _conv(builder, joined, last)

    assert _kernels(emit, _noise(1, 8, 10, 32)) == ["x86.conv2d_nhwc"] * 2


def test_what_something_else_reads_too_stays() -> None:
    weight = _noise(8, 1, 1, 16, seed=1)

    def emit(builder: relax.BlockBuilder, x: Any, y: Any) -> Any:
        joined = builder.emit(relax.op.concat([x, y], axis=3))
        return [_conv(builder, joined, weight), joined]

    names = Counter(_kernels(emit, _noise(1, 8, 10, 8), _noise(1, 8, 10, 8)))
    assert names == {"common.elementwise": 1, "x86.conv2d_nhwc": 1}


def test_a_larger_kernel_would_gather_each_pixel_often() -> None:
    weight = _noise(8, 3, 3, 16, seed=1)

    def emit(builder: relax.BlockBuilder, x: Any, y: Any) -> Any:
        joined = builder.emit(relax.op.concat([x, y], axis=3))
        return _conv(builder, joined, weight, padding=[1] * 4)

    names = Counter(_kernels(emit, _noise(1, 8, 10, 8), _noise(1, 8, 10, 8)))
    assert names == {"common.elementwise": 1, "x86.conv2d_nhwc": 1}


def test_a_slice_that_kernels_of_two_results_read() -> None:
    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        part = _slice(builder, x, 4, 20)
        total = builder.emit(relax.op.sum(part, axis=[1, 2], keepdims=True))
        twice = builder.emit(relax.op.add(part, part))
        first, second = _slice(builder, twice, 0, 8), _slice(builder, twice, 8, 16)
        return [builder.emit(relax.op.multiply(part, total)), first, second]

    data = _noise(2, 5, 7, 24)
    part = data[..., 4:20]
    wanted = [part * part.sum((1, 2), keepdims=True), 2 * part[..., :8], 2 * part[..., 8:]]
    got = onnx_models.run_relax(lower_network(emit, [data], V4), data)
    for one, other in zip(got, wanted, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_sums_keep_their_slices() -> None:
    """Templates of reductions and rows read what they sum as it is."""

    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        return builder.emit(relax.op.nn.softmax(_slice(builder, x, 0, 8), axis=3))

    module = lower_network(emit, [_noise(1, 4, 4, 16)], V4)
    assert any("strided_slice" in var.name_hint for var in module.get_global_vars())
