"""Integer weights become the floats that they mean, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import pytest
from onnx import TensorProto, helper, numpy_helper
from qdq_models import STEP, X, copied, make, operators, pair, run

from tvmdet.errors import ModelError
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.quantised import (
    drop_rounding,
    fold_weights,
    prove_weights,
)

RNG = np.random.default_rng(7)


WEIGHTS = RNG.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8)
FLOATS = RNG.normal(0.0, 0.1, (6, 4, 3, 3)).astype(np.float32)
SCALES = (np.arange(6, dtype=np.float32) + 1) / 1000
CONV = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1])
BIAS = helper.make_node("DequantizeLinear", ["bq", "s"], ["b"], axis=0)
ARRAYS = {"s": SCALES, "bq": np.arange(6, dtype=np.int32) * 50, "z": np.zeros(6, np.int8)}


@pytest.mark.parametrize(
    ("nodes", "arrays", "count"),
    [
        (
            [helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["w"], axis=0), BIAS, CONV],
            {**ARRAYS, "wq": WEIGHTS},
            2,
        ),
        ([*pair("wf", "w", axis=0), BIAS, CONV], {**ARRAYS, "wf": FLOATS}, 2),
        (
            [*pair("wf", "w", "s1", "z1"), BIAS, CONV],
            {
                **{name: ARRAYS[name] for name in ("s", "bq")},
                "wf": FLOATS,
                "s1": np.float32(0.002),
                "z1": np.int8(3),
            },
            2,
        ),
    ],
)
def test_weights_are_what_they_mean(nodes: Any, arrays: Any, count: int) -> None:
    model = make(nodes, arrays)
    expected, quantised = run(model), copied(model)
    assert (fold_weights(model), drop_rounding(model)) == (count, 0)
    assert sorted(prove_weights(quantised, model).differences) == ["b", "w"]
    assert operators(model) == ["Conv"]
    assert sorted(tensor.name for tensor in model.graph.initializer) == ["b", "w"]
    np.testing.assert_array_equal(run(model), expected)


def test_scales_that_do_not_fit_their_weights_stay() -> None:
    arrays = {**ARRAYS, "wq": WEIGHTS, "s": SCALES[:5], "z": np.zeros(5, np.int8)}
    node = helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["y"], axis=0)
    assert fold_weights(make([node], arrays)) == 0


def test_weights_that_are_listed_as_inputs_are_none_afterwards(tmp_path: Path) -> None:
    nodes = [helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["w"], axis=0), BIAS, CONV]
    model = make(
        nodes,
        {**ARRAYS, "wq": WEIGHTS},
    )
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    loaded = load_onnx(onnx_models.save(model, tmp_path / "m.onnx"))
    assert [value.name for value in loaded.proto.graph.input] == ["x"]


@pytest.mark.parametrize("opset", [19, 21])
def test_weights_with_half_steps_are_multiplied_in_full(opset: int) -> None:
    stored = helper.make_node("DequantizeLinear", ["i", "s"], ["w"])
    cases: list[tuple[list[onnx.NodeProto], dict[str, Any]]] = [
        (
            [stored],
            {"i": np.array([100000, -65000, 2049], np.int32), "s": np.float16(1e-3)},
        ),
        (
            pair("f", "w"),
            {
                "f": (np.arange(6000) / 3000).astype(np.float16),
                "s": np.float16(0.1),
                "z": np.int8(0),
            },
        ),
    ]
    for nodes, arrays in cases:
        model = make([*nodes, helper.make_node("Cast", ["w"], ["y"], to=1)], arrays, opset)
        expected = run(model)
        assert fold_weights(model) == 1
        np.testing.assert_array_equal(run(model), expected)


def test_other_weights_are_refused() -> None:
    model = make(pair("f", "y"), {"f": X, "s": STEP, "z": np.int8(0)})
    quantised = copied(model)
    assert fold_weights(model) == 1
    (weights,) = model.graph.initializer
    values = numpy_helper.to_array(weights) + np.float32(1e-6)
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    with pytest.raises(ModelError, match="mean other floats"):
        prove_weights(quantised, model)


def test_text_is_not_quantised() -> None:
    model = make(pair("f", "y"), {"f": X, "s": STEP, "z": np.int8(0)})
    (text,) = [tensor for tensor in model.graph.initializer if tensor.name == "f"]
    text.CopyFrom(helper.make_tensor("f", TensorProto.STRING, [1], [b"a"]))
    assert (fold_weights(model), drop_rounding(model)) == (0, 0)
