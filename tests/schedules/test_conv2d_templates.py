"""Convolution templates against the definition, at awkward sizes, with and without epilogues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tvm
from assertions import assert_close
from scheduled_kernels import (
    Emit,
    Kernel,
    build,
    conv2d_reference,
    kernels_of,
    nearest_bf16,
    only_kernel,
    run_decisions,
)
from tvm import relax
from tvmdet.schedules.common.deep_conv2d_nhwc import DEEP
from tvmdet.targets import Target, get_target

from tvmdet.passes import pack_conv2d
from tvmdet.passes.conv_algorithms import (
    BF16_WINOGRAD_SIDES,
    WINOGRAD_SIDES,
    AlgorithmName,
    ConvLayer,
)

DENSE, DEPTHWISE = "x86.conv2d_nhwc", "x86.depthwise_conv2d_nhwc"
WINOGRAD = "x86.winograd_conv2d_nhwc"
BF16 = "x86.bf16_conv2d_nhwc"
BF16_WINOGRAD = "x86.bf16_winograd_conv2d_nhwc"
AMX = "x86.amx_conv2d_nhwc"


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


def _depthwise(why: str, channels: int, **more: Any) -> Conv:
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
    _depthwise("depthwise, one vector", 16, epilogue="bias relu"),
    _depthwise("depthwise, three vectors", 48, epilogue="silu"),
    _depthwise("depthwise, 8", 8),
    _depthwise("depthwise, odd", 7, epilogue="residual"),
    _depthwise("depthwise, 33", 33),
    _depthwise("depthwise, 24", 24, strides=(2, 2), size=(15, 17), epilogue="gate per channel"),
    _depthwise("depthwise, 1", 1),
    _depthwise("depthwise 5x5", 32, kernel=(5, 5), padding=(2, 2, 2, 2), epilogue="residual"),
    _depthwise("depthwise, asymmetric", 16, padding=(0, 2, 1, 3), strides=(2, 1)),
    _depthwise("depthwise, dilated", 16, dilation=(2, 2), padding=(2, 2, 2, 2)),
    _depthwise("depthwise, batch 2", 64, batch=2, size=(5, 7), epilogue="bias relu"),
    _depthwise("depthwise, small picture, many channels", 128, size=(3, 3)),
    _depthwise("depthwise, one pixel", 16, size=(1, 1)),
    _depthwise("depthwise, stride 3", 17, strides=(3, 3), size=(19, 10)),
    _depthwise("depthwise without padding", 16, padding=(0, 0, 0, 0), size=(8, 8)),
    _depthwise("depthwise, a row", 16, kernel=(1, 9), padding=(0, 4, 0, 4), size=(1, 37)),
    _depthwise("depthwise, a row of 67", 67, kernel=(1, 5), padding=(0, 2, 0, 2), size=(1, 37)),
    _depthwise("depthwise 13x13", 20, kernel=(13, 13), padding=(6, 6, 6, 6), size=(10, 40)),
    _depthwise("depthwise 31x31", 8, kernel=(31, 31), padding=(15,) * 4, size=(9, 50)),
    _depthwise("depthwise, padded on the right", 72, padding=(0, 0, 2, 2), size=(6, 40)),
    _depthwise(
        "depthwise, taps far apart", 16, dilation=(7, 19), padding=(7, 19, 7, 19), size=(12, 50)
    ),
    _depthwise("depthwise, 40 in tiles", 40, strides=(2, 2), size=(10, 80), epilogue="residual"),
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

DILATED_CASES = [
    Conv(why="dilation 2", size=(9, 12), channels=16, filters=16, padding=(2, 2, 2, 2),
         dilation=(2, 2), epilogue="residual"),
    Conv(why="dilation 6", size=(19, 19), channels=16, filters=32, padding=(6, 6, 6, 6),
         dilation=(6, 6), epilogue="bias relu"),
    Conv(why="dilation of one axis, batch 2", size=(6, 13), channels=16, filters=16, batch=2,
         padding=(1, 3, 1, 3), dilation=(1, 3), epilogue="gate per channel"),
]  # fmt: skip


def _deep(why: str, channels: int = 2560, **more: Any) -> Conv:
    more = {"size": (4, 5), "filters": 48, **more}
    return Conv(why=why, channels=channels, kernel=(1, 1), padding=(0, 0, 0, 0), **more)


DEEP_CASES = [
    _deep("rows of a box head", size=(8, 25), filters=64, epilogue="bias relu"),
    _deep("seven times seven cells", channels=12544, size=(1, 6)),
    _deep("one row of pixels of a prime number", size=(1, 7), epilogue="residual"),
    _deep("batch 2, gated", batch=2, epilogue="gate per channel"),
    _deep("stride 2", size=(9, 8), strides=(2, 2), epilogue="two residuals"),
    _deep("one vector of filters", filters=16, epilogue="silu"),
    _deep("slices are the second guess", channels=1024),
]
NOT_SLICED = [
    _deep("filters that are no whole vectors", filters=33),
    _deep("a prime number of channels", channels=2579),
    _deep("two groups", groups=2),
    _deep("not that deep", channels=512),
]


def _runnable(name: str, precision: str = "fp32") -> Target:
    found = get_target(name).at_precision(precision)
    if missing := found.missing_features():
        pytest.skip(f"this machine lacks {', '.join(missing)}")
    return found


@pytest.fixture
def bf16_target() -> Target:
    return _runnable("x86-64-v4", "bf16")


@pytest.fixture
def amx_target() -> Target:
    return _runnable("sapphirerapids", "bf16")


def _network(case: Conv, algorithm: str) -> tuple[Emit, list[np.ndarray], np.ndarray, float]:
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

    # float32 sums of n products of unit normals are off by about 1e-7 * sqrt(n) * sqrt(n).
    atol = 4e-7 * weight[0].size * max(1.0, *(float(np.abs(o).max()) for o in operands), 0.0) + 2e-6
    if algorithm in WINOGRAD_SIDES:
        # The transforms multiply rounding errors; see tvmdet/passes/winograd.py.
        atol *= {2: 10, 4: 100, 6: 200}[WINOGRAD_SIDES[algorithm]]
    if algorithm in BF16_WINOGRAD_SIDES:
        # Of the deviation of a sum; see tvmdet/passes/winograd_variants.py.
        share = {2: 0.03, 4: 0.1}[BF16_WINOGRAD_SIDES[algorithm]]
        # A gate multiplies the error by at most its greatest value, a residual by nothing.
        scale = float(np.abs(operands[0]).max()) if case.epilogue == "gate per channel" else 1.0
        atol = share * np.sqrt(weight[0].size) * scale
    return emit, [data, *operands], meaning(plain, *operands), atol


def _check(
    case: Conv, target: Target, pick: Callable[[int], list[int]], algorithm: str = "direct"
) -> None:
    emit, inputs, expected, atol = _network(case, algorithm)
    kernel = only_kernel(emit, inputs, target, algorithm)
    if algorithm in ("bf16", "amx"):
        assert kernel.template.name == {"bf16": BF16, "amx": AMX}[algorithm]
    elif algorithm in (*WINOGRAD_SIDES, *BF16_WINOGRAD_SIDES):
        assert kernel.template.name == (WINOGRAD if algorithm in WINOGRAD_SIDES else BF16_WINOGRAD)
    else:
        depthwise = case.groups == case.channels == case.filters
        assert kernel.template.name == (DEPTHWISE if depthwise else DENSE)
    chosen = [kernel.decisions[i] for i in pick(len(kernel.decisions))]
    results = run_decisions(kernel, chosen, target)
    for decision, (result,) in zip(chosen, results, strict=True):
        assert_close(result, expected, rtol=3e-5, atol=atol, name=f"{case.why}: {decision}")


def _some(target: Target) -> Callable[[int], list[int]]:
    """The default, and the middle one or the last: enough for every run; the rest are slow."""
    wide = target.vector_lanes_f32 == 16
    return lambda n: sorted({0, n - 1 if wide else n // 2})


def _sliced(kernel: Kernel) -> list[int]:
    return [i for i, d in enumerate(kernel.decisions) if d["order"] == "depth"]


@pytest.mark.parametrize("case", DEEP_CASES, ids=lambda case: case.why)
def test_deep_products_are_right_in_slices(case: Conv, target: Target) -> None:
    emit, inputs, expected, atol = _network(case, "direct")
    kernel = only_kernel(emit, inputs, target)
    sliced = _sliced(kernel)
    assert (0 in sliced) == (case.channels >= DEEP) and sliced
    chosen = [kernel.decisions[i] for i in sorted({sliced[0], sliced[len(sliced) // 2]})]
    for decision, (result,) in zip(chosen, run_decisions(kernel, chosen, target), strict=True):
        assert_close(result, expected, rtol=3e-5, atol=atol, name=f"{case.why}: {decision}")


@pytest.mark.parametrize("case", NOT_SLICED, ids=lambda case: case.why)
def test_what_cannot_be_sliced_is_not(case: Conv, target: Target) -> None:
    emit, inputs, expected, atol = _network(case, "direct")
    kernel = only_kernel(emit, inputs, target)
    assert not _sliced(kernel)
    ((result,),) = run_decisions(kernel, kernel.decisions[:1], target)
    assert_close(result, expected, rtol=3e-5, atol=atol)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_some_decisions_are_right(case: Conv, target: Target) -> None:
    _check(case, target, _some(target))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_every_decision_is_right(case: Conv, target: Target) -> None:
    _check(case, target, lambda n: list(range(n)))


@pytest.mark.parametrize("algorithm", WINOGRAD_SIDES)
@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=lambda case: case.why)
def test_winograd_is_right(case: Conv, algorithm: str, target: Target) -> None:
    _check(case, target, _some(target), algorithm)


def test_winograd_of_a_batch_has_short_indices(target: Target) -> None:
    """The rows of a slab were a minimum of dozens of terms once, and took minutes to compile."""
    case = Conv(why="slabs of several pictures", size=(40, 40), channels=64, filters=64, batch=4)
    emit, inputs, *_ = _network(case, "winograd6")
    kernel = only_kernel(emit, inputs, target, "winograd6")
    for decision in [d for d in kernel.decisions if d["rows"] == 1][:4]:
        scheduled = kernel.template.apply(kernel.func, kernel.workload, decision).mod["main"]
        module = tvm.IRModule({"main": scheduled.with_attr("global_symbol", "main")})
        for name in ("PlanAndUpdateBufferAllocationLocation", "ConvertBlocksToOpaque"):
            module = getattr(tvm.s_tir.transform, name)()(module)
        compacted = tvm.s_tir.transform.CompactBufferAllocation()(module)
        assert compacted.script().count("T.min(") < 20, str(decision)


@pytest.mark.parametrize("algorithm", WINOGRAD_SIDES)
@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=lambda case: case.why)
def test_winograd_of_plain_weights_is_right(
    case: Conv, algorithm: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large weights are not transformed before the kernel runs."""
    monkeypatch.setattr(pack_conv2d, "WINOGRAD_BYTES_AT_MOST", 0)
    _check(case, target, _some(target), algorithm)


