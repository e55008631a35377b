"""Own converters: the operators that they emit, and the numbers of ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import onnx
import onnx_models
import pytest
import tvm
from onnx_models import Graph, run_relax
from tvm import relax
from tvmdet.targets import get_target

from tvmdet.errors import ModelError, UnsupportedOperatorError
from tvmdet.frontend.importer import import_relax
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.onnx_tools import name_nodes
from tvmdet.frontend.prove import run_onnx
from tvmdet.frontend.specialise import specialise
from tvmdet.passes.attach_head import attach_nothing
from tvmdet.passes.lower import lowering_phases, tvm_target

SHAPE = (2, 6, 9, 7)


def _clip(low: float | None, high: float | None) -> Callable[[Graph], str]:
    def build(graph: Graph) -> str:
        names = ["" if value is None else graph.constant(value) for value in (low, high)]
        return graph.node("Clip", "x", *names)

    return build


def _binary(operator: str, values: object, *, first: bool = False) -> Callable[[Graph], str]:
    def build(graph: Graph) -> str:
        operands = ["x", graph.constant(values)]
        return graph.node(operator, *(reversed(operands) if first else operands))

    return build


def _conv(channels: int = 8, kernel: int = 3, **attributes: object) -> Callable[[Graph], str]:
    return lambda graph: graph.conv("x", (6, channels), kernel, **attributes)


def _pad(graph: Graph) -> str:
    pads = graph.constant([0, 0, 1, 2, 0, 0, 3, 0], np.int64)
    return graph.node("Pad", "x", pads, graph.constant(0.5))


def _unary(operator: str, **attributes: object) -> Callable[[Graph], str]:
    return lambda graph: graph.node(operator, "x", **attributes)


CASES = [
    ("clip both", _clip(-0.5, 0.25), {"clip": 1}),
    ("clip low only", _clip(0.1, None), {"maximum": 1}),
    ("clip high only", _clip(None, 0.1), {"minimum": 1}),
    ("clip nothing", _clip(None, None), {}),
    ("clip crossed bounds", _clip(0.5, -0.5), {"clip": 1}),
    ("clip NaN low", _clip(float("nan"), 0.1), {"minimum": 1}),
    ("clip infinite high", _clip(0.1, float("inf")), {"maximum": 1}),
    (
        "hard sigmoid",
        _unary("HardSigmoid", alpha=0.3, beta=0.4),
        {"multiply": 1, "add": 1, "clip": 1},
    ),
    ("hard swish", _unary("HardSwish"), {"add": 1, "clip": 1, "multiply": 1, "divide": 1}),
    ("conv", _conv(pads=[1, 0, 2, 1], strides=[2, 1]), {"nn.conv2d": 1, "add": 1}),
    ("conv same upper", _conv(auto_pad="SAME_UPPER", strides=[2, 2]), {"nn.conv2d": 1, "add": 1}),
    ("conv same lower", _conv(auto_pad="SAME_LOWER", strides=[2, 2]), {"nn.conv2d": 1, "add": 1}),
    ("conv valid", _conv(auto_pad="VALID", dilations=[2, 1]), {"nn.conv2d": 1, "add": 1}),
    ("add one element", _binary("Add", [[[[2.0]]]]), {"add": 1}),
    (
        "sub from channels",
        _binary("Sub", np.arange(6.0).reshape(6, 1, 1), first=True),
        {"subtract": 1},
    ),
    ("mul last axis", _binary("Mul", np.arange(7.0)), {"multiply": 1}),
    ("div vector", _binary("Div", [6.0]), {"divide": 1}),
    ("pad", _pad, {"nn.pad": 1}),
    ("split into one part", _unary("Split", axis=1), {}),
    ("tile", lambda g: g.node("Tile", "x", g.constant([1, 2, 1, 3], np.int64)), {"tile": 1}),
]


@pytest.mark.parametrize(("build", "operators"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_emits_plain_operators_with_equal_numbers(
    build: Callable[[Graph], str], operators: dict[str, int]
) -> None:
    graph = Graph()
    # Relu first: a graph without a node left is no network.
    graph.node("Sub", "input", graph.constant(0.5))
    graph.nodes[0].output[0] = "x"
    model = graph.model({"input": SHAPE}, {build(graph): None})
    name_nodes(model.graph)
    static = specialise(model, {"input": SHAPE}, Limits())
    module = import_relax(static, onnx_models.OPSET)
    data = np.random.default_rng(3).random(SHAPE, dtype=np.float32)
    (expected,) = run_onnx(static, [{"input": data}])
    (got,) = run_relax(module, data)
    np.testing.assert_allclose(got, *expected.values(), rtol=1e-5, atol=1e-5)
    found = re.findall(r"R\.([a-z_0-9.]+)\(", module.script())
    counts = {name: found.count(name) for name in operators}
    counts["subtract"] = found.count("subtract")
    assert counts == {**operators, "subtract": operators.get("subtract", 0) + 1}
    assert "call_tir" not in found
    assert len(module["main"].body.blocks) == 1


@pytest.mark.parametrize("opset", [11, 13, 18, 19, 21])
def test_padding_of_every_opset(opset: int) -> None:
    graph = Graph()
    graph.node("Sub", "input", graph.constant(0.5))
    graph.nodes[0].output[0] = "x"
    output = _pad(graph)
    if opset >= 18:
        pads = graph.constant([1, 0, 2, 3], np.int64)
        axes = graph.constant([-1, 1], np.int64)
        output = graph.node("Pad", output, pads, graph.constant(0.25), axes)
    module, static = _imported(graph, output, opset)
    script = module.script()
    assert "R.nn.pad(" in script
    assert "call_tir" not in script
    data = np.random.default_rng(3).random(SHAPE, dtype=np.float32)
    (expected,) = run_onnx(static, [{"input": data}])
    (got,) = run_relax(module, data)
    np.testing.assert_allclose(got, *expected.values(), rtol=1e-6)


def test_resize_to_sizes_in_opset_11() -> None:
    """There the scales are empty, where a later opset leaves the input away."""
    graph = Graph()
    graph.node("Sub", "input", graph.constant(0.5))
    empty = graph.constant(np.zeros(0, np.float32))
    sizes = graph.constant([2, 6, 18, 14], np.int64)
    output = graph.node("Resize", graph.nodes[0].output[0], empty, empty, sizes, mode="nearest")
    module, static = _imported(graph, output, 11)
    data = np.random.default_rng(3).random(SHAPE, dtype=np.float32)
    (expected,) = run_onnx(static, [{"input": data}])
    (got,) = run_relax(module, data)
    np.testing.assert_allclose(got, *expected.values(), rtol=1e-6)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_kernels_of_the_importer_are_kept(mode: str) -> None:
    """What TVM's importer writes as a kernel of its own comes through lowering, twice of a name."""
    graph = Graph()
    graph.node("Sub", "input", graph.constant(0.5))
    graph.nodes[0].output[0] = "x"
    output = "x"
    for widths in ([0, 0, 1, 2, 0, 0, 3, 0], [0, 0, 2, 0, 0, 0, 0, 1]):
        output = graph.node("Pad", output, graph.constant(widths, np.int64), mode=mode)
        output = graph.conv(output, (6, 6), 1)
    module, static = _imported(graph, output, 19)
    builder = relax.BlockBuilder()
    attach_nothing(builder, module, "main")
    whole = builder.get()
    assert len(whole.functions) == len(module.functions) > 1
    data = np.random.default_rng(3).random(SHAPE, dtype=np.float32)
    (expected,) = run_onnx(static, [{"input": data}])
    (got,) = run_relax(whole, data)
    with tvm_target(get_target("x86-64-v3")):
        for _, phase in lowering_phases(get_target("x86-64-v3")):
            whole = phase(whole)
    np.testing.assert_allclose(got, *expected.values(), rtol=1e-4, atol=1e-5)


