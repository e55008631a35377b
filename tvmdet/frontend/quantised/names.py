"""Names that no value or node of a graph has yet."""

from __future__ import annotations

import onnx

__all__ = ["Names"]


class Names:
    """The names of a graph's values and nodes, and new ones."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        """Collects the names that are taken."""
        self._taken = {name for node in graph.node for name in (*node.input, *node.output)}
        self._taken.update(node.name for node in graph.node)
        self._taken.update(one.name for one in (*graph.initializer, *graph.input, *graph.output))

    def fresh(self, name: str) -> str:
        """Returns a name that nothing has yet, and takes it."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name
