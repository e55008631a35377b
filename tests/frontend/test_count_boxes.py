"""Scores that Paddle2ONNX looks up as if there were -1 boxes are looked up in the right place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_models import Graph, save

import tvmdet
from tvmdet.errors import ModelError
from tvmdet.frontend.count_boxes import COUNTED, count_boxes
from tvmdet.frontend.load import Earlier, load_onnx
from tvmdet.frontend.onnx_tools import constant_values

CLASSES, CELLS, KEPT = 3, 64, 20
SPEC = {"family": "detections", "input": {"mean": [0, 0, 0], "std": [255, 255, 255]}}


def _model(
    boxes: int,
    *,
    columns: tuple[int, int] = (1, 2),
    background: int | None = None,
    suppressions: int = 1,
) -> onnx.ModelProto:
    """A network of 64 boxes and Paddle2ONNX's multiclass_nms3, told that there are so many."""
    graph = Graph(seed=2)
    features = graph.conv("image", (3, 4 + CLASSES), 8, strides=[8, 8])
    flat = graph.node("Reshape", features, graph.constant([0, 4 + CLASSES, -1], np.int64))
    parts = graph.node("Split", flat, graph.constant([4, CLASSES], np.int64), outputs=2, axis=1)
    y, x = np.mgrid[0:64:8, 0:64:8].reshape(2, 1, -1)
    corners = graph.constant(np.stack([x, y, x + 12, y + 9], axis=2))
    found = graph.node("Add", graph.node("Transpose", parts, perm=[0, 2, 1]), corners)
    factor = graph.node("Concat", "scale_factor", "scale_factor", axis=1)
    found = graph.node("Div", found, graph.node("Unsqueeze", factor, graph.constant([1], np.int64)))
    scores = graph.node("Sigmoid", f"{parts}.1")
    limits = (graph.constant([50], np.int64), graph.constant([0.6]), graph.constant([0.02]))
    rows = [graph.node("NonMaxSuppression", found, scores, *limits) for _ in range(suppressions)]
    kind, box = (
        graph.node("Gather", one, graph.constant([at], np.int64), axis=1)
        for one, at in zip((rows[0], rows[-1]), columns, strict=True)
    )
    if background is not None:
        number = graph.node("Squeeze", kind, graph.constant([1], np.int64))
        away = graph.node("Sub", number, graph.constant(background, np.int64))
        real = graph.node("Squeeze", graph.node("NonZero", away), graph.constant([0], np.int64))
        kind, box = (graph.node("Gather", one, real, axis=0) for one in (kind, box))
    every = graph.node("Reshape", scores, graph.constant([-1], np.int64))
    place = graph.node("Add", graph.node("Mul", kind, graph.constant([boxes], np.int64)), box)
    place = graph.node("Reshape", place, graph.constant([-1], np.int64))
    values = graph.node("Gather", every, place, axis=0)
    best = graph.node("TopK", values, graph.constant([KEPT], np.int64), outputs=2)
    last = graph.constant([1], np.int64)
    columns_of_rows = [graph.node("Gather", graph.node("Cast", kind, to=1), f"{best}.1", axis=0)]
    columns_of_rows.append(graph.node("Unsqueeze", best, last))
    flat_box = graph.node("Gather", graph.node("Squeeze", box, last), f"{best}.1", axis=0)
    chosen = graph.node("Gather", found, flat_box, axis=1)
    columns_of_rows.append(graph.node("Squeeze", chosen, graph.constant([0], np.int64)))
    output = graph.node("Concat", *columns_of_rows, axis=1)
    inputs: dict[str, list[int | str]] = {"image": [1, 3, 64, 64], "scale_factor": [1, 2]}
    return graph.model(inputs, {output: [None, 6]})


def _answer(model: onnx.ModelProto) -> np.ndarray:
    image = np.random.default_rng(5).random((1, 3, 64, 64), np.float32)
    feed = {"image": 4 * image - 2, "scale_factor": np.ones((1, 2), np.float32)}
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(None, feed)[0])


@pytest.mark.parametrize("background", [None, CLASSES])
def test_scores_are_those_of_their_boxes(background: int | None, tmp_path: Path) -> None:
    wanted = _answer(_model(CELLS, background=background))
    assert len(set(wanted[:, 0])) == CLASSES
    loaded = load_onnx(save(_model(-1, background=background), tmp_path / "model.onnx"))
    assert not np.allclose(_answer(loaded.proto), wanted)
    np.testing.assert_allclose(_answer(count_boxes(loaded).proto), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        _model(CELLS),
        _model(-1, columns=(2, 1)),  # no place among the scores of classes
        _model(-1, suppressions=2),
    ],
)
def test_others_stay(model: onnx.ModelProto, tmp_path: Path) -> None:
    loaded = load_onnx(save(model, tmp_path / "model.onnx"))
    assert count_boxes(loaded) is loaded


def test_what_the_file_was_before_is_counted_alike(tmp_path: Path) -> None:
    """Both are compared, so that what loading did to the file is still proven."""
    loaded = load_onnx(save(_model(-1), tmp_path / "model.onnx"))
    loaded = replace(loaded, earlier=(Earlier(model=loaded.proto, rewrite="none"),))
    counted = count_boxes(loaded)
    assert [one.model for one in counted.earlier] == [counted.proto]


def test_it_is_said(tmp_path: Path) -> None:
    said = {
        number: tvmdet.import_onnx(save(_model(number), tmp_path / "model.onnx"), spec=SPEC)
        for number in (-1, CELLS)
    }
    assert said[-1].spec.options["columns"] == ["class", "score", "x1", "y1", "x2", "y2"]
    assert [COUNTED in model.recognition for model in said.values()] == [True, False]


def test_a_damaged_constant_is_named() -> None:
    damaged = onnx.TensorProto(name="weights", data_type=onnx.TensorProto.INT4, dims=[1000])
    damaged.raw_data = bytes(16)
    with pytest.raises(ModelError, match="the constant weights is damaged"):
        constant_values(damaged)
