"""Proofs: what they measure, on which inputs, and what they refuse."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest

from tvmdet.errors import ModelError
from tvmdet.frontend import Limits, import_onnx, specialise
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.prove import differences, picture_feeds, probes, prove_equal, random_feeds
from tvmdet.frontend.rebatch import prove_batch, rewrite_batch

SHAPE = (1, 3, 24, 40)


def _network(scale: float = 2.0, *, bright: float | None = None) -> onnx.ModelProto:
    """Scales its input; what is brighter than a threshold is brighter by one more, if asked."""
    graph = onnx_models.Graph()
    output = graph.node("Mul", "x", graph.constant(scale))
    if bright is not None:
        mask = graph.node(
            "Greater", graph.node("ReduceMin", "x", keepdims=0), graph.constant(bright)
        )
        bonus = graph.node("Cast", mask, to=onnx.TensorProto.FLOAT)
        output = graph.node("Add", output, bonus)
    graph.node("Identity", output)
    graph.nodes[-1].output[0] = "y"
    return graph.model({"x": SHAPE}, {"y": SHAPE})


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([], [], 0.0),
        ([1.0, 4.0], [1.0, 4.0], 0.0),
        ([1.0, 4.0], [1.0, 5.0], 0.25),
        ([np.inf, np.nan, 2.0], [np.inf, np.nan, 1.0], 0.5),
        ([np.inf, 1.0], [1.0, np.inf], math.inf),
        ([1.0], [np.nan], math.inf),
        ([1.0], [[1.0]], math.inf),
        ([1e-7, 3e-7], [1e-7, 1e-7], 2e-5),  # the rounding of a sigmoid
        ([1e-7, 2e-2], [1e-7, 1e-2], 0.5),
        ([-1e-7, 3e-7], [-1e-7, 1e-7], 0.2),  # no scores
    ],
)
def test_differences_are_relative_to_the_largest_value(
    left: list, right: list, expected: float
) -> None:
    arrays = {"y": np.asarray(left, np.float32)}, {"y": np.asarray(right, np.float32)}
    assert differences(*arrays, ["y"]) == {"y": pytest.approx(expected)}


def test_integers_are_equal_or_not() -> None:
    one, two = np.array([1, 2]), np.array([1, 3])
    assert differences({"y": one}, {"y": one.copy()}, ["y"]) == {"y": 0.0}
    assert differences({"y": one}, {"y": two}, ["y"]) == {"y": math.inf}
    assert differences({"y": one}, {"y": one.astype(np.int32)}, ["y"]) == {"y": math.inf}


def test_proof_says_what_it_measured_and_on_what() -> None:
    proof = prove_equal("doubled otherwise", _network(2.0), _network(2.0 * (1 + 3e-5)), ["y"])
    assert proof.rewrite == "doubled otherwise"
    assert proof.largest == proof.differences["y"] == pytest.approx(3e-5, rel=0.2)
    assert [name.split(" (")[0] for name in proof.inputs] == ["random values", "smooth shapes"]


def test_poisoned_rewrite_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"changed output 'y': poison; on random .*0\.000[12]"
    ) as e:
        prove_equal("poison", _network(2.0), _network(2.0 * (1 + 1.5e-4)), ["y"])
    assert "please report it" in str(e.value)


def test_rewrite_that_noise_does_not_reach_is_refused_by_a_picture() -> None:
    # Of thousands of random values one is nearly 0; the darkest place of a picture is not.
    bound = float(picture_feeds(_network())["x"].min()) / 2
    assert random_feeds(_network())["x"].min() < bound
    poisoned = _network(bright=bound)
    with pytest.raises(ModelError, match="on smooth shapes"):
        prove_equal("poison", _network(), poisoned, ["y"])


def _sure_of_nothing(logit: float) -> onnx.ModelProto:
    graph = onnx_models.Graph()
    graph.node("Sigmoid", graph.node("Add", "x", graph.constant(logit)))
    graph.nodes[-1].output[0] = "y"
    return graph.model({"x": SHAPE}, {"y": SHAPE})


def test_scores_that_are_all_close_to_0_are_proven_by_what_they_are_the_sigmoid_of() -> None:
    before = _sure_of_nothing(-17.0)
    assert [value.name for value in before.graph.output] == ["y"]
    near = prove_equal("nothing", before, _sure_of_nothing(-17.0005), ["y"])
    # Of logits; of the scores, which are shares of a hundredth, it would be 1e-8.
    assert near.largest == pytest.approx(5e-4 / 17, rel=0.1)
    with pytest.raises(ModelError, match="changed output 'y': poison"):
        prove_equal("poison", before, _sure_of_nothing(-17.01), ["y"])
    assert [value.name for value in before.graph.output] == ["y"]


def _ranked(scores: list[float], boxes: list[int]) -> onnx.ModelProto:
    """The best three of four rows, best first: their scores, and a row of boxes of each."""
    graph = onnx_models.Graph()
    nothing = graph.node("Mul", graph.node("ReduceMean", "x", keepdims=0), graph.constant(0.0))
    found = graph.node("Add", graph.constant([scores]), nothing)
    count = graph.constant([3], np.int64)
    best = graph.node("TopK", found, count, outputs=2, axis=1)
    table = graph.constant(np.repeat(np.array(boxes)[:, None], 4, axis=1))
    graph.node("Gather", table, f"{best}.1")
    graph.node("Identity", best)
    for node, name in zip(graph.nodes[-2:], ("boxes", "scores"), strict=True):
        node.output[0] = name
    return graph.model({"x": SHAPE}, {"boxes": (1, 3, 4), "scores": (1, 3)})


def test_rows_of_scores_that_tie_may_come_in_another_order() -> None:
    before = _ranked([0.9, 0.5, 0.500001, 0.1], [1, 2, 3, 4])
    after = _ranked([0.9, 0.500001, 0.5, 0.1], [1, 2, 3, 4])
    proof = prove_equal("rounded otherwise", before, after, ["boxes", "scores"])
    assert 0 < proof.largest < 1e-5
    assert all(inputs.endswith(": 2 rows of equal rank moved") for inputs in proof.inputs)


@pytest.mark.parametrize(
    ("scores", "boxes"),
    [
        ([0.9, 0.52, 0.5, 0.1], [1, 2, 3, 4]),  # no tie
        ([0.9, 0.500001, 0.5, 0.1], [1, 5, 3, 4]),  # another box
        ([0.500001, 0.9, 0.5, 0.1], [1, 2, 3, 4]),  # the best one's box is another's
    ],
)
def test_rows_of_scores_that_do_not_tie_are_refused(scores: list[float], boxes: list[int]) -> None:
    before = _ranked([0.9, 0.5, 0.500001, 0.1], [1, 2, 3, 4])
    with pytest.raises(ModelError, match=r"changed output '(boxes|scores)': poison"):
        prove_equal("poison", before, _ranked(scores, boxes), ["boxes", "scores"])


def _named(graph: onnx_models.Graph, **values: str) -> onnx.ModelProto:
    """A model with these outputs, of five rows each."""
    for name, value in values.items():
        graph.node("Identity", value)
        graph.nodes[-1].output[0] = name
    return graph.model({"x": SHAPE}, dict.fromkeys(values))


def _sorted(graph: onnx_models.Graph, scores: list[float]) -> str:
    nothing = graph.node("Mul", graph.node("ReduceMean", "x", keepdims=0), graph.constant(0.0))
    found = graph.node("Add", graph.constant([scores]), nothing)
    return graph.node("TopK", found, graph.constant([5], np.int64), outputs=2, axis=1)


_STEPS = [0.5 - 4e-5 * rank for rank in range(5)]  # neighbours tie, the ends do not
_EQUAL = [0.5] * 5
_APART = [0.9, 0.7, 0.5, 0.3, 0.1]


def _reordered(first: list[float], then: list[float] | None, order: list[int]) -> onnx.ModelProto:
    """Rows that one TopK or two, one of the other's rows, have sorted, in another order."""
    graph = onnx_models.Graph()
    best = _sorted(graph, first)
    boxes = graph.node("Gather", graph.constant(np.arange(20.0).reshape(5, 4)), f"{best}.1")
    if then is not None:
        later = graph.node("Add", graph.constant([then]), graph.node("Sub", best, best))
        best = graph.node("TopK", later, graph.constant([5], np.int64), outputs=2, axis=1)
        table = graph.node("Squeeze", boxes, graph.constant([0], np.int64))
        boxes = graph.node("Gather", table, f"{best}.1")
    places = graph.constant(order, np.int64)
    boxes, scores = (graph.node("Gather", value, places, axis=1) for value in (boxes, best))
    return _named(graph, boxes=boxes, scores=scores)


