"""The parity check of instance masks: the pixels that users see.

The masks of two boxes that count as the same are pasted into the image, and must overlap by at
least ``Tolerance.mask_iou``. Two things are left out of account, because rounding decides them.
A pixel whose value in the reference lies within ``Tolerance.score`` of the threshold agrees with
either answer: so a mask of few pixels is held to as much as a large one, and no number of pixels
has to be forgiven. And the reference's mask is laid into the box that the compiled detector
reports, within what boxes may be off, or cut to it: that is the boxes' matter, and an edge that
rounding moves over the centres of a column of pixels would take that whole column with it.

Random outlines of 6 to 96 pixels, whose values were off by 1e-5 and boxes by 1e-4 pixels as float32
has it, agreed fully so; held to the threshold alone they fell to an IoU of 0.92. The masks of
a YOLOv5-seg, a YOLOv8-seg and torchvision's Mask R-CNN with random weights, compiled in float32,
agreed fully too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmdet.compiler.tolerance import Tolerance
from tvmdet.masks import InstanceMasks, MaskRegion, SmallMask

__all__ = ["MaskTally", "mask_overlap"]


@dataclass
class MaskTally:
    """Counts over all pairs of masks.

    Attributes:
        masks: How many were compared.
        pixels: Of the reference's masks.
        at_threshold: Pixels that differ and lie within the tolerance of the threshold.
        worst_iou: Least overlap of two masks.
    """

    masks: int = 0
    pixels: int = 0
    at_threshold: int = 0
    worst_iou: float = 1.0

    def compare(
        self,
        found: InstanceMasks,
        boxes_xyxy: npt.NDArray[np.float32],
        expected: InstanceMasks,
        partners: Mapping[int, int],
        rivals_of: Callable[[int], InstanceMasks],
        tolerance: Tolerance,
    ) -> dict[int, float]:
        """Compares the masks of one image.

        Args:
            found: The compiled detector's.
            boxes_xyxy: Its boxes, in pixels of the image.
            expected: The reference's.
            partners: For the index of each of its boxes that has a partner, that one's index.
            rivals_of: Returns the masks of all of the reference's candidates that count as the
                same as a box, of which rounding may have chosen another.
            tolerance: How far they may be off.

        Returns:
            The overlap of each mask that is too far from all that it may be, by its index.
        """
        wrong = {}
        for index, partner in partners.items():
            box = boxes_xyxy[index]
            best, spared, pixels = _compare_one(found, index, box, expected, partner, tolerance)
            if best < tolerance.mask_iou:
                rivals = rivals_of(index)
                every = [
                    _compare_one(found, index, box, rivals, other, tolerance)
                    for other in range(len(rivals))
                ]
                best, spared, pixels = max([(best, spared, pixels), *every])
            self.masks += 1
            self.pixels += pixels
            self.at_threshold += spared
            self.worst_iou = min(self.worst_iou, best)
            if best < tolerance.mask_iou:
                wrong[index] = best
        return wrong

    def to_dict(self) -> dict[str, Any]:
        """Returns the certificate's part, as plain JSON values."""
        return {
            "masks": self.masks,
            "worst_mask_iou": round(self.worst_iou, 6),
            "mask_pixels": self.pixels,
            "mask_pixels_at_threshold": self.at_threshold,
        }


def _compare_one(
    found: InstanceMasks,
    index: int,
    box_xyxy: npt.NDArray[np.float32],
    expected: InstanceMasks,
    other: int,
    tolerance: Tolerance,
) -> tuple[float, int, int]:
    """Returns the overlap of two masks, the pixels spared, and those of the reference's mask."""
    laid = _lay(expected.small[other], found.small[index], box_xyxy, tolerance)
    values = laid.sample(expected.image_size_hw)
    iou, spared = mask_overlap(found.region(index), values, expected.threshold, tolerance.score)
    return iou, spared, int(np.count_nonzero(values.pixels > expected.threshold))


def _lay(
    mask: SmallMask, like: SmallMask, box_xyxy: npt.NDArray[np.float32], tolerance: Tolerance
) -> SmallMask:
    """Returns the reference's mask where the compiled detector's lies, within what is allowed."""
    if mask.limits_xyxy is not None:
        x1, y1, x2, y2 = box_xyxy.astype(np.float64).tolist()
        return replace(mask, limits_xyxy=(x1, y1, x2, y2))
    if tolerance.overlaps([mask.frame_xyxy], [like.frame_xyxy])[0, 0] >= tolerance.iou:
        return replace(mask, frame_xyxy=like.frame_xyxy)
    return mask


def mask_overlap(
    found: MaskRegion, values: MaskRegion, threshold: float, slack: float
) -> tuple[float, int]:
    """Compares one mask with the values that another is made from.

    Args:
        found: bool.
        values: float32, which belong to the object above the threshold.
        threshold: Between the two.
        slack: A value that near to the threshold agrees with either answer.

    Returns:
        The intersection over union, 1 where both have no pixels, and how many pixels differ but
        agree so.
    """
    mine, surely, perhaps, plainly = _on_one_canvas(
        (found, found.pixels),
        (values, values.pixels > threshold + slack),
        (values, values.pixels > threshold - slack),
        (values, values.pixels > threshold),
    )
    agreed = surely | (perhaps & mine)
    union = np.count_nonzero(mine | agreed)
    spared = np.count_nonzero((mine != plainly) & (perhaps & ~surely))
    iou = np.count_nonzero(mine & agreed) / union if union else 1.0
    return float(iou), int(spared)


def _on_one_canvas(
    *parts: tuple[MaskRegion, npt.NDArray[np.bool_]],
) -> list[npt.NDArray[np.bool_]]:
    """Returns parts of one image in arrays that all cover the same part of it."""
    held = [region for region, _ in parts if region.pixels.size]
    top = min((region.top for region in held), default=0)
    left = min((region.left for region in held), default=0)
    bottom = max((region.top + region.pixels.shape[0] for region in held), default=0)
    right = max((region.left + region.pixels.shape[1] for region in held), default=0)
    canvases = []
    for region, pixels in parts:
        canvas = np.zeros((bottom - top, right - left), np.bool_)
        if pixels.size:
            height, width = pixels.shape
            row, column = region.top - top, region.left - left
            canvas[row : row + height, column : column + width] = pixels
        canvases.append(canvas)
    return canvases
