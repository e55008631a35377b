"""Networks with further inputs and other pictures: constants, layouts, element types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvmdet.errors import InputError, ModelError, ShapeError
from tvmdet.frontend import Model, import_onnx
from tvmdet.frontend.bind_inputs import bind_inputs, find_picture
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.prove import random_feeds, run_onnx
from tvmdet.frontend.widen_floats import is_half

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
Input = tuple[int, Sequence[int | str]]


def _model(
    inputs: Mapping[str, Input], nodes: Sequence[onnx.NodeProto], output: str = "y"
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, t, list(s)) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info(output, FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def _echo(inputs: Mapping[str, Input]) -> onnx.ModelProto:
    """Returns the picture times the sum of every other input's values."""
    picture, *others = inputs
    nodes, factor = [], None
    for name in others:
        nodes.append(helper.make_node("Cast", [name], [f"{name}_f"], to=FLOAT))
        nodes.append(helper.make_node("ReduceSum", [f"{name}_f"], [f"{name}_s"], keepdims=0))
        factor = f"{name}_s" if factor is None else factor
    nodes.append(helper.make_node("Cast", [picture], ["p"], to=FLOAT))
    last = "p"
    for name in others:
        nodes.append(helper.make_node("Mul", [last, f"{name}_s"], [f"{last}_"]))
        last = f"{last}_"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    return _model(inputs, nodes)


def _load(model: onnx.ModelProto, folder: Path) -> Any:
    return load_onnx(onnx_models.save(model, folder / "m.onnx"))


def _bind(model: onnx.ModelProto, folder: Path, given: Mapping[str, Any] | None = None) -> Any:
    return bind_inputs(_load(model, folder), (4, 6), given or {})


def _factor(bound: Any, batch: int = 1) -> float:
    """Runs an echo on ones; returns the factor."""
    picture = np.ones((batch, 3, 4, 6), np.float32)
    (name,) = [value.name for value in bound.loaded.proto.graph.input]
    (outputs,) = run_onnx(bound.loaded.proto, [{name: picture}])
    assert outputs["y"].size == picture.size
    assert np.ptp(outputs["y"]) == 0
    return float(outputs["y"].reshape(-1)[0])


PICTURE: Input = (FLOAT, ["n", 3, "h", "w"])


def test_one_picture_stays_as_it_is(tmp_path: Path) -> None:
    loaded = _load(_echo({"images": PICTURE}), tmp_path)
    bound = bind_inputs(loaded, (4, 6), {})
    assert bound.loaded is loaded
    assert (bound.constants, bound.reasons) == ({}, ())


@pytest.mark.parametrize(
    ("name", "value", "constant", "factor"),
    [
        ("pixel_mask", (INT64, ["n", "h", "w"]), 1, 24),
        ("pixel_mask", (TensorProto.BOOL, [1, 4, 6]), 1, 24),
        ("orig_target_sizes", (INT64, ["n", 2]), [6, 4], 10),
        ("orig_target_sizes", (FLOAT, [1, 2]), [6, 4], 10),
        ("im_shape", (FLOAT, ["n", 2]), [4, 6], 10),
        ("scale_factor", (FLOAT, ["n", 2]), 1, 2),
        ("im_info", (FLOAT, ["n", 3]), [4, 6, 1], 11),
        ("image_info", (FLOAT, [3]), [4, 6, 1], 11),
        ("image_shape:0", (FLOAT, [1, 2]), [4, 6], 10),
        ("iou_threshold", (FLOAT, [1]), 0.45, 0.45),
        ("score_threshold", (FLOAT, []), 0.01, 0.01),
        ("max_output_boxes_per_class", (INT64, [1]), 300, 300),
    ],
)
def test_known_inputs_become_constants(
    name: str, value: Input, constant: Any, factor: float, tmp_path: Path
) -> None:
    bound = _bind(_echo({"images": PICTURE, name: value}), tmp_path)
    assert bound.constants == {name: constant}
    assert _factor(bound) == pytest.approx(factor)
    (line,) = bound.reasons
    assert line.startswith(f"input {name} [")
    assert f"is the constant {constant}: " in line


def test_every_image_of_a_batch_has_its_row(tmp_path: Path) -> None:
    inputs = {"images": PICTURE, "orig_target_sizes": (INT64, ["n", 2])}
    bound = _bind(_echo(inputs), tmp_path)
    assert _factor(bound, batch=3) == 30


def test_width_comes_before_height_in_orig_target_sizes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["orig_target_sizes"], ["y"], to=FLOAT),
        helper.make_node("Relu", ["images"], ["unused"]),
    ]
    model = _model({"images": PICTURE, "orig_target_sizes": (INT64, ["n", 2])}, nodes)
    bound = _bind(model, tmp_path)
    picture = np.zeros((2, 3, 4, 6), np.float32)
    (outputs,) = run_onnx(bound.loaded.proto, [{"images": picture}])
    assert outputs["y"].tolist() == [[6, 4], [6, 4]]


