"""What a graph proves about its outputs: ranges of columns, traces, normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnx_models
import pytest
from onnx import TensorProto
from onnx_models import Graph

from tvmdet.frontend.graph_evidence import (
    count_gates,
    find_normalisation,
    find_stem,
    trace_outputs,
)
from tvmdet.frontend.prove import random_feeds, run_onnx
from tvmdet.frontend.specialise import static_values
from tvmdet.frontend.value_ranges import value_ranges
from tvmdet.heads.base import Normalisation, Range, Stem

Build = Callable[[Graph], str]
INF = math.inf


def _model(build: Build) -> onnx.ModelProto:
    graph = Graph()
    output = build(graph)
    return graph.model({"x": [1, 5, 6]}, {output: None})


def _ranges(build: Build) -> tuple[Range, ...]:
    model = _model(build)
    return value_ranges(model, static_values(model))[model.graph.output[0].name]


def _index(graph: Graph) -> str:
    """Whole numbers 0 to 5: which column is the greatest."""
    return graph.node("Cast", graph.node("ArgMax", "x", axis=2, keepdims=1), to=1)


def _part(graph: Graph, start: int, end: int) -> str:
    ends = [graph.constant([value], np.int64) for value in (start, end, 2)]
    return graph.node("Slice", "x", *ends)


def _rows(graph: Graph) -> str:
    """Four columns of anything, a score, a class number."""
    score = graph.node("Sigmoid", _part(graph, 4, 5))
    return graph.node("Concat", _part(graph, 0, 4), score, _index(graph), axis=2)


def _flat(graph: Graph) -> str:
    return graph.node("Reshape", graph.node("Sigmoid", "x"), graph.constant([1, 30], np.int64))


def _class_of_flat(graph: Graph) -> str:
    top = graph.node("TopK", _flat(graph), graph.constant([4], np.int64), outputs=2)
    return graph.node("Cast", graph.node("Mod", f"{top}.1", graph.constant(6, np.int64)), to=1)


def _rest_of_flat(graph: Graph, times: int = 6, kinds: tuple[int, ...] = (7,)) -> str:
    """The same without Mod, as the exporters of RT-DETR and D-FINE write it: i - i // n * n."""
    flat = _flat(graph)
    place = f"{graph.node('TopK', flat, graph.constant([4], np.int64), outputs=2)}.1"
    row = graph.node("Div", place, graph.constant(6, np.int64))
    for kind in kinds:
        row = graph.node("Cast", row, to=kind)
    start = graph.node("Mul", row, graph.constant(times, np.int64))
    return graph.node("Cast", graph.node("Sub", place, start), to=1)


ROWS = ((-INF, INF, False),) * 4 + ((0, 1, False), (0, 5, True))


