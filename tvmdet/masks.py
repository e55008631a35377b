"""Instance masks: the small ones that a network computes, and how they lie on the image.

A network computes each mask at a fixed small size, and says of a pixel of it how likely it belongs
to the object. What a user wants is which pixels of the image do. Every small mask spans a rectangle
of the image, its frame: the box (Mask R-CNN), or the whole input of the network (YOLACT, Bolya et
al. 2019; YOLOv8-seg; DETR), where it may count inside its box only. A pixel of the image takes the
bilinear value at its centre, where the centre of the small mask's pixel ``k`` of ``n`` lies at
``(k + 0.5) / n`` of the frame, and belongs to the object where that exceeds a threshold.

Around a box there is nothing: beyond the outermost centres values fall to zero within one pixel of
the small mask, as in Detectron2's ``paste_masks_in_image`` (``detectron2/layers/mask_ops.py``:
``grid_sample`` with ``align_corners=False`` and zeros outside). Around the network's input the
outermost values go on, as when a picture is resized.

Bilinear of what, frameworks differ: of the likelihoods themselves (Mask R-CNN, YOLACT, YOLOv5-seg),
or of their logits (Ultralytics' ``process_mask`` and ``scale_masks``), which moves an edge by part
of a pixel of the small mask where one side of it is surer than the other.

Only the pixels that can belong to an object are computed, in blocks, so that a mask costs memory
where it lies and no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tvmdet.boxes import ImageTransform
from tvmdet.rle import encode_rle
from tvmdet.spec import MaskSpec

__all__ = ["InstanceMasks", "MaskRegion", "SmallMask", "place_masks"]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Bool: TypeAlias = npt.NDArray[np.bool_]
Rectangle: TypeAlias = tuple[float, float, float, float]

_SUREST = np.float32(1 - 2**-24)  # of float32 below 1; its logit is 16.6

_BLOCK_PIXELS = 1 << 16  # of float32: they stay in the L2 cache between the steps


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskRegion:
    """The part of an image's mask in which there may be something.

    Attributes:
        top: Row of the image at which it starts.
        left: Column of the image at which it starts.
        pixels: ``[h, w]``, bool, or the float32 values before they are held to a threshold.
    """

    top: int
    left: int
    pixels: npt.NDArray[Any]

    @property
    def slices(self) -> tuple[slice, slice]:
        """Where it lies in the image."""
        height, width = self.pixels.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass(frozen=True, kw_only=True, eq=False)
class SmallMask:
    """One mask as the network computed it.

    Attributes:
        values: float32 ``[h, w]``, 0 to 1.
        frame_xyxy: The rectangle that it spans, in pixels of the image; it may reach out of it.
        limits_xyxy: Pixels whose centre is outside are not the object's; None for no limits.
        goes_on: Whether the outermost values go on around the frame, or there is nothing.
        by_logits: Whether the logits of the values are interpolated, not they themselves.
    """

    values: Float32
    frame_xyxy: Rectangle
    limits_xyxy: Rectangle | None = None
    goes_on: bool = False
    by_logits: bool = False

    def sample(self, size_hw: tuple[int, int]) -> MaskRegion:
        """Returns the float32 values at the pixels of an image of that size."""
        rows, columns = (self._axis(axis, size_hw[axis]) for axis in (0, 1))
        pixels = np.empty((rows.count, columns.count), np.float32)
        for first, last, block in self._blocks(rows, columns):
            pixels[first:last] = block
        if self.by_logits:
            pixels = np.float32(1) / (np.float32(1) + np.exp(-pixels))
        return MaskRegion(top=rows.first, left=columns.first, pixels=pixels)

    def region(self, size_hw: tuple[int, int], threshold: float) -> MaskRegion:
        """Returns which pixels of an image of that size belong to the object."""
        rows, columns = (self._axis(axis, size_hw[axis]) for axis in (0, 1))
        pixels = np.empty((rows.count, columns.count), np.bool_)
        least = np.float32(threshold)
        if self.by_logits:
            least = _logits(least)
        for first, last, block in self._blocks(rows, columns):
            np.greater(block, least, out=pixels[first:last])
        return MaskRegion(top=rows.first, left=columns.first, pixels=pixels)

    def _axis(self, axis: int, size: int) -> _Axis:
        """Returns the pixels of one axis (0: rows) that can have a value."""
        low, high = self.frame_xyxy[1 - axis], self.frame_xyxy[3 - axis]
        count = self.values.shape[axis]
        # NaN fails every comparison.
        if not (count and -np.inf < low < high < np.inf):
            return _Axis(0, np.zeros(0, np.intp), np.zeros(0, np.float32))
        cell = (high - low) / count
        first, last = 0, size
        if not self.goes_on:
            first, last = _between(low - cell / 2, high + cell / 2, size)
        if self.limits_xyxy is not None:
            inner = _between(self.limits_xyxy[1 - axis], self.limits_xyxy[3 - axis], size)
            first, last = max(first, inner[0]), min(last, inner[1])
        centers = np.arange(first, max(last, first), dtype=np.float64) + 0.5
        # The small mask has one more pixel around it, so that -1 and count are places too.
        position = np.clip((centers - low) / cell - 0.5, -1.0, count)
        below = np.minimum(np.floor(position), count - 1)
        return _Axis(first, below.astype(np.intp) + 1, (position - below).astype(np.float32))

    def _blocks(self, rows: _Axis, columns: _Axis) -> Iterator[tuple[int, int, Float32]]:
        """Yields first row, last row and values of parts that lie between two rows of values."""
        if not (rows.count and columns.count):
            return
        values = _logits(self.values) if self.by_logits else self.values
        padded = _with_border(values, goes_on=self.goes_on)
        left = padded[:, columns.below]
        wide = left + columns.share * (padded[:, columns.below + 1] - left)
        starts = np.flatnonzero(np.diff(rows.below, prepend=-1))
        most = max(_BLOCK_PIXELS // columns.count, 1)
        for start, end in zip(starts, [*starts[1:], rows.count], strict=True):
            upper = wide[rows.below[start]]
            step = wide[rows.below[start] + 1] - upper
            for first in range(start, end, most):
                last = min(first + most, end)
                block = rows.share[first:last, None] * step
                block += upper
                yield first, last, block


def _logits(values: Any) -> Any:
    """Returns the logits of float32 values from 0 to 1, at most those of the surest ones."""
    within = np.clip(values, 1 - _SUREST, _SUREST)
    return np.log(within) - np.log1p(-within)


def _with_border(values: Float32, *, goes_on: bool) -> Float32:
    """Returns what ``np.pad`` would, which takes longer than all the rest of a small mask."""
    height, width = values.shape
    padded = np.zeros((height + 2, width + 2), np.float32)
    padded[1:-1, 1:-1] = values
    if goes_on:
        padded[0], padded[-1] = padded[1], padded[-2]
        padded[:, 0], padded[:, -1] = padded[:, 1], padded[:, -2]
    return padded


@dataclass(frozen=True)
class _Axis:
    """Where the pixels of one axis lie in the small mask with one pixel around it.

    Attributes:
        first: The first pixel.
        below: The pixel of the small mask at or before each.
        share: How far each is on the way to the next one.
    """

    first: int
    below: npt.NDArray[np.intp]
    share: Float32

    @property
    def count(self) -> int:
        return len(self.below)


def _between(low: float, high: float, size: int) -> tuple[int, int]:
    """Returns the first and past the last of the pixels whose centre is in ``[low, high)``."""
    if not low < high:
        return 0, 0
    # Also a box far out of the image, of which no integer could be made, ends at the image.
    first, last = np.ceil(np.clip(np.array([low, high]) - 0.5, 0, size))
    return int(first), int(last)


@dataclass(frozen=True, kw_only=True, eq=False)
class InstanceMasks:
    """The masks of one image's detections, kept small and pasted into the image on demand.

    Attributes:
        small: One for each detection.
        threshold: A pixel whose value exceeds it belongs to the object.
        image_size_hw: Height and width of the image.
    """

    small: tuple[SmallMask, ...]
    threshold: float
    image_size_hw: tuple[int, int]

    def __len__(self) -> int:
        """Returns the number of masks."""
        return len(self.small)

    def take(self, rows: npt.ArrayLike) -> InstanceMasks:
        """Returns some of the masks, by their indices."""
        return InstanceMasks(
            small=tuple(self.small[row] for row in np.asarray(rows, np.intp).tolist()),
            threshold=self.threshold,
            image_size_hw=self.image_size_hw,
        )

    def region(self, index: int) -> MaskRegion:
        """Returns the part of the image in which a mask may have pixels, bool."""
        return self.small[index].region(self.image_size_hw, self.threshold)

    def paste(self, index: int) -> Bool:
        """Returns one mask, bool ``[H, W]``, in a new array."""
        mask = np.zeros(self.image_size_hw, np.bool_)
        region = self.region(index)
        mask[region.slices] = region.pixels
        return mask

    def paste_all(self) -> Bool:
        """Returns every mask, bool ``[n, H, W]``, in a new array."""
        masks = np.zeros((len(self), *self.image_size_hw), np.bool_)
        for index, mask in enumerate(masks):
            region = self.region(index)
            mask[region.slices] = region.pixels
        return masks

    def rle(self, index: int) -> dict[str, Any]:
        """Returns one mask in COCO's run-length encoding, ``size`` and ``counts``."""
        region = self.region(index)
        return encode_rle(region.pixels, self.image_size_hw, top=region.top, left=region.left)