@pytest.mark.parametrize(
    ("constants", "factor"),
    [
        ({"gain": 2}, 4),
        ({"gain": [2, 3]}, 5),
        ({"gain": [[2, 4]]}, 6),
        ({"gain": 2, "pixel_mask": 0.5}, 4 * 12),
    ],
)
def test_the_spec_says_what_an_input_is(
    constants: Mapping[str, Any], factor: float, tmp_path: Path
) -> None:
    inputs: dict[str, Input] = {"images": PICTURE, "gain": (FLOAT, ["n", 2])}
    if "pixel_mask" in constants:
        inputs["pixel_mask"] = (FLOAT, ["n", "h", "w"])
    bound = _bind(_echo(inputs), tmp_path, {"input": {"constants": constants}})
    assert _factor(bound) == pytest.approx(factor)
    assert bound.constants == constants
    assert all("from the spec" in line for line in bound.reasons)


def test_an_unknown_input_is_asked_for(tmp_path: Path) -> None:
    inputs: dict[str, Input] = {
        "images": PICTURE,
        "pixel_mask": (INT64, ["n", "h", "w"]),
        "my gain": (FLOAT, ["n", 2]),
    }
    with pytest.raises(ModelError, match="has 3 inputs") as caught:
        _bind(_echo(inputs), tmp_path)
    text = str(caught.value)
    assert '[input.constants]\n  "my gain" = 1    # [?, 2] float32' in text
    assert "pixel_mask = " not in text


def test_a_text_is_not_asked_for(tmp_path: Path) -> None:
    # OWL-ViT: a number for its tokens would find something else than what the user has in mind.
    inputs: dict[str, Input] = {
        "input_ids": (INT64, ["t", "s"]),
        "pixel_values": PICTURE,
        "attention_mask": (INT64, ["t", "s"]),
    }
    with pytest.raises(ModelError, match=r"takes text .*\(input_ids, attention_mask\)") as caught:
        _bind(_echo(inputs), tmp_path)
    assert "[input.constants]" not in str(caught.value)
    assert "what the tokenizer makes of your text" in str(caught.value)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"gane": 1}, "names 'gane'; the network's inputs: images, gain"),
        ({"gain": [1, 2, 3]}, r"constants.gain is \[1, 2, 3\]; the input is \[\?, 2\] float32"),
        ({"gain": "x"}, "give one number"),
        ({"gain": [[[1, 2]]]}, "give one number"),
        (3, "give a table of a number or a list"),
    ],
)
def test_refuses_constants_that_do_not_fit(constants: Any, message: str, tmp_path: Path) -> None:
    inputs: dict[str, Input] = {"images": PICTURE, "gain": (FLOAT, ["n", 2])}
    with pytest.raises(InputError, match=message):
        _bind(_echo(inputs), tmp_path, {"input": {"constants": constants}})


@pytest.mark.parametrize(
    ("shape", "layout", "size_hw"),
    [
        ([1, 3, 4, 6], "NCHW", (4, 6)),
        ([1, 4, 6, 3], "NHWC", (4, 6)),
        (["n", "h", "w", 3], "NHWC", (None, None)),
        (["n", "c", "h", "w"], "NCHW", (None, None)),
        ([3, 4, 6], "CHW", (4, 6)),
        (["c", "h", "w"], "CHW", (None, None)),
        ([4, 6, 3], "HWC", (4, 6)),
        ([3, 4, 3], "CHW", (4, 3)),
    ],
)
def test_finds_the_picture(
    shape: Sequence[int | str], layout: str, size_hw: Any, tmp_path: Path
) -> None:
    image = find_picture(_load(_echo({"x": (FLOAT, shape)}), tmp_path), {})
    assert (image.name, image.layout, image.size_hw) == ("x", layout, size_hw)


def test_open_channels_that_the_network_turns_are_last(tmp_path: Path) -> None:
    turned = helper.make_node("Transpose", ["x"], ["y"], perm=[0, 3, 1, 2])
    image = find_picture(
        _load(_model({"x": (FLOAT, ["n", "h", "w", "c"])}, [turned]), tmp_path), {}
    )
    assert image.layout == "NHWC"


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"x": (FLOAT, [1, 1, 4, 6])}, ShapeError, r"a detector's is \[N, 3, height, width\]"),
        ({"x": (FLOAT, [10])}, ShapeError, r"a detector's is \[N, 3, height, width\]"),
        ({"x": (INT64, [1, 3, 4, 6])}, ShapeError, "one of float32, float16, uint8"),
        ({"x": PICTURE, "y_": PICTURE}, ModelError, "has 2 inputs .*2 of them can take a picture"),
        ({"x": (FLOAT, [3, 4, 6]), "z": (FLOAT, [3, 4, 6])}, ModelError, "has 2 inputs"),
        ({"x": (FLOAT, [4, 6]), "z": (FLOAT, [2])}, ModelError, "none of the network's 2 inputs"),
    ],
)
def test_refuses_what_is_no_picture(
    inputs: Mapping[str, Input], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        find_picture(_load(_echo(inputs), tmp_path), {})


@pytest.mark.parametrize("shape", [[1, 4, 6, 3], ["n", "h", "w", 3], [3, 4, 6], [4, 6, 3]])
def test_every_layout_sees_the_same_picture(shape: Sequence[int | str], tmp_path: Path) -> None:
    model = _model({"x": (FLOAT, shape)}, [helper.make_node("Relu", ["x"], ["y"])])
    bound = _bind(model, tmp_path)
    picture = np.random.default_rng(0).random((1, 3, 4, 6)).astype(np.float32)
    (outputs,) = run_onnx(bound.loaded.proto, [{"x": picture}])
    want = picture if shape[0] == 3 else picture.transpose(0, 2, 3, 1)
    want = want if len(shape) == 4 else want[0]
    np.testing.assert_array_equal(outputs["y"], want)
    assert bound.reasons[0].startswith("input x [")


def _detector(first: Sequence[onnx.NodeProto], value: Input) -> onnx.ModelProto:
    """The YOLOv8-style detector of the tests behind another kind of picture."""
    model = onnx_models.yolov8(batch="n")
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "images":
                node.input[index] = "planes"
    later = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*first, *later])
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("images", value[0], value[1]))
    return model