@pytest.mark.parametrize(
    ("build", "wanted"),
    [
        (lambda g: g.node("Tanh", "x"), ((-INF, INF, False),)),
        (lambda g: g.node("Sigmoid", "x"), ((0, 1, False),)),
        (lambda g: g.node("Relu", "x"), ((0, INF, False),)),
        (lambda g: g.node("Sqrt", "x"), ((0, INF, False),)),
        (lambda g: g.node("Sqrt", g.node("Sigmoid", "x")), ((0, 1, False),)),
        (lambda g: g.node("Sqrt", g.node("Add", g.node("Mul", g.node("Sigmoid", "x"),
         g.constant(5.0)), g.constant(4.0))), ((2, 3, False),)),
        (_index, ((0, 5, True),)),
        (_class_of_flat, ((0, 5, True),)),
        (_rest_of_flat, ((0, 5, True),)),
        (lambda g: _rest_of_flat(g, times=5), ((-25, 29, True),)),
        (lambda g: _rest_of_flat(g, kinds=(6, 1, 7)), ((0, 5, True),)),
        (_rows, ROWS),
        (lambda g: g.node("Squeeze", _rows(g), g.constant([0], np.int64)), ROWS),
        (lambda g: g.node("Transpose", _rows(g), perm=[1, 0, 2]), ROWS),
        (lambda g: g.node("Transpose", _rows(g), perm=[0, 2, 1]), ((-INF, INF, False),)),
        (lambda g: g.node("Gather", _rows(g), g.constant([4, 5], int), axis=2), ROWS[4:]),
        (lambda g: g.node("Gather", _rows(g), g.constant([2, 0], int), axis=1), ROWS),
        (lambda g: g.node("Split", _rows(g), g.constant([5, 1], int), outputs=2, axis=2),
         ROWS[:5]),
        (lambda g: g.node("Add", _index(g), g.constant(1.0)), ((1, 6, True),)),
        (lambda g: g.node("Sub", g.constant(1.0), g.node("Sigmoid", "x")), ((0, 1, False),)),
        (lambda g: g.node("Mul", g.node("Sigmoid", "x"), g.constant([1.0, 2, 3, 4, 5, 6])),
         tuple((0, top, False) for top in range(1, 7))),
        # Zeros like the scores, and the number of a class: TensorFlow's class numbers.
        (lambda g: g.node("Add", g.node("Mul", g.node("Relu", "x"), g.constant(0.0)),
         g.constant(3.0)), ((3, 3, True),)),
        (lambda g: g.node("Div", _index(g), g.constant(2.0)), ((0, 2.5, False),)),
        (lambda g: g.node("Floor", g.node("Div", _index(g), g.constant(2.0))), ((0, 3, True),)),
        (lambda g: g.node("Clip", "x", g.constant(0.0), g.constant(96.0)), ((0, 96, False),)),
        (lambda g: g.node("Where", g.node("Greater", "x", g.constant(0.0)), g.node("Sigmoid", "x"),
         g.constant(0.0)), ((0, 1, False),)),
        # What a sort puts last: no value, as RetinaNet's scores before its suppression.
        (lambda g: g.node("Where", g.node("Greater", "x", g.constant(0.0)), g.node("Sigmoid", "x"),
         g.constant(-INF)), ((0, 1, False),)),
        (lambda g: g.node("Where", g.node("Greater", "x", g.constant(0.0)), g.node("Sigmoid", "x"),
         g.constant(INF)), ((-INF, INF, False),)),
        # Of numbers of which some are minus infinity the others are values.
        (lambda g: g.node("Where", g.node("Greater", "x", g.constant(0.0)), g.node("Sigmoid", "x"),
         g.constant([-INF, 7, 7, 7, 7, 7])), ((-INF, INF, False), *((0, 7, False),) * 5)),
        (lambda g: g.node("Min", g.node("Relu", "x"), g.constant(7.0)), ((0, 7, False),)),
        (lambda g: g.node("Mod", "x", g.constant(3.0), fmod=1), ((-INF, INF, False),)),
        # How many are greater, of five rows of six.
        (lambda g: g.node("ReduceSum", g.node("Cast", g.node("Greater", "x", g.constant(0.0)),
         to=1), g.constant([1, 2], int), keepdims=0), ((0, 30, True),)),
        (lambda g: g.node("ReduceSum", _index(g), keepdims=0), ((0, 25, True),)),
        (lambda g: g.node("ReduceSum", "x", keepdims=0), ((-INF, INF, False),)),
    ],
)  # fmt: skip
def test_ranges(build: Build, wanted: tuple[tuple[float, float, bool], ...]) -> None:
    found = _ranges(build)
    assert tuple((one.low, one.high, one.whole) for one in found) == wanted


