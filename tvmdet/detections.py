"""What a detector found in one image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from tvmdet.arguments import check_kind
from tvmdet.counted import counted
from tvmdet.errors import InputError
from tvmdet.keypoints import Keypoint, Keypoints, json_number, no_keypoints
from tvmdet.masks import InstanceMasks
from tvmdet.spec import DetectorSpec

__all__ = ["Detection", "Detections"]


_SHOWN = 5  # objects in a repr


class _Fields(NamedTuple):
    box_xyxy: tuple[float, float, float, float]
    score: float
    class_id: int
    label: str


class Detection(_Fields):
    """One found object; a tuple of its box, score, class id and label.

    Attributes:
        box_xyxy: x1 y1 x2 y2, in pixels of the original image.
        score: Confidence, 0 to 1.
        class_id: Index into the detector's labels.
        label: Name of the class.
    """

    _masks: InstanceMasks | None = None
    _keypoints: Keypoints | None = None
    _corners: npt.NDArray[np.float32] | None = None
    _index: int = 0

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_] | None:
        """Which pixels of the image are the object's, bool ``[H, W]``; None without masks.

        Made when asked for the first time.
        """
        return None if self._masks is None else self._masks.paste(self._index)

    @cached_property
    def keypoints(self) -> dict[str, Keypoint] | None:
        """The object's points by name, x, y and score; None without keypoints."""
        return None if self._keypoints is None else self._keypoints.of(self._index)

    @property
    def corners(self) -> npt.NDArray[np.float32] | None:
        """The corners of an oriented box, float32 ``[4, 2]``, a view; None of other boxes."""
        return None if self._corners is None else self._corners[self._index]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Detections:
    """The objects found in one image, best score first.

    Attributes:
        boxes_xyxy: float32 ``[n, 4]``, x1 y1 x2 y2 in pixels of the original image, clipped
            to it. Of an oriented box the smallest such box around it.
        scores: float32 ``[n]``, 0 to 1.
        class_ids: int32 ``[n]``.
        labels: Class name of each box.
        image_size_hw: Height and width of the original image; (0, 0) when it could not be
            read.
        source: Path of the image, or None when it came as an array.
        error: Why the image could not be used, or None. There are no boxes then.
        instance_masks: The masks as the network computed them, small; None where the detector
            has none. :attr:`masks` and :meth:`mask_rles` paste them into the image.
        keypoints: The points of each object: ``keypoints.xy`` float32 ``[n, P, 2]`` in pixels of
            the original image, ``keypoints.scores`` float32 ``[n, P]`` or None,
            ``keypoints.names``; None where the detector has none.
        corners: Of oriented boxes float32 ``[n, 4, 2]``, x y of each corner in pixels of the
            original image, not clipped: the one that is top left before the box is turned, then
            clockwise. None where the detector's boxes are not oriented.
    """

    boxes_xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int32]
    labels: tuple[str, ...]
    image_size_hw: tuple[int, int]
    source: str | None = None
    error: str | None = None
    instance_masks: InstanceMasks | None = None
    keypoints: Keypoints | None = None
    corners: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        """Rejects arrays that do not belong together."""
        for name in ("boxes_xyxy", "scores", "class_ids"):
            check_kind(getattr(self, name), np.ndarray, name, "a numpy array")
        check_kind(self.labels, tuple, "labels", "a tuple of class names")
        check_kind(self.image_size_hw, tuple, "image_size_hw", "a tuple of height and width")
        n = len(self.labels)
        shapes = (self.boxes_xyxy.shape, self.scores.shape, self.class_ids.shape)
        if shapes != ((n, 4), (n,), (n,)):
            raise InputError(
                f"boxes, scores and class ids have shapes {shapes}, beside {counted(n, 'label')}; "
                f"allowed: ({n}, 4), ({n},), ({n},)"
            )
        masks = self.instance_masks
        if masks is not None and (len(masks), masks.image_size_hw) != (n, self.image_size_hw):
            raise InputError(
                f"got {counted(len(masks), 'mask')} in an image of {masks.image_size_hw}; "
                f"allowed: {n} in one of {self.image_size_hw}"
            )
        if self.keypoints is not None and len(self.keypoints) != n:
            raise InputError(
                f"got keypoints of {counted(len(self.keypoints), 'object')}; allowed: of {n}"
            )

        if self.corners is not None and self.corners.shape != (n, 4, 2):
            raise InputError(f"corners have the shape {self.corners.shape}; allowed: ({n}, 4, 2)")

    @classmethod
    def empty(
        cls,
        image_size_hw: tuple[int, int],
        *,
        source: str | None = None,
        error: str | None = None,
        spec: DetectorSpec | None = None,
    ) -> Detections:
        """Returns a result without boxes; with a ``spec``, as that detector's.

        A detector with masks, keypoints or corners has none of them then, where others have None.
        """
        with_masks = spec is not None and spec.masks is not None
        none = InstanceMasks(small=(), threshold=0.5, image_size_hw=image_size_hw)
        return cls(
            boxes_xyxy=np.zeros((0, 4), dtype=np.float32),
            scores=np.zeros(0, dtype=np.float32),
            class_ids=np.zeros(0, dtype=np.int32),
            labels=(),
            image_size_hw=image_size_hw,
            source=source,
            error=error,
            instance_masks=none if with_masks else None,
            keypoints=None
            if spec is None or spec.keypoints is None
            else no_keypoints(spec.keypoints),
            corners=np.zeros((0, 4, 2), np.float32) if spec is not None and spec.oriented else None,
        )

    @cached_property
    def masks(self) -> npt.NDArray[np.bool_] | None:
        """Which pixels of the image are each object's, bool ``[n, H, W]``; None without masks.

        Made when asked for the first time, and kept: a byte for each pixel of the image and
        object. The masks of many objects in a large image take less one by one, as
        ``detection.mask`` in a loop, or as :meth:`mask_rles`.
        """
        return None if self.instance_masks is None else self.instance_masks.paste_all()

    def mask_rles(self) -> list[dict[str, Any]] | None:
        """Returns the masks in COCO's run-length encoding; None without masks.

        Each is a dict of ``size``, height and width of the image, and ``counts``, text, as
        pycocotools takes it.
        """
        masks = self.instance_masks
        return None if masks is None else [masks.rle(index) for index in range(len(masks))]

    def __repr__(self) -> str:
        """Returns one line: the best objects, of which image, and why not."""
        best = [
            f"{label} {score:.2f}" for label, score in zip(self.labels, self.scores, strict=True)
        ]
        shown = ", ".join([*best[:_SHOWN], *(["..."] if len(best) > _SHOWN else [])])
        height, width = self.image_size_hw
        of = f"of {self.source!r}" if self.source else "of an array"
        what = f"{counted(len(self), 'object')}{f': {shown}' if shown else ''}"
        why = f"; error: {self.error}" if self.error else ""
        return f"<Detections {of}, {height}x{width}: {what}{why}>"

    def __len__(self) -> int:
        """Returns the number of boxes."""
        return len(self.labels)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Detection: ...

    @overload
    def __getitem__(self, index: slice) -> list[Detection]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Detection | list[Detection]:
        """Returns one box, or a list of some: ``found[0]`` is the one of the best score."""
        return list(self)[index]

    def __iter__(self) -> Iterator[Detection]:
        """Yields the boxes one by one, best score first."""
        rows = zip(
            self.boxes_xyxy.tolist(),
            self.scores.tolist(),
            self.class_ids.tolist(),
            self.labels,
            strict=True,
        )
        for index, ((x1, y1, x2, y2), score, class_id, label) in enumerate(rows):
            found = Detection((x1, y1, x2, y2), score, class_id, label)
            found._masks, found._index = self.instance_masks, index
            found._keypoints, found._corners = self.keypoints, self.corners
            yield found

    def filter(self, *, score: float) -> Detections:
        """Returns only the boxes whose score exceeds ``score`` (0 to 1), in new arrays.

        Raises:
            InputError: ``score`` is not between 0 and 1.
        """
        if not 0.0 <= score <= 1.0:
            raise InputError(f"score is {score}; allowed: 0 to 1")
        kept = np.flatnonzero(self.scores > score)
        masks = self.instance_masks
        return Detections(
            boxes_xyxy=self.boxes_xyxy[kept],
            scores=self.scores[kept],
            class_ids=self.class_ids[kept],
            labels=tuple(self.labels[index] for index in kept.tolist()),
            image_size_hw=self.image_size_hw,
            source=self.source,
            error=self.error,
            instance_masks=None if masks is None else masks.take(kept),
            keypoints=None if self.keypoints is None else self.keypoints.take(kept),
            corners=None if self.corners is None else self.corners[kept],
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as plain JSON values.

        Masks are under ``mask_rle``, keypoints under ``keypoints``, each with ``name``, ``xy`` and
        ``score``, which is null where the network gives none, the corners of oriented boxes under
        ``corners_xy``.
        """
        entries: list[dict[str, Any]] = [
            {
                "label": found.label,
                "class_id": found.class_id,
                "score": found.score,
                "box_xyxy": list(found.box_xyxy),
            }
            for found in self
        ]
        for entry, rle in zip(entries, self.mask_rles() or (), strict=False):
            entry["mask_rle"] = rle
        if self.keypoints is not None:
            for index, entry in enumerate(entries):
                entry["keypoints"] = self.keypoints.to_dicts(index)
        if self.corners is not None:
            for corners, entry in zip(self.corners.tolist(), entries, strict=True):
                entry["corners_xy"] = [[json_number(x), json_number(y)] for x, y in corners]
        return {
            "source": self.source,
            "error": self.error,
            "image_size_hw": list(self.image_size_hw),
            "detections": entries,
        }

    def to_supervision(self) -> Any:
        """Returns the result as ``supervision.Detections``, labels under ``class_name``.

        Keypoints are under ``keypoints_xy`` and ``keypoint_scores`` in its ``data``, ``[n, P, 2]``
        and ``[n, P]``; the corners of oriented boxes under ``xyxyxyxy``, ``[n, 4, 2]``, where
        supervision seeks them.

        Raises:
            InputError: The package ``supervision`` is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise InputError(
                "to_supervision() needs the package supervision, which cannot be imported; "
                "install it with: pip install supervision"
            ) from error
        data: dict[str, npt.NDArray[Any]] = {"class_name": np.array(self.labels, dtype=np.str_)}
        if self.keypoints is not None:
            data["keypoints_xy"] = self.keypoints.xy.copy()
            if self.keypoints.scores is not None:
                data["keypoint_scores"] = self.keypoints.scores.copy()
        if self.corners is not None:
            data["xyxyxyxy"] = self.corners.copy()
        return supervision.Detections(
            xyxy=self.boxes_xyxy.copy(),
            mask=None if self.masks is None else self.masks.copy(),
            confidence=self.scores.copy(),
            class_id=self.class_ids.astype(np.int64),
            data=data,
        )

    def draw(self, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Draws the boxes, labels and scores, and masks and keypoints where there are any.

        Of oriented boxes the four sides are drawn.

        Of keypoints with a score those are drawn that score 0.5 or more.

        Args:
            image: The image that was searched: BGR, BGRA or grey, 8 or 16 bit. It is not
                changed.

        Returns:
            A new BGR uint8 image of the same size, owned by the caller.

        Raises:
            InputError: The array is not an image.
        """
        # cv2 takes a tenth of a second to import, which a reader of JSON need not pay.
        from tvmdet.runtime.drawing import draw_detections

        return draw_detections(self, image)
