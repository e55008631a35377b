"""Nodes that give nothing: tools that edit graphs take outputs away and leave their nodes.

The standard has no operator without an output, and its checker refuses such nodes. super-gradients
leaves Constants so in its exports for TensorRT, which takes no notice of them.
"""

from __future__ import annotations

import onnx

from tvmdet.frontend.onnx_tools import iter_graphs

__all__ = ["drop_idle_nodes"]


def drop_idle_nodes(graph: onnx.GraphProto) -> None:
    """Removes the nodes of a graph, and of the graphs in it, that have no outputs."""
    for one in iter_graphs(graph):
        for index in reversed(range(len(one.node))):
            if not one.node[index].output:
                del one.node[index]