def _bytes() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["images"], ["wide"], to=FLOAT),
        helper.make_node("Transpose", ["wide"], ["moved"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "Constant", [], ["scale"], value=helper.make_tensor("v", FLOAT, [], [1 / 255])
        ),
        helper.make_node("Mul", ["moved", "scale"], ["planes"]),
    ]
    return _detector(nodes, (UINT8, ["n", 64, 96, 3]))


def _single() -> onnx.ModelProto:
    axes = helper.make_tensor("v", INT64, [1], [0])
    nodes = [
        helper.make_node("Constant", [], ["axes"], value=axes),
        helper.make_node("Unsqueeze", ["images", "axes"], ["planes"]),
    ]
    return _detector(nodes, (FLOAT, [3, 64, 96]))


def _import(model: onnx.ModelProto, folder: Path, **arguments: Any) -> Model:
    return import_onnx(onnx_models.save(model, folder / "m.onnx"), **arguments)


def test_a_network_of_bytes_normalises_by_itself(tmp_path: Path) -> None:
    model = _import(_bytes(), tmp_path)
    assert (model.spec.input.mean, model.spec.input.std) == ((0, 0, 0), (1, 1, 1))
    assert "the input takes bytes: the network normalises by itself" in model.recognition
    # As the text that asks how pictures are fed has it: bytes by 255 would be 0 and 1.
    told = {"std": [255.0, 255.0, 255.0], "pad_position": "top_left"}
    other = _import(_bytes(), tmp_path, spec={"input": told})
    assert (other.spec.input.std, other.spec.input.pad_position) == ((1, 1, 1), "top_left")
    line = "mean and std from the spec are not used: bytes are fed as they are"
    assert line in other.recognition
    (image,) = model.onnx_at(2).graph.input
    assert [dim.dim_value for dim in image.type.tensor_type.shape.dim] == [2, 3, 64, 96]


def test_a_picture_without_a_batch_works_at_batch_1_only(tmp_path: Path) -> None:
    model = _import(_single(), tmp_path)
    assert model.spec.input.size_hw == (64, 96)
    with pytest.raises(ShapeError, match="batch 2: its picture has no batch dimension"):
        model.onnx_at(2)


def test_half_precision_is_computed_in_single(tmp_path: Path) -> None:
    wide = onnx_models.yolov8(batch="n")
    half = onnx_models.yolov8(batch="n")
    for tensor in half.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    model = _import(half, tmp_path)
    assert model.spec.family == "yolov8"
    assert "weights in half precision, computed in single precision" in model.recognition
    static = model.onnx_at(1)
    assert not is_half(static)
    feeds = random_feeds(static)
    assert feeds["images"].dtype == np.float32
    (want,) = run_onnx(wide, [feeds])
    (got,) = run_onnx(static, [feeds])
    (name,) = want
    np.testing.assert_allclose(got[name], want[name], rtol=1e-2, atol=2e-2)


def test_constants_are_kept_in_the_spec(tmp_path: Path) -> None:
    proto = onnx_models.yolov8(batch="n")
    proto.graph.input.append(helper.make_tensor_value_info("gain", FLOAT, [1]))
    last = proto.graph.output[0].name
    proto.graph.node.append(helper.make_node("Mul", [last, "gain"], ["scaled"], name="scale"))
    proto.graph.output[0].name = "scaled"
    told = {"family": "yolov8", "input": {"constants": {"gain": 1.0}}}
    model = _import(proto, tmp_path, spec=told)
    assert model.spec.input.constants == {"gain": 1.0}
    assert model.input_names == ("images",)
    again = _import(proto, tmp_path, spec=model.spec)
    assert again.spec.to_dict() == model.spec.to_dict()


@pytest.mark.parametrize("make", [_bytes, pytest.param(_single, marks=pytest.mark.slow)])
def test_compiles_with_parity(make: Any, tmp_path: Path) -> None:
    import tvmdet

    model = tvmdet.import_onnx(onnx_models.save(make(), tmp_path / "m.onnx"))
    report = tvmdet.compile(model, output=tmp_path / "m.tvmdet")
    (certificate,) = report.parity.values()
    assert certificate["boxes"] > 0
