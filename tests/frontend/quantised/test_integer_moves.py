"""Operators that only move integers move the floats that they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from integer_models import dequantised, make, network, quantised
from onnx import helper
from qdq_models import X, copied, operators, pair, run

from tvmdet.frontend.quantised import fold_weights, move_integers

STEPS = {"s": np.float32(0.05), "z": np.uint8(100)}


def _between(*nodes: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [quantised("x", "q"), *nodes, dequantised("m", "y")]


def _move(operator: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, ["q", *inputs], ["m"], **attributes)


_POOL = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
_FLOOR = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
_PADS = np.array([0, 0, 1, 2, 0, 0, 0, 1])


@pytest.mark.parametrize(
    ("node", "arrays"),
    [
        pytest.param(_move("MaxPool", **_POOL), {}, id="padding is lower than all"),
        pytest.param(_move("Pad", "p"), {"p": _PADS}, id="padding is the integer 0"),
        pytest.param(
            _move("Pad", "p", "z"), {"p": _PADS}, id="padding is the integer that means 0"
        ),
        pytest.param(_move("Pad", "p", mode="reflect"), {"p": _PADS}, id="padding is the picture"),
        pytest.param(
            _move("Resize", "", "r", mode="nearest", **_FLOOR),
            {"r": np.array([1, 1, 2, 2], np.float32)},
            id="Resize",
        ),
        pytest.param(_move("Reshape", "t"), {"t": np.array([0, -1])}, id="Reshape"),
        pytest.param(_move("Transpose", perm=[0, 2, 3, 1]), {}, id="Transpose"),
        pytest.param(_move("Gather", "i", axis=1), {"i": np.array([2, 0])}, id="Gather"),
        pytest.param(_move("Squeeze", "a"), {"a": np.array([0])}, id="Squeeze"),
        pytest.param(
            _move("Slice", "a", "b", "c"),
            {"a": np.array([1]), "b": np.array([7]), "c": np.array([2])},
            id="Slice",
        ),
        pytest.param(
            helper.make_node("Concat", ["q", "w", "q"], ["m"], axis=1),
            {"w": np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)},
            id="Concat, with a constant",
        ),
    ],
)
@pytest.mark.parametrize("opset", [13, 21])
def test_it_is_the_same_bit_by_bit(
    node: onnx.NodeProto, arrays: dict[str, Any], opset: int
) -> None:
    model = make(_between(node), {**STEPS, **arrays}, opset=opset)
    model.graph.node[1].name = "the_move"
    expected = run(model)
    assert move_integers(model) == 1
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    np.testing.assert_array_equal(run(model), expected)
    (moved,) = [one for one in model.graph.node if one.op_type == node.op_type]
    assert moved.name == "the_move"
    assert operators(model).index("DequantizeLinear") < operators(model).index(node.op_type)


def test_a_chain_and_a_value_that_two_nodes_read() -> None:
    nodes = [
        quantised("x", "q"),
        helper.make_node("Split", ["q"], ["a", "b"], axis=1),
        helper.make_node("MaxPool", ["a"], ["p"], **_POOL),
        helper.make_node("Concat", ["p", "b", "a"], ["m"], axis=1),
        dequantised("m", "c"),
        dequantised("a", "d", "t"),  # the same integers by other steps
        helper.make_node("ReduceSum", ["d"], ["e"], keepdims=0),
        helper.make_node("Mul", ["c", "e"], ["y"]),
    ]
    model = make(nodes, {**STEPS, "t": np.float32(0.01)}, opset=13)
    expected = run(model)
    assert move_integers(model) == 2
    np.testing.assert_array_equal(run(model), expected)
    assert operators(model).count("DequantizeLinear") == 2
    assert operators(model).count("MaxPool") == 1


def test_integers_that_are_an_output_are_moved_still() -> None:
    nodes = _between(_move("MaxPool", **_POOL))
    model = make([*nodes, helper.make_node("Cast", ["m"], ["i"], to=1)], STEPS, outputs=("y", "i"))
    assert move_integers(model) == 1
    assert operators(model).count("MaxPool") == 2
    assert len({node.name for node in model.graph.node if node.name}) == len(
        [node for node in model.graph.node if node.name]
    )


@pytest.mark.parametrize(
    ("node", "arrays"),
    [
        pytest.param(
            _move("Resize", "", "r", mode="linear", **_FLOOR),
            {"r": np.array([1, 1, 2, 2], np.float32)},
            id="integers between integers",
        ),
        pytest.param(_move("Identity"), {"s": np.array([0.1] * 4, np.float32)}, id="many steps"),
    ],
)
def test_what_computes_integers_stays(node: onnx.NodeProto, arrays: dict[str, Any]) -> None:
    zeros = np.zeros(arrays["s"].shape, np.uint8) if "s" in arrays else STEPS["z"]
    model = make(_between(node), {**STEPS, **arrays, "z": zeros})
    before = operators(model)
    assert move_integers(model) == 0
    assert operators(model) == before


def test_weights_that_are_gathered_become_floats() -> None:
    nodes = [
        helper.make_node("Gather", ["w", "i"], ["m"], axis=0),
        dequantised("m", "f"),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    arrays = {**STEPS, "w": np.arange(16, dtype=np.uint8).reshape(2, 8), "i": np.array([1])}
    model = make(nodes, arrays)
    expected = run(copied(model))
    assert (move_integers(model), fold_weights(model)) == (1, 1)
    np.testing.assert_array_equal(run(model), expected)


def test_a_pair_around_a_pool_is_a_limit(tmp_path: Path) -> None:
    nodes = [*pair("x", "d"), helper.make_node("MaxPool", ["d_q"], ["m"], **_POOL)]
    nodes = [*nodes, dequantised("m", "f"), helper.make_node("Add", ["d", "f"], ["y"])]
    model = make(nodes, STEPS, X.shape)
    assert sorted(set(operators(network(model, tmp_path).at(1)))) == ["Add", "Clip", "MaxPool"]