@pytest.mark.parametrize(
    ("size", "kind", "holds"),
    [
        (2**7, TensorProto.INT8, True),
        (2**7 + 1, TensorProto.INT8, False),
        (2**11 + 1, TensorProto.FLOAT16, True),
        (2**11 + 2, TensorProto.FLOAT16, False),
        (300_000, TensorProto.INT16, False),
        (300_000, TensorProto.INT32, True),
        (300_000, TensorProto.FLOAT, True),
        (30, TensorProto.UINT8, False),  # no exporter divides in it
    ],
)
def test_a_remainder_is_one_where_the_quotient_goes_on_in_a_type_that_holds_it(
    size: int, kind: int, holds: bool
) -> None:
    graph = Graph()
    place = graph.node("ArgMax", "x", axis=1)
    row = graph.node("Div", place, graph.constant(6, np.int64))
    row = graph.node("Cast", graph.node("Cast", row, to=kind), to=TensorProto.INT64)
    rest = graph.node("Sub", place, graph.node("Mul", row, graph.constant(6, np.int64)))
    number = graph.node("Cast", rest, to=TensorProto.FLOAT)
    model = graph.model({"x": [1, size]}, {number: None})
    (((found,),),) = [value_ranges(model, static_values(model)).values()]
    assert ((found.low, found.high) == (0, 5)) == holds


def test_weights_that_are_no_numbers_prove_nothing() -> None:
    """Signalling ones, as memory that nothing wrote has them, warn when they are cast."""
    weight = np.array([0x7FA00000], np.uint32).view(np.float32)
    (found,) = _ranges(lambda g: g.node("Expand", g.constant(weight), g.constant([1], int)))
    assert (found.low, found.high) == (-INF, INF)


@pytest.mark.parametrize("build", [_rows, _class_of_flat, _rest_of_flat, _index])
def test_values_lie_in_their_ranges(build: Build) -> None:
    model = _model(build)
    (found,) = value_ranges(model, static_values(model)).values()
    for seed in range(5):
        feeds = {name: 9 * value - 4 for name, value in random_feeds(model, seed).items()}
        (outputs,) = run_onnx(model, [feeds])
        (values,) = outputs.values()
        low, high = (np.array([getattr(one, end) for one in found]) for end in ("low", "high"))
        assert np.all((values >= low) & (values <= high))


def test_traces_end_where_values_meet() -> None:
    graph = Graph()
    weight, bias = graph.constant(np.ones((6, 4))), graph.constant(np.ones(4))
    linear = graph.node("Add", graph.node("MatMul", graph.node("Relu", "x"), weight), bias)
    alone = graph.node("Sigmoid", linear)
    turned = graph.node("Transpose", alone, perm=[0, 2, 1])
    both = graph.node("Sigmoid", graph.node("Add", linear, graph.node("Exp", linear)))
    model = graph.model({"x": [1, 5, 6]}, {turned: None, both: None})
    traces = trace_outputs(model.graph)
    assert traces[turned] == ("Sigmoid", "Add(4)", "MatMul(6x4)", "Relu")
    assert traces[both] == ("Sigmoid", "Add*")


def test_gates_and_the_stem() -> None:
    graph = Graph()
    features = graph.conv("x", (3, 4), 8, strides=[8, 8])
    gated = graph.node("Mul", features, graph.node("Sigmoid", features))
    output = graph.node("Mul", gated, graph.node("Sigmoid", features))
    model = graph.model({"x": [1, 3, 32, 32]}, {output: None})
    assert count_gates(model.graph) == 1
    assert find_stem(model.graph) == Stem(kernel=8, stride=8)
    assert Stem(kernel=8, stride=8).cuts_patches
    assert not Stem(kernel=7, stride=2).cuts_patches


def _normalised(*steps: tuple[str, object]) -> onnx.ModelProto:
    graph = Graph()
    data = "x"
    for operator, values in steps:
        data = graph.node(operator, data, graph.constant(values))
    return graph.model({"x": [1, 3, 32, 32]}, {graph.conv(data, (3, 4), 3): None})


