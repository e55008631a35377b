"""ONNX's shape inference without the weights, whose values it does not look at.

The library hands a model to its C++ code as bytes, which for hundreds of megabytes of weights takes
longer than the inference. Weights in nodes (Constant) are handed over.
"""

from __future__ import annotations

import math

import onnx
import onnx.shape_inference

__all__ = ["element_types", "infer_shapes"]

_VALUES = 256
"""Elements of a tensor that may be the scales of a Resize. Sizes are whole numbers of any count."""

_SIZES = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)


def infer_shapes(
    model: onnx.ModelProto, *, strict_mode: bool = False, data_prop: bool = False
) -> onnx.ModelProto:
    """Returns a model that states the shape of every value that can be inferred.

    Args:
        model: Any model that parses; it is left as it is.
        strict_mode: As :func:`onnx.shape_inference.infer_shapes` takes it.
        data_prop: Likewise.

    Returns:
        The model, its large weights among the graph's inputs instead of its initializers.

    Raises:
        onnx.shape_inference.InferenceError: The shapes contradict each other.
        MemoryError: There is too little memory.
        ValueError: The model is larger than 2 GiB, constants in nodes included.
        RuntimeError: An operator's inference fails.
    """
    return onnx.shape_inference.infer_shapes(
        _without_weights(model), strict_mode=strict_mode, data_prop=data_prop
    )


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Returns the element type of every value by name, by ONNX's numbers; nothing if unknown."""
    try:
        inferred = infer_shapes(model)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return {}  # the specialisation says what is wrong
    graph = inferred.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in graph.initializer
    }


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    light = onnx.ModelProto()
    light.CopyFrom(model)
    del light.graph.initializer[:]
    stated = {value.name for value in light.graph.input}
    for tensor in model.graph.initializer:
        if tensor.data_type in _SIZES or math.prod(tensor.dims) <= _VALUES:
            light.graph.initializer.add().CopyFrom(tensor)
        elif tensor.name not in stated:  # before IR version 4 all are
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return light
