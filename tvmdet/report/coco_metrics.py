"""Average precision and recall as COCO defines them, computed by faster-coco-eval or pycocotools.

Definitions: https://cocodataset.org/#detection-eval. Both packages give the same table of
precision and recall; the figures are read from it here, so that they do not depend on which one
is installed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tvmdet.errors import InputError
from tvmdet.report.coco import Annotations

__all__ = ["FIGURES", "Backend", "ClassFigures", "Figures", "Kind", "find_backend", "measure"]

Kind = Literal["boxes", "masks", "keypoints"]

_IOU_TYPES: Mapping[Kind, str] = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}
# As both packages count them when they are told the kind.
_AREAS = ("all", "small", "medium", "large")
_AREAS_OF_POINTS = ("all", "medium", "large")
_MAX_DETECTIONS = (1, 10, 100)
_MAX_OF_POINTS = (20,)
_FIRST_IOU, _IOU_STEP = 0.5, 0.05

# Of each figure: precision or recall, IoU (None: mean of 0.50 to 0.95), area, most detections.
_Definitions = Mapping[str, tuple[str, float | None, str, int]]
_BOXES: _Definitions = {
    "AP": ("precision", None, "all", 100),
    "AP50": ("precision", 0.5, "all", 100),
    "AP75": ("precision", 0.75, "all", 100),
    "AP small": ("precision", None, "small", 100),
    "AP medium": ("precision", None, "medium", 100),
    "AP large": ("precision", None, "large", 100),
    "AR1": ("recall", None, "all", 1),
    "AR10": ("recall", None, "all", 10),
    "AR100": ("recall", None, "all", 100),
    "AR small": ("recall", None, "small", 100),
    "AR medium": ("recall", None, "medium", 100),
    "AR large": ("recall", None, "large", 100),
}
# https://cocodataset.org/#keypoints-eval: small objects have no points, 20 people are many.
_KEYPOINTS: _Definitions = {
    "AP": ("precision", None, "all", 20),
    "AP50": ("precision", 0.5, "all", 20),
    "AP75": ("precision", 0.75, "all", 20),
    "AP medium": ("precision", None, "medium", 20),
    "AP large": ("precision", None, "large", 20),
    "AR20": ("recall", None, "all", 20),
    "AR medium": ("recall", None, "medium", 20),
    "AR large": ("recall", None, "large", 20),
}
FIGURES: Mapping[Kind, tuple[str, ...]] = {
    "boxes": tuple(_BOXES),
    "masks": tuple(_BOXES),
    "keypoints": tuple(_KEYPOINTS),
}
"""Names of the figures: average precision and recall, by overlap, by area, by most detections."""


@dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """How well one class is found.

    Attributes:
        category_id: Of the annotations.
        name: Of the annotations.
        objects: Annotated ones, crowds left out.
        detections: Reported ones, however low their score.
        ap: Mean over IoU 0.50 to 0.95; None where there are no objects.
        ap50: At IoU 0.50; None likewise.
    """

    category_id: int
    name: str
    objects: int
    detections: int
    ap: float | None
    ap50: float | None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How well a detector finds what is annotated.

    Attributes:
        values: Each of ``FIGURES`` of its kind, 0 to 1; None where there are no such objects.
        classes: In the order of category ids.
    """

    values: Mapping[str, float | None]
    classes: tuple[ClassFigures, ...]

    def minus(self, other: Figures) -> dict[str, float | None]:
        """Returns by how much each figure is greater than another's."""
        return {name: _minus(value, other.values[name]) for name, value in self.values.items()}

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            **{_key(name): value for name, value in self.values.items()},
            "classes": [
                {
                    "category_id": one.category_id,
                    "name": one.name,
                    "objects": one.objects,
                    "detections": one.detections,
                    "ap": one.ap,
                    "ap50": one.ap50,
                }
                for one in self.classes
            ],
        }


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The package that computes.

    Attributes:
        name: With its version.
        coco: Its class of annotations.
        evaluator: Its class that compares two of them.
        mask: Its module of masks.
    """

    name: str
    coco: Callable[[], Any]
    evaluator: Callable[..., Any]
    mask: Any


def _key(name: str) -> str:
    return name.lower().replace(" ", "_")


def _minus(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


# Package, its modules of annotations, comparison and masks, and the class that compares.
_FASTER = ("faster_coco_eval", "faster_coco_eval", "faster_coco_eval.core.mask")
_ORIGINAL = ("pycocotools.coco", "pycocotools.cocoeval", "pycocotools.mask")
_PACKAGES = (
    ("faster-coco-eval", _FASTER, "COCOeval_faster"),
    ("pycocotools", _ORIGINAL, "COCOeval"),
)


def find_backend(name: str | None = None) -> Backend:
    """Imports the package that computes.

    Args:
        name: ``faster-coco-eval`` or ``pycocotools``; None for the first that is installed.

    Raises:
        InputError: It is not installed, or neither is.
    """
    from importlib.metadata import version

    for package, homes, evaluator in _PACKAGES:
        if name not in (None, package):
            continue
        try:
            annotations, evaluation, mask = map(importlib.import_module, homes)
        except ImportError:
            continue
        return Backend(
            name=f"{package} {version(package)}",
            coco=annotations.COCO,
            evaluator=getattr(evaluation, evaluator),
            mask=mask,
        )
    wanted = name or "faster-coco-eval or pycocotools"
    raise InputError(
        f"evaluation needs the package {wanted}, which is not installed; "
        f"install it with: pip install {name or 'faster-coco-eval'}"
    )


def measure(
    annotations: Annotations,
    records: Sequence[Mapping[str, Any]],
    sizes_hw: Mapping[int, tuple[int, int]],
    kind: Kind,
    backend: Backend,
    sigmas: Sequence[float] = (),
) -> Figures:
    """Compares detections with annotations.

    Args:
        annotations: What is in the pictures.
        records: Detections: ``image_id``, ``category_id``, ``score``, ``bbox`` (left, top, width,
            height), for masks ``segmentation``, compressed run lengths, and for keypoints
            ``keypoints``, x, y and any number of each point.
        sizes_hw: Height and width of each picture.
        kind: What has to overlap; keypoints by object keypoint similarity.
        backend: What computes.
        sigmas: How far each point may be off, as a share of the object's size; of keypoints.

    Raises:
        InputError: A segmentation cannot be used.
    """
    images = [
        {"id": image.id, "height": sizes_hw[image.id][0], "width": sizes_hw[image.id][1]}
        for image in annotations.images
    ]
    categories = [{"id": key, "name": name} for key, name in annotations.categories.items()]
    # pycocotools says what it does on stdout, where JSON may be wanted.
    with contextlib.redirect_stdout(io.StringIO()):
        right, found = (
            _dataset(backend, images, categories, entries)
            for entries in (
                _wanted(annotations, sizes_hw, kind, len(sigmas)),
                _found(records, kind, backend),
            )
        )
        evaluation = backend.evaluator(right, found, iouType=_IOU_TYPES[kind])
        # faster-coco-eval leaves out those without points.
        evaluation.params.catIds = list(annotations.categories)
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        try:
            evaluation.evaluate()
        # What the packages raise for a malformed segmentation shares no base class.
        except Exception as error:
            if kind != "masks":
                raise
            raise InputError(
                f"{annotations.path} holds a segmentation that {backend.name} cannot use: {error}"
            ) from error
        evaluation.accumulate()
    tables = {name: np.asarray(evaluation.eval[name]) for name in ("precision", "recall")}
    objects = Counter(
        one.category_id
        for one in annotations.objects
        if not one.is_crowd and (kind != "keypoints" or one.points_known)
    )
    detections = Counter(record["category_id"] for record in records)
    # Both sort categories by id, as annotations.categories is.
    return Figures(
        values={name: _figure(tables, kind, name) for name in FIGURES[kind]},
        classes=tuple(
            ClassFigures(
                category_id=key,
                name=annotations.categories[key],
                objects=objects[key],
                detections=detections[key],
                ap=_figure(tables, kind, "AP", index),
                ap50=_figure(tables, kind, "AP50", index),
            )
            for index, key in enumerate(annotations.categories)
        ),
    )


def _dataset(
    backend: Backend,
    images: list[dict[str, Any]],
    categories: list[dict[str, Any]],
    entries: list[dict[str, Any]],
) -> Any:
    # Each has dicts of its own: both packages write into them.
    numbered = [{**entry, "id": index + 1} for index, entry in enumerate(entries)]
    data = backend.coco()
    data.dataset = {
        "images": [dict(image) for image in images],
        "categories": [dict(category) for category in categories],
        "annotations": numbered,
    }
    data.createIndex()
    return data


def _wanted(
    annotations: Annotations,
    sizes_hw: Mapping[int, tuple[int, int]],
    kind: Kind,
    points_each: int,
) -> list[dict[str, Any]]:
    entries = []
    for one in annotations.objects:
        entry = {
            "image_id": one.image_id,
            "category_id": one.category_id,
            "bbox": list(one.box_xywh),
            "area": one.area,
            "iscrowd": int(one.is_crowd),
        }
        if kind == "masks":
            entry["segmentation"] = one.segmentation
            size = list(sizes_hw[one.image_id])
            if isinstance(one.segmentation, dict) and one.segmentation["size"] != size:
                raise InputError(
                    f"{annotations.path} has run lengths of size {one.segmentation['size']} in "
                    f"picture {one.image_id}, which is {size} (height, width): encode the masks of "
                    "these pictures"
                )
        if kind == "keypoints":
            # An object without points is ignored, as in COCO; the packages need their number.
            points = one.keypoints or (0.0,) * (3 * points_each)
            entry |= {"keypoints": list(points), "num_keypoints": one.points_known}
        entries.append(entry)
    return entries


def _found(
    records: Sequence[Mapping[str, Any]], kind: Kind, backend: Backend
) -> list[dict[str, Any]]:
    """Returns detections with their area, as ``COCO.loadRes`` adds it."""
    entries = []
    for record in records:
        _, _, width, height = record["bbox"]
        entry = {key: record[key] for key in ("image_id", "category_id", "score", "bbox")}
        entry |= {"area": width * height, "iscrowd": 0}
        if kind == "masks":
            entry["segmentation"] = record["segmentation"]
            entry["area"] = float(backend.mask.area(record["segmentation"]))
        elif kind == "keypoints":
            # Its box and size are those of its points: where they are, is what is judged.
            x, y = record["keypoints"][0::3], record["keypoints"][1::3]
            left, top, wide, high = min(x), min(y), max(x) - min(x), max(y) - min(y)
            entry |= {"bbox": [left, top, wide, high], "area": wide * high}
            entry["keypoints"] = list(record["keypoints"])
        entries.append(entry)
    return entries


def _figure(
    tables: Mapping[str, npt.NDArray[np.float64]],
    kind: Kind,
    name: str,
    category: int | None = None,
) -> float | None:
    """Returns the mean over what is asked of; -1 in a table stands for no objects."""
    points = kind == "keypoints"
    which, iou, area, most = (_KEYPOINTS if points else _BOXES)[name]
    areas, counts = (_AREAS_OF_POINTS, _MAX_OF_POINTS) if points else (_AREAS, _MAX_DETECTIONS)
    # Axes of precision: IoU, recall, category, area, most detections; recall has no second one.
    table = tables[which][..., areas.index(area), counts.index(most)]
    if iou is not None:
        table = table[[round((iou - _FIRST_IOU) / _IOU_STEP)]]
    if category is not None:
        table = table[..., category]
    known = table[table > -1]
    return float(known.mean()) if known.size else None
