"""Operators that ONNX Runtime fused when it saved an optimised model, as those of the standard.

A session with ``optimized_model_filepath`` and ``ORT_ENABLE_EXTENDED`` writes them. What they
compute is in ONNX Runtime's ``docs/ContribOperators.md``, and FusedConv and FusedGemm in
``conv_activation_fusion.cc`` and ``gemm_activation_fusion.cc``: the operator, then the activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.onnx_tools import describe, drop_domains, unforeseen
from tvmdet.frontend.quantised.names import Names

__all__ = ["SPLIT", "has_fused", "split_fused"]

SPLIT = "operators that ONNX Runtime fused as those of the standard"

_MICROSOFT = "com.microsoft"
_LAYER_NORMALIZATION = 17  # the opset from which the standard has it
_CLIP_INPUTS = 11  # that from which Clip has its limits as inputs
# Activations and the attributes that their parameters are, in order (``activation_params``).
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Clip": ("min", "max"),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
}
_OWN = ("activation", "activation_params", "activation_alpha", "activation_beta")


class _Writer:
    """Writes the nodes that take the place of one."""

    def __init__(self, graph: onnx.GraphProto, names: Names, opset: int) -> None:
        self._graph, self._names, self.opset = graph, names, opset
        self._prefix = ""
        self.nodes: list[onnx.NodeProto] = []

    def begin(self, node: onnx.NodeProto) -> None:
        self._prefix, self.nodes = node.name or node.output[0], []

    def constant(self, values: object, dtype: type = np.float32) -> str:
        name = self._names.fresh(f"{self._prefix}/constant")
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def write(self, operator: str, *inputs: str, into: str = "", **attributes: Any) -> str:
        output = into or self._names.fresh(f"{self._prefix}/{operator}")
        name = self._names.fresh(f"{self._prefix}/{operator}/node")
        self.nodes.append(helper.make_node(operator, inputs, [output], name, **attributes))
        return output

    def copy(self, node: onnx.NodeProto, operator: str, inputs: list[str], output: str) -> None:
        """Writes a node of the standard with the attributes that it shares with a fused one."""
        name = self._names.fresh(f"{self._prefix}/{operator}/node")
        made = helper.make_node(operator, inputs, [output], name)
        made.attribute.extend(one for one in node.attribute if one.name not in _OWN)
        self.nodes.append(made)

    def fresh(self, operator: str) -> str:
        return self._names.fresh(f"{self._prefix}/{operator}")


def has_fused(model: onnx.ModelProto) -> bool:
    """Returns whether a model has operators that :func:`split_fused` may split."""
    return any(node.domain == _MICROSOFT and node.op_type in _SPLITS for node in model.graph.node)


def split_fused(model: onnx.ModelProto) -> int:
    """Splits fused operators, in place.

    Args:
        model: Every node named.

    Returns:
        How many there were. One of a form that is not known stays.

    Raises:
        ModelError: A node has not the inputs, outputs or attributes of its operator.
    """
    opset = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    writer = _Writer(model.graph, Names(model.graph), opset)
    count, nodes = 0, []
    for node in model.graph.node:
        split = _SPLITS.get(node.op_type) if node.domain == _MICROSOFT else None
        writer.begin(node)
        try:
            is_split = split is not None and split(writer, node)
        except (IndexError, TypeError, ValueError) as error:  # no checker knows these operators
            raise unforeseen(f"{describe(node)} cannot be split", error) from error
        if is_split:
            count += 1
            nodes += writer.nodes
        else:
            nodes.append(node)
    if count:
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        drop_domains(model)
    return count


def _with_activation(operator: str) -> Callable[[_Writer, onnx.NodeProto], bool]:
    def split(writer: _Writer, node: onnx.NodeProto) -> bool:
        activation = attribute(node, "activation", "")
        known = _ACTIVATIONS.get(activation)
        values = _parameters(node, known or ())
        if known is None or (activation == "Clip" and len(values) < len(known)):
            return False
        before, (output,) = writer.fresh(operator), node.output
        inputs = list(node.input)
        if operator == "Conv" and len(inputs) == 4:
            sum_of = writer.fresh("Conv")
            writer.copy(node, operator, inputs[:3], sum_of)
            writer.write("Add", sum_of, inputs[3], into=before)
        else:
            writer.copy(node, operator, inputs, before)
        limits = []
        if activation == "Clip" and writer.opset >= _CLIP_INPUTS:
            limits, values = [writer.constant(values[one]) for one in known], {}
        writer.write(activation, before, *limits, into=output, **values)
        return True

    return split


def _parameters(node: onnx.NodeProto, names: Sequence[str]) -> dict[str, float]:
    """Returns the parameters of an activation, which FusedGemm has one by one."""
    values = dict(zip(names, attribute(node, "activation_params", []), strict=False))
    for name, own in zip(names, ("activation_alpha", "activation_beta"), strict=False):
        if (value := attribute(node, own, None)) is not None:
            values[name] = value
    return values


def _matmul(writer: _Writer, node: onnx.NodeProto) -> bool:
    if attribute(node, "transBatchA", 0) or attribute(node, "transBatchB", 0):
        return False
    # Operands that are turned need their number of dimensions, which is in no saved file.
    if attribute(node, "transA", 0) or attribute(node, "transB", 0):
        return False
    product = writer.write("MatMul", *node.input)
    alpha = attribute(node, "alpha", 1.0)
    writer.write("Mul", product, writer.constant(alpha), into=node.output[0])
    return True


def _quick_gelu(writer: _Writer, node: onnx.NodeProto) -> bool:
    """``x * sigmoid(alpha * x)``, which SiLU is with an alpha of 1."""
    (data,), alpha = node.input, attribute(node, "alpha", 1.702)
    scaled = data if alpha == 1 else writer.write("Mul", data, writer.constant(alpha))
    writer.write("Mul", data, writer.write("Sigmoid", scaled), into=node.output[0])
    return True


def _gelu(writer: _Writer, node: onnx.NodeProto) -> bool:
    """``x * (1 + erf(x / sqrt(2))) / 2``; BiasGelu adds its second input first."""
    data = node.input[0] if len(node.input) == 1 else writer.write("Add", *node.input)
    scaled = writer.write("Mul", data, writer.constant(math.sqrt(0.5)))
    whole = writer.write("Add", writer.write("Erf", scaled), writer.constant(1.0))
    both = writer.write("Mul", data, whole)
    writer.write("Mul", both, writer.constant(0.5), into=node.output[0])
    return True


def _skip_layer_normalization(writer: _Writer, node: onnx.NodeProto) -> bool:
    """The LayerNormalization of a sum of two values and maybe a bias; the sum may come out too."""
    data, skip, gamma, *more = node.input
    outputs = [*node.output, "", "", ""][:4]
    if writer.opset < _LAYER_NORMALIZATION or any(outputs[1:3]):
        return False
    beta, bias = [*more, "", ""][:2]
    summed = writer.write("Add", data, skip, into="" if bias else outputs[3])
    if bias:
        summed = writer.write("Add", summed, bias, into=outputs[3])
    scale = (gamma, beta) if beta else (gamma,)
    epsilon = attribute(node, "epsilon", 1e-12)
    writer.write("LayerNormalization", summed, *scale, into=outputs[0], axis=-1, epsilon=epsilon)
    return True


_SPLITS: dict[str, Callable[[_Writer, onnx.NodeProto], bool]] = {
    "BiasGelu": _gelu,
    "FusedConv": _with_activation("Conv"),
    "FusedGemm": _with_activation("Gemm"),
    "FusedMatMul": _matmul,
    "Gelu": _gelu,
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _skip_layer_normalization,
}
