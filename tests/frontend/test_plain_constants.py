"""Constants of every form become what they mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tvmdet.errors import ModelError
from tvmdet.frontend.plain_constants import make_constants_plain
from tvmdet.frontend.prove import run_onnx
from tvmdet.frontend.simplify import simplify

WHOLE = np.array([[0.0, 2.0, 0.0], [0.0, 0.0, -3.0]], np.float32)


def _sparse(*, by_place: bool) -> onnx.SparseTensorProto:
    rows, columns = np.nonzero(WHOLE)
    places = np.stack([rows, columns], axis=1) if by_place else rows * WHOLE.shape[1] + columns
    return helper.make_sparse_tensor(
        numpy_helper.from_array(WHOLE[rows, columns], "c"),
        numpy_helper.from_array(places.astype(np.int64)),
        list(WHOLE.shape),
    )


def _model(attribute: str, value: Any) -> onnx.ModelProto:
    """Adds a constant to ``x`` ``[2, 3]``; whole numbers are cast."""
    number = "number" if attribute in ("value_int", "value_ints") else "c"
    nodes = [
        helper.make_node("Constant", [], ["c"], **{attribute: value}),
        helper.make_node("Cast", ["c"], ["number"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Add", ["x", number], ["y"]),
    ]
    del nodes[1 : 2 if number == "c" else 1]
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3]) for name in ("x", "y")
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    if attribute == "initializer":
        del graph.node[0]
        graph.sparse_initializer.append(value)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("value_float", 0.1, np.float32(0.1)),
        ("value_floats", [0.1, 0.2, 0.3], np.float32([0.1, 0.2, 0.3])),
        ("value_int", 7, np.int64(7)),
        ("value_ints", [1, 2, 3], np.array([1, 2, 3])),
        ("sparse_value", _sparse(by_place=False), WHOLE),
        ("sparse_value", _sparse(by_place=True), WHOLE),
        ("initializer", _sparse(by_place=False), WHOLE),
    ],
)
def test_constants_are_tensors_of_their_own_type(
    attribute: str, value: Any, expected: np.ndarray
) -> None:
    model = _model(attribute, value)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    make_constants_plain(plain)
    held = [one.attribute[0] for one in plain.graph.node if one.op_type == "Constant"]
    tensors = [one.t for one in held] + list(plain.graph.initializer)
    (found,) = (numpy_helper.to_array(tensor) for tensor in tensors)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.asarray(expected).dtype
    assert not plain.graph.sparse_initializer
    feed = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    (want,), (got,) = (run_onnx(one, [feed]) for one in (model, simplify(model)))
    np.testing.assert_array_equal(got["y"], want["y"])


def test_a_sparse_tensor_too_large_to_be_dense_is_refused() -> None:
    large = _sparse(by_place=True)
    large.dims[:] = [10**7, 10**7]
    with pytest.raises(ModelError, match="the sparse tensor c would have 400000000000000 bytes"):
        make_constants_plain(_model("initializer", large))
