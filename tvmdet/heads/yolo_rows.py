"""Outputs with one row of values per anchor, which most YOLO exports have: found, checked, cut.

A row is ``cx cy w h``, in some families an objectness, one score per class, and in segmentation
the coefficients of a mask. It may lie along the last dimension or along the middle one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.errors import InputError, ShapeError
from tvmdet.heads.base import GraphSummary, MaskValues
from tvmdet.heads.options import choice, refuse_unknown_options, strides_of
from tvmdet.spec import DetectorSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = [
    "FoundRows",
    "RowFormat",
    "Rows",
    "describe_rows",
    "emit_corners",
    "pick_output",
    "reference_corners",
    "rows_options",
]

_LAYOUTS = ("channels_first", "channels_last")
_PROTOTYPE_STRIDES = (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class FoundRows:
    """Where the rows of a network are.

    Attributes:
        output: Name of the output.
        layout: ``channels_first`` for ``[N, V, A]``, ``channels_last`` for ``[N, A, V]``.
        strides: Strides of the feature pyramid.
        values: How many values a row has.
        prototypes: Name and number of the mask prototypes, or None.
        ignored: Outputs that are not used.
    """

    output: str
    layout: str
    strides: tuple[int, ...]
    values: int
    prototypes: tuple[str, int] | None = None
    ignored: tuple[str, ...] = ()

    @property
    def axis(self) -> int:
        """The dimension along which a row lies."""
        return 1 if self.layout == "channels_first" else 2

    @property
    def coefficients(self) -> int:
        """How many mask coefficients end a row."""
        return self.prototypes[1] if self.prototypes else 0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a network, cut: Relax expressions or arrays ``[N, A, ...]``."""

    center: Any
    extent: Any
    objectness: Any
    scores: Any
    masks: MaskValues | None


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
    """

    family: str
    lead: int
    per_cell: int
    pyramids: tuple[tuple[int, ...], ...]
    options: tuple[str, ...] = ()
    masks: bool = False

    @property
    def known_options(self) -> tuple[str, ...]:
        """All options, sorted."""
        extra = ("prototypes",) if self.masks else ()
        return tuple(sorted(("layout", "output", "strides", *extra, *self.options)))

    def anchors(self, size_hw: tuple[int, int], strides: tuple[int, ...]) -> int:
        """Returns the number of rows at an input size."""
        cells = sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in strides)
        return self.per_cell * cells

    def find(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> FoundRows | str:
        """Finds the output that holds the rows, or returns one sentence that says why not.

        Beside it there may be mask prototypes, and the raw maps that the rows were made from.
        """
        options = given.get("options", {})
        wanted = choice(options, "output", tuple(summary.outputs))
        names = [wanted] if wanted else [n for n, v in summary.outputs.items() if len(v.shape) == 3]
        if not names:
            return (
                f"it has {len(summary.outputs)} outputs, none of three dimensions; this family's "
                f"is [N, {self.lead} + classes, anchors] or [N, anchors, {self.lead} + classes]"
            )
        answers = [self._fit(name, summary, size_hw, options) for name in names]
        fitting = [answer for answer in answers if isinstance(answer, FoundRows)]
        if not fitting:
            return str(answers[0])
        if len(fitting) > 1:
            listed = ", ".join(found.output for found in fitting)
            return f"several outputs fit ({listed}): name one in the spec's options.output"
        return self._with_others(fitting[0], summary, size_hw, options)

    def _fit(
        self, name: str, summary: GraphSummary, size_hw: tuple[int, int], options: Mapping[str, Any]
    ) -> FoundRows | str:
        """Returns how an output fits, or why it does not."""
        output = summary.outputs[name]
        if len(output.shape) != 3 or None in output.shape:
            return (
                f"{name} is {output}; this family's is [N, {self.lead} + classes, anchors] or "
                f"[N, anchors, {self.lead} + classes]"
            )
        wanted, layout = strides_of(options), choice(options, "layout", _LAYOUTS)
        first, second = int(output.shape[1] or 0), int(output.shape[2] or 0)
        for strides in (wanted,) if wanted else self.pyramids:
            anchors = self.anchors(size_hw, strides)
            for place, rows, values in zip(_LAYOUTS, (second, first), (first, second), strict=True):
                if rows == anchors and values > self.lead and layout in (None, place):
                    return FoundRows(output=name, layout=place, strides=strides, values=values)
        return f"{name} is {output}: {self._misfit(size_hw, (first, second), options)}"

    def _misfit(
        self, size_hw: tuple[int, int], got: tuple[int, int], options: Mapping[str, Any]
    ) -> str:
        wanted, layout = strides_of(options), choice(options, "layout", _LAYOUTS)
        pyramids = (wanted,) if wanted else self.pyramids
        counts = ", ".join(str(self.anchors(size_hw, strides)) for strides in pyramids)
        size = f"{size_hw[0]}x{size_hw[1]}"
        if wanted or layout:
            where = {"channels_first": "last", "channels_last": "middle"}.get(layout or "", "any")
            raise InputError(
                f"the spec's options.strides {list(wanted or pyramids[0])} and layout "
                f"{layout or 'either'} mean {counts} anchors at {size} in the "
                f"{where} dimension of the output, which is [N, {got[0]}, {got[1]}]: correct "
                "them, or leave them away to have them recognised"
            )
        cells = self.anchors(size_hw, self.pyramids[0]) // self.per_cell
        if self.per_cell == 1 and 3 * cells in got:
            return (
                f"{3 * cells} rows are three anchors a cell, as YOLOv5 and YOLOv7 have; "
                f"this family has one ({cells} at {size})"
            )
        if self.per_cell > 1 and cells in got:
            return (
                f"{cells} rows are one anchor a cell, as YOLOv6, YOLOv8 and YOLOX have; "
                f"this family has {self.per_cell} ({self.per_cell * cells} at {size})"
            )
        return f"neither dimension is a number of anchors that this family has at {size} ({counts})"

    def _with_others(
        self,
        found: FoundRows,
        summary: GraphSummary,
        size_hw: tuple[int, int],
        options: Mapping[str, Any],
    ) -> FoundRows | str:
        """Gives the other outputs a meaning, or says which has none."""
        prototypes, ignored, strange = [], [], []
        for name, value in summary.outputs.items():
            shape = tuple(int(dim or 0) for dim in value.shape)
            if name == found.output:
                continue
            if self._is_prototypes(shape, found.values, size_hw):
                prototypes.append((name, shape[1]))
            elif self._is_side_map(shape, found.values, size_hw, found.strides):
                ignored.append(name)
            else:
                strange.append(name)
        wanted = choice(options, "prototypes", tuple(summary.outputs)) if self.masks else None
        if wanted is not None:
            prototypes = [pair for pair in prototypes if pair[0] == wanted]
        named = options.get("output") is not None
        if (strange and not named) or len(prototypes) > 1:
            return (
                f"it has {len(summary.outputs)} outputs; this family has one"
                f"{' (two with masks)' if self.masks else ''}: "
                "name it in the spec's options.output"
            )
        return FoundRows(
            output=found.output,
            layout=found.layout,
            strides=found.strides,
            values=found.values,
            prototypes=prototypes[0] if prototypes else None,
            ignored=(*ignored, *strange),
        )

    def _is_prototypes(self, shape: tuple[int, ...], values: int, size_hw: tuple[int, int]) -> bool:
        return (
            self.masks
            and len(shape) == 4
            and 0 < shape[1] < values - self.lead
            and any(
                shape[2:] == (size_hw[0] // stride, size_hw[1] // stride)
                for stride in _PROTOTYPE_STRIDES
            )
        )

    def _is_side_map(
        self,
        shape: tuple[int, ...],
        values: int,
        size_hw: tuple[int, int],
        strides: tuple[int, ...],
    ) -> bool:
        """Whether an output is one of the raw maps that the rows were made from."""
        cells = {(size_hw[0] // stride, size_hw[1] // stride) for stride in strides}
        if len(shape) == 5:
            return shape[1:] in {(self.per_cell, *cell, values) for cell in cells}
        return len(shape) == 4 and shape[1] >= values and shape[2:] in cells

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
        choice(options, "layout", _LAYOUTS)
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
        if count:
            edges.append(self.lead + len(spec.labels))
        parts = bb.emit(relax.op.split(output, edges, axis=2))
        cut = [bb.emit(relax.TupleGetItem(parts, at)) for at in range(len(edges) + 1)]
        return Rows(
            center=cut[0],
            extent=cut[1],
            objectness=cut[2] if self.lead == 5 else None,
            scores=cut[self.lead - 2],
            masks=MaskValues(values=cut[-1], prototypes=prototypes) if count else None,
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
        classes = slice(self.lead, self.lead + len(spec.labels))
        if count:
            masks = MaskValues(values=rows[:, :, -count:], prototypes=prototypes)
        return Rows(
            center=rows[:, :, :2],
            extent=rows[:, :, 2:4],
            objectness=rows[:, :, 4:5] if self.lead == 5 else None,
            scores=np.ascontiguousarray(rows[:, :, classes], dtype=np.float32),
            masks=masks,
        )

    def _check_shape(self, shape: tuple[int, ...], spec: DetectorSpec, count: int) -> None:
        values = self.lead + len(spec.labels) + count
        anchors = self.anchors(spec.input.size_hw, tuple(spec.options["strides"]))
        first = spec.options["layout"] == "channels_first"
        expected = (values, anchors) if first else (anchors, values)
        if len(shape) != 3 or tuple(shape[1:]) != expected:
            raise ShapeError(
                f"{spec.options['output']} is {list(shape)}; {len(spec.labels)} labels at "
                f"{spec.input.size_hw[0]}x{spec.input.size_hw[1]} need [N, {expected[0]}, "
                f"{expected[1]}]: correct the spec's labels, input.size_hw or options.strides"
            )


def rows_options(found: FoundRows) -> dict[str, Any]:
    """Returns the options of a spec that say where the rows are."""
    options: dict[str, Any] = {
        "layout": found.layout,
        "output": found.output,
        "strides": list(found.strides),
    }
    if found.prototypes:
        options["prototypes"] = found.prototypes[0]
    return options


def describe_rows(
    found: FoundRows, size_hw: tuple[int, int], lead: str, classes: int
) -> tuple[str, ...]:
    """Returns what was recognised, one fact a line; ``lead`` says what rows begin with."""
    rows = "[N, V, A]" if found.layout == "channels_first" else "[N, A, V]"
    strides = ", ".join(str(stride) for stride in found.strides)
    masks = f" + {found.coefficients} mask" if found.prototypes else ""
    lines = [
        f"{found.output} is {rows}: {lead} + {classes} class{masks} rows, one column per anchor "
        f"of strides {strides} at {size_hw[0]}x{size_hw[1]}"
    ]
    if found.prototypes:
        lines.append(f"{found.prototypes[0]} holds {found.prototypes[1]} mask prototypes")
    if found.ignored:
        lines.append(f"{', '.join(found.ignored)} not used: {found.output} holds the decoded boxes")
    return tuple(lines)


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
    """Emits ``x1 y1 x2 y2`` from centres and extents ``[N, A, 2]``."""
    from tvm import relax

    half = bb.emit(relax.op.multiply(extent, relax.const(0.5, "float32")))
    top_left = bb.emit(relax.op.subtract(center, half))
    bottom_right = bb.emit(relax.op.add(center, half))
    return bb.emit(relax.op.concat([top_left, bottom_right], axis=2))


def reference_corners(center: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Returns ``x1 y1 x2 y2`` from centres and extents ``[N, A, 2]``."""
    (x, y), (w, h) = (np.moveaxis(part, -1, 0) for part in (center, extent))
    corners = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=-1)
    return corners.astype(np.float32)
