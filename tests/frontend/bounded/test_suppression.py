"""Suppression with bounded rows: ONNX Runtime's rows, by the function and by the kernel."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tvm
from onnx_models import Graph
from rows import check, chosen, feeds_of, ints, make
from tvm import relax

from tvmdet.frontend.bounded import bound_shapes
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.prove import run_onnx
from tvmdet.passes.lower_non_max_suppression import (
    LowerNonMaxSuppression,
    call_non_max_suppression,
)


def _suppression(graph: Graph, boxes: str, scores: str, most: int = 5, **more: int) -> str:
    return graph.node(
        "NonMaxSuppression",
        boxes,
        scores,
        ints(graph, most),
        graph.constant([0.3]),
        graph.constant([0.1]),
        **more,
    )


def _scaled(graph: Graph, boxes: str) -> str:
    """Boxes that overlap, from numbers in -1 to 1."""
    return graph.node("Mul", boxes, graph.constant([1.0, 1.0, 2.0, 2.0]))


@pytest.mark.parametrize("center", [0, 1])
def test_classes_and_images_in_order(center: int) -> None:
    graph = Graph()
    boxes = graph.node("Abs", _scaled(graph, "boxes"))
    found = _suppression(graph, boxes, "scores", center_point_box=center)
    kept = graph.node("Gather", found, graph.constant(2, np.int64), axis=1)
    model = make(graph, [found, kept], {"boxes": [2, 9, 4], "scores": [2, 3, 9]})
    bounded = check(model)
    assert bounded.notes[0].endswith("at most 30 rows, by the graph")


def test_candidates_that_are_not_real_take_no_part() -> None:
    graph = Graph()
    rows = chosen(graph, graph.node("Gather", "x", graph.constant(4, np.int64), axis=1), -0.2)
    table = graph.node("Gather", "x", rows, axis=0)
    parts = graph.node("Split", table, ints(graph, 4, 1), outputs=2, axis=1)
    boxes = graph.node("Unsqueeze", _scaled(graph, parts), ints(graph, 0))
    scores = graph.node("Transpose", f"{parts}.1", perm=[1, 0])
    found = _suppression(graph, boxes, graph.node("Unsqueeze", scores, ints(graph, 0)), most=99)
    kept = graph.node("Gather", found, ints(graph, 2), axis=1)
    kept = graph.node("Squeeze", kept, ints(graph, 1))
    first = graph.node("Slice", kept, ints(graph, 0), ints(graph, 4), ints(graph, 0))
    bounded = check(
        make(graph, [first, graph.node("Gather", table, first, axis=0)], {"x": [20, 5]})
    )
    # Only four rows are looked at, so only four are found.
    (call,) = [node for node in bounded.model.graph.node if node.domain == "tvmdet"]
    assert {entry.name: entry.i for entry in call.attribute}["rows"] == 4


def test_limit_keeps_the_best_of_every_class() -> None:
    graph = Graph()
    found = _suppression(graph, "boxes", "scores", most=9)
    model = make(graph, [found], {"boxes": [1, 9, 4], "scores": [1, 3, 9]})
    bounded = bound_shapes(model, Limits(max_rows=7))
    assert "2 per class, of up to 27 (Limits.max_rows)" in bounded.notes[0]
    (feed, *_) = feeds_of(model)
    (all_rows,), (got,) = run_onnx(model, [feed]), run_onnx(bounded.model, [feed])
    wanted = [
        row
        for label in range(3)
        for row in [row for row in all_rows[found].tolist() if row[1] == label][:2]
    ]
    count = int(got[f"{found}.rows"][0])
    assert got[found][:count].tolist() == wanted


def test_threshold_of_the_image_is_refused() -> None:
    graph = Graph()
    threshold = graph.node("ReduceMax", "scores", axes=[0, 1, 2], keepdims=0)
    found = graph.node("NonMaxSuppression", "boxes", "scores", ints(graph, 3), threshold)
    model = make(graph, [found], {"boxes": [1, 9, 4], "scores": [1, 3, 9]})
    with pytest.raises(Exception, match="its iou_threshold is not a constant"):
        bound_shapes(model, Limits())


# Images, classes, candidates, rows, rows per class, boxes as centre and size.
_SIZES = [
    (1, 1, 1, 1, 1, False),
    (1, 1, 40, 10, 99, False),
    (2, 3, 33, 300, 7, False),
    (1, 4, 17, 30, 5, True),
    (1, 2, 9, 5, 0, False),
]


@pytest.mark.parametrize("sizes", _SIZES)
def test_kernel_is_onnx_runtime_to_the_row(sizes: tuple[int, int, int, int, int, bool]) -> None:
    # A kernel of its own for each size: compiled here, run on many inputs.
    images, classes, count, rows, per_class, center = sizes
    run = _compiled(sizes)
    graph = Graph()
    found = graph.node(
        "NonMaxSuppression",
        "boxes",
        "scores",
        ints(graph, per_class),
        graph.constant([0.5]),
        graph.constant([0.2]),
        center_point_box=int(center),
    )
    model = make(graph, [found], {"boxes": [images, count, 4], "scores": [images, classes, count]})
    rng = np.random.default_rng(3)
    lengths = set()
    for _ in range(12):
        # Few different numbers: equal scores, equal boxes, touching ones, boxes without area.
        boxes = rng.integers(0, 12, (images, count, 4)).astype(np.float32)
        scores = (rng.integers(0, 8, (images, classes, count)) / 8).astype(np.float32)
        real = rng.random(count) < 0.7
        shown = np.where(real, scores, np.float32(-1))
        (expected,) = run_onnx(model, [{"boxes": boxes, "scores": shown}])
        wanted = expected[found][:rows]
        selected, valid = run(boxes, scores, real)
        np.testing.assert_array_equal(valid, np.arange(rows) < len(wanted))
        np.testing.assert_array_equal(selected[: len(wanted)], wanted)
        assert not selected[len(wanted) :].any()
        lengths.add(len(wanted))
    assert max(lengths) > 0 or per_class == 0


def _compiled(sizes: tuple[int, int, int, int, int, bool]):
    images, classes, count, rows, per_class, center = sizes
    params = [
        relax.Var("boxes", relax.TensorType((images, count, 4), "float32")),
        relax.Var("scores", relax.TensorType((images, classes, count), "float32")),
        relax.Var("real", relax.TensorType((count,), "bool")),
    ]
    builder = relax.BlockBuilder()
    with builder.function("main", params):
        with builder.dataflow():
            pair = builder.emit(
                call_non_max_suppression(
                    *params,
                    rows=rows,
                    per_class=per_class,
                    iou_threshold=0.5,
                    score_threshold=0.2,
                    center_point_box=center,
                )
            )
            result = builder.emit_output(relax.Tuple([builder.emit(pair[at]) for at in range(2)]))
        builder.emit_func_output(result)
    module = LowerNonMaxSuppression()(builder.get())
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        tensors = (tvm.runtime.tensor(array) for array in arrays)
        return [tensor.numpy() for tensor in machine["main"](*tensors)]

    return run


def test_rewritten_model_is_valid_onnx() -> None:
    graph = Graph()
    found = _suppression(graph, "boxes", "scores")
    model = make(graph, [found], {"boxes": [1, 9, 4], "scores": [1, 3, 9]})
    onnx.checker.check_model(bound_shapes(model, Limits()).model)
