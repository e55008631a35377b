"""PaddleDetection's infer_cfg.yml: when it belongs to a model, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx_models import Graph, save

import tvmdet
from tvmdet.errors import InputError
from tvmdet.frontend.sidecar import find_sidecar
from tvmdet.frontend.user_spec import read_given
from tvmdet.heads.paddledetection import ARCH, METRIC, NMS_IOU

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "is_scale": True}
PIXELS = {"color": "rgb", "mean": [0, 0, 0], "std": [1, 1, 1]}
# cv2.resize by fx and fy, and boxes divided by them.
EXACT = {"rounding": "nearest", "scale": "exact"}
SHARES = {"color": "rgb", "mean": [0, 0, 0], "std": [255, 255, 255]}
NORMALISED = {
    "color": "rgb",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
}
STRETCH = {"type": "Resize", "target_size": [64, 96], "keep_ratio": False, "interp": 1}
KEEP = {"type": "Resize", "target_size": [800, 1333], "keep_ratio": True, "interp": 1}
NMS = {"name": "MultiClassNMS", "nms_threshold": 0.5, "score_threshold": 0.3, "keep_top_k": 100}


def _write(
    folder: Path, *transforms: dict[str, Any], name: str = "infer_cfg.yml", **more: Any
) -> None:
    """What ``_dump_infer_config`` writes, shortened to what is read."""
    values = {"mode": "paddle", "draw_threshold": 0.5, "Preprocess": list(transforms), **more}
    (folder / name).write_text(yaml.safe_dump(values, sort_keys=False))


def _said(folder: Path, *transforms: dict[str, Any], **more: Any) -> Any:
    _write(folder, *transforms, **more)
    return read_given(folder / "absent.onnx", folder / "infer_cfg.yml")


@pytest.mark.parametrize(
    ("transforms", "table", "size_hw"),
    [
        ([], {}, None),
        (  # PicoDet, PP-YOLOE, YOLOv3
            [STRETCH, {"type": "NormalizeImage", **IMAGENET}, {"type": "Permute"}],
            {**NORMALISED, "resize": "stretch"},
            (64, 96),
        ),
        (  # PP-YOLOE+ and RT-DETR: norm_type none leaves the division by 255
            [
                STRETCH,
                {"type": "NormalizeImage", "norm_type": "none", "mean": [0, 0, 0], "std": [1] * 3},
            ],
            {**SHARES, "resize": "stretch"},
            (64, 96),
        ),
        (  # SSD: pixels as they are, less a mean
            [
                STRETCH,
                {
                    "type": "NormalizeImage",
                    "is_scale": False,
                    "mean": [104, 117, 123],
                    "std": [1, 1, 1],
                },
            ],
            {**PIXELS, "mean": [104, 117, 123], "resize": "stretch"},
            (64, 96),
        ),
        (  # Faster R-CNN, GFL: zeros after the normalisation are the mean colour
            [
                KEEP,
                {"type": "NormalizeImage", **IMAGENET},
                {"type": "Permute"},
                {"type": "PadStride", "stride": 32},
            ],
            {
                **NORMALISED,
                **EXACT,
                "resize": "letterbox",
                "pad_position": "top_left",
                "pad_value": [124, 116, 104],
            },
            None,
        ),
        (  # FCOS, which normalises inside (fuse_normalize): zeros before it are black
            [KEEP, {"type": "Permute"}, {"type": "PadStride", "stride": 128}],
            {
                **PIXELS,
                **EXACT,
                "resize": "letterbox",
                "pad_position": "top_left",
                "pad_value": [0, 0, 0],
            },
            None,
        ),
        (  # YOLOX: grey, and no normalisation at all
            [
                {"type": "Resize", "target_size": [416, 416]},
                {"type": "Pad", "size": [416, 416], "fill_value": [114.0, 114.0, 114.0]},
                {"type": "Permute"},
            ],
            {
                **PIXELS,
                **EXACT,
                "resize": "letterbox",
                "pad_position": "top_left",
                "pad_value": [114, 114, 114],
            },
            (416, 416),
        ),
        (
            [{"type": "LetterBoxResize", "target_size": [64, 96]}],
            {
                **PIXELS,
                "resize": "letterbox",
                "pad_position": "center",
                "pad_value": 128,
                "interpolation": "area",
            },
            (64, 96),
        ),
        (  # CenterNet turns the channels around as it warps
            [{"type": "WarpAffine", "input_h": 64, "input_w": 96}],
            {
                **PIXELS,
                "color": "bgr",
                "resize": "letterbox",
                "pad_position": "center",
                "pad_value": 0,
                "interpolation": "warp",
            },
            (64, 96),
        ),
    ],
)
def test_transforms(
    transforms: list[dict[str, Any]],
    table: dict[str, Any],
    size_hw: tuple[int, int] | None,
    tmp_path: Path,
) -> None:
    found = _said(tmp_path, *transforms)
    said = found.given.get("input", {})
    assert said.keys() == table.keys()
    for key, value in table.items():
        assert said[key] == (value if isinstance(value, str) else pytest.approx(value)), key
    assert found.size_hw == size_hw


@pytest.mark.parametrize(
    ("number", "name"), [(0, "nearest"), (1, None), (2, "bicubic"), (3, "area"), ([2], None)]
)
def test_interpolation_by_opencvs_number(tmp_path: Path, number: Any, name: str | None) -> None:
    found = _said(tmp_path, {**STRETCH, "interp": number})
    assert found.given["input"].get("interpolation") == name


def test_what_is_otherwise_here_is_said(tmp_path: Path) -> None:
    odd = {"type": "NormalizeImage", "mean": [0.5], "std": [1, 1, 1]}
    lanczos = {**STRETCH, "interp": 4}
    warp = {"type": "WarpAffine", "keep_res": True}
    found = _said(tmp_path, lanczos, odd, {"type": "RandomFlip"}, warp)
    assert {"mean", "std"}.isdisjoint(found.given["input"])
    text = "\n".join(found.reasons)
    for part in (
        "cv2's number 4: pictures are resized bilinearly",
        "three means",
        "'RandomFlip' has no counterpart",
        "keep_res leaves",
    ):
        assert part in text


@pytest.mark.parametrize("how", [[1], {"a": 1}, "nearest", None, 7])
def test_an_interpolation_of_an_unknown_kind_is_left_away(how: Any, tmp_path: Path) -> None:
    found = _said(tmp_path, {**STRETCH, "interp": how})
    assert found.size_hw == (64, 96)
    assert "interpolation" not in found.given["input"]


def test_a_transform_has_a_type(tmp_path: Path) -> None:
    """Twelve levels of ten aliases are a terabyte of text."""
    levels = [f"l{at}: &l{at} [{', '.join([f'*l{at - 1}'] * 10)}]" for at in range(1, 13)]
    odd = "{type: *l12}, {a: 1}, {type: Permute}, {type: Resize, interp: *l12}"
    lines = ["l0: &l0 [a]", *levels, f"Preprocess: [{odd}]"]
    (tmp_path / "infer_cfg.yml").write_text("\n".join(lines))
    found = read_given(tmp_path / "absent.onnx", tmp_path / "infer_cfg.yml")
    assert sum("a transform without a type is left away" in one for one in found.reasons) == 2


def test_labels_and_architecture(tmp_path: Path) -> None:
    found = _said(tmp_path, label_list=["cat", "dog"], arch="YOLO", metric="COCO")
    assert found.given["labels"] == ["cat", "dog"]
    assert found.hints == {ARCH: "YOLO", METRIC: "COCO"}
    assert "labels" not in _said(tmp_path, label_list=["cat", 3]).given
    assert "labels" not in _said(tmp_path, label_list=[]).given


def test_thresholds_count_where_the_deployment_code_suppresses(tmp_path: Path) -> None:
    assert _said(tmp_path, arch="PicoDet", NMS=NMS).given["postprocess"] == {
        "score_threshold": 0.3,
        "iou_threshold": 0.5,
        "max_detections": 100,
    }
    # With the post-processing in the network the suppression may be in it, too.
    inside = _said(tmp_path, arch="GFL", NMS=NMS)
    assert "postprocess" not in inside.given
    assert inside.hints == {ARCH: "GFL", NMS_IOU: "0.5"}
    odd = _said(tmp_path, arch="PicoDet", NMS={"nms_threshold": "high", "keep_top_k": -1})
    assert "postprocess" not in odd.given


def test_it_belongs_to_models_of_the_exporters_names(tmp_path: Path) -> None:
    for name in ("model.onnx", "inference.onnx", "rival.onnx"):
        (tmp_path / name).write_text("")
    _write(tmp_path, label_list=["of PaddleX"], name="inference.yml")
    assert find_sidecar(tmp_path / "inference.onnx").given["labels"] == ["of PaddleX"]
    _write(tmp_path, label_list=["of the exporter"])
    assert find_sidecar(tmp_path / "model.onnx").files == ("infer_cfg.yml",)
    assert find_sidecar(tmp_path / "rival.onnx").files == ()
    # A file of the same name that is another project's says nothing.
    (tmp_path / "infer_cfg.yml").write_text("Preprocess: none")
    assert find_sidecar(tmp_path / "model.onnx").files == ()


def test_alone_in_its_folder_a_model_may_be_called_anything(tmp_path: Path) -> None:
    (tmp_path / "picodet.onnx").write_text("")
    _write(tmp_path, label_list=["cat"])
    assert find_sidecar(tmp_path / "picodet.onnx").given["labels"] == ["cat"]


def test_malformed_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "infer_cfg.yml").write_text("Preprocess: [")
    with pytest.raises(InputError, match=r"infer_cfg\.yml is not YAML.*move it away"):
        read_given(tmp_path / "model.onnx", None)
    with pytest.raises(InputError, match=r"infer_cfg\.yml, line 1 is not YAML"):
        read_given(tmp_path / "absent" / "model.onnx", tmp_path / "infer_cfg.yml")


def _before_suppression(*, scaled: bool) -> onnx.ModelProto:
    """Boxes around the cells of stride 8 and scores ``[N, C, A]``, as PicoDet's head has them."""
    graph = Graph(seed=3)
    maps = graph.conv("image", (3, 7), 8, strides=[8, 8])
    flat = graph.node("Reshape", maps, graph.constant([0, 7, -1], np.int64))
    parts = graph.node("Split", flat, graph.constant([4, 3], np.int64), outputs=2, axis=1)
    y, x = np.mgrid[0:64:8, 0:128:8].reshape(2, 1, -1) + 4
    centres = graph.constant(np.stack([x, y, x, y], axis=2).astype(np.float32))
    moved = graph.node("Add", graph.node("Transpose", parts, perm=[0, 2, 1]), centres)
    scores = graph.node("Sigmoid", f"{parts}.1")
    scores = graph.node("Sqrt", graph.node("Mul", scores, scores))
    inputs: dict[str, list[int | str]] = {"image": [1, 3, 64, 128]}
    if scaled:
        inputs["scale_factor"] = [1, 2]
        pair = graph.node("Concat", "scale_factor", "scale_factor", axis=1)
        shape = graph.constant([-1, 1, 4], np.int64)
        moved = graph.node("Div", moved, graph.node("Reshape", pair, shape))
    return graph.model(inputs, {moved: None, scores: None})