@pytest.mark.parametrize("algorithm", WINOGRAD_SIDES)
@pytest.mark.parametrize("case", DILATED_CASES, ids=lambda case: case.why)
def test_dilated_winograd_is_right(case: Conv, algorithm: str, target: Target) -> None:
    _check_dilated(case, algorithm, target, WINOGRAD)


@pytest.mark.parametrize("case", DILATED_CASES, ids=lambda case: case.why)
def test_dilated_winograd_in_bf16_is_right(case: Conv, bf16_target: Target) -> None:
    _check_dilated(case, "bf16_winograd4", bf16_target, BF16_WINOGRAD)


def _check_dilated(case: Conv, algorithm: str, target: Target, template: str) -> None:
    emit, inputs, expected, atol = _network(case, algorithm)
    split, winograd, join = kernels_of(emit, inputs, target, algorithm)
    assert winograd.template.name == template
    phases = case.dilation[0] * case.dilation[1] * case.batch
    assert winograd.outputs[0][0][0] == phases, "every d-th pixel is a picture"
    made = inputs[0]
    for kernel in (split, winograd, join):
        ((made,),) = run_decisions(kernel, kernel.decisions[-1:], target, {0: made})
    assert_close(made, expected, rtol=3e-5, atol=atol, name=case.why)


