"""How many rows of a value are looked at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx_models import Graph
from rows import ints, make

from tvmdet.frontend.bounded.demand import first_rows


def _cut(graph: Graph, value: str, stop: int) -> str:
    return graph.node("Slice", value, ints(graph, 0), ints(graph, stop), ints(graph, 0))


def _column(graph: Graph, found: str) -> str:
    return graph.node("Slice", found, ints(graph, 2), ints(graph, 3), ints(graph, 1))


def _torchvision(graph: Graph, found: str) -> list[str]:
    kept = graph.node("Gather", found, ints(graph, 2), axis=1)
    return [_cut(graph, graph.node("Squeeze", kept, ints(graph, 1)), 7)]


def _dynamo(graph: Graph, found: str) -> list[str]:
    return [_cut(graph, graph.node("Reshape", _column(graph, found), ints(graph, -1)), 7)]


def _number_too(graph: Graph, found: str) -> list[str]:
    kept = graph.node("Reshape", _column(graph, found), ints(graph, -1))
    count = graph.node("Min", graph.node("Shape", kept), ints(graph, 7))
    return [_cut(graph, kept, 5), count]


def _whole_number(graph: Graph, found: str) -> list[str]:
    return [_cut(graph, found, 7), graph.node("Shape", found)]


def _two_cuts(graph: Graph, found: str) -> list[str]:
    return [_cut(graph, found, 3), _cut(graph, _cut(graph, found, 9), 7)]


def _whole(graph: Graph, found: str) -> list[str]:
    return [_cut(graph, found, 7), graph.node("Neg", found)]


def _from_the_end(graph: Graph, found: str) -> list[str]:
    return [graph.node("Slice", found, ints(graph, 0), ints(graph, -1), ints(graph, 0))]


def _flattened(graph: Graph, found: str) -> list[str]:
    # Seven numbers of a flattened table are not seven rows.
    return [_cut(graph, graph.node("Reshape", found, ints(graph, -1)), 7)]


@pytest.mark.parametrize(
    ("emit", "rows"),
    [
        (_torchvision, 7),
        (_dynamo, 7),
        (_number_too, 7),
        (_whole_number, None),
        (_two_cuts, 7),
        (_whole, None),
        (_from_the_end, None),
        (_flattened, None),
    ],
)
def test_rows_that_are_looked_at(emit: Callable[[Graph, str], list[str]], rows: int | None) -> None:
    graph = Graph()
    found = graph.node("NonMaxSuppression", "boxes", "scores", graph.constant(9, np.int64))
    model = make(graph, emit(graph, found), {"boxes": [1, 9, 4], "scores": [1, 3, 9]})
    assert first_rows(model)(found) == rows


def test_output_is_looked_at_whole() -> None:
    graph = Graph()
    found = graph.node("NonMaxSuppression", "boxes", "scores", graph.constant(9, np.int64))
    model = make(graph, [found], {"boxes": [1, 9, 4], "scores": [1, 3, 9]})
    assert first_rows(model)(found) is None
