"""The loop that pastes masks is cut off; what is kept are the masks in their boxes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx_models import Graph
from rows import chosen, ints, make

from tvmdet.frontend.bounded import BOX_MASKS, cut_pasting


def _pasting(graph: Graph, masks: str, *, pads: list[int], computed: bool = False) -> str:
    """Pastes masks ``[n, 1, 2, 2]`` onto a picture of 8 by 8, one in a round, as torchvision."""
    if computed:
        zero = graph.node("ConstantOfShape", ints(graph, 8), value=_tensor([0]))
        padding = graph.node("Add", zero, graph.constant(pads, np.int64))
    else:
        padding = ints(graph, *pads)
    padded = graph.node("Pad", masks, padding)
    count = graph.node("Gather", graph.node("Shape", padded), graph.constant(0, np.int64))
    body = helper.make_graph(
        [
            helper.make_node("Gather", [padded, "at"], ["mask"], axis=0),
            helper.make_node("Unsqueeze", ["mask", "b0"], ["mask4"]),
            helper.make_node("Resize", ["mask4", "", "", "b_size"], ["large"], mode="linear"),
            helper.make_node("Squeeze", ["large", "b01"], ["flat"]),
            helper.make_node("ConstantOfShape", ["b_side"], ["zeros_y"]),
            helper.make_node("ConstantOfShape", ["b_below"], ["zeros_x"]),
            helper.make_node("Concat", ["flat", "zeros_y"], ["wide"], axis=1),
            helper.make_node("Concat", ["wide", "zeros_x"], ["pasted"], axis=0),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("at", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("pasted", TensorProto.FLOAT, [8, 8]),
        ],
        [
            onnx.numpy_helper.from_array(np.array(values, np.int64), name)
            for name, values in {
                "b0": [0],
                "b01": [0, 1],
                "b_size": [1, 1, 4, 4],
                "b_side": [4, 4],
                "b_below": [4, 8],
            }.items()
        ],
    )
    loop = graph.node("Loop", count, graph.constant(True, np.bool_), body=body)
    return graph.node("Unsqueeze", loop, ints(graph, 1))


def _tensor(values: list[int]) -> onnx.TensorProto:
    return helper.make_tensor("v", TensorProto.INT64, [len(values)], values)


def _masks(graph: Graph) -> str:
    rows = chosen(graph, graph.node("ReduceMax", "x", axes=[1, 2, 3], keepdims=0), 0.5)
    return graph.node("Sigmoid", graph.node("Gather", "x", rows, axis=0))


def _model(**settings: object) -> tuple[onnx.ModelProto, str, str]:
    graph = Graph()
    masks = _masks(graph)
    output = _pasting(graph, masks, **settings)  # type: ignore[arg-type]
    return make(graph, [output], {"x": [6, 1, 2, 2]}), masks, output


def test_masks_in_their_boxes_take_the_name_of_the_output() -> None:
    for computed in (False, True):
        model, masks, output = _model(pads=[0, 0, 1, 1, 0, 0, 1, 1], computed=computed)
        cut, notes = cut_pasting(model)
        assert "Loop" not in [node.op_type for node in cut.graph.node]
        (last,) = [node for node in cut.graph.node if output in node.output]
        assert list(last.input) == [masks]
        assert [value.name for value in cut.graph.output] == [output]
        assert {entry.key: entry.value for entry in cut.metadata_props} == {BOX_MASKS: output}
        assert f"output {output!r} becomes the masks in their boxes" in notes[0]


def test_other_padding_is_another_loop() -> None:
    model, _, _ = _model(pads=[0, 0, 2, 2, 0, 0, 2, 2])
    assert cut_pasting(model) == (model, ())


def test_model_without_loops_is_itself() -> None:
    graph = Graph()
    model = make(graph, [_masks(graph)], {"x": [6, 1, 2, 2]})
    assert cut_pasting(model)[0] is model
