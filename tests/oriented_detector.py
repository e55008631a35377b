"""A small detector of oriented boxes, as Ultralytics exports them: rows that end in an angle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pose_detector

import tvmdet

SIZE_HW = pose_detector.SIZE_HW
LABELS = ("plane", "ship")


def oriented_network(path: Path, *, chosen: int = 0, **metadata: str) -> Path:
    """Writes a network; with ``chosen`` it returns so many rows of detections, as YOLO26's do."""
    graph = onnx_models.Graph(seed=6)
    features = graph.node("Tanh", graph.conv("images", (3, 16), 8, strides=[8, 8]))
    sizes, levels = [4, len(LABELS), 1], []
    for _ in pose_detector.STRIDES:
        head = graph.conv(features, (16, sum(sizes)), 1)
        levels.append(graph.node("Reshape", head, graph.constant([0, sum(sizes), -1], np.int64)))
        features = graph.node(
            "Tanh", graph.conv(features, (16, 16), 3, strides=[2, 2], auto_pad="SAME_UPPER")
        )
    joined = graph.node("Concat", *levels, axis=2)
    parts = graph.node("Split", joined, graph.constant(sizes, np.int64), outputs=3, axis=1)
    sides = graph.constant(np.array([16, 16, 50, 20]).reshape(1, 4, 1))
    corners = np.pad(pose_detector.corners_of_cells(), ((0, 2), (0, 0)))[None]
    boxes = graph.node("Mul", graph.node("Sigmoid", parts), sides)
    boxes = graph.node("Add", boxes, graph.constant(corners))
    scores = graph.node("Sigmoid", f"{parts}.1")
    # As ultralytics/nn/modules/head.py, OBB.forward_head.
    shifted = graph.node("Sub", graph.node("Sigmoid", f"{parts}.2"), graph.constant([0.25]))
    angles = graph.node("Mul", shifted, graph.constant([math.pi]))
    output = graph.node("Concat", boxes, scores, angles, axis=1)
    if chosen:
        output = _chosen(graph, boxes, scores, angles, chosen)
    said = {"task": "obb", "names": str(dict(enumerate(LABELS))), **metadata}
    if chosen:
        said |= {"author": "Ultralytics", "end2end": "True"}
    said = {key: value for key, value in said.items() if value}
    model = graph.model({"images": [1, 3, *SIZE_HW]}, {output: None}, metadata=said)
    return onnx_models.save(model, path)


def _chosen(graph: onnx_models.Graph, boxes: str, scores: str, angles: str, count: int) -> str:
    """The best rows, ``cx cy w h score class angle``."""
    best = graph.node("ReduceMax", scores, axes=[1], keepdims=0)
    number = graph.node("Cast", graph.node("ArgMax", scores, axis=1, keepdims=1), to=1)
    top = graph.node("TopK", best, graph.constant([count], np.int64), outputs=2, axis=1)
    column = graph.node("Unsqueeze", best, graph.constant([1], np.int64))
    table = graph.node("Concat", boxes, column, number, angles, axis=1)
    rows = graph.node("Transpose", table, perm=[0, 2, 1])
    index = graph.node("Unsqueeze", f"{top}.1", graph.constant([2], np.int64))
    index = graph.node("Expand", index, graph.constant([1, 1, 7], np.int64))
    return graph.node("GatherElements", rows, index, axis=1)


def import_oriented(folder: Path, *, chosen: int = 0, **spec: Any) -> Any:
    """Imports the network, with further keys of a spec."""
    path = oriented_network(folder / f"oriented{chosen}.onnx", chosen=chosen)
    return tvmdet.import_onnx(path, spec=spec or None)
