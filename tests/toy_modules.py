"""Small compiled modules with known answers, and artifacts made of them."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np

from tvmdet.artifact import write_artifact
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec

SIZE_HW = (32, 48)
ROWS = 4
# In network pixels; the first one reaches out of the network's input.
BOXES_XYXY = np.array(
    [[-8.0, -4.0, 24.0, 16.0], [12.0, 8.0, 36.0, 24.0], [20.5, 10.25, 47.0, 31.5]], np.float32
)
LABELS = ("blue", "green", "red")
MASK_SHAPE = (6, 9)
RAW = {
    "inputs": [
        {"name": "left", "shape": [1, 3, 5], "dtype": "float32"},
        {"name": "right", "shape": [1, 3, 5], "dtype": "float32"},
    ],
    "outputs": [
        {"name": "weighted", "shape": [1, 3, 5], "dtype": "float32"},
        {"name": "rowsum", "shape": [1, 3], "dtype": "float32"},
    ],
}


def reference_detect(
    image: np.ndarray, score: float, iou: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the toy detector answers for one network input.

    Box c scores the mean of channel c; the red one is dropped when ``iou`` is under a half.
    """
    scores = image.reshape(-1, 3).mean(axis=0).astype(np.float32) / np.float32(255)
    if iou < 0.5:
        scores[2] = 0
    order = [c for c in np.argsort(-scores, kind="stable") if scores[c] > score]
    return BOXES_XYXY[order], scores[order], np.array(order, np.int32)


