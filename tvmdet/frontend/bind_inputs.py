"""BindInputs: from an export with any inputs to a network of one picture ``[N, 3, H, W]``.

Further inputs (masks, sizes, thresholds) become constants: those that the spec's
``input.constants`` give, else what their names are known to mean. A picture with channels last, or
without a batch dimension, gets the nodes in front that make it so. All of that is ordinary ONNX, so
that the simplification folds it and ONNX Runtime's reference runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tvmdet.errors import InputError, ModelError
from tvmdet.frontend.count_boxes import COUNTED, count_boxes
from tvmdet.frontend.gather_selected import LOOKED_UP, gather_selected
from tvmdet.frontend.image_input import ImageInput, find_image_input, input_summaries
from tvmdet.frontend.load import LoadedModel
from tvmdet.frontend.onnx_tools import iter_graphs
from tvmdet.frontend.side_inputs import is_text_input, known_side_input
from tvmdet.frontend.widen_floats import is_half, widen_floats
from tvmdet.heads.base import TensorSummary

__all__ = ["Bound", "bind_inputs", "find_picture"]

_HALVED = ("weights in half precision, computed in single precision",)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A network with one input.

    Attributes:
        loaded: The model; its only input takes pictures ``[N, 3, H, W]``.
        constants: What further inputs got, by name, as a spec's ``input.constants`` say it.
        reasons: The same for people, one line each.
        channels_last: Whether the exported picture has its channels last.
    """

    loaded: LoadedModel
    constants: Mapping[str, Any]
    reasons: tuple[str, ...]
    channels_last: bool = False


def find_picture(loaded: LoadedModel, given: Mapping[str, Any]) -> ImageInput:
    """Returns the input that takes the picture.

    Args:
        loaded: The model as exported.
        given: The user's spec; inputs in its ``input.constants`` are no picture.

    Raises:
        ModelError: None or several inputs can take a picture.
        InputError: ``input.constants`` names no input.
    """
    inputs = input_summaries(loaded.proto)
    constants = _given_constants(given, inputs)
    known = [name for name in inputs if known_side_input(name, (1, 1)) is not None]
    others = {*constants, *known} if len(inputs) > 1 else set(constants)
    return find_image_input(loaded.proto, others)


def bind_inputs(loaded: LoadedModel, size_hw: tuple[int, int], given: Mapping[str, Any]) -> Bound:
    """Returns the network with the picture as its only input.

    What the file was before each rewrite of loading is bound alike. Rows that a suppression chose
    become their boxes, scores and class numbers (:mod:`tvmdet.frontend.gather_selected`), and
    Paddle2ONNX's find their scores (:mod:`tvmdet.frontend.count_boxes`).

    Args:
        loaded: The model as exported; it is left as it is.
        size_hw: Height and width of the picture, in pixels.
        given: The user's spec.

    Raises:
        ModelError: An input is no picture and nothing says what it is; the message has the spec
            to write.
        InputError: A constant of the spec does not fit its input.
    """
    counted = count_boxes(loaded)
    gathered = gather_selected(counted)
    bound = _bind(gathered, size_hw, given)
    if counted is not loaded:
        bound = replace(bound, reasons=(*bound.reasons, COUNTED))
    if gathered is not counted:
        bound = replace(bound, reasons=(*bound.reasons, LOOKED_UP))
    loaded = gathered
    if not loaded.earlier:
        return bound
    earlier = tuple(
        replace(one, model=_bind(replace(loaded, proto=one.model), size_hw, given).loaded.proto)
        for one in loaded.earlier
    )
    return replace(bound, loaded=replace(bound.loaded, earlier=earlier))


