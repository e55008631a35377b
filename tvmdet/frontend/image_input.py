"""Which input of a network is the picture, and how the picture lies in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import onnx

from tvmdet.errors import ModelError, ShapeError
from tvmdet.frontend.onnx_tools import graph_inputs, input_summary
from tvmdet.heads.base import TensorSummary

__all__ = ["ImageInput", "Layout", "find_image_input", "input_summaries"]

Layout = Literal["NCHW", "NHWC", "CHW", "HWC"]

_CHANNELS = 3
# What a picture may be fed as. The network's own casts, if any, follow.
_PIXEL_TYPES = ("float32", "float16", "uint8")
_RAW = "; or compile it with --raw"


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """The input that takes the picture.

    Attributes:
        name: Its name in the export.
        value: Shape and element type as exported.
        layout: The meaning of its dimensions; N is the batch.
    """

    name: str
    value: TensorSummary
    layout: Layout

    @property
    def size_hw(self) -> tuple[int | None, int | None]:
        """Height and width, None where the export leaves them open."""
        shape = self.value.shape
        return shape[self.layout.index("H")], shape[self.layout.index("W")]

    @property
    def takes_a_batch(self) -> bool:
        """Whether there is a batch dimension."""
        return self.layout.startswith("N")


def input_summaries(model: onnx.ModelProto) -> dict[str, TensorSummary]:
    """Returns the inputs that a caller feeds, by name, as exported.

    Raises:
        ShapeError: One is no tensor of known rank.
    """
    found = {}
    for value in graph_inputs(model.graph):
        summary = input_summary(value)
        if summary is None:
            raise ShapeError(
                f"input {value.name!r} is no tensor of known rank; export it with its shape"
            )
        found[value.name] = summary
    return found


def find_image_input(model: onnx.ModelProto, others: Collection[str] = ()) -> ImageInput:
    """Returns the only input that can take a picture.

    Of several, one with a batch dimension is preferred to one of rank 3, which may be a mask.

    Args:
        model: The network as exported.
        others: Names of inputs that are known to be something else.

    Raises:
        ShapeError: The only input has another shape or element type than a picture.
        ModelError: None or several inputs can take a picture.
    """
    inputs = input_summaries(model)
    layouts = {
        name: "NHWC"
        if layout == "NCHW" and value.shape[1] is None and _turned(model, name)
        else layout
        for name, value in inputs.items()
        if name not in others and (layout := _layout(value)) is not None
    }
    batched = {name: layout for name, layout in layouts.items() if layout.startswith("N")}
    pictures = batched or layouts
    if len(pictures) != 1:
        raise _no_picture(inputs, pictures)
    ((name, layout),) = pictures.items()
    value = inputs[name]
    if value.dtype not in _PIXEL_TYPES:
        raise ShapeError(
            f"input {name!r} is {value}; a detector's is one of {', '.join(_PIXEL_TYPES)}: "
            f"export it in single precision{_RAW}"
        )
    return ImageInput(name=name, value=value, layout=layout)


def _layout(value: TensorSummary) -> Layout | None:
    """Returns how a picture would lie in an input of this shape, or None if none can."""
    shape = value.shape
    if len(shape) == 4:
        if shape[1] != _CHANNELS and shape[3] == _CHANNELS:
            return "NHWC"
        return "NCHW" if shape[1] in (None, _CHANNELS) else None
    if len(shape) == 3:
        if shape[0] != _CHANNELS and shape[2] == _CHANNELS:
            return "HWC"
        return "CHW" if shape[0] in (None, _CHANNELS) else None
    return None


def _turned(model: onnx.ModelProto, name: str) -> bool:
    """Returns whether the network brings the last dimension of an input to the front."""
    orders = [
        list(attribute.ints)
        for node in model.graph.node
        if node.op_type == "Transpose" and name in node.input
        for attribute in node.attribute
        if attribute.name == "perm"
    ]
    return orders == [[0, 3, 1, 2]]


def _no_picture(
    inputs: Mapping[str, TensorSummary], pictures: Mapping[str, Layout]
) -> ModelError | ShapeError:
    shown = ", ".join(f"{name} {value}" for name, value in inputs.items())
    if len(inputs) == 1:
        ((name, value),) = inputs.items()
        return ShapeError(
            f"input {name!r} is {value}; a detector's is [N, 3, height, width], "
            f"[N, height, width, 3], [3, height, width] or [height, width, 3]: export it so{_RAW}"
        )
    if not pictures:
        return ModelError(
            f"none of the network's {len(inputs)} inputs ({shown}) can take a picture of three "
            f"channels; export one with its channels stated{_RAW}"
        )
    return ModelError(
        f"the network has {len(inputs)} inputs ({shown}), and {len(pictures)} of them can take "
        f"a picture ({', '.join(pictures)}); export it with one picture, or say in a spec what "
        f"the others are ([input.constants]){_RAW}"
    )
