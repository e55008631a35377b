"""The in-graph suppression of oriented boxes: scored boxes in, a fixed number of rows and a count.

Candidates are ordered by the kernel that every target has for top-k; what the rule is, is in
:mod:`tvmdet.passes.suppress_oriented_kernel`.
"""

from __future__ import annotations

from typing import Any

from tvm import relax

from tvmdet.passes.relax_tools import static_shape
from tvmdet.passes.suppress_boxes import found_types
from tvmdet.passes.suppress_oriented_kernel import suppress_oriented_func
from tvmdet.spec import PostprocessSpec

__all__ = ["emit_suppress_oriented"]


def emit_suppress_oriented(
    builder: relax.BlockBuilder,
    boxes: Any,
    angles: Any,
    scores: Any,
    thresholds: Any,
    spec: PostprocessSpec,
) -> Any:
    """Emits the suppression of scored oriented boxes.

    Args:
        builder: Where to emit.
        boxes: float32 ``[N, A, 4]``, ``x1 y1 x2 y2`` before they are turned.
        angles: float32 ``[N, A]``, radians.
        scores: float32 ``[N, A, C]``.
        thresholds: float32 ``[2]``: score and ProbIoU.
        spec: Rows, candidates and label rules.

    Returns:
        A tuple as of :func:`tvmdet.passes.suppress_boxes.emit_suppress_boxes`.
    """
    batch, anchors, classes = static_shape(scores)
    if spec.multi_label:
        ranked = builder.emit(relax.op.reshape(scores, (batch, anchors * classes)))
    else:
        ranked = builder.emit(relax.op.max(scores, axis=2))
    candidates = min(spec.pre_nms_top_k, static_shape(ranked)[1])
    order = builder.emit(
        relax.op.topk(ranked, candidates, axis=1, ret_type="indices", dtype="int32")
    )
    func = suppress_oriented_func(batch, anchors, classes, candidates, spec)
    var = builder.add_func(func, "suppress_oriented")
    args = [boxes, angles, scores, order, thresholds]
    return builder.emit(relax.call_tir(var, args, found_types(batch, spec.max_detections)))
