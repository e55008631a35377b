"""What columns hold, followed through each operator that exporters write between."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_models import Graph

from tvmdet.frontend.bounds import Facts, apply_binary, apply_unary, join
from tvmdet.frontend.summary import summarise
from tvmdet.heads import ColumnRun

INF = math.inf


def _runs(build: Callable[[Graph, str, str], str], axis: int) -> tuple[ColumnRun, ...]:
    """Columns of an output made of raw [1, 4, 2, 3] and scored [1, 2, 2, 3] values.

    They are held against values of ONNX Runtime.
    """
    graph = Graph()
    raw = graph.conv("images", (3, 4), 1)
    scored = graph.node("Sigmoid", graph.conv("images", (3, 2), 1))
    output = build(graph, raw, scored)
    model = graph.model({"images": [1, 3, 2, 3]}, {output: None})
    summary = summarise(onnx.shape_inference.infer_shapes(model))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    images = np.random.default_rng(0).normal(0, 30, (1, 3, 2, 3)).astype(np.float32)
    (values,) = session.run(None, {"images": images})
    found = summary.column_runs(output, axis, 0, values.shape[axis])
    for run in found:
        part = np.take(values, range(run.start, run.stop), axis=axis)
        assert run.low - 1e-4 <= part.min()
        assert part.max() <= run.high + 1e-4
    assert [run.start for run in found[1:]] == [run.stop for run in found[:-1]]
    return found


def _shape(graph: Graph, data: str, *shape: int) -> str:
    return graph.node("Reshape", data, graph.constant(shape, np.int64))


def _joined(graph: Graph, raw: str, scored: str) -> str:
    return graph.node("Concat", raw, scored, axis=1)


def _rows(graph: Graph, raw: str, scored: str) -> str:
    flat = _shape(graph, _joined(graph, raw, scored), 1, 6, 6)
    return graph.node("Transpose", flat, perm=[0, 2, 1])


def _anchors(graph: Graph, raw: str, scored: str) -> str:
    """Two anchors of one raw and two scored values: the columns of the map are split."""
    both = graph.node("Concat", scored, raw, axis=1)
    return _shape(graph, both, 1, 2, 3, 2, 3)


def _sliced(graph: Graph, raw: str, scored: str) -> str:
    bounds = [graph.constant([value], np.int64) for value in (-1, -7, 1, -1)]
    return graph.node("Slice", _joined(graph, raw, scored), *bounds)


def _gathered(graph: Graph, raw: str, scored: str) -> str:
    return graph.node(
        "Gather", _joined(graph, raw, scored), graph.constant([5, 0], np.int64), axis=1
    )


def _split(graph: Graph, raw: str, scored: str) -> str:
    sizes = graph.constant([3, 3], np.int64)
    first = graph.node("Split", _joined(graph, raw, scored), sizes, outputs=2, axis=1)
    return graph.node("Identity", f"{first}.1")


def _scattered(graph: Graph, raw: str, scored: str) -> str:
    """``y[..., 0:2] = scored`` as torch's first exporter spells it."""
    grid = np.stack(np.meshgrid([0], [0, 1], range(2), range(3), indexing="ij"), axis=-1)
    return graph.node("ScatterND", raw, graph.constant(grid, np.int64), scored)


def _scattered_front(graph: Graph, raw: str, scored: str) -> str:
    """The same as its second exporter spells it: the axis in front, whole slices written."""
    front, new = (graph.node("Transpose", part, perm=[1, 0, 2, 3]) for part in (raw, scored))
    where = graph.constant([[0], [1]], np.int64)
    written = graph.node("ScatterND", front, where, new)
    return graph.node("Transpose", written, perm=[1, 0, 2, 3])


def _arithmetic(graph: Graph, raw: str, scored: str) -> str:
    """(2 s)^2 times an anchor per column, beside exp(t)."""
    square = graph.node("Pow", graph.node("Mul", scored, graph.constant(2.0)), graph.constant(2.0))
    sized = graph.node("Mul", square, graph.constant(np.array([10, 30]).reshape(1, 2, 1, 1)))
    limited = graph.node("Clip", raw, graph.constant(-3.0), graph.constant(3.0))
    return graph.node("Concat", sized, graph.node("Exp", limited), axis=1)


def _greatest(graph: Graph, raw: str, scored: str) -> str:
    """The best score of all classes beside the boxes, as exporters for DeepStream have it."""
    best = graph.node("ReduceMax", scored, axes=[1], keepdims=1)
    return graph.node("Concat", raw, best, axis=1)


