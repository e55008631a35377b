"""Small networks of QuantizeLinear and DequantizeLinear nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tvmdet.frontend.prove import run_onnx

__all__ = ["STEP", "X", "copied", "make", "operators", "pair", "run"]

STEP = np.float32(0.05)
X = np.random.default_rng(7).normal(0.0, 4.0, (1, 4, 8, 8)).astype(np.float32)


def make(
    nodes: Sequence[onnx.NodeProto], arrays: dict[str, Any], opset: int = 13
) -> onnx.ModelProto:
    """Returns a network from ``x``, as :data:`X`, to ``y``; its nodes get names in their order."""
    named = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    for index, node in enumerate(named):
        node.name = node.name or f"node_{index}"
    graph = helper.make_graph(
        named,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model))
    return model


def pair(value: str, result: str, scale: str = "s", zero: str = "z", **more: Any) -> list[Any]:
    """Returns a QuantizeLinear of a value and its DequantizeLinear."""
    return [
        helper.make_node("QuantizeLinear", [value, scale, zero], [f"{result}_q"], **more),
        helper.make_node("DequantizeLinear", [f"{result}_q", scale, zero], [result], **more),
    ]


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy."""
    return onnx.ModelProto.FromString(model.SerializeToString())


def run(model: onnx.ModelProto) -> np.ndarray:
    """Returns what ONNX Runtime makes of :data:`X`."""
    (outputs,) = run_onnx(model, [{"x": X}])
    return outputs["y"]


def operators(model: onnx.ModelProto) -> list[str]:
    """Returns the operators of the nodes."""
    return [node.op_type for node in model.graph.node]