def _bind(loaded: LoadedModel, size_hw: tuple[int, int], given: Mapping[str, Any]) -> Bound:
    halved = is_half(loaded.proto)
    if halved:
        wide = onnx.ModelProto()
        wide.CopyFrom(loaded.proto)
        widen_floats(wide)
        loaded = replace(loaded, proto=wide)
    image = find_picture(loaded, given)
    inputs = input_summaries(loaded.proto)
    told = _given_constants(given, inputs)
    if image.layout == "NCHW" and len(inputs) == 1:
        return Bound(loaded=loaded, constants={}, reasons=_HALVED if halved else ())
    copy = onnx.ModelProto()
    copy.CopyFrom(loaded.proto)
    constants, reasons, unknown = {}, [], {}
    nodes: list[onnx.NodeProto] = []
    for name, value in inputs.items():
        if name == image.name:
            continue
        known = known_side_input(name, size_hw)
        if name in told:
            constants[name], why = told[name], "from the spec"
        elif known is not None and _fits(known.value, value, size_hw):
            constants[name], why = known.value, known.meaning
        else:
            unknown[name] = value
            continue
        reasons.append(f"input {name} {value} is the constant {constants[name]}: {why}")
        array = _fill(name, constants[name], value, size_hw)
        nodes += _constant_nodes(copy, name, array, value, image)
    if unknown:
        raise _unknown(inputs, unknown)
    line, moved = _arrange_image(copy, image, size_hw)
    reasons += line
    _put_first(copy, [*nodes, *moved])
    return Bound(
        loaded=replace(loaded, proto=copy, one_image=not image.takes_a_batch),
        constants=constants,
        reasons=(*(_HALVED if halved else ()), *reasons),
        channels_last=image.layout.endswith("C"),
    )


def _given_constants(
    given: Mapping[str, Any], inputs: Mapping[str, TensorSummary]
) -> Mapping[str, Any]:
    constants = given.get("input", {}).get("constants", {})
    if not isinstance(constants, Mapping):
        raise InputError(
            f"the spec's input.constants is {constants!r}; give a table of a number or a list for "
            "each further input"
        )
    for name in constants:
        if name not in inputs:
            raise InputError(
                f"the spec's input.constants names {name!r}; the network's inputs: "
                f"{', '.join(inputs)}"
            )
    return constants


def _shape(value: TensorSummary, size_hw: tuple[int, int], last: int | None) -> list[int | None]:
    """Returns a shape with what is open decided, as far as it can be; the batch as 1."""
    shape = list(value.shape)
    if shape and shape[0] is None:
        shape[0] = 1
    if last is not None and shape and shape[-1] is None:
        shape[-1] = last
    if len(shape) == 3:  # a picture of one value a pixel
        shape[1:] = [
            side if dim is None else dim for dim, side in zip(shape[1:], size_hw, strict=True)
        ]
    return shape


def _fits(constant: Any, value: TensorSummary, size_hw: tuple[int, int]) -> bool:
    """Returns whether a known constant can be what an input of this shape is for."""
    last = len(constant) if isinstance(constant, list) else None
    shape = _shape(value, size_hw, last)
    return None not in shape and (last is None or shape[-1:] == [last])


def _fill(name: str, constant: Any, value: TensorSummary, size_hw: tuple[int, int]) -> np.ndarray:
    try:
        array = np.asarray(constant, np.dtype(value.dtype))
        last = array.shape[-1] if array.ndim else None
        shape = [int(dim or 1) for dim in _shape(value, size_hw, last)]
        if array.size == 1 and array.ndim > len(shape):
            array = array.reshape(())
        return np.ascontiguousarray(np.broadcast_to(array, shape)).reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"the spec's input.constants.{name} is {constant!r}; the input is {value}: give one "
            "number for every element, or a list of that shape"
        ) from error


