"""Two small detectors with masks: masks mixed from prototypes, and masks in their boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_models

import tvmdet

SIZE_HW = (64, 96)
LABELS = ("a", "b")
FRAMES = ("box", "image")
_PROTOTYPES = 6
_SHARPNESS = 8.0  # so that masks have an edge, as those of trained networks


def mask_network(frame: str, path: Path) -> Path:
    """Writes a network whose masks span their boxes, or the image."""
    model = _detections() if frame == "box" else _yolov8_seg()
    return onnx_models.save(model, path)


def import_mask_network(frame: str, folder: Path, **spec: Any) -> Any:
    """Imports the network, with further keys of a spec."""
    path = mask_network(frame, folder / f"{frame}.onnx")
    return tvmdet.import_onnx(path, spec={**known(frame), **spec} or None)


def known(frame: str) -> dict[str, Any]:
    """What the file does not say."""
    if frame == "image":
        return {}
    return {
        "family": "detections",
        "labels": LABELS,
        "input": {"mean": [0, 0, 0], "std": [255, 255, 255]},
        "options": {
            "box_frame": "pixels",
            "columns": ["x1", "y1", "x2", "y2"],
            "label_offset": 0,
        },
        "masks": {"frame": "box"},
    }


def _yolov8_seg() -> Any:
    """Rows of boxes, scores and coefficients at strides 8, 16 and 32, and prototypes."""
    graph = onnx_models.Graph(seed=4)
    features = graph.node("Tanh", graph.conv("images", (3, 16), 8, strides=[8, 8]))
    finest, levels = features, []
    rows = 4 + len(LABELS) + _PROTOTYPES
    for _ in range(3):
        head = graph.conv(features, (16, rows), 1)
        target = graph.constant([0, rows, -1], np.int64)
        levels.append(graph.node("Reshape", head, target))
        features = graph.node(
            "Tanh", graph.conv(features, (16, 16), 3, strides=[2, 2], auto_pad="SAME_UPPER")
        )
    joined = graph.node("Concat", *levels, axis=2)
    sizes = graph.constant([4, len(LABELS), _PROTOTYPES], np.int64)
    boxes = graph.node("Split", joined, sizes, outputs=3, axis=1)
    sides = graph.constant(np.array([16, 16, 50, 40]).reshape(1, 4, 1))
    scaled = graph.node("Mul", graph.node("Sigmoid", boxes), sides)
    scaled = graph.node("Add", scaled, graph.constant(_corners_of_cells()))
    scores = graph.node("Sigmoid", f"{boxes}.1")
    coefficients = graph.node("Mul", f"{boxes}.2", graph.constant([_SHARPNESS]))
    output = graph.node("Concat", scaled, scores, coefficients, axis=1)
    wide = graph.node("Resize", finest, "", graph.constant([1.0, 1.0, 2.0, 2.0]), mode="nearest")
    prototypes = graph.conv(wide, (16, _PROTOTYPES), 3, pads=[1, 1, 1, 1])
    metadata = {"names": str(dict(enumerate(LABELS))), "task": "segment"}
    shapes = dict.fromkeys((output, prototypes))
    return graph.model({"images": ["n", 3, *SIZE_HW]}, shapes, metadata=metadata)


def _corners_of_cells() -> np.ndarray:
    """Where each cell of the three levels starts, as the first two of four box rows."""
    found = []
    for stride in (8, 16, 32):
        y, x = np.mgrid[: SIZE_HW[0] // stride, : SIZE_HW[1] // stride].reshape(2, -1) * stride
        found.append(np.stack([x, y, 0 * x, 0 * y]))
    return np.concatenate(found, axis=1)[None]


def _detections() -> Any:
    """One box, score, class number and mask of 7x7 for each cell of a map."""
    graph = onnx_models.Graph(seed=4)
    features = graph.node("Tanh", graph.conv("images", (3, 16), 8, strides=[8, 8]))
    features = graph.node("Relu", graph.conv(features, (16, 16), 3, pads=[1, 1, 1, 1]))
    count = 8 * 12

    def rows(channels: int) -> str:
        target = graph.constant([0, channels, count], np.int64)
        flat = graph.node("Reshape", graph.conv(features, (16, channels), 1), target)
        return graph.node("Transpose", flat, perm=[0, 2, 1])

    y, x = np.mgrid[:8, :12].reshape(2, 1, count, 1) * 8.0 + 4
    center = graph.node("Add", graph.constant(np.concatenate([x, y], axis=-1)), rows(2))
    half = graph.node("Mul", graph.node("Sigmoid", rows(2)), graph.constant([30.0]))
    corners = (graph.node(operator, center, half) for operator in ("Sub", "Add"))
    scores = graph.node("Sigmoid", rows(len(LABELS)))
    logits = graph.node("Mul", rows(49), graph.constant([_SHARPNESS]))
    shape = graph.constant([0, count, 7, 7], np.int64)
    outputs = {
        "boxes": graph.node("Concat", *corners, axis=2),
        "scores": graph.node("ReduceMax", scores, axes=[2], keepdims=0),
        "labels": graph.node("ArgMax", scores, axis=2, keepdims=0),
        "masks": graph.node("Reshape", graph.node("Sigmoid", logits), shape),
    }
    for name, value in outputs.items():
        graph.node("Identity", value)
        graph.nodes[-1].output[0] = name
    model = graph.model({"images": ["n", 3, *SIZE_HW]}, dict.fromkeys(outputs))
    for value in model.graph.output:
        if value.name == "labels":
            value.type.tensor_type.elem_type = 7  # int64
    return model
