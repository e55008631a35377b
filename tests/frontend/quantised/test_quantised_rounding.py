"""A pair between layers keeps its limits and loses its steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from qdq_models import STEP, X, copied, make, operators, pair, run

from tvmdet.errors import ModelError
from tvmdet.frontend.quantised import (
    drop_rounding,
    fold_weights,
    rounding_left_out,
)


@pytest.mark.parametrize(
    ("zero", "least", "greatest"),
    [
        (np.uint8(0), 0.0, 12.75),  # of a Relu, which quantisers drop before it
        (np.uint8(100), -5.0, 7.75),
        (np.int8(-20), -5.4, 7.35),
        (np.int8(0), -6.4, 6.35),
    ],
)
def test_a_pair_keeps_its_limits_and_loses_its_steps(
    zero: Any, least: float, greatest: float
) -> None:
    model = make(pair("x", "y"), {"s": STEP, "z": zero})
    rounded = run(model)
    assert (fold_weights(model), drop_rounding(model)) == (0, 1)
    assert operators(model) == ["Clip"]
    smooth = run(model)
    np.testing.assert_allclose(smooth, np.clip(X, least, greatest), rtol=1e-6)
    assert np.abs(smooth - rounded).max() <= STEP / 2 * (1 + 1e-5)
    assert {tensor.name for tensor in model.graph.initializer} == set(model.graph.node[0].input[1:])


def test_a_zero_point_that_is_left_out_is_that_of_uint8() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    model = make(nodes, {"s": STEP})
    rounded = run(model)
    assert drop_rounding(model) == 1
    assert np.abs(run(model) - rounded).max() <= STEP / 2 * (1 + 1e-5)


@pytest.mark.parametrize(
    ("scale", "left"), [(1 / 255, "Identity"), (1 / 256, "Identity"), (1 / 257, "Clip")]
)
def test_scores_are_not_limited_again(scale: float, left: str) -> None:
    nodes = [helper.make_node("Sigmoid", ["x"], ["p"]), *pair("p", "y")]
    model = make(nodes, {"s": np.float32(scale), "z": np.uint8(0)})
    rounded = copied(model)
    assert drop_rounding(model) == 1
    assert operators(model) == ["Sigmoid", left]
    assert "1 pair of" in rounding_left_out(rounded, model)


@pytest.mark.parametrize(
    ("nodes", "arrays"),
    [
        pytest.param(
            pair("x", "y", axis=1),
            {"s": (np.arange(4, dtype=np.float32) + 1) / 1000, "z": np.zeros(4, np.int8)},
            id="a step for each channel",
        ),
        pytest.param(
            [
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                helper.make_node("DequantizeLinear", ["q", "t", "z"], ["y"]),
            ],
            {"s": STEP, "t": STEP * 2, "z": np.int8(0)},
            id="other steps",
        ),
        pytest.param(
            [helper.make_node("ReduceMax", ["x"], ["s"], keepdims=0), *pair("x", "y")],
            {"z": np.int8(0)},
            id="steps that depend on the picture",
        ),
        pytest.param(pair("x", "y"), {"s": np.float32(0), "z": np.int8(0)}, id="no step"),
        pytest.param(
            [
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                helper.make_node("MaxPool", ["q"], ["p"], kernel_shape=[2, 2]),
                helper.make_node("DequantizeLinear", ["p", "s", "z"], ["y"]),
            ],
            {"s": STEP, "z": np.int8(0)},
            id="integers that are pooled",
        ),
        pytest.param(
            [helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32), *pair("i", "y")],
            {"s": STEP, "z": np.int8(0)},
            id="integers that are quantised",
        ),
    ],
)
def test_what_is_no_such_pair_stays(nodes: Any, arrays: Any) -> None:
    model = make(nodes, arrays)
    before = operators(model)
    assert (fold_weights(model), drop_rounding(model)) == (0, 0)
    assert operators(model) == before


def test_spellings_of_one_pair() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z1"], ["y"]),
    ]
    arrays = {"s": STEP, "z": np.int8(5), "z1": np.array([5], np.int8)}
    model = make(nodes, arrays)
    assert drop_rounding(model) == 1
    np.testing.assert_allclose(run(model), np.clip(X, -6.65, 6.1), rtol=1e-6)


def test_an_integer_that_others_read_stays() -> None:
    nodes = [
        *pair("x", "d"),
        helper.make_node("Cast", ["d_q"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["d", "f"], ["y"]),
    ]
    model = make(nodes, {"s": STEP, "z": np.int8(0)})
    rounded = run(model)
    assert drop_rounding(model) == 1
    assert sorted(operators(model)) == ["Add", "Cast", "Clip", "QuantizeLinear"]
    assert np.abs(run(model) - rounded).max() <= STEP / 2 * (1 + 1e-3)


def test_an_integer_that_a_branch_reads_stays() -> None:
    branches = [
        helper.make_graph(
            [helper.make_node("Cast", ["d_q"], [name], to=TensorProto.FLOAT)],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name in ("f", "g")
    ]
    nodes = [
        *pair("x", "d"),
        helper.make_node("If", ["c"], ["e"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Add", ["d", "e"], ["y"]),
    ]
    model = make(nodes, {"s": STEP, "z": np.int8(0), "c": np.bool_(True)})
    rounded = run(model)
    assert drop_rounding(model) == 1
    assert np.abs(run(model) - rounded).max() <= STEP / 2 * (1 + 1e-3)


def test_names_of_limits_are_new() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["n2_least"]), *pair("n2_least", "y")]
    nodes[2].name = "n2"
    model = make(nodes, {"s": STEP, "z": np.int8(0)})
    assert drop_rounding(model) == 1
    np.testing.assert_allclose(run(model), np.clip(X, 0, 6.35), rtol=1e-6)


def test_a_limit_that_is_another_is_refused() -> None:
    model = make(pair("x", "y"), {"s": STEP, "z": np.int8(0)})
    rounded = copied(model)
    assert drop_rounding(model) == 1
    assert "1 pair of" in rounding_left_out(rounded, model)
    least = next(one for one in model.graph.initializer if one.name == model.graph.node[0].input[1])
    least.CopyFrom(numpy_helper.from_array(np.float32(0.2), least.name))
    with pytest.raises(ModelError, match="'y' is further from what was rounded to it than a step"):
        rounding_left_out(rounded, model)