def place_masks(
    values: npt.NDArray[Any],
    boxes_xyxy: npt.ArrayLike,
    transform: ImageTransform,
    spec: MaskSpec,
) -> InstanceMasks:
    """Says where in an image the masks of a network lie.

    Args:
        values: ``[n, h, w]``, 0 to 1; what is needed of it is copied.
        boxes_xyxy: ``[n, 4]``, in pixels of the network's input, as the network gave them.
        transform: How the image lies in the network's input.
        spec: What the masks span.
    """
    # Not clipped: a mask spans its whole box, also where that reaches out of the image.
    boxes = transform.to_image_unclipped(boxes_xyxy).astype(np.float64)
    height, width = transform.network_size_hw
    whole = transform.to_image_unclipped([[0, 0, width, height]])[0].astype(np.float64)
    by_logits = spec.interpolate == "logits"
    small = []
    for mask, box in zip(values, boxes, strict=True):
        if spec.frame == "image" and spec.cut_to_box:
            small.append(_cut(mask, whole, box, by_logits=by_logits))
            continue
        frame = box if spec.frame == "box" else whole
        copied = np.array(mask, np.float32, order="C")
        goes_on = spec.frame == "image"
        small.append(
            SmallMask(
                values=copied, frame_xyxy=_rectangle(frame), goes_on=goes_on, by_logits=by_logits
            )
        )
    return InstanceMasks(
        small=tuple(small), threshold=spec.threshold, image_size_hw=transform.image_size_hw
    )


def _cut(values: npt.NDArray[Any], frame: Float64, box: Float64, *, by_logits: bool) -> SmallMask:
    """Returns the part of a mask of the whole input that its box needs, copied."""
    height, width = values.shape
    cell = (frame[2:] - frame[:2]) / (width, height)
    # The box's edges in pixels of the mask, whose centres lie at whole numbers.
    edges = (box.reshape(2, 2) - frame[:2]) / cell - 0.5
    edges = np.clip(np.nan_to_num(edges), 0, np.array([width, height]) - 1)
    (x1, y1), (x2, y2) = np.floor(edges[0]).astype(int), np.ceil(edges[1]).astype(int)
    x2, y2 = max(x2, x1) + 1, max(y2, y1) + 1
    corners = np.concatenate([frame[:2] + cell * (x1, y1), frame[:2] + cell * (x2, y2)])
    return SmallMask(
        values=np.array(values[y1:y2, x1:x2], np.float32, order="C"),
        frame_xyxy=_rectangle(corners),
        limits_xyxy=_rectangle(box),
        goes_on=True,
        by_logits=by_logits,
    )


def _rectangle(corners: Float64) -> Rectangle:
    x1, y1, x2, y2 = corners.tolist()
    return x1, y1, x2, y2
