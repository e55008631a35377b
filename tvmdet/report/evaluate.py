"""The whole evaluation: detect in annotated pictures, compare, and the same in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmdet.counted import counted
from tvmdet.detections import Detections
from tvmdet.errors import InputError
from tvmdet.report.coco import Annotations, CocoImage, read_annotations
from tvmdet.report.coco_metrics import Backend, Figures, Kind, find_backend, measure
from tvmdet.report.eval_classes import ClassMap, map_classes
from tvmdet.report.eval_keypoints import AnnotatedPoints, map_points
from tvmdet.report.eval_results import EvalReport, ReferenceFigures
from tvmdet.report.subject import sha256_of
from tvmdet.runtime import Detector, load
from tvmdet.sizes import size_text

__all__ = ["EvalOptions", "evaluate"]

_CHUNK = 16  # pictures of one call, at least
_COUNTED = 100  # detections of a class in a picture that COCO's figures count


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """What to evaluate, and how.

    Attributes:
        annotations: A JSON file in COCO's format.
        images: The folder of the pictures.
        onnx: What the file was compiled from: run it too, and compare. None: do not.
        score: Count detections that score more than this, 0 to 1. Low, because average precision
            asks how precision falls as recall rises.
        sigmas: How far each keypoint may be off, as a share of the object's size, in the order of
            the detector's points; None for COCO's, or one over their number.
        iou: Drop the weaker of two boxes that overlap more; None for what the file says.
        classes_by: How classes are told: ``name``, ``id`` or ``order``.
        limit: Take the first so many pictures; None for all.
        max_drop: By how much AP may differ from that of ONNX Runtime.
        threads: To compute with; None for every usable CPU.
        target: Whose code to run; None for the best.
        backend: ``faster-coco-eval`` or ``pycocotools``; None for what is installed.
    """

    annotations: Path
    images: Path
    onnx: Path | None = None
    score: float = 0.001
    sigmas: tuple[float, ...] | None = None
    iou: float | None = None
    classes_by: str = "name"
    limit: int | None = None
    max_drop: float = 0.001
    threads: int | None = None
    target: str | None = None
    backend: str | None = None


def evaluate(
    path: str | Path,
    options: EvalOptions,
    *,
    say: Callable[[str], None] = lambda _line: None,
    progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None,
    command: Sequence[str] = (),
) -> EvalReport:
    """Measures how well a compiled detector finds what is annotated, as COCO does.

    Args:
        path: A ``.tvmdet`` file.
        options: What to evaluate.
        say: Called with one line at the start of each step.
        progress: Called with what runs, and how many pictures of how many are done.
        command: What was typed, for the report.

    Raises:
        InputError: Neither package for COCO's figures is installed, the annotations cannot be
            used, a picture is missing or damaged, no class is a category, or ``onnx`` is not what
            the file was compiled from.
        ArtifactError: The file cannot be run.
        TargetError: This machine cannot run it.
        ModelError: The ONNX file cannot be used.
    """
    # Anything that may be missing is looked for before anything that takes long.
    backend = find_backend(options.backend)
    say(f"reading {options.annotations}")
    annotations = read_annotations(options.annotations, options.images, limit=options.limit)
    with load(path, threads=options.threads, target=options.target) as detector:
        run = _Run(path, detector, annotations, options, backend, say, progress)
        return run.report(tuple(command))


class _Run:
    def __init__(
        self,
        path: str | Path,
        detector: Detector,
        annotations: Annotations,
        options: EvalOptions,
        backend: Backend,
        say: Callable[[str], None],
        progress: Callable[[str, int, int], None],
    ) -> None:
        if detector.spec.family == "raw":
            raise InputError(
                f"{path} was compiled with --raw and finds no boxes; compile it without --raw"
            )
        if detector.spec.oriented:
            raise InputError(
                f"{path} finds oriented boxes, and COCO's figures are of upright ones; compare "
                "Detections.corners with a tool for your annotations, such as DOTA's"
            )
        self._path = path
        self._detector = detector
        self._annotations = annotations
        self._options = options
        self._backend = backend
        self._say = say
        self._progress = progress
        self._classes: ClassMap = map_classes(
            detector.labels,
            annotations.categories,
            options.classes_by,
            {one.category_id for one in annotations.objects},
        )
        self._with_masks = detector.spec.masks is not None and not annotations.without_mask
        self._points = self._annotated_points()
        default = detector.spec.postprocess.iou_threshold
        self._iou = default if options.iou is None else options.iou

    def report(self, command: tuple[str, ...]) -> EvalReport:
        reference = self._open_reference()
        self._say(f"detecting in {counted(len(self._annotations.images), 'picture')}")
        mine = self._figures(self._compiled(), "detecting")
        theirs = None
        if reference is not None:
            self._say(f"the same in {reference.version}")
            found = (
                reference.detect(image.path, self._options.score, self._iou)
                for image in self._annotations.images
            )
            right = self._figures(found, "ONNX Runtime")
            theirs = ReferenceFigures(runtime=reference.version, figures=right)
        return EvalReport(
            artifact=str(self._path),
            artifact_sha256=sha256_of(Path(self._path)),
            model=self._detector.manifest["model"],
            target=self._detector.target,
            annotations=str(self._annotations.path),
            images=len(self._annotations.images),
            objects=sum(not one.is_crowd for one in self._annotations.objects),
            score=self._options.score,
            iou=self._iou,
            backend=self._backend.name,
            figures=mine,
            sigmas=None if self._points is None else self._points.sigmas,
            reference=theirs,
            max_drop=self._options.max_drop,
            warnings=(*self._classes.warnings, *self._remarks()),
            command=command,
        )

    def _open_reference(self) -> Any:
        if self._options.onnx is None:
            return None
        # Without a reference to compare with, nothing of onnx and ONNX Runtime is imported.
        from tvmdet.report.eval_reference import ReferenceDetector

        self._say(f"importing {self._options.onnx}")
        return ReferenceDetector(self._path, self._options.onnx, self._options.threads)

    def _compiled(self) -> Iterator[Detections]:
        """Yields the detections of each picture."""
        images = self._annotations.images
        step = max(_CHUNK, 2 * self._detector.batch_sizes[-1])
        for start in range(0, len(images), step):
            yield from self._detector.detect(
                [image.path for image in images[start : start + step]],
                score=self._options.score,
                iou=self._iou,
            )

    def _annotated_points(self) -> AnnotatedPoints | None:
        spec = self._detector.spec.keypoints
        if spec is not None:
            found = self._classes.categories.values()
            return map_points(spec, self._annotations, found, self._options.sigmas)
        if self._options.sigmas is not None:
            raise InputError(
                f"{self._path} finds no keypoints, which sigmas are for; leave --sigmas out"
            )
        return None

    def _figures(self, results: Iterator[Detections], what: str) -> dict[Kind, Figures]:
        images = self._annotations.images
        records: list[dict[str, Any]] = []
        sizes: dict[int, tuple[int, int]] = {}
        for done, (image, found) in enumerate(zip(images, results, strict=True), start=1):
            sizes[image.id] = _checked_size(image, found)
            records += self._records(image, found)
            self._progress(what, done, len(images))
        self._say(f"computing average precision of {counted(len(records), 'detection')}")
        kinds: dict[Kind, tuple[Annotations, tuple[float, ...]]] = {
            "boxes": (self._annotations, ())
        }
        if self._with_masks:
            kinds["masks"] = self._annotations, ()
        if self._points is not None:
            kinds["keypoints"] = self._points.annotations, self._points.sigmas
        return {
            kind: measure(annotations, records, sizes, kind, self._backend, sigmas)
            for kind, (annotations, sigmas) in kinds.items()
        }

    def _records(self, image: CocoImage, found: Detections) -> Iterator[dict[str, Any]]:
        for index, one in enumerate(found):
            if one.class_id not in self._classes.categories:
                continue
            x1, y1, x2, y2 = one.box_xyxy
            record = {
                "image_id": image.id,
                "category_id": self._classes.categories[one.class_id],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": one.score,
            }
            if self._with_masks and found.instance_masks is not None:
                record["segmentation"] = found.instance_masks.rle(index)
            if self._points is not None and found.keypoints is not None:
                xy = found.keypoints.xy[index].tolist()
                record["keypoints"] = [value for x, y in xy for value in (x, y, 1)]
            yield record

    def _remarks(self) -> Iterator[str]:
        rows = self._detector.spec.postprocess.max_detections
        if rows < _COUNTED:
            yield (
                f"the file reports at most {counted(rows, 'object')} of a picture, and COCO's "
                f"figures count {_COUNTED} of each class; compile it with a greater "
                "max_detections in --spec where pictures have more"
            )
        if self._detector.spec.masks is not None and not self._with_masks:
            yield (
                "there are no figures of masks: "
                f"{counted(self._annotations.without_mask, 'annotation')} without a segmentation"
            )
        if self._detector.spec.keypoints is not None and self._points is None:
            yield "there are no figures of keypoints: none is annotated"
        if self._points is not None:
            yield from self._points.warnings
        if not any(not one.is_crowd for one in self._annotations.objects):
            yield "there are no objects in the pictures, so that there are no figures"


def _checked_size(image: CocoImage, found: Detections) -> tuple[int, int]:
    """Returns height and width of a picture.

    Raises:
        InputError: It could not be used, or it is not the picture that was annotated.
    """
    if found.error is not None:
        raise InputError(
            f"{found.error}; figures without it would be those of other pictures: repair it, or "
            "take it out of the annotations"
        )
    height, width = found.image_size_hw
    if image.size_hw is not None and image.size_hw != (height, width):
        advice = "give --images the pictures that were annotated"
        if image.size_hw == (width, height):
            advice = (
                "if its EXIF orientation turned it upright, annotate the upright picture, or "
                "remove the orientation"
            )
        raise InputError(
            f"picture {image.path} is {size_text((height, width))} and its annotations say "
            f"{image.size_hw[0]}x{image.size_hw[1]}, so that their boxes do not fit: {advice}"
        )
    return height, width
