"""Every family's own whole spec can be given back, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import detections_samples
import onnx
import onnx_models
import pytest
import test_dense_import
import test_detr
import yolo_models
from mask_detector import known, mask_network

import tvmdet
from tvmdet.heads import all_heads

SHAPES_QUERIES = Path(__file__).parents[1] / "zoo" / "models" / "shapes_queries.onnx"


def _from_file(path: Path) -> Callable[[], onnx.ModelProto]:
    return lambda: onnx.load(path)


# By name: the family, the network, and what must be said of it at first.
CASES: dict[str, tuple[str, Callable[[], onnx.ModelProto], Mapping[str, Any]]] = {
    **{
        family: (family, lambda network=network: network, given)
        for family, (network, given) in test_dense_import.NETWORKS.items()
    },
    "detections": (
        "detections",
        lambda: detections_samples.network("torchvision"),
        {
            "family": "detections",
            "options": {"box_frame": "pixels", "columns": ["x1", "y1", "x2", "y2"]},
        },
    ),
    "detections in a column": ("detections", lambda: detections_samples.network("yolov10"), {}),
    "detr": ("detr", test_detr.network, {}),
    "rtdetr": ("rtdetr", lambda: test_detr.network(reference=True), {}),
    "rtdetr, a column no class": (
        "rtdetr",
        lambda: test_detr.network(reference=True),
        {"family": "rtdetr", "options": {"background": "first"}},
    ),
    "rtdetr, trained": ("rtdetr", _from_file(SHAPES_QUERIES), {}),
    "picodet": ("picodet", onnx_models.picodet, {}),
    "yolo_maps": (
        "yolo_maps",
        yolo_models.anchor_maps,
        {"family": "yolo_maps", "options": {"version": "yolov5"}},
    ),
    "yolov4": ("yolov4", yolo_models.yolov4, {}),
    "yolov5": ("yolov5", lambda: yolo_models.anchor_maps(decoded=True), {}),
    "yolov5, masks": ("yolov5", yolo_models.yolov5_masks, {}),
    "yolov6": ("yolov6", yolo_models.yolov6, {}),
    "yolov8": ("yolov8", onnx_models.yolov8, {}),
    "yolov8, masks": ("yolov8", lambda: yolo_models.yolov8(masks=5), {}),
    "yolov8, masks left away": ("yolov8", lambda: yolo_models.yolov8(masks=5), {"masks": False}),
    "yolov8_maps": ("yolov8_maps", lambda: yolo_models.yolov8("split"), {}),
    "yolox": ("yolox", yolo_models.yolox, {}),
    "yolox, decoded": ("yolox", lambda: yolo_models.yolox(decoded=True), {}),
}


def test_every_family_is_asked() -> None:
    # The family "decoded" has no small network of its own among the tests yet.
    asked = {family for family, *_ in CASES.values()}
    assert asked == {head.name for head in all_heads()} - {"decoded"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if "trained" in name else ()) for name in CASES],
)
def test_a_whole_spec_is_accepted_again(name: str, tmp_path: Path) -> None:
    family, build, given = CASES[name]
    path = onnx_models.save(build(), tmp_path / "network.onnx")
    spec = tvmdet.import_onnx(path, spec=given).spec
    assert spec.family == family
    assert tvmdet.import_onnx(path, spec=spec.to_dict()).spec == spec


def test_masks_in_boxes_are_given_back(tmp_path: Path) -> None:
    path = mask_network("box", tmp_path / "network.onnx")
    spec = tvmdet.import_onnx(path, spec=known("box")).spec
    assert spec.masks is not None
    assert tvmdet.import_onnx(path, spec=spec.to_dict()).spec == spec


def test_every_form_of_a_whole_spec_is_accepted(tmp_path: Path) -> None:
    path = onnx_models.save(test_detr.network(), tmp_path / "network.onnx")
    spec = tvmdet.import_onnx(path).spec
    assert spec.masks is None
    assert tvmdet.import_onnx(path, spec=spec).spec == spec
    written = tmp_path / "spec.json"
    written.write_text(json.dumps(spec.to_dict()))
    assert tvmdet.import_onnx(path, spec=written).spec == spec
