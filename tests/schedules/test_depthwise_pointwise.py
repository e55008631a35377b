"""A depthwise and a pointwise convolution as one kernel, against the definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from assertions import assert_close
from scheduled_kernels import (
    Kernel,
    conv2d_reference,
    kernels_of,
    nearest_bf16,
    only_kernel,
    run_decisions,
)
from tvm import relax
from tvmdet.targets import get_target

from tvmdet.passes.fuse_pairs import ConvPair, split_pair, usual_pairs

NAME = "x86.depthwise_pointwise_nhwc"
ONE = (1, 1)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both convolutions; ``why`` says what is awkward about them."""

    why: str
    size: tuple[int, int] = (9, 11)
    channels: int = 16
    filters: int = 32
    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = ONE
    padding: tuple[int, int, int, int] = (1, 1, 1, 1)
    dilation: tuple[int, int] = ONE
    batch: int = 1
    between: bool = True
    residual: bool = False


PAIRS = [
    Pair(why="plain"),
    Pair(why="nothing between", between=False),
    Pair(why="a pixel", size=(1, 1)),
    Pair(why="odd channels", channels=7, filters=5),
    Pair(why="half a vector", channels=24, filters=40),
    Pair(why="a row", size=(1, 37), channels=3, filters=33),
    Pair(why="a column", size=(37, 1), filters=17),
    Pair(why="strides", size=(12, 10), strides=(2, 2), filters=48),
    Pair(why="strides and a large kernel", size=(13, 9), strides=(2, 1), kernel=(5, 5)),
    Pair(why="padded on one side", padding=(0, 2, 1, 0), kernel=(2, 3)),
    Pair(why="not padded", padding=(0, 0, 0, 0), channels=32),
    Pair(why="dilated", size=(14, 13), dilation=(2, 3), padding=(2, 3, 2, 3)),
    Pair(why="batch and residual", size=(8, 12), batch=2, residual=True, channels=64, filters=64),
]


def _together(_pair: ConvPair) -> bool:
    return True


def _noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def _network(case: Pair, algorithm: str) -> tuple[Any, list[np.ndarray], np.ndarray]:
    """Returns what emits a pair, its inputs, and what it must compute."""
    data = _noise((case.batch, *case.size, case.channels), 0)
    depthwise = _noise((case.channels, *case.kernel, 1), 1)
    pointwise = _noise((case.filters, 1, 1, case.channels), 2)
    bias = _noise((1, 1, 1, case.channels), 3)
    geometry = {"strides": case.strides, "padding": case.padding, "dilation": case.dilation}
    middle = conv2d_reference(data, depthwise, **geometry, groups=case.channels)
    if case.between:
        middle = np.maximum(middle + bias, 0)
    plain = {"strides": ONE, "padding": (0, 0, 0, 0), "dilation": ONE, "groups": 1}
    if algorithm == "bf16":
        wanted = conv2d_reference(nearest_bf16(middle), nearest_bf16(pointwise), **plain)
    else:
        wanted = conv2d_reference(middle, pointwise, **plain)
    inputs = [data]
    if case.residual:
        inputs.append(_noise(wanted.shape, 4))
        wanted = wanted + inputs[1]

    def emit(builder: relax.BlockBuilder, x: Any, *residual: Any) -> Any:
        layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
        y = builder.emit(
            relax.op.nn.conv2d(
                x, relax.const(depthwise), **geometry, groups=case.channels, **layouts
            )
        )
        if case.between:
            y = builder.emit(relax.op.nn.relu(builder.emit(relax.op.add(y, relax.const(bias)))))
        y = builder.emit(relax.op.nn.conv2d(y, relax.const(pointwise), **layouts))
        return builder.emit(relax.op.add(y, residual[0])) if residual else y

    return emit, inputs, wanted


def _check(kernel: Kernel, decisions: Any, target: Any, wanted: np.ndarray, atol: float) -> None:
    for decision, (got,) in zip(decisions, run_decisions(kernel, decisions, target), strict=True):
        assert_close(got, wanted, rtol=1e-4, atol=atol, name=str(decision))


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("case", PAIRS, ids=lambda case: case.why)
def test_every_kind_of_pair(case: Pair, target: str) -> None:
    chosen = get_target(target)
    emit, inputs, wanted = _network(case, "direct")
    kernel = only_kernel(emit, inputs, chosen, pairs=_together)
    assert kernel.template.name == NAME and split_pair(kernel.workload.anchor) is not None
    step = max(1, len(kernel.decisions) // 4)
    _check(kernel, kernel.decisions[::step], chosen, wanted, 1e-4)


@pytest.mark.parametrize("case", PAIRS, ids=lambda case: case.why)
def test_bfloat16_products(case: Pair) -> None:
    chosen = get_target("x86-64-v4").at_precision("bf16")
    if chosen.missing_features():
        pytest.skip(f"this machine lacks {', '.join(chosen.missing_features())}")
    emit, inputs, wanted = _network(case, "bf16")
    kernel = only_kernel(emit, inputs, chosen, "bf16", _together)
    assert kernel.template.name == NAME
    step = max(1, len(kernel.decisions) // 3)
    # A sum of the depthwise part that lies between two bfloat16 values is rounded either way.
    worst = 2**-8 * np.abs(wanted).max()
    _check(kernel, kernel.decisions[::step], chosen, wanted, worst)


@pytest.mark.slow
@pytest.mark.parametrize("case", PAIRS[:8:3], ids=lambda case: case.why)
def test_every_decision(case: Pair) -> None:
    chosen = get_target("x86-64-v4")
    emit, inputs, wanted = _network(case, "direct")
    kernel = only_kernel(emit, inputs, chosen, pairs=_together)
    _check(kernel, kernel.decisions, chosen, wanted, 1e-4)


def test_a_picture_that_something_else_reads_stays() -> None:
    case = PAIRS[0]
    emit, inputs, _ = _network(case, "direct")

    def read_twice(builder: relax.BlockBuilder, x: Any) -> Any:
        result = emit(builder, x)
        # The builder's block so far: depthwise, bias, activation, pointwise.
        weight = relax.const(_noise((case.channels, *case.kernel, 1), 1))
        again = builder.emit(
            relax.op.nn.conv2d(
                x,
                weight,
                padding=case.padding,
                groups=case.channels,
                data_layout="NHWC",
                kernel_layout="OHWI",
            )
        )
        other = builder.emit(
            relax.op.nn.conv2d(
                again,
                relax.const(_noise((case.filters, 1, 1, case.channels), 5)),
                data_layout="NHWC",
                kernel_layout="OHWI",
            )
        )
        return [result, other, again]

    kernels = kernels_of(read_twice, inputs, get_target("x86-64-v4"), pairs=_together)
    names = [kernel.template.name for kernel in kernels]
    assert sorted(names) == ["x86.conv2d_nhwc", "x86.depthwise_conv2d_nhwc", NAME]


def test_nothing_is_fused_that_the_choice_does_not_want() -> None:
    emit, inputs, _ = _network(PAIRS[0], "direct")
    seen: list[ConvPair] = []
    target = get_target("x86-64-v4")
    kernels = kernels_of(emit, inputs, target, pairs=lambda pair: bool(seen.append(pair)))
    assert len(kernels) == 2
    (pair,) = seen
    assert pair.bytes_between == 4 * 9 * 11 * 16 and not usual_pairs(pair, target.l2_bytes)
    assert pair.depthwise.startswith("depthwise_conv2d n1 h9 w11 c16 k3x3")
    assert pair.pointwise.startswith("conv2d n1 h9 w11 c16 oc32 k1x1")
