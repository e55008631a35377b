"""Pad: where a network adds rows to those that its picture chooses."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import Graph
from rows import check, ints, make, size_of, some_rows

from tvmdet.errors import ShapeError
from tvmdet.frontend.bounded import bound_shapes
from tvmdet.frontend.limits import Limits


def test_pad_then_cut_is_a_fixed_size() -> None:
    graph = Graph()
    joined = graph.node("Concat", some_rows(graph), graph.constant(np.zeros((5, 2, 3))), axis=0)
    output = graph.node("Slice", joined, ints(graph, 0), ints(graph, 5), ints(graph, 0))
    bounded = check(make(graph, [output], {"x": [8, 2, 3]}))
    assert not bounded.opened


@pytest.mark.parametrize("rows", [8, 11])
def test_pad_to_a_fixed_size(rows: int) -> None:
    # Ultralytics: torch.nn.functional.pad(found, (0, 0, 0, most - len(found))).
    graph = Graph()
    table = graph.node("Reshape", some_rows(graph), ints(graph, -1, 6))
    missing = graph.node("Sub", ints(graph, rows), size_of(graph, table))
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
def test_pad_to_a_fixed_size_by_a_rectified_rest(rows: int) -> None:
    # tf2onnx's NonMaxSuppression with pad_to_max_output_size: relu of K - n, in floats.
    graph = Graph()
    table = graph.node("Reshape", some_rows(graph), ints(graph, -1, 6))
    missing = graph.node("Cast", graph.node("Sub", ints(graph, rows), size_of(graph, table)), to=1)
    missing = graph.node("Cast", graph.node("Relu", missing), to=7)
    pads = graph.node("Concat", ints(graph, 0, 0), missing, ints(graph, 0), axis=0)
    output = graph.node("Pad", table, pads)
    bounded = check(make(graph, [output], {"x": [8, 2, 3]}))
    assert not bounded.opened


@pytest.mark.parametrize("rows", [8, 11])
def test_pad_flattened_to_a_fixed_size(rows: int) -> None:
    # Ultralytics since 8.4: pad(found.reshape(-1), (0, (most - len(found)) * c)).reshape(most, c).
    graph = Graph()
    table = graph.node("Reshape", some_rows(graph), ints(graph, -1, 6))
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
    table = graph.node("Reshape", some_rows(graph), ints(graph, -1, 6))
    if rank == 1:
        table = graph.node(
            "Reshape", graph.node("Gather", table, ints(graph, 1), axis=1), ints(graph, -1)
        )
    missing = graph.node("Sub", ints(graph, rows), size_of(graph, table))
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
    padded = graph.node("Pad", some_rows(graph), listed, graph.constant(-2.0))
    # The added rows are real ones: they are counted, and numbered.
    last = graph.node("Sub", size_of(graph, padded), ints(graph, 1))
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
    output = graph.node("Pad", some_rows(graph), listed, mode=mode)
    with pytest.raises(ShapeError, match=rf"\(Pad\): it pads a dimension whose {reason}"):
        bound_shapes(make(graph, [output], {"x": [8, 2, 3]}), Limits())


@pytest.mark.parametrize("rows", [8, 11])
def test_a_size_with_axes_counted_from_the_end(rows: int) -> None:
    graph = Graph()
    table = some_rows(graph)
    missing = graph.node("Sub", ints(graph, rows), size_of(graph, table))  # [1]
    tall = graph.node("Reshape", missing, ints(graph, 0, 1, 1))  # [1, 1, 1]; 0 keeps what is there
    for axis in (-1, -2):
        tall = graph.node("Squeeze", tall, ints(graph, axis))
    pads = graph.node("Concat", ints(graph, 0, 0, 0), tall, ints(graph, 0, 0), axis=0)
    output = graph.node("Pad", table, pads)
    bounded = check(make(graph, [output], {"x": [8, 2, 3]}))
    assert not bounded.opened
