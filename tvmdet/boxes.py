"""Box geometry: IoU, and the way between image pixels and network-input pixels.

Boxes are ``x1 y1 x2 y2`` in absolute pixels, width = x2 - x1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tvmdet.errors import InputError
from tvmdet.sizes import size_text
from tvmdet.spec import InputSpec, Rounding

__all__ = ["ImageTransform", "clip_boxes", "iou_matrix"]

Float32 = npt.NDArray[np.float32]

_WHOLE: Final[Mapping[Rounding, Callable[[float], int]]] = {
    "down": int,
    "half_up": lambda side: int(side + 0.5),
    "nearest": round,
}


def iou_matrix(boxes_a: npt.ArrayLike, boxes_b: npt.ArrayLike) -> Float32:
    """Returns the intersection over union of every box of ``a`` with every box of ``b``.

    Args:
        boxes_a: ``[n, 4]``, x1 y1 x2 y2.
        boxes_b: ``[m, 4]``, in the same pixels.

    Returns:
        float32 ``[n, m]``, 0 where either box has no area.
    """
    a = np.asarray(boxes_a, dtype=np.float64).reshape(-1, 1, 4)
    b = np.asarray(boxes_b, dtype=np.float64).reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = np.maximum(sides, 0.0).prod(axis=-1)
    union = _areas(a) + _areas(b) - intersection
    iou = np.zeros(intersection.shape, dtype=np.float64)
    np.divide(intersection, union, out=iou, where=union > 0)
    return iou.astype(np.float32)


def clip_boxes(boxes_xyxy: npt.ArrayLike, size_hw: tuple[int, int]) -> Float32:
    """Returns the boxes ``[n, 4]`` cut to an image of that size, as a new float32 array."""
    height, width = size_hw
    boxes = np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4)
    return np.clip(boxes, 0.0, np.array([width, height, width, height], dtype=np.float32))


@dataclass(frozen=True, kw_only=True)
class ImageTransform:
    """How one image lies in the network's input; the only place that knows the arithmetic.

    The letterbox is that of Ultralytics 8.4 (``LetterBox`` in ``ultralytics/data/augment.py``,
    ``scale_boxes`` in ``ultralytics/utils/ops.py``): one ratio for both axes, each side rounded
    half to even, the border split with ``round(d / 2 - 0.1)`` at the top and left, and boxes
    divided, side by side, by what the rounded sides make of the ratio. ``rounding`` and ``scale``
    of the spec make it those of others, such as YOLOX (``preproc`` in
    ``yolox/data/data_augment.py``, ``tools/demo.py``): sides cut to whole pixels, boxes divided by
    the ratio itself.

    Attributes:
        image_size_hw: Height and width of the original image.
        network_size_hw: Height and width of the network's input.
        resized_size_hw: Height and width of the picture inside the network's input.
        offset_xy: Network pixel at which the picture's top left corner lies.
        scale_xy: Network pixels per image pixel, as boxes are divided.
        box_offset_xy: What is taken from boxes before: ``offset_xy``, or that before rounding.
        picture_scale: By what the picture is resized, where that is not what its whole sides say.
    """

    image_size_hw: tuple[int, int]
    network_size_hw: tuple[int, int]
    resized_size_hw: tuple[int, int]
    offset_xy: tuple[int, int]
    scale_xy: tuple[float, float]
    box_offset_xy: tuple[float, float]
    picture_scale: float | None = None

    @classmethod
    def for_image(cls, image_size_hw: tuple[int, int], spec: InputSpec) -> ImageTransform:
        """Computes the transform of an image of that size.

        Raises:
            InputError: The image has no pixels.
        """
        height, width = image_size_hw
        if height < 1 or width < 1:
            raise InputError(f"the image is {size_text((height, width))}; allowed: 1x1 and larger")
        if spec.resize == "stretch":
            return cls._stretch(image_size_hw, spec.size_hw)
        return cls._letterbox(image_size_hw, spec)

    @classmethod
    def _stretch(
        cls, image_size_hw: tuple[int, int], network_size_hw: tuple[int, int]
    ) -> ImageTransform:
        return cls(
            image_size_hw=image_size_hw,
            network_size_hw=network_size_hw,
            resized_size_hw=network_size_hw,
            offset_xy=(0, 0),
            scale_xy=(
                network_size_hw[1] / image_size_hw[1],
                network_size_hw[0] / image_size_hw[0],
            ),
            box_offset_xy=(0.0, 0.0),
        )

    @classmethod
    def _letterbox(cls, image_size_hw: tuple[int, int], spec: InputSpec) -> ImageTransform:
        network_size_hw = spec.size_hw
        ratio = min(n / i for n, i in zip(network_size_hw, image_size_hw, strict=True))
        whole = _WHOLE[spec.rounding]
        # A picture thinner than one network pixel keeps one.
        height, width = (max(whole(side * ratio), 1) for side in image_size_hw)
        is_centred = spec.pad_position == "center"
        offset_y, offset_x = (
            round((n - r) / 2 - 0.1) if is_centred else 0
            for n, r in zip(network_size_hw, (height, width), strict=True)
        )
        box_offset_xy: tuple[float, float] = offset_x, offset_y
        scale = spec.box_scale
        if scale == "unrounded":
            box_offset_y, box_offset_x = (
                (n - side * ratio) / 2 if is_centred else 0.0
                for n, side in zip(network_size_hw, image_size_hw, strict=True)
            )
            box_offset_xy = box_offset_x, box_offset_y
        scale_xy = {
            "height": (height / image_size_hw[0],) * 2,
            "sides": (width / image_size_hw[1], height / image_size_hw[0]),
        }.get(scale, (ratio, ratio))
        return cls(
            image_size_hw=image_size_hw,
            network_size_hw=network_size_hw,
            resized_size_hw=(height, width),
            offset_xy=(offset_x, offset_y),
            scale_xy=scale_xy,
            box_offset_xy=box_offset_xy,
            picture_scale=ratio if scale == "exact" else None,
        )

    @property
    def keeps_shape(self) -> bool:
        """Whether both axes have one ratio, but for what whole pixels make of it."""
        sides = zip(self.image_size_hw, self.resized_size_hw, strict=True)
        ratio = min(n / i for n, i in zip(self.network_size_hw, self.image_size_hw, strict=True))
        return all(abs(side * ratio - resized) < 1 for side, resized in sides)

    def to_network(self, boxes_xyxy: npt.ArrayLike) -> Float32:
        """Maps boxes ``[n, 4]`` from image pixels to network pixels, as a new array."""
        boxes = np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4)
        return boxes * self._scale() + self._offset()

    def to_image(self, boxes_xyxy: npt.ArrayLike) -> Float32:
        """Maps boxes ``[n, 4]`` from network pixels to image pixels and clips them.

        Returns:
            A new float32 array.
        """
        return clip_boxes(self.to_image_unclipped(boxes_xyxy), self.image_size_hw)

    def to_image_unclipped(self, boxes_xyxy: npt.ArrayLike) -> Float32:
        """Maps boxes as :meth:`to_image` does; they may reach out of the image."""
        boxes = np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4)
        return (boxes - self._offset()) / self._scale()

    def points_to_image(self, points_xy: npt.ArrayLike) -> Float32:
        """Maps points ``[..., 2]`` from network pixels to image pixels, as a new array.

        They are not clipped.
        """
        points = np.asarray(points_xy, dtype=np.float32)
        with np.errstate(over="ignore"):  # what a network puts beyond all bounds stays there
            return (points - self._offset()[:2]) / self._scale()[:2]

    def _scale(self) -> Float32:
        return np.array(self.scale_xy * 2, dtype=np.float32)

    def _offset(self) -> Float32:
        return np.array(self.box_offset_xy * 2, dtype=np.float32)


def _areas(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    areas: npt.NDArray[np.float64] = sides.prod(axis=-1)
    return areas
