"""Outputs with one row of values per anchor, which most YOLO exports have: found, checked, cut.

A row is ``cx cy w h``, in some families an objectness, one score per class, in segmentation the
coefficients of a mask, and in poses the keypoints. It may lie along the last dimension or along the
middle one. Those of oriented boxes end in an angle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.errors import InputError, ShapeError
from tvmdet.heads.base import Decoded, GraphSummary, MaskValues
from tvmdet.heads.options import choice, refuse_unknown_options, strides_of
from tvmdet.heads.pose import KEYPOINT_COLUMNS, keypoint_columns, reference_row_keypoints
from tvmdet.spec import DetectorSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = [
    "LARGEST_LOG",
    "LAYOUTS",
    "RowFormat",
    "Rows",
    "emit_corners",
    "pick_output",
    "reference_corners",
]

LAYOUTS = ("channels_first", "channels_last")
# Of logarithms of extents. e^10 cells are larger than any picture; float32 ends at e^88, and an
# infinite box overlaps with nothing that a suppression could compute.
LARGEST_LOG = 10.0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a network, cut: Relax expressions or arrays ``[N, A, ...]``."""

    center: Any
    extent: Any
    objectness: Any
    scores: Any
    masks: MaskValues | None
    keypoints: Any = None
    angles: Any = None

    def decoded(self, boxes: Any, scores: Any) -> Decoded:
        """Returns what the rows mean, with boxes of corners and scores that count everything."""
        return Decoded(
            boxes=boxes,
            scores=scores,
            masks=self.masks,
            keypoints=self.keypoints,
            angles=self.angles,
        )


