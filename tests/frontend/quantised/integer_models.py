"""Small networks of integer operators, from floats to floats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
from onnx import TensorProto, helper, numpy_helper

from tvmdet.frontend.limits import Limits
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.network import Network
from tvmdet.frontend.prove import probes, run_onnx
from tvmdet.frontend.quantised.unsaturated import with_unsigned_weights

__all__ = ["MICROSOFT", "dequantised", "largest_change", "make", "network", "quantised"]

MICROSOFT = "com.microsoft"


def make(
    nodes: Sequence[onnx.NodeProto],
    arrays: dict[str, Any],
    shape: Sequence[int] = (1, 4, 8, 8),
    *,
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    """Returns a network from ``x`` to its outputs, all of floats."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


def quantised(value: str, result: str, scale: str = "s", zero: str = "z") -> onnx.NodeProto:
    """Returns the QuantizeLinear of a value."""
    return helper.make_node("QuantizeLinear", [value, scale, zero], [result])


def dequantised(value: str, result: str, scale: str = "s", zero: str = "z") -> onnx.NodeProto:
    """Returns the DequantizeLinear of integers."""
    return helper.make_node("DequantizeLinear", [value, scale, zero], [result])


def network(model: onnx.ModelProto, folder: Path) -> Network:
    """Returns a model as the frontend loads it from a file, proven at batch 1."""
    loaded = load_onnx(onnx_models.save(model, folder / "model.onnx"))
    made = Network(loaded, None, Limits())
    made.at(1)
    return made


def largest_change(before: onnx.ModelProto, after: onnx.ModelProto) -> float:
    """Returns the largest difference of any output, on the inputs that a proof takes.

    Of what the file says, whose weights of int8 overflow in ONNX Runtime on x86 without VNNI.
    """
    before = with_unsigned_weights(before)
    feeds = list(probes(before).values())
    runs = zip(run_onnx(before, feeds), run_onnx(after, feeds), strict=True)
    return max(float(np.abs(b[name] - a[name]).max()) for b, a in runs for name in b)
