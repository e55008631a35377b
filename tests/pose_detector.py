"""A small detector of poses, as Ultralytics exports them: rows that end in keypoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_models

import tvmdet

SIZE_HW = (64, 96)
LABELS = ("a", "b")
POINTS = 5
STRIDES = (8, 16, 32)
NAMES = ("nose", "left ear", "right ear", "tail", "paw")


def pose_network(path: Path, numbers: int = 3, masks: int = 0, **metadata: str) -> Path:
    """Writes a network; ``numbers`` of each point are 2, or 3 with a score.

    With ``masks`` so many coefficients of prototypes stand before the points.
    """
    graph = onnx_models.Graph(seed=6)
    features = graph.node("Tanh", graph.conv("images", (3, 16), 8, strides=[8, 8]))
    levels = []
    sizes = [4, len(LABELS), *([masks] if masks else []), POINTS * numbers]
    finest = features
    for _ in STRIDES:
        head = graph.conv(features, (16, sum(sizes)), 1)
        levels.append(graph.node("Reshape", head, graph.constant([0, sum(sizes), -1], np.int64)))
        features = graph.node(
            "Tanh", graph.conv(features, (16, 16), 3, strides=[2, 2], auto_pad="SAME_UPPER")
        )
    joined = graph.node("Concat", *levels, axis=2)
    boxes = graph.node("Split", joined, graph.constant(sizes, np.int64), outputs=len(sizes), axis=1)
    corners = corners_of_cells()
    sides = graph.constant(np.array([16, 16, 50, 40]).reshape(1, 4, 1))
    scaled = graph.node("Mul", graph.node("Sigmoid", boxes), sides)
    scaled = graph.node("Add", scaled, graph.constant(np.pad(corners, ((0, 2), (0, 0)))[None]))
    scores = graph.node("Sigmoid", f"{boxes}.1")
    # As ultralytics/nn/modules/head.py, Pose.kpts_decode: points apart from their scores.
    shape = graph.constant([0, POINTS, numbers, -1], np.int64)
    points = graph.node("Reshape", f"{boxes}.{len(sizes) - 1}", shape)
    if numbers == 3:
        parts = graph.constant([2, 1], np.int64)
        points = graph.node("Split", points, parts, outputs=2, axis=2)
        seen = graph.node("Sigmoid", f"{points}.1")
    moved = graph.node("Mul", points, graph.constant([30.0]))
    moved = graph.node("Add", moved, graph.constant(corners[None, None]))
    whole = graph.node("Concat", moved, seen, axis=2) if numbers == 3 else moved
    flat = graph.node("Reshape", whole, graph.constant([0, POINTS * numbers, -1], np.int64))
    between = [f"{boxes}.2"] if masks else []
    output = graph.node("Concat", scaled, scores, *between, flat, axis=1)
    outputs = [output]
    if masks:
        wide = graph.node(
            "Resize", finest, "", graph.constant([1.0, 1.0, 2.0, 2.0]), mode="nearest"
        )
        outputs.append(graph.conv(wide, (16, masks), 3, pads=[1, 1, 1, 1]))
    said = {
        "task": "pose",
        "names": str(dict(enumerate(LABELS))),
        "kpt_shape": str([POINTS, numbers]),
        **metadata,
    }
    said = {key: value for key, value in said.items() if value}
    model = graph.model({"images": ["n", 3, *SIZE_HW]}, dict.fromkeys(outputs), metadata=said)
    return onnx_models.save(model, path)


def import_pose_network(folder: Path, numbers: int = 3, **spec: Any) -> Any:
    """Imports the network, with further keys of a spec."""
    path = pose_network(folder / f"pose{numbers}.onnx", numbers)
    return tvmdet.import_onnx(path, spec=spec or None)


def corners_of_cells() -> np.ndarray:
    """Where each cell of the levels starts, ``[2, A]`` as x, y."""
    found = []
    for stride in STRIDES:
        y, x = np.mgrid[: SIZE_HW[0] // stride, : SIZE_HW[1] // stride].reshape(2, -1) * stride
        found.append(np.stack([x, y]))
    return np.concatenate(found, axis=1)