@pytest.mark.parametrize(
    ("steps", "mean", "std"),
    [
        ([("Sub", [[[1.0]], [[2.0]], [[3.0]]]), ("Div", 4.0)], (1, 2, 3), (4, 4, 4)),
        ([("Mul", 0.5), ("Add", -1.0)], (2, 2, 2), (2, 2, 2)),
        ([("Div", 255.0), ("Sub", 0.5), ("Div", 0.25)], (127.5,) * 3, (63.75,) * 3),
    ],
)
def test_normalisation(
    steps: list[tuple[str, object]], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    found = find_normalisation(_normalised(*steps).graph)
    assert found is not None
    assert found.mean == pytest.approx(mean)
    assert found.std == pytest.approx(std)


def test_no_normalisation() -> None:
    assert find_normalisation(_normalised().graph) is None
    graph = Graph()
    two = graph.node("Add", graph.node("Div", "x", graph.constant(2.0)), "x")
    model = graph.model({"x": [1, 3, 32, 32]}, {graph.conv(two, (3, 4), 3): None})
    found = find_normalisation(model.graph)
    assert found is not None and found.unknown == ("Div", "Add"), "half of it more"
    assert onnx_models.yolov8().graph.node[0].op_type == "Conv"
    assert find_normalisation(onnx_models.yolov8().graph) is None


def _turned(graph: Graph, data: str, how: str) -> str:
    if how == "Gather":
        return graph.node("Gather", data, graph.constant([2, 1, 0], np.int64), axis=1)
    ends = (graph.constant([value], np.int64) for value in (-1, -(2**31), 1, -1))
    return graph.node("Slice", data, *ends)


@pytest.mark.parametrize("how", ["Gather", "Slice"])
@pytest.mark.parametrize("first", ["turned", "normalised"])
def test_channels_that_are_turned_around_are_seen(how: str, first: str) -> None:
    graph = Graph()
    data = _turned(graph, "x", how) if first == "turned" else "x"
    data = graph.node("Sub", data, graph.constant([[[1.0]], [[2.0]], [[3.0]]]))
    data = graph.node("Clip", graph.node("Cast", data, to=onnx.TensorProto.FLOAT))
    data = data if first == "turned" else _turned(graph, data, how)
    model = graph.model({"x": [1, 3, 32, 32]}, {graph.conv(data, (3, 4), 3): None})
    found = find_normalisation(model.graph)
    assert found is not None and found.reverses and found.unknown == ()
    # In the order of what is fed.
    assert found.mean == pytest.approx((3, 2, 1) if first == "turned" else (1, 2, 3))


def _rejoined(graph: Graph, data: str, how: str, order: tuple[int, ...]) -> str:
    """Takes the channels apart and joins them in an order."""
    if how == "Split":
        parts = graph.node("Split", data, graph.constant([1, 1, 1], np.int64), outputs=3, axis=1)
        each = [parts, f"{parts}.1", f"{parts}.2"]
        return graph.node("Concat", *(each[at] for at in order), axis=1)
    channels = []
    for at in order:
        if how == "Slice":
            ends = (graph.constant([value], np.int64) for value in (at, at + 1, 1, 1))
            channels.append(graph.node("Slice", data, *ends))
        elif how in ("last", "open"):  # -1 or 2, to the end
            first = at - 3 if how == "last" else at
            values = (first, first + 1 if at < 2 else 2**31, 1)
            ends = (graph.constant([value], np.int64) for value in values)
            channels.append(graph.node("Slice", data, *ends))
        else:
            taken = graph.node("Gather", data, graph.constant(at, np.int64), axis=1)
            channels.append(graph.node("Unsqueeze", taken, graph.constant([1], np.int64)))
    return graph.node("Concat", *channels, axis=1)


@pytest.mark.parametrize("how", ["Split", "Slice", "last", "open", "Gather"])
def test_channels_that_are_taken_apart_are_followed(how: str) -> None:
    def found(*orders: tuple[int, ...]) -> Normalisation | None:
        graph = Graph()
        data = "x"
        for order in orders:
            data = _rejoined(graph, data, how, order)
        data = graph.node("Sub", data, graph.constant([[[1.0]], [[2.0]], [[3.0]]]))
        model = graph.model({"x": [1, 3, 32, 48]}, {graph.conv(data, (3, 4), 3): None})
        return find_normalisation(model.graph)

    turned, kept, twice = found((2, 1, 0)), found((0, 1, 2)), found((2, 1, 0), (2, 1, 0))
    assert turned is not None and turned.reverses and turned.unknown == ()
    assert turned.mean == pytest.approx((3, 2, 1))
    for one in (kept, twice):
        assert one is not None and not one.reverses
        assert one.mean == pytest.approx((1, 2, 3))
    # Other orders are not followed, and with arithmetic behind them not known.
    other = found((1, 0, 2))
    assert other is not None and other.unknown and not other.reverses


def test_channels_that_lie_last_are_followed_too() -> None:
    graph = Graph()
    channels = []
    for at in (2, 1, 0):
        taken = graph.node("Gather", "x", graph.constant(at, np.int64), axis=-1)
        channels.append(graph.node("Unsqueeze", taken, graph.constant([-1], np.int64)))
    joined = graph.node("Concat", *channels, axis=-1)
    joined = graph.node("Transpose", joined, perm=[0, 3, 1, 2])
    model = graph.model({"x": [1, 32, 48, 3]}, {graph.conv(joined, (3, 4), 3): None})
    found = find_normalisation(model.graph)
    assert found is not None and found.reverses


def test_a_picture_that_is_taken_apart_across_keeps_its_colours() -> None:
    graph = Graph()
    parts = graph.node("Split", "x", graph.constant([9, 9, 9], np.int64), outputs=3, axis=2)
    joined = graph.node("Concat", f"{parts}.2", f"{parts}.1", parts, axis=2)
    model = graph.model({"x": [1, 3, 27, 48]}, {graph.conv(joined, (3, 4), 3): None})
    assert find_normalisation(model.graph) is None


@pytest.mark.parametrize("how", ["BatchNormalization", "Conv", "Conv of groups", "Conv turned"])
def test_a_normalisation_that_is_a_layer_is_read(how: str) -> None:
    mean, std = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 8.0])
    graph = Graph()
    if how == "BatchNormalization":
        ones = graph.constant([1.0] * 3), graph.constant([0.0] * 3)
        known = (*ones, graph.constant(mean), graph.constant(std**2))
        data = graph.node("BatchNormalization", "x", *known, epsilon=0.0)
    else:
        weights = np.diag(1 / std)[:, ::-1] if how == "Conv turned" else np.diag(1 / std)
        groups = 3 if how == "Conv of groups" else 1
        weights = (1 / std)[:, None] if groups == 3 else weights
        known = (graph.constant(weights[..., None, None]), graph.constant(-mean / std))
        data = graph.node("Conv", "x", *known, group=groups)
    model = graph.model({"x": [1, 3, 32, 48]}, {graph.conv(data, (3, 4), 3): None})
    found = find_normalisation(model.graph)
    assert found is not None and found.unknown == ()
    assert found.reverses == (how == "Conv turned")
    step = -1 if found.reverses else 1
    assert found.mean == pytest.approx(tuple(mean[::step]))
    assert found.std == pytest.approx(tuple(std[::step]))


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_a_layer_that_was_never_trained_is_no_normalisation(epsilon: float) -> None:
    graph = Graph()
    ones, zeros = graph.constant([1.0] * 3), graph.constant([0.0] * 3)
    data = graph.node("BatchNormalization", "x", ones, zeros, zeros, ones, epsilon=epsilon)
    model = graph.model({"x": [1, 3, 32, 48]}, {graph.conv(data, (3, 4), 3): None})
    assert find_normalisation(model.graph) is None


