"""Channels of a picture that are taken apart and joined again, in their order or the opposite one.

``torch.stack([x[:, 2], x[:, 1], x[:, 0]], 1)``, ``torch.cat`` of slices and ``tf.split`` turn RGB
into BGR so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper

from tvmdet.frontend.onnx_tools import constant_values

__all__ = ["find_rejoined"]

_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """One channel of a picture.

    Attributes:
        axis: The dimension of the channels.
        channel: Which one.
        dropped: Whether that dimension is gone.
    """

    axis: int
    channel: int
    dropped: bool = False


def find_rejoined(
    name: str,
    users: Mapping[str, Sequence[onnx.NodeProto]],
    constants: Mapping[str, onnx.TensorProto],
    sides: Sequence[int] | None,
) -> tuple[str, bool] | None:
    """Returns what three channels are joined to, and whether they are turned around there.

    Args:
        name: The picture.
        users: By value, the nodes that read it.
        constants: Of the graph.
        sides: The picture's dimensions, where they are known.

    Returns:
        None where anything else is done to the channels, or to the picture.
    """
    cuts: dict[str, _Cut] = {}
    sides = sides or None  # a scalar has none
    for node in users.get(name, ()):
        found = _cuts(node, constants, sides)
        if found is None:
            return None
        cuts.update(found)
    ends = [_end(output, cut, users, constants, sides) for output, cut in cuts.items()]
    if len(ends) != _CHANNELS or None in ends:
        return None
    parts = dict(zip((end[0] for end in ends if end), cuts.values(), strict=True))
    joins = {end[1].output[0]: end[1] for end in ends if end}
    if len(joins) != 1:
        return None
    ((output, join),) = joins.items()
    axes = {cut.axis for cut in cuts.values()} | {_placed(_attributes(join).get("axis", 0), sides)}
    if len(axes) != 1 or set(join.input) != set(parts) or len(join.input) != _CHANNELS:
        return None
    order = [parts[one].channel for one in join.input]
    return (output, order == [2, 1, 0]) if order in ([0, 1, 2], [2, 1, 0]) else None


def _cuts(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], sides: Sequence[int] | None
) -> dict[str, _Cut] | None:
    """Returns the channels that a node takes out of a picture, by output; None for other nodes."""
    attributes = _attributes(node)
    given = [_listed(constants.get(one)) for one in node.input[1:]]
    places: list[int]
    if node.op_type == "Split" and len(node.output) == _CHANNELS:
        axis, places = attributes.get("axis", 0), [0, 1, 2]
        sizes = given[0] if given else attributes.get("split")
        if sizes != [1, 1, 1] and (sizes is not None or sides is None):
            return None
    elif node.op_type == "Gather" and given and given[0] is not None and len(given[0]) == 1:
        axis, places = attributes.get("axis", 0), given[0]
    elif node.op_type == "Slice" and len(given) >= 3 and None not in given:
        starts, ends, axes, *steps = given
        if any(len(part or ()) != 1 for part in (starts, ends, axes)) or steps not in ([], [[1]]):
            return None
        axis, places = axes[0], starts  # type: ignore[index, assignment]
        to_the_end = places[0] in (-1, _CHANNELS - 1) and ends[0] >= _CHANNELS  # type: ignore[index]
        if ends[0] - places[0] != 1 and not to_the_end:  # type: ignore[index]
            return None
    else:
        return None
    axis = _placed(axis, sides)
    if sides is not None and sides[axis] != _CHANNELS:
        return None
    dropped = node.op_type == "Gather" and not constants[node.input[1]].dims
    return {
        output: _Cut(axis=axis, channel=place % _CHANNELS, dropped=dropped)
        for output, place in zip(node.output, places, strict=True)
    }


def _end(
    name: str,
    cut: _Cut,
    users: Mapping[str, Sequence[onnx.NodeProto]],
    constants: Mapping[str, onnx.TensorProto],
    sides: Sequence[int] | None,
) -> tuple[str, onnx.NodeProto] | None:
    """Returns what a Concat reads of a channel, and the Concat; None where nothing else does."""
    if cut.dropped:
        (node, *more) = users.get(name) or (None,)
        if node is None or more or node.op_type != "Unsqueeze":
            return None
        given = _listed(constants.get(node.input[1])) if len(node.input) > 1 else None
        axes = given or _attributes(node).get("axes") or []
        if [_placed(axis, sides) for axis in axes] != [cut.axis]:
            return None
        name = node.output[0]
    readers = users.get(name, ())
    return (name, readers[0]) if [one.op_type for one in readers] == ["Concat"] else None


def _placed(axis: Any, sides: Sequence[int] | None) -> int:
    return int(axis) % len(sides) if sides is not None else int(axis)


def _listed(tensor: onnx.TensorProto | None) -> list[int] | None:
    """Returns the whole numbers of a constant; None for others."""
    if tensor is None:
        return None
    values = constant_values(tensor).reshape(-1)
    return [int(value) for value in values] if values.dtype.kind in "iu" else None


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}
