"""Networks whose outputs have no place for boxes: what they are, in one sentence.

Only asked when no family fits, in place of a line of every family on why it does not.
"""

from __future__ import annotations

from tvmdet.heads.base import GraphSummary, TensorSummary

__all__ = ["refuse_without_boxes"]

_SIDES = 4


def refuse_without_boxes(summary: GraphSummary, size_hw: tuple[int, int]) -> str:
    """Says what a network does whose outputs cannot hold boxes, or ''.

    Args:
        summary: The network.
        size_hw: Height and width of its input, in pixels.
    """
    outputs = list(summary.exported_outputs.values())
    values = [_values_of_a_cell(one, size_hw) for one in outputs]
    if values and all(stride == 1 for stride, _ in values):
        return (
            "it gives maps of the whole picture, pixel by pixel: this is a network for "
            "segmentation, or one that finds text (DBNet) whose boxes are drawn around what lights "
            "up, and no detector"
        )
    count = sum(one for _, one in values)
    if values and all(stride for stride, _ in values) and count < _SIDES:
        return (
            f"a cell of its maps has {count} value{'s' * (count > 1)}, which is too few for a box: "
            "this is a network for segmentation or for heat maps, and no detector"
        )
    if _are_masks_of_queries(outputs):
        return (
            "each query has class values and a mask, and no box: this is a network for "
            "segmentation, such as MaskFormer or Mask2Former, and no detector"
        )
    if outputs and all(map(_is_one_row, outputs)):
        where, crops = "", ""
        if len(outputs) > 1:
            where, crops = " in each output", ", or for one box of a crop (a later stage of MTCNN)"
        return (
            f"a picture gets one row of numbers{where}: this looks like a network for "
            f"classification, or for features{crops}, and no detector; if the row holds boxes, cut "
            "it into rows of one box each in the exporter"
        )
    if _are_shares(summary):
        return (
            "each of its rows is shares of 1, by a softmax, and has no box: this is a network that "
            "reads text or sorts patches into classes, and no detector"
        )
    return ""


def _values_of_a_cell(output: TensorSummary, size_hw: tuple[int, int]) -> tuple[int, int]:
    """Returns the stride of a map over the picture and how many values a cell has; else zeros."""
    shape = output.shape
    if shape == (1, *size_hw):
        return 1, 1
    if len(shape) != 4 or shape[0] != 1 or None in shape:
        return 0, 0
    _, *rest = (side or 0 for side in shape)
    for values, *sides in (rest, (rest[2], *rest[:2])):
        stride = size_hw[0] // max(sides[0], 1)
        if stride and size_hw == tuple(side * stride for side in sides):
            return stride, values
    return 0, 0


def _are_shares(summary: GraphSummary) -> bool:
    """Returns whether the only output is ``[1, A, C]`` straight from a softmax."""
    if len(summary.exported_outputs) != 1:
        return False
    ((name, output),) = summary.exported_outputs.items()
    last = summary.output_traces.get(name, ())[:1]
    return len(output.shape) == 3 and last in (("Softmax",), ("LogSoftmax",))


def _are_masks_of_queries(outputs: list[TensorSummary]) -> bool:
    """Returns whether there are ``[N, Q, C]`` and ``[N, Q, h, w]`` and nothing else."""
    if len(outputs) != 2:
        return False
    classes, masks = sorted((one.shape for one in outputs), key=len)
    alike = len(classes) == 3 and len(masks) == 4 and classes[1] == masks[1]
    return alike and classes[2] != _SIDES and 1 not in masks[2:]


def _is_one_row(output: TensorSummary) -> bool:
    """Returns whether an output is ``[1, C]``, maybe with more dimensions of 1 behind."""
    return len(output.shape) > 1 and output.shape[0] == 1 and set(output.shape[2:]) <= {1}
