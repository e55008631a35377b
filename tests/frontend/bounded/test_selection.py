"""Rules of operators that choose rows: bounds, order and neutral elements."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import Graph
from rows import check, chosen, feeds_of, ints, make

from tvmdet.errors import ModelError, ShapeError
from tvmdet.frontend.bounded import bound_shapes
from tvmdet.frontend.limits import Limits


def test_non_zero_of_a_vector_keeps_its_order() -> None:
    graph = Graph()
    rows = chosen(graph)
    bounded = check(make(graph, [rows, graph.node("Gather", "x", rows)]))
    assert set(bounded.opened) == {rows, "gather_3"}
    # Both have as many rows, so one count says it.
    assert {counter for axes in bounded.opened.values() for counter in axes.values()} == {
        f"{rows}.rows"
    }


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("operator", ["GreaterOrEqual", "LessOrEqual"])
def test_non_zero_of_what_is_a_function_of_other_operators(operator: str, opset: int) -> None:
    """Before opset 16 ONNX infers no shape of them alone, which is not that of a scalar."""
    graph = Graph()
    rows = graph.node("NonZero", graph.node(operator, "x", graph.constant(0.0)))
    rows = graph.node("Reshape", rows, ints(graph, -1))
    check(make(graph, [graph.node("Gather", "x", rows)], opset=opset))


@pytest.mark.parametrize("opset", [11, 12])
def test_counts_are_bounded_before_minima_of_integers(opset: int) -> None:
    """As many of the best as there are rows is a minimum of counts, which opset 12 has."""
    graph = Graph()
    found = graph.node("NonZero", graph.node("Greater", "x", graph.constant(0.0)))
    rows = graph.node("Reshape", found, ints(graph, -1))
    best = graph.node("TopK", graph.node("Gather", "x", rows), ints(graph, 3), outputs=2)
    rng = np.random.default_rng(1)
    feeds = []
    for positive in (5, 9):
        values = -rng.random(12, np.float32)
        values[:positive] *= -1
        feeds.append({"x": rng.permutation(values)})
    check(make(graph, [best], opset=opset), feeds, varied=False)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("operator", ["Min", "Max"])
def test_sizes_are_compared_as_floats(operator: str, opset: int) -> None:
    """TorchScript writes a minimum of sizes so at opset 11, which has none of whole numbers."""
    graph = Graph()
    found = graph.node("NonZero", graph.node("Greater", "x", graph.constant(0.0)))
    values = graph.node("Gather", "x", graph.node("Reshape", found, ints(graph, -1)))
    padded = graph.node("Concat", values, graph.constant([0.5, 0.25, 0.125]), axis=0)
    count = graph.node("Cast", graph.node("Shape", values), to=TensorProto.FLOAT)
    chosen_k = graph.node("Cast", graph.node(operator, graph.constant([3.0]), count), to=7)
    source = padded if operator == "Max" else values
    check(make(graph, [graph.node("TopK", source, chosen_k, outputs=2)], opset=opset), _seen())


@pytest.mark.parametrize("bounds", [("", "most"), ("least", ""), ("least", "most")])
@pytest.mark.parametrize("opset", [11, 17])
def test_sizes_are_clipped_as_floats(bounds: tuple[str, str], opset: int) -> None:
    """Detectron2 clamps the number of a RetinaNet's candidates at opset 11."""
    graph = Graph()
    limits = {"": "", "least": graph.constant(2.0), "most": graph.constant(3.0)}
    found = graph.node("NonZero", graph.node("Greater", "x", graph.constant(0.0)))
    values = graph.node("Gather", "x", graph.node("Reshape", found, ints(graph, -1)))
    padded = graph.node("Concat", values, graph.constant([0.5, 0.25]), axis=0)
    count = graph.node("Cast", graph.node("Shape", values), to=TensorProto.FLOAT)
    clipped = graph.node("Clip", count, *(limits[bound] for bound in bounds))
    best = graph.node("TopK", padded, graph.node("Cast", clipped, to=7), outputs=2)
    check(make(graph, [best], opset=opset), _seen())


