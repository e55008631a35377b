"""Integer operators are those of floats between pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import pytest
from integer_models import MICROSOFT, dequantised, largest_change, make, network, quantised
from onnx import helper, numpy_helper
from qdq_models import copied, operators

from tvmdet.errors import ModelError, UnsupportedOperatorError
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.quantised import (
    FOLDED,
    has_integer_operators,
    integers_left_out,
    write_pairs,
)

RNG = np.random.default_rng(7)
STEP, OUT = np.float32(1 / 255), np.float32(0.02)
WEIGHTS = RNG.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8)
BIAS = RNG.integers(-9000, 9000, 6).astype(np.int32)
BY_CHANNEL = (np.arange(6, dtype=np.float32) + 1) / 2000
ARRAYS: dict[str, Any] = {
    "s": STEP,
    "z": np.uint8(0),
    "w": WEIGHTS,
    "ws": np.float32(0.002),
    "wz": np.int8(0),
    "os": OUT,
    "oz": np.uint8(120),
    "b": BIAS,
}


def _convolution(*, bias: bool = True, **attributes: Any) -> list[onnx.NodeProto]:
    inputs = ["q", "s", "z", "w", "ws", "wz", "os", "oz", *(["b"] if bias else [])]
    return [
        quantised("x", "q"),
        helper.make_node("QLinearConv", inputs, ["p"], **attributes),
        dequantised("p", "y", "os", "oz"),
    ]


@pytest.mark.parametrize("opset", [11, 13, 21])
@pytest.mark.parametrize(
    ("arrays", "attributes"),
    [
        pytest.param({}, {"pads": [1, 1, 1, 1]}, id="one step"),
        pytest.param(
            {"ws": BY_CHANNEL, "wz": np.zeros(6, np.int8)}, {}, id="a step for each channel"
        ),
        pytest.param(
            {"z": np.uint8(30), "oz": np.uint8(7)},
            {"pads": [2, 0, 1, 1]},
            id="padding is 0, not the integer 0",
        ),
        pytest.param({"wz": np.int8(-5)}, {}, id="weights whose zero is another integer"),
        pytest.param({}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, id="auto_pad"),
        pytest.param({}, {"bias": False}, id="no bias"),
        pytest.param(
            {"w": WEIGHTS[:, :2], "ws": BY_CHANNEL, "wz": np.zeros(6, np.int8)},
            {"group": 2},
            id="groups",
        ),
        pytest.param(
            {"s": np.array([1 / 255], np.float32), "z": np.array([0], np.uint8)},
            {},
            id="steps as rows of one",
        ),
        pytest.param(
            {"z": np.int8(-10), "oz": np.int8(4)}, {"pads": [1, 1, 1, 1]}, id="pictures of int8"
        ),
    ],
)
def test_convolutions(
    arrays: dict[str, Any], attributes: dict[str, Any], opset: int, tmp_path: Path
) -> None:
    model = make(_convolution(**attributes), {**ARRAYS, **arrays}, opset=opset)
    made = network(model, tmp_path)
    static = made.at(1)
    assert set(operators(static)) == {"Clip", "Conv"}
    assert largest_change(model, static) <= OUT
    assert made.notes[0].startswith("1 integer operator (QLinearConv) taken")
    assert "2 pairs of QuantizeLinear and DequantizeLinear as limits" in made.notes[1]


def test_files_that_list_every_initializer_as_an_input(tmp_path: Path) -> None:
    model = make(_convolution(), ARRAYS)
    for tensor in model.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(value)
    model.ir_version = 3
    assert largest_change(model, network(model, tmp_path).at(1)) <= OUT


def test_weights_are_proven_exactly(tmp_path: Path) -> None:
    made = network(make(_convolution(), ARRAYS), tmp_path)
    (proof,) = [proof for proof in made.proofs if proof.rewrite == FOLDED]
    assert len(proof.differences) == 2
    assert proof.largest == 0.0


def test_weights_that_would_overflow_in_onnx_runtime_are_right(tmp_path: Path) -> None:
    # On x86 without VNNI it gives about half of the sum; see `unsaturated`.
    arrays = {**ARRAYS, "w": np.full((6, 4, 3, 3), 127, np.int8), "b": BIAS * 0, "oz": np.uint8(0)}
    made = network(make(_convolution(), {**arrays, "os": np.float32(0.05)}), tmp_path)
    assert made.notes[0].startswith("1 integer operator")


def _unary(operator: str, **attributes: Any) -> list[onnx.NodeProto]:
    inputs = ["q", "s", "z", "os", "oz"]
    node = helper.make_node(operator, inputs, ["p"], domain=MICROSOFT, **attributes)
    return [quantised("x", "q"), node, dequantised("p", "y", "os", "oz")]


def _binary(operator: str, second: str = "w") -> list[onnx.NodeProto]:
    inputs = ["q", "s", "z", second, "ws", "wz", "os", "oz"]
    node = helper.make_node(operator, inputs, ["p"], domain=MICROSOFT)
    return [quantised("x", "q"), node, dequantised("p", "y", "os", "oz")]


_SIGNED = {"z": np.uint8(128), "s": np.float32(0.01), "os": np.float32(0.01)}
_ROW = {"w": RNG.integers(0, 255, (4, 1, 8)).astype(np.uint8), "wz": np.uint8(90)}
_POOL = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
_SHARES = {"os": np.float32(1 / 256), "oz": np.uint8(0)}


@pytest.mark.parametrize(
    ("nodes", "arrays", "left"),
    [
        (_unary("QLinearSigmoid"), _SHARES, "Sigmoid"),
        (_unary("QLinearLeakyRelu", alpha=0.2), _SIGNED, "LeakyRelu"),
        (_unary("QLinearLeakyRelu"), _SIGNED, "LeakyRelu"),
        (_unary("QLinearSoftmax", opset=17, axis=1), _SHARES, "Softmax"),
        (_unary("QLinearSoftmax", opset=17), _SHARES, "Softmax"),
        (_unary("QLinearSoftmax", opset=17), {**_SHARES, "os": np.float32(1 / 255)}, "Softmax"),
        (_unary("QLinearAveragePool", **_POOL), {}, "AveragePool"),
        (_unary("QLinearAveragePool", count_include_pad=1, **_POOL), {}, "AveragePool"),
        (_unary("QLinearGlobalAveragePool", channels_last=0), {}, "GlobalAveragePool"),
        (_binary("QLinearAdd"), _ROW, "Add"),
        (_binary("QLinearMul"), _ROW, "Mul"),
    ],
)
def test_operators_of_onnx_runtime(
    nodes: list[onnx.NodeProto], arrays: dict[str, Any], left: str, tmp_path: Path
) -> None:
    model = make(nodes, {**ARRAYS, **arrays})
    static = network(model, tmp_path).at(1)
    assert left in operators(static)
    assert {*operators(static)} <= {left, "Clip"}
    step = float({**ARRAYS, **arrays}["os"])
    assert largest_change(model, static) <= 2 * step


def test_a_zero_point_that_is_left_out_is_0_of_the_type(tmp_path: Path) -> None:
    nodes = [
        quantised("x", "q"),
        helper.make_node(
            "QLinearAdd", ["q", "s", "z", "w", "ws", "z", "os"], ["p"], domain=MICROSOFT
        ),
        dequantised("p", "y", "os"),
    ]
    for dtype in (np.int8, np.uint8):
        arrays = {**ARRAYS, "z": dtype(0), "w": RNG.integers(0, 100, (8,)).astype(dtype)}
        model = make(nodes, arrays)
        assert largest_change(model, network(model, tmp_path).at(1)) <= OUT


def test_concat_of_other_steps(tmp_path: Path) -> None:
    joined = ["os", "oz", "q", "s", "z", "r", "ws", "wz", "q", "s", "z"]
    nodes = [
        quantised("x", "q"),
        quantised("x", "r", "ws", "wz"),
        helper.make_node("QLinearConcat", joined, ["p"], domain=MICROSOFT, axis=1),
        dequantised("p", "y", "os", "oz"),
    ]
    model = make(nodes, {**ARRAYS, "wz": np.uint8(20)})
    static = network(model, tmp_path).at(1)
    assert operators(static).count("Concat") == 1
    assert largest_change(model, static) <= 2 * OUT


def test_a_choice(tmp_path: Path) -> None:
    inputs = ["c", "q", "s", "z", "q", "ws", "wz", "os", "oz"]
    nodes = [
        quantised("x", "q"),
        helper.make_node("QLinearWhere", inputs, ["p"], domain=MICROSOFT),
        dequantised("p", "y", "os", "oz"),
    ]
    model = make(nodes, {**ARRAYS, "c": RNG.random(8) < 0.5, "wz": np.uint8(20)})
    assert largest_change(model, network(model, tmp_path).at(1)) <= OUT


_COLUMNS: dict[str, Any] = {
    "w": RNG.integers(-127, 128, (8, 6)).astype(np.int8),
    "ws": BY_CHANNEL,
    "wz": np.zeros(6, np.int8),
}


@pytest.mark.parametrize("opset", [11, 13, 21])
@pytest.mark.parametrize("arrays", [_COLUMNS, {"w": _COLUMNS["w"]}, {**_COLUMNS, "wz": np.int8(3)}])
def test_matrix_products(arrays: dict[str, Any], opset: int, tmp_path: Path) -> None:
    inputs = ["q", "s", "z", "w", "ws", "wz", "os", "oz"]
    nodes = [
        quantised("x", "q"),
        helper.make_node("QLinearMatMul", inputs, ["p"]),
        dequantised("p", "y", "os", "oz"),
    ]
    model = make(nodes, {**ARRAYS, **arrays}, (1, 5, 8), opset=opset)
    static = network(model, tmp_path).at(1)
    assert "MatMul" in operators(static)
    assert largest_change(model, static) <= OUT


@pytest.mark.parametrize("rounded", [True, False], ids=["integers", "a float"])
@pytest.mark.parametrize(
    ("arrays", "attributes"),
    [
        ({"w": _COLUMNS["w"]}, {}),
        (_COLUMNS, {"alpha": 0.5}),
        ({**_COLUMNS, "w": _COLUMNS["w"].T.copy()}, {"transB": 1}),
    ],
)
def test_general_products(
    arrays: dict[str, Any], attributes: dict[str, Any], rounded: bool, tmp_path: Path
) -> None:
    inputs = ["q", "s", "z", "w", "ws", "wz", "b", *(["os", "oz"] if rounded else [])]
    nodes = [
        quantised("x", "q"),
        helper.make_node(
            "QGemm", inputs, ["p" if rounded else "y"], domain=MICROSOFT, **attributes
        ),
        *([dequantised("p", "y", "os", "oz")] if rounded else []),
    ]
    model = make(nodes, {**ARRAYS, **arrays}, (1, 8))
    static = network(model, tmp_path).at(1)
    assert "Gemm" in operators(static)
    assert largest_change(model, static) <= OUT


def test_a_value_that_two_operators_read_is_written_once() -> None:
    nodes = [
        *_unary("QLinearSigmoid")[:2],
        helper.make_node(
            "QLinearMul", ["q", "s", "z", "p", "os", "oz", "s", "z"], ["m"], domain=MICROSOFT
        ),
        dequantised("m", "y"),
    ]
    model = make(nodes, {**ARRAYS, **_SHARES})
    assert write_pairs(model) == 2
    assert not has_integer_operators(model)
    assert operators(model).count("DequantizeLinear") == 3
    assert [one.domain for one in model.opset_import] == [""]


@pytest.mark.parametrize(
    ("nodes", "arrays"),
    [
        pytest.param(
            _unary("QLinearAveragePool", channels_last=1, **_POOL), {}, id="channels last"
        ),
        pytest.param(_unary("QLinearSoftmax", opset=11), {}, id="an axis of another opset"),
        pytest.param(_binary("QLinearAdd"), {"ws": BY_CHANNEL}, id="steps that do not fit"),
        pytest.param(
            [helper.make_node("ReduceMax", ["x"], ["s"], keepdims=0), *_binary("QLinearAdd", "q")],
            {},
            id="steps that depend on the picture",
        ),
        pytest.param(_convolution(), {"ws": BY_CHANNEL[:5]}, id="too few steps"),
    ],
)
def test_what_cannot_be_written_is_refused_by_name(
    nodes: list[onnx.NodeProto], arrays: dict[str, Any], tmp_path: Path
) -> None:
    arrays = {**ARRAYS, **arrays}
    if "ReduceMax" in {node.op_type for node in nodes}:
        del arrays["s"]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    nodes[-2].name = "the_node"
    model = make(nodes, arrays)
    assert write_pairs(model) == 0
    assert nodes[-2].op_type in operators(model)
    if nodes[-2].domain:
        path = onnx_models.save(make(nodes, arrays), tmp_path / "m.onnx")
        with pytest.raises(UnsupportedOperatorError, match=r"node 'the_node'.*as floats"):
            load_onnx(path)


@pytest.mark.parametrize(
    ("operator", "name", "value"),
    [
        ("Conv", "pads", [0, 2, 2, 0]),
        ("Conv", "dilations", [2, 2]),
    ],
)
def test_another_operator_is_refused(operator: str, name: str, value: list[int]) -> None:
    model = make(_convolution(pads=[1, 1, 1, 1]), ARRAYS)
    integers = copied(model)
    assert write_pairs(model) == 1
    assert integers_left_out(integers, model).startswith("1 integer operator ")
    (node,) = [node for node in model.graph.node if node.op_type == operator]
    kept = [one for one in node.attribute if one.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
    if name == "dilations":
        node.attribute[0].CopyFrom(helper.make_attribute("pads", [2, 2, 2, 2]))
    with pytest.raises(ModelError, match="is further from what its integers mean"):
        integers_left_out(integers, model)


def test_a_result_of_unknown_type_is_refused_by_name() -> None:
    model = make(_convolution(), ARRAYS)
    integers = copied(model)
    assert write_pairs(model) == 1
    (node,) = [node for node in model.graph.node if node.op_type == "Conv"]
    node.attribute.append(helper.make_attribute("strides", [1, 2, 3]))  # inference fails
    with pytest.raises(ModelError, match=r"QLinearConv.*the type of its result cannot be inferred"):
        integers_left_out(integers, model)


def test_another_bias_is_refused() -> None:
    model = make(_convolution(), ARRAYS)
    integers = copied(model)
    assert write_pairs(model) == 1
    (scale,) = [one for one in model.graph.initializer if one.name == "b_scale"]
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(2), "b_scale"))
    with pytest.raises(ModelError, match="is further from what its integers mean"):
        integers_left_out(integers, model)
