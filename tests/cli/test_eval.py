"""`eval`: the toy detector, and an ONNX file that answers as it does, or not quite."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest
import toy_modules
from onnx_models import Graph, save

STRIDES = [8, 16, 32]
ANCHORS = sum((32 // s) * (48 // s) for s in STRIDES)
THINGS = [(1, 1, (0, 0, 24, 16)), (2, 1, (0, 0, 24, 16)), (1, 3, (20.5, 10.25, 26.5, 21.25))]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures of one colour each, and annotations of some of what is found in them."""
    import cv2

    folder = tmp_path / "pictures"
    folder.mkdir()
    images = []
    for index, color in enumerate(((200, 150, 100), (190, 170, 110)), start=1):
        assert cv2.imwrite(str(folder / f"{index}.png"), np.full((32, 48, 3), color, np.uint8))
        images.append({"id": index, "file_name": f"{index}.png", "height": 32, "width": 48})
    annotations = [
        {"image_id": image, "category_id": category, "bbox": box} for image, category, box in THINGS
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(toy_modules.LABELS, start=1)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(data))
    return folder


def save_onnx(path: Path, *, moved_px: float = 0.0) -> Path:
    """The toy detector as a YOLOv8-style network; the blue box may lie somewhat to the right."""
    corners = toy_modules.BOXES_XYXY.copy()
    corners[0, [0, 2]] += moved_px
    boxes = np.zeros((1, 4, ANCHORS), np.float32)
    boxes[0, :2, :3] = (corners[:, :2] + corners[:, 2:]).T / 2
    boxes[0, 2:, :3] = (corners[:, 2:] - corners[:, :2]).T
    graph = Graph()
    mean = graph.node("ReduceMean", "images", axes=[2, 3], keepdims=1)
    # The input's channels are RGB, the classes are blue, green and red.
    order = graph.node("Gather", mean, graph.constant([2, 1, 0], np.int64), axis=1)
    flat = graph.node("Reshape", order, graph.constant([1, 3, 1], np.int64))
    scores = graph.node("Mul", flat, graph.constant(np.eye(3, ANCHORS)[None]))
    output = graph.node("Concat", graph.constant(boxes), scores, axis=1)
    model = graph.model({"images": [1, 3, 32, 48]}, {output: None})
    model.graph.output[0].name = model.graph.node[-1].output[0] = "output0"
    return save(model, path)


@pytest.fixture
def compiled(toy_library: bytes, tmp_path: Path) -> Callable[[Path], Path]:
    """Writes the toy detector as what was compiled from an ONNX file."""

    def write(onnx: Path) -> Path:
        from tvmdet.frontend.limits import Limits
        from tvmdet.frontend.load import load_onnx

        options = {"layout": "channels_first", "output": "output0", "strides": STRIDES}
        return toy_modules.write_toy(
            tmp_path / "toy.tvmdet",
            toy_library,
            spec=toy_modules.toy_spec(options=options).to_dict(),
            model={"name": "toy", "sha256": load_onnx(onnx, Limits()).sha256},
        )

    return write


def words(file: Path, pictures: Path, *more: object) -> list[object]:
    return ["eval", file, "--annotations", pictures / "instances.json", "--images", pictures, *more]


def test_figures_of_a_file(
    run: Callable, toy_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(word) for word in words(toy_path, pictures)]
    monkeypatch.setattr(sys, "argv", ["tvmdet", *arguments])
    done = run(*arguments)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["pictures", "2,", "3", "objects"] in lines
    # The red box of the second picture is not annotated, and scores more than that of the first.
    assert ["AP50", "0.7500"] in lines
    assert ["blue", "2", "2", "1.0000", "1.0000"] in lines
    assert ["red", "1", "2", "0.5000", "0.5000"] in lines
    assert ["green", "0", "2"] in lines
    assert "at most 4 objects" in done.err
    assert done.out.endswith("--onnx MODEL.onnx\n")


def test_figures_as_json(run: Callable, toy_path: Path, pictures: Path, tmp_path: Path) -> None:
    done = run(*words(toy_path, pictures, "--json", "-"))
    found = json.loads(done.out)
    assert (done.code, found["images"], found["objects"]) == (0, 2, 3)
    assert found["boxes"]["ap50"] == pytest.approx(0.75)
    assert found["boxes"]["ap_large"] is None
    assert [one["name"] for one in found["boxes"]["classes"]] == ["blue", "green", "red"]
    assert (found["masks"], found["reference"]) == (None, None)
    done = run(*words(toy_path, pictures, "--json", tmp_path / "figures.json"))
    assert f"everything in {tmp_path / 'figures.json'}" in done.out
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["boxes"] == found["boxes"]


