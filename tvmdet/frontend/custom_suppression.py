"""Suppression nodes of TensorRT and MMDeploy, rewritten in standard ONNX.

ONNX Runtime does not run these nodes, so their rewriting cannot be proven on the export; the
tests hold it against a reading of the documented semantics in numpy. Sources: TensorRT's plugin
documentation (``plugin/efficientNMSPlugin/README.md``, ``plugin/batchedNMSPlugin/README.md``),
MMDeploy's ``csrc/mmdeploy/backend_ops/tensorrt/batched_nms``.

All of them score every class of every box, keep per class what no better box of the class
overlaps by more than the IoU threshold, and return the best K over all classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tvmdet.errors import UnsupportedOperatorError
from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.onnx_tools import constants_of, describe, drop_domains
from tvmdet.frontend.replacement import Replacement

__all__ = ["CUSTOM_SUPPRESSIONS", "replace_custom_suppressions"]

_MOST_ROWS = 100_000
_LOWEST = float(np.finfo(np.float32).min)
_CORNERS_OF_CENTERED = [[1, 0, 1, 0], [0, 1, 0, 1], [-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]]


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What the nodes have in common.

    Attributes:
        rows: K.
        iou_threshold: Above it a box is suppressed.
        score_threshold: Only scores above it take part.
        candidates: Most boxes per class that take part, the best ones; None for all.
        background: A class that is never found, or -1.
        sigmoid: Whether scores are logits.
        class_agnostic: Whether a box suppresses those of other classes too.
        centered: Whether boxes go in as centre and size; they come out as corners in any case.
        clip: Whether boxes are cut to 0..1.
    """

    rows: int
    iou_threshold: float
    score_threshold: float
    candidates: int | None = None
    background: int = -1
    sigmoid: bool = False
    class_agnostic: bool = False
    centered: bool = False
    clip: bool = False


def replace_custom_suppressions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy with the nodes of :data:`CUSTOM_SUPPRESSIONS` in standard ONNX.

    A model without such nodes comes back as it is.

    Raises:
        UnsupportedOperatorError: Such a node has settings that cannot be expressed.
    """
    if not any(node.op_type in CUSTOM_SUPPRESSIONS for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    types = _Types(model.graph, opset)
    for node in model.graph.node:
        replace = CUSTOM_SUPPRESSIONS.get(node.op_type)
        if replace is None:
            copy.graph.node.append(node)
            continue
        if len(node.input) < 2:
            raise _refused(node, "it has not both boxes and scores")
        builder = _Builder(node, opset)
        replace(builder, node, types)
        copy.graph.node.extend(builder.nodes)
    drop_domains(copy)
    return copy


class _Builder(Replacement):
    """Nodes that take the place of a suppression."""

    def __init__(self, node: onnx.NodeProto, opset: int) -> None:
        super().__init__(node)
        self.opset = opset

    def choice(self, operator: str, one: str, other: str) -> str:
        """Returns the Min or Max of whole numbers, which opset 11 has as floats only.

        Numbers of boxes and classes are floats without rounding.
        """
        if self.opset >= 12:
            return self.node(operator, one, other)
        floats = [self.node("Cast", value, to=TensorProto.FLOAT) for value in (one, other)]
        return self.node("Cast", self.node(operator, *floats), to=TensorProto.INT64)

    def reshape(self, value: str, *shape: int) -> str:
        return self.node("Reshape", value, self.constant(list(shape)))


class _Types:
    """Element types of the values of a graph, as far as it says them."""

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self._graph = graph
        self._opset = opset
        values = (*graph.input, *graph.value_info, *graph.output)
        self._known: dict[str, int] = {
            value.name: value.type.tensor_type.elem_type for value in values
        }
        self._known.update((name, one.data_type) for name, one in constants_of(graph).items())
        casts = [node for node in graph.node if node.op_type == "Cast"]
        self._known.update((node.output[0], attribute(node, "to", 0)) for node in casts)

    def of(self, name: str) -> int:
        """Returns the type of a value, or that of what nodes take together with it, or 0."""
        alike, known = [name], {name}
        for value in alike:
            if kind := self._known.get(value):
                return kind
            new = {other for node in self._graph.node for other in self._alike(node, value)}
            alike += sorted(new - known)
            known |= new
        return 0

    def _alike(self, node: onnx.NodeProto, value: str) -> set[str]:
        """Returns the inputs and outputs of a node that have to be of the type of one of them."""
        is_near = value in node.input or value in node.output
        if not is_near or not onnx.defs.has(node.op_type, self._opset, node.domain):
            return set()
        schema = onnx.defs.get_schema(node.op_type, self._opset, node.domain)
        kinds = [
            (name, formal[min(at, len(formal) - 1)])
            for formal, given in ((schema.inputs, node.input), (schema.outputs, node.output))
            for at, name in enumerate(given)
            if name
        ]
        own = {kind.type_str for name, kind in kinds if name == value and kind.is_homogeneous}
        return {name for name, kind in kinds if kind.type_str in own}


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Rows found: boxes ``[K, 4]``, scores, classes and box numbers ``[K]``, count ``[1]``."""

    boxes: str
    scores: str
    classes: str
    numbers: str
    count: str


