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
    if len(outputs) == 1 and len(_sizes(outputs[0])) == 1:
        return (
            "a picture gets one row of numbers: this is a network for classification, or for "
            "features, and no detector"
        )
    return ""


def _are_masks_of_queries(outputs: list[TensorSummary]) -> bool:
    """Returns whether there are ``[N, Q, C]`` and ``[N, Q, h, w]`` and nothing else."""
    if len(outputs) != 2:
        return False
    classes, masks = sorted((one.shape for one in outputs), key=len)
    alike = len(classes) == 3 and len(masks) == 4 and classes[1] == masks[1]
    return alike and classes[2] != _SIDES and 1 not in masks[2:]


def _sizes(output: TensorSummary) -> list[int | None]:
    """Returns the dimensions after the batch that are not 1."""
    return [size for size in output.shape[1:] if size != 1]
