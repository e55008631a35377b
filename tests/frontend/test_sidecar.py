"""Files beside a model: which belong to it, what they say, and what wins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx_models
import pytest
from dense_networks import dense_network
from onnx_models import save

import tvmdet
from tvmdet.errors import InputError, ModelError
from tvmdet.frontend.doctor import diagnose
from tvmdet.frontend.sidecar import find_sidecar, read_json_spec
from tvmdet.frontend.user_spec import read_given

NORMALIZE = {
    "type": "Normalize",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "to_rgb": True,
}


def _pipeline(*transforms: dict[str, Any], name: str = "retinanet", **params: Any) -> Any:
    """What MMDeploy writes, its tasks shortened to what is read."""
    tasks = [
        {"module": "Transform", "name": "Preprocess", "transforms": list(transforms)},
        {"module": "Net", "name": name},
        {"module": "mmdet", "name": "postprocess", "params": params},
    ]
    return {"pipeline": {"tasks": tasks}}


def _write(folder: Path, **files: Any) -> None:
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))


def _deploy(net: str = "detector.onnx") -> Any:
    return {"models": [{"name": "retinanet", "net": net, "backend": "onnxruntime"}]}


def test_a_model_alone_has_none(tmp_path: Path) -> None:
    found = find_sidecar(tmp_path / "detector.onnx")
    assert (found.given, found.size_hw, found.hints, found.files) == ({}, None, {}, ())


def test_spec_files_belong_by_name(tmp_path: Path) -> None:
    for name in ("a.onnx", "a.toml", "spec.toml"):
        (tmp_path / name).write_text('labels = ["of a"]' if name == "a.toml" else "")
    (tmp_path / "spec.toml").write_text('labels = ["of all"]\nfamily = "yolov8"')
    found = find_sidecar(tmp_path / "a.onnx")
    assert found.given == {"labels": ["of a"], "family": "yolov8"}
    assert found.files == ("spec.toml", "a.toml")
    # With a second network, spec.toml may be of either.
    (tmp_path / "b.onnx").write_text("")
    assert find_sidecar(tmp_path / "a.onnx").files == ("a.toml",)
    assert find_sidecar(tmp_path / "b.onnx").files == ()


def test_mmdeploys_files_belong_by_the_net_they_name(tmp_path: Path) -> None:
    _write(tmp_path, deploy=_deploy("other.onnx"), pipeline=_pipeline(NORMALIZE))
    assert find_sidecar(tmp_path / "detector.onnx").files == ()
    _write(tmp_path, deploy=_deploy())
    found = find_sidecar(tmp_path / "detector.onnx")
    assert found.files == ("deploy.json", "pipeline.json")
    assert found.hints == {"mmdeploy.model": "retinanet"}
    _write(tmp_path, deploy=_deploy("detector.engine"))  # what TensorRT makes of it
    assert find_sidecar(tmp_path / "detector.onnx").files == found.files


@pytest.mark.parametrize(
    ("transforms", "table"),
    [
        ([], {}),
        # Padding after the normalisation writes the mean colour.
        (
            [
                {"type": "Resize", "keep_ratio": True},
                NORMALIZE,
                {"type": "Pad", "size_divisor": 32},
            ],
            {
                "resize": "letterbox",
                "pad_position": "top_left",
                "rounding": "half_up",
                "scale": "sides",
                "color": "rgb",
                "mean": NORMALIZE["mean"],
                "std": NORMALIZE["std"],
                "pad_value": [124, 116, 104],
            },
        ),
        # RTMDet pads with grey first, to a size that leaves nothing for the second Pad.
        (
            [
                {"type": "mmdet.Resize", "keep_ratio": True, "size": [640, 640]},
                {"type": "Pad", "size": [640, 640], "pad_val": {"img": [114, 114, 114]}},
                {**NORMALIZE, "to_rgb": False},
                {"type": "Pad", "size_divisor": 32},
            ],
            {
                "resize": "letterbox",
                "pad_position": "top_left",
                "rounding": "half_up",
                "scale": "sides",
                "pad_value": [114, 114, 114],
                "color": "bgr",
                "mean": NORMALIZE["mean"],
                "std": NORMALIZE["std"],
            },
        ),
        (
            [{"type": "LetterResize", "scale": [320, 320], "pad_val": {"img": 114}}],
            {
                "resize": "letterbox",
                "pad_position": "center",
                "rounding": "nearest",
                "scale": "sides",
                "pad_value": [114, 114, 114],
            },
        ),
        ([{"type": "Resize", "keep_ratio": False}, {"type": "Pad"}], {"resize": "stretch"}),
        # MMYOLO's PPYOLOE stretches; a YOLO resizes before it pads.
        (
            [{"type": "FixShapeResize", "width": 640, "height": 640, "keep_ratio": False}],
            {"resize": "stretch"},
        ),
        (
            [
                {"type": "YOLOv5KeepRatioResize", "scale": [320, 320]},
                {"type": "LetterResize", "scale": [320, 320], "pad_val": 114},
            ],
            {
                "resize": "letterbox",
                "pad_position": "center",
                "rounding": "down",
                "scale": "sides",
                "pad_value": [114, 114, 114],
                "interpolation": "area",
            },
        ),
        # A border of colours is written before the channels are turned around.
        (
            [{"type": "Pad", "pad_val": {"img": [10, 20, 30]}}, NORMALIZE],
            {
                "pad_value": [30, 20, 10],
                "color": "rgb",
                "mean": NORMALIZE["mean"],
                "std": NORMALIZE["std"],
            },
        ),
        (
            [{"type": "Pad", "pad_val": {"img": [10, 20, 30]}}, {**NORMALIZE, "to_rgb": False}],
            {
                "pad_value": [10, 20, 30],
                "color": "bgr",
                "mean": NORMALIZE["mean"],
                "std": NORMALIZE["std"],
            },
        ),
    ],
)
def test_transforms(
    transforms: list[dict[str, Any]], table: dict[str, Any], tmp_path: Path
) -> None:
    _write(tmp_path, pipeline=_pipeline(*transforms))
    assert read_json_spec(tmp_path / "pipeline.json").given.get("input", {}) == table


def test_what_has_no_counterpart_is_said(tmp_path: Path) -> None:
    odd = [
        {"type": "CenterCrop"},
        {"type": "FixShapeResize", "width": 640, "height": 640, "interpolation": "lanczos"},
        {"type": "Normalize", "mean": [0], "std": [1]},
    ]
    _write(tmp_path, pipeline=_pipeline(*odd, {"type": "Pad", "logical_or_val": 31}))
    found = read_json_spec(tmp_path / "pipeline.json")
    assert found.given["input"] == {"resize": "stretch"}
    assert found.size_hw == (640, 640)
    text = "\n".join(found.reasons)
    for part in (
        "'CenterCrop' has no counterpart",
        "by 'lanczos': pictures are resized bilinearly",
        "three means",
        "logical or",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("to_rgb", "color", "line"),
    [
        ({}, "rgb", "Normalize does not say to_rgb: RGB, MMCV's default, is taken"),
        ({"to_rgb": "yes"}, "rgb", "Normalize has to_rgb 'yes': RGB"),
        ({"to_rgb": False}, "bgr", ""),
        ({"to_rgb": True}, "rgb", ""),
    ],
)
def test_colours_are_mmcvs_default_where_nothing_is_said(
    to_rgb: dict[str, Any], color: str, line: str, tmp_path: Path
) -> None:
    bare = {key: value for key, value in NORMALIZE.items() if key != "to_rgb"}
    _write(tmp_path, pipeline=_pipeline({**bare, **to_rgb}))
    found = read_json_spec(tmp_path / "pipeline.json")
    assert found.given["input"]["color"] == color
    text = "\n".join(found.reasons)
    assert (line in text) if line else ("to_rgb" not in text)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"rescale_factor": 0}, "rescale_factor is 0, no number above 0"),
        ({"image_mean": [0.5], "image_std": [1, 1, 1]}, "image_mean and image_std are not three"),
        ({"image_mean": [0.5] * 3, "image_std": [1, 1, 0]}, "deviations other than 0"),
    ],
)
def test_a_preprocessor_that_is_not_understood_is_said(
    values: dict[str, Any], line: str, tmp_path: Path
) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"do_normalize": True, **values}))
    found = read_json_spec(path)
    assert "mean" not in found.given.get("input", {})
    assert any(line in reason and "left away" in reason for reason in found.reasons)


def test_thresholds_count_where_the_network_has_not_applied_them(tmp_path: Path) -> None:
    params = {"score_thr": 0.1, "nms": {"type": "nms", "iou_threshold": 0.6}, "max_per_img": 50}
    _write(tmp_path, deploy=_deploy(), pipeline=_pipeline(**params))
    assert find_sidecar(tmp_path / "detector.onnx").given["postprocess"] == {
        "score_threshold": 0.1,
        "iou_threshold": 0.6,
        "max_detections": 50,
    }
    _write(tmp_path, detail={"codebase_config": {"model_type": "end2end"}})
    assert "postprocess" not in find_sidecar(tmp_path / "detector.onnx").given


@pytest.mark.parametrize(
    ("processor", "table"),
    [
        (
            {"do_normalize": False, "size": {"height": 640, "width": 480}},
            {"color": "rgb", "mean": [0, 0, 0], "std": [255, 255, 255], "resize": "stretch"},
        ),
        (
            {
                "image_mean": [0.5, 0.4, 0.2],
                "image_std": [0.5, 0.2, 0.1],
                "size": {"shortest_edge": 800, "longest_edge": 1333},
            },
            {
                "color": "rgb",
                "mean": [127.5, 102, 51],
                "std": [127.5, 51, 25.5],
                "resize": "letterbox",
                "pad_position": "top_left",
                "pad_value": [128, 102, 51],
            },
        ),
        *(
            (
                {"do_normalize": False, "size": {"height": 9, "width": 9}, "resample": number},
                {"resize": "stretch", "interpolation": name},
            )
            for number, name in ((2, "area"), (3, "area"), (0, "nearest"))
        ),
        *(
            (
                {
                    "image_processor_type": kind,
                    "do_normalize": False,
                    "size": {"height": 9, "width": 9},
                    "resample": number,
                },
                {"resize": "stretch", "interpolation": name},
            )
            for kind, number, name in (
                ("PPDocLayoutV3ImageProcessor", 3, "bicubic"),  # they do not antialias
                ("RfDetrImageProcessor", 2, "bilinear"),
                ("RfDetrImageProcessor", 0, "nearest"),
                ("RTDetrImageProcessor", 3, "area"),
            )
        ),
        ({"image_mean": [0.5], "image_std": [0, 0, 0]}, {}),
        ({"do_rescale": False, "do_normalize": False}, {"std": [1, 1, 1]}),
    ],
)
def test_image_processors(processor: dict[str, Any], table: dict[str, Any], tmp_path: Path) -> None:
    _write(tmp_path, preprocessor_config=processor)
    found = read_json_spec(tmp_path / "preprocessor_config.json").given.get("input", {})
    for key, value in table.items():
        assert found[key] == (value if isinstance(value, str) else pytest.approx(value))
    assert bool(found) == bool(table)


def test_hugging_faces_files_belong_to_model_onnx(tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    folder.mkdir()
    (folder / "model.onnx").write_text("")
    (folder / "rival.onnx").write_text("")
    _write(tmp_path, config={"model_type": "detr", "id2label": {"1": "dog", "0": "cat"}})
    assert find_sidecar(folder / "model.onnx").given == {"labels": ["cat", "dog"]}
    assert find_sidecar(folder / "rival.onnx").files == ()
    _write(tmp_path, config={"id2label": {"0": "cat", "2": "dog"}})
    assert "labels" not in find_sidecar(folder / "model.onnx").given
    _write(tmp_path, config={"trainer": "ours"})  # of something else
    assert find_sidecar(folder / "model.onnx").files == ()


def test_a_model_is_read_with_its_files(tmp_path: Path) -> None:
    path = save(
        dense_network({"a": 27, "b": 36}, size=("height", "width")), tmp_path / "detector.onnx"
    )
    with pytest.raises(tvmdet.ShapeError, match="leaves the input's size open"):
        tvmdet.import_onnx(path)
    resize = {"type": "Resize", "keep_ratio": True, "size": [128, 128]}
    pipeline = _pipeline(resize, NORMALIZE, {"type": "Pad", "size_divisor": 32}, score_thr=0.2)
    _write(tmp_path, deploy=_deploy(), pipeline=pipeline)
    model = tvmdet.import_onnx(path, spec={"postprocess": {"iou_threshold": 0.7}})
    assert model.spec.family == "retinanet"
    assert model.spec.options["style"] == "mmdetection"
    assert model.spec.input.size_hw == (128, 128)
    assert model.spec.input.pad_value == (124, 116, 104)
    assert model.spec.postprocess.score_threshold == 0.2
    assert model.spec.postprocess.iou_threshold == 0.7
    text = "\n".join(model.recognition)
    assert "as MMDeploy's pipeline.json says (retinanet)" in text
    assert "from deploy.json, pipeline.json: input" in text
    assert "from deploy.json and pipeline.json and the spec: input, postprocess" in text


def test_what_a_file_says_of_the_input_replaces_the_familys_default(tmp_path: Path) -> None:
    path = save(onnx_models.yolov8(metadata={}), tmp_path / "model.onnx")
    plain = tvmdet.import_onnx(path).recognition
    assert any("family's default" in line for line in plain)
    processor = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor |= {"do_resize": True, "size": {"height": 64, "width": 96}}
    names = {"id2label": {"0": "x", "1": "y", "2": "z"}}
    _write(tmp_path, preprocessor_config={**processor, "image_processor_type": "X"}, config=names)
    for lines in (tvmdet.import_onnx(path).recognition, diagnose(path).recognition):
        assert not any("family's default" in line for line in lines), lines
        files = "preprocessor_config.json and config.json"
        assert f"labels from {files}" in lines
        (fed,) = (line for line in lines if line.startswith("input "))
        assert "mean 127.5 127.5 127.5, deviation 127.5 127.5 127.5, stretched" in fed
        assert fed.endswith(f"from {files}")
    lower = {"input": {"color": "bgr"}, "postprocess": {"iou_threshold": 0.3}}
    given = tvmdet.import_onnx(path, spec=lower).recognition
    assert [line for line in given if line.startswith("score ")] == [
        "score 0.25, IoU 0.3, from preprocessor_config.json and config.json and the spec"
    ]
    assert any(line.startswith("input BGR") and "and the spec" in line for line in given)


def test_json_is_accepted_as_a_spec(tmp_path: Path) -> None:
    path = save(onnx_models.yolov8(metadata={}), tmp_path / "detector.onnx")
    spec = tmp_path / "mine.json"
    spec.write_text('{"labels": ["a", "b", "c"], "postprocess": {"iou_threshold": 0.5}}')
    assert tvmdet.import_onnx(path, spec=spec).spec.labels == ("a", "b", "c")
    _write(tmp_path, names={"id2label": {"0": "x", "1": "y", "2": "z"}})
    assert tvmdet.import_onnx(path, spec=tmp_path / "names.json").spec.labels == ("x", "y", "z")


def test_errors_name_the_files(tmp_path: Path) -> None:
    path = save(onnx_models.yolov8(metadata={}), tmp_path / "model.onnx")
    _write(tmp_path, config={"id2label": {"0": "only one"}})
    assert find_sidecar(path).reasons == ("from config.json: 1 label (id2label)",)
    with pytest.raises(ModelError, match=r"read beside the model: config\.json.*move it away"):
        tvmdet.import_onnx(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("detector.toml", "labels = [", "detector.toml, the spec beside the model, is not TOML"),
        ("detector.toml", "label = 1", "detector.toml has an unknown key 'label'"),
        ("detector.toml", "labels = [1]", "give a list of class names"),
        ("deploy.json", "{", "deploy.json is not JSON"),
        ("deploy.json", "[]", "holds a list; allowed: a table"),
    ],
)
def test_malformed_files_are_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_given(tmp_path / "detector.onnx", None)


def test_json_that_is_no_spec_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, odd={"weights": 3})
    with pytest.raises(InputError, match="unknown key 'weights'"):
        read_given(tmp_path / "detector.onnx", tmp_path / "odd.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_given(tmp_path / "detector.onnx", tmp_path / "absent.json")


def test_doctor_reads_them_too(tmp_path: Path) -> None:
    path = save(
        dense_network({"a": 27, "b": 36}, size=("height", "width")), tmp_path / "detector.onnx"
    )
    resize = {"type": "Resize", "keep_ratio": True, "size": [128, 128]}
    _write(tmp_path, deploy=_deploy(), pipeline=_pipeline(resize, NORMALIZE))
    found = diagnose(path)
    assert found.family == "retinanet"
    assert found.size_hw == (128, 128)
    assert any("from deploy.json, pipeline.json: input" in line for line in found.recognition)