def test_least_of_joined_sizes_is_a_size() -> None:
    """The least of a list, as TorchScript writes min([rows, 3]) for runtimes of opset 10."""
    graph = Graph()
    found = graph.node("NonZero", graph.node("Greater", "x", graph.constant(0.0)))
    values = graph.node("Gather", "x", graph.node("Reshape", found, ints(graph, -1)))
    joined = graph.node("Concat", graph.node("Shape", values), ints(graph, 3), axis=0)
    floats = graph.node("Cast", joined, to=TensorProto.FLOAT)
    least = graph.node("ReduceMin", floats, axes=[0], keepdims=1)
    best = graph.node("TopK", values, graph.node("Cast", least, to=7), outputs=2)
    check(make(graph, [best], opset=11), _seen())


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize(
    ("operator", "turned"), [("Less", 0), ("Greater", 1), ("Less", 1), ("Greater", 0)]
)
def test_choice_of_the_lesser_or_greater_size_is_a_size(
    operator: str, turned: int, opset: int
) -> None:
    """MMDeploy writes the least of k and the number of rows as a choice (rewriter of topk)."""
    graph = Graph()
    found = graph.node("NonZero", graph.node("Greater", "x", graph.constant(0.0)))
    values = graph.node("Gather", "x", graph.node("Reshape", found, ints(graph, -1)))
    padded = graph.node("Concat", values, graph.constant([0.5, 0.25, 0.125]), axis=0)
    count = graph.node("Gather", graph.node("Shape", values), graph.constant(0, np.int64))
    count = graph.node("Add", graph.constant(0, np.int64), count)
    three = graph.constant(3, np.int64)
    branches = (count, three) if turned else (three, count)
    k = graph.node("Where", graph.node(operator, three, count), *branches)
    least = turned == (operator == "Greater")
    best = graph.node(
        "TopK", values if least else padded, graph.node("Reshape", k, ints(graph, 1)), outputs=2
    )
    check(make(graph, [best], opset=opset), _seen())