def test_colours_that_are_mixed_are_not_known() -> None:
    graph = Graph()
    mixed = graph.node("Conv", "x", graph.constant(np.full((3, 3, 1, 1), 0.3)))
    model = graph.model({"x": [1, 3, 32, 48]}, {graph.conv(mixed, (3, 4), 3): None})
    found = find_normalisation(model.graph)
    assert found is not None and found.unknown == ("Conv",)


def test_channels_turned_twice_are_as_they_were() -> None:
    graph = Graph()
    data = _turned(graph, _turned(graph, "x", "Gather"), "Slice")
    model = graph.model({"x": [1, 3, 32, 32]}, {graph.conv(data, (3, 4), 3): None})
    assert find_normalisation(model.graph) is None


def test_arithmetic_that_is_not_followed_is_named() -> None:
    graph = Graph()
    parts = graph.node("Split", "x", graph.constant([1, 1, 1], np.int64), outputs=3, axis=1)
    each = [parts, f"{parts}.1", f"{parts}.2"]
    scaled = [graph.node("Div", one, graph.constant(255.0)) for one in each]
    joined = graph.node("Concat", *scaled, axis=1)
    model = graph.model({"x": [1, 3, 32, 32]}, {graph.conv(joined, (3, 4), 3): None})
    found = find_normalisation(model.graph)
    assert found is not None
    assert (set(found.unknown), found.std) == ({"Split", "Div", "Concat"}, (1, 1, 1))


