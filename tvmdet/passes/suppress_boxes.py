"""The in-graph non-maximum suppression: scored boxes in, a fixed number of rows and a count out.

Why not ``relax.vision.all_class_non_max_suppression``: it sorts every score, has no count that
later operators could use with static shapes, and its thresholds are fixed at compile time.

The greedy rule is that of Neubeck and Van Gool, "Efficient Non-Maximum Suppression" (ICPR 2006),
and of torchvision's ``batched_nms``.
"""

from __future__ import annotations

from typing import Any

from tvm import relax

from tvmdet.passes.relax_tools import static_shape
from tvmdet.passes.suppress_boxes_kernel import suppress_boxes_func
from tvmdet.spec import PostprocessSpec

__all__ = ["emit_suppress_boxes", "found_types"]


def emit_suppress_boxes(
    builder: relax.BlockBuilder, boxes: Any, scores: Any, thresholds: Any, spec: PostprocessSpec
) -> Any:
    """Emits the suppression of scored boxes.

    Args:
        builder: Where to emit.
        boxes: float32 ``[N, A, 4]``, ``x1 y1 x2 y2``.
        scores: float32 ``[N, A, C]``.
        thresholds: float32 ``[2]``: score and IoU.
        spec: Rows, candidates and label rules.

    Returns:
        A tuple: boxes float32 ``[N, K, 4]``, scores float32 ``[N, K]``, class ids int32
        ``[N, K]``, candidates int32 ``[N, K]`` (which of the A boxes each one is), counts int32
        ``[N]``; rows past the count are zero.
    """
    batch, anchors, classes = static_shape(scores)
    func = suppress_boxes_func(batch, anchors, classes, spec)
    var = builder.add_func(func, "suppress_boxes")
    outputs = found_types(batch, spec.max_detections)
    return builder.emit(relax.call_tir(var, [boxes, scores, thresholds], outputs))


def found_types(batch: int, rows: int) -> list[relax.TensorType]:
    """Returns the types of what a suppression finds: boxes, scores, classes, candidates, counts."""
    return [
        relax.TensorType((batch, rows, 4), "float32"),
        relax.TensorType((batch, rows), "float32"),
        relax.TensorType((batch, rows), "int32"),
        relax.TensorType((batch, rows), "int32"),
        relax.TensorType((batch,), "int32"),
    ]