def _suppress(builder: _Builder, boxes: str, scores: str, settings: _Settings) -> _Found:
    """Emits the suppression of boxes ``[1, B, 4]`` or ``[1, B, 1, 4]``, scores ``[1, B, C]``."""
    boxes = builder.reshape(boxes, 1, -1, 4)
    if settings.sigmoid:
        scores = builder.node("Sigmoid", scores)
    table = builder.node("Transpose", scores, perm=[0, 2, 1])  # [1, C, B]
    if settings.background >= 0:
        table = _without_class(builder, table, settings.background)
    labels = None
    if settings.class_agnostic:
        labels = builder.node("ArgMax", table, axis=1, keepdims=0)
        labels = builder.reshape(labels, -1)
        table = _reduce_max(builder, table)
    if settings.candidates is not None:
        table = _best_candidates(builder, table, settings.candidates)
    chosen = builder.node(
        "NonMaxSuppression",
        boxes,
        table,
        builder.constant([settings.rows]),
        builder.constant([settings.iou_threshold], np.float32),
        builder.constant([max(settings.score_threshold, _LOWEST)], np.float32),
        center_point_box=int(settings.centered),
    )
    pairs = builder.node("Gather", chosen, builder.constant([1, 2]), axis=1)
    classes = builder.node("Gather", chosen, builder.constant(1), axis=1)
    numbers = builder.node("Gather", chosen, builder.constant(2), axis=1)
    found = builder.node("GatherND", _first(builder, table), pairs)
    most = builder.constant([settings.rows])
    total = builder.choice("Min", builder.node("Shape", found), most)
    best = builder.node("TopK", found, total, outputs=2, axis=0)
    order = f"{best}.1"
    numbers = builder.node("Gather", numbers, order, axis=0)
    classes = builder.node("Gather", classes, order, axis=0)
    if labels is not None:
        classes = builder.node("Gather", labels, numbers, axis=0)
    picked = builder.node("Gather", _first(builder, boxes), numbers, axis=0)
    if settings.centered:
        # What the plugin decodes is corners (DecodeBoxes in efficientNMSInference.cu).
        picked = builder.node("MatMul", picked, builder.constant(_CORNERS_OF_CENTERED, np.float32))
    if settings.clip:
        low, high = builder.constant(0.0, np.float32), builder.constant(1.0, np.float32)
        picked = builder.node("Clip", picked, low, high)
    return _Found(
        boxes=_padded(builder, picked, np.zeros((settings.rows, 4)), np.float32),
        scores=_padded(builder, best, np.zeros(settings.rows), np.float32),
        classes=_padded(builder, classes, np.full(settings.rows, -1), np.int64),
        numbers=_padded(builder, numbers, np.full(settings.rows, -1), np.int64),
        count=total,
    )


def _first(builder: _Builder, value: str) -> str:
    """Drops the dimension of images, of which there is one."""
    return builder.node("Gather", value, builder.constant(0), axis=0)


def _reduce_max(builder: _Builder, table: str) -> str:
    if builder.opset >= 18:
        return builder.node("ReduceMax", table, builder.constant([1]), keepdims=1)
    return builder.node("ReduceMax", table, axes=[1], keepdims=1)


def _without_class(builder: _Builder, table: str, background: int) -> str:
    """Gives one class the lowest score."""
    classes = builder.node("Gather", builder.node("Shape", table), builder.constant(1), axis=0)
    iota = builder.node("Range", builder.constant(0), classes, builder.constant(1))
    wrong = builder.node("Equal", builder.reshape(iota, 1, -1, 1), builder.constant(background))
    return builder.node("Where", wrong, builder.constant(_LOWEST, np.float32), table)


def _best_candidates(builder: _Builder, table: str, most: int) -> str:
    """Gives the lowest score to what is not among the best of its class."""
    total = builder.node("Gather", builder.node("Shape", table), builder.constant([2]), axis=0)
    k = builder.choice("Min", total, builder.constant([most]))
    best = builder.node("TopK", table, k, outputs=2, axis=2)
    last = builder.node("Sub", k, builder.constant([1]))
    least = builder.node("Gather", best, last, axis=2)
    worse = builder.node("Less", table, least)
    return builder.node("Where", worse, builder.constant(_LOWEST, np.float32), table)


def _padded(builder: _Builder, value: str, filling: np.ndarray, dtype: Any) -> str:
    """Appends rows, and cuts to their number."""
    rows = builder.constant(filling, dtype)
    longer = builder.node("Concat", value, rows, axis=0)
    bounds = [builder.constant([at]) for at in (0, len(filling), 0)]
    return builder.node("Slice", longer, *bounds)