@pytest.mark.parametrize(
    ("first", "then", "order", "passes"),
    [
        (_STEPS, None, [1, 0, 2, 4, 3], True),
        (_STEPS, None, [4, 3, 2, 1, 0], False),
        (_STEPS, None, [1, 2, 3, 4, 0], False),
        (_EQUAL, None, [4, 3, 2, 1, 0], True),
        # The order is that of the later one, whatever tied in what it sorts.
        (_STEPS, _EQUAL, [4, 3, 2, 1, 0], True),
        (_EQUAL, _STEPS, [4, 3, 2, 1, 0], False),
        (_EQUAL, _APART, [1, 0, 2, 3, 4], False),
        (_APART, _EQUAL, [1, 0, 2, 3, 4], True),
    ],
)
def test_rows_move_between_ranks_that_tie_in_what_sorted_them(
    first: list[float], then: list[float] | None, order: list[int], passes: bool
) -> None:
    before, after = (_reordered(first, then, each) for each in ([0, 1, 2, 3, 4], order))
    if passes:
        assert prove_equal("sorted", before, after, ["boxes", "scores"]).largest <= 1e-4
    else:
        with pytest.raises(ModelError, match="changed output 'boxes': poison"):
            prove_equal("poison", before, after, ["boxes"])


@pytest.mark.parametrize("beside", [False, True])
def test_rows_that_no_top_k_has_sorted_keep_their_places(beside: bool) -> None:
    """Boxes by their places in the map, rolled; what ties has as many ranks as they are."""

    def build(shift: int) -> onnx.ModelProto:
        graph = onnx_models.Graph()
        best = _sorted(graph, _EQUAL)
        table = graph.constant(np.roll(np.arange(20.0).reshape(1, 5, 4), shift, axis=1))
        boxes = graph.node("Add", table, graph.node("ReduceMin", "x", keepdims=0))
        most = graph.node("ReduceMax", best, keepdims=0)
        return _named(graph, boxes=boxes, scores=best if beside else most)

    with pytest.raises(ModelError, match="changed output 'boxes': poison"):
        prove_equal("poison", build(0), build(1), ["boxes", "scores"])


