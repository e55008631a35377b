"""A loaded detector: images in, detections out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import numpy.typing as npt

from tvmdet.artifact import Artifact, TargetEntry
from tvmdet.counted import counted
from tvmdet.detections import Detections
from tvmdet.errors import InputError
from tvmdet.runtime.native import Arrays, Copy, Module, copy_all
from tvmdet.runtime.raw import RawRunner, RawSignature
from tvmdet.runtime.threads import NativeThread
from tvmdet.sizes import size_text
from tvmdet.spec import DetectorSpec

if TYPE_CHECKING:
    from tvmdet.runtime.image_batches import ImageBatcher
    from tvmdet.runtime.images import Image, Source
    from tvmdet.runtime.video import VideoSource

__all__ = ["Detector"]


class Detector:
    """A compiled detector, ready to run; made by :func:`tvmdet.load`.

    It may be used from several threads. Calls are run one after the other, each with all of
    the detector's threads; the images of one call are prepared while another computes.

    Attributes:
        spec: The detector's input, labels and post-processing.
        manifest: Everything that the file says about itself, as plain JSON values.
        target: Name of the target whose compiled code is used.
        threads: Threads that it computes with.
        batch_sizes: The batch sizes that were compiled, smallest first.
    """

    def __init__(
        self,
        *,
        artifact: Artifact,
        spec: DetectorSpec,
        target: TargetEntry,
        explanation: str,
        module: Module,
        thread: NativeThread,
        signature: RawSignature | None = None,
    ) -> None:
        """Takes what :func:`tvmdet.runtime.load` has loaded and checked."""
        self.spec = spec
        self.manifest: Mapping[str, Any] = artifact.manifest
        self.target = target.name
        self._explanation = explanation
        self.threads = thread.workers
        self.batch_sizes: tuple[int, ...] = tuple(sorted(self.manifest["batch_sizes"]))
        self._name = str(artifact.path)
        self._planned_bytes = dict(target.planned_bytes)
        self._thread = thread
        self._module: Module | None = module
        # Their callers wait, and may compute by themselves.
        self._run = partial(self._submit, waits=True)
        self._raw = None if signature is None else RawRunner(signature, self._run, self._name)
        self._batcher = self._make_batcher() if signature is None else None

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, by class id."""
        return self.spec.labels

    @property
    def memory(self) -> dict[int, int]:
        """Working memory in bytes that was planned at compile time, by batch size."""
        return dict(self._planned_bytes)

    # A str is an Iterable too; the first overload that fits wins.
    @overload
    def detect(  # type: ignore[overload-overlap]
        self, sources: Source, *, score: float | None = None, iou: float | None = None
    ) -> Detections: ...

    @overload
    def detect(
        self, sources: Iterable[Source], *, score: float | None = None, iou: float | None = None
    ) -> list[Detections]: ...

    def detect(
        self,
        sources: Source | Iterable[Source],
        *,
        score: float | None = None,
        iou: float | None = None,
    ) -> Detections | list[Detections]:
        """Finds the objects in one image, or in several of any sizes.

        Args:
            sources: One image or several. An image is a path, the bytes of an image file, or an
                array in OpenCV's channel order: HxWx3 BGR, HxWx4 BGRA, HxWx1 or HxW grey; uint8, or
                uint16, of which the high byte is used. Arrays are not changed.
            score: Report what scores more than this, 0 to 1; None means the spec's.
            iou: Drop the weaker of two boxes that overlap more than this, 0 to 1; None means
                the spec's.

        Returns:
            For one image its detections, for several a list in the same order; arrays owned
            by the caller. An image in a list that cannot be used has ``error`` set and no
            boxes, and the others are done.

        Raises:
            InputError: The only image cannot be used, a threshold is out of range, the
                detector was compiled with ``--raw``, or it is closed.
        """
        batcher = self._image_batcher()
        thresholds = self._thresholds(score, iou)
        if isinstance(sources, str | os.PathLike | bytes | bytearray | memoryview | np.ndarray):
            return batcher.detect_one(sources, thresholds)
        # A file is iterable too: by lines.
        if not isinstance(sources, Iterable) or hasattr(sources, "read"):
            raise InputError(
                f"sources is a {type(sources).__name__}; "
                "allowed: a path, the bytes of an image file, a numpy array, or a list of those"
            )
        return batcher.detect_many(list(sources), thresholds)

    def detect_timed(
        self, source: Source, *, score: float | None = None, iou: float | None = None
    ) -> tuple[Detections, dict[str, float]]:
        """Finds the objects in one image, and says how long each phase took.

        Args:
            source: As in :meth:`detect`.
            score: As in :meth:`detect`.
            iou: As in :meth:`detect`.

        Returns:
            The detections, and seconds by phase, which add up to the whole call: ``decode`` the
            file, ``resize`` it into the network's input, ``queue`` until no other call computes,
            ``network`` (with normalisation, box decoding and suppression, which are compiled with
            it), ``map`` the boxes back and free the picture. Masks stay small until they are asked
            for, which no phase counts.

        Raises:
            InputError: As in :meth:`detect`.
        """
        batcher = self._image_batcher()
        seconds: dict[str, float] = {}
        last = time.perf_counter()

        def lap(phase: str) -> None:
            nonlocal last
            now = time.perf_counter()
            seconds[phase], last = now - last, now

        found = batcher.detect_one(source, self._thresholds(score, iou), lap)
        # The decoded picture was let go since: of 9 MB that is two milliseconds.
        seconds["map"] += time.perf_counter() - last
        return found, seconds

    def detect_video(
        self, video: VideoSource, *, score: float | None = None, iou: float | None = None
    ) -> Iterator[tuple[Image, Detections]]:
        """Finds the objects in a video, frame by frame, each frame decoded when asked for.

        Args:
            video: A path, or an opened ``cv2.VideoCapture``, which stays the caller's.
            score: As in :meth:`detect`.
            iou: As in :meth:`detect`.

        Returns:
            An iterator of frames (HxWx3 BGR uint8, owned by the caller) and detections.

        Raises:
            InputError: The video cannot be opened, or as in :meth:`detect`.
        """
        from tvmdet.runtime.video import iterate_video

        return iterate_video(video, partial(self.detect, score=score, iou=iou))

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Runs a network that was compiled with ``--raw``.

        Args:
            inputs: An array for each input that the file names, of its type and, but for the
                first dimension, of its shape. The first dimension is the batch, of any size.
                Where a tensor of the network has no batch dimension, one item is run at a
                time, and every input has exactly the shape that the file names. Arrays of a
                whole compiled batch that are contiguous, writable and on a 64-byte boundary are
                read where they lie; others are copied first.

        Returns:
            The network's outputs by name, as arrays that the caller owns.

        Raises:
            InputError: An input is missing, unknown or does not fit, the detector was not
                compiled with ``--raw``, or it is closed.
        """
        if self._raw is None:
            raise InputError(
                f"{self._name} is a detector ({self.spec.family}), not compiled with --raw; "
                "use detect(image), which takes images and returns boxes"
            )
        return self._raw.run(inputs)

    def explain(self) -> str:
        """Returns one line for each target in the file: chosen, or why not."""
        return self._explanation

    def close(self) -> None:
        """Frees the compiled code and its memory; closing twice does nothing."""
        module, self._module = self._module, None
        # In a forked child the thread is not there, and the code is the parent's to free.
        if module is not None and self._thread.is_here:
            self._thread.submit(module.close).result()

    def __enter__(self) -> Self:
        """Returns the detector itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the detector."""
        self.close()

    def __repr__(self) -> str:
        """Returns the file, family, input size, target and threads."""
        return (
            f"<Detector {self._name}: {self.spec.family} of {size_text(self.spec.input.size_hw)}, "
            f"batch sizes {list(self.batch_sizes)}, {self.target}, "
            f"{counted(self.threads, 'thread')}>"
        )

    def _make_batcher(self) -> ImageBatcher:
        # OpenCV takes more memory than all else that is imported, and arrays need none of it.
        from tvmdet.runtime.image_batches import ImageBatcher

        return ImageBatcher(self.spec, self.batch_sizes, self._submit, self._run)

    def _image_batcher(self) -> ImageBatcher:
        if self._batcher is None:
            raise InputError(
                f"{self._name} was compiled with --raw and has no boxes to report; "
                "use run({name: array}), which returns the network's outputs"
            )
        return self._batcher

    def _thresholds(self, score: float | None, iou: float | None) -> tuple[float, float]:
        return (
            _threshold("score", score, self.spec.postprocess.score_threshold),
            _threshold("iou", iou, self.spec.postprocess.iou_threshold),
        )

    def _submit(
        self,
        function: str,
        arguments: Arrays,
        copy: Copy = copy_all,
        dequeued: Callable[[], None] | None = None,
        *,
        waits: bool = False,
    ) -> Future[Arrays]:
        module = self._module
        if module is None:
            raise InputError(f"{self._name} is closed; load it again with tvmdet.load()")
        call = partial(module.call, function, arguments, copy)
        if dequeued is not None:
            call = partial(_tell, dequeued, call)
        if waits and module.runs_on_any_thread:
            return self._thread.run(call)
        return self._thread.submit(call)


def _tell(dequeued: Callable[[], None], call: Callable[[], Arrays]) -> Arrays:
    dequeued()
    return call()


def _threshold(name: str, given: float | None, default: float) -> float:
    if given is None:
        return default
    # Written so that NaN fails, as do numbers that are no numbers.
    if isinstance(given, bool) or not isinstance(given, int | float | np.number):
        raise InputError(f"{name} is {given!r}; allowed: a number from 0 to 1")
    if not 0.0 <= given <= 1.0:
        raise InputError(f"{name} is {given}; allowed: 0 to 1")
    return float(given)
