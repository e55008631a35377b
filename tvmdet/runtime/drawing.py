"""Masks, boxes, keypoints, labels and scores drawn on a picture."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from tvmdet.runtime.images import as_bgr

if TYPE_CHECKING:
    from tvmdet.detections import Detection, Detections
    from tvmdet.keypoints import Keypoints
    from tvmdet.masks import MaskRegion

__all__ = ["class_color_bgr", "draw_detections"]

_MASK_OPACITY = 0.45
_SEEN = 0.5  # the score of a keypoint from which on it is drawn, as Ultralytics has it
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_color_bgr(class_id: int) -> tuple[int, int, int]:
    """Returns a strong colour for a class; neighbouring ids get distant hues.

    Hues step by the golden ratio's fraction of the circle, which spreads any number of
    points evenly (Knuth, The Art of Computer Programming, vol. 3, sec. 6.4).
    """
    red, green, blue = colorsys.hsv_to_rgb((class_id * 0.6180339887 + 0.33) % 1.0, 0.85, 0.9)
    return round(blue * 255), round(green * 255), round(red * 255)


def draw_detections(found: Detections, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Returns a new BGR picture with the boxes, masks and keypoints of ``found`` on it.

    Raises:
        InputError: The array is not an image.
    """
    canvas = as_bgr(image).copy()
    line_px = max(round(sum(canvas.shape[:2]) / 2 * 0.003), 1)
    # The weakest first, so that the best lie on top.
    masks = found.instance_masks
    for index in reversed(range(0 if masks is None else len(masks))):
        assert masks is not None
        color = class_color_bgr(int(found.class_ids[index]))
        _draw_mask(canvas, masks.region(index), color, line_px)
    for detection in reversed(list(found)):
        _draw_box(canvas, detection, line_px)
    points = found.keypoints
    for index in reversed(range(0 if points is None else len(points))):
        assert points is not None
        _draw_keypoints(canvas, points, index, class_color_bgr(int(found.class_ids[index])))
    for detection in reversed(list(found)):
        _draw_label(canvas, detection, line_px)
    return canvas


def _draw_mask(
    canvas: npt.NDArray[np.uint8], mask: MaskRegion, color: tuple[int, int, int], line_px: int
) -> None:
    """Tints the pixels of a mask and outlines them."""
    # The picture may be smaller than the image that was searched.
    picture = canvas[mask.slices]
    height, width = picture.shape[:2]
    pixels = np.ascontiguousarray(mask.pixels[:height, :width]).view(np.uint8)
    if not pixels.any():
        return
    # By table, so that a mask of a large picture takes no floats of its size.
    levels = np.arange(256)[:, None] * (1 - _MASK_OPACITY) + np.array(color) * _MASK_OPACITY
    tinted = cv2.LUT(picture, np.rint(levels).astype(np.uint8)[None])
    np.copyto(picture, tinted, where=pixels[..., None].view(np.bool_))
    outlines, _ = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(canvas, outlines, -1, color, line_px, offset=(mask.left, mask.top))


def _draw_box(canvas: npt.NDArray[np.uint8], found: Detection, line_px: int) -> None:
    color = class_color_bgr(found.class_id)
    if found.corners is not None:
        outline = _drawable(found.corners)
        cv2.polylines(canvas, [outline], isClosed=True, color=color, thickness=line_px)
        return
    x1, y1, x2, y2 = (round(value) for value in found.box_xyxy)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), color, line_px)


def _draw_keypoints(
    canvas: npt.NDArray[np.uint8], points: Keypoints, index: int, color: tuple[int, int, int]
) -> None:
    """Draws one object's points, each as a disc with a rim, and the lines between them."""
    radius = max(round(sum(canvas.shape[:2]) / 2 * 0.004), 2)
    corners = _drawable(points.xy[index]).tolist()
    seen = [True] * len(corners)
    if points.scores is not None:
        seen = (points.scores[index] >= _SEEN).tolist()
    for first, second in points.skeleton:
        if seen[first] and seen[second]:
            line = max(radius // 2, 1)
            cv2.line(canvas, corners[first], corners[second], color, line, cv2.LINE_AA)
    for corner, is_seen in zip(corners, seen, strict=True):
        if is_seen:
            cv2.circle(canvas, corner, radius + 1, _ink_for(color), cv2.FILLED, cv2.LINE_AA)
            cv2.circle(canvas, corner, radius, color, cv2.FILLED, cv2.LINE_AA)


def _drawable(points_xy: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Returns whole pixels; a point far out would not fit the integers of OpenCV's lines."""
    finite = np.nan_to_num(points_xy.astype(np.float64))
    return np.rint(np.clip(finite, -(1 << 15), 1 << 15)).astype(np.int32)


def _draw_label(canvas: npt.NDArray[np.uint8], found: Detection, line_px: int) -> None:
    height, width = canvas.shape[:2]
    text = f"{found.label} {found.score:.2f}"
    scale = max(line_px / 5, 0.4)
    stroke = max(line_px // 2, 1)
    (text_width, text_height), baseline = cv2.getTextSize(text, _FONT, scale, stroke)
    margin = line_px + 1
    full_height = text_height + baseline + 2 * margin
    # Above the box where there is room, else inside its top edge; never off the picture.
    left = max(min(round(found.box_xyxy[0]), width - text_width - 2 * margin), 0)
    top = round(found.box_xyxy[1]) - full_height
    top = max(min(top if top >= 0 else top + full_height, height - full_height), 0)
    color = class_color_bgr(found.class_id)
    corner = (left + text_width + 2 * margin, top + full_height)
    cv2.rectangle(canvas, (left, top), corner, color, cv2.FILLED)
    origin = (left + margin, top + margin + text_height)
    cv2.putText(canvas, text, origin, _FONT, scale, _ink_for(color), stroke, cv2.LINE_AA)


def _ink_for(color_bgr: tuple[int, int, int]) -> tuple[int, int, int]:
    blue, green, red = color_bgr
    luma = 0.114 * blue + 0.587 * green + 0.299 * red  # ITU-R BT.601
    return (0, 0, 0) if luma > 128 else (255, 255, 255)
