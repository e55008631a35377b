"""The doctor down to machine code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest

from tvmdet.compiler.checkup import examine
from tvmdet.errors import InputError


def test_doctor_compares_and_saves(tmp_path: Path) -> None:
    path = onnx_models.save(onnx_models.yolov8(), tmp_path / "m.onnx")
    saved = tmp_path / "static.onnx"
    found = examine(path, compare=True, save_onnx=saved)
    assert found.ok, found.problems
    assert found.family == "yolov8"
    assert found.compared is not None
    assert 0 < max(found.compared.values()) < 1e-4
    assert found.saved == str(saved)
    onnx.checker.check_model(onnx.load(saved), full_check=True)
    rewritten = [node for node in found.nodes if node.difference is not None]
    assert all(node.difference is not None and node.difference < 1e-5 for node in rewritten)
    assert found.to_dict()["proofs"][0]["inputs"][1].startswith("smooth shapes")


def test_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    path = onnx_models.save(onnx_models.yolov8(), tmp_path / "m.onnx")
    with pytest.raises(InputError, match="give --save-onnx a file in a folder that exists"):
        examine(path, save_onnx=tmp_path / "none" / "s.onnx")


def test_raw_networks_are_examined_without_a_head(tmp_path: Path) -> None:
    graph = onnx_models.Graph()
    output = graph.node("MatMul", "x", graph.constant(np.ones((4, 2))))
    path = onnx_models.save(graph.model({"x": [1, 5, 4]}, {output: None}), tmp_path / "m.onnx")
    assert not examine(path).ok
    found = examine(path, raw=True)
    assert (found.ok, found.family) == (True, "raw")
