"""Constant folding and fusion by onnxslim, without its habits of printing and mutating."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import onnx
import onnx.shape_inference
import onnxslim
from onnx import helper

from tvmdet.errors import ModelError
from tvmdet.frontend.infer_shapes import infer_shapes
from tvmdet.frontend.onnx_tools import first_line, iter_graphs, name_nodes
from tvmdet.frontend.plain_constants import make_constants_plain
from tvmdet.steps import reached

__all__ = ["simplify"]


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a model with static shapes in fewer, plainer nodes.

    Args:
        model: A model whose inputs have static shapes; it is left as it is.

    Raises:
        ModelError: onnxslim fails on the model.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    make_constants_plain(copy)
    _make_returned_constants(copy)
    reached("onnxslim simplifies the network")
    logger = logging.getLogger("onnxslim")
    if not logger.handlers:
        # It adds a handler on stderr unless there is one.
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            slimmed: onnx.ModelProto = onnxslim.slim(copy)
    except Exception as error:  # third-party passes raise anything
        raise ModelError(
            f"the model cannot be simplified: {first_line(error)}; "
            "check it with onnx.checker and export it again with static shapes"
        ) from error
    name_nodes(slimmed.graph)
    _forget_wrong_shapes(slimmed)
    return slimmed


def _make_returned_constants(model: onnx.ModelProto) -> None:
    """Lets nodes make the constants that inner graphs return, in place.

    onnxslim loses initializers of a graph that no node reads. tf2onnx returns those: what a loop
    over pictures finds to be the same for each of them, such as the size that it resizes to.
    """
    for graph in list(iter_graphs(model.graph))[1:]:
        returned = {value.name for value in graph.output}
        for tensor in [one for one in graph.initializer if one.name in returned]:
            made = helper.make_node("Constant", [], [tensor.name], value=tensor)
            graph.initializer.remove(tensor)
            graph.node.insert(0, made)


def _forget_wrong_shapes(model: onnx.ModelProto) -> None:
    """Removes recorded shapes that ONNX contradicts: onnxslim infers some of Einsum wrongly."""
    try:
        infer_shapes(model, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, MemoryError, ValueError, RuntimeError):
        # The next inference says what is wrong, if it is the network.
        del model.graph.value_info[:]
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