def reference_masks(class_ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The small masks of the toy detector: a ramp that is steeper for each class, times the score.

    float32 ``[n, h, w]``; they depend on the picture, so that rows cannot be mixed up unseen.
    """
    height, width = MASK_SHAPE
    y, x = np.mgrid[:height, :width]
    ramps = (class_ids[:, None, None] + 1) * (1 - (y * width + x) / (height * width))
    return (ramps * scores[:, None, None]).astype(np.float32)


def compile_toy_detector(
    path: Path,
    *,
    batch_sizes: tuple[int, ...] = (1, 2),
    ballast_bytes: int = 0,
    masks: bool = False,
) -> bytes:
    """Compiles the toy detector.

    Args:
        path: Of the library.
        batch_sizes: One function each.
        ballast_bytes: Weights that make it as large as a real one.
        masks: Whether it returns :func:`reference_masks` too; rows not in use hold NaN.
    """
    from tvm import relax, te, topi

    builder = relax.BlockBuilder()

    def head(images: Any, thresholds: Any, boxes: Any) -> list[Any]:
        batch, height, width, _ = (int(side) for side in images.shape)
        total = topi.sum(topi.cast(images, "float32"), axis=(1, 2))
        mean = topi.divide(total, float(height * width * 255))
        score = te.compute(
            (batch, 3),
            lambda n, c: te.if_then_else(te.all(c == 2, thresholds[1] < 0.5), 0.0, mean[n, c]),
        )
        j = te.reduce_axis((0, 3))
        rank = te.compute(
            (batch, 3),
            lambda n, c: te.sum(
                te.if_then_else(
                    te.any(score[n, j] > score[n, c], te.all(score[n, j] == score[n, c], j < c)),
                    1,
                    0,
                ),
                axis=j,
            ),
        )

        def pick(shape: tuple[int, ...], value: Any, zero: Any) -> Any:
            c = te.reduce_axis((0, 3))
            return te.compute(
                shape,
                lambda n, k, *rest: te.sum(
                    te.if_then_else(
                        te.all(rank[n, c] == k, score[n, c] > thresholds[0]),
                        value(n, c, *rest),
                        zero,
                    ),
                    axis=c,
                ),
            )

        i = te.reduce_axis((0, 3))
        found = [
            pick((batch, ROWS, 4), lambda n, c, b: boxes[c, b], 0.0),
            pick((batch, ROWS), lambda n, c: score[n, c], 0.0),
            pick((batch, ROWS), lambda n, c: c, 0),
            te.compute(
                (batch,),
                lambda n: te.sum(te.if_then_else(score[n, i] > thresholds[0], 1, 0), axis=i),
            ),
        ]
        return [*found, ramps(*found[1:])] if masks else found

    def ramps(scores: Any, class_ids: Any, counts: Any) -> Any:
        rows, columns = MASK_SHAPE
        return te.compute(
            (*scores.shape, rows, columns),
            lambda n, k, y, x: te.if_then_else(
                k < counts[n],
                (class_ids[n, k] + 1).astype("float32")
                * (1.0 - (y * columns + x).astype("float32") / float(rows * columns))
                * scores[n, k],
                te.const(float("nan"), "float32"),
            ),
        )

    for batch in batch_sizes:
        images = relax.Var("images", relax.TensorType((batch, *SIZE_HW, 3), "uint8"))
        thresholds = relax.Var("thresholds", relax.TensorType((2,), "float32"))
        with builder.function(f"detect_b{batch}", [images, thresholds]):
            with builder.dataflow():
                limits: Any = thresholds
                if ballast_bytes:
                    weights = np.random.default_rng(0).random(ballast_bytes // 4, np.float32)
                    # Too small to change a sum, which the compiler cannot know.
                    limits = builder.emit_te(
                        lambda t, w: te.compute(t.shape, lambda i: t[i] + w[i] * 1e-30),
                        thresholds,
                        relax.const(weights),
                    )
                found = builder.emit_te(head, images, limits, relax.const(BOXES_XYXY))
                output = builder.emit_output(found)
            builder.emit_func_output(output)
    return _export(builder, path)


def compile_toy_network(path: Path) -> bytes:
    """Compiles ``weighted = 2 left + right`` and ``rowsum``, the sums of its rows."""
    from tvm import relax, topi

    builder = relax.BlockBuilder()
    for batch in (1, 2):
        inputs = [
            relax.Var(entry["name"], relax.TensorType((batch, 3, 5), "float32"))
            for entry in RAW["inputs"]
        ]
        with builder.function(f"run_b{batch}", inputs):
            with builder.dataflow():
                weighted = builder.emit_te(
                    lambda left, right: topi.add(topi.multiply(left, 2.0), right), *inputs
                )
                rowsum = builder.emit_te(topi.sum, weighted, 2)
                output = builder.emit_output(relax.Tuple([weighted, rowsum]))
            builder.emit_func_output(output)
    return _export(builder, path)


def compile_whole_network(path: Path) -> bytes:
    """Compiles ``scaled = factor table + row`` and ``total``, its sum; only the row is batched."""
    from tvm import relax, topi

    builder = relax.BlockBuilder()
    shapes = {"table": (7, 5), "factor": (), "row": (1, 5)}
    inputs = [relax.Var(name, relax.TensorType(s, "float32")) for name, s in shapes.items()]
    with builder.function("run_b1", inputs):
        with builder.dataflow():
            scaled = builder.emit_te(
                lambda table, factor, row: topi.add(topi.multiply(table, factor), row), *inputs
            )
            total = builder.emit_te(topi.sum, scaled)
            output = builder.emit_output(relax.Tuple([scaled, total]))
        builder.emit_func_output(output)
    return _export(builder, path)


def _export(builder: Any, path: Path) -> bytes:
    import tvm

    executable = tvm.compile(builder.get(), tvm.target.Target({"kind": "llvm"}))
    executable.export_library(str(path))
    return path.read_bytes()


def toy_spec(**changes: Any) -> DetectorSpec:
    """The toy detector's spec, with parts of it replaced."""
    spec = DetectorSpec(
        family="yolov8",
        labels=LABELS,
        input=InputSpec(size_hw=SIZE_HW),
        postprocess=PostprocessSpec(score_threshold=0.25, iou_threshold=0.6, max_detections=ROWS),
    )
    return spec.override(changes)


def toy_target(name: str = "toy", **changes: Any) -> dict[str, Any]:
    """A target of the manifest that this machine can run."""
    return {
        "name": name,
        "arch": platform.machine(),
        "rank": 10,
        "required_features": [],
        "library": f"lib/{name}.so",
        "planned_bytes": {"1": 1000, "2": 2000},
        "weights": [],
        "tuning": {"tuned": 0, "borrowed": 0, "default": 1, "records_sha256": ""},
        **changes,
    }


def toy_manifest(**changes: Any) -> dict[str, Any]:
    """A manifest as the compiler writes it, without ``members``."""
    return {
        "format": 3,
        "tvmdet": "0.1.0",
        "tvm": "0.27.0.post1",
        "model": {"name": "toy", "sha256": "00" * 32},
        "spec": toy_spec().to_dict(),
        "recognition": ["a toy"],
        "batch_sizes": [1, 2],
        "raw": None,
        "targets": [toy_target()],
        "parity": None,
        **changes,
    }


def write_toy(path: Path, library: bytes, **changes: Any) -> Path:
    """Writes an artifact whose every target holds ``library``; returns its path."""
    manifest = toy_manifest(**changes)
    members = {target["library"]: [library] for target in manifest["targets"]}
    write_artifact(path, manifest, members)
    return path
