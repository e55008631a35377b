"""FoldConv2dAffine and FoldChannelOrder: what melts into a convolution, what must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest
from assertions import assert_close
from onnx_models import Graph
from relax_nets import assert_same_as_onnx_runtime, import_raw, one_function, operators
from tvm import relax

from tvmdet.passes.attach_head import emit_normalize
from tvmdet.passes.fold_channel_order import FoldChannelOrder
from tvmdet.passes.fold_conv2d_affine import FoldConv2dAffine
from tvmdet.spec import InputSpec

ARITHMETIC = ("add", "subtract", "multiply", "divide")


def _batch_norm(g: Graph, data: str, channels: int) -> str:
    scale, shift, mean = (g.constant(g.rng.normal(0, 1, channels)) for _ in range(3))
    variance = g.constant(g.rng.random(channels) + 0.1)
    return g.node("BatchNormalization", data, scale, shift, mean, variance)


def _per_channel(g: Graph, channels: int) -> str:
    return g.constant(g.rng.normal(0, 1, (channels, 1, 1)) + 2)


def _norm_chain(g: Graph) -> list[str]:
    x = g.node("Relu", _batch_norm(g, g.conv("x", (3, 6), 3), 6))
    return [_batch_norm(g, g.conv(x, (6, 4), 1, group=1), 4)]


def _affine_chain(g: Graph) -> list[str]:
    x = g.conv("x", (3, 6), 3)
    x = g.node("Mul", _per_channel(g, 6), x)
    x = g.node("Sub", x, g.constant(0.5))
    x = g.node("Div", x, _per_channel(g, 6))
    x = g.node("Add", g.constant([[[[2.0]]]]), x)
    return [g.node("Relu", x)]


def _depthwise(g: Graph) -> list[str]:
    weight = g.constant(g.rng.normal(0, 1, (6, 1, 3, 3)))
    x = g.node("Conv", g.conv("x", (3, 6), 1), weight, group=6)
    return [_batch_norm(g, x, 6)]


def _shared(g: Graph) -> list[str]:
    x = g.conv("x", (3, 6), 3)
    return [g.node("Mul", x, _per_channel(g, 6)), g.node("Relu", x)]


def _shared_in_the_middle(g: Graph) -> list[str]:
    scaled = g.node("Mul", g.conv("x", (3, 6), 3), _per_channel(g, 6))
    return [g.node("Add", scaled, g.constant(1.0)), g.node("Relu", scaled)]


def _is_an_output(g: Graph) -> list[str]:
    x = g.conv("x", (3, 6), 3)
    return [x, g.node("Mul", x, g.constant(3.0))]


def _by_itself(g: Graph) -> list[str]:
    x = g.node("Mul", g.conv("x", (3, 6), 3), g.constant(0.5))
    return [g.node("Add", x, x)]


def _zero_divisor(g: Graph) -> list[str]:
    return [g.node("Div", g.conv("x", (3, 6), 3), g.constant([[[1.0]]] * 5 + [[[0.0]]]))]


def _constant_on_the_left(g: Graph) -> list[str]:
    x = g.conv("x", (3, 6), 3)
    return [
        g.node("Sub", g.constant(1.0), x),
        g.node("Div", g.constant(1.0), g.conv("x", (3, 2), 1)),
    ]


def _per_pixel(g: Graph) -> list[str]:
    return [g.node("Mul", g.conv("x", (3, 6), 1), g.constant(g.rng.normal(0, 1, (8, 10))))]


def _larger_rank(g: Graph) -> list[str]:
    return [g.node("Add", g.conv("x", (3, 6), 1), g.constant(np.full((1, 1, 1, 1, 1), 2.0)))]


# Network -> arithmetic left of each convolution's chain, 1 is its bias.
FOLDED: dict[str, tuple[Callable[[Graph], list[str]], int]] = {
    "batch norms": (_norm_chain, 2),
    "scale, shift and back": (_affine_chain, 1),
    "depthwise": (_depthwise, 2),
}
KEPT: dict[str, tuple[Callable[[Graph], list[str]], int]] = {
    "convolution used twice": (_shared, 2),
    "middle used twice": (_shared_in_the_middle, 2),
    "convolution is an output": (_is_an_output, 2),
    "chain used twice by one operator": (_by_itself, 2),
    "division by zero": (_zero_divisor, 2),
    "constant minus convolution": (_constant_on_the_left, 4),
    "one value per pixel": (_per_pixel, 2),
    "constant of more axes": (_larger_rank, 2),
}


@pytest.mark.parametrize("name", FOLDED | KEPT)
def test_what_folds_and_what_does_not(name: str, tmp_path: Path) -> None:
    write, arithmetic = (FOLDED | KEPT)[name]
    graph = Graph()
    model = import_raw(graph, {"x": [1, 3, 8, 10]}, write(graph), tmp_path)
    after = FoldConv2dAffine()(model.relax_at(1))
    relax.analysis.well_formed(after)  # raises
    counts = operators(after)
    assert not any("batch_norm" in operator for operator in counts)
    assert sum(counts[operator] for operator in ARITHMETIC) == arithmetic, after.script()
    with np.errstate(all="ignore"):
        assert_same_as_onnx_runtime(model, after)


@pytest.mark.parametrize(
    ("constant", "why"),
    [
        (np.array([1, 1, np.inf, 1], "f4").reshape(4, 1, 1), "infinite"),
        (np.array([1, np.nan, 1, 1], "f4").reshape(4, 1, 1), "no number"),
        (np.arange(4, dtype="f4"), "four values, and four columns: they are no channels"),
        (np.arange(4, dtype="f4").reshape(4, 1), "one value per row"),
        (np.ones((2, 4, 1, 1), "f4"), "another batch"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("name", ["add", "multiply"])
def test_constants_that_are_kept(name: str, constant: np.ndarray, why: str) -> None:
    weight = relax.const(np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype("f4"))

    def emit(builder: Any, x: Any) -> Any:
        conv = builder.emit(relax.op.nn.conv2d(x, weight))
        return builder.emit(getattr(relax.op, name)(conv, relax.const(constant)))

    before = one_function([((1, 3, 4, 4), "float32")], emit)
    after = FoldConv2dAffine()(before)
    assert operators(after)[name] == 1, why
    data = np.random.default_rng(1).standard_normal((1, 3, 4, 4)).astype("f4")
    expected = onnx_models.run_relax(before, data)
    np.testing.assert_array_equal(onnx_models.run_relax(after, data)[0], expected[0])


def test_integer_arithmetic_is_left_alone() -> None:
    weight = relax.const(np.ones((2, 3, 1, 1), "int32"))

    def emit(builder: Any, x: Any) -> Any:
        conv = builder.emit(relax.op.nn.conv2d(x, weight, out_dtype="int32"))
        return builder.emit(relax.op.multiply(conv, relax.const(np.int32(3))))

    after = FoldConv2dAffine()(one_function([((1, 3, 4, 4), "int32")], emit))
    assert operators(after)["multiply"] == 1


SPECS = {
    "rgb / 255": InputSpec(size_hw=(6, 7)),
    "bgr / 255": InputSpec(size_hw=(6, 7), color="bgr"),
    "rgb, ImageNet": InputSpec(
        size_hw=(6, 7), mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
    ),
    "bgr, Caffe": InputSpec(
        size_hw=(6, 7), color="bgr", mean=(103.53, 116.28, 123.675), std=(1.0, 2.0, 4.0)
    ),
    "rgb, bytes": InputSpec(size_hw=(1, 1), std=(1.0, 1.0, 1.0)),
    "rgb, -1 to 1": InputSpec(size_hw=(5, 16), mean=(127.5,) * 3, std=(127.5,) * 3),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", SPECS)
def test_pixels_are_normalised_in_the_networks_channel_order(name: str, batch: int) -> None:
    spec = SPECS[name]
    shape = (batch, *spec.size_hw, 3)
    module = one_function([(shape, "uint8")], lambda b, x: emit_normalize(b, x, spec))
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image.reshape(-1)[:3] = 0, 255, 128
    (got,) = onnx_models.run_relax(module, image)
    pixels = image[..., ::-1] if spec.color == "rgb" else image
    expected = (pixels.astype(np.float64) - spec.mean) / spec.std
    assert_close(got, expected.transpose(0, 3, 1, 2), rtol=1e-6, atol=1e-6)


def _reordered_conv(order: list[int], groups: int = 1, axis: int = 1) -> Any:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((6, len(order) // groups, 3, 3)).astype("float32")

    def emit(builder: Any, x: Any) -> Any:
        index = relax.const(np.array(order, "int64"))
        x = builder.emit(relax.op.take(x, index, axis=axis, mode="clip"))
        return builder.emit(relax.op.nn.conv2d(x, relax.const(weight), groups=groups))

    return one_function([((1, 3, 8, 9), "float32")], emit)


@pytest.mark.parametrize(
    ("order", "groups", "left", "why"),
    [
        ([2, 1, 0], 1, 0, "swapped"),
        ([1, 2, 0], 1, 0, "a permutation that is not its own inverse"),
        ([0, 1, 2], 1, 0, "as they were"),
        ([2, 1, 0], 3, 1, "grouped weights belong to their channel"),
        ([0, 0, 2], 1, 1, "a channel taken twice"),
        ([2, 1], 1, 1, "a channel left out"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_channel_orders(order: list[int], groups: int, left: int, why: str) -> None:
    before = _reordered_conv(order, groups)
    after = FoldChannelOrder()(before)
    assert operators(after)["take"] == left, why
    data = np.random.default_rng(2).standard_normal((1, 3, 8, 9)).astype("float32")
    expected = onnx_models.run_relax(before, data)
    assert_close(onnx_models.run_relax(after, data)[0], expected[0], atol=1e-5)
