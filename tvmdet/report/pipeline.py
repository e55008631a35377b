"""What surrounds a rival's network: the image file to its input, its outputs to boxes, in numpy.

Written as a careful engineer would ship it: nothing is allocated that can be kept, planes are
normalised straight into the input, candidates are filtered before they are sorted, suppression is
vectorised. Box decoding is the family's plain numpy code, which decodes every anchor. Masks are
computed for what is found and stay as small as the network has them, as tvmdet's do until somebody
asks for their pixels; they and keypoints are timed, and not compared.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tvmdet.boxes import ImageTransform
from tvmdet.keypoints import Keypoints, place_keypoints
from tvmdet.oriented import boxes_around, place_corners, probiou_matrix, undropped
from tvmdet.runtime.images import decode_file
from tvmdet.runtime.resize import place_image
from tvmdet.spec import DetectorSpec, PostprocessSpec

if TYPE_CHECKING:
    from tvmdet.heads import MaskValues

__all__ = ["Found", "Pipeline"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """Boxes in image pixels, best first.

    Attributes:
        boxes_xyxy: ``[n, 4]``.
        scores: ``[n]``.
        class_ids: ``[n]``.
        rows: Which row of the network's decoded outputs each is.
        masks: ``[n, h, w]``, 0 to 1, as small as the network has them; None without masks.
        keypoints: In pixels of the image; None without keypoints.
    """

    boxes_xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]
    rows: npt.NDArray[np.intp] | None = None
    masks: npt.NDArray[np.float32] | None = None
    keypoints: Keypoints | None = None


class Pipeline:
    """Pre- and post-processing of one detector, batch 1."""

    def __init__(self, spec: DetectorSpec, dtype: str = "float32") -> None:
        """Allocates what is reused from call to call.

        Args:
            spec: What is around the network.
            dtype: Element type of the network's input.
        """
        from tvmdet.heads import get_head

        self._spec = spec
        self._head = get_head(spec.family)
        self._canvas = np.empty((*spec.input.size_hw, 3), np.uint8)
        self._blob = np.empty((1, 3, *spec.input.size_hw), np.float32)
        self._dtype = np.dtype(dtype)
        std = np.asarray(spec.input.std, np.float32)
        self._scale = np.float32(1) / std
        self._offset = -np.asarray(spec.input.mean, np.float32) / std
        self._order = (2, 1, 0) if spec.input.color == "rgb" else (0, 1, 2)

    def prepare(self, picture: str) -> tuple[npt.NDArray[Any], ImageTransform, dict[str, float]]:
        """Returns the network's input, where the picture lies in it, and seconds by phase."""
        start = time.perf_counter()
        image = decode_file(picture)
        decoded = time.perf_counter()
        spec = self._spec.input
        transform = ImageTransform.for_image(image.shape[:2], spec)
        place_image(image, transform, spec.border_bgr, self._canvas, spec.interpolation)
        for index, plane in enumerate(self._blob[0]):
            np.multiply(self._canvas[..., self._order[index]], self._scale[index], out=plane)
            if self._offset[index]:
                np.add(plane, self._offset[index], out=plane)
        blob = self._blob.astype(self._dtype, copy=False)
        seconds = {"decode": decoded - start, "resize": time.perf_counter() - decoded}
        return blob, transform, seconds

    def finish(
        self, outputs: Mapping[str, Any], transform: ImageTransform
    ) -> tuple[Found, dict[str, float]]:
        """Returns the boxes of an image, and seconds by phase."""
        start = time.perf_counter()
        post = self._spec.postprocess
        decoded = self._head.decode_reference(outputs, self._spec)
        angles = decoded.angles[0] if self._spec.oriented else None
        found = _select(decoded.boxes[0], decoded.scores[0], angles, post)
        mapped = transform.to_image(found.boxes_xyxy)
        if angles is not None:
            corners = place_corners(found.boxes_xyxy, angles[found.rows], transform)
            mapped = boxes_around(corners, transform.image_size_hw)
        masks = None
        if self._spec.masks is not None and decoded.masks is not None:
            masks = _masks(decoded.masks, found.rows)
        points = None
        if self._spec.keypoints is not None and decoded.keypoints is not None:
            chosen = decoded.keypoints[0][found.rows]
            points = place_keypoints(chosen, transform, self._spec.keypoints)
        found = replace(found, boxes_xyxy=mapped, masks=masks, keypoints=points)
        return found, {"map": time.perf_counter() - start}


def _select(
    boxes: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    angles: npt.NDArray[np.float32] | None,
    post: PostprocessSpec,
) -> Found:
    if post.multi_label:
        rows, classes = np.nonzero(scores > post.score_threshold)
        values = scores[rows, classes]
    else:
        best = scores.max(axis=1)
        rows = np.flatnonzero(best > post.score_threshold)
        classes, values = scores[rows].argmax(axis=1), best[rows]
    order = np.argsort(-values, kind="stable")[: post.pre_nms_top_k]
    picked, classes, values = boxes[rows[order]], classes[order], values[order]
    if angles is None:
        kept = _suppress(picked, classes, post)
    else:
        kept = _suppress_oriented(picked, angles[rows[order]], classes, post)
    return Found(
        boxes_xyxy=picked[kept],
        scores=values[kept],
        class_ids=classes[kept],
        rows=rows[order][kept],
    )


def _masks(masks: MaskValues, rows: npt.NDArray[np.intp] | None) -> npt.NDArray[np.float32]:
    """Returns the masks of some rows."""
    values: npt.NDArray[np.float32] = masks.values[0][rows]
    if masks.prototypes is None:
        return values
    _, count, height, width = masks.prototypes.shape
    mixed = values @ masks.prototypes.reshape(count, height * width)
    # In place, and never past the largest exponent of float32.
    np.negative(np.clip(mixed, -80, 80, out=mixed), out=mixed)
    np.add(np.exp(mixed, out=mixed), 1, out=mixed)
    values = np.reciprocal(mixed, out=mixed).reshape(-1, height, width)
    return values


def _suppress(
    boxes: npt.NDArray[np.float32], classes: npt.NDArray[np.int64], post: PostprocessSpec
) -> npt.NDArray[np.intp]:
    """Returns the rows that greedy suppression keeps; rows come best first."""
    moved = boxes.astype(np.float64)
    if not post.class_agnostic and len(boxes):
        # Boxes of different classes are moved apart, as torchvision's batched_nms does.
        moved = moved + (classes * (np.ptp(moved) + 1))[:, None]
    x1, y1, x2, y2 = moved.T
    # A box that is turned inside out has no area, and overlaps nothing.
    area = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    rows = np.arange(len(boxes))
    kept: list[int] = []
    while len(rows) and len(kept) < post.max_detections:
        best, rest = rows[0], rows[1:]
        kept.append(int(best))
        width = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest])
        height = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        rows = rest[shared <= post.iou_threshold * (area[best] + area[rest] - shared)]
    return np.array(kept, np.intp)


def _suppress_oriented(
    boxes: npt.NDArray[np.float32],
    angles: npt.NDArray[np.float32],
    classes: npt.NDArray[np.int64],
    post: PostprocessSpec,
) -> npt.NDArray[np.intp]:
    """Returns the rows that no better one overlaps; rows come best first."""
    overlaps = probiou_matrix(boxes, angles, boxes, angles) > post.iou_threshold
    if not post.class_agnostic:
        overlaps &= classes[:, None] == classes[None, :]
    return undropped(overlaps)[: post.max_detections]