@pytest.mark.parametrize("shape", [SHAPE, (2, 24, 40, 3), (1, 9, 9), (1, 3, 1, 1)])
def test_pictures_are_smooth_and_differ_within_a_batch(shape: tuple[int, ...]) -> None:
    graph = onnx_models.Graph()
    model = graph.model({"x": shape}, {graph.node("Relu", "x"): None})
    picture = picture_feeds(model)["x"]
    assert picture.shape == shape
    assert picture.dtype == np.float32
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert np.array_equal(picture, picture_feeds(model)["x"])
    if shape[0] > 1:
        assert not np.array_equal(picture[0], picture[1])
    if shape == SHAPE:
        steps = {name: np.abs(np.diff(feed["x"])).mean() for name, feed in probes(model).items()}
        smooth, random = steps["smooth shapes (seed 0)"], steps["random values (seed 0)"]
        assert smooth < random / 5


def test_whole_numbers_of_pictures_span_their_range() -> None:
    graph = onnx_models.Graph()
    model = graph.model(
        {"x": SHAPE}, {graph.node("Cast", "x", to=1): None}, dtype=onnx.TensorProto.UINT8
    )
    picture = picture_feeds(model)["x"]
    assert picture.dtype == np.uint8
    assert picture.max() > 100


def test_batch_is_measured() -> None:
    one = _network()
    proof = prove_batch(one, rewrite_batch(one, 3))
    assert proof.rewrite == "batch 1 to batch 3"
    assert proof.differences == {"y": 0.0}
    with pytest.raises(ModelError, match="does not work at batch 3"):
        prove_batch(one, rewrite_batch(_network(2.001), 3))


def test_network_keeps_its_proofs(tmp_path: Path) -> None:
    path = onnx_models.save(onnx_models.picodet(), tmp_path / "m.onnx")
    network = import_onnx(path).network
    network.at(2)
    (simplified, batch) = network.proofs
    assert simplified.rewrite == specialise.SIMPLIFIED
    assert len(simplified.differences) == 8
    assert simplified.largest < 1e-5
    assert batch.rewrite == "batch 1 to batch 2"


def test_simplification_that_changes_values_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(model: onnx.ModelProto) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        weight = next(tensor for tensor in copy.graph.initializer if len(tensor.dims) == 4)
        values = onnx.numpy_helper.to_array(weight) * 1.01
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
        return copy

    monkeypatch.setattr(specialise, "simplify", poisoned)
    loaded = load_onnx(onnx_models.save(onnx_models.yolov8(), tmp_path / "m.onnx"))
    shapes = {"images": (1, 3, 64, 96)}
    with pytest.raises(ModelError, match="a rewrite changed output 'concat_20'"):
        specialise.specialise(loaded.proto, shapes, Limits())
