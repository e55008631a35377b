"""Products of integers whose steps depend on the picture are those of floats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from integer_models import largest_change, make, network
from onnx import TensorProto, helper, numpy_helper
from qdq_models import copied, operators

from tvmdet.errors import ModelError, UnsupportedOperatorError
from tvmdet.frontend.network import Network
from tvmdet.frontend.quantised import (
    FOLDED,
    MULTIPLIED,
    prove_products,
    rounding_left_out,
    write_products,
)
from tvmdet.frontend.quantised.rounding import drop_rounding

RNG = np.random.default_rng(7)
ARRAYS: dict[str, Any] = {
    "w": RNG.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8),
    "ws": np.float32(0.002),
    "wz": np.int8(0),
}
COLUMNS: dict[str, Any] = {
    "w": RNG.integers(0, 255, (8, 6)).astype(np.uint8),
    "ws": (np.arange(6, dtype=np.float32) + 1) / 2000,
    "wz": np.arange(100, 106).astype(np.uint8),
}


def _product(
    operator: str = "ConvInteger",
    zero: str = "wz",
    *,
    result: str = "y",
    value: str = "q",
    **attributes: Any,
) -> list[onnx.NodeProto]:
    """Returns a product of integers times its steps, the operands of every second Mul swapped."""
    inputs = [value, "w", f"{value}z", *([zero] if zero else [])]
    return [
        helper.make_node(operator, inputs, [f"{result}i"], **attributes),
        helper.make_node("Cast", [f"{result}i"], [f"{result}f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{value}s", "ws"], [f"{result}s"]),
        helper.make_node("Mul", [f"{result}s", f"{result}f"], [result]),
    ]


QUANTISER = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"])


def _bound(made: Network, shape: tuple[int, ...]) -> float:
    """Returns how far a sum may move: half of 1/255 of a picture from 0 to 1, times the weights."""
    (weights,) = [one for one in made.at(1).graph.initializer if list(one.dims) == list(shape)]
    largest = np.abs(numpy_helper.to_array(weights)).reshape(shape[0], -1)
    return float((largest.sum(axis=1) if len(shape) == 4 else largest.sum(axis=0)).max()) / 510


@pytest.mark.parametrize("opset", [11, 13, 21])
@pytest.mark.parametrize(
    ("arrays", "zero", "attributes"),
    [
        ({}, "wz", {"pads": [1, 1, 1, 1]}),
        ({"wz": np.int8(5)}, "wz", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ({}, "", {}),
        ({"w": ARRAYS["w"][:, :2]}, "wz", {"group": 2}),
        ({"w": RNG.integers(0, 255, (6, 4, 3, 3)).astype(np.uint8), "wz": np.uint8(120)}, "wz", {}),
    ],
)
def test_convolutions(
    arrays: dict[str, Any], zero: str, attributes: dict[str, Any], opset: int, tmp_path: Path
) -> None:
    arrays = {**ARRAYS, **arrays}
    model = make([QUANTISER, *_product(zero=zero, **attributes)], arrays, opset=opset)
    made = network(model, tmp_path)
    assert operators(made.at(1)) == ["Conv"]
    assert largest_change(model, made.at(1)) <= _bound(made, arrays["w"].shape) * (1 + 1e-3)
    proofs = {proof.rewrite: proof.largest for proof in made.proofs}
    assert proofs[MULTIPLIED] < 1e-6
    assert proofs[FOLDED] == 0.0
    assert "1 value not as 1/255 of what it spans in a picture" in made.notes[0]


@pytest.mark.parametrize("opset", [11, 13, 21])
@pytest.mark.parametrize(
    "arrays",
    [
        COLUMNS,
        {**COLUMNS, "ws": np.float32(0.003), "wz": np.uint8(99)},
        {**COLUMNS, "wz": COLUMNS["wz"].dtype.type(5)},
    ],
)
def test_matrix_products(arrays: dict[str, Any], opset: int, tmp_path: Path) -> None:
    model = make([QUANTISER, *_product("MatMulInteger")], arrays, (1, 5, 8), opset=opset)
    made = network(model, tmp_path)
    assert "MatMul" in operators(made.at(1))
    assert largest_change(model, made.at(1)) <= _bound(made, (8, 6)) * (1 + 1e-3)


def test_a_picture_that_two_products_read_is_written_once() -> None:
    nodes = [QUANTISER, *_product(result="a"), *_product(result="b")]
    model = make([*nodes, helper.make_node("Add", ["a", "b"], ["y"])], ARRAYS)
    dynamic = copied(model)
    assert write_products(model) == 2
    assert operators(model).count("DequantizeLinear") == 2
    rounded = copied(model)
    assert len(prove_products(dynamic, model).differences) == 2
    assert drop_rounding(model) == 1
    assert "DynamicQuantizeLinear" not in operators(model)
    assert "1 value not as" in rounding_left_out(rounded, model)


def test_a_product_that_is_taken_twice_has_two_names() -> None:
    first, second = _product(result="a"), _product(result="b")
    second[3].input[1] = "af"  # the sums of the first
    nodes = [QUANTISER, *first, *second[2:], helper.make_node("Add", ["a", "b"], ["y"])]
    for index, node in enumerate(nodes):
        node.name = f"node_{index}"
    model = make(nodes, {**ARRAYS, "ws": np.float32(0.002)})
    dynamic = copied(model)
    assert write_products(model) == 2
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert len(prove_products(dynamic, model).differences) == 2


def test_integers_that_others_read_stay() -> None:
    nodes = [QUANTISER, *_product(result="a")]
    nodes = [*nodes, helper.make_node("ReduceMax", ["as"], ["m"])]
    model = make([*nodes, helper.make_node("Add", ["a", "m"], ["y"])], ARRAYS)
    dynamic = copied(model)
    assert write_products(model) == 1
    assert operators(model).count("Mul") == 1
    assert drop_rounding(model) == 1
    assert operators(model).count("DynamicQuantizeLinear") == 1
    assert largest_change(dynamic, model) < 0.02


@pytest.mark.parametrize(
    ("arrays", "operator"),
    [
        pytest.param({"ws": np.full(6, 0.1, np.float32)}, "ConvInteger", id="steps of columns"),
        pytest.param({"ws": np.float32(-0.1)}, "ConvInteger", id="a negative step"),
    ],
)
def test_what_cannot_be_written_is_refused_by_name(
    arrays: dict[str, Any], operator: str, tmp_path: Path
) -> None:
    nodes = [QUANTISER, *_product(operator)]
    named = onnx.NodeProto.FromString(nodes[1].SerializeToString())
    named.name = "the_node"
    model = make([QUANTISER, named, *nodes[2:]], {**ARRAYS, **arrays}, (1, 4, 8, 8))
    assert write_products(copied(model)) == 0
    made = network(model, tmp_path)
    with pytest.raises(UnsupportedOperatorError, match=r"node 'the_node' \(ConvInteger\)"):
        made.relax_at(1)


def test_another_product_is_refused() -> None:
    model = make([QUANTISER, *_product(pads=[1, 1, 1, 1])], ARRAYS)
    dynamic = copied(model)
    assert write_products(model) == 1
    prove_products(dynamic, model)
    (node,) = [node for node in model.graph.node if node.op_type == "Conv"]
    node.attribute[0].CopyFrom(helper.make_attribute("pads", [0, 2, 2, 0]))
    with pytest.raises(ModelError, match="'y' is further from the product of its integers"):
        prove_products(dynamic, model)


def test_another_value_is_refused() -> None:
    model = make([QUANTISER, *_product()], ARRAYS)
    write_products(model)
    rounded = copied(model)
    assert drop_rounding(model) == 1
    (node,) = [node for node in model.graph.node if node.op_type == "Identity"]
    node.op_type = "Sqrt"
    with pytest.raises(ModelError, match="further from what was rounded to it than a step"):
        rounding_left_out(rounded, model)