def _imported(graph: Graph, output: str, opset: int) -> tuple[tvm.IRModule, onnx.ModelProto]:
    model = graph.model({"input": SHAPE}, {output: None}, opset=opset)
    name_nodes(model.graph)
    static = specialise(model, {"input": SHAPE}, Limits())
    return import_relax(static, opset), static


def test_constants_fit_the_other_operand() -> None:
    graph = Graph()
    scaled = graph.node("Mul", "x", graph.constant(np.ones((6, 1, 1)) * 2))
    output = graph.node("Add", scaled, graph.constant([1.0]))
    model = graph.model({"x": SHAPE}, {output: None})
    shapes = [
        list(call.args[1].ty.shape)
        for binding in import_relax(model, onnx_models.OPSET)["main"].body.blocks[0].bindings
        if hasattr(call := binding.value, "args") and len(call.args) == 2
    ]
    assert shapes == [[1, 6, 1, 1], []]


def test_failing_conversion_names_the_node(capfd: pytest.CaptureFixture[str]) -> None:
    graph = Graph()
    output = graph.node("GridSample", "x", graph.constant(np.zeros((2, 3, 3, 2))), mode="cubic")
    graph.nodes[-1].input[1] = graph.constant(np.zeros((2, 3)))
    model = graph.model({"x": SHAPE}, {output: None})
    with pytest.raises(UnsupportedOperatorError, match=r"node 'gridsample_0' \(GridSample\)"):
        import_relax(model, onnx_models.OPSET)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_every_block_is_listed() -> None:
    graph = Graph()
    boxes, scores = graph.node("Relu", "x"), graph.node("Relu", "x")
    iou = graph.node("Sigmoid", "y")
    count = graph.constant([10], np.int64)
    graph.node("NonMaxSuppression", boxes, scores, count, iou)
    graph.node("Det", "x")
    top = graph.node("TopK", "x", "k", outputs=2)
    model = graph.model({"x": SHAPE}, {top: None})
    with pytest.raises(UnsupportedOperatorError) as caught:
        import_relax(model, onnx_models.OPSET)
    message = str(caught.value)
    assert "3 nodes cannot be imported" in message
    assert "'nonmaxsuppression_3' (NonMaxSuppression): its iou_threshold is not a" in message
    assert "'det_4' (Det): TVM has no converter" in message
    assert "'topk_5' (TopK): its k is not a constant" in message


def test_constants_that_tvm_cannot_fold_are_an_error_of_the_model() -> None:
    graph = Graph()
    output = graph.node("Div", "x", graph.constant([0.0]))
    model = graph.model({"x": SHAPE}, {output: None})
    with pytest.raises(ModelError, match=r"cannot fold the constants .*: .*ivide by zero"):
        import_relax(model, onnx_models.OPSET)
