"""Builds the rewritten network: every node once, its shape inferred as it is added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.reference
from onnx import TensorProto, helper, numpy_helper

from tvmdet.errors import ModelError
from tvmdet.frontend.onnx_tools import constants_of, first_line
from tvmdet.frontend.value_ranges import value_ranges

__all__ = ["Emitter"]

# Min and Max take integers since opset 12; before, a comparison chooses one of two.
_CHOICES = {"Min": "Less", "Max": "Greater"}
_CHOICES_OF_INTEGERS = 12
_FOLDED_ELEMENTS = 1 << 20
_DOMAIN = "tvmdet"


class Emitter:
    """Nodes and constants of a network whose shapes are all static.

    Equal nodes are emitted once, so that equal masks have equal names.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Starts with the constants of a model and none of its nodes."""
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.nodes: list[onnx.NodeProto] = []
        self.functions: dict[str, onnx.FunctionProto] = {}
        self._ir_version = model.ir_version
        self._constants = {
            name: numpy_helper.to_array(tensor)
            for name, tensor in constants_of(model.graph).items()
        }
        self._types: dict[str, onnx.TypeProto] = {}
        self._made: dict[tuple[Any, ...], tuple[str, ...]] = {}
        self._used = {name for node in model.graph.node for name in node.output}
        self._used |= set(self._constants) | {value.name for value in model.graph.input}
        self._new_constants: dict[str, np.ndarray] = {}
        for name, array in self._constants.items():
            self._types[name] = _type_of(array)

    def declare(self, name: str, dtype: int, shape: Sequence[int]) -> None:
        """Says what a value that comes from outside is."""
        self._types[name] = helper.make_tensor_type_proto(dtype, list(shape))

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """Returns the name of a constant."""
        array = np.array(values, dtype=dtype, order="C")
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._made:
            name = self.fresh("constant")
            self._made[key] = (name,)
            self._constants[name] = self._new_constants[name] = array
            self._types[name] = _type_of(array)
        return self._made[key][0]

    def constant_of(self, name: str) -> np.ndarray | None:
        """Returns the array of a constant, or None when the value is computed."""
        return self._constants.get(name)

    def dtype(self, name: str) -> int:
        """Returns the ONNX element type of a value."""
        return int(self._types[name].tensor_type.elem_type)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the static shape of a value."""
        return tuple(int(dim.dim_value) for dim in self._types[name].tensor_type.shape.dim)

    def fresh(self, hint: str) -> str:
        """Returns a name that no value has."""
        index = len(self._made)
        while f"bounded.{hint}.{index}" in self._used:
            index += 1
        name = f"bounded.{hint}.{index}"
        self._used.add(name)
        return name

    def node(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Adds a node of standard ONNX, or finds its equal, and returns its first output."""
        old = operator in _CHOICES and self.opset < _CHOICES_OF_INTEGERS
        if old and self.dtype(inputs[0]) == onnx.TensorProto.INT64:
            return self.node("Where", self.node(_CHOICES[operator], *inputs), *inputs)
        return self.node_outputs(operator, inputs, outputs, attributes)[0]

    def node_outputs(
        self, operator: str, inputs: Sequence[str], outputs: int, attributes: dict[str, Any]
    ) -> tuple[str, ...]:
        """Adds a node of standard ONNX, or finds its equal, and returns all its outputs."""
        node = helper.make_node(operator, list(inputs), [""] * outputs, **attributes)
        return self.copy(node, inputs)

    def copy(self, node: onnx.NodeProto, inputs: Sequence[str]) -> tuple[str, ...]:
        """Adds a node like another one, with these inputs, or finds its equal."""
        key = (
            node.domain,
            node.op_type,
            tuple(inputs),
            len(node.output),
            tuple(sorted(attribute.SerializeToString() for attribute in node.attribute)),
        )
        if key in self._made:
            return self._made[key]
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.ClearField("input")
        copy.ClearField("output")
        copy.input.extend(inputs)
        copy.output.extend(self.fresh(node.op_type.lower()) for _ in node.output)
        copy.name = copy.output[0]
        self._add(copy)
        self._made[key] = tuple(copy.output)
        return self._made[key]

    def keep(self, node: onnx.NodeProto, inputs: Sequence[str]) -> None:
        """Adds a node of the original under its own names, with these inputs."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend(inputs)
        self._add(copy)

    def call(
        self,
        function: onnx.FunctionProto,
        inputs: Sequence[str],
        types: Sequence[onnx.TypeProto],
        attributes: dict[str, Any],
    ) -> tuple[str, ...]:
        """Adds a call of a model function whose output types are known."""
        node = helper.make_node(
            function.name, list(inputs), [""] * len(types), domain=_DOMAIN, **attributes
        )
        del node.output[:]
        node.output.extend(self.fresh(function.name.lower()) for _ in types)
        node.name = node.output[0]
        self.functions[function.name] = function
        self.nodes.append(node)
        for name, kind in zip(node.output, types, strict=True):
            self._types[name] = kind
        return tuple(node.output)

    def largest(self, name: str) -> float:
        """Returns the largest number that a value can hold, as far as its nodes prove it."""
        makers = {output: node for node in self.nodes for output in node.output}
        wanted, known = [name], {name}
        while wanted:
            made = makers.get(wanted.pop())
            # Of a bool it is known that it is 0 or 1, whatever it was compared from.
            if made is not None and self.dtype(made.output[0]) != TensorProto.BOOL:
                news = {one for one in made.input if one} - known
                known |= news
                wanted += news
        model = onnx.ModelProto()
        model.graph.node.extend(n for n in self.nodes if known.intersection(n.output))
        for constant in sorted(known & set(self._constants)):
            array = self._constants[constant]
            model.graph.initializer.append(numpy_helper.from_array(array, constant))
        model.graph.output.append(onnx.ValueInfoProto(name=name))
        shapes = {one: self.shape(one) for one in known}
        return max(one.high for one in value_ranges(model, shapes)[name])

    def weights(self) -> list[onnx.TensorProto]:
        """Returns the constants that were added."""
        return [numpy_helper.from_array(array, name) for name, array in self._new_constants.items()]

    def _add(self, node: onnx.NodeProto) -> None:
        types = self._infer(node)
        if any(kind.WhichOneof("value") and not _has_shape(kind) for kind in types.values()):
            types = self._infer_written_out(node)
        for name in node.output:
            if not name:
                continue
            kind = types.get(name)
            if kind is None or not (
                _has_shape(kind)
                and all(dim.HasField("dim_value") for dim in kind.tensor_type.shape.dim)
            ):
                raise ModelError(f"the shape of {name!r} ({node.op_type}) depends on the image")
            self._types[name] = kind
        if not self._fold(node):
            self.nodes.append(node)

    def _infer(self, node: onnx.NodeProto) -> dict[str, onnx.TypeProto]:
        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        given = [name for name in node.input if name]
        data = {
            name: numpy_helper.from_array(self._constants[name], name)
            for name in given
            if name in self._constants and self._constants[name].size <= 4096
        }
        try:
            return dict(
                onnx.shape_inference.infer_node_outputs(
                    schema,
                    node,
                    {name: self._types[name] for name in given},
                    data,
                    opset_imports=[helper.make_opsetid("", self.opset)],
                    ir_version=self._ir_version,
                )
            )
        except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
            raise ModelError(f"{node.op_type} node {node.name!r}: {first_line(error)}") from error

    def _infer_written_out(self, node: onnx.NodeProto) -> dict[str, onnx.TypeProto]:
        """Infers a node as a model: some are functions of others, GreaterOrEqual of opset 12 to 15.

        ONNX's inference of one node does not look into those, and leaves the shape away.
        """
        given = dict.fromkeys(name for name in node.input if name)
        graph = helper.make_graph(
            [node],
            "one",
            [helper.make_value_info(name, self._types[name]) for name in given],
            [helper.make_empty_tensor_value_info(name) for name in node.output if name],
            [
                numpy_helper.from_array(self._constants[name], name)
                for name in given
                if name in self._constants
            ],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=self._ir_version,
        )
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
            raise ModelError(f"{node.op_type} node {node.name!r}: {first_line(error)}") from error
        return {value.name: value.type for value in inferred.graph.output}

    def _fold(self, node: onnx.NodeProto) -> bool:
        """Computes a small node of constants; returns whether it did."""
        names = [name for name in node.input if name]
        if not names or not all(name in self._constants for name in names):
            return False
        elements = [np.prod(self.shape(name)) for name in (*names, *node.output) if name]
        if max(elements) > _FOLDED_ELEMENTS or node.domain or _has_graph(node):
            return False
        run = onnx.reference.ReferenceEvaluator(
            helper.make_model(
                helper.make_graph(
                    [node],
                    "constant",
                    [helper.make_value_info(name, self._types[name]) for name in set(names)],
                    [helper.make_value_info(name, self._types[name]) for name in node.output],
                ),
                opset_imports=[helper.make_opsetid("", self.opset)],
                ir_version=self._ir_version,
            )
        )
        try:
            results = run.run(None, {name: self._constants[name] for name in names})
        except Exception:  # the reference implementation raises anything
            return False  # the network computes it instead
        for name, result in zip(node.output, results, strict=True):
            kind = helper.tensor_dtype_to_np_dtype(self.dtype(name))
            array = np.asarray(result, dtype=kind).reshape(self.shape(name))
            self._constants[name] = self._new_constants[name] = array
        return True


def _has_shape(kind: onnx.TypeProto) -> bool:
    return bool(kind.tensor_type.HasField("shape"))


def _type_of(array: np.ndarray) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(
        helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape)
    )


def _has_graph(node: onnx.NodeProto) -> bool:
    return any(attribute.HasField("g") for attribute in node.attribute)
