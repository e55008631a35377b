from __future__ import annotations

import onnx
from dense_networks import dense_network, nanodet_plus

from tvmdet.frontend.joined_maps import joined_maps

GRIDS = ((8, 12), (4, 6), (2, 3), (1, 2), (1, 1))


def _static(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(model)


def test_joined_rows_tell_their_maps() -> None:
    model = dense_network(
        {"cls_logits": 27, "bbox_regression": 36}, numbers={"cls_logits": 3, "bbox_regression": 4}
    )
    maps = joined_maps(_static(model))
    assert maps["cls_logits"] == tuple((1, 27, *grid) for grid in GRIDS)
    assert maps["bbox_regression"] == tuple((1, 36, *grid) for grid in GRIDS)


def test_pieces_of_one_map_are_seen_in_their_order() -> None:
    model = nanodet_plus()
    ((_, maps),) = joined_maps(_static(model)).items()
    assert maps == tuple((1, count, *grid) for grid in GRIDS[:4] for count in (3, 32))


def test_an_output_that_is_no_map_has_none() -> None:
    model = dense_network({"a": 8}, levels=1)
    flat = onnx.helper.make_node("GlobalAveragePool", ["a0"], ["mean"], name="mean")
    model.graph.node.extend(
        [flat, onnx.helper.make_node("Flatten", ["mean"], ["flat"], name="flatten")]
    )
    model.graph.output.append(onnx.helper.make_tensor_value_info("flat", 1, [1, 8]))
    assert joined_maps(_static(model)) == {"a0": ((1, 8, 8, 12),), "flat": ((1, 8, 1, 1),)}
