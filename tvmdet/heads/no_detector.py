"""Networks whose outputs have no place for boxes: what they are, in one sentence.

Only asked when no family fits, in place of a line of every family on why it does not.
"""

from __future__ import annotations

from tvmdet.heads.base import GraphSummary, TensorSummary

__all__ = ["refuse_without_boxes"]

_SIDES = 4


def refuse_without_boxes(summary: GraphSummary) -> str:
    """Says what a network does whose outputs cannot hold boxes, or ''."""
    outputs = list(summary.exported_outputs.values())
    if _are_masks_of_queries(outputs):
        return (
            "each query has class values and a mask, and no box: this is a network for "
            "segmentation, such as MaskFormer or Mask2Former, and no detector"
        )
    if len(outputs) == 1 and _is_one_row(outputs[0]):
        return (
            "a picture gets one row of numbers: this looks like a network for classification, or "
            "for features, and no detector; if the row holds boxes, cut it into rows of one box "
            "each in the exporter"
        )
    return ""


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