def _constant_nodes(
    model: onnx.ModelProto, name: str, array: np.ndarray, value: TensorSummary, image: ImageInput
) -> list[onnx.NodeProto]:
    """Replaces an input by a constant, in place; returns the nodes that make its batch."""
    kept = [entry for entry in model.graph.input if entry.name != name]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    batched = bool(value.shape) and value.shape[0] is None and image.takes_a_batch
    if not batched:
        model.graph.initializer.append(numpy_helper.from_array(array, name))
        return []
    first, rest = f"{name}.one", f"{name}.rest"
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(array, first),
            numpy_helper.from_array(np.asarray(array.shape[1:], np.int64), rest),
            numpy_helper.from_array(np.zeros(1, np.int64), f"{name}.axis"),
        ]
    )
    pieces = [f"{name}.image_shape", f"{name}.batch", f"{name}.shape"]
    return [
        helper.make_node("Shape", [image.name], [pieces[0]], name=pieces[0]),
        helper.make_node("Gather", [pieces[0], f"{name}.axis"], [pieces[1]], name=pieces[1]),
        helper.make_node("Concat", [pieces[1], rest], [pieces[2]], name=pieces[2], axis=0),
        helper.make_node("Expand", [first, pieces[2]], [name], name=f"{name}.constant"),
    ]


def _arrange_image(
    model: onnx.ModelProto, image: ImageInput, size_hw: tuple[int, int]
) -> tuple[list[str], list[onnx.NodeProto]]:
    """Makes the picture's input ``[N, 3, H, W]``, in place.

    Returns:
        A line for people, and the nodes from that picture to the exported form; none of both when
        it is so already.
    """
    if image.layout == "NCHW":
        return [], []
    exported = f"{image.name}.as_exported"
    for graph in iter_graphs(model.graph):
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name == image.name:
                    node.input[index] = exported
    (entry,) = (entry for entry in model.graph.input if entry.name == image.name)
    batch = image.value.shape[0] if image.takes_a_batch else 1
    dims: list[int | str] = ["batch" if batch is None else batch, 3, *size_hw]
    element = entry.type.tensor_type.elem_type
    entry.CopyFrom(helper.make_tensor_value_info(image.name, element, dims))
    nodes, current = [], image.name
    if image.layout.endswith("C"):
        moved = f"{image.name}.channels_last" if image.layout == "HWC" else exported
        nodes.append(
            helper.make_node("Transpose", [current], [moved], name=moved, perm=[0, 2, 3, 1])
        )
        current = moved
    if not image.takes_a_batch:
        shape = [*size_hw, 3] if image.layout == "HWC" else [3, *size_hw]
        target = f"{image.name}.shape_without_batch"
        model.graph.initializer.append(helper.make_tensor(target, TensorProto.INT64, [3], shape))
        nodes.append(helper.make_node("Reshape", [current, target], [exported], name=exported))
    return [f"input {image.name} {image.value} takes a picture as {image.layout}"], nodes


def _put_first(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    later = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *later])


def _unknown(
    inputs: Mapping[str, TensorSummary], unknown: Mapping[str, TensorSummary]
) -> ModelError:
    shown = ", ".join(f"{name} {value}" for name, value in inputs.items())
    texts = [name for name in unknown if is_text_input(name)]
    if texts:
        return ModelError(
            f"the network has {len(inputs)} inputs ({shown}), and takes text beside the picture "
            f"({', '.join(texts)}): it finds what a sentence names, and tvmdet takes detectors of "
            "fixed classes; export it with the text's embedding as a constant, so that the picture "
            "is the only input (YOLO-World and YOLOE: set_classes before the export), or give what "
            "the tokenizer makes of your text, a list for each of these inputs, as a spec's "
            "input.constants, or compile it with --raw"
        )
    lines = [f"  {_key(name)} = 1    # {value}" for name, value in unknown.items()]
    return ModelError(
        "\n".join(
            [
                f"the network has {len(inputs)} inputs ({shown}), and a picture is the only one "
                "that a detector takes. Say in a file detector.toml what the others are (one "
                "number for every element, or a list), and give --spec detector.toml:",
                "  [input.constants]",
                *lines,
                "or export it without them, or compile it with --raw",
            ]
        )
    )


def _key(name: str) -> str:
    """Returns a name as a TOML key."""
    bare = name.replace("_", "").replace("-", "")
    return name if bare.isalnum() and bare.isascii() else '"' + name.replace('"', '\\"') + '"'
