"""The kernel of ONNX's NonMaxSuppression with a bounded number of rows, in TVMScript.

Unlike :mod:`.suppress_boxes_kernel`, whose rules are ours, this one follows ONNX Runtime to the
letter: the number of an output's rows depends on every single comparison.

Strategy, for each image and class in turn:

1. Scan the scores once and keep the real candidates above the threshold.
2. Order them as a binary heap, best score first, ties by position (ONNX Runtime's priority queue).
   Building it takes a number of steps linear in the candidates above the threshold, so 90,000
   candidates of which 50 are real cost one scan.
3. Take candidates off the heap, and keep each that no kept box of the class overlaps by more than
   the IoU threshold, until the class or the rows are full. Boxes that share no area suppress
   nothing, nor do boxes without an area.
"""

# TVMScript is not Python to a type checker.
# mypy: ignore-errors

from __future__ import annotations

import functools

from tvm import tirx
from tvm.script import tirx as T

from tvmdet.passes.kernel_marks import mark_kernel

__all__ = ["non_max_suppression_func"]

_OPAQUE = 8  # tvm::relax::OpPatternKind::kOpaque: never fused with a neighbour


# A network that suppresses class by class asks for the same kernel again and again.
@functools.lru_cache(maxsize=64)
def non_max_suppression_func(
    images: int,
    classes: int,
    count: int,
    *,
    rows: int,
    per_class: int,
    iou_threshold: float,
    score_threshold: float,
    center_point_box: bool,
) -> tirx.PrimFunc:
    """Returns the kernel.

    It takes boxes float32 ``[N, B, 4]``, scores float32 ``[N, C, B]`` and real bool ``[B]``, and
    writes selected int64 ``[K, 3]`` (image, class, box) and valid bool ``[K]``; rows past the last
    are zero.

    Args:
        images: N.
        classes: C.
        count: Candidates B.
        rows: K.
        per_class: Most rows of one image and class.
        iou_threshold: Above it a box is suppressed.
        score_threshold: Only scores above it take part.
        center_point_box: Boxes are centre and size instead of two corners in any order.
    """
    most = max(min(per_class, rows, count), 1)
    centered = int(center_point_box)

    @T.prim_func(s_tir=True, private=True)
    def non_max_suppression(
        boxes: T.Buffer((images, count, 4), "float32"),
        scores: T.Buffer((images, classes, count), "float32"),
        real: T.Buffer((count,), "bool"),
        selected: T.Buffer((rows, 3), "int64"),
        valid: T.Buffer((rows,), "bool"),
    ):
        T.func_attr({"op_pattern": _OPAQUE, "tirx.noalias": True})
        heap_score = T.alloc_buffer((count,), "float32")
        heap_index = T.alloc_buffer((count,), "int32")
        kept_box = T.alloc_buffer((most, 4), "float32")
        kept_area = T.alloc_buffer((most,), "float32")
        size = T.alloc_buffer((1,), "int32", scope="local")
        total = T.alloc_buffer((1,), "int32", scope="local")
        kept = T.alloc_buffer((1,), "int32", scope="local")
        parent = T.alloc_buffer((1,), "int32", scope="local")
        child = T.alloc_buffer((1,), "int32", scope="local")
        index = T.alloc_buffer((1,), "int32", scope="local")
        start = T.alloc_buffer((1,), "int32", scope="local")
        row = T.alloc_buffer((1,), "int32", scope="local")
        chosen = T.alloc_buffer((1,), "int32", scope="local")
        score = T.alloc_buffer((1,), "float32", scope="local")
        box = T.alloc_buffer((4,), "float32", scope="local")
        area = T.alloc_buffer((1,), "float32", scope="local")
        wide = T.alloc_buffer((1,), "float32", scope="local")
        high = T.alloc_buffer((1,), "float32", scope="local")
        union = T.alloc_buffer((1,), "float32", scope="local")

        for k in T.serial(rows):
            valid[k] = T.bool(False)
            for e in T.serial(3):
                selected[k, e] = T.int64(0)
        total[0] = 0
        for n in T.serial(images):
            for c in T.serial(classes):
                # 1. Candidates.
                size[0] = 0
                if total[0] < rows:
                    for b in T.serial(count):
                        # Two ifs: TIR evaluates both sides of an `and`.
                        if real[b]:  # noqa: SIM102
                            if scores[n, c, b] > T.float32(score_threshold):
                                heap_score[size[0]] = scores[n, c, b]
                                heap_index[size[0]] = b
                                size[0] = size[0] + 1
                # 2. and 3. A heap step sinks the entry at `parent` to its place. The first
                # `start` steps build the heap from the last parent up, the others refill the
                # root after its candidate was taken.
                start[0] = size[0] // 2
                kept[0] = 0
                while start[0] > 0 or (size[0] > 0 and kept[0] < per_class and total[0] < rows):
                    if start[0] > 0:
                        start[0] = start[0] - 1
                        parent[0] = start[0]
                        score[0] = heap_score[parent[0]]
                        index[0] = heap_index[parent[0]]
                    else:
                        b: T.let[T.int32] = heap_index[0]
                        if centered == 1:
                            box[0] = boxes[n, b, 0] - boxes[n, b, 2] / T.float32(2)
                            box[1] = boxes[n, b, 1] - boxes[n, b, 3] / T.float32(2)
                            box[2] = boxes[n, b, 0] + boxes[n, b, 2] / T.float32(2)
                            box[3] = boxes[n, b, 1] + boxes[n, b, 3] / T.float32(2)
                        else:
                            box[0] = T.min(boxes[n, b, 0], boxes[n, b, 2])
                            box[1] = T.min(boxes[n, b, 1], boxes[n, b, 3])
                            box[2] = T.max(boxes[n, b, 0], boxes[n, b, 2])
                            box[3] = T.max(boxes[n, b, 1], boxes[n, b, 3])
                        area[0] = (box[2] - box[0]) * (box[3] - box[1])
                        row[0] = 0
                        chosen[0] = 1
                        while row[0] < kept[0] and chosen[0] == 1:
                            wide[0] = T.min(box[2], kept_box[row[0], 2]) - T.max(
                                box[0], kept_box[row[0], 0]
                            )
                            high[0] = T.min(box[3], kept_box[row[0], 3]) - T.max(
                                box[1], kept_box[row[0], 1]
                            )
                            union[0] = area[0] + kept_area[row[0]] - wide[0] * high[0]
                            if (
                                wide[0] > T.float32(0)
                                and high[0] > T.float32(0)
                                and area[0] > T.float32(0)
                                and kept_area[row[0]] > T.float32(0)
                                and union[0] > T.float32(0)
                                and wide[0] * high[0] > T.float32(0)
                                and wide[0] * high[0] / union[0] > T.float32(iou_threshold)
                            ):
                                chosen[0] = 0
                            row[0] = row[0] + 1
                        if chosen[0] == 1:
                            for e in T.unroll(4):
                                kept_box[kept[0], e] = box[e]
                            kept_area[kept[0]] = area[0]
                            kept[0] = kept[0] + 1
                            selected[total[0], 0] = T.cast(n, "int64")
                            selected[total[0], 1] = T.cast(c, "int64")
                            selected[total[0], 2] = T.cast(b, "int64")
                            valid[total[0]] = T.bool(True)
                            total[0] = total[0] + 1
                        size[0] = size[0] - 1
                        parent[0] = 0
                        score[0] = heap_score[size[0]]
                        index[0] = heap_index[size[0]]
                    child[0] = 2 * parent[0] + 1
                    while child[0] < size[0]:
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
                            child[0] = count + count
                    if size[0] > 0:
                        heap_score[parent[0]] = score[0]
                        heap_index[parent[0]] = index[0]

    return mark_kernel(
        non_max_suppression,
        "non_max_suppression",
        images=images,
        classes=classes,
        count=count,
        rows=rows,
        most=most,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        center_point_box=center_point_box,
    )
