"""Rules of operators that move values: where an open dimension goes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx_models import Graph
from rows import check, chosen, feeds_of, ints, make

from tvmdet.errors import ShapeError
from tvmdet.frontend.bounded import bound_shapes
from tvmdet.frontend.limits import Limits


def _table(graph: Graph, above: float = 0.2) -> str:
    """Rows ``[n, 2, 3]`` of x ``[8, 2, 3]`` whose largest entry is above a threshold."""
    largest = graph.node("ReduceMax", "x", axes=[1, 2], keepdims=0)
    return graph.node("Gather", "x", chosen(graph, largest, above), axis=0)


def _size(graph: Graph, value: str, axis: int = 0) -> str:
    return graph.node("Gather", graph.node("Shape", value), ints(graph, axis), axis=0)


def _reshape_flat(graph: Graph, table: str) -> str:
    return graph.node("Reshape", table, ints(graph, -1))


def _reshape_rows(graph: Graph, table: str) -> str:
    return graph.node("Reshape", table, ints(graph, -1, 6))


def _reshape_keep(graph: Graph, table: str) -> str:
    return graph.node("Reshape", table, ints(graph, 0, 3, 2))


def _reshape_computed(graph: Graph, table: str) -> str:
    target = graph.node("Concat", _size(graph, table), ints(graph, 6, 1), axis=0)
    return graph.node("Reshape", table, target)


def _reshape_there_and_back(graph: Graph, table: str) -> str:
    flat = graph.node("Relu", _reshape_flat(graph, table))
    return graph.node("Reshape", flat, ints(graph, -1, 2, 3))


def _reshape_inner(graph: Graph, table: str) -> str:
    turned = graph.node("Transpose", table, perm=[1, 0, 2])
    return graph.node("Reshape", turned, ints(graph, 2, -1))


def _flatten(graph: Graph, table: str) -> str:
    return graph.node("Flatten", table, axis=2)


def _transpose(graph: Graph, table: str) -> str:
    return graph.node("Transpose", table)


def _unsqueeze(graph: Graph, table: str) -> str:
    wide = graph.node("Unsqueeze", table, ints(graph, 0, 2))
    return graph.node("Squeeze", wide, ints(graph, 0))


def _split(graph: Graph, table: str) -> str:
    parts = graph.node("Split", table, ints(graph, 1, 2), outputs=2, axis=2)
    return graph.node("Concat", f"{parts}.1", parts, axis=2)


def _slice_first(graph: Graph, table: str) -> str:
    return graph.node("Slice", table, ints(graph, 0), ints(graph, 3), ints(graph, 0))


def _slice_from(graph: Graph, table: str) -> str:
    return graph.node("Slice", table, ints(graph, 2), ints(graph, 100), ints(graph, 0))


def _slice_column(graph: Graph, table: str) -> str:
    bounds = (ints(graph, -1), ints(graph, -100), ints(graph, 2), ints(graph, -1))
    return graph.node("Slice", table, *bounds)


def _slice_as_many(graph: Graph, table: str) -> str:
    """As many rows of x as the table has."""
    return graph.node("Slice", "x", ints(graph, 0), _size(graph, table), ints(graph, 0))


def _concat_fixed(graph: Graph, table: str) -> str:
    return graph.node("Concat", table, "x", table, axis=0)


def _concat_flat(graph: Graph, table: str) -> str:
    other = _table(graph, above=0.7)
    return graph.node("Concat", _reshape_rows(graph, table), _reshape_rows(graph, other), axis=0)


def _expand(graph: Graph, table: str) -> str:
    target = graph.node("Concat", _size(graph, table), ints(graph, 4), axis=0)
    return graph.node("Expand", graph.constant([[1.0, 2.0, 3.0, 4.0]]), target)


def _tile(graph: Graph, table: str) -> str:
    return graph.node("Tile", table, ints(graph, 2, 1, 2))


def _tile_by_one_hot(graph: Graph, table: str) -> str:
    """torch.repeat_interleave below opset 13: one number for each row, Detectron2's RoIs."""
    times = graph.node("Concat", ints(graph, 1), _size(graph, table), axis=0)
    hot = graph.node("OneHot", ints(graph, 1), graph.constant(2, np.int64), times)
    return graph.node("Tile", graph.constant([[3.0]]), graph.node("Reshape", hot, ints(graph, -1)))


def _fill(graph: Graph, table: str) -> str:
    filling = onnx.helper.make_tensor("v", onnx.TensorProto.INT64, [1], [7])
    return graph.node("ConstantOfShape", graph.node("Shape", table), value=filling)


def _fill_times(graph: Graph, table: str) -> str:
    twice = graph.node("Mul", _size(graph, table), ints(graph, 2))
    return graph.node("ConstantOfShape", twice)


