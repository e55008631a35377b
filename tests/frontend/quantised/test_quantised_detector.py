"""A detector as ONNX Runtime quantises it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_models
from qdq_models import operators

from tvmdet.frontend import diagnose, import_onnx
from tvmdet.frontend.quantised import (
    FOLDED,
)

RNG = np.random.default_rng(7)


def _quantised_detector(folder: Path) -> Path:
    """A YOLOv8 as ONNX Runtime quantises it, its head left in float."""
    from onnxruntime import quantization

    path = onnx_models.save(onnx_models.yolov8(), folder / "float.onnx")
    (shape,) = (
        [dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in onnx.load(path).graph.input
    )

    class Pictures(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [RNG.random(shape).astype(np.float32) for _ in range(2)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return {"images": self.left.pop()} if self.left else None

    quantization.quantize_static(
        path, folder / "int8.onnx", Pictures(), op_types_to_quantize=["Conv"], per_channel=True
    )
    return folder / "int8.onnx"


def test_a_quantised_detector_is_recognised_and_says_what_it_lost(tmp_path: Path) -> None:
    path = _quantised_detector(tmp_path)
    assert "QuantizeLinear" in operators(onnx.load(path))
    model = import_onnx(path)
    assert model.spec.family == "yolov8"
    assert "QuantizeLinear" not in operators(model.onnx_at(1))
    (note,) = [line for line in model.recognition if line.startswith("the file is quantised")]
    moved = re.search(r"move by up to ([\d.e-]+) of the greatest", note)
    assert moved is not None
    assert 0 < float(moved[1]) < 0.2
    assert [proof.largest for proof in model.network.proofs if proof.rewrite == FOLDED] == [0.0]
    found = diagnose(path)
    assert found.ok
    assert found.notes == (note,)
    assert found.operators["QuantizeLinear"] > 0
