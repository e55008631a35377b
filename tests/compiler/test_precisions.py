"""A precision of each target, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_models
import pytest

import tvmdet
from tvmdet.artifact import Artifact
from tvmdet.compiler import compile as compiler_compile
from tvmdet.compiler.precisions import precisions_of
from tvmdet.errors import InputError

NAMES = ("x86-64-v3", "x86-64-v4", "sm_90")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("fp32", ("fp32",) * 3),
        ("fp16", ("fp16",) * 3),
        ({}, ("fp32",) * 3),
        ({"sm_90": "fp16"}, ("fp32", "fp32", "fp16")),
        ({"sm_90": "tf32", "x86-64-v4": "bf16"}, ("fp32", "bf16", "tf32")),
    ],
)
def test_each_target_has_one(given: Any, found: tuple[str, ...]) -> None:
    assert precisions_of(given, NAMES) == found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (16, r"precision is 16 \(int\); give fp32, bf16, fp16 or tf32, or a mapping"),
        ({"sm_90": 16}, r"precision of sm_90 is 16 \(int\); give fp32"),
        ({"sm_9": "fp16"}, "a precision is given for 'sm_9', .* did you mean sm_90"),
        ({"zen4": "bf16"}, "'zen4', which is not compiled for; the targets are x86-64-v3, "),
    ],
)
def test_what_is_none_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        precisions_of(given, NAMES)


def test_one_file_has_targets_of_several_precisions(tmp_path: Path) -> None:
    path = onnx_models.save(onnx_models.yolov8(metadata={}), tmp_path / "x.onnx")
    report = compiler_compile(
        tvmdet.import_onnx(path),
        target=("x86-64-v3", "x86-64-v4"),
        precision={"x86-64-v4": "bf16"},
        output=tmp_path / "x.tvmdet",
        logs=tmp_path / "logs",
    )
    assert report.precisions == {"x86-64-v3": "fp32", "x86-64-v4": "bf16"}
    entries = {entry.name: entry for entry in Artifact.open(report.output).targets}
    assert {name: entry.precision for name, entry in entries.items()} == report.precisions
    assert "avx512bf16" in "".join(entries["x86-64-v4"].required_features).replace("_", "")
    allowed = {name: one.get("tolerance", {}).get("iou") for name, one in report.parity.items()}
    assert allowed["x86-64-v3"] in (0.99, None)  # None where this machine cannot run it
    assert allowed["x86-64-v4"] in (0.8, None)


def test_a_target_in_two_precisions_is_refused(tmp_path: Path) -> None:
    path = onnx_models.save(onnx_models.yolov8(metadata={}), tmp_path / "x.onnx")
    host = tvmdet.targets.get_target("host")
    other = "bf16" if "bf16" in host.precisions else "fp32"
    if other == "fp32":
        pytest.skip("this machine computes in one precision only")
    with pytest.raises(InputError, match=f"target {host.name} is named twice, in two precisions"):
        compiler_compile(
            tvmdet.import_onnx(path),
            target=("host", host.name),
            precision={host.name: other},
            output=tmp_path / "x.tvmdet",
        )