def test_onnx_runtime_beside_it(
    run: Callable, compiled: Callable[[Path], Path], pictures: Path, tmp_path: Path
) -> None:
    onnx = save_onnx(tmp_path / "toy.onnx")
    done = run(*words(compiled(onnx), pictures, "--onnx", onnx))
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["AP50", "0.7500", "0.7500", "+0.00000"] in lines
    assert ["blue", "2", "2", "1.0000", "1.0000", "+0.00000"] in lines
    assert any(line[:2] == ["reference", "onnxruntime"] for line in lines)
    assert "next: tvmdet bench" in done.out


def test_another_answer_fails(
    run: Callable, compiled: Callable[[Path], Path], pictures: Path, tmp_path: Path
) -> None:
    onnx = save_onnx(tmp_path / "toy.onnx", moved_px=4.0)
    file = compiled(onnx)
    done = run(*words(file, pictures, "--onnx", onnx, "--json", "-"))
    assert done.code == 1
    assert "AP of boxes differs from that of ONNX Runtime by more than --max-drop 0.001" in done.err
    found = json.loads(done.out)["reference"]
    # IoU 24/28 of blue: right at 0.50 to 0.85, wrong at 0.90 and 0.95. Half of the classes.
    assert found["difference"]["boxes"]["ap"] == pytest.approx(0.1)
    assert found["difference"]["boxes"]["ap50"] == pytest.approx(0.0)
    assert found["differs"] == ["boxes"]
    done = run(*words(file, pictures, "--onnx", onnx, "--max-drop", "0.11"))
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--score", "2"], 2, "--score"),
        (["--limit", "0"], 2, "--limit"),
        (["--classes-by", "colour"], 1, "classes cannot be told by 'colour'"),
        (["--classes-by", "id", "--target", "z80"], 1, "holds no target 'z80'"),
        (["--onnx", "missing.onnx"], 1, "missing.onnx"),
    ],
)
def test_what_is_refused(
    run: Callable, toy_path: Path, pictures: Path, more: list[str], code: int, says: str
) -> None:
    done = run(*words(toy_path, pictures, *more))
    assert (done.code, done.out) == (code, "")
    assert says in done.error


def test_annotations_are_asked_for(run: Callable, toy_path: Path, tmp_path: Path) -> None:
    done = run("eval", toy_path, "--images", tmp_path)
    assert done.code == 2
    assert "Missing option '--annotations'" in done.error


def test_another_onnx_file_is_refused(
    run: Callable, toy_path: Path, pictures: Path, tmp_path: Path
) -> None:
    other = onnx_models.save(onnx_models.yolov8(), tmp_path / "other.onnx")
    done = run(*words(toy_path, pictures, "--onnx", other))
    assert done.code == 1
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    assert "was not compiled from" in done.error and digest in done.error


def test_sigmas_are_numbers_of_keypoints(run: Callable, toy_path: Path, pictures: Path) -> None:
    done = run(*words(toy_path, pictures, "--sigmas", "0.1;0.2"))
    assert done.code == 1 and "--sigmas 0.1;0.2 is no list of numbers; give one for" in done.err
    done = run(*words(toy_path, pictures, "--sigmas", "0.1,0.2"))
    assert done.code == 1 and "finds no keypoints, which sigmas are for" in done.err


def test_figures_of_keypoints_have_a_column(
    run: Callable, toy_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tvmdet import report
    from tvmdet.report.coco_metrics import FIGURES, Figures

    real = report.evaluate

    def evaluate(*arguments: Any, **options: Any) -> Any:
        found = real(*arguments, **options)
        values = dict.fromkeys(FIGURES["keypoints"], 0.25)
        points = Figures(values=values, classes=found.boxes.classes)
        return dataclasses.replace(found, figures={**found.figures, "keypoints": points})

    monkeypatch.setattr(report, "evaluate", evaluate)
    done = run(*words(toy_path, pictures))
    lines = [line.split() for line in done.out.splitlines()]
    assert ["AP50", "0.7500", "0.2500"] in lines
    assert ["AR100", "1.0000"] in lines, "boxes only"
    assert ["AR20", "0.2500"] in lines, "keypoints only"
    assert ["pictures", "2,", "3", "objects,", "with", "keypoints"] in lines