@dataclass(frozen=True, kw_only=True)
class RowFormat:
    """The rows of one family.

    Attributes:
        family: Its name.
        lead: Values before the class scores: 4, or 5 with an objectness.
        per_cell: Anchors in a cell of the pyramid.
        pyramids: Strides that the family is trained with, the usual ones first.
        options: Options that the family has beyond those of rows.
        masks: Whether it has a form with masks.
        keypoints: Whether it has a form with keypoints.
        points_first: Whether the keypoints stand before the class scores, not at the end.
    """

    family: str
    lead: int
    per_cell: int
    pyramids: tuple[tuple[int, ...], ...]
    options: tuple[str, ...] = ()
    masks: bool = False
    keypoints: bool = False
    points_first: bool = False

    @property
    def known_options(self) -> tuple[str, ...]:
        """All options, sorted."""
        extra = ("prototypes",) * self.masks + (KEYPOINT_COLUMNS,) * self.keypoints
        return tuple(sorted(("layout", "output", "strides", *extra, *self.options)))

    def anchors(self, size_hw: tuple[int, int], strides: tuple[int, ...]) -> int:
        """Returns the number of rows at an input size."""
        cells = sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in strides)
        return self.per_cell * cells

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Checks the options of a whole spec, and the shapes that they mean.

        Raises:
            InputError: An option is unknown, missing, malformed or does not fit the network.
        """
        options = spec.options
        refuse_unknown_options(options, self.family, self.known_options)
        for name in ("layout", "output", "strides"):
            if options.get(name) is None:
                raise InputError(
                    f"the spec's options lack {name!r}; leave the table away or "
                    "give all of layout, output and strides"
                )
        choice(options, "layout", LAYOUTS)
        outputs = tuple(summary.outputs)
        choice(options, "output", outputs)
        strides_of(options)
        if spec.masks is not None and options.get("prototypes") is None:
            raise InputError(
                f"the spec has masks, but family {self.family} found no output of mask prototypes; "
                "remove the table masks"
            )
        shapes = {
            name: tuple(dim or 0 for dim in value.shape) for name, value in summary.outputs.items()
        }
        count = 0
        if options.get("prototypes") is not None:
            count = shapes[choice(options, "prototypes", outputs) or ""][1]
        try:
            self._check_shape(shapes[options["output"]], spec, count)
        except ShapeError as error:
            raise InputError(str(error)) from error

    def emit(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Rows:
        """Emits the cut rows, inside an open dataflow block.

        Raises:
            ShapeError: An output is missing or has a shape that the spec does not explain.
        """
        from tvm import relax

        output, prototypes = pick_output(outputs, spec, "output"), None
        count = 0
        if spec.options.get("prototypes") is not None:
            prototypes = pick_output(outputs, spec, "prototypes")
            count = int(prototypes.ty.shape[1])
        self._check_shape(tuple(int(dim) for dim in output.ty.shape), spec, count)
        if spec.options["layout"] == "channels_first":
            output = bb.emit(relax.op.permute_dims(output, [0, 2, 1]))
        edges = [2, 4, *([5] if self.lead == 5 else [])]
        points = keypoint_columns(spec)
        if first := points if self.points_first else 0:
            edges.append(self.lead + first)
        end = self.lead + first + len(spec.labels)
        after = points - first
        edges += [end] * bool(count or after or spec.oriented)
        edges += [end + count] * bool(count and after)
        parts = bb.emit(relax.op.split(output, edges, axis=2))
        cut = [bb.emit(relax.TupleGetItem(parts, at)) for at in range(len(edges) + 1)]
        found = cut.pop(self.lead - 2) if first else cut[-1]
        return Rows(
            center=cut[0],
            extent=cut[1],
            objectness=cut[2] if self.lead == 5 else None,
            scores=cut[self.lead - 2],
            masks=MaskValues(values=cut[self.lead - 1], prototypes=prototypes) if count else None,
            keypoints=None if spec.keypoints is None else found,
            angles=bb.emit(relax.op.squeeze(cut[-1], [2])) if spec.oriented else None,
        )

    def reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Rows:
        """Cuts the rows in numpy.

        Raises:
            ShapeError: An output is missing or has a shape that the spec does not explain.
        """
        output, masks = pick_output(outputs, spec, "output"), None
        count = 0
        prototypes = None
        if spec.options.get("prototypes") is not None:
            prototypes = pick_output(outputs, spec, "prototypes")
            count = prototypes.shape[1]
        self._check_shape(output.shape, spec, count)
        rows = np.moveaxis(output, 1, 2) if spec.options["layout"] == "channels_first" else output
        first = keypoint_columns(spec) if self.points_first else 0
        points = reference_row_keypoints(rows, spec)
        if points is not None and first:
            points = np.ascontiguousarray(rows[:, :, self.lead : self.lead + first], np.float32)
        classes = slice(self.lead + first, self.lead + first + len(spec.labels))
        if count:
            values = rows[:, :, classes.stop : classes.stop + count]
            masks = MaskValues(values=values, prototypes=prototypes)
        return Rows(
            center=rows[:, :, :2],
            extent=rows[:, :, 2:4],
            objectness=rows[:, :, 4:5] if self.lead == 5 else None,
            scores=np.ascontiguousarray(rows[:, :, classes], dtype=np.float32),
            masks=masks,
            keypoints=points,
            angles=np.asarray(rows[:, :, -1], np.float32) if spec.oriented else None,
        )

    def _check_shape(self, shape: tuple[int, ...], spec: DetectorSpec, count: int) -> None:
        values = self.lead + len(spec.labels) + count + keypoint_columns(spec) + spec.oriented
        anchors = self.anchors(spec.input.size_hw, tuple(spec.options["strides"]))
        first = spec.options["layout"] == "channels_first"
        expected = (values, anchors) if first else (anchors, values)
        if len(shape) != 3 or tuple(shape[1:]) != expected:
            raise ShapeError(
                f"{spec.options['output']} is {list(shape)}; {len(spec.labels)} labels at "
                f"{spec.input.size_hw[0]}x{spec.input.size_hw[1]} need [N, {expected[0]}, "
                f"{expected[1]}]: correct the spec's labels, input.size_hw or options.strides"
            )


def pick_output(outputs: Mapping[str, Any], spec: DetectorSpec, key: str) -> Any:
    """Returns the output that an option names.

    Raises:
        ShapeError: The network has no such output.
    """
    name = str(spec.options.get(key))
    if name not in outputs:
        raise ShapeError(
            f"the spec's options.{key} is {name!r}; the network's outputs: {', '.join(outputs)}"
        )
    return outputs[name]


def emit_corners(bb: relax.BlockBuilder, center: Any, extent: Any) -> Any:
    """Emits ``x1 y1 x2 y2`` from centres and extents ``[N, A, 2]``.

    Extents that are sums of distances (YOLOv6, YOLO26) can come out negative: such a box is empty.
    """
    from tvm import relax

    extent = bb.emit(relax.op.maximum(extent, relax.const(0.0, "float32")))
    half = bb.emit(relax.op.multiply(extent, relax.const(0.5, "float32")))
    top_left = bb.emit(relax.op.subtract(center, half))
    bottom_right = bb.emit(relax.op.add(center, half))
    return bb.emit(relax.op.concat([top_left, bottom_right], axis=2))


def reference_corners(center: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Returns ``x1 y1 x2 y2`` from centres and extents ``[N, A, 2]``."""
    x, y = center[..., 0], center[..., 1]
    w, h = (np.where(side > 0, side, 0) for side in (extent[..., 0], extent[..., 1]))
    corners = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=-1)
    return corners.astype(np.float32)