def _constant(graph: Graph, raw: str, scored: str) -> str:
    return graph.node("Concat", scored, graph.constant(np.ones((1, 1, 2, 3))), axis=1)


@pytest.mark.parametrize(
    ("build", "axis", "scores"),
    [
        (_joined, 1, {4, 5}),
        (_rows, 2, {4, 5}),
        (_anchors, 2, set()),  # each column is raw in one of the anchors
        (_sliced, 1, {0, 1}),
        (_gathered, 1, {0}),
        (_split, 1, {1, 2}),
        (_scattered, 1, {0, 1}),
        (_scattered_front, 1, {0, 1}),
        (_arithmetic, 1, set()),
        (_constant, 1, {0, 1}),
        (_greatest, 1, {4}),
    ],
)
def test_columns_are_followed(
    build: Callable[[Graph, str, str], str], axis: int, scores: set[int]
) -> None:
    found = _runs(build, axis)
    assert found
    assert {at for run in found if run.is_score for at in range(run.start, run.stop)} == scores


def test_a_single_column_is_followed() -> None:
    """The scores of one class: an axis of one, as of a detector of faces."""

    def one(graph: Graph, _raw: str, scored: str) -> str:
        bounds = [graph.constant([value], np.int64) for value in (0, 1, 1, 1)]
        return graph.node("Slice", scored, *bounds)

    (run,) = _runs(one, 1)
    assert (run.start, run.stop, run.is_score) == (0, 1, True)


def test_bounds_of_arithmetic() -> None:
    sizes = [(run.low, run.high) for run in _runs(_arithmetic, 1)]
    np.testing.assert_allclose(sizes, [(0, 40), (0, 120), (math.exp(-3), math.exp(3))], rtol=1e-6)


def test_constants_have_no_operators() -> None:
    last = _runs(_constant, 1)[-1]
    assert (last.start, last.stop, last.operators) == (2, 3, frozenset())
    assert (last.low, last.high) == (1.0, 1.0)


def test_raw_values_are_told() -> None:
    assert [run.is_raw for run in _runs(_joined, 1)] == [True, False]


def test_a_long_chain_is_given_up() -> None:
    def deep(graph: Graph, raw: str, scored: str) -> str:
        data = scored
        for _ in range(3000):
            data = graph.node("Neg", data)
        return data

    (run,) = _runs(deep, 1)
    assert (run.low, run.high) == (-INF, INF)


@pytest.mark.parametrize(
    ("operator", "left", "right", "low", "high"),
    [
        ("Add", (0, 1), (-INF, 2), -INF, 3),
        ("Sub", (0, 1), (0, 1), -1, 1),
        ("Mul", (-1, 2), (-3, 4), -6, 8),
        ("Mul", (0, INF), (0, 0), 0, 0),
        ("Div", (1, 1), (1, INF), 0, 1),
        ("Div", (1, 1), (-1, 1), -INF, INF),
        ("Pow", (-3, 2), (2, 2), 0, 9),
        ("Pow", (-3, 2), (3, 3), -INF, INF),
        ("Pow", (0, 2), (0.5, 0.5), 0, 2**0.5),
        ("Max", (-1, 1), (0, 0.5), 0, 1),
        ("Min", (-1, 1), (0, 0.5), -1, 0.5),
    ],
)
def test_binary_bounds(
    operator: str,
    left: tuple[float, float],
    right: tuple[float, float],
    low: float,
    high: float,
) -> None:
    sides = [Facts(low=side[0], high=side[1]) for side in (left, right)]
    got = apply_binary(operator, *sides)
    assert (got.low, got.high) == (low, high)
    assert got.operators == {operator}


@pytest.mark.parametrize(
    ("operator", "low", "high", "expected"),
    [
        ("Sigmoid", -INF, INF, (0, 1)),
        ("Sigmoid", 0, INF, (0.5, 1)),
        ("Exp", -INF, 1000, (0, INF)),
        ("Neg", -1, INF, (-INF, 1)),
        ("Abs", -5, 2, (0, 5)),
        ("Relu", -5, -2, (0, 0)),
    ],
)
def test_unary_bounds(
    operator: str, low: float, high: float, expected: tuple[float, float]
) -> None:
    got = apply_unary(operator, Facts(low=low, high=high))
    assert (got.low, got.high) == expected


def test_joined_facts_hold_of_both() -> None:
    both = join([Facts(operators=frozenset("a"), low=0, high=1), Facts(low=-1, high=0.5)])
    assert both == Facts(operators=frozenset("a"), low=-1, high=1)
