"""Pictures that are only multiplied in bfloat16 are written in bfloat16; the numbers stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_models
import pytest
import tvm
from assertions import assert_close
from scheduled_kernels import (
    Kernel,
    conv2d_reference,
    kernels_of,
    lower_network,
    nearest_bf16,
    run_decisions,
)
from tvm import relax
from tvmdet.targets import Target, get_target

from tvmdet.passes import store_rounded
from tvmdet.passes.bf16_conv2d import round_to_bf16
from tvmdet.passes.conv_algorithms import AlgorithmName, ConvLayer

BF16 = get_target("x86-64-v4").at_precision("bf16")
FP16 = get_target("cortex-a76").at_precision("fp16")
AMX = get_target("sapphirerapids").at_precision("bf16")
LAYOUTS = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
X, WEIGHT = (1, 8, 10, 16), (16, 1, 1, 16)


Emit = Callable[..., Any]


def _noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def _conv(builder: relax.BlockBuilder, x: Any, *weight: int, seed: int = 1, **more: Any) -> Any:
    made = relax.const(_noise(*weight, seed=seed))
    return builder.emit(relax.op.nn.conv2d(x, made, **LAYOUTS, **more))


def _depthwise(builder: relax.BlockBuilder, x: Any) -> Any:
    channels = int(x.ty.shape[3])
    return _conv(builder, x, channels, 3, 3, 1, groups=channels, padding=[1] * 4)


def _relu(builder: relax.BlockBuilder, x: Any) -> Any:
    return builder.emit(relax.op.nn.relu(x))


def _plain(builder: relax.BlockBuilder, x: Any) -> Any:
    return _conv(builder, _relu(builder, _conv(builder, x, *WEIGHT)), *WEIGHT, seed=2)


def _padded(builder: relax.BlockBuilder, x: Any) -> Any:
    first = _relu(builder, _conv(builder, x, *WEIGHT))
    return _conv(builder, first, 24, 3, 3, 16, padding=[1, 0, 1, 2], strides=[2, 1])


def _odd(builder: relax.BlockBuilder, x: Any) -> Any:
    return _conv(builder, _conv(builder, x, 7, 1, 1, 16), 5, 1, 1, 7)


def _two_readers(builder: relax.BlockBuilder, x: Any) -> Any:
    first = _conv(builder, x, *WEIGHT)
    return [_conv(builder, first, *WEIGHT, seed=2), _conv(builder, first, 8, 3, 3, 16)]


def _sliced(builder: relax.BlockBuilder, x: Any) -> Any:
    first = _conv(builder, x, *WEIGHT)
    halves = [
        builder.emit(relax.op.strided_slice(first, axes=[3], begin=[at], end=[at + 8]))
        for at in (0, 8)
    ]
    return [_conv(builder, half, 8, 1, 1, 8) for half in halves]


def _gathered(builder: relax.BlockBuilder, x: Any) -> Any:
    first, second = _conv(builder, x, *WEIGHT), _conv(builder, x, 24, 1, 1, 16)
    joined = builder.emit(relax.op.concat([first, second, x], axis=3))
    return _conv(builder, joined, 8, 1, 1, 56)


def _before_depthwise(builder: relax.BlockBuilder, x: Any) -> Any:
    return _conv(builder, _depthwise(builder, _conv(builder, x, *WEIGHT)), *WEIGHT, seed=2)


def _after_float32(builder: relax.BlockBuilder, x: Any) -> Any:
    return _depthwise(builder, _relu(builder, _depthwise(builder, x)))


def _residual(builder: relax.BlockBuilder, x: Any) -> Any:
    first = _conv(builder, x, *WEIGHT)
    return builder.emit(relax.op.add(_conv(builder, first, *WEIGHT, seed=2), first))


def _pooled(builder: relax.BlockBuilder, x: Any) -> Any:
    first = _conv(builder, x, *WEIGHT)
    pool = builder.emit(relax.op.nn.max_pool2d(first, (2, 2), layout="NHWC"))
    return [pool, _conv(builder, first, *WEIGHT)]


def _returned(builder: relax.BlockBuilder, x: Any) -> Any:
    first = _conv(builder, x, *WEIGHT)
    return [first, _conv(builder, first, *WEIGHT)]


def _scaled_before(builder: relax.BlockBuilder, x: Any) -> Any:
    first = _conv(builder, x, *WEIGHT)
    halves = [
        builder.emit(relax.op.strided_slice(first, axes=[3], begin=[at], end=[at + 8]))
        for at in (0, 8)
    ]
    halves[0] = builder.emit(relax.op.multiply(halves[0], relax.const(np.float32(1.37))))
    return _conv(builder, builder.emit(relax.op.concat(halves, axis=3)), *WEIGHT, seed=2)


def _reshaped(builder: relax.BlockBuilder, x: Any) -> Any:
    total = builder.emit(relax.op.add(_conv(builder, x, *WEIGHT), x))
    row = builder.emit(relax.op.reshape(total, (1, 1, 80, 16)))
    return _conv(builder, row, *WEIGHT, seed=2)


def _of_a_pool(builder: relax.BlockBuilder, x: Any) -> Any:
    pool = builder.emit(relax.op.nn.max_pool2d(x, (2, 2), layout="NHWC"))
    return _conv(builder, pool, *WEIGHT)


def _pool_between(builder: relax.BlockBuilder, x: Any) -> Any:
    pool = relax.op.nn.max_pool2d(
        _conv(builder, x, *WEIGHT), (3, 3), strides=(2, 2), padding=(1, 1), layout="NHWC"
    )
    return _conv(builder, builder.emit(pool), *WEIGHT, seed=2)


def _averaged(builder: relax.BlockBuilder, x: Any) -> Any:
    pool = relax.op.nn.avg_pool2d(_conv(builder, x, *WEIGHT), (2, 2), layout="NHWC")
    return _conv(builder, builder.emit(pool), *WEIGHT, seed=2)


def _resized(builder: relax.BlockBuilder, x: Any, method: str) -> Any:
    size = relax.ShapeExpr((16, 20))
    resized = relax.op.image.resize2d(
        _conv(builder, x, *WEIGHT),
        size,
        layout="NHWC",
        method=method,
        coordinate_transformation_mode="asymmetric",
        rounding_method="floor" if method == "nearest_neighbor" else "",
    )
    return _conv(builder, builder.emit(resized), *WEIGHT, seed=2)


def _nearest_between(builder: relax.BlockBuilder, x: Any) -> Any:
    return _resized(builder, x, "nearest_neighbor")


def _linear_between(builder: relax.BlockBuilder, x: Any) -> Any:
    return _resized(builder, x, "linear")


def _concatenated(builder: relax.BlockBuilder, x: Any) -> Any:
    first, second = _conv(builder, x, *WEIGHT), _conv(builder, x, 24, 1, 1, 16)
    joined = builder.emit(relax.op.concat([first, second, x], axis=3))
    return _conv(builder, joined, 8, 3, 3, 56, padding=[1] * 4)


def _greatest(axis: list[int]) -> Emit:
    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        found = builder.emit(relax.op.max(_conv(builder, x, *WEIGHT), axis=axis, keepdims=True))
        channels = int(found.ty.shape[3])
        pair = builder.emit(relax.op.concat([found, found], axis=3)) if channels == 1 else found
        return _conv(builder, pair, 8, 1, 1, max(channels, 2))

    return emit


def _pixels_at(builder: relax.BlockBuilder, x: Any) -> Any:
    """Nearest pixels at places that are computed: of rounded ones they are others."""
    first = builder.emit(relax.op.permute_dims(_conv(builder, x, *WEIGHT), [0, 3, 1, 2]))
    places = builder.emit(relax.op.permute_dims(_conv(builder, x, 2, 1, 1, 16), [0, 3, 1, 2]))
    sample = relax.op.image.grid_sample(first, places, method="nearest", layout="NCHW")
    found = builder.emit(relax.op.permute_dims(builder.emit(sample), [0, 2, 3, 1]))
    return _conv(builder, found, *WEIGHT, seed=2)


def _exponential(builder: relax.BlockBuilder, x: Any) -> Any:
    first = _conv(builder, x, *WEIGHT)
    grown = builder.emit(relax.op.exp(first))
    second = _conv(builder, x, *WEIGHT, seed=2)
    return [builder.emit(relax.op.multiply(second, grown)), _conv(builder, first, *WEIGHT)]


def _activated(builder: relax.BlockBuilder, x: Any) -> Any:
    """An activation reads it, before the products that are added."""
    first = _conv(builder, x, *WEIGHT)
    active = builder.emit(relax.op.nn.silu(first))
    second = _conv(builder, x, *WEIGHT, seed=2)
    return [builder.emit(relax.op.add(second, active)), _conv(builder, first, *WEIGHT)]


def _doubled(builder: relax.BlockBuilder, x: Any) -> Any:
    first = _conv(builder, x, *WEIGHT)
    twice = builder.emit(relax.op.add(first, first))
    second = _conv(builder, x, *WEIGHT, seed=2)
    return [builder.emit(relax.op.add(second, twice)), _conv(builder, first, *WEIGHT)]


def _coordinates(builder: relax.BlockBuilder, x: Any) -> Any:
    """Refined twice: added to, never multiplied."""
    grid = relax.const(np.arange(80 * 16, dtype="float32").reshape(1, 8, 10, 16))
    first = builder.emit(relax.op.add(_conv(builder, x, *WEIGHT), grid))
    return [
        builder.emit(relax.op.add(_conv(builder, x, *WEIGHT, seed=seed), first)) for seed in (2, 3)
    ]


EXACT: list[tuple[str, Emit, int]] = [
    ("pointwise convolutions", _plain, 1),
    ("a padded one with strides reads", _padded, 1),
    ("an odd number of channels", _odd, 1),
    ("two readers", _two_readers, 1),
    ("two readers of a part each", _sliced, 1),
    ("one of three is no kernel's result", _gathered, 2),
    ("the sum of a residual is read too", _residual, 0),
    ("a pool reads it too", _pooled, 0),
    ("it is returned too", _returned, 0),
    ("a pool writes it", _of_a_pool, 1),
    ("a pool between two", _pool_between, 2),
    ("the nearest pixels of it", _nearest_between, 2),
    ("pixels between its pixels", _linear_between, 1),
    ("parts of two, padded", _concatenated, 3),
    ("a mean of a window", _averaged, 0),
    ("the greatest of its channels", _greatest([3]), 2),
    ("the greatest of its pixels", _greatest([1, 2]), 2),
    ("places of pixels are computed of it", _pixels_at, 2),
    ("its exponential is multiplied", _exponential, 0),
    ("its activation is added", _activated, 0),
    ("it is added twice", _doubled, 0),
    ("it is only added to", _coordinates, 0),
    ("it is scaled before it is read", _scaled_before, 0),
    ("a view of a sum", _reshaped, 0),
    ("nothing is bfloat16 but could be read as that", _after_float32, 0),
]
"""Why, the network, and how many of its pictures become bfloat16."""
NAMES = [why for why, *_ in EXACT]


def _algorithm(target: Target) -> str:
    return "amx" if target.has_amx else target.precision


def _module(emit: Emit, target: Target = BF16) -> tvm.IRModule:
    return lower_network(emit, [_noise(*X)], target, _algorithm(target))


def _rounded(module: tvm.IRModule) -> int:
    calls = [b.value for block in module["main"].body.blocks for b in block.bindings]
    made = [call.ty_args[0] for call in calls if isinstance(call, relax.Call) and call.ty_args]
    kinds = Counter(str(type_.dtype) for type_ in made)
    return kinds["uint16"] + kinds["float16"]


@pytest.mark.parametrize("target", [BF16, AMX, FP16], ids=["bf16", "amx", "fp16"])
@pytest.mark.parametrize(("emit", "count"), [row[1:] for row in EXACT], ids=NAMES)
def test_results_are_the_same_bits(
    emit: Emit, count: int, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _noise(*X, seed=5)
    module = _module(emit, target)
    # In float16 depthwise convolutions round as well.
    assert _rounded(module) == (count or (emit is _after_float32 and target is FP16))
    got = onnx_models.run_relax(module, data)
    monkeypatch.setattr(store_rounded, "_rounded_pictures", lambda *_: set())
    before = _module(emit, target)
    assert _rounded(before) == 0
    for one, other in zip(got, onnx_models.run_relax(before, data), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_depthwise_convolution_reads_what_bfloat16_products_made() -> None:
    data = _noise(*X, seed=5)
    module = _module(_before_depthwise)
    assert _rounded(module) == 2
    (got,) = onnx_models.run_relax(module, data)
    last = nearest_bf16(_noise(*WEIGHT, seed=2))
    first = conv2d_reference(nearest_bf16(data), nearest_bf16(_noise(*WEIGHT, seed=1)))
    middle = conv2d_reference(
        nearest_bf16(first.astype("float32")),
        _noise(16, 3, 3, 1, seed=1),
        padding=(1, 1, 1, 1),
        groups=16,
    )
    wanted = conv2d_reference(nearest_bf16(middle.astype("float32")), last)
    # Sums of another order may round to the neighbour: a few of 2 ** -9 of a factor.
    assert_close(got, wanted, rtol=0, atol=2**-8 * np.abs(wanted).max())
    assert np.abs(got - wanted).mean() < 2**-14 * np.abs(wanted).max()


@pytest.mark.parametrize(("winograd", "count"), [("bf16_winograd4", 2), ("winograd4", 1)])
def test_winograd_reads_what_bfloat16_products_made_if_its_own_are(
    winograd: AlgorithmName, count: int
) -> None:
    """Its transforms do not round the picture itself, which is a factor all the same."""

    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        middle = _conv(builder, _conv(builder, x, *WEIGHT), 16, 3, 3, 16, padding=[1] * 4)
        return _conv(builder, middle, *WEIGHT, seed=2)

    def choose(layer: ConvLayer) -> AlgorithmName:
        return winograd if winograd in layer.possible else "bf16"

    data = _noise(*X, seed=5)
    module = lower_network(emit, [data], BF16, choose)
    assert _rounded(module) == count
    (got,) = onnx_models.run_relax(module, data)
    first = conv2d_reference(data, _noise(*WEIGHT, seed=1))
    second = conv2d_reference(first, _noise(16, 3, 3, 16, seed=1), padding=(1, 1, 1, 1))
    wanted = conv2d_reference(second, _noise(*WEIGHT, seed=2))
    assert np.sqrt(np.mean((got - wanted) ** 2)) < 0.02 * wanted.std()


@pytest.mark.parametrize("target", [BF16, AMX], ids=["bf16", "amx"])
def test_residuals_of_bfloat16_products_are_kept_in_bfloat16(target: Target) -> None:
    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        first = _conv(builder, x, *WEIGHT)
        second = _conv(builder, _relu(builder, _conv(builder, first, *WEIGHT, seed=2)), *WEIGHT)
        return _conv(builder, builder.emit(relax.op.add(second, first)), *WEIGHT, seed=3)

    data = _noise(*X, seed=5)
    module = lower_network(emit, [data], target, _algorithm(target))
    assert _rounded(module) == 3, "the first, the second and the sum"
    (got,) = onnx_models.run_relax(module, data)

    def conv(picture: np.ndarray, seed: int) -> np.ndarray:
        weight = nearest_bf16(_noise(*WEIGHT, seed=seed))
        return conv2d_reference(nearest_bf16(picture), weight).astype("float32")

    first = conv(data, 1)
    wanted = conv(conv(np.maximum(conv(first, 2), 0), 1) + nearest_bf16(first), 3)
    # Sums of another order may round to the neighbour: a few of 2 ** -9 of a factor.
    assert_close(got, wanted, rtol=0, atol=2**-8 * np.abs(wanted).max())
    assert np.abs(got - wanted).mean() < 2**-13 * np.abs(wanted).max()


def test_residuals_stay_float32_in_float16() -> None:
    """Sums of residuals may grow beyond what float16 holds."""

    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        first = _conv(builder, x, *WEIGHT)
        second = _conv(builder, _conv(builder, first, *WEIGHT, seed=2), *WEIGHT)
        return _conv(builder, builder.emit(relax.op.add(second, first)), *WEIGHT, seed=3)

    module = lower_network(emit, [_noise(*X)], FP16, "fp16")
    assert _rounded(module) == 2, "not what is added"


def test_float16_does_not_hold_what_a_float32_depthwise_convolution_reads() -> None:
    """Products of 128 channels: 89600, of which float16 makes infinity."""

    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        def conv(data: Any, weight: np.ndarray, **more: Any) -> Any:
            call = relax.op.nn.conv2d(
                data, relax.const(weight.astype("float32")), **LAYOUTS, **more
            )
            return builder.emit(call)

        great = conv(x, np.full((16, 1, 1, 128), 700.0))
        small = conv(great, np.full((16, 3, 3, 1), 1e-6), groups=16)  # too small for float16
        return conv(small, np.ones((8, 1, 1, 16)))

    data = np.ones((1, 8, 10, 128), "float32")
    module = lower_network(emit, [data], FP16, "fp16")
    (got,) = onnx_models.run_relax(module, data)
    assert_close(got, np.full_like(got, 89600 * 9e-6 * 16), rtol=1e-2, atol=0)


def test_float32_networks_are_left_alone() -> None:
    module = lower_network(_plain, [_noise(*X)], get_target("x86-64-v4"))
    assert store_rounded.StoreRounded().transform_module(module, None).same_as(module)


@pytest.mark.parametrize("target", [BF16, AMX], ids=["bf16", "amx"])
@pytest.mark.parametrize("width", [1, 10, 11])
@pytest.mark.parametrize(
    ("channels", "kernel"), [(16, 1), (34, 1), (7, 1), (16, 3), (5, 3)], ids=str
)
def test_every_decision_reads_and_writes_bfloat16(
    channels: int, kernel: int, width: int, target: Target
) -> None:
    data = _noise(1, 6, width, channels)

    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        first = _conv(builder, x, channels, 1, 1, channels)
        second = _conv(builder, first, 24, kernel, kernel, channels, padding=[kernel // 2] * 4)
        return _conv(builder, second, 8, 1, 1, 24)

    _, middle, _ = kernels_of(emit, [data], target, _algorithm(target))
    picture = round_to_bf16(_noise(1, 6, width, channels, seed=7))
    wanted = conv2d_reference(
        nearest_bf16(_noise(1, 6, width, channels, seed=7)),
        nearest_bf16(_noise(24, kernel, kernel, channels, seed=1)),
        padding=(kernel // 2,) * 4,
    )
    decisions = middle.decisions[:: max(1, len(middle.decisions) // 6)]
    results = run_decisions(middle, decisions, target, instead={0: picture})
    for decision, (got,) in zip(decisions, results, strict=True):
        assert got.dtype == np.uint16
        assert_close(_floats(got), wanted, rtol=2**-7, atol=1e-3, name=str(decision))


@pytest.mark.parametrize("size", [(6, 11), (1, 1), (9, 16)], ids=str)
def test_every_decision_of_a_depthwise_one(size: tuple[int, int]) -> None:
    data = _noise(1, *size, 48)

    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        first = _conv(builder, x, 48, 1, 1, 48)
        return _conv(builder, _depthwise(builder, first), 8, 1, 1, 48)

    _, middle, _ = kernels_of(emit, [data], BF16, "bf16")
    picture = _noise(1, *size, 48, seed=7)
    weight = _noise(48, 3, 3, 1, seed=1)
    wanted = conv2d_reference(nearest_bf16(picture), weight, padding=(1, 1, 1, 1), groups=48)
    decisions = middle.decisions[:: max(1, len(middle.decisions) // 6)]
    for decision, (got,) in zip(
        decisions, _run(middle, decisions, round_to_bf16(picture)), strict=True
    ):
        assert_close(_floats(got), wanted, rtol=2**-7, atol=1e-3, name=str(decision))


@pytest.mark.parametrize("target", [BF16, AMX], ids=["bf16", "amx"])
def test_a_picture_is_not_copied_that_is_bfloat16_already(target: Target) -> None:
    algorithm = _algorithm(target)
    _, second = kernels_of(_plain, [_noise(*X)], target, algorithm)
    (decision, *_) = second.decisions
    text = second.template.apply(second.func, second.workload, decision).mod.script()
    assert "pad" not in text
    _, second = kernels_of(_odd, [_noise(*X)], target, algorithm)
    text = second.template.apply(second.func, second.workload, second.decisions[0]).mod.script()
    assert "pad" in text


def _run(kernel: Kernel, decisions: Any, picture: np.ndarray) -> list[list[np.ndarray]]:
    return run_decisions(kernel, decisions, BF16, instead={0: picture})


def _floats(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