# A product of two sums has an error of its own at each value: it is tested in float32.
BF16_WINOGRAD_CASES = [case for case in WINOGRAD_CASES if case.epilogue != "two residuals"]


@pytest.mark.parametrize("algorithm", BF16_WINOGRAD_SIDES)
@pytest.mark.parametrize("case", BF16_WINOGRAD_CASES, ids=lambda case: case.why)
def test_winograd_in_bf16_is_right(case: Conv, algorithm: str, bf16_target: Target) -> None:
    _check(case, bf16_target, _some(bf16_target), algorithm)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", BF16_WINOGRAD_SIDES)
@pytest.mark.parametrize("case", BF16_WINOGRAD_CASES, ids=lambda case: case.why)
def test_every_decision_of_winograd_in_bf16_is_right(
    case: Conv, algorithm: str, bf16_target: Target
) -> None:
    """TVM's own checks are off there: what it would refuse must not be among the decisions."""
    _check(case, bf16_target, lambda n: list(range(n)), algorithm)


@pytest.mark.parametrize("case", BF16_WINOGRAD_CASES[1::6], ids=lambda case: case.why)
def test_winograd_in_bf16_is_compiled_where_it_cannot_run(case: Conv) -> None:
    target = get_target("x86-64-v4").at_precision("bf16")
    emit, inputs, *_ = _network(case, "bf16_winograd4")
    kernel = only_kernel(emit, inputs, target, "bf16_winograd4")
    assert kernel.template.name == BF16_WINOGRAD
    chosen = [kernel.template.apply(kernel.func, kernel.workload, d) for d in kernel.decisions[:3]]
    build([schedule.mod["main"] for schedule in chosen], target)


