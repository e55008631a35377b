"""Nodes that say what integers mean, for operators of floats in place of those of integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tvmdet.frontend.onnx_tools import DEFAULT_DOMAINS, constants_of
from tvmdet.frontend.quantised.names import Names
from tvmdet.frontend.quantised.steps import Steps, read_steps

__all__ = ["Integers", "PairWriter"]

_STEPS_ALONG_AXES = 13
"""The opset from which DequantizeLinear takes a step for each place on an axis."""

Integers = tuple[str, str, str]
"""Names of integers, of their steps and of their zero point, empty where there is none."""


class PairWriter:
    """The nodes of a graph as they are written anew.

    Attributes:
        nodes: Those that were written.
        constants: Constant tensors by name.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Starts with no nodes; initializers are added to the graph."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants = constants_of(model.graph)
        self._graph = model.graph
        self._names = Names(model.graph)
        self._floats: dict[tuple[Integers, int | None], str] = {}
        versions = (one.version for one in model.opset_import if one.domain in DEFAULT_DOMAINS)
        self.opset = next(versions, 1)

    def add(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str,
        attributes: Sequence[onnx.AttributeProto] = (),
        *,
        name: str = "",
    ) -> str:
        """Writes a node, named like its output where no name is given; returns the output."""
        node = helper.make_node(operator, list(inputs), [output], name=name or output)
        node.attribute.extend(attributes)
        self.nodes.append(node)
        return output

    def fresh(self, name: str) -> str:
        """Returns a name that no value has yet."""
        return self._names.fresh(name)

    def keep(self, node: onnx.NodeProto) -> None:
        """Writes a node as it is."""
        self.nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))

    def constant(self, values: npt.NDArray[Any] | np.generic, name: str) -> str:
        """Adds an initializer, and returns its name."""
        name = self._names.fresh(name)
        tensor = numpy_helper.from_array(np.asarray(values), name)
        self._graph.initializer.append(tensor)
        self.constants[name] = tensor
        return name

    def finish(self) -> None:
        """Puts the nodes in place of the graph's."""
        del self._graph.node[:]
        self._graph.node.extend(self.nodes)

    def steps(self, integers: Integers) -> Steps | None:
        """Returns the steps of integers; None where they are not known, or no float32."""
        steps = read_steps(_dequantiser(integers, ""), self.constants)
        return steps if steps is not None and steps.scale.dtype == np.float32 else None

    def floats(self, integers: Integers, axis: int | None = None) -> str | None:
        """Writes what integers mean, once.

        Args:
            integers: They.
            axis: That along which they may have steps; None: they have one step.

        Returns:
            The name of the floats; None where the steps are not known, or do not fit.
        """
        steps = self.steps(integers)
        if steps is None:
            return None
        if steps.scale.size == 1:
            return self.dequantise(integers)
        stored = self.constants.get(integers[0])
        if axis is None or stored is None:
            return None
        node = _dequantiser(integers, "", axis)
        shape = steps.along(node, tuple(stored.dims))
        if shape is None:
            return None
        if self.opset >= _STEPS_ALONG_AXES:
            return self.dequantise(self._with_zeros(integers, steps), axis)
        return self._spelled(integers, steps, shape, axis)

    def dequantise(self, integers: Integers, axis: int | None = None) -> str:
        """Writes a DequantizeLinear, once, and returns its name."""
        key = (integers, axis)
        if key not in self._floats:
            name = self._names.fresh(f"{integers[0]}_floats")
            self.nodes.append(_dequantiser(integers, name, axis))
            self._floats[key] = name
        return self._floats[key]

    def _with_zeros(self, integers: Integers, steps: Steps) -> Integers:
        """Returns integers with a zero point for each step, as DequantizeLinear wants them."""
        whole, scale, zero = integers
        stored = self.constants.get(zero)
        if stored is None or math.prod(stored.dims) == steps.scale.size:
            return integers
        dtype = helper.tensor_dtype_to_np_dtype(stored.data_type)
        return whole, scale, self.constant(steps.zero.astype(dtype), f"{zero}_each")

    def _spelled(self, integers: Integers, steps: Steps, shape: tuple[int, ...], axis: int) -> str:
        """Writes what a DequantizeLinear computes, where it takes no axis."""
        key = (integers, axis)
        if key not in self._floats:
            whole, scale, _ = integers
            zeros = self.constant(steps.zero.astype(np.float32).reshape(shape), f"{whole}_zeros")
            sizes = self.constant(steps.scale.reshape(shape), f"{scale}_along")
            kind = helper.make_attribute("to", TensorProto.FLOAT)
            cast = self.add("Cast", [whole], self._names.fresh(f"{whole}_cast"), [kind])
            moved = self.add("Sub", [cast, zeros], self._names.fresh(f"{whole}_moved"))
            name = self._names.fresh(f"{whole}_floats")
            self._floats[key] = self.add("Mul", [moved, sizes], name)
        return self._floats[key]


def _dequantiser(integers: Integers, name: str, axis: int | None = None) -> onnx.NodeProto:
    inputs = [*integers[:2], *(one for one in integers[2:] if one)]
    node = helper.make_node("DequantizeLinear", inputs, [name], name=name)
    if axis is not None:
        node.attribute.append(helper.make_attribute("axis", axis))
    return node