def test_comparison_of_sizes_may_choose_other_values() -> None:
    graph = Graph()
    values = graph.node("Gather", "x", chosen(graph))
    count = graph.node("Gather", graph.node("Shape", values), graph.constant(0, np.int64))
    few = graph.node("LessOrEqual", count, graph.constant(4, np.int64))
    never = graph.node("Greater", count, graph.constant(12, np.int64))
    factors = graph.node("Where", few, graph.constant([2.0]), graph.constant([3.0]))
    outputs = [
        graph.node("Mul", values, factors),
        graph.node("Where", never, graph.constant([2.0]), graph.constant([3.0])),
        graph.node("Where", few, count, graph.constant(7, np.int64)),
    ]
    check(make(graph, outputs), _seen())


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("operator", ["Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
def test_a_difference_of_sizes_may_be_below_0(operator: str, turned: bool) -> None:
    graph = Graph()
    values = graph.node("Gather", "x", chosen(graph))
    count = graph.node("Gather", graph.node("Shape", values), graph.constant(0, np.int64))
    more = graph.node("Sub", count, graph.constant(4, np.int64))
    compared = (graph.constant(0, np.int64), more)
    few = graph.node(operator, *(compared[::-1] if turned else compared))
    factors = graph.node("Where", few, graph.constant([2.0]), graph.constant([3.0]))
    check(make(graph, [graph.node("Mul", values, factors)]), _seen())


@pytest.mark.parametrize("chosen_by", ["operator", "Where"])
@pytest.mark.parametrize("operator", ["Max", "Min"])
def test_the_greater_or_lesser_of_a_difference_and_0(operator: str, chosen_by: str) -> None:
    graph = Graph()
    values = graph.node("Gather", "x", chosen(graph))
    count = graph.node("Gather", graph.node("Shape", values), graph.constant(0, np.int64))
    more, zero = graph.node("Sub", count, graph.constant(4, np.int64)), graph.constant(0, np.int64)
    if chosen_by == "operator":
        found = graph.node(operator, more, zero)
    else:
        compared = graph.node("Less" if operator == "Min" else "Greater", more, zero)
        found = graph.node("Where", compared, more, zero)
    outputs = [graph.node("Mul", values, graph.node("Cast", found, to=TensorProto.FLOAT))]
    if operator == "Max":
        outputs += [
            graph.node("TopK", values, graph.node("Reshape", found, ints(graph, 1)), outputs=2)
        ]
    check(make(graph, outputs), _seen())


def test_floats_computed_of_sizes_stay_floats() -> None:
    graph = Graph()
    rows = chosen(graph)
    count = graph.node("Cast", graph.node("Shape", rows), to=TensorProto.FLOAT)
    least = graph.node("Min", count, graph.constant([4.0]))
    outputs = [
        graph.node("Div", least, graph.constant([8.0])),
        graph.node("Min", count, graph.constant([2.5])),
        graph.node("Div", least, count),
    ]
    check(make(graph, outputs), _seen(), varied=False)


def _seen() -> list[dict[str, np.ndarray]]:
    """Inputs with 1, 5 and 9 positive numbers."""
    rng = np.random.default_rng(2)
    feeds = []
    for positive in (1, 5, 9):
        values = -rng.random(12, np.float32)
        values[:positive] *= -1
        feeds.append({"x": rng.permutation(values)})
    return feeds


def test_non_zero_of_a_table_gives_rows_and_columns() -> None:
    graph = Graph()
    found = graph.node("NonZero", graph.node("Relu", "x"))
    bounded = check(make(graph, [found], {"x": [3, 4]}))
    assert bounded.opened == {found: {1: f"{found}.rows1"}}


def test_choice_of_a_choice_counts_in_the_first_one() -> None:
    graph = Graph()
    first = graph.node("Gather", "x", chosen(graph, above=-0.5))
    second = chosen(graph, first, above=0.1)
    # As a number the second choice counts the rows of the first, not those of x.
    check(make(graph, [second, graph.node("Gather", first, second)]))


def test_non_zero_of_a_table_with_open_rows() -> None:
    graph = Graph()
    table = graph.node(
        "Gather", "x", chosen(graph, graph.node("ReduceMax", "x", axes=[1], keepdims=0)), axis=0
    )
    found = graph.node("NonZero", graph.node("Relu", table))
    pairs = graph.node("Transpose", found, perm=[1, 0])
    outputs = [found, graph.node("GatherND", table, pairs)]
    check(make(graph, outputs, {"x": [6, 3]}))


@pytest.mark.parametrize("largest", [0, 1])
def test_top_k_of_an_open_size(largest: int) -> None:
    graph = Graph()
    values = graph.node("Gather", "x", chosen(graph))
    k = graph.node("Min", graph.node("Shape", values), ints(graph, 4))
    best = graph.node("TopK", values, k, outputs=2, axis=0, largest=largest)
    bounded = check(make(graph, [best, f"{best}.1"]))
    (output,) = [value for value in bounded.model.graph.output if value.name == best]
    assert output.type.tensor_type.shape.dim[0].dim_value == 4


def test_top_k_after_a_choice_gathers_nothing() -> None:
    # TopK(Gather(x, NonZero(x > t))) is TopK of x with the others lowest.
    graph = Graph()
    values = graph.node("Gather", "x", chosen(graph))
    k = graph.node("Min", graph.node("Shape", values), ints(graph, 4))
    best = graph.node("TopK", values, k, outputs=2, axis=0)
    bounded = check(make(graph, [best]))
    assert "Gather" not in [node.op_type for node in bounded.model.graph.node]


def test_top_k_of_the_image_is_refused() -> None:
    graph = Graph()
    k = graph.node("Cast", graph.node("ReduceMax", "x", keepdims=1), to=onnx.TensorProto.INT64)
    best = graph.node("TopK", graph.node("Gather", "x", chosen(graph)), k, outputs=2, axis=0)
    with pytest.raises(ShapeError, match=r"node 'topk_\d+' \(TopK\): its k is computed"):
        bound_shapes(make(graph, [best]), Limits())


def test_compress() -> None:
    graph = Graph()
    mask = graph.node(
        "Greater",
        graph.node("Gather", "x", graph.constant(0, np.int64), axis=1),
        graph.constant(0.0),
    )
    check(make(graph, [graph.node("Compress", "x", mask, axis=0)], {"x": [7, 2]}))


@pytest.mark.parametrize(
    "operator",
    ["ReduceMax", "ReduceMin", "ReduceMean", "ReduceProd", "ReduceL1", "ReduceSumSquare"],
)
def test_reductions_see_real_rows_only(operator: str) -> None:
    graph = Graph()
    values = graph.node("Gather", "x", chosen(graph, above=-0.4))
    model = make(graph, [graph.node(operator, values, axes=[0], keepdims=0)])
    # Of no row at all ONNX leaves most of them undefined.
    check(model, feeds_of(model)[:-1])


def test_arg_max_counts_real_rows() -> None:
    graph = Graph()
    values = graph.node("Gather", "x", chosen(graph))
    best = graph.node("ArgMax", values, axis=0, keepdims=0)
    model = make(graph, [best, graph.node("Gather", values, best, axis=0)])
    check(model, feeds_of(model)[:-1])


def test_cumulative_sum() -> None:
    graph = Graph()
    values = graph.node("Gather", "x", chosen(graph))
    check(make(graph, [graph.node("CumSum", values, graph.constant(0, np.int64))]))


def test_unique_is_refused_by_name() -> None:
    graph = Graph()
    with pytest.raises(ShapeError, match=r"\(Unique\): the size of its output depends on the"):
        bound_shapes(make(graph, [graph.node("Unique", "x")]), Limits())


def test_node_with_too_few_inputs_is_named() -> None:
    graph = Graph()
    values = graph.node("Gather", "x", chosen(graph))
    model = make(graph, [values])
    model.graph.node.append(onnx.helper.make_node("TopK", [values], ["a", "b"], name="damaged"))
    with pytest.raises(ModelError, match=r"node 'damaged' \(TopK\) cannot be bounded"):
        bound_shapes(model, Limits())


def test_limit_bounds_an_output() -> None:
    graph = Graph()
    model = make(graph, [graph.node("Gather", "x", chosen(graph))])
    bounded = bound_shapes(model, Limits(max_rows=5))
    assert any("at most 5 rows (Limits.max_rows)" in note for note in bounded.notes)
    shape = bounded.model.graph.output[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [5]
