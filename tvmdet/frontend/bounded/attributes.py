"""Attributes of nodes, whichever opset wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import helper

__all__ = ["attribute", "axes_of", "graph_attribute"]


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Returns an attribute's value, or the default; text as ``str``."""
    for entry in node.attribute:
        if entry.name == name:
            value = helper.get_attribute_value(entry)
            return value.decode() if isinstance(value, bytes) else value
    return default


def graph_attribute(node: onnx.NodeProto, name: str) -> onnx.GraphProto:
    """Returns a subgraph of a node."""
    graph: onnx.GraphProto = next(entry.g for entry in node.attribute if entry.name == name)
    return graph


def axes_of(node: onnx.NodeProto, sizes: Sequence[Any]) -> list[int]:
    """Returns the axes of Squeeze, Unsqueeze or a reduction: an attribute, or input 1.

    Args:
        node: The node.
        sizes: The known elements of its inputs.
    """
    listed = attribute(node, "axes", None)
    if listed is None and len(sizes) > 1 and sizes[1] is not None:
        listed = [int(axis) for axis in sizes[1]]
    return list(listed or [])
