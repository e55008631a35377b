"""Channels of a picture that are taken apart and joined again, in their order or the opposite one.

``torch.stack([x[:, 2], x[:, 1], x[:, 0]], 1)``, ``torch.cat`` of slices and ``tf.split`` turn RGB
into BGR so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx

from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.onnx_tools import constant_values

__all__ = ["find_rejoined"]

_CHANNELS = 3

_Given: TypeAlias = Sequence[list[int] | None]


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
    axes = {cut.axis for cut in cuts.values()} | {_placed(attribute(join, "axis", 0), sides)}
    if len(axes) != 1 or set(join.input) != set(parts) or len(join.input) != _CHANNELS:
        return None
    order = [parts[one].channel for one in join.input]
    return (output, order == [2, 1, 0]) if order in ([0, 1, 2], [2, 1, 0]) else None


def _cuts(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], sides: Sequence[int] | None
) -> dict[str, _Cut] | None:
    """Returns the channels that a node takes out of a picture, by output; None for other nodes."""
    given = [_listed(constants.get(one)) for one in node.input[1:]]
    taken = {"Gather": _gathered, "Slice": _sliced, "Split": _split}.get(node.op_type)
    found = None if taken is None else taken(node, given, sides)
    if found is None:
        return None
    axis, channels = _placed(found[0], sides), found[1]
    if sides is not None and sides[axis] != _CHANNELS:
        return None
    dropped = node.op_type == "Gather" and not constants[node.input[1]].dims
    return {
        output: _Cut(axis=axis, channel=channel % _CHANNELS, dropped=dropped)
        for output, channel in zip(node.output, channels, strict=True)
    }


def _gathered(node: onnx.NodeProto, given: _Given, _sides: object) -> tuple[int, list[int]] | None:
    """Returns the axis and the one channel of a Gather."""
    channels = given[0] if given else None
    if channels is None or len(channels) != 1:
        return None
    return attribute(node, "axis", 0), channels


def _sliced(_node: object, given: _Given, _sides: object) -> tuple[int, list[int]] | None:
    """Returns the axis and the one channel of a Slice, whose end may be open."""
    values = [part[0] for part in given if part is not None and len(part) == 1]
    if len(values) != len(given) or len(values) not in (3, 4):
        return None
    first, end, axis, *step = values
    to_the_end = first in (-1, _CHANNELS - 1) and end >= _CHANNELS
    if step not in ([], [1]) or (end - first != 1 and not to_the_end):
        return None
    return axis, [first]


def _split(
    node: onnx.NodeProto, given: _Given, sides: Sequence[int] | None
) -> tuple[int, list[int]] | None:
    """Returns the axis of a Split into channels, and them."""
    sizes = given[0] if given else attribute(node, "split", None)
    # Without sizes it cuts into as many equal parts as it has outputs.
    if len(node.output) != _CHANNELS or sizes not in (None, [1, 1, 1]):
        return None
    if sizes is None and (given or sides is None):
        return None
    return attribute(node, "axis", 0), list(range(_CHANNELS))


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
        axes = given or attribute(node, "axes", [])
        if [_placed(axis, sides) for axis in axes] != [cut.axis]:
            return None
        name = node.output[0]
    readers = users.get(name, ())
    return (name, readers[0]) if [one.op_type for one in readers] == ["Concat"] else None


def _placed(axis: int, sides: Sequence[int] | None) -> int:
    return axis % len(sides) if sides is not None else axis


def _listed(tensor: onnx.TensorProto | None) -> list[int] | None:
    """Returns the whole numbers of a constant; None for others."""
    if tensor is None:
        return None
    values = constant_values(tensor).reshape(-1)
    return [int(value) for value in values] if values.dtype.kind in "iu" else None