def _numbers(graph: Graph, table: str) -> str:
    scalar = graph.node("Squeeze", _size(graph, table), ints(graph, 0))
    zero, one = (graph.constant(value, np.int64) for value in (0, 1))
    return graph.node("Range", zero, scalar, one)


def _pad(graph: Graph, table: str) -> str:
    return graph.node("Pad", table, ints(graph, 0, 1, 0, 0, 0, 2))


def _softmax(graph: Graph, table: str) -> str:
    return graph.node("Softmax", table, axis=0)


def _product(graph: Graph, table: str) -> str:
    rows = _reshape_rows(graph, table)
    return graph.node("MatMul", rows, graph.node("Transpose", rows, perm=[1, 0]))


def _product_over_rows(graph: Graph, table: str) -> str:
    rows = _reshape_rows(graph, table)
    return graph.node("MatMul", graph.node("Transpose", rows, perm=[1, 0]), rows)


def _dense(graph: Graph, table: str) -> str:
    weight = graph.constant(graph.rng.normal(size=(4, 6)))
    return graph.node("Gemm", _reshape_rows(graph, table), weight, transB=1)


def _conv(graph: Graph, table: str) -> str:
    pictures = graph.node("Unsqueeze", table, ints(graph, 1))
    return graph.conv(pictures, (1, 2), 2)


def _count(graph: Graph, table: str) -> str:
    total = graph.node("Cast", graph.node("Size", table), to=onnx.TensorProto.FLOAT)
    return graph.node("Div", total, graph.constant(4.0))


def _less(graph: Graph, table: str) -> str:
    """Sizes less one, which no symbol says: computed by the network."""
    return graph.node("Sub", _size(graph, table), ints(graph, 1))


_LAYOUTS = [
    value
    for name, value in sorted(globals().items())
    if name.startswith("_") and callable(value) and name not in ("_table", "_size")
]


@pytest.mark.parametrize("emit", _LAYOUTS, ids=lambda emit: emit.__name__.strip("_"))
@pytest.mark.parametrize("opset", [pytest.param(13, marks=pytest.mark.slow), 17])
def test_rows_follow(emit: Callable[[Graph, str], str], opset: int) -> None:
    graph = Graph()
    output = emit(graph, _table(graph))
    model = make(graph, [output], {"x": [8, 2, 3]}, opset)
    check(model, feeds_of(model, count=5))


def test_a_one_hot_is_not_written_out_at_any_depth() -> None:
    """A few bytes of a file may ask for more than there is memory."""
    graph = Graph()
    times = graph.node("Concat", ints(graph, 1), _size(graph, _table(graph)), axis=0)
    hot = graph.node("OneHot", ints(graph, 1), graph.constant(1 << 40, np.int64), times)
    repeats = graph.node("Slice", hot, ints(graph, 0), ints(graph, 2), ints(graph, 1))
    output = graph.node(
        "Tile", graph.constant([[3.0]]), graph.node("Reshape", repeats, ints(graph, -1))
    )
    with pytest.raises(ShapeError, match="'tile_"):
        bound_shapes(make(graph, [output], {"x": [8, 2, 3]}), Limits())


def test_pad_then_cut_is_a_fixed_size() -> None:
    graph = Graph()
    joined = graph.node("Concat", _table(graph), graph.constant(np.zeros((5, 2, 3))), axis=0)
    output = graph.node("Slice", joined, ints(graph, 0), ints(graph, 5), ints(graph, 0))
    bounded = check(make(graph, [output], {"x": [8, 2, 3]}))
    assert not bounded.opened


@pytest.mark.parametrize("rows", [8, 11])
def test_pad_to_a_fixed_size(rows: int) -> None:
    # Ultralytics: torch.nn.functional.pad(found, (0, 0, 0, most - len(found))).
    graph = Graph()
    table = _reshape_rows(graph, _table(graph))
    missing = graph.node("Sub", ints(graph, rows), _size(graph, table))
    halves = graph.node("Concat", ints(graph, 0, 0, 0), missing, axis=0)
    turned = graph.node("Reshape", halves, ints(graph, -1, 2))
    turned = graph.node(
        "Slice", turned, ints(graph, -1), ints(graph, -(2**62)), ints(graph, 0), ints(graph, -1)
    )
    pads = graph.node("Reshape", graph.node("Transpose", turned, perm=[1, 0]), ints(graph, -1))
    output = graph.node("Pad", table, pads, graph.constant(-2.0))
    bounded = check(make(graph, [output], {"x": [8, 2, 3]}))
    assert not bounded.opened


