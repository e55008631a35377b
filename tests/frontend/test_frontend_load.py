"""Files that are refused, and why."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from onnx import helper, numpy_helper

from tvmdet.errors import InputError, ModelError, UnsupportedOperatorError
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.load import load_onnx


def _bytes() -> bytes:
    return bytes(onnx_models.yolov8().SerializeToString())


def _opset(version: int) -> bytes:
    model = onnx_models.yolov8()
    model.opset_import[0].version = version
    return bytes(model.SerializeToString())


def _no_opset() -> bytes:
    model = onnx_models.yolov8()
    del model.opset_import[:]
    return bytes(model.SerializeToString())


def _wrong_bytes() -> bytes:
    model = onnx_models.yolov8()
    model.graph.initializer[0].raw_data = b"1234"
    return bytes(model.SerializeToString())


def _huge_dims() -> bytes:
    model = onnx_models.yolov8()
    model.graph.initializer[0].dims[0] = 2**60
    return bytes(model.SerializeToString())


def _damaged_text() -> bytes:
    return _bytes().replace(b"Sigmoid", b"Sig\xff\xfeid")


def _dangling() -> bytes:
    model = onnx_models.yolov8()
    model.graph.node[0].input[0] = "nowhere"
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "is empty"),
        (lambda: b"hello, this is text, not a model", "is not an ONNX model"),
        (lambda: np.random.default_rng(0).bytes(5000), "is not an ONNX model"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\noid 1", "git lfs pull"),
        (lambda: onnx.ModelProto(ir_version=8).SerializeToString(), "no graph"),
        (lambda: _bytes()[: len(_bytes()) // 2], "is cut short"),
        (lambda: _bytes()[:-3], "cut short|opset"),
        (lambda: _opset(6), "opset 6; allowed: 7 to"),
        (lambda: _opset(999), "opset 999; allowed: 7 to"),
        (_no_opset, "states no version of the default ONNX operator set"),
        (_wrong_bytes, "holds 4 bytes and needs"),
        (_huge_dims, "the file is damaged"),
        (_damaged_text, "not UTF-8 text"),
        (_dangling, r"breaks the ONNX standard: node .* reads .*, and no node computes it"),
    ],
)
def test_refuses_bad_files(content: Callable[[], bytes], message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content())
    with pytest.raises(ModelError, match=message) as caught:
        load_onnx(path)
    assert "Traceback" not in str(caught.value)


def test_every_truncation_is_refused_or_a_whole_model(tmp_path: Path) -> None:
    data = _bytes()
    path = tmp_path / "cut.onnx"
    refused = 0
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError):
            load_onnx(path)
        refused += 1
    assert refused > 50


def test_refuses_folder_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        load_onnx(tmp_path)
    with pytest.raises(ModelError, match="there is no file"):
        load_onnx(tmp_path / "none.onnx")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="not a regular file"):
        load_onnx(tmp_path / "pipe")


def test_limits_are_kept(tmp_path: Path) -> None:
    path = onnx_models.save(onnx_models.yolov8(), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"Limits\.max_file_bytes"):
        load_onnx(path, Limits(max_file_bytes=1000))
    with pytest.raises(ModelError, match=r"Limits\.max_nodes"):
        load_onnx(path, Limits(max_nodes=3))
    with pytest.raises(InputError, match="allowed: 1 or more"):
        Limits(max_nodes=0)
    with pytest.raises(InputError, match="above max_opset"):
        Limits(min_opset=20, max_opset=17)


def test_custom_operators_are_all_named(tmp_path: Path) -> None:
    model = onnx_models.yolov8()
    model.graph.node[0].op_type, model.graph.node[0].domain = "Magic", "com.example"
    model.graph.node[2].op_type = "NoSuchOp"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    path = onnx_models.save(model, tmp_path / "custom.onnx")
    with pytest.raises(UnsupportedOperatorError, match="2 nodes cannot be imported") as caught:
        load_onnx(path)
    message = str(caught.value)
    assert "node 'conv_0' (com.example.Magic): an operator of the custom domain" in message
    assert "(NoSuchOp): no operator of standard ONNX" in message


def test_unused_domain_is_fine(tmp_path: Path) -> None:
    model = onnx_models.yolov8()
    model.opset_import.append(helper.make_opsetid("Paddle", 1))
    loaded = load_onnx(onnx_models.save(model, tmp_path / "m.onnx"))
    assert loaded.opset == onnx_models.OPSET
    assert loaded.name == "m"


def test_outputs_whose_shape_nobody_knows_are_fine(tmp_path: Path) -> None:
    graph = onnx_models.Graph()
    infos = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("step", onnx.TensorProto.INT64, []),
            ("go", onnx.TensorProto.BOOL, []),
            ("state", onnx.TensorProto.FLOAT, [None] * 4),
            ("go_on", onnx.TensorProto.BOOL, []),
            ("grown", onnx.TensorProto.FLOAT, [None] * 4),
        )
    ]
    nodes = [
        helper.make_node("Identity", ["go"], ["go_on"]),
        helper.make_node("Concat", ["state", "state"], ["grown"], axis=1),
    ]
    body = helper.make_graph(nodes, "body", infos[:3], infos[3:])
    count, go = graph.constant(3, np.int64), graph.constant(True, np.bool_)
    output = graph.node("Loop", count, go, "x", body=body)
    model = graph.model({"x": [1, 3, 8, 8]}, {output: None})
    assert load_onnx(onnx_models.save(model, tmp_path / "m.onnx")).opset == onnx_models.OPSET


def _with_functions(levels: int, calls: int, *, circular: bool = False) -> onnx.ModelProto:
    """A model whose functions call the next one several times."""
    opsets = [helper.make_opsetid("", onnx_models.OPSET), helper.make_opsetid("local", 1)]
    functions = []
    for level in range(levels):
        last = level == levels - 1
        callee, domain = (f"f{level + 1}", "local") if not last else ("Relu", "")
        if last and circular:
            callee, domain = "f0", "local"
        names = ["x", *(f"t{at}" for at in range(calls - 1)), "y"]
        nodes = [
            helper.make_node(callee, [names[at]], [names[at + 1]], domain=domain)
            for at in range(calls)
        ]
        functions.append(helper.make_function("local", f"f{level}", ["x"], ["y"], nodes, opsets))
    graph = helper.make_graph(
        [helper.make_node("f0", ["in"], ["out"], domain="local")],
        "test",
        [helper.make_tensor_value_info("in", onnx.TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1, 4])],
    )
    model = helper.make_model(graph, functions=functions, opset_imports=opsets)
    model.ir_version = 10
    return model


def test_functions_are_written_out(tmp_path: Path) -> None:
    path = onnx_models.save(_with_functions(3, 2), tmp_path / "f.onnx")
    loaded = load_onnx(path, Limits(max_nodes=8))
    assert [node.op_type for node in loaded.proto.graph.node] == ["Relu"] * 8
    with pytest.raises(ModelError, match="has 8 nodes with its functions written out; allowed: 7"):
        load_onnx(path, Limits(max_nodes=7))


@pytest.mark.parametrize(
    ("levels", "calls", "message"),
    [(30, 2, "has 1073741824 nodes"), (2000, 2, r"has more than 10\^602 nodes")],
)
def test_exponential_functions_are_refused_before_they_grow(
    levels: int, calls: int, message: str, tmp_path: Path
) -> None:
    path = onnx_models.save(_with_functions(levels, calls), tmp_path / "bomb.onnx")
    with pytest.raises(ModelError, match=message):
        load_onnx(path)


def test_functions_that_call_themselves_are_refused(tmp_path: Path) -> None:
    path = onnx_models.save(_with_functions(3, 2, circular=True), tmp_path / "f.onnx")
    with pytest.raises(ModelError, match="calls itself"):
        load_onnx(path)


def _small(node: onnx.NodeProto, **arrays: np.ndarray) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    values[0].CopyFrom(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 8, 8]))
    graph = helper.make_graph([node], "g", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _regions(samples: int) -> onnx.ModelProto:
    node = helper.make_node("RoiAlign", ["x", "b", "i"], ["y"], sampling_ratio=samples)
    return _small(node, b=np.zeros((1, 4), np.float32), i=np.zeros(1, np.int64))


def _tiled(*repeats: int) -> onnx.ModelProto:
    node = helper.make_node("Tile", ["a", "r"], ["y"])
    return _small(node, a=np.zeros((2, 2), np.float32), r=np.array(repeats, np.int64))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_regions(2**40), "sampling_ratio 1099511627776; allowed: up to 1024"),
        (_tiled(100_000, 3, 64, 64), "repeats other dimensions than its input has"),
    ],
)
def test_what_native_code_would_not_come_back_from_is_refused(
    model: onnx.ModelProto, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        load_onnx(onnx_models.save(model, tmp_path / "m.onnx"))


@pytest.mark.parametrize("model", [_regions(2), _tiled(2, 3)])
def test_what_is_like_it_and_right_is_read(model: onnx.ModelProto, tmp_path: Path) -> None:
    assert load_onnx(onnx_models.save(model, tmp_path / "m.onnx")).ir_version == 8


def test_the_version_of_the_format_is_that_of_the_file(tmp_path: Path) -> None:
    model = _tiled(2, 3)
    for name, kind, shape in (("a", onnx.TensorProto.FLOAT, [2, 2]), ("r", 7, [2])):
        model.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
    model.ir_version = 3
    loaded = load_onnx(onnx_models.save(model, tmp_path / "m.onnx"))
    assert (loaded.ir_version, loaded.proto.ir_version) == (3, 4)
