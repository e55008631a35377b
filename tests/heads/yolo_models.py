"""Small YOLO networks with seeded weights, one function per form of their outputs.

All take 64x96 pixels, score 3 classes and have levels of strides 8, 16 and 32. Networks of one
family have the same weights, so that what differs is where the export was cut.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper
from onnx_models import Graph

CLASSES = 3
SIZE = (64, 96)
STRIDES = (8, 16, 32)
ANCHORS = (
    (10, 13, 16, 30, 33, 23),
    (30, 61, 62, 45, 59, 119),
    (116, 90, 156, 198, 373, 326),
)
_METADATA = {"names": "{0: 'a', 1: 'b', 2: 'c'}"}


def _cells(stride: int) -> tuple[int, int]:
    return SIZE[0] // stride, SIZE[1] // stride


def _corners(stride: int) -> np.ndarray:
    """The corners of a level's cells, ``[H, W, 2]`` in cells."""
    height, width = _cells(stride)
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)


def _features(graph: Graph, *, relu: bool = False, largest: float = 1.0) -> list[str]:
    """Three levels of 16 channels for pixels from 0 to ``largest``."""
    found, data = [], graph.conv("images", (3, 16), 8, strides=[8, 8])
    weight = graph.weights[-2]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) / largest, weight.name))
    for level in range(3):
        if level:
            data = graph.conv(data, (16, 16), 3, strides=[2, 2], pads=[1, 1, 1, 1])
        gate = "Relu" if relu else "Sigmoid"
        gated = graph.node(gate, data)
        data = gated if relu else graph.node("Mul", data, gated)
        found.append(data)
    return found


def _reshape(graph: Graph, data: str, *shape: int) -> str:
    return graph.node("Reshape", data, graph.constant(shape, np.int64))


def _split(graph: Graph, data: str, sizes: list[int], axis: int) -> list[str]:
    first = graph.node(
        "Split", data, graph.constant(sizes, np.int64), outputs=len(sizes), axis=axis
    )
    return [first] + [f"{first}.{at}" for at in range(1, len(sizes))]


def _model(
    graph: Graph, outputs: list[str], metadata: dict[str, str] | None = None
) -> onnx.ModelProto:
    return graph.model(
        {"images": [1, 3, *SIZE]},
        dict.fromkeys(outputs),
        metadata=_METADATA if metadata is None else metadata,
    )