def _number(node: onnx.NodeProto, name: str, default: float) -> float:
    """Returns a setting, which may be a list of one.

    The exporters of YOLOv6, YOLOv7 and YOLOv9 write ``background_class`` and ``box_coding`` so
    (``self.background_class = -1,`` in their ``End2End``), and TensorRT reads the first number.
    """
    value = attribute(node, name, default)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise _refused(node, f"its {name} is {value!r} instead of a number")
    return value


def _count(node: onnx.NodeProto, name: str, default: int) -> int:
    """Returns a setting that is a number of rows."""
    number = int(_number(node, name, default))
    if not 0 < number <= _MOST_ROWS:
        raise _refused(node, f"its {name} is {number}; allowed: 1 to {_MOST_ROWS}")
    return number


def _efficient(builder: _Builder, node: onnx.NodeProto, _types: _Types) -> None:
    """``EfficientNMS_TRT``: count, boxes, scores and classes, padded with zeros."""
    settings = _Settings(
        rows=_count(node, "max_output_boxes", 100),
        iou_threshold=float(_number(node, "iou_threshold", 0.5)),
        score_threshold=float(_number(node, "score_threshold", 0.25)),
        background=int(_number(node, "background_class", -1)),
        sigmoid=bool(_number(node, "score_activation", 0)),
        class_agnostic=bool(_number(node, "class_agnostic", 0)),
        centered=bool(_number(node, "box_coding", 0)),
    )
    if len(node.input) > 2 and node.input[2]:
        raise _refused(node, "it decodes boxes from anchors")
    found = _suppress(builder, node.input[0], node.input[1], settings)
    classes = builder.choice("Max", found.classes, builder.constant(0))
    _return_four(builder, node, found, classes, settings.rows, TensorProto.INT32)


def _batched(builder: _Builder, node: onnx.NodeProto, _types: _Types) -> None:
    """``BatchedNMS_TRT``: count, boxes, scores and classes as floats, -1 past the last."""
    settings = _Settings(
        rows=_count(node, "keepTopK", 100),
        iou_threshold=float(_number(node, "iouThreshold", 0.5)),
        score_threshold=float(_number(node, "scoreThreshold", 0.0)),
        candidates=_count(node, "topK", 4096),
        background=int(_number(node, "backgroundLabelId", -1)),
        clip=bool(_number(node, "clipBoxes", 1)),
    )
    if not _number(node, "shareLocation", 1):
        raise _refused(node, "every class has boxes of its own (shareLocation=0)")
    found = _suppress(builder, node.input[0], node.input[1], settings)
    _return_four(builder, node, found, found.classes, settings.rows, TensorProto.FLOAT)


def _return_four(
    builder: _Builder,
    node: onnx.NodeProto,
    found: _Found,
    classes: str,
    rows: int,
    class_type: int,
) -> None:
    count = builder.node("Cast", builder.reshape(found.count, 1, 1), to=TensorProto.INT32)
    classes = builder.node("Cast", builder.reshape(classes, 1, rows), to=class_type)
    results = [
        count,
        builder.reshape(found.boxes, 1, rows, 4),
        builder.reshape(found.scores, 1, rows),
        classes,
    ]
    for made, name in zip(results, node.output, strict=False):
        builder.rename(made, name)


def _mmdeploy(builder: _Builder, node: onnx.NodeProto, types: _Types) -> None:
    """``TRTBatchedNMS``: ``[1, K, 5]`` with the score last, labels ``[1, K]``, box numbers.

    TensorRT computes labels of 32 bits; the exporter declares PyTorch's 64, in which they go on
    unless the file computes on with others.
    """
    settings = _Settings(
        rows=_count(node, "keep_topk", 100),
        iou_threshold=float(_number(node, "iou_threshold", 0.5)),
        score_threshold=float(_number(node, "score_threshold", 0.0)),
        candidates=_count(node, "topk", 4096),
        background=int(_number(node, "background_label_id", -1)),
        clip=bool(_number(node, "clip_boxes", 0)),
    )
    found = _suppress(builder, node.input[0], node.input[1], settings)
    rows = settings.rows
    scores = builder.reshape(found.scores, rows, 1)
    scored = builder.node("Concat", found.boxes, scores, axis=1)
    builder.rename(builder.reshape(scored, 1, rows, 5), node.output[0])
    for made, name in zip((found.classes, found.numbers), node.output[1:], strict=False):
        wide = builder.reshape(made, 1, rows)
        wanted = types.of(name) or TensorProto.INT64
        builder.rename(builder.node("Cast", wide, to=wanted), name)


CUSTOM_SUPPRESSIONS: dict[str, Callable[[_Builder, onnx.NodeProto, _Types], None]] = {
    "BatchedNMSDynamic_TRT": _batched,
    "BatchedNMS_TRT": _batched,
    "EfficientNMS_TRT": _efficient,
    "TRTBatchedNMS": _mmdeploy,
}


def _refused(node: onnx.NodeProto, reason: str) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(
        f"{describe(node)} cannot be rewritten in standard ONNX: {reason}; export the detector "
        "without its non-maximum suppression"
    )
