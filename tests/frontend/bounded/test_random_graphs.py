"""Random small networks of the operators that choose, move and combine rows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_models import Graph
from rows import check, chosen, feeds_of, ints, make

_WIDTH = 3


class _Maker:
    """Grows a network: values ``[n, 3]`` whose n belong together, by number of rows."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph(seed)
        first = self.graph.node("Reshape", "x", ints(self.graph, -1, _WIDTH))
        self.tables = [first]

    def any(self) -> str:
        return str(self.rng.choice(self.tables))

    def column(self, table: str) -> str:
        at = self.graph.constant(int(self.rng.integers(_WIDTH)), np.int64)
        return self.graph.node("Gather", table, at, axis=1)

    def select(self) -> str:
        """Rows whose column is above a threshold."""
        table = self.any()
        above = float(self.rng.choice([-0.5, -0.2, 0.1]))
        rows = chosen(self.graph, self.column(table), above)
        return self.graph.node("Gather", table, rows, axis=0)

    def scores_of_pairs(self) -> str:
        """Rows and columns of entries above a threshold, as in multi-label detectors."""
        table = self.any()
        found = self.graph.node(
            "NonZero", self.graph.node("Greater", table, self.graph.constant(0.3))
        )
        pairs = self.graph.node("Transpose", found, perm=[1, 0])
        values = self.graph.node("GatherND", table, pairs)
        rows = self.graph.node("Gather", found, self.graph.constant(0, np.int64), axis=0)
        picked = self.graph.node("Gather", table, rows, axis=0)
        wide = self.graph.node("Unsqueeze", values, ints(self.graph, 1))
        return self.graph.node("Mul", picked, wide)

    def best(self) -> str:
        """The best k rows, or all where there are fewer."""
        table = self.any()
        scores = self.column(table)
        count = self.graph.node("Shape", scores)
        k = self.graph.node("Min", count, ints(self.graph, int(self.rng.integers(1, 5))))
        best = self.graph.node("TopK", scores, k, outputs=2, axis=0)
        return self.graph.node("Gather", table, f"{best}.1", axis=0)

    def first(self) -> str:
        """The first rows."""
        stop = int(self.rng.integers(1, 6))
        bounds = [ints(self.graph, at) for at in (0, stop, 0)]
        return self.graph.node("Slice", self.any(), *bounds)

    def join(self) -> str:
        """Two tables, one after the other."""
        return self.graph.node("Concat", self.any(), self.any(), axis=0)

    def scale(self) -> str:
        """Softmax of every row."""
        return self.graph.node("Softmax", self.any(), axis=1)

    def turn(self) -> str:
        """Through a flat view and back, by a computed shape."""
        table = self.any()
        count = self.graph.node("Shape", table)
        flat = self.graph.node("Relu", self.graph.node("Reshape", table, ints(self.graph, -1)))
        return self.graph.node("Reshape", flat, count)

    def put_back(self) -> str:
        """Doubles some rows in place, as pooling by level does."""
        table = self.any()
        rows = chosen(self.graph, self.column(table), 0.2)
        updates = self.graph.node("Gather", table, rows, axis=0)
        updates = self.graph.node("Add", updates, updates)
        places = self.graph.node("Unsqueeze", rows, ints(self.graph, 1))
        return self.graph.node("ScatterND", table, places, updates)

    def put_elements_back(self) -> str:
        """The same with an expanded index."""
        table = self.any()
        rows = chosen(self.graph, self.column(table), 0.2)
        updates = self.graph.node("Neg", self.graph.node("Gather", table, rows, axis=0))
        places = self.graph.node("Reshape", rows, ints(self.graph, -1, 1))
        places = self.graph.node("Expand", places, self.graph.node("Shape", updates))
        return self.graph.node("ScatterElements", table, places, updates, axis=0)

    def center(self) -> str:
        """Less the sum of all rows."""
        table = self.any()
        total = self.graph.node("ReduceSum", table, ints(self.graph, 0), keepdims=1)
        return self.graph.node("Sub", table, total)

    def number(self) -> str:
        """Adds to each row its number."""
        table = self.any()
        count = self.graph.node(
            "Gather", self.graph.node("Shape", table), self.graph.constant(0, np.int64), axis=0
        )
        zero, one = (self.graph.constant(value, np.int64) for value in (0, 1))
        numbers = self.graph.node("Range", zero, count, one)
        numbers = self.graph.node("Cast", numbers, to=onnx.TensorProto.FLOAT)
        return self.graph.node(
            "Add", table, self.graph.node("Unsqueeze", numbers, ints(self.graph, 1))
        )

    STEPS = (
        select,
        select,
        scores_of_pairs,
        best,
        first,
        join,
        scale,
        turn,
        put_back,
        put_elements_back,
        center,
        number,
    )


def _model(seed: int, steps: int) -> onnx.ModelProto:
    maker = _Maker(seed)
    maker.tables.append(maker.select())
    for _ in range(steps):
        step = maker.STEPS[int(maker.rng.integers(len(maker.STEPS)))]
        maker.tables.append(step(maker))
    last = maker.tables[-1]
    counted = maker.graph.node("Shape", last)
    return make(maker.graph, [last, maker.tables[-2], counted], {"x": [12 * _WIDTH]})


@pytest.mark.parametrize("seed", range(16))
def test_random_networks_keep_their_rows(seed: int) -> None:
    model = _model(seed, steps=5)
    check(model, feeds_of(model, count=3, seed=seed), varied=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_many_random_networks_keep_their_rows(seed: int) -> None:
    model = _model(seed, steps=9)
    check(model, feeds_of(model, count=4, seed=seed), varied=False)
