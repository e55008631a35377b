"""Images of any sizes go through the compiled batch sizes and come back as detections."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tvmdet.boxes import ImageTransform
from tvmdet.detections import Detections
from tvmdet.errors import InputError
from tvmdet.keypoints import place_keypoints
from tvmdet.masks import place_masks
from tvmdet.oriented import boxes_around, place_corners
from tvmdet.runtime.batches import plan_batches
from tvmdet.runtime.buffers import BufferPool
from tvmdet.runtime.images import Image, Source, load_image, source_name
from tvmdet.runtime.memory import aligned_empty
from tvmdet.runtime.native import Arrays, Copy, copy_all
from tvmdet.runtime.resize import place_image
from tvmdet.spec import DetectorSpec

__all__ = ["ImageBatcher", "Lap"]

_log = logging.getLogger(__name__)

Submit: TypeAlias = Callable[[str, Arrays, Copy, Callable[[], None] | None], Future[Arrays]]
Lap: TypeAlias = Callable[[str], None]
"""Told the name of each phase as it ends: decode, resize, queue, network, map."""


def _copy_counted(results: Arrays) -> Arrays:
    """Copies the rows in use: those of masks may be most of the memory that a call touches."""
    *rows, masks = results  # masks come last
    counts = rows[3]
    most = int(counts.max(initial=0))
    return *(array.copy() for array in rows), masks[:, :most].copy()


def _no_lap(_phase: str) -> None:
    """Takes no time."""


@dataclass(frozen=True, kw_only=True)
class _Buffers:
    images: Image
    thresholds: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """What is known of one image before the network has run."""

    source: str | None
    transform: ImageTransform | None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Running:
    """A batch that was handed to the native thread."""

    rows: tuple[_Row, ...]
    size: int
    buffers: _Buffers
    outputs: Future[Arrays]


class ImageBatcher:
    """Prepares images, runs them in batches and maps their boxes back."""

    def __init__(
        self, spec: DetectorSpec, batch_sizes: Sequence[int], submit: Submit, run: Submit
    ) -> None:
        """Takes what the images are prepared for.

        Args:
            spec: The detector's input, labels and post-processing.
            batch_sizes: The compiled batch sizes.
            submit: Starts a compiled function on arrays.
            run: The same, where its result is waited for.
        """
        self._spec = spec
        self._batch_sizes = tuple(batch_sizes)
        self._submit = submit
        self._run = run
        self._buffers = BufferPool(self._make_buffers)

    def detect_one(
        self, source: Source, thresholds: tuple[float, float], lap: Lap | None = None
    ) -> Detections:
        """Returns the detections of one image, and tells ``lap`` of each phase as it ends.

        Raises:
            InputError: The image cannot be used.
        """
        # Told by whichever thread computes, while this one only waits.
        dequeued = None if lap is None else partial(lap, "queue")
        lap = lap or _no_lap
        image = load_image(source)
        lap("decode")
        (batch,) = plan_batches(1, self._batch_sizes)
        buffers = self._buffers.lend(batch.size)
        row = self._place(image, source, buffers.images[0])
        lap("resize")
        running = self._start(self._run, (row,), batch.size, buffers, thresholds, dequeued)
        running.outputs.result()
        lap("network")
        (found,) = self._finish(running)
        lap("map")
        return found

    def detect_many(
        self, sources: Sequence[Source], thresholds: tuple[float, float]
    ) -> list[Detections]:
        """Returns the detections of each image; those of an unusable image have an error.

        While the network computes one batch, the next one is decoded and resized.
        """
        results: list[Detections] = []
        running: _Running | None = None
        taken = 0
        for batch in plan_batches(len(sources), self._batch_sizes):
            buffers = self._buffers.lend(batch.size)
            rows = tuple(
                self._place_or_report(source, buffers.images[index])
                for index, source in enumerate(sources[taken : taken + batch.images])
            )
            taken += batch.images
            started = self._start(self._submit, rows, batch.size, buffers, thresholds)
            if running is not None:
                results += self._finish(running)
            running = started
        if running is not None:
            results += self._finish(running)
        return results

    def _make_buffers(self, size: int) -> _Buffers:
        return _Buffers(
            images=aligned_empty((size, *self._spec.input.size_hw, 3), np.uint8),
            thresholds=aligned_empty((2,), np.float32),
        )

    def _place(self, image: Image, source: object, out: Image) -> _Row:
        height, width = image.shape[:2]
        spec = self._spec.input
        transform = ImageTransform.for_image((height, width), spec)
        place_image(image, transform, spec.border_bgr, out, spec.interpolation)
        return _Row(source=source_name(source), transform=transform)

    def _place_or_report(self, source: Source, out: Image) -> _Row:
        try:
            return self._place(load_image(source), source, out)
        except InputError as error:
            _log.warning("image left out: %s", error)
            out[...] = 0
            return _Row(source=source_name(source), transform=None, error=str(error))

    def _start(
        self,
        start: Submit,
        rows: tuple[_Row, ...],
        size: int,
        buffers: _Buffers,
        thresholds: tuple[float, float],
        dequeued: Callable[[], None] | None = None,
    ) -> _Running:
        buffers.images[len(rows) :] = 0
        buffers.thresholds[...] = thresholds
        copy = copy_all if self._spec.masks is None else _copy_counted
        arrays = (buffers.images, buffers.thresholds)
        outputs = start(f"detect_b{size}", arrays, copy, dequeued)
        return _Running(rows=rows, size=size, buffers=buffers, outputs=outputs)

    def _finish(self, running: _Running) -> list[Detections]:
        results = running.outputs.result()
        self._buffers.give_back(running.size, running.buffers)
        return [
            Detections.empty((0, 0), source=row.source, error=row.error, spec=self._spec)
            if row.transform is None
            else self._read(row, row.transform, tuple(array[index] for array in results))
            for index, row in enumerate(running.rows)
        ]

    def _read(self, row: _Row, transform: ImageTransform, results: Arrays) -> Detections:
        """Returns the detections of one image, from its rows of the compiled function's results."""
        boxes, scores, class_ids, count, *more = results
        boxes, ids = boxes[:count], class_ids[:count].copy()
        boxes_xyxy = transform.to_image(boxes)
        placed = points = corners = None
        if self._spec.oriented:
            corners = place_corners(boxes, more[0][:count], transform)
            boxes_xyxy = boxes_around(corners, transform.image_size_hw)
        if self._spec.masks is not None:
            placed = place_masks(more[-1][:count], boxes, transform, self._spec.masks)
        if self._spec.keypoints is not None:
            points = place_keypoints(more[0][:count], transform, self._spec.keypoints)
        return Detections(
            boxes_xyxy=boxes_xyxy,
            scores=scores[:count].copy(),
            class_ids=ids,
            labels=tuple(self._spec.labels[class_id] for class_id in ids.tolist()),
            image_size_hw=transform.image_size_hw,
            source=row.source,
            instance_masks=placed,
            keypoints=points,
            corners=corners,
        )
