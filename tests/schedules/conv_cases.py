"""Convolutions at awkward sizes, with and without epilogues, and what is right for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from assertions import assert_close
from scheduled_kernels import (
    Emit,
    build,
    conv2d_reference,
    nearest_bf16,
    only_kernel,
    run_decisions,
)
from tvm import relax
from tvmdet.targets import Target

from tvmdet.passes.conv_algorithms import WINOGRAD


@dataclass(frozen=True, kw_only=True)
class Conv:
    """One convolution; ``why`` says what is awkward about it."""

    why: str
    size: tuple[int, int] = (9, 11)
    channels: int = 8
    filters: int = 16
    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (1, 1, 1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    batch: int = 1
    epilogue: str = "none"

    @property
    def geometry(self) -> dict[str, Any]:
        return {
            "strides": self.strides,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        data = rng.standard_normal((self.batch, *self.size, self.channels)).astype("float32")
        shape = (self.filters, *self.kernel, self.channels // self.groups)
        return data, rng.standard_normal(shape).astype("float32")


def depthwise_case(why: str, channels: int, **more: Any) -> Conv:
    return Conv(why=why, channels=channels, filters=channels, groups=channels, **more)


def _bias(filters: int) -> np.ndarray:
    return np.linspace(-3, 3, filters, dtype="float32").reshape(1, 1, 1, -1)


def _noise(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# Name -> shapes of further operands, what it emits, and what it means.
Epilogue = tuple[
    Callable[[tuple[int, ...]], list[tuple[int, ...]]],
    Callable[..., Any],
    Callable[..., np.ndarray],
]
EPILOGUES: dict[str, Epilogue] = {
    "none": (lambda s: [], lambda y: y, lambda y: y),
    "bias relu": (
        lambda s: [],
        lambda y: relax.op.nn.relu(relax.op.add(y, relax.const(_bias(int(y.ty.shape[3]))))),
        lambda y: np.maximum(y + _bias(y.shape[3]), 0),
    ),
    "silu": (lambda s: [], lambda y: relax.op.nn.silu(y), lambda y: y * _sigmoid(y)),
    "residual": (lambda s: [s], lambda y, r: relax.op.add(y, r), lambda y, r: y + r),
    "residual first": (
        lambda s: [s],
        lambda y, r: relax.op.nn.relu(relax.op.subtract(r, y)),
        lambda y, r: np.maximum(r - y, 0),
    ),
    "gate per channel": (
        lambda s: [(s[0], 1, 1, s[3])],
        lambda y, g: relax.op.multiply(y, g),
        lambda y, g: y * g,
    ),
    "gate per pixel": (
        lambda s: [(s[0], s[1], s[2], 1)],
        lambda y, g: relax.op.multiply(relax.op.sigmoid(g), y),
        lambda y, g: y * _sigmoid(g),
    ),
    "two residuals": (
        lambda s: [s, s],
        lambda y, a, b: relax.op.multiply(relax.op.add(y, a), relax.op.add(y, b)),
        lambda y, a, b: (y + a) * (y + b),
    ),
}

CASES = [
    Conv(why="smallest", size=(1, 1), channels=1, filters=1, kernel=(1, 1), padding=(0, 0, 0, 0)),
    Conv(why="one pixel, padded", size=(1, 1), channels=3, filters=7),
    *(
        Conv(why=f"{c} channels to {f}", channels=c, filters=f, epilogue=e)
        for c, f, e in (
            (1, 3, "bias relu"),
            (3, 8, "silu"),
            (7, 9, "residual"),
            (8, 15, "none"),
            (9, 16, "bias relu"),
            (15, 17, "gate per channel"),
            (16, 31, "residual"),
            (17, 33, "silu"),
            (31, 1, "none"),
            (33, 7, "two residuals"),
            (16, 32, "residual first"),
            (16, 48, "gate per pixel"),
        )
    ),
    Conv(why="pointwise", kernel=(1, 1), padding=(0, 0, 0, 0), filters=32, epilogue="silu"),
    Conv(why="pointwise, odd", kernel=(1, 1), padding=(0, 0, 0, 0), channels=15, filters=33),
    Conv(why="pointwise, stride 2", kernel=(1, 1), padding=(0, 0, 0, 0), strides=(2, 2)),
    Conv(why="pointwise, padded", kernel=(1, 1), filters=17),
    Conv(why="wide row", size=(3, 67), channels=3, filters=16, epilogue="bias relu"),
    Conv(why="row of one more than a tile", size=(2, 29), filters=16),
    Conv(why="column of pixels", size=(29, 1), filters=17, padding=(1, 1, 1, 1)),
    Conv(why="rows that 4 divides", size=(8, 13), filters=16, epilogue="residual"),
    Conv(why="stride 2", strides=(2, 2), size=(15, 17), channels=3, epilogue="silu"),
    Conv(why="stride 2, even", strides=(2, 2), size=(16, 14), padding=(0, 0, 1, 1)),
    Conv(why="stride 3", strides=(3, 3), size=(17, 19), filters=17),
    Conv(why="mixed strides", strides=(2, 1), size=(13, 9), filters=9, epilogue="bias relu"),
    Conv(why="mixed strides the other way", strides=(1, 3), size=(7, 20), filters=16),
    Conv(why="stride beyond the kernel", strides=(3, 3), kernel=(2, 2), padding=(0, 0, 0, 0)),
    Conv(why="dilated", dilation=(2, 2), padding=(2, 2, 2, 2), filters=16, epilogue="silu"),
    Conv(why="dilated one way", dilation=(1, 3), padding=(1, 3, 1, 3), size=(5, 15), filters=8),
    Conv(why="padded on one side", padding=(0, 2, 3, 1), filters=31, epilogue="residual"),
    Conv(why="more padding than kernel", padding=(4, 5, 3, 4), size=(3, 3), filters=8),
    Conv(why="flat kernel", kernel=(1, 7), padding=(0, 3, 0, 3), size=(5, 23), filters=16),
    Conv(why="tall kernel", kernel=(5, 1), padding=(2, 0, 2, 0), filters=16),
    Conv(why="kernel of the picture", kernel=(9, 11), padding=(0, 0, 0, 0), filters=17),
    Conv(why="even kernel", kernel=(2, 4), padding=(0, 1, 1, 2), filters=16),
    Conv(why="6x6 stem", kernel=(6, 6), strides=(2, 2), padding=(2, 2, 2, 2), size=(18, 22)),
    Conv(why="2 groups", groups=2, channels=6, filters=32, epilogue="bias relu"),
    Conv(why="2 groups of odd width", groups=2, channels=14, filters=18),
    Conv(why="3 groups", groups=3, channels=9, filters=48, strides=(2, 2), epilogue="silu"),
    Conv(why="3 groups of one filter", groups=3, channels=15, filters=3),
    Conv(why="channel multiplier 2", groups=8, channels=8, filters=16, epilogue="residual"),
    Conv(why="batch 2", batch=2, filters=33, epilogue="residual"),
    Conv(why="batch 3, one row", batch=3, size=(1, 9), filters=16, epilogue="gate per channel"),
    Conv(why="batch 2, gated", batch=2, filters=17, epilogue="gate per channel"),
    depthwise_case("depthwise, one vector", 16, epilogue="bias relu"),
    depthwise_case("depthwise, three vectors", 48, epilogue="silu"),
    depthwise_case("depthwise, 8", 8),
    depthwise_case("depthwise, odd", 7, epilogue="residual"),
    depthwise_case("depthwise, 33", 33),
    depthwise_case("depthwise, 24", 24, strides=(2, 2), size=(15, 17), epilogue="gate per channel"),
    depthwise_case("depthwise, 1", 1),
    depthwise_case("depthwise 5x5", 32, kernel=(5, 5), padding=(2, 2, 2, 2), epilogue="residual"),
    depthwise_case("depthwise, asymmetric", 16, padding=(0, 2, 1, 3), strides=(2, 1)),
    depthwise_case("depthwise, dilated", 16, dilation=(2, 2), padding=(2, 2, 2, 2)),
    depthwise_case("depthwise, batch 2", 64, batch=2, size=(5, 7), epilogue="bias relu"),
    depthwise_case("depthwise, small picture, many channels", 128, size=(3, 3)),
    depthwise_case("depthwise, one pixel", 16, size=(1, 1)),
    depthwise_case("depthwise, stride 3", 17, strides=(3, 3), size=(19, 10)),
    depthwise_case("depthwise without padding", 16, padding=(0, 0, 0, 0), size=(8, 8)),
    depthwise_case("depthwise, a row", 16, kernel=(1, 9), padding=(0, 4, 0, 4), size=(1, 37)),
    depthwise_case("depthwise, a row of 67", 67, kernel=(1, 5), padding=(0, 2, 0, 2), size=(1, 37)),
    depthwise_case("depthwise 13x13", 20, kernel=(13, 13), padding=(6, 6, 6, 6), size=(10, 40)),
    depthwise_case("depthwise 31x31", 8, kernel=(31, 31), padding=(15,) * 4, size=(9, 50)),
    depthwise_case("depthwise, padded on the right", 72, padding=(0, 0, 2, 2), size=(6, 40)),
    depthwise_case(
        "depthwise, taps far apart", 16, dilation=(7, 19), padding=(7, 19, 7, 19), size=(12, 50)
    ),
    depthwise_case(
        "depthwise, 40 in tiles", 40, strides=(2, 2), size=(10, 80), epilogue="residual"
    ),
]


# Whole vectors of channels and filters for both targets, 3x3, stride 1.
WINOGRAD_CASES = [
    Conv(why="whole tiles", size=(8, 12), channels=16, filters=16),
    Conv(why="tiles that hang over", size=(9, 11), channels=16, filters=32, epilogue="bias relu"),
    Conv(why="one pixel", size=(1, 1), channels=16, filters=16, epilogue="residual"),
    Conv(why="smaller than a tile", size=(3, 2), channels=32, filters=16, epilogue="silu"),
    Conv(why="five by five", size=(5, 5), channels=16, filters=48, epilogue="gate per channel"),
    Conv(why="no padding", size=(10, 13), channels=16, filters=16, padding=(0, 0, 0, 0)),
    Conv(why="uneven padding", size=(7, 9), channels=32, filters=16, padding=(0, 2, 3, 1)),
    Conv(why="much padding", size=(3, 3), channels=16, filters=16, padding=(4, 4, 5, 5)),
    Conv(why="two rows of tiles a task", size=(32, 20), channels=16, filters=32, epilogue="silu"),
    Conv(why="wide", size=(4, 61), channels=16, filters=16, epilogue="residual first"),
    Conv(why="many channels", size=(8, 8), channels=128, filters=64, epilogue="two residuals"),
    Conv(why="batch 2", size=(6, 7), channels=16, filters=32, batch=2, epilogue="residual"),
    Conv(why="batch 3, gated", size=(5, 9), channels=16, filters=16, batch=3,
         epilogue="gate per channel"),
    Conv(why="gate per pixel", size=(8, 9), channels=16, filters=32, epilogue="gate per pixel"),
    Conv(why="a prime number of vectors", size=(7, 5), channels=16, filters=108),
    Conv(why="a vector and a half", size=(9, 10), channels=16, filters=24, epilogue="residual"),
    Conv(why="an odd number of filters", size=(6, 9), channels=16, filters=67, epilogue="silu"),
]  # fmt: skip

DILATED_WINOGRAD_CASES = [
    Conv(why="dilation 2", size=(9, 12), channels=16, filters=16, padding=(2, 2, 2, 2),
         dilation=(2, 2), epilogue="residual"),
    Conv(why="dilation 6", size=(19, 19), channels=16, filters=32, padding=(6, 6, 6, 6),
         dilation=(6, 6), epilogue="bias relu"),
    Conv(why="dilation of one axis, batch 2", size=(6, 13), channels=16, filters=16, batch=2,
         padding=(1, 3, 1, 3), dilation=(1, 3), epilogue="gate per channel"),
]  # fmt: skip


def network(case: Conv, algorithm: str) -> tuple[Emit, list[np.ndarray], np.ndarray, float]:
    """What emits a case, its inputs, the right answer and how far off rounding may be."""
    data, weight = case.arrays()
    if algorithm in ("bf16", "amx"):  # once the factors are rounded, exact but for the sums' order
        data, weight = nearest_bf16(data), nearest_bf16(weight)
    plain = conv2d_reference(data, weight, **case.geometry)
    shapes, emitter, meaning = EPILOGUES[case.epilogue]
    operands = [_noise(shape, 2 + i) for i, shape in enumerate(shapes(plain.shape))]

    def emit(builder: relax.BlockBuilder, x: Any, *rest: Any) -> Any:
        conv = relax.op.nn.conv2d(
            x,
            relax.const(weight),
            data_layout="NHWC",
            kernel_layout="OHWI",
            **case.geometry,
        )
        conv = builder.emit(conv)
        return builder.emit(builder.normalize(emitter(conv, *rest)))

    return emit, [data, *operands], meaning(plain, *operands), _atol(case, algorithm, operands)


def _atol(case: Conv, algorithm: str, operands: list[np.ndarray]) -> float:
    products = case.kernel[0] * case.kernel[1] * case.channels // case.groups
    greatest = [float(np.abs(operand).max()) for operand in operands]
    variant = WINOGRAD.get(algorithm)
    if variant is not None and variant.bf16:
        # Of the deviation of a sum; see tvmdet/passes/winograd_variants.py. A gate multiplies the
        # error by at most its greatest value, a residual by nothing.
        gate = greatest[0] if case.epilogue == "gate per channel" else 1.0
        return {2: 0.03, 4: 0.1}[variant.side] * float(np.sqrt(products)) * gate
    # float32 sums of n products of unit normals are off by about 1e-7 * sqrt(n) * sqrt(n).
    atol = 4e-7 * products * max([1.0, *greatest]) + 2e-6
    # The transforms multiply rounding errors; see tvmdet/passes/winograd.py.
    return atol * ({2: 10, 4: 100, 6: 200}[variant.side] if variant is not None else 1)


def check(
    case: Conv, target: Target, pick: Callable[[int], list[int]], algorithm: str = "direct"
) -> None:
    """Compares the decisions that ``pick`` chooses, by number, with the definition."""
    emit, inputs, expected, atol = network(case, algorithm)
    kernel = only_kernel(emit, inputs, target, algorithm)
    assert kernel.template.name == template_of(case, algorithm)
    chosen = [kernel.decisions[i] for i in pick(len(kernel.decisions))]
    results = run_decisions(kernel, chosen, target)
    for decision, (result,) in zip(chosen, results, strict=True):
        assert_close(result, expected, rtol=3e-5, atol=atol, name=f"{case.why}: {decision}")


def template_of(case: Conv, algorithm: str) -> str:
    """The name of the template that a case belongs to, on x86."""
    if algorithm in WINOGRAD:
        return f"x86.{'bf16_' * WINOGRAD[algorithm].bf16}winograd_conv2d_nhwc"
    if algorithm != "direct":
        return f"x86.{algorithm}_conv2d_nhwc"
    depthwise = case.groups == case.channels == case.filters
    return f"x86.{'depthwise_' * depthwise}conv2d_nhwc"


def compiled(case: Conv, target: Target, algorithm: str) -> list[str]:
    """Compiles the first decisions for a machine that need not be this one; returns their text."""
    emit, inputs, *_ = network(case, algorithm)
    kernel = only_kernel(emit, inputs, target, algorithm)
    assert kernel.template.name == template_of(case, algorithm)
    made = [kernel.template.apply(kernel.func, kernel.workload, d) for d in kernel.decisions[:3]]
    build([schedule.mod["main"] for schedule in made], target)
    return [schedule.mod.script() for schedule in made]


def every(decisions: int) -> list[int]:
    """Picks all."""
    return list(range(decisions))


def some(target: Target) -> Callable[[int], list[int]]:
    """The default, and the middle one or the last: enough for every run; the rest are slow."""
    wide = target.vector_lanes_f32 == 16
    return lambda n: sorted({0, n - 1 if wide else n // 2})
