"""How many of a value's first rows anybody looks at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.onnx_tools import constant_values, iter_graphs

__all__ = ["first_rows"]

_SAME_ROWS = ("Cast", "Identity", "Squeeze")
_SAME_NUMBER = ("Cast", "Gather", "Identity", "Reshape", "Squeeze", "Unsqueeze")


def first_rows(model: onnx.ModelProto) -> Callable[[str], int | None]:
    """Returns a function from a value to the rows of it that are used at most, None for all.

    A suppression whose result is cut to its best k rows right after (torchvision:
    ``keep[:detections_per_img]``) need not find more than k.
    """
    return _Demand(model).rows


class _Demand:
    """Who uses which value, subgraphs included."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._users: dict[str, list[onnx.NodeProto]] = {}
        self._makers: dict[str, onnx.NodeProto] = {}
        self._constants: dict[str, np.ndarray] = {}
        self._leaves: dict[str, list[str]] = {}  # output of a branch: the outputs of its node
        self._outputs = {value.name for value in model.graph.output}
        for graph in iter_graphs(model.graph):
            for tensor in graph.initializer:
                self._constants[tensor.name] = constant_values(tensor)
            for node in graph.node:
                self._add(node)

    def _add(self, node: onnx.NodeProto) -> None:
        for name in node.input:
            self._users.setdefault(name, []).append(node)
        for name in node.output:
            self._makers[name] = node
        for entry in node.attribute:
            if entry.HasField("g"):
                for inner, outer in zip(entry.g.output, node.output, strict=False):
                    self._leaves.setdefault(inner.name, []).append(outer)
                    if node.op_type != "If":
                        self._outputs.add(inner.name)

    def rows(self, name: str) -> int | None:
        """Returns how many of a value's first rows are used at most, None for all."""
        if name in self._outputs:
            return None
        found = [self.rows(target) for target in self._leaves.get(name, [])]
        found += [self._of_user(node, name) for node in self._users.get(name, [])]
        return _most(found)

    def _of_user(self, node: onnx.NodeProto, name: str) -> int | None:
        if node.input[0] != name:
            return None
        if node.op_type == "Slice":
            return self._of_slice(node)
        same = node.op_type in _SAME_ROWS
        same |= node.op_type == "Gather" and attribute(node, "axis", 0) == 1
        same |= node.op_type == "Reshape" and self._is_column(node)
        if same:
            return self.rows(node.output[0])
        return self._of_number(node.output[0]) if node.op_type == "Shape" else None

    def _of_slice(self, node: onnx.NodeProto) -> int | None:
        given = [self._constants.get(entry) for entry in node.input[1:5]]
        if len(given) < 3 or any(array is None for array in given):
            return None
        starts, stops, axes, *steps = (array.tolist() for array in given if array is not None)
        inner = self.rows(node.output[0])
        if 0 not in axes:
            return inner
        if axes != [0] or starts[0] != 0 or stops[0] < 0 or (steps and steps[0] != [1]):
            return None
        return int(stops[0]) if inner is None else min(int(stops[0]), inner)

    def _is_column(self, node: onnx.NodeProto) -> bool:
        """Returns whether a Reshape makes a vector of one column of a table."""
        target = self._constants.get(node.input[1])
        maker = self._makers.get(node.input[0])
        if target is None or target.tolist() != [-1] or maker is None:
            return False
        if maker.op_type == "Gather":
            return bool(attribute(maker, "axis", 0) == 1)
        if maker.op_type != "Slice":
            return False
        given = [self._constants.get(entry) for entry in maker.input[1:4]]
        if len(given) < 3 or any(array is None for array in given):
            return False
        start, stop, axis = (array.tolist() for array in given if array is not None)
        return bool(axis == [1] and stop[0] - start[0] == 1)

    def _of_number(self, name: str) -> int | None:
        """Returns up to which number the number of rows matters."""
        if name in self._outputs:
            return None
        found: list[int | None] = []
        for node in self._users.get(name, []):
            if node.op_type == "Min" and len(node.input) == 2:
                other = next(entry for entry in node.input if entry != name)
                array = self._constants.get(other)
                found.append(None if array is None or array.size != 1 else int(array.max()))
            elif node.op_type in _SAME_NUMBER and node.input[0] == name:
                found.append(self._of_number(node.output[0]))
            else:
                found.append(None)
        return _most(found)


def _most(found: list[int | None]) -> int | None:
    known = [rows for rows in found if rows is not None]
    return max(known, default=0) if len(known) == len(found) else None
