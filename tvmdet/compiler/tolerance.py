"""How far a compiled detector may be from the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmdet.boxes import iou_matrix

__all__ = ["UNSEEN_PX", "Tolerance"]

UNSEEN_PX = 0.02  # a corner that moves by less is where it was
_EMPTY_PX = 0.5  # likewise of a box without an area


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a compiled detector may be from the reference.

    Attributes:
        iou: Least overlap of two boxes that count as the same.
        score: Greatest difference of their scores.
        score_share: That of a low score, as a share of it.
        mask_iou: Least overlap of two masks of the same object, where pixels whose value is within
            ``score`` of the threshold agree with either.
        keypoint: How far two keypoints of the same object, or corners of an oriented box, may lie
            apart, as a share of the longer side of its box.
        raw: Greatest difference of a raw output, relative to the greatest value in it.
        nudge: Change of the network's input, as a share of each value, that may change which boxes
            a network keeps which suppresses inside. That of float32 is a 400th of a grey level.
    """

    iou: float = 0.99
    score: float = 1e-3
    score_share: float = 0.05
    mask_iou: float = 0.98
    keypoint: float = 0.005
    raw: float = 1e-3
    nudge: float = 1e-5

    @classmethod
    def at_precision(cls, precision: str) -> Tolerance:
        """Returns what is allowed of a build by default.

        A bfloat16 factor is off by up to 1/256 of itself. On photographs that moved the scores
        of a YOLOv8n by up to 0.007 and the edges of its boxes by up to 4 pixels of 320, those of
        a PicoDet by up to 0.009; scores of a thousandth were off by up to 0.8 of themselves.

        A float16 or tf32 factor has three more bits: an eighth of that is off. Sums in float16,
        which ARM cores have, make that half (:mod:`tvmdet.passes.fp16_conv2d`): the scores of a
        small detector with trained weights moved by up to 0.003, the edges of its boxes by 1.5 %.
        """
        if precision == "bf16":
            return cls(
                iou=0.8,
                score=0.03,
                score_share=0.8,
                mask_iou=0.8,
                keypoint=0.1,
                raw=0.05,
                nudge=2**-9,
            )
        if precision in ("fp16", "tf32"):
            return cls(
                iou=0.95,
                score=5e-3,
                score_share=0.2,
                mask_iou=0.95,
                keypoint=0.025,
                raw=0.01,
                nudge=2**-12,
            )
        return cls()

    def score_near(self, score: Any) -> Any:
        """Returns how far a score may be off: less for small ones, so that they count too."""
        return np.clip(self.score_share * np.asarray(score), min(1e-5, self.score), self.score)

    def overlaps(
        self, mine_xyxy: npt.ArrayLike, others_xyxy: npt.ArrayLike
    ) -> npt.NDArray[np.float32]:
        """Returns the IoU of every two boxes, ``[n, m]``; at least ``iou`` where they are the same.

        Boxes clipped to nothing, or whose sides a network makes negative, have no area to overlap
        with: equal corners are the same box. Of a box thinner than a pixel or two, what nobody
        sees is a large part.
        """
        mine, others = (np.asarray(boxes, np.float32) for boxes in (mine_xyxy, others_xyxy))
        moved = np.abs(mine[:, None] - others[None]).max(axis=-1, initial=0)
        empty = (_areas(mine) < 1)[:, None] & (_areas(others) < 1)[None, :]
        ious = np.where(empty, moved <= _EMPTY_PX, iou_matrix(mine, others)).astype(np.float32)
        return np.where(moved <= UNSEEN_PX, np.maximum(ious, self.iou), ious).astype(np.float32)


def _areas(boxes_xyxy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    sides = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0)
    areas: npt.NDArray[np.float32] = sides[:, 0] * sides[:, 1]
    return areas
