"""Constants in their plainest form, which every tool reads alike.

A Constant may hold its number as ``value_float`` and the like, as those in the functions of
onnxscript do, and a weight may be sparse. onnxslim makes float64 of both.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tvmdet.errors import ModelError
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.onnx_tools import iter_graphs

__all__ = ["make_constants_plain"]

_NUMBERS: dict[str, type[np.generic]] = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def make_constants_plain(model: onnx.ModelProto) -> None:
    """Turns numbers of Constants into tensors and sparse tensors into dense ones, in place.

    Raises:
        ModelError: A sparse tensor would be larger than any may be.
    """
    for graph in iter_graphs(model.graph):
        for node in graph.node:
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
                _make_plain(node)
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_dense(sparse, sparse.values.name))
        del graph.sparse_initializer[:]


def _make_plain(node: onnx.NodeProto) -> None:
    for attribute in list(node.attribute):
        if attribute.name in _NUMBERS:
            values = np.asarray(helper.get_attribute_value(attribute), _NUMBERS[attribute.name])
            tensor = numpy_helper.from_array(values, node.output[0])
        elif attribute.name == "sparse_value":
            tensor = _dense(attribute.sparse_tensor, node.output[0])
        else:
            continue
        node.attribute.remove(attribute)
        node.attribute.append(helper.make_attribute("value", tensor))


def _dense(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    """Returns all values of a tensor of which some are given by their places."""
    values = numpy_helper.to_array(sparse.values)
    places = numpy_helper.to_array(sparse.indices)
    size, most = math.prod(sparse.dims) * values.dtype.itemsize, Limits().max_tensor_bytes
    if size > most:
        raise ModelError(f"the sparse tensor {name} would have {size} bytes; allowed: {most}")
    whole = np.zeros(tuple(sparse.dims), values.dtype)
    if places.ndim == 1:  # counted through the whole tensor
        whole.reshape(-1)[places] = values
    else:
        whole[tuple(places.T)] = values
    return numpy_helper.from_array(whole, name)
