"""The kernel of the suppression of oriented boxes, in TVMScript.

Strategy, for one image: candidates come in the order of their scores. Each is compared with all of
its class that came before it, and kept if none of them overlaps it by more than the threshold. One
that is dropped drops others all the same ("Fast NMS", Bolya et al., "YOLACT: Real-time Instance
Segmentation", 2019, section 4.3), as Ultralytics has it for oriented boxes.

The overlap is ProbIoU (:mod:`tvmdet.oriented`). It exceeds the threshold where the distance of the
two distributions is less than what the threshold comes to, so that no pair needs an exponential.
"""

# TVMScript is not Python to a type checker.
# mypy: ignore-errors

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from tvmdet.oriented import PROBIOU_EPS
from tvmdet.passes.clear_rows import clear_rows
from tvmdet.passes.kernel_marks import mark_kernel
from tvmdet.spec import PostprocessSpec

__all__ = ["suppress_oriented_func"]

_OPAQUE = 8  # tvm::relax::OpPatternKind::kOpaque: never fused with a neighbour
_NUMBERS = 6  # kept of a candidate: centre, covariance, root of its determinant


def suppress_oriented_func(
    batch: int, anchors: int, classes: int, candidates: int, spec: PostprocessSpec
) -> tirx.PrimFunc:
    """Returns the kernel.

    Args:
        batch: Images.
        anchors: Boxes of each.
        classes: Scores of each box.
        candidates: Entries of ``order``: positions in the boxes, or where a box may have several
            classes in the table of their scores.
        spec: Rows and class rules.
    """
    rows = spec.max_detections
    multi_label = int(spec.multi_label)
    same_class_only = int(not spec.class_agnostic)
    eps = PROBIOU_EPS

    @T.prim_func(s_tir=True)
    def suppress_oriented(
        boxes: T.Buffer((batch, anchors, 4), "float32"),
        angles: T.Buffer((batch, anchors), "float32"),
        scores: T.Buffer((batch, anchors, classes), "float32"),
        order: T.Buffer((batch, candidates), "int32"),
        thresholds: T.Buffer((2,), "float32"),
        out_boxes: T.Buffer((batch, rows, 4), "float32"),
        out_scores: T.Buffer((batch, rows), "float32"),
        out_classes: T.Buffer((batch, rows), "int32"),
        out_rows: T.Buffer((batch, rows), "int32"),
        out_counts: T.Buffer((batch,), "int32"),
    ):
        T.func_attr({"op_pattern": _OPAQUE, "tirx.noalias": True})
        for n in T.parallel(batch):
            seen = T.alloc_buffer((candidates, _NUMBERS), "float32")
            seen_class = T.alloc_buffer((candidates,), "int32")
            looked = T.alloc_buffer((1,), "int32", scope="local")
            kept = T.alloc_buffer((1,), "int32", scope="local")
            best = T.alloc_buffer((1,), "int32", scope="local")
            dropped = T.alloc_buffer((1,), "int32", scope="local")
            other = T.alloc_buffer((1,), "int32", scope="local")
            score = T.alloc_buffer((1,), "float32", scope="local")
            reach = T.alloc_buffer((1,), "float32", scope="local")

            clear_rows(n, rows, out_boxes, out_scores, out_classes, out_rows)

            # 1 - sqrt(1 - exp(-distance) + eps) > threshold, solved for the distance.
            reach[0] = -T.log(
                T.float32(1 + eps) - (T.float32(1) - thresholds[1]) * (T.float32(1) - thresholds[1])
            )
            if reach[0] <= T.float32(eps):  # no distance is less
                reach[0] = T.min_value("float32")
            looked[0] = 0
            kept[0] = 0
            for k in T.serial(candidates):
                anchor: T.let[T.int32] = order[n, k] // (classes if multi_label == 1 else 1)
                # From the threshold up: a NaN exceeds nothing, so it is never the best.
                score[0] = thresholds[0]
                best[0] = 0
                if multi_label == 1:
                    best[0] = order[n, k] % classes
                    score[0] = scores[n, anchor, best[0]]
                else:
                    for c in T.serial(classes):
                        if scores[n, anchor, c] > score[0]:
                            score[0] = scores[n, anchor, c]
                            best[0] = c
                if score[0] > thresholds[0] and kept[0] < rows:
                    width: T.let[T.float32] = boxes[n, anchor, 2] - boxes[n, anchor, 0]
                    height: T.let[T.float32] = boxes[n, anchor, 3] - boxes[n, anchor, 1]
                    along: T.let[T.float32] = width * width / T.float32(12)
                    across: T.let[T.float32] = height * height / T.float32(12)
                    cos: T.let[T.float32] = T.cos(angles[n, anchor])
                    sin: T.let[T.float32] = T.sin(angles[n, anchor])
                    x: T.let[T.float32] = boxes[n, anchor, 0] + width * T.float32(0.5)
                    y: T.let[T.float32] = boxes[n, anchor, 1] + height * T.float32(0.5)
                    xx: T.let[T.float32] = along * cos * cos + across * sin * sin
                    yy: T.let[T.float32] = along * sin * sin + across * cos * cos
                    xy: T.let[T.float32] = (along - across) * cos * sin
                    own: T.let[T.float32] = T.abs(width * height) / T.float32(12)
                    dropped[0] = 0
                    other[0] = 0
                    while other[0] < looked[0] and dropped[0] == 0:
                        same: T.let[T.int32] = T.cast(seen_class[other[0]] == best[0], "int32")
                        if same >= same_class_only:
                            dx: T.let[T.float32] = x - seen[other[0], 0]
                            dy: T.let[T.float32] = y - seen[other[0], 1]
                            sxx: T.let[T.float32] = xx + seen[other[0], 2]
                            syy: T.let[T.float32] = yy + seen[other[0], 3]
                            sxy: T.let[T.float32] = xy + seen[other[0], 4]
                            both: T.let[T.float32] = T.max(sxx * syy - sxy * sxy, T.float32(0))
                            near: T.let[T.float32] = (
                                (syy * dx * dx + sxx * dy * dy) * T.float32(0.25)
                                - sxy * dx * dy * T.float32(0.5)
                            ) / (both + T.float32(eps))
                            alike: T.let[T.float32] = T.float32(0.5) * T.log(
                                both / (T.float32(4) * own * seen[other[0], 5] + T.float32(eps))
                                + T.float32(eps)
                            )
                            if near + alike < reach[0]:  # false of what is no number
                                dropped[0] = 1
                        other[0] = other[0] + 1
                    seen[looked[0], 0] = x
                    seen[looked[0], 1] = y
                    seen[looked[0], 2] = xx
                    seen[looked[0], 3] = yy
                    seen[looked[0], 4] = xy
                    seen[looked[0], 5] = own
                    seen_class[looked[0]] = best[0]
                    looked[0] = looked[0] + 1
                    if dropped[0] == 0:
                        for e in T.unroll(4):
                            out_boxes[n, kept[0], e] = boxes[n, anchor, e]
                        out_scores[n, kept[0]] = score[0]
                        out_classes[n, kept[0]] = best[0]
                        out_rows[n, kept[0]] = anchor
                        kept[0] = kept[0] + 1
            out_counts[n] = kept[0]

    return mark_kernel(
        suppress_oriented,
        "suppress_oriented",
        batch=batch,
        anchors=anchors,
        classes=classes,
        candidates=candidates,
        rows=rows,
        multi_label=spec.multi_label,
        class_agnostic=spec.class_agnostic,
    )
