"""Quantised files are read as the float networks that they round."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvmdet.errors import ModelError
from tvmdet.frontend import diagnose, import_onnx
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.prove import run_onnx
from tvmdet.frontend.unquantise import FOLDED, drop_rounding, fold_weights, prove_weights

STEP = np.float32(0.05)
RNG = np.random.default_rng(7)
X = RNG.normal(0.0, 4.0, (1, 4, 8, 8)).astype(np.float32)


def _model(
    nodes: Sequence[onnx.NodeProto], arrays: dict[str, Any], opset: int = 13
) -> onnx.ModelProto:
    for index, node in enumerate(nodes):
        node.name = node.name or f"node_{index}"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model))
    return model


def _pair(value: str, result: str, scale: str = "s", zero: str = "z", **more: Any) -> list[Any]:
    return [
        helper.make_node("QuantizeLinear", [value, scale, zero], [f"{result}_q"], **more),
        helper.make_node("DequantizeLinear", [f"{result}_q", scale, zero], [result], **more),
    ]


def _run(model: onnx.ModelProto) -> np.ndarray:
    (outputs,) = run_onnx(model, [{"x": X}])
    return outputs["y"]


def _operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


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
    model = _model(_pair("x", "y"), {"s": STEP, "z": zero})
    rounded = _run(model)
    assert (fold_weights(model), drop_rounding(model)) == (0, 1)
    assert _operators(model) == ["Clip"]
    smooth = _run(model)
    np.testing.assert_allclose(smooth, np.clip(X, least, greatest), rtol=1e-6)
    assert np.abs(smooth - rounded).max() <= STEP / 2 * (1 + 1e-5)
    assert {tensor.name for tensor in model.graph.initializer} == set(model.graph.node[0].input[1:])


def test_a_zero_point_that_is_left_out_is_that_of_uint8() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    model = _model(nodes, {"s": STEP})
    rounded = _run(model)
    assert drop_rounding(model) == 1
    assert np.abs(_run(model) - rounded).max() <= STEP / 2 * (1 + 1e-5)


@pytest.mark.parametrize(
    ("scale", "left"), [(1 / 255, "Identity"), (1 / 256, "Identity"), (1 / 257, "Clip")]
)
def test_scores_are_not_limited_again(scale: float, left: str) -> None:
    nodes = [helper.make_node("Sigmoid", ["x"], ["p"]), *_pair("p", "y")]
    model = _model(nodes, {"s": np.float32(scale), "z": np.uint8(0)})
    assert drop_rounding(model) == 1
    assert _operators(model) == ["Sigmoid", left]


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
        ([*_pair("wf", "w", axis=0), BIAS, CONV], {**ARRAYS, "wf": FLOATS}, 2),
        (
            [*_pair("wf", "w", "s1", "z1"), BIAS, CONV],
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
    model = _model([onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes], arrays)
    expected, quantised = _run(model), onnx.ModelProto.FromString(model.SerializeToString())
    assert (fold_weights(model), drop_rounding(model)) == (count, 0)
    assert sorted(prove_weights(quantised, model).differences) == ["b", "w"]
    assert _operators(model) == ["Conv"]
    assert sorted(tensor.name for tensor in model.graph.initializer) == ["b", "w"]
    np.testing.assert_array_equal(_run(model), expected)


@pytest.mark.parametrize(
    ("nodes", "arrays"),
    [
        pytest.param(
            _pair("x", "y", axis=1),
            {"s": SCALES[:4], "z": np.zeros(4, np.int8)},
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
            [helper.make_node("ReduceMax", ["x"], ["s"], keepdims=0), *_pair("x", "y")],
            {"z": np.int8(0)},
            id="steps that depend on the picture",
        ),
        pytest.param(_pair("x", "y"), {"s": np.float32(0), "z": np.int8(0)}, id="no step"),
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
            [helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32), *_pair("i", "y")],
            {"s": STEP, "z": np.int8(0)},
            id="integers that are quantised",
        ),
    ],
)
def test_what_is_no_such_pair_stays(nodes: Any, arrays: Any) -> None:
    model = _model([onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes], arrays)
    before = _operators(model)
    assert (fold_weights(model), drop_rounding(model)) == (0, 0)
    assert _operators(model) == before


def test_scales_that_do_not_fit_their_weights_stay() -> None:
    arrays = {**ARRAYS, "wq": WEIGHTS, "s": SCALES[:5], "z": np.zeros(5, np.int8)}
    node = helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["y"], axis=0)
    assert fold_weights(_model([node], arrays)) == 0


def test_spellings_of_one_pair() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z1"], ["y"]),
    ]
    arrays = {"s": STEP, "z": np.int8(5), "z1": np.array([5], np.int8)}
    model = _model(nodes, arrays)
    assert drop_rounding(model) == 1
    np.testing.assert_allclose(_run(model), np.clip(X, -6.65, 6.1), rtol=1e-6)


def test_an_integer_that_others_read_stays() -> None:
    nodes = [
        *_pair("x", "d"),
        helper.make_node("Cast", ["d_q"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["d", "f"], ["y"]),
    ]
    model = _model(nodes, {"s": STEP, "z": np.int8(0)})
    rounded = _run(model)
    assert drop_rounding(model) == 1
    assert sorted(_operators(model)) == ["Add", "Cast", "Clip", "QuantizeLinear"]
    assert np.abs(_run(model) - rounded).max() <= STEP / 2 * (1 + 1e-3)


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
        *_pair("x", "d"),
        helper.make_node("If", ["c"], ["e"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Add", ["d", "e"], ["y"]),
    ]
    model = _model(nodes, {"s": STEP, "z": np.int8(0), "c": np.bool_(True)})
    rounded = _run(model)
    assert drop_rounding(model) == 1
    assert np.abs(_run(model) - rounded).max() <= STEP / 2 * (1 + 1e-3)


def test_weights_that_are_listed_as_inputs_are_none_afterwards(tmp_path: Path) -> None:
    nodes = [helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["w"], axis=0), BIAS, CONV]
    model = _model(
        [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes],
        {**ARRAYS, "wq": WEIGHTS},
    )
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    loaded = load_onnx(onnx_models.save(model, tmp_path / "m.onnx"))
    assert [value.name for value in loaded.proto.graph.input] == ["x"]


def test_names_of_limits_are_new() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["n2_least"]), *_pair("n2_least", "y")]
    nodes[2].name = "n2"
    model = _model(nodes, {"s": STEP, "z": np.int8(0)})
    assert drop_rounding(model) == 1
    np.testing.assert_allclose(_run(model), np.clip(X, 0, 6.35), rtol=1e-6)


@pytest.mark.parametrize("opset", [19, 21])
def test_weights_with_half_steps_are_multiplied_in_full(opset: int) -> None:
    stored = helper.make_node("DequantizeLinear", ["i", "s"], ["w"])
    cases: list[tuple[list[onnx.NodeProto], dict[str, Any]]] = [
        (
            [stored],
            {"i": np.array([100000, -65000, 2049], np.int32), "s": np.float16(1e-3)},
        ),
        (
            _pair("f", "w"),
            {
                "f": (np.arange(6000) / 3000).astype(np.float16),
                "s": np.float16(0.1),
                "z": np.int8(0),
            },
        ),
    ]
    for nodes, arrays in cases:
        model = _model([*nodes, helper.make_node("Cast", ["w"], ["y"], to=1)], arrays, opset)
        expected = _run(model)
        assert fold_weights(model) == 1
        np.testing.assert_array_equal(_run(model), expected)


def test_other_weights_are_refused() -> None:
    model = _model(_pair("f", "y"), {"f": X, "s": STEP, "z": np.int8(0)})
    quantised = onnx.ModelProto.FromString(model.SerializeToString())
    assert fold_weights(model) == 1
    (weights,) = model.graph.initializer
    values = numpy_helper.to_array(weights) + np.float32(1e-6)
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    with pytest.raises(ModelError, match="mean other floats"):
        prove_weights(quantised, model)


def test_text_is_not_quantised() -> None:
    model = _model(_pair("f", "y"), {"f": X, "s": STEP, "z": np.int8(0)})
    (text,) = [tensor for tensor in model.graph.initializer if tensor.name == "f"]
    text.CopyFrom(helper.make_tensor("f", TensorProto.STRING, [1], [b"a"]))
    assert (fold_weights(model), drop_rounding(model)) == (0, 0)


def _quantised_detector(folder: Path) -> Path:
    """A YOLOv8 as ONNX Runtime quantises it, its head left in float."""
    from onnxruntime import quantization

    path = onnx_models.save(onnx_models.yolov8(), folder / "float.onnx")
    (shape,) = (
        [dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in onnx.load(path).graph.input
    )

    class Pictures(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [RNG.random(shape).astype(np.float32) for _ in range(2)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return {"images": self.left.pop()} if self.left else None

    quantization.quantize_static(
        path, folder / "int8.onnx", Pictures(), op_types_to_quantize=["Conv"], per_channel=True
    )
    return folder / "int8.onnx"


def test_a_quantised_detector_is_recognised_and_says_what_it_lost(tmp_path: Path) -> None:
    path = _quantised_detector(tmp_path)
    assert "QuantizeLinear" in _operators(onnx.load(path))
    model = import_onnx(path)
    assert model.spec.family == "yolov8"
    assert "QuantizeLinear" not in _operators(model.onnx_at(1))
    (note,) = [line for line in model.recognition if line.startswith("the file is quantised")]
    moved = re.search(r"move by up to ([\d.e-]+) of the greatest", note)
    assert moved is not None
    assert 0 < float(moved[1]) < 0.2
    assert [proof.largest for proof in model.network.proofs if proof.rewrite == FOLDED] == [0.0]
    found = diagnose(path)
    assert found.ok
    assert found.notes == (note,)
    assert found.operators["QuantizeLinear"] > 0
