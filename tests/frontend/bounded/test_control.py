"""Conditions: known ones are cut, others select."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_models import Graph
from rows import check, chosen, ints, make

from tvmdet.errors import ShapeError
from tvmdet.frontend.bounded import bound_shapes
from tvmdet.frontend.limits import Limits


def _branch(node: onnx.NodeProto, *before: onnx.NodeProto) -> onnx.GraphProto:
    output = helper.make_empty_tensor_value_info(node.output[0])
    return helper.make_graph([*before, node], "branch", [], [output])


def _empty(output: str) -> onnx.GraphProto:
    tensor = helper.make_tensor("v", onnx.TensorProto.FLOAT, [0], [])
    return _branch(helper.make_node("Constant", [], [output], value=tensor))


def _condition(graph: Graph, values: str) -> str:
    count = graph.node("ReduceProd", graph.node("Shape", values), keepdims=0)
    return graph.node("Equal", count, graph.constant(0, np.int64))


def test_branch_for_no_rows_is_never_taken() -> None:
    # torchvision's batched_nms: an empty constant when there are no boxes.
    graph = Graph()
    values = graph.node("Gather", "x", chosen(graph))
    rest = _branch(helper.make_node("Neg", [values], ["negative"]))
    output = graph.node(
        "If", _condition(graph, values), then_branch=_empty("nothing"), else_branch=rest
    )
    check(make(graph, [output]))


def test_branches_of_different_size_select() -> None:
    graph = Graph()
    one = graph.node("Gather", "x", chosen(graph, above=0.6))
    two = graph.node("Gather", "x", chosen(graph, above=-0.6))
    largest = graph.node("ReduceMax", "x", keepdims=0)
    condition = graph.node("Greater", largest, graph.constant(0.8))
    output = graph.node(
        "If",
        condition,
        then_branch=_branch(helper.make_node("Neg", [one], ["negative"])),
        else_branch=_branch(helper.make_node("Abs", [two], ["positive"])),
    )
    check(make(graph, [output]))


def test_known_condition_is_cut() -> None:
    graph = Graph()
    values = graph.node("Gather", "x", chosen(graph))
    rank = graph.node("Shape", graph.node("Shape", values))
    condition = graph.node("Equal", rank, ints(graph, 1))
    output = graph.node(
        "If",
        condition,
        then_branch=_branch(helper.make_node("Neg", [values], ["negative"])),
        else_branch=_branch(helper.make_node("Abs", [values], ["positive"])),
    )
    bounded = check(make(graph, [output]))
    assert any("always its then_branch" in note for note in bounded.notes)
    assert "Abs" not in [node.op_type for node in bounded.model.graph.node]


def test_branches_of_different_rank_are_refused() -> None:
    graph = Graph()
    values = graph.node("Gather", "x", chosen(graph))
    wide = _branch(helper.make_node("Reshape", [values, ints(graph, -1, 1)], ["wide"]))
    narrow = _branch(helper.make_node("Abs", [values], ["narrow"]))
    condition = _condition(graph, values)
    output = graph.node("If", condition, then_branch=wide, else_branch=narrow)
    with pytest.raises(ShapeError, match=r"\(If\): its branches return values of different rank"):
        bound_shapes(make(graph, [output]), Limits())