def test_winograd_in_bf16_is_left_to_tiles_where_there_are_any() -> None:
    emit, inputs, *_ = _network(WINOGRAD_CASES[0], "direct")
    seen: list[ConvLayer] = []

    def choose(layer: ConvLayer) -> AlgorithmName:
        seen.append(layer)
        return "direct"

    for name, offered in (("x86-64-v4", True), ("sapphirerapids", False)):
        kernels_of(emit, inputs, get_target(name).at_precision("bf16"), choose)
        assert (set(BF16_WINOGRAD_SIDES) <= set(seen[-1].possible)) == offered


@pytest.mark.parametrize("algorithm", BF16_WINOGRAD_SIDES)
@pytest.mark.parametrize("case", BF16_WINOGRAD_CASES[1::4], ids=lambda case: case.why)
def test_winograd_of_plain_weights_in_bf16_is_right(
    case: Conv, algorithm: str, bf16_target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_conv2d, "WINOGRAD_BYTES_AT_MOST", 0)
    _check(case, bf16_target, _some(bf16_target), algorithm)


BF16_CASES = [case for case in CASES if case.groups == 1 and case.channels > 1]


@pytest.mark.parametrize("case", BF16_CASES[:4], ids=lambda case: case.why)
def test_bf16_is_compiled_where_it_cannot_run(case: Conv) -> None:
    target = get_target("x86-64-v4").at_precision("bf16")
    emit, inputs, *_ = _network(case, "bf16")
    kernel = only_kernel(emit, inputs, target, "bf16")
    assert kernel.template.name == BF16
    chosen = [kernel.template.apply(kernel.func, kernel.workload, d) for d in kernel.decisions[:3]]
    build([schedule.mod["main"] for schedule in chosen], target)


@pytest.mark.parametrize("case", BF16_CASES, ids=lambda case: case.why)
def test_bf16_is_right(case: Conv, bf16_target: Target) -> None:
    _check(case, bf16_target, _some(bf16_target), "bf16")


@pytest.mark.slow
@pytest.mark.parametrize("case", BF16_CASES, ids=lambda case: case.why)
def test_every_bf16_decision_is_right(case: Conv, bf16_target: Target) -> None:
    _check(case, bf16_target, lambda n: list(range(n)), "bf16")


TILE_CASES = [
    *BF16_CASES,
    Conv(why="two tiles of pixels by two of filters", size=(8, 12), channels=64, filters=64),
    Conv(why="filters of several blocks, cut off", size=(7, 16), channels=96, filters=72),
    Conv(why="a last step that starts earlier", size=(6, 9), channels=80, filters=32),
    Conv(why="the same of joined taps", size=(6, 9), channels=40, filters=32, epilogue="silu"),
    Conv(why="joined taps of vectors, stride 2", size=(10, 14), channels=48, strides=(2, 2)),
    Conv(why="joined taps, stride beyond the kernel", size=(9, 12), channels=6, strides=(4, 4)),
    Conv(why="joined taps, dilated rows", size=(9, 12), channels=5, dilation=(2, 1)),
    Conv(why="not joined: dilated columns", size=(9, 12), channels=5, dilation=(1, 2)),
    Conv(why="dilated with strides", size=(13, 15), channels=34, dilation=(2, 2), strides=(2, 2)),
    Conv(why="a prime number of rows", size=(19, 19), channels=64, filters=48, epilogue="residual"),
    Conv(why="batch 3 of little pictures", size=(3, 3), channels=72, filters=64, batch=3),
]


@pytest.mark.parametrize("case", TILE_CASES[::4], ids=lambda case: case.why)
def test_matrix_tiles_are_compiled_where_they_cannot_run(case: Conv) -> None:
    target = get_target("sapphirerapids").at_precision("bf16")
    emit, inputs, *_ = _network(case, "amx")
    kernel = only_kernel(emit, inputs, target, "amx")
    assert kernel.template.name == AMX
    chosen = [kernel.template.apply(kernel.func, kernel.workload, d) for d in kernel.decisions[:3]]
    assert all("llvm.x86.tdpbf16ps" in schedule.mod.script() for schedule in chosen)
    build([schedule.mod["main"] for schedule in chosen], target)


@pytest.mark.parametrize("case", TILE_CASES, ids=lambda case: case.why)
def test_matrix_tiles_are_right(case: Conv, amx_target: Target) -> None:
    _check(case, amx_target, lambda n: sorted({0, n // 4, n // 2, n - 1}), "amx")


@pytest.mark.slow
@pytest.mark.parametrize("case", TILE_CASES, ids=lambda case: case.why)
def test_every_decision_of_matrix_tiles_is_right(case: Conv, amx_target: Target) -> None:
    _check(case, amx_target, lambda n: list(range(n)), "amx")


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", WINOGRAD_SIDES)
@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=lambda case: case.why)
def test_every_winograd_decision_is_right(case: Conv, algorithm: str, target: Target) -> None:
    _check(case, target, lambda n: list(range(n)), algorithm)
