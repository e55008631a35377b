"""Rows of two corners and scores: no YOLO's, and never read as a centre and a size."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yolo_models
from onnx import helper, numpy_helper
from yolo_cases import (
    SIZE,
    assert_decodes,
    compile_and_detect,
    import_model,
    random_outputs,
    run_onnx,
    summary_of,
)

from tvmdet.errors import InputError, ModelError
from tvmdet.heads import GraphSummary, Question, TensorSummary, get_head
from tvmdet.heads.cell_rows import CENTER_SIZE, CORNERS, CellRows

FED: dict[str, Any] = {"resize": "letterbox", "mean": [0, 0, 0], "std": [255, 255, 255]}
TOLD = {"family": "decoded", "input": FED}
LAYOUTS = {False: "channels_first", True: "channels_last"}


def of_boxes(boxes: np.ndarray) -> GraphSummary:
    """A network that answers boxes ``[A, 4]`` with three scores each."""
    rows = np.concatenate([boxes, np.full((len(boxes), 3), 0.5)], axis=1)[None]
    return GraphSummary(
        inputs={"images": TensorSummary(shape=(1, 3, *SIZE), dtype="float32")},
        outputs={"rows": TensorSummary(shape=rows.shape, dtype="float32")},
        sample=lambda: {"rows": rows},
    )


def of_cells(summary: GraphSummary, per_cell: int) -> CellRows:
    return CellRows(
        summary=summary, output="rows", axis=2, size_hw=SIZE, strides=(8, 16), per_cell=per_cell
    )


def cells(strides: tuple[int, ...], per_cell: int, *, apart: bool) -> np.ndarray:
    """The middles of cells, the boxes of one beside each other or ``apart``."""
    maps = [
        np.array(
            [
                ((x + 0.5) * stride, (y + 0.5) * stride)
                for y in range(SIZE[0] // stride)
                for x in range(SIZE[1] // stride)
            ]
        )
        for stride in strides
    ]
    return np.concatenate(
        [np.tile(own, (per_cell, 1)) if apart else np.repeat(own, per_cell, axis=0) for own in maps]
    )


@pytest.mark.parametrize("strides", [(8, 16), (16, 8)])
@pytest.mark.parametrize(("per_cell", "apart"), [(1, False), (3, False), (3, True)])
def test_corners_move_with_their_cell_and_sizes_do_not(
    strides: tuple[int, ...], per_cell: int, apart: bool
) -> None:
    rng = np.random.default_rng(3)
    middle = cells(strides, per_cell, apart=apart) + rng.normal(0, 4, (1, 2))
    size = rng.gamma(2.0, 12.0, middle.shape)
    corners = np.concatenate([middle - size / 2, middle + size / 2], axis=1)
    centred = np.concatenate([middle, size], axis=1)
    for boxes, expected in ((corners, CORNERS), (centred, CENTER_SIZE), (centred[::-1], None)):
        found = of_cells(of_boxes(boxes), per_cell).columns()
        assert found == expected


@pytest.mark.parametrize("strides", [(8, 16), (16, 8)])
@pytest.mark.parametrize(("per_cell", "apart"), [(1, False), (3, True)])
def test_centres_in_shares_of_the_image_move_less(
    strides: tuple[int, ...], per_cell: int, apart: bool
) -> None:
    rng = np.random.default_rng(3)
    middle = cells(strides, per_cell, apart=apart) + rng.normal(0, 4, (1, 2))
    pixels = np.concatenate([middle, rng.gamma(2.0, 12.0, middle.shape)], axis=1)
    shares = pixels / np.array([SIZE[1], SIZE[0]] * 2)
    for boxes, expected in ((pixels, False), (shares, True), (shares[::-1], False)):
        assert of_cells(of_boxes(boxes), per_cell).are_shares() is expected
    silent = GraphSummary(inputs={}, outputs=of_boxes(shares).outputs)
    assert not of_cells(silent, per_cell).are_shares()


def _scaled(model: onnx.ModelProto, factors: list[float]) -> onnx.ModelProto:
    """Multiplies each value of a row."""
    (output,) = model.graph.output
    rows = output.name
    for node in model.graph.node:
        node.output[:] = ["unscaled" if name == rows else name for name in node.output]
    scale = np.array(factors, np.float32).reshape(1, -1, 1)
    model.graph.initializer.append(numpy_helper.from_array(scale, "scale"))
    model.graph.node.append(helper.make_node("Mul", ["unscaled", "scale"], [rows]))
    return model


@pytest.mark.parametrize("given", [{}, {"family": "yolov8"}])
def test_shares_of_the_image_are_never_read_as_pixels(given: Any, tmp_path: Path) -> None:
    """As Ultralytics writes a YOLOv8 on its way to TensorFlow."""
    model = _scaled(yolo_models.yolov8(), [1 / SIZE[1], 1 / SIZE[0]] * 2 + [1.0] * 3)
    with pytest.raises(
        ModelError, match="shares of the image, on a picture of shapes; this family's"
    ):
        import_model(model, tmp_path, given)
    answer = get_head("yolov8").examine(summary_of(model), SIZE, given)
    assert isinstance(answer, Question)
    # What is asked for settles it, with the boxes of the network in pixels.
    spec = import_model(model, tmp_path, tomllib.loads(answer.spec_text)).spec
    assert (spec.family, spec.labels) == ("decoded", ("a", "b", "c"))
    ours = get_head("decoded").decode_reference(run_onnx(model), spec)
    pixels = yolo_models.yolov8()
    theirs = get_head("yolov8").decode_reference(
        run_onnx(pixels), import_model(pixels, tmp_path).spec
    )
    np.testing.assert_allclose(ours.boxes, theirs.boxes, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


@pytest.mark.parametrize(
    ("mean_size", "by_size"), [(2.0, True), (24.0, True), (80.0, True), (24.0, False)]
)
@pytest.mark.parametrize("strides", [(8, 16), (16, 8)])
@pytest.mark.parametrize(("per_cell", "apart"), [(1, False), (3, True)])
def test_rows_in_another_order_move_with_their_cells(
    strides: tuple[int, ...], per_cell: int, apart: bool, mean_size: float, by_size: bool
) -> None:
    rng = np.random.default_rng(3)
    middle = cells(strides, per_cell, apart=apart)
    size = rng.gamma(2.0, mean_size / 2, middle.shape)
    # As sums of distances move centres, or as YOLOv5 does, by its stride whatever the size.
    reach = size * 0.4 if by_size else np.repeat(8.0, 2)
    middle = middle + reach * rng.uniform(-1, 1, middle.shape)
    first, last = middle - size / 2, middle + size / 2
    orders = {
        ("x1", "y1", "x2", "y2"): (first, last),
        ("y1", "x1", "y2", "x2"): (first[:, ::-1], last[:, ::-1]),
        ("cy", "cx", "h", "w"): (middle[:, ::-1], size[:, ::-1]),
        ("x1", "y1", "w", "h"): (first, size),
        CENTER_SIZE: (middle, size),
    }
    for expected, parts in orders.items():
        boxes = np.concatenate(parts, axis=1)
        found = of_cells(of_boxes(boxes), per_cell).columns_in_order()
        assert found == expected
    assert of_cells(of_boxes(boxes[::-1]), per_cell).columns_in_order() is None
    silent = GraphSummary(inputs={}, outputs=of_boxes(boxes).outputs)
    assert of_cells(silent, per_cell).columns_in_order() is None
    assert of_cells(silent, per_cell).growth() is None


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])
def test_centres_at_the_beginning_of_their_cells_are_centres(spread: float) -> None:
    """As YOLOX has them before it is trained: half a cell before its middle, as large as a cell."""
    rng = np.random.default_rng(6)
    middle = cells((8, 16), 1, apart=False)
    stride = np.repeat([8.0, 16.0], [(SIZE[0] // s) * (SIZE[1] // s) for s in (8, 16)])[:, None]
    size = stride * np.exp(spread * rng.normal(size=middle.shape))
    first = middle - stride / 2 + 0.1 * spread * rng.normal(size=middle.shape)
    boxes = np.concatenate([first, size], axis=1)
    assert of_cells(of_boxes(boxes), 1).columns_in_order() == CENTER_SIZE


def _reordered(model: onnx.ModelProto, columns: str) -> onnx.ModelProto:
    """Turns rows ``cx cy w h`` and scores into others."""
    (output,) = model.graph.output
    rows = output.name
    for node in model.graph.node:
        node.output[:] = ["centred" if name == rows else name for name in node.output]
    constants = {"sizes": np.array([2, 2, 3]), "half": np.float32(0.5), "turn": np.array([1, 0])}
    for name, values in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    nodes = [
        helper.make_node("Split", ["centred", "sizes"], ["center", "size", "scored"], axis=1),
        helper.make_node("Mul", ["size", "half"], ["reach"]),
        helper.make_node("Sub", ["center", "reach"], ["first"]),
        helper.make_node("Add", ["center", "reach"], ["last"]),
        helper.make_node("Gather", ["first", "turn"], ["first_yx"], axis=1),
        helper.make_node("Gather", ["last", "turn"], ["last_yx"], axis=1),
    ]
    parts = {"x1 y1 w h": ["first", "size"], "y1 x1 y2 x2": ["first_yx", "last_yx"]}[columns]
    model.graph.node.extend(nodes)
    model.graph.node.append(helper.make_node("Concat", [*parts, "scored"], [rows], axis=1))
    return model


@pytest.mark.parametrize("columns", ["x1 y1 w h", "y1 x1 y2 x2"])
def test_another_order_is_asked_about_and_never_read_as_centres(
    columns: str, tmp_path: Path
) -> None:
    """As OpenCV's ``NMSBoxes`` and TensorFlow's suppression want their boxes."""
    model = _reordered(yolo_models.yolov8(), columns)
    with pytest.raises(ModelError, match=f"are {columns}, on a picture of shapes; this family's"):
        import_model(model, tmp_path)
    answer = get_head("yolov8").examine(summary_of(model), SIZE, {})
    assert isinstance(answer, Question)
    spec = import_model(model, tmp_path, tomllib.loads(answer.spec_text)).spec
    assert spec.options["columns"] == columns.split()
    ours = get_head("decoded").decode_reference(run_onnx(model), spec)
    pixels = yolo_models.yolov8()
    theirs = get_head("yolov8").decode_reference(
        run_onnx(pixels), import_model(pixels, tmp_path).spec
    )
    np.testing.assert_allclose(ours.boxes, theirs.boxes, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


@pytest.mark.parametrize("given", [{}, {"family": "yolov8"}])
@pytest.mark.parametrize("by", [(3.0, 2.0), (0.25, 0.25)])
def test_pixels_of_another_picture_are_refused(
    given: Any, by: tuple[float, float], tmp_path: Path
) -> None:
    model = _scaled(yolo_models.yolov8(), [*by] * 2 + [1.0] * 3)
    with pytest.raises(ModelError, match=r"in pixels of a picture of about .* what scales"):
        import_model(model, tmp_path, given)


def test_those_that_come_near_are_named_first(tmp_path: Path) -> None:
    model = _scaled(yolo_models.yolov8(), [1.0] * 4 + [2.0] * 3)
    with pytest.raises(ModelError, match="no known detector family") as said:
        import_model(model, tmp_path)
    refusals = [line.strip() for line in str(said.value).splitlines() if line.startswith("  yolo")]
    assert str(said.value).splitlines()[1] == f"  {refusals[0]}"
    assert "are not bounded by 0 and 1, so they are no scores" in refusals[0]


def test_what_is_not_finite_or_cannot_be_run_proves_nothing() -> None:
    boxes = np.full((len(cells((8, 16), 1, apart=False)), 4), np.nan)
    assert of_cells(of_boxes(boxes), 1).columns() is None
    silent = of_boxes(boxes)
    silent = GraphSummary(inputs=silent.inputs, outputs=silent.outputs)
    assert of_cells(silent, 1).columns() is None


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("corners", ["of cells", "of centres"])
@pytest.mark.parametrize("metadata", [None, {}])
def test_corners_are_asked_how_pictures_are_fed(
    corners: str, last: bool, metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    model = yolo_models.yolov8(corners=corners, last=last, metadata=metadata)
    with pytest.raises(ModelError) as caught:
        import_model(model, tmp_path)
    assert "x1 y1 x2 y2 in pixels and 3 scores" in str(caught.value)
    assert 'family = "yolov8"' not in str(caught.value)
    answer = get_head("decoded").examine(summary_of(model), SIZE, {})
    assert isinstance(answer, Question)
    spec = import_model(model, tmp_path, tomllib.loads(answer.spec_text)).spec
    assert spec.options["layout"] == LAYOUTS[last]
    assert (spec.options["columns"], spec.options["background"]) == (
        ["x1", "y1", "x2", "y2"],
        "none",
    )
    assert spec.labels == (
        ("a", "b", "c") if metadata is None else ("class_0", "class_1", "class_2")
    )


def test_a_family_that_is_said_does_not_read_corners_as_centres(tmp_path: Path) -> None:
    model = yolo_models.yolov8(corners="of cells")
    with pytest.raises(ModelError, match=r"are two corners, x1 y1 x2 y2"):
        import_model(model, tmp_path, {"family": "yolov8"})


def test_centres_stay_what_they_were(tmp_path: Path) -> None:
    model = yolo_models.yolov8(last=True)
    assert import_model(model, tmp_path).spec.family == "yolov8"
    assert isinstance(get_head("decoded").examine(summary_of(model), SIZE, {}), str)


@pytest.mark.parametrize("last", [False, True])
def test_corners_and_centres_of_one_network_are_the_same_boxes(last: bool, tmp_path: Path) -> None:
    model = yolo_models.yolov8(corners="of cells", last=last)
    spec = import_model(model, tmp_path, TOLD).spec
    ours = get_head("decoded").decode_reference(run_onnx(model), spec)
    centred = yolo_models.yolov8()
    theirs = get_head("yolov8").decode_reference(
        run_onnx(centred), import_model(centred, tmp_path).spec
    )
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-3)
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    assert_decodes(spec, random_outputs(summary_of(model), batch=2))


def test_corners_compile(tmp_path: Path) -> None:
    compile_and_detect(yolo_models.yolov8(corners="of cells"), tmp_path, TOLD)


def test_a_background_and_another_order_are_told(tmp_path: Path) -> None:
    model = yolo_models.yolov8(last=True)
    (name,) = summary_of(model).outputs
    told = {"box_output": name, "score_output": name, "layout": "channels_last"}
    told |= {"columns": ["cx", "cy", "w", "h"], "box_frame": "pixels", "background": "first"}
    spec = import_model(model, tmp_path, {**TOLD, "labels": ["b", "c"], "options": told}).spec
    outputs = run_onnx(model)
    found = assert_decodes(spec, outputs)
    np.testing.assert_array_equal(found.scores, outputs[name][:, :, 5:])
    with pytest.raises((InputError, ModelError), match="layout"):
        import_model(model, tmp_path, {**TOLD, "options": {**told, "layout": "sideways"}})
    with pytest.raises((InputError, ModelError), match=r"options.layout says along which"):
        import_model(model, tmp_path, {**TOLD, "options": {**told, "layout": None}})