def test_a_focus_and_a_border_are_no_arithmetic() -> None:
    graph = Graph()
    every = [graph.constant([value], np.int64) for value in (0, 2**31, 2, 2)]
    quarters = [graph.node("Slice", "x", *every), graph.node("Slice", "x", *every)]
    joined = graph.node("Concat", *quarters, axis=1)
    padded = graph.node("Pad", joined, graph.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    conv = graph.conv(padded, (6, 4), 3)
    # What comes behind the convolution is the network's own.
    shifted = graph.node("Add", conv, graph.constant(2.0))
    model = graph.model({"x": [1, 3, 32, 32]}, {shifted: None})
    assert find_normalisation(model.graph) is None


def test_arithmetic_beside_the_network_does_not_count() -> None:
    """A picture that is handed back for drawing, and the sum that keeps an input alive."""
    graph = Graph()
    features = graph.conv("x", (3, 4), 3)
    drawn = graph.node("Mul", "x", graph.constant(255.0))
    kept = graph.node("ReduceSum", graph.node("Mul", "x", graph.constant(0.0)), keepdims=0)
    output = graph.node("Add", features, kept)
    model = graph.model({"x": [1, 3, 32, 32]}, {output: None, drawn: None})
    assert find_normalisation(model.graph) is None


@pytest.mark.parametrize(("axis", "turns"), [(1, True), (-3, True), (2, False), (3, False)])
def test_a_picture_that_is_mirrored_keeps_its_colours(axis: int, turns: bool) -> None:
    graph = Graph()
    ends = (graph.constant([value], np.int64) for value in (-1, -(2**31), axis, -1))
    mirrored = graph.node("Slice", "x", *ends)
    model = graph.model({"x": [1, 3, 32, 48]}, {graph.conv(mirrored, (3, 4), 3): None})
    assert (find_normalisation(model.graph) is not None) is turns


@pytest.mark.parametrize("axis", [2, 3])
def test_channels_are_found_behind_a_transpose(axis: int) -> None:
    graph = Graph()
    last = graph.node("Transpose", "x", perm=[0, 2, 3, 1])
    ends = (graph.constant([value], np.int64) for value in (-1, -(2**31), axis, -1))
    turned = graph.node("Transpose", graph.node("Slice", last, *ends), perm=[0, 3, 1, 2])
    model = graph.model({"x": [1, 3, 32, 48]}, {graph.conv(turned, (3, 4), 3): None})
    assert (find_normalisation(model.graph) is not None) is (axis == 3)