def anchor_maps(
    *,
    apart: bool = False,
    decoded: bool = False,
    scaled: bool = False,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """YOLOv5: raw maps, with anchors ``apart``, and the ``decoded`` output first.

    Args:
        apart: Maps are [N, 3, H, W, 5 + C], else [N, 3 * (5 + C), H, W].
        decoded: The decoded output is there, too.
        scaled: Its boxes are shares of the image.
        metadata: Metadata of the file, when not the class names.
    """
    graph, values = Graph(seed=3), 5 + CLASSES
    maps, rows = [], []
    for feature, stride, anchors in zip(_features(graph), STRIDES, ANCHORS, strict=True):
        height, width = _cells(stride)
        raw = graph.conv(feature, (16, 3 * values), 1)
        split = graph.node(
            "Transpose", _reshape(graph, raw, 0, 3, values, height, width), perm=[0, 1, 3, 4, 2]
        )
        maps.append(split if apart else raw)
        if not decoded:
            continue
        xy, wh, rest = _split(graph, graph.node("Sigmoid", split), [2, 2, values - 4], 4)
        doubled = graph.node("Mul", xy, graph.constant(2.0))
        placed = graph.node("Add", doubled, graph.constant(_corners(stride)[None, None] - 0.5))
        center = graph.node("Mul", placed, graph.constant(float(stride)))
        square = graph.node("Pow", graph.node("Mul", wh, graph.constant(2.0)), graph.constant(2.0))
        sizes = graph.constant(np.reshape(anchors, (1, 3, 1, 1, 2)))
        boxes = [center, graph.node("Mul", square, sizes)]
        if scaled:
            share = graph.constant([1 / SIZE[1], 1 / SIZE[0]])
            boxes = [graph.node("Mul", part, share) for part in boxes]
        joined = graph.node("Concat", *boxes, rest, axis=4)
        rows.append(_reshape(graph, joined, 0, -1, values))
    if not decoded:
        return _model(graph, maps, metadata)
    return _model(graph, [graph.node("Concat", *rows, axis=1), *(maps if apart else [])], metadata)


def yolov5_masks() -> onnx.ModelProto:
    """YOLOv5-seg: rows end in 4 coefficients, 4 prototypes at stride 8."""
    graph, values = Graph(seed=4), 5 + CLASSES + 4
    features, rows = _features(graph), []
    for feature, stride in zip(features, STRIDES, strict=True):
        height, width = _cells(stride)
        raw = graph.conv(feature, (16, 3 * values), 1)
        raw = _reshape(graph, raw, 0, 3, values, height, width)
        raw = graph.node("Transpose", raw, perm=[0, 1, 3, 4, 2])
        xy, wh, rest, mask = _split(graph, raw, [2, 2, 1 + CLASSES, 4], 4)
        center = graph.node("Add", graph.node("Sigmoid", xy), graph.constant(_corners(stride)))
        center = graph.node("Mul", center, graph.constant(float(stride)))
        extent = graph.node("Mul", graph.node("Sigmoid", wh), graph.constant(4.0 * stride))
        joined = graph.node("Concat", center, extent, graph.node("Sigmoid", rest), mask, axis=4)
        rows.append(_reshape(graph, joined, 0, -1, values))
    prototypes = graph.conv(features[0], (16, 4), 1)
    return _model(graph, [graph.node("Concat", *rows, axis=1), prototypes])


def yolov4() -> onnx.ModelProto:
    """pytorch-YOLOv4: boxes [N, A, 1, 4] in shares of the image, confidences [N, A, C]."""
    graph, values = Graph(seed=5), 5 + CLASSES
    boxes, scores = [], []
    for feature, stride, anchors in zip(_features(graph), STRIDES, ANCHORS, strict=True):
        height, width = _cells(stride)
        raw = graph.conv(feature, (16, 3 * values), 1)
        raw = _reshape(graph, raw, 0, 3, values, height, width)
        raw = graph.node("Transpose", raw, perm=[0, 1, 3, 4, 2])
        xy, wh, seen, kind = _split(graph, raw, [2, 2, 1, CLASSES], 4)
        share = graph.constant([1 / width, 1 / height])
        placed = graph.node("Add", graph.node("Sigmoid", xy), graph.constant(_corners(stride)))
        center = graph.node("Mul", placed, share)
        sizes = graph.constant(np.reshape(anchors, (1, 3, 1, 1, 2)) / np.array(SIZE[::-1]) / 2)
        half = graph.node("Mul", graph.node("Exp", wh), sizes)
        corners = [graph.node("Sub", center, half), graph.node("Add", center, half)]
        boxes.append(_reshape(graph, graph.node("Concat", *corners, axis=4), 0, -1, 1, 4))
        score = graph.node("Mul", graph.node("Sigmoid", kind), graph.node("Sigmoid", seen))
        scores.append(_reshape(graph, score, 0, -1, CLASSES))
    return _model(
        graph, [graph.node("Concat", *boxes, axis=1), graph.node("Concat", *scores, axis=1)]
    )


def darknet_maps() -> onnx.ModelProto:
    """The raw maps that :func:`yolov4` decodes."""
    graph = Graph(seed=5)
    raw = []
    for feature, stride, anchors in zip(_features(graph), STRIDES, ANCHORS, strict=True):
        del stride, anchors
        raw.append(graph.conv(feature, (16, 3 * (5 + CLASSES)), 1))
    return _model(graph, raw)


def yolox(*, decoded: bool = False, relu: bool = False) -> onnx.ModelProto:
    """YOLOX: [N, A, 5 + C], boxes as offsets or decoded."""
    graph, values = Graph(seed=6), 5 + CLASSES
    levels, corners, strides = [], [], []
    for feature, stride in zip(_features(graph, relu=relu, largest=255), STRIDES, strict=True):
        box = graph.conv(feature, (16, 4), 1)
        seen = graph.node("Sigmoid", graph.conv(feature, (16, 1), 1))
        kind = graph.node("Sigmoid", graph.conv(feature, (16, CLASSES), 1))
        levels.append(_reshape(graph, graph.node("Concat", box, seen, kind, axis=1), 0, values, -1))
        corners.append(_corners(stride).reshape(1, -1, 2))
        strides.append(np.full((1, corners[-1].shape[1], 1), stride))
    rows = graph.node("Transpose", graph.node("Concat", *levels, axis=2), perm=[0, 2, 1])
    if decoded:
        step = graph.constant(np.concatenate(strides, axis=1))
        xy, wh, rest = _split(graph, rows, [2, 2, 1 + CLASSES], 2)
        placed = graph.node("Add", xy, graph.constant(np.concatenate(corners, axis=1)))
        extent = graph.node("Mul", graph.node("Exp", wh), step)
        rows = graph.node("Concat", graph.node("Mul", placed, step), extent, rest, axis=2)
    return _model(graph, [rows])


def yolov6(*, objectness: float = 1.0) -> onnx.ModelProto:
    """YOLOv6: distances from cell centres, decoded, and a constant in place of an objectness."""
    graph = Graph(seed=7)
    boxes, scores, centers, strides = [], [], [], []
    for feature, stride in zip(_features(graph, relu=True), STRIDES, strict=True):
        boxes.append(_reshape(graph, graph.conv(feature, (16, 4), 1), 0, 4, -1))
        score = graph.node("Sigmoid", graph.conv(feature, (16, CLASSES), 1))
        scores.append(_reshape(graph, score, 0, CLASSES, -1))
        centers.append(_corners(stride).reshape(1, -1, 2) + 0.5)
        strides.append(np.full((1, centers[-1].shape[1], 1), stride))
    center = graph.constant(np.concatenate(centers, axis=1))
    joined = graph.node("Transpose", graph.node("Concat", *boxes, axis=2), perm=[0, 2, 1])
    near, far = _split(graph, joined, [2, 2], 2)
    low, high = graph.node("Sub", center, near), graph.node("Add", center, far)
    middle = graph.node("Div", graph.node("Add", low, high), graph.constant(2.0))
    box = graph.node("Concat", middle, graph.node("Sub", high, low), axis=2)
    box = graph.node("Mul", box, graph.constant(np.concatenate(strides, axis=1)))
    seen = graph.constant(np.full((1, centers[0].shape[1] * 21 // 16, 1), objectness))
    kind = graph.node("Transpose", graph.node("Concat", *scores, axis=2), perm=[0, 2, 1])
    return _model(graph, [graph.node("Concat", box, seen, kind, axis=2)])


def yolov8(
    form: str = "rows",
    *,
    masks: int = 0,
    corners: str = "",
    last: bool = False,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """YOLOv8: ``rows`` [N, 4 + C (+ P), A], ``joined`` or ``split`` raw maps, or ``rknn``'s.

    ``corners`` writes x1 y1 x2 y2 instead: ``of cells`` the distances subtracted and added, ``of
    centres`` half of the size from and to the centre. With ``last`` rows are [N, A, 4 + C].
    """
    graph = Graph(seed=8)
    features = _features(graph)
    sides = [graph.conv(feature, (16, 64), 1) for feature in features]
    kinds = [graph.conv(feature, (16, CLASSES), 1) for feature in features]
    if form == "joined":
        pairs = zip(sides, kinds, strict=True)
        return _model(graph, [graph.node("Concat", *pair, axis=1) for pair in pairs], metadata)
    if form == "split":
        return _model(graph, [*sides, *kinds], metadata)
    scores = [graph.node("Sigmoid", kind) for kind in kinds]
    if form == "rknn":
        axes = graph.constant([1], np.int64)
        sums = [graph.node("ReduceSum", score, axes, keepdims=1) for score in scores]
        bounds = (graph.constant(0.0), graph.constant(1.0))
        sums = [graph.node("Clip", total, *bounds) for total in sums]
        triples = zip(sides, scores, sums, strict=True)
        return _model(graph, [name for triple in triples for name in triple], metadata)
    flat = [_reshape(graph, side, 0, 4, 16, -1) for side in sides]
    weights = graph.node("Softmax", graph.node("Concat", *flat, axis=3), axis=2)
    ramp = graph.constant(np.arange(16).reshape(1, 1, 16, 1))
    axes = graph.constant([2], np.int64)
    distance = graph.node("ReduceSum", graph.node("Mul", weights, ramp), axes, keepdims=0)
    centers = np.concatenate([_corners(stride).reshape(-1, 2) + 0.5 for stride in STRIDES]).T
    near, far = _split(graph, distance, [2, 2], 1)
    low = graph.node("Sub", graph.constant(centers[None]), near)
    high = graph.node("Add", graph.constant(centers[None]), far)
    middle = graph.node("Div", graph.node("Add", low, high), graph.constant(2.0))
    size = graph.node("Sub", high, low)
    box = graph.node("Concat", *((low, high) if corners == "of cells" else (middle, size)), axis=1)
    if corners == "of centres":
        half = graph.node("Div", size, graph.constant(2.0))
        ends = graph.node("Sub", middle, half), graph.node("Add", middle, half)
        box = graph.node("Concat", *ends, axis=1)
    steps = np.concatenate([np.full(_cells(s)[0] * _cells(s)[1], s) for s in STRIDES])
    parts = [graph.node("Mul", box, graph.constant(steps[None, None]))]
    parts.append(
        graph.node("Concat", *(_reshape(graph, s, 0, CLASSES, -1) for s in scores), axis=2)
    )
    outputs = []
    if masks:
        mixed = [graph.conv(feature, (16, masks), 1) for feature in features]
        parts.append(
            graph.node("Concat", *(_reshape(graph, m, 0, masks, -1) for m in mixed), axis=2)
        )
        outputs.append(graph.conv(features[0], (16, masks), 1))
    rows = graph.node("Concat", *parts, axis=1)
    if last:
        rows = graph.node("Transpose", rows, perm=[0, 2, 1])
    return _model(graph, [rows, *outputs], metadata)
