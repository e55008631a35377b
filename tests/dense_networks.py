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


def face_network(
    numbers: Mapping[str, int], *, per_cell: int = 1, scores: tuple[str, ...], images: bool = True
) -> onnx.ModelProto:
    """Rows of each kind at strides 8, 16 and 32, all levels of a kind in a row, named ``kind_8``.

    Args:
        numbers: Numbers of a prediction by kind.
        per_cell: Predictions at a cell.
        scores: Kinds that end in a Sigmoid.
        images: Whether rows are ``[N, A, C]``, as the OpenCV zoo's YuNet has them, or ``[A, C]``,
            as insightface's SCRFD.
    """
    graph = Graph(seed=5)
    features = graph.conv("images", (3, 16), 8, strides=[8, 8])
    # YuNet is fed pixels of 0 to 255: without it scores saturate.
    features, parts = graph.node("Mul", features, graph.constant(1 / 64)), []
    for stride in (8, 16, 32):
        features = graph.node("Relu", features)
        for kind, count in numbers.items():
            head = graph.conv(features, (16, count * per_cell), 1)
            moved = graph.node("Transpose", head, perm=[0, 2, 3, 1])
            target = graph.constant([0, -1, count] if images else [-1, count], np.int64)
            rows = graph.node("Reshape", moved, target)
            parts.append((f"{kind}_{stride}", "Sigmoid" if kind in scores else "Identity", rows))
        features = graph.conv(features, (16, 16), 3, strides=[2, 2], pads=[1, 1, 1, 1])
    graph.nodes.pop()
    for name, operator, rows in parts:
        graph.nodes.append(helper.make_node(operator, [rows], [name], name=f"as_{name}"))
    ordered = sorted(
        (name for name, _, _ in parts), key=lambda n: list(numbers).index(n[: n.rindex("_")])
    )
    return graph.model({"images": [1, 3, *SIZE_HW]}, dict.fromkeys(ordered), metadata={})


def blaze_face() -> onnx.ModelProto:
    """Logits, boxes and landmarks of 16x16 cells with 2 predictions and 8x8 with 6, joined."""
    graph = Graph(seed=6)
    features = graph.conv("images", (3, 16), 8, strides=[8, 8])
    joined: dict[int, list[str]] = {16: [], 1: []}
    for per_cell in (2, 6):
        features = graph.node("Relu", features)
        for numbers, parts in joined.items():
            head = graph.conv(features, (16, numbers * per_cell), 1)
            moved = graph.node("Transpose", head, perm=[0, 2, 3, 1])
            target = graph.constant([0, -1, numbers], np.int64)
            parts.append(graph.node("Reshape", moved, target))
        features = graph.conv(features, (16, 16), 3, strides=[2, 2], pads=[1, 1, 1, 1])
    graph.nodes.pop()
    outputs = {graph.node("Concat", *parts, axis=1): None for parts in joined.values()}
    return graph.model({"images": [1, 3, 128, 128]}, outputs, metadata={})


def _rows(graph: Graph, value: str, numbers: int) -> str:
    """Joins a map's channels into rows as torchvision's heads do, through five dimensions."""
    split = graph.node("Unsqueeze", value, graph.constant([1], np.int64))
    split = graph.node("Transpose", split, perm=[0, 3, 4, 1, 2])
    return graph.node("Reshape", split, graph.constant([0, -1, numbers], np.int64))
