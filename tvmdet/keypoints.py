"""Keypoints: the points of each found object, such as a person's joints or a face's landmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tvmdet.boxes import ImageTransform
from tvmdet.counted import counted
from tvmdet.errors import InputError
from tvmdet.spec import KeypointSpec

__all__ = ["Keypoint", "Keypoints", "json_number", "no_keypoints", "place_keypoints"]

Float32 = npt.NDArray[np.float32]


class Keypoint(NamedTuple):
    """One point of one object.

    Attributes:
        x: In pixels of the original image; it may lie outside.
        y: Likewise.
        score: How sure the network is of it, or how likely it is to be seen, 0 to 1; None where
            the network does not say.
    """

    x: float
    y: float
    score: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Keypoints:
    """The points of one image's detections, in their order.

    Attributes:
        xy: float32 ``[n, P, 2]``, in pixels of the original image. They are not clipped: a point
            may lie outside of the image, or of its box.
        scores: float32 ``[n, P]``, 0 to 1; None where the network does not say.
        names: One for each of the P points.
        skeleton: Pairs of points, by index, that a drawing joins by a line.
    """

    xy: Float32
    scores: Float32 | None
    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Rejects arrays that do not belong together."""
        points = len(self.names)
        if self.xy.ndim != 3 or self.xy.shape[1:] != (points, 2):
            raise InputError(
                f"keypoints have the shape {self.xy.shape} beside {counted(points, 'name')}; "
                f"allowed: (n, {points}, 2)"
            )
        if self.scores is not None and self.scores.shape != self.xy.shape[:2]:
            raise InputError(
                f"keypoint scores have the shape {self.scores.shape}; allowed: {self.xy.shape[:2]}"
            )

    def __repr__(self) -> str:
        """Returns one line: of how many objects, and which points."""
        scored = ", scored" if self.scores is not None else ""
        return f"<Keypoints of {counted(len(self), 'object')}: {', '.join(self.names)}{scored}>"

    def __len__(self) -> int:
        """Returns the number of objects."""
        return len(self.xy)

    def take(self, rows: npt.ArrayLike) -> Keypoints:
        """Returns those of some objects, by their indices, in new arrays."""
        chosen = np.asarray(rows, np.intp)
        return Keypoints(
            xy=self.xy[chosen],
            scores=None if self.scores is None else self.scores[chosen],
            names=self.names,
            skeleton=self.skeleton,
        )

    def of(self, index: int) -> dict[str, Keypoint]:
        """Returns the points of one object by their names."""
        scores = [None] * len(self.names) if self.scores is None else self.scores[index].tolist()
        return {
            name: Keypoint(x, y, score)
            for name, (x, y), score in zip(self.names, self.xy[index].tolist(), scores, strict=True)
        }

    def to_dicts(self, index: int) -> list[dict[str, Any]]:
        """Returns the points of one object as plain JSON values; null for what is no number."""
        return [
            {"name": name, "xy": [json_number(point.x), json_number(point.y)], "score": point.score}
            for name, point in self.of(index).items()
        ]


def json_number(value: float) -> float | None:
    """Returns a number as JSON has it: null for what is none, and for endless ones."""
    return value if math.isfinite(value) else None


def place_keypoints(
    values: npt.NDArray[Any], transform: ImageTransform, spec: KeypointSpec
) -> Keypoints:
    """Says where in an image the points of a network lie.

    Args:
        values: ``[n, P * D]``, x and y of each point in pixels of the network's input, and a score
            where the spec says so.
        transform: How the image lies in the network's input.
        spec: What the points are.

    Returns:
        The points, in new arrays.
    """
    points = np.asarray(values, np.float32).reshape(
        len(values), len(spec.names), 3 if spec.scored else 2
    )
    return Keypoints(
        xy=transform.points_to_image(points[..., :2]),
        scores=points[..., 2].copy() if spec.scored else None,
        names=spec.names,
        skeleton=spec.skeleton,
    )


def no_keypoints(spec: KeypointSpec) -> Keypoints:
    """Returns the points of an image without objects."""
    points = len(spec.names)
    return Keypoints(
        xy=np.zeros((0, points, 2), np.float32),
        scores=np.zeros((0, points), np.float32) if spec.scored else None,
        names=spec.names,
        skeleton=spec.skeleton,
    )
