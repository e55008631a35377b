"""Operators that ONNX Runtime fused give the same as those of the standard in their place."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvmdet.errors import ModelError
from tvmdet.frontend.fused_operators import split_fused
from tvmdet.frontend.operators import find_foreign
from tvmdet.frontend.prove import run_onnx

RNG = np.random.default_rng(0)


def _model(operator: str, operands: list[tuple[int, ...]], **attributes: Any) -> onnx.ModelProto:
    """One fused operator of ``x`` ``[1, 4, 6, 6]`` and constants."""
    names = [f"w{at}" for at in range(len(operands))]
    node = helper.make_node(
        operator, ["x", *names], ["y"], "fused", domain="com.microsoft", **attributes
    )
    shape = {"FusedGemm": [6, 4], "SkipLayerNormalization": [1, 4, 6]}.get(operator, [1, 4, 6, 6])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(RNG.normal(size=one).astype(np.float32), name)
            for one, name in zip(operands, names, strict=True)
        ],
    )
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)


@pytest.mark.parametrize(
    ("operator", "operands", "attributes"),
    [
        ("FusedConv", [(3, 4, 3, 3), (3,)], {"activation": "Relu"}),
        ("FusedConv", [(3, 4, 1, 1), (3,), (1, 3, 6, 6)], {"activation": "Relu"}),
        (
            "FusedConv",
            [(3, 4, 3, 3), (3,)],
            {"activation": "Clip", "activation_params": [-0.5, 0.5], "pads": [1, 1, 1, 1]},
        ),
        (
            "FusedConv",
            [(3, 4, 3, 3)],
            {"activation": "HardSigmoid", "activation_params": [0.1, 0.4]},
        ),
        ("FusedGemm", [(5, 4), (5,)], {"activation": "Relu", "transB": 1, "alpha": 0.5}),
        ("FusedMatMul", [(6, 5)], {"alpha": 0.3}),
        ("Gelu", [], {}),
        ("BiasGelu", [(6,)], {}),
        ("QuickGelu", [], {"alpha": 1.0}),
        ("QuickGelu", [], {}),
        ("SkipLayerNormalization", [(1, 4, 6), (6,), (6,)], {"epsilon": 1e-5}),
        ("SkipLayerNormalization", [(1, 4, 6), (6,), (6,), (6,)], {}),
    ],
)
def test_each_gives_what_it_gave(
    operator: str, operands: list[tuple[int, ...]], attributes: dict[str, Any]
) -> None:
    model = _model(operator, operands, **attributes)
    split = onnx.ModelProto()
    split.CopyFrom(model)
    assert split_fused(split) == 1
    assert not find_foreign(split.graph)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(split, strict_mode=True))
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    # So small that an epsilon of 1e-5 would be seen where there is none.
    scale = 1e-3 if operator == "SkipLayerNormalization" else 1.0
    feed = {"x": (scale * RNG.normal(size=shape)).astype(np.float32)}
    (want,), (got,) = (run_onnx(one, [feed]) for one in (model, split))
    np.testing.assert_allclose(got["y"], want["y"], rtol=1e-5, atol=1e-5)


def test_limits_are_attributes_before_opset_11() -> None:
    limits = {"activation": "Clip", "activation_params": [0.0, 6.0]}
    model = _model("FusedConv", [(3, 4, 3, 3), (3,)], **limits)
    model.opset_import[0].version = 10
    assert split_fused(model) == 1
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    clip = model.graph.node[-1]
    assert {one.name: one.f for one in clip.attribute} == {"min": 0.0, "max": 6.0}


def test_parameters_that_stand_alone_are_read_by_name() -> None:
    model = _model("FusedGemm", [(4, 5), (5,)], activation="HardSigmoid", activation_beta=0.3)
    assert split_fused(model) == 1
    held = {one.name: one.f for one in model.graph.node[-1].attribute}
    assert held == {"beta": pytest.approx(0.3)}


@pytest.mark.parametrize(
    ("operator", "operands"), [("QuickGelu", [(6,)]), ("SkipLayerNormalization", [(6,)])]
)
def test_a_damaged_node_is_an_error_of_ours(operator: str, operands: list[tuple[int, ...]]) -> None:
    with pytest.raises(ModelError, match=f"{operator}.*cannot be split"):
        split_fused(_model(operator, operands))


def test_what_is_not_known_stays_and_is_explained() -> None:
    model = _model("FusedMatMul", [(5, 6)], transB=1)
    assert split_fused(model) == 0
    (block,) = find_foreign(model.graph)
    assert "save it with ORT_ENABLE_BASIC" in block.fix
