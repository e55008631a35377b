"""Names that no value or node of a graph has yet."""

from __future__ import annotations

import onnx

from tvmdet.frontend.onnx_tools import iter_graphs

__all__ = ["Names"]


class Names:
    """The names of a graph's values and nodes, and new ones."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        """Collects the names that are taken."""
        self._taken: set[str] = set()
        for inner in iter_graphs(graph):
            for node in inner.node:
                self._taken.update((node.name, *node.input, *node.output))
            values = (*inner.initializer, *inner.input, *inner.output)
            self._taken.update(value.name for value in values)

    def fresh(self, name: str) -> str:
        """Returns a name that nothing has yet, and takes it."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name
