"""The kernel of the box suppression, in TVMScript.

Strategy, for one image:

1. Scan the scores once and keep those above the threshold as candidates (every class of a box, or
   its best class only).
2. Order the candidates as a binary heap, best score first, ties by position. Building it costs a
   number of steps linear in the candidates, and only the candidates that are looked at are ever
   sorted.
3. Take candidates off the heap, and keep each that no kept box of its class overlaps by more than
   the IoU threshold, until the rows are full or the candidates spent.
"""

# TVMScript is not Python to a type checker.
# mypy: ignore-errors

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from tvmdet.passes.clear_rows import clear_rows
from tvmdet.passes.kernel_marks import mark_kernel
from tvmdet.spec import PostprocessSpec

__all__ = ["suppress_boxes_func"]

_OPAQUE = 8  # tvm::relax::OpPatternKind::kOpaque: never fused with a neighbour


def suppress_boxes_func(
    batch: int, anchors: int, classes: int, spec: PostprocessSpec
) -> tirx.PrimFunc:
    """Returns the kernel for ``batch`` images of ``anchors`` boxes and ``classes`` classes."""
    rows = spec.max_detections
    top_k = spec.pre_nms_top_k
    capacity = anchors * classes if spec.multi_label else anchors
    multi_label = int(spec.multi_label)
    same_class_only = int(not spec.class_agnostic)

    @T.prim_func(s_tir=True)
    def suppress_boxes(
        boxes: T.Buffer((batch, anchors, 4), "float32"),
        scores: T.Buffer((batch, anchors, classes), "float32"),
        thresholds: T.Buffer((2,), "float32"),
        out_boxes: T.Buffer((batch, rows, 4), "float32"),
        out_scores: T.Buffer((batch, rows), "float32"),
        out_classes: T.Buffer((batch, rows), "int32"),
        out_rows: T.Buffer((batch, rows), "int32"),
        out_counts: T.Buffer((batch,), "int32"),
    ):
        T.func_attr({"op_pattern": _OPAQUE, "tirx.noalias": True})
        for n in T.parallel(batch):
            heap_score = T.alloc_buffer((capacity,), "float32")
            heap_index = T.alloc_buffer((capacity,), "int32")
            size = T.alloc_buffer((1,), "int32", scope="local")
            kept = T.alloc_buffer((1,), "int32", scope="local")
            taken = T.alloc_buffer((1,), "int32", scope="local")
            hits = T.alloc_buffer((1,), "int32", scope="local")
            best = T.alloc_buffer((1,), "int32", scope="local")
            parent = T.alloc_buffer((1,), "int32", scope="local")
            child = T.alloc_buffer((1,), "int32", scope="local")
            index = T.alloc_buffer((1,), "int32", scope="local")
            start = T.alloc_buffer((1,), "int32", scope="local")
            row = T.alloc_buffer((1,), "int32", scope="local")
            score = T.alloc_buffer((1,), "float32", scope="local")
            box = T.alloc_buffer((4,), "float32", scope="local")
            overlap = T.alloc_buffer((1,), "float32", scope="local")
            union = T.alloc_buffer((1,), "float32", scope="local")

            clear_rows(n, rows, out_boxes, out_scores, out_classes, out_rows)

            # 1. Candidates.
            size[0] = 0
            for a in T.serial(anchors):
                hits[0] = 0
                for c in T.serial(classes):
                    hits[0] = hits[0] + T.cast(scores[n, a, c] > thresholds[0], "int32")
                if hits[0] > 0:
                    if multi_label == 1:
                        for c in T.serial(classes):
                            if scores[n, a, c] > thresholds[0]:
                                heap_score[size[0]] = scores[n, a, c]
                                heap_index[size[0]] = a * classes + c
                                size[0] = size[0] + 1
                    else:
                        # From the threshold up: a NaN exceeds nothing, so it is never the best.
                        score[0] = thresholds[0]
                        best[0] = 0
                        for c in T.serial(classes):
                            if scores[n, a, c] > score[0]:
                                score[0] = scores[n, a, c]
                                best[0] = c
                        heap_score[size[0]] = score[0]
                        heap_index[size[0]] = a * classes + best[0]
                        size[0] = size[0] + 1

            # 2. and 3. A heap step sinks the entry at `parent` to its place. The first
            # `start` steps build the heap from the last parent up, the others refill the root
            # after its candidate was taken.
            start[0] = size[0] // 2
            kept[0] = 0
            taken[0] = 0
            while start[0] > 0 or (size[0] > 0 and kept[0] < rows and taken[0] < top_k):
                if start[0] > 0:
                    start[0] = start[0] - 1
                    parent[0] = start[0]
                    score[0] = heap_score[parent[0]]
                    index[0] = heap_index[parent[0]]
                else:
                    a: T.let[T.int32] = heap_index[0] // classes
                    c: T.let[T.int32] = heap_index[0] % classes
                    score[0] = heap_score[0]
                    for e in T.unroll(4):
                        box[e] = boxes[n, a, e]
                    row[0] = 0
                    overlap[0] = T.float32(0)
                    union[0] = T.float32(0)
                    while row[0] < kept[0] and overlap[0] <= thresholds[1] * union[0]:
                        overlap[0] = T.float32(0)
                        union[0] = T.float32(0)
                        if same_class_only == 0 or out_classes[n, row[0]] == c:
                            overlap[0] = T.max(
                                T.min(box[2], out_boxes[n, row[0], 2])
                                - T.max(box[0], out_boxes[n, row[0], 0]),
                                T.float32(0),
                            ) * T.max(
                                T.min(box[3], out_boxes[n, row[0], 3])
                                - T.max(box[1], out_boxes[n, row[0], 1]),
                                T.float32(0),
                            )
                            union[0] = (
                                T.max(box[2] - box[0], T.float32(0))
                                * T.max(box[3] - box[1], T.float32(0))
                                + T.max(
                                    out_boxes[n, row[0], 2] - out_boxes[n, row[0], 0],
                                    T.float32(0),
                                )
                                * T.max(
                                    out_boxes[n, row[0], 3] - out_boxes[n, row[0], 1],
                                    T.float32(0),
                                )
                                - overlap[0]
                            )
                        row[0] = row[0] + 1
                    if overlap[0] <= thresholds[1] * union[0]:
                        for e in T.unroll(4):
                            out_boxes[n, kept[0], e] = box[e]
                        out_scores[n, kept[0]] = score[0]
                        out_classes[n, kept[0]] = c
                        out_rows[n, kept[0]] = a
                        kept[0] = kept[0] + 1
                    taken[0] = taken[0] + 1
                    size[0] = size[0] - 1
                    parent[0] = 0
                    score[0] = heap_score[size[0]]
                    index[0] = heap_index[size[0]]
                child[0] = 2 * parent[0] + 1
                while child[0] < size[0]:
                    # Two ifs: TIR evaluates both sides of an `and`, even past the end.
                    if child[0] + 1 < size[0]:  # noqa: SIM102
                        if heap_score[child[0] + 1] > heap_score[child[0]] or (
                            heap_score[child[0] + 1] == heap_score[child[0]]
                            and heap_index[child[0] + 1] < heap_index[child[0]]
                        ):
                            child[0] = child[0] + 1
                    if heap_score[child[0]] > score[0] or (
                        heap_score[child[0]] == score[0] and heap_index[child[0]] < index[0]
                    ):
                        heap_score[parent[0]] = heap_score[child[0]]
                        heap_index[parent[0]] = heap_index[child[0]]
                        parent[0] = child[0]
                        child[0] = 2 * parent[0] + 1
                    else:
                        child[0] = capacity + capacity
                if size[0] > 0:
                    heap_score[parent[0]] = score[0]
                    heap_index[parent[0]] = index[0]
            out_counts[n] = kept[0]

    return mark_kernel(
        suppress_boxes,
        "suppress_boxes",
        batch=batch,
        anchors=anchors,
        classes=classes,
        rows=rows,
        most=top_k,
        multi_label=spec.multi_label,
        class_agnostic=spec.class_agnostic,
    )
