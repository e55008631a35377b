"""Nodes of standard ONNX that take the place of one of an exporter's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["Replacement"]


class Replacement:
    """Nodes that take the place of one, with values named after what it gives.

    Attributes:
        nodes: Those that were added, in topological order.
    """

    def __init__(self, node: onnx.NodeProto) -> None:
        """Starts without nodes in the place of ``node``."""
        self.nodes: list[onnx.NodeProto] = []
        self._prefix = next((name for name in node.output if name), node.name)

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """Adds a constant, and returns its name."""
        return self.node("Constant", value=numpy_helper.from_array(np.asarray(values, dtype)))

    def node(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Adds a node, and returns its first output; the others are called that and ``.1``, ..."""
        name = f"{self._prefix}/{operator}_{len(self.nodes)}"
        names = [name, *(f"{name}.{at}" for at in range(1, outputs))]
        self.nodes.append(helper.make_node(operator, inputs, names, name=name, **attributes))
        return name

    def rename(self, made: str, name: str) -> None:
        """Gives a value the name of what the replaced node gave, unless that is ''."""
        if name:
            self.nodes.append(helper.make_node("Identity", [made], [name], name=f"{name}/output"))