@pytest.mark.parametrize("scaled", [True, False])
def test_an_export_without_suppression_needs_no_other_spec(scaled: bool, tmp_path: Path) -> None:
    path = save(_before_suppression(scaled=scaled), tmp_path / "model.onnx")
    with pytest.raises(tvmdet.ModelError, match="how pictures are resized and normalised") as found:
        tvmdet.import_onnx(path)
    assert ("lay that beside the model" in str(found.value)) == scaled
    _write(
        tmp_path,
        STRETCH,
        {"type": "NormalizeImage", **IMAGENET},
        arch="GFL",
        NMS=NMS,
        label_list=["a", "b", "c"],
    )
    spec = tvmdet.import_onnx(path).spec
    assert (spec.family, spec.labels) == ("decoded", ("a", "b", "c"))
    assert (spec.input.resize, spec.postprocess.iou_threshold) == ("stretch", 0.5)
    assert list(spec.options["columns"]) == ["x1", "y1", "x2", "y2"]


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("RBOX", "infer_cfg.yml says metric RBOX: it finds oriented boxes"),
        ("KeyPointTopDownCOCOEval", "it finds the points of a person, and no boxes"),
    ],
)
def test_what_is_judged_by_other_metrics_has_no_boxes(
    metric: str, reason: str, tmp_path: Path
) -> None:
    path = save(_before_suppression(scaled=False), tmp_path / "model.onnx")
    _write(tmp_path, STRETCH, metric=metric, label_list=["a", "b", "c"])
    with pytest.raises(tvmdet.ModelError, match=reason):
        tvmdet.import_onnx(path)
    spec = tvmdet.import_onnx(path, spec={"family": "decoded"}).spec
    assert spec.labels == ("a", "b", "c")
