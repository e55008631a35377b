"""Measurements within a network: how far its values are from what is to take their place.

At its outputs a quantised network cannot be compared: a sum on the edge of a step goes up in one
kernel and down in another, and the next layers spread that. Therefore every value is compared by
itself, computed from the values that the network has before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tvmdet.errors import ModelError
from tvmdet.frontend.onnx_tools import constants_of
from tvmdet.frontend.prove import run_onnx
from tvmdet.frontend.quantised.names import Names

__all__ = ["Watch"]

_SMALLEST = np.float32(1e-6)
"""The greatest value that a difference is relative to, at least, as in a proof."""


@dataclass(frozen=True, kw_only=True)
class _Allowed:
    result: str
    most: float


@dataclass(kw_only=True)
class Watch:
    """A network that also says how far some of its values are from others.

    Attributes:
        model: The network, of static input shapes; a copy, to which outputs are added.
        other: The network that is to take its place.
        largest: Of each value the largest difference so far.
    """

    model: onnx.ModelProto
    other: onnx.ModelProto
    largest: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Copies the network."""
        given, self.model = self.model, onnx.ModelProto()
        self.model.CopyFrom(given)
        self._graph = self.model.graph
        self._names = Names(self._graph)
        self._known = {name for node in self._graph.node for name in node.output}
        self._known |= {one.name for one in (*self._graph.input, *self._graph.initializer)}
        self._allowed: dict[str, _Allowed] = {}
        graph = self.other.graph
        self._constants = constants_of(graph)
        self._makers = {name: node for node in graph.node for name in node.output}
        self._places = {node.output[0]: place for place, node in enumerate(graph.node)}

    def take(self, nodes: Sequence[onnx.NodeProto]) -> None:
        """Adds nodes like those of the other network, and what computes their inputs there.

        Args:
            nodes: Nodes whose results this network does not have.
        """
        waiting, found = list(nodes), list[onnx.NodeProto]()
        while waiting:
            node = waiting.pop()
            if self._known.issuperset(node.output):
                continue
            self._known.update(node.output)
            found.append(node)
            for name in node.input:
                if not name or name in self._known:
                    continue
                if name in self._makers:
                    waiting.append(self._makers[name])
                else:
                    self._graph.initializer.add().CopyFrom(self._constants[name])
                    self._known.add(name)
        last = len(self._places)
        found.sort(key=lambda node: self._places.get(node.output[0], last))
        for node in found:
            self._graph.node.add().CopyFrom(node)
            self._graph.node[-1].name = ""  # ONNX Runtime wants names to be different, or none

    def limit(self, value: str, least: np.ndarray, greatest: np.ndarray) -> str:
        """Adds what lies within limits of a value, and returns its name."""
        # Clip takes them as inputs from opset 11 only.
        above = self._add("Max", value, self._constant(least, f"{value}_least"))
        return self._add("Min", above, self._constant(greatest, f"{value}_greatest"))

    def compare(
        self, result: str, now: str, most: float, *, kind: int = TensorProto.FLOAT, unit: str = ""
    ) -> None:
        """Adds how far a value is from another.

        Args:
            result: The value.
            now: What is to take its place, of the same shape.
            most: How far they may be from each other.
            kind: Their element type.
            unit: A single number of the network that the difference is counted in; nothing: in 1.
        """
        size = self._add("Abs", self._add("Sub", now, result))
        most_name = self._add("ReduceMax", size, keepdims=0)
        if unit:
            most_name = self._add("Div", most_name, unit)
        self._graph.output.append(helper.make_tensor_value_info(most_name, kind, None))
        self._allowed[most_name] = _Allowed(result=result, most=most)

    def compare_sizes(self, result: str, now: str, most: float) -> None:
        """Adds how far a value is from another, relative to the greatest of its elements.

        Args:
            result: The value, of float32.
            now: What is to take its place.
            most: How far they may be from each other.
        """
        greatest = self._add("ReduceMax", self._add("Abs", result), keepdims=0)
        least = self._constant(np.asarray(_SMALLEST), f"{result}_smallest")
        self.compare(result, now, most, unit=self._add("Max", greatest, least))

    def run(
        self, feeds: Sequence[Mapping[str, np.ndarray]], what: str
    ) -> list[dict[str, np.ndarray]]:
        """Runs the network, and returns its outputs by name, once for each set of inputs.

        Args:
            feeds: The inputs.
            what: What a value has become further from, for people.

        Raises:
            ModelError: A value is further from what is to take its place than it may be, or ONNX
                Runtime cannot run the network.
        """
        results = run_onnx(self.model, feeds)
        for outputs in results:
            for name, allowed in self._allowed.items():
                difference = float(outputs[name].max(initial=0.0))
                if not difference <= allowed.most:
                    raise ModelError(
                        f"{allowed.result!r} is further from {what}: {difference:.3g}, allowed "
                        f"{allowed.most:.3g}; this model cannot be used safely: please report it"
                    )
                most = max(difference, self.largest.get(allowed.result, 0.0))
                self.largest[allowed.result] = most
        return results

    def _constant(self, value: np.ndarray, name: str) -> str:
        name = self._names.fresh(name)
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = self._names.fresh(f"{inputs[0]}_{operator.lower()}")
        self._graph.node.append(
            helper.make_node(operator, list(inputs), [name], name=name, **attributes)
        )
        return name