@pytest.mark.parametrize("rows", [8, 11])
def test_pad_flattened_to_a_fixed_size(rows: int) -> None:
    # Ultralytics since 8.4: pad(found.reshape(-1), (0, (most - len(found)) * c)).reshape(most, c).
    graph = Graph()
    table = _reshape_rows(graph, _table(graph))
    shape = graph.node("Shape", table)
    count, columns = (graph.node("Gather", shape, ints(graph, at)) for at in (0, 1))
    missing = graph.node("Mul", graph.node("Sub", ints(graph, rows), count), columns)
    pads = graph.node("Concat", ints(graph, 0), missing, axis=0)
    padded = graph.node("Pad", graph.node("Reshape", table, ints(graph, -1)), pads)
    target = graph.node("Concat", ints(graph, rows), columns, axis=0)
    output = graph.node("Reshape", padded, target)
    bounded = check(make(graph, [output], {"x": [8, 2, 3]}))
    assert not bounded.opened


@pytest.mark.parametrize("rows", [8, 11])
@pytest.mark.parametrize("rank", [1, 2])
def test_pad_by_a_table_of_begins_and_ends(rows: int, rank: int) -> None:
    # TensorFlow's pad takes [[begin, end], ...], which tf2onnx turns over.
    graph = Graph()
    table = _reshape_rows(graph, _table(graph))
    if rank == 1:
        table = graph.node(
            "Reshape", graph.node("Gather", table, ints(graph, 1), axis=1), ints(graph, -1)
        )
    missing = graph.node("Sub", ints(graph, rows), _size(graph, table))
    row = graph.node("Concat", ints(graph, 0), missing, axis=0)
    listed = [graph.node("Unsqueeze", row, ints(graph, 0))]
    listed += [graph.node("Unsqueeze", ints(graph, 0, 0), ints(graph, 0))] * (rank - 1)
    pads = graph.node("Concat", *listed, axis=0) if rank > 1 else listed[0]
    turned = graph.node("Transpose", graph.node("Cast", pads, to=7))
    output = graph.node("Pad", table, graph.node("Reshape", turned, ints(graph, -1)))
    bounded = check(make(graph, [output], {"x": [8, 2, 3]}))
    assert not bounded.opened


@pytest.mark.parametrize("pads", [(1, 0), (0, 2), (2, 1)])
def test_pad_puts_rows_around_open_ones(pads: tuple[int, int]) -> None:
    graph = Graph()
    listed = ints(graph, pads[0], 0, 1, pads[1], 0, 0)
    padded = graph.node("Pad", _table(graph), listed, graph.constant(-2.0))
    # The added rows are real ones: they are counted, and numbered.
    last = graph.node("Sub", _size(graph, padded), ints(graph, 1))
    taken = graph.node("Gather", padded, graph.node("Max", last, ints(graph, 0)), axis=0)
    check(make(graph, [padded, taken], {"x": [8, 2, 3]}))


@pytest.mark.parametrize(
    ("pads", "mode", "reason"),
    [((-1, 0), "constant", "size depends"), ((1, 0), "edge", "size depends")],
)
def test_other_padding_of_open_rows_is_refused(
    pads: tuple[int, int], mode: str, reason: str
) -> None:
    graph = Graph()
    listed = ints(graph, pads[0], 0, 0, pads[1], 0, 0)
    output = graph.node("Pad", _table(graph), listed, mode=mode)
    with pytest.raises(ShapeError, match=rf"\(Pad\): it pads a dimension whose {reason}"):
        bound_shapes(make(graph, [output], {"x": [8, 2, 3]}), Limits())


@pytest.mark.parametrize("rows", [8, 11])
def test_a_size_with_axes_counted_from_the_end(rows: int) -> None:
    graph = Graph()
    table = _table(graph)
    missing = graph.node("Sub", ints(graph, rows), _size(graph, table))  # [1]
    tall = graph.node("Reshape", missing, ints(graph, 0, 1, 1))  # [1, 1, 1]; 0 keeps what is there
    for axis in (-1, -2):
        tall = graph.node("Squeeze", tall, ints(graph, axis))
    pads = graph.node("Concat", ints(graph, 0, 0, 0), tall, ints(graph, 0, 0), axis=0)
    output = graph.node("Pad", table, pads)
    bounded = check(make(graph, [output], {"x": [8, 2, 3]}))
    assert not bounded.opened


def test_reshape_by_pixels_is_refused() -> None:
    graph = Graph()
    table = _table(graph)
    target = graph.node("Cast", graph.node("ReduceMax", "x", keepdims=0), to=7)
    target = graph.node("Unsqueeze", target, ints(graph, 0))
    output = graph.node("Reshape", table, target)
    with pytest.raises(ShapeError, match=r"\(Reshape\): its target shape is computed from the"):
        bound_shapes(make(graph, [output], {"x": [8, 2, 3]}), Limits())


def test_fixed_dimension_against_an_open_one_is_refused() -> None:
    graph = Graph()
    output = graph.node("Add", _table(graph), graph.constant(np.ones((3, 2, 3))))
    with pytest.raises(ShapeError, match=r"\(Add\): a dimension of 3 meets one whose size"):
        bound_shapes(make(graph, [output], {"x": [8, 2, 3]}), Limits())
