"""What the tests of the YOLO heads share: running, comparing and importing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_models import run_relax, save
from tvm import relax

import tvmdet
from tvmdet.frontend.summary import summarise
from tvmdet.heads import ColumnRun, Decoded, GraphSummary, TensorSummary, get_head
from tvmdet.spec import DetectorSpec

SIZE = (64, 96)
SCORES = ColumnRun(start=0, stop=0, operators=frozenset({"Sigmoid"}), low=0.0, high=1.0)
PIXELS = ColumnRun(start=0, stop=0, operators=frozenset({"Conv", "Mul", "Add"}))
RAW = ColumnRun(start=0, stop=0, operators=frozenset({"Conv"}))


def columns(*parts: tuple[int, ColumnRun]) -> tuple[ColumnRun, ...]:
    """Runs of so many columns, one after the other."""
    found, start = [], 0
    for count, run in parts:
        found.append(
            ColumnRun(
                start=start,
                stop=start + count,
                operators=run.operators,
                low=run.low,
                high=run.high,
            )
        )
        start += count
    return tuple(found)


def summary(
    outputs: Mapping[str, tuple[int, ...]],
    runs: Mapping[tuple[str, int], tuple[ColumnRun, ...]] | None = None,
    *,
    operators: Mapping[str, int] | None = None,
    **metadata: str,
) -> GraphSummary:
    """A network that takes 64x96 pixels."""
    return GraphSummary(
        inputs={"images": TensorSummary(shape=(1, 3, *SIZE), dtype="float32")},
        outputs={n: TensorSummary(shape=s, dtype="float32") for n, s in outputs.items()},
        columns=runs or {},
        operators=operators or {},
        metadata=metadata,
    )


def decode(spec: DetectorSpec, outputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Runs a head's Relax decoding; then masks, as coefficients and prototypes, and keypoints."""
    builder = relax.BlockBuilder()
    params = [
        relax.Var(f"x{at}", relax.TensorType(value.shape, "float32"))
        for at, value in enumerate(outputs.values())
    ]
    with builder.function("main", params=params):
        with builder.dataflow():
            named = dict(zip(outputs, params, strict=True))
            found = get_head(spec.family).decode(builder, named, spec)
            parts = [found.boxes, found.scores]
            if found.masks is not None:
                parts += [found.masks.values, found.masks.prototypes]
            if found.keypoints is not None:
                parts.append(found.keypoints)
            if found.angles is not None:
                parts.append(found.angles)
            result = builder.emit_output(relax.Tuple(parts))
        builder.emit_func_output(result)
    module = builder.get()
    assert "call_tir" not in module.script()
    return run_relax(module, *outputs.values())


def assert_decodes(spec: DetectorSpec, outputs: Mapping[str, np.ndarray]) -> Decoded:
    """Holds a decoding against the reference; returns the reference."""
    want = get_head(spec.family).decode_reference(outputs, spec)
    got = decode(spec, outputs)
    assert want.boxes.shape == (*want.scores.shape[:2], 4)
    assert want.scores.shape[2] == len(spec.labels)
    np.testing.assert_allclose(got[0], want.boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(got[1], want.scores, rtol=1e-4, atol=1e-6)
    if want.masks is not None:
        np.testing.assert_array_equal(got[2], want.masks.values)
        np.testing.assert_array_equal(got[3], want.masks.prototypes)
    assert (want.keypoints is not None) == (spec.keypoints is not None)
    if want.keypoints is not None:
        np.testing.assert_array_equal(got[-1], want.keypoints)
    assert (want.angles is not None) == spec.oriented
    if want.angles is not None:
        np.testing.assert_array_equal(got[-1], want.angles)
    return want


def random_outputs(found: GraphSummary, batch: int = 1, spread: float = 2.0) -> dict[str, Any]:
    """Random outputs of a network."""
    rng = np.random.default_rng(batch)
    return {
        name: rng.normal(0, spread, (batch, *value.shape[1:])).astype(np.float32)
        for name, value in found.outputs.items()
    }


def run_onnx(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Runs a network on one picture of noise."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    images = np.random.default_rng(0).random((1, 3, *SIZE), dtype=np.float32)
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def sorted_rows(found: Decoded) -> np.ndarray:
    """Boxes and scores of the first picture, in an order that no layout decides."""
    rows = np.concatenate([found.boxes[0], found.scores[0]], axis=1)
    return rows[np.lexsort(rows.T.round(3))]


def summary_of(model: onnx.ModelProto) -> GraphSummary:
    """What heads see of a network whose shapes are static."""
    return summarise(onnx.shape_inference.infer_shapes(model))


def import_model(model: onnx.ModelProto, folder: Path, spec: Any = None) -> tvmdet.Model:
    """Imports a network through a file."""
    return tvmdet.import_onnx(save(model, folder / "network.onnx"), spec=spec)


def compile_and_detect(model: onnx.ModelProto, folder: Path, spec: Any = None) -> tvmdet.Detections:
    """Compiles a network, with the parity check of every build, and finds things in noise."""
    imported = import_model(model, folder, spec)
    output = folder / "network.tvmdet"
    tvmdet.compile(imported, target="host", batch_sizes=(1,), output=output)
    picture = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    with tvmdet.load(output) as detector:
        (found,) = detector.detect([picture], score=0.05)
    assert len(found) > 0
    return found


slow = pytest.mark.slow
