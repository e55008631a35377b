"""Small ONNX networks with the heads of one-stage detectors, weights seeded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper
from onnx_models import Graph

SIZE_HW = (64, 96)


def dense_network(
    channels: Mapping[str, int],
    *,
    levels: int = 5,
    numbers: Mapping[str, int] | None = None,
    activated: tuple[str, ...] = (),
    size: tuple[int | str, int | str] = SIZE_HW,
    first_stride: int = 8,
) -> onnx.ModelProto:
    """A backbone of strides 8, 16, ... and one convolution for each kind of output and level.

    Args:
        channels: Channels of each kind, boxes at a cell times numbers of each.
        levels: How many levels.
        numbers: Numbers of a prediction by kind, for outputs joined as ``[N, boxes, numbers]``,
            which are then called as the kind; None for maps ``kind0``, ``kind1``, ...
        activated: Kinds that end in a Sigmoid.
        size: Height and width; names where open.
        first_stride: Stride of the finest level.
    """
    graph = Graph(seed=3)
    kernel = first_stride
    features = graph.conv("images", (3, 16), kernel, strides=[kernel, kernel])
    parts: dict[str, list[str]] = {kind: [] for kind in channels}
    for _ in range(levels):
        features = graph.node("Relu", features)
        for kind, count in channels.items():
            head = graph.conv(features, (16, count), 1)
            parts[kind].append(graph.node("Sigmoid", head) if kind in activated else head)
        features = graph.conv(features, (16, 16), 3, strides=[2, 2], pads=[1, 1, 1, 1])
    graph.nodes.pop()  # the last down-sampling leads nowhere
    outputs: dict[str, None] = {}
    for kind, maps in parts.items():
        if numbers is not None:
            rows = [_rows(graph, value, numbers[kind]) for value in maps]
            named = [(graph.node("Concat", *rows, axis=1), kind)]
        else:
            named = [(value, f"{kind}{level}") for level, value in enumerate(maps)]
        for value, name in named:
            graph.nodes.append(helper.make_node("Identity", [value], [name], name=f"as_{name}"))
            outputs[name] = None
    return graph.model({"images": [1, 3, *size]}, outputs, metadata={})


def nanodet_plus(classes: int = 3) -> onnx.ModelProto:
    """One output: class scores and distributions of four levels, as NanoDet-Plus exports them."""
    graph = Graph(seed=4)
    features = graph.conv("images", (3, 16), 8, strides=[8, 8])
    levels = []
    for _ in range(4):
        features = graph.node("Relu", features)
        head = graph.conv(features, (16, classes + 32), 1)
        sizes = graph.constant([classes, 32], np.int64)
        scores = graph.node("Split", head, sizes, outputs=2, axis=1)
        both = graph.node("Concat", graph.node("Sigmoid", scores), f"{scores}.1", axis=1)
        target = graph.constant([0, classes + 32, -1], np.int64)
        levels.append(graph.node("Reshape", both, target))
        features = graph.conv(features, (16, 16), 3, strides=[2, 2], pads=[1, 1, 1, 1])
    graph.nodes.pop()
    joined = graph.node("Concat", *levels, axis=2)
    output = graph.node("Transpose", joined, perm=[0, 2, 1])
    return graph.model({"images": [1, 3, *SIZE_HW]}, {output: None}, metadata={})


def _rows(graph: Graph, value: str, numbers: int) -> str:
    """Joins a map's channels into rows as torchvision's heads do, through five dimensions."""
    split = graph.node("Unsqueeze", value, graph.constant([1], np.int64))
    split = graph.node("Transpose", split, perm=[0, 3, 4, 1, 2])
    return graph.node("Reshape", split, graph.constant([0, -1, numbers], np.int64))
