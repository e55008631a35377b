"""From a static, simplified ONNX network to one Relax dataflow block."""

from __future__ import annotations

import warnings
from typing import Any

import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from tvmdet.errors import ModelError, UnsupportedOperatorError
from tvmdet.frontend.converters import converter_map, plain_operands
from tvmdet.frontend.onnx_tools import describe, first_line, last_line
from tvmdet.frontend.operators import find_blocks, refuse
from tvmdet.steps import reached

__all__ = ["import_relax", "trace_operators"]


def import_relax(model: onnx.ModelProto, opset: int) -> tvm.IRModule:
    """Imports a network.

    Args:
        model: Static and simplified, every node named.
        opset: Version of its default operator set.

    Returns:
        A module whose ``main`` takes the ONNX inputs and returns the ONNX output, or a tuple
        of them: one dataflow block of simple bindings, in ONNX's NCHW, constants folded.

    Raises:
        UnsupportedOperatorError: Nodes cannot be imported; names all of them, or the first
            one that TVM's importer fails on.
    """
    refuse(find_blocks(model.graph, converter_map()))
    importer = _Importer({}, None)
    with warnings.catch_warnings():
        # It warns of every input that it renames; inputs go by position here.
        warnings.simplefilter("ignore")
        try:
            module = importer.from_onnx(model.graph, opset)
        except ModelError:
            importer.close()
            raise
        except Exception as error:  # TVM raises anything
            raise ModelError(
                f"TVM cannot import the network: {first_line(error)}; "
                "`tvmdet doctor` says more about each node"
            ) from error
    return _fold(module)


def _fold(module: tvm.IRModule) -> tvm.IRModule:
    reached("TVM folds constants of the imported network")
    try:
        module = relax.transform.CanonicalizeBindings()(module)
        module = relax.transform.FoldConstant()(module)
        return relax.transform.DeadCodeElimination(["main"])(module)
    except Exception as error:  # TVM raises anything, at a division by a constant 0 for one
        raise ModelError(
            f"TVM imports every node, but cannot fold the constants of the network: "
            f"{last_line(error)}; check the model's constants, or export it again"
        ) from error


def trace_operators(model: onnx.ModelProto, opset: int) -> dict[str, list[str]]:
    """Returns for each Relax operator which ONNX nodes become it, as messages call them.

    Args:
        model: A network that :func:`import_relax` imports.
        opset: Version of its default operator set.
    """
    importer = _Tracer({}, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importer.from_onnx(model.graph, opset)
    return importer.origins


class _Importer(onnx_frontend.ONNXGraphImporter):  # type: ignore[misc]
    """TVM's importer with our converters; errors name the node, and nothing is printed."""

    def __init__(self, shapes: dict[str, Any], dtypes: Any) -> None:
        super().__init__(shapes, dtypes)
        self._converters = converter_map()

    def close(self) -> None:
        """Ends the block that a failed conversion left open, or TVM warns on stderr."""
        self.bb._end_block()

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        """Does nothing: :func:`find_blocks` has done it, with reasons."""

    def _construct_nodes(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            reached(f"TVM imports {describe(node)}")
            try:
                self._construct_node(node)
            except Exception as error:  # TVM raises anything
                raise UnsupportedOperatorError(
                    f"{describe(node)} cannot be imported: {first_line(error)}; "
                    "export the model with another opset or without this operator"
                ) from error

    def _construct_node(self, node: onnx.NodeProto) -> None:
        """Converts one node and binds each of its outputs to a variable."""
        attributes = self._parse_attr(node.attribute)
        attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(node.output)}
        given = [self._nodes[name] if name else None for name in node.input]
        # A list that answers None past its end, as TVM's converters expect.
        inputs = onnx_frontend.onnx_input()
        inputs.extend(plain_operands(node.op_type, given))
        convert = self._converters[node.op_type].get_converter(self.opset)
        result = convert(self.bb, inputs, attributes, [self._nodes, self._params])
        if not isinstance(result, relax.Tuple):
            result = self.bb.normalize(result)
        fields = [result]
        if isinstance(result, relax.Tuple):
            fields = list(result.fields)
        elif isinstance(result.ty, relax.TupleType):
            bound = self.bb.emit(result)
            count = len(result.ty.fields)
            fields = [self.bb.emit(relax.TupleGetItem(bound, at)) for at in range(count)]
        if len(fields) < len(node.output):
            raise UnsupportedOperatorError(
                f"{len(node.output)} outputs are used, {len(fields)} can be imported"
            )
        for name, value in zip(node.output, fields, strict=False):
            if name:
                self._nodes[name] = self.bb.normalize(value)


class _Tracer(_Importer):
    """Notes which operators each node is converted to."""

    def __init__(self, shapes: dict[str, Any], dtypes: Any) -> None:
        super().__init__(shapes, dtypes)
        self.origins: dict[str, list[str]] = {}

    def _construct_node(self, node: onnx.NodeProto) -> None:
        super()._construct_node(node)
        stack = [self._nodes[name] for name in node.output if name]
        known = [self._nodes[name] for name in node.input if name]
        while stack:
            expr = stack.pop()
            if any(expr.same_as(other) for other in known):
                continue
            if isinstance(expr, relax.Var):
                known.append(expr)
                bound = self.bb.lookup_binding(expr)
                stack.extend([] if bound is None else [bound])
            elif isinstance(expr, relax.Tuple):
                stack.extend(expr.fields)
            elif isinstance(expr, relax.TupleGetItem):
                stack.append(expr.tuple_value)
            elif isinstance(expr, relax.Call):
                stack.extend(expr.args)
                if isinstance(expr.op, tvm.ir.Op):
                    nodes = self.origins.setdefault(str(expr.op.name), [])
                    if describe(node) not in nodes:
                        nodes.append(describe(node))
