"""Imports and diagnoses in a process of their own give what they give here."""

from __future__ import annotations

from pathlib import Path

import onnx_models
import pytest

from tvmdet import untrusted
from tvmdet.contain import Bounds
from tvmdet.errors import ModelError
from tvmdet.frontend import import_onnx


def test_model_is_the_same_as_in_this_process(tmp_path: Path) -> None:
    path = onnx_models.save(onnx_models.picodet(), tmp_path / "m.onnx")
    steps: list[str] = []
    there = untrusted.import_onnx(path, batch_sizes=(1, 2), tell=steps.append)
    here = import_onnx(path)
    for name in ("name", "sha256", "spec", "recognition", "input_names", "output_names"):
        assert getattr(there, name) == getattr(here, name)
    # Both sizes were made and proven over there.
    assert [proof.rewrite for proof in there.network.proofs][-1] == "batch 1 to batch 2"
    for batch_size in (1, 2):
        assert there.onnx_at(batch_size) == here.onnx_at(batch_size)
    assert there.onnx_at(3).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    assert any(step.startswith("TVM imports node ") for step in steps)


def test_errors_are_those_of_the_import(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        untrusted.import_onnx(tmp_path / "none.onnx")
    found = untrusted.diagnose(tmp_path / "none.onnx")
    assert (found.ok, found.nodes) == (False, ())
    assert "there is no file" in found.problems[0]


def test_what_kills_the_doctor_is_its_answer(tmp_path: Path) -> None:
    path = onnx_models.save(onnx_models.yolov8(), tmp_path / "m.onnx")
    (late,) = untrusted.diagnose(path, bounds=Bounds(timeout_s=0.2)).problems
    assert "took longer than 0.2 s and was stopped while" in late
