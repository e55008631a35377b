"""Decoded boxes and the scores of every class in one output: found, and cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tvmdet.heads.base import GraphSummary
from tvmdet.heads.cell_rows import CORNERS, CellRows
from tvmdet.heads.options import choice
from tvmdet.heads.yolo_rows import LAYOUTS

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["Joined", "emit_joined", "find_joined", "joined_shapes"]

_CORNERS: Mapping[str, Any] = {
    "columns": list(CORNERS),
    "box_frame": "pixels",
    "background": "none",
}


@dataclass(frozen=True, kw_only=True)
class Joined:
    """An output that holds both.

    Attributes:
        output: Its name.
        layout: ``channels_first`` for ``[N, 4 + C, A]``, ``channels_last`` for ``[N, A, 4 + C]``.
        values: How many values a row has.
        proven: Options that what it answers proves; empty where it proves none.
    """

    output: str
    layout: str
    values: int
    proven: Mapping[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """What was found, to begin a question with."""
        if not self.proven:
            return ""
        return (
            f"the rows of {self.output} are x1 y1 x2 y2 in pixels and {self.values - 4} scores, as "
            "no YOLO of Ultralytics has them; "
        )


def find_joined(
    summary: GraphSummary, size_hw: tuple[int, int], options: Mapping[str, Any], *, asked: bool
) -> Joined | None:
    """Returns the output whose rows are boxes and scores, or None.

    Args:
        summary: The network.
        size_hw: Height and width of its input.
        options: The user's.
        asked: Whether the user says that it is of this family: then what is not proven counts too.
    """
    outputs = summary.outputs
    named = [choice(options, key, tuple(outputs)) for key in ("box_output", "score_output")]
    if named[0] != named[1]:
        return None
    names = [named[0]] if named[0] else [n for n, v in outputs.items() if len(v.shape) == 3]
    for name in names:
        for layout in LAYOUTS:
            found = _fit(summary, str(name), layout, size_hw)
            if found is not None:
                return found
    wanted = choice(options, "layout", LAYOUTS)
    if not asked or len(names) != 1 or wanted is None:
        return None
    shape = outputs[str(names[0])].shape
    values = shape[1 if wanted == "channels_first" else 2] if len(shape) == 3 else None
    return Joined(output=str(names[0]), layout=wanted, values=values) if values else None


def _fit(summary: GraphSummary, name: str, layout: str, size_hw: tuple[int, int]) -> Joined | None:
    """Returns what an output proves to be when it is read so."""
    shape = summary.outputs[name].shape
    if len(shape) != 3 or None in shape:
        return None
    axis = 1 if layout == "channels_first" else 2
    values = int(shape[axis] or 0)
    scores = summary.column_runs(name, axis, 4, values)
    if values < 5 or not scores or not all(run.is_score for run in scores):
        return None
    for rows in CellRows.of_pyramids(summary, name, axis, size_hw):
        if rows.columns() == CORNERS:
            return Joined(output=name, layout=layout, values=values, proven=_CORNERS)
    return None


def joined_shapes(shape: tuple[int | None, ...], layout: str) -> list[tuple[int | None, ...]]:
    """Returns the shapes of the boxes and of the scores in an output of three dimensions."""
    batch, first, second = shape
    values, anchors = (first, second) if layout == "channels_first" else (second, first)
    return [(batch, anchors, 4), (batch, anchors, (values or 0) - 4)]


def emit_joined(
    bb: relax.BlockBuilder, rows: relax.Expr, layout: str
) -> tuple[relax.Expr, relax.Expr]:
    """Emits the boxes ``[N, A, 4]`` and the scores ``[N, A, C]`` of an output."""
    from tvm import relax

    if layout == "channels_first":
        rows = bb.emit(relax.op.permute_dims(rows, [0, 2, 1]))
    values = int(rows.ty.shape[2])
    cuts = [(0, 4), (4, values)]
    boxes, scores = (
        bb.emit(relax.op.strided_slice(rows, axes=[2], begin=[begin], end=[end]))
        for begin, end in cuts
    )
    return boxes, scores
