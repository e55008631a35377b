"""Nodes in an order in which they can run.

The standard asks for it and ONNX Runtime does not: files that a tool edited or joined run there
whose nodes come before what they read.
"""

from __future__ import annotations

import heapq

import onnx

from tvmdet.frontend.onnx_tools import iter_graphs, names_read

__all__ = ["sort_nodes"]


def sort_nodes(graph: onnx.GraphProto) -> bool:
    """Sorts the nodes of a graph, and of the graphs in it, where they are out of order.

    Of nodes that could come next the first one in the file does, so that sorted nodes stay where
    they are. A graph with a cycle has no order and stays as it is.

    Returns:
        Whether any node was moved.
    """
    moved = False
    for one in iter_graphs(graph):
        order = _order(list(one.node))
        if order != list(range(len(order))):
            nodes = [onnx.NodeProto.FromString(one.node[i].SerializeToString()) for i in order]
            del one.node[:]
            one.node.extend(nodes)
            moved = True
    return moved


def _order(nodes: list[onnx.NodeProto]) -> list[int]:
    """Returns in which order the nodes can run: Kahn's algorithm, the lowest index first."""
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    readers: list[list[int]] = [[] for _ in nodes]
    waits = [0] * len(nodes)
    for index, node in enumerate(nodes):
        for maker in {makers[name] for name in names_read(node) if name in makers}:
            readers[maker].append(index)
            waits[index] += 1
    ready = [index for index, count in enumerate(waits) if not count]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers[index]:
            waits[reader] -= 1
            if not waits[reader]:
                heapq.heappush(ready, reader)
    return order if len(order) == len(nodes) else list(range(len(nodes)))
