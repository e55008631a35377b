"""Which annotated points a detector's points are, and how far off each of them may be.

Object keypoint similarity: https://cocodataset.org/#keypoints-eval.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tvmdet.coco_names import COCO_KEYPOINTS, plain_class_name
from tvmdet.counted import counted
from tvmdet.errors import InputError
from tvmdet.report.coco import Annotations, check_keypoints
from tvmdet.spec import KeypointSpec

__all__ = ["COCO_SIGMAS", "AnnotatedPoints", "map_points"]

# Of COCO_KEYPOINTS.
COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
"""How far annotators' hands lie apart, as a share of the object's size, the root of its area."""

_PLAIN_COCO = tuple(map(plain_class_name, COCO_KEYPOINTS))


@dataclass(frozen=True, kw_only=True)
class AnnotatedPoints:
    """Annotations whose points are a detector's.

    Attributes:
        annotations: With the points of each object in the detector's order.
        sigmas: Of each point, as a share of the object's size.
        warnings: What may be other than it seems, one sentence each.
    """

    annotations: Annotations
    sigmas: tuple[float, ...]
    warnings: tuple[str, ...] = ()


def map_points(
    spec: KeypointSpec,
    annotations: Annotations,
    categories: Iterable[int],
    sigmas: Sequence[float] | None = None,
) -> AnnotatedPoints | None:
    """Finds the annotated point of each of a detector's points.

    Where a category names its points and these are the detector's names, by name; else by order.

    Args:
        spec: The detector's points.
        annotations: What is in the pictures.
        categories: Ids of those that the detector finds.
        sigmas: Of each of the detector's points; None for COCO's where the points are COCO's,
            else one over their number, as Ultralytics does.

    Returns:
        None where no object has an annotated point.

    Raises:
        InputError: The annotations have another number of points, or the sigmas do not fit.
    """
    count, found = len(spec.names), set(categories)
    checked = []
    for one in annotations.objects:
        # Points of what the detector does not find are never looked at.
        where = f"{annotations.path}: an object of picture {one.image_id}"
        points = check_keypoints(one.keypoints, where) if one.category_id in found else None
        checked.append(dataclasses.replace(one, keypoints=points))
    shown = [one for one in checked if one.keypoints]
    if not any(one.points_known for one in shown):
        return None
    for one in shown:
        if len(one.keypoints) != 3 * count:
            raise InputError(
                f"{annotations.path} has {counted(len(one.keypoints) // 3, 'keypoint')} of "
                f"{annotations.categories[one.category_id]!r}, and the detector finds "
                f"{count}: {', '.join(spec.names)}; annotate the same points"
            )
    each, warnings = _sigmas(spec, sigmas)
    orders: dict[int, tuple[int, ...]] = {}
    for category in sorted({one.category_id for one in shown}):
        orders[category], remark = _order(spec, annotations, category)
        warnings += remark
    objects = []
    for one in checked:
        given = one.keypoints or ()
        order = orders[one.category_id] if given else ()
        moved = tuple(value for i in order for value in given[3 * i : 3 * i + 3])
        objects.append(dataclasses.replace(one, keypoints=moved or None))
    return AnnotatedPoints(
        annotations=dataclasses.replace(annotations, objects=tuple(objects)),
        sigmas=each,
        warnings=tuple(warnings),
    )


def _sigmas(
    spec: KeypointSpec, given: Sequence[float] | None
) -> tuple[tuple[float, ...], list[str]]:
    count = len(spec.names)
    if given is not None:
        if len(given) != count or not all(math.isfinite(one) and one > 0 for one in given):
            raise InputError(
                f"got the sigmas {', '.join(f'{one:g}' for one in given)}; allowed: "
                f"{counted(count, 'number')} above 0, one for each of {', '.join(spec.names)}"
            )
        return tuple(map(float, given)), []
    if tuple(map(plain_class_name, spec.names)) == _PLAIN_COCO:
        return COCO_SIGMAS, []
    return (1 / count,) * count, [
        f"the points are not COCO's: each may be off by {1 / count:.3g} of the object's size, as "
        "in Ultralytics; give --sigmas those of your annotations"
    ]


def _order(
    spec: KeypointSpec, annotations: Annotations, category: int
) -> tuple[tuple[int, ...], list[str]]:
    """Returns the annotated index of each of the detector's points."""
    by_order = tuple(range(len(spec.names)))
    listed = annotations.points.get(category)
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        return by_order, []
    theirs, ours = (list(map(plain_class_name, names)) for names in (listed, spec.names))
    if len(set(ours)) == len(ours) and sorted(theirs) == sorted(ours):
        return tuple(theirs.index(name) for name in ours), []
    return by_order, [
        f"points of {annotations.categories[category]!r} are taken in their order, since their "
        f"names are not the detector's: {', '.join(listed)}; {', '.join(spec.names)}"
    ]
