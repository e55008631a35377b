"""NonMaxSuppression with a bounded number of rows, as a function of standard ONNX.

``tvmdet.BoundedNonMaxSuppression`` is a model function: ONNX Runtime runs its body, which proves
the rewritten network, and the importer emits a kernel of its own for the call.

    (selected int64 [K, 3], valid bool [K]) =
        BoundedNonMaxSuppression(boxes [N, B, 4], scores [N, C, B], real bool [B])

``selected`` has the first K rows of what NonMaxSuppression returns for the real candidates, in its
order; rows past the last are 0 and not valid. Without a ``score_threshold`` every real candidate
whose score is above the lowest finite number takes part.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper

from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.bounded.errors import blocked
from tvmdet.frontend.bounded.rewriter import Rewriter, rule
from tvmdet.frontend.bounded.selection import space_of
from tvmdet.frontend.bounded.values import Lanes, Symbol, Value

__all__ = ["BOUNDED_NMS", "emit_suppression"]

BOUNDED_NMS = "BoundedNonMaxSuppression"
_LOWEST = float(np.finfo(np.float32).min)

_BODY = f"""
<opset_import: ["" : 17], domain: "tvmdet">
{BOUNDED_NMS}
<rows: int, max_output_boxes_per_class: int, iou_threshold: float, score_threshold: float,
 center_point_box: int>
(boxes, scores, real) => (selected, valid)
{{
  worst = Constant <value_float: float = -inf> ()
  masked = Where (real, scores, worst)
  most = Constant <value_int: int = @max_output_boxes_per_class> ()
  overlap = Constant <value_float: float = @iou_threshold> ()
  least = Constant <value_float: float = @score_threshold> ()
  all = NonMaxSuppression <center_point_box: int = @center_point_box>
    (boxes, masked, most, overlap, least)
  k = Constant <value_int: int = @rows> ()
  flat = Constant <value_ints: ints = [-1]> ()
  ks = Reshape (k, flat)
  zero = Constant <value_int: int = 0> ()
  one = Constant <value_int: int = 1> ()
  three = Constant <value_ints: ints = [3]> ()
  first = Constant <value_ints: ints = [0]> ()
  room = Concat <axis: int = 0> (ks, three)
  zeros = Expand (zero, room)
  long = Concat <axis: int = 0> (all, zeros)
  selected = Slice (long, first, ks, first)
  shape = Shape (all)
  found = Gather (shape, zero)
  iota = Range (zero, k, one)
  valid = Less (iota, found)
}}
"""


def _function(opset: int) -> onnx.FunctionProto:
    text = _BODY.replace('["" : 17]', f'["" : {max(opset, 13)}]').replace("-inf", str(_LOWEST))
    return onnx.parser.parse_function(text)


@rule("NonMaxSuppression")
def _non_max_suppression(
    rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]
) -> list[Value]:
    boxes, scores = inputs[0], inputs[1]
    assert boxes is not None
    assert scores is not None
    constants = []
    for at, (what, usual) in enumerate(
        (("max_output_boxes_per_class", 0), ("iou_threshold", 0.0), ("score_threshold", _LOWEST))
    ):
        value = inputs[2 + at] if len(inputs) > 2 + at else None
        array = None if value is None else rw.array(value)
        if value is not None and array is None:
            raise blocked(node, f"its {what} is not a constant")
        constants.append(usual if array is None else array.reshape(-1)[0].item())
    selected, valid = emit_suppression(
        rw,
        node,
        boxes,
        scores,
        per_class=int(constants[0]),
        iou_threshold=float(constants[1]),
        score_threshold=max(float(constants[2]), _LOWEST),
        center_point_box=int(attribute(node, "center_point_box", 0)),
        first_rows=rw.first_rows(node.output[0]),
    )
    candidates = boxes.symbols[1]
    lanes = Lanes(axis=1, spaces=(None, None, space_of(candidates)))
    space = lanes if lanes.spaces[2] else None
    return [rw.value(selected, [valid, None], space=space, in_range=True)]


def emit_suppression(
    rw: Rewriter,
    node: onnx.NodeProto,
    boxes: Value,
    scores: Value,
    *,
    per_class: int,
    iou_threshold: float,
    score_threshold: float,
    center_point_box: int,
    first_rows: int | None,
) -> tuple[str, Symbol]:
    """Emits a suppression.

    Args:
        rw: The rewriting.
        node: The original node, for messages.
        boxes: float32 ``[N, B, 4]``.
        scores: float32 ``[N, C, B]``.
        per_class: Most rows per image and class.
        iou_threshold: Above it a box is suppressed.
        score_threshold: Only scores above it take part.
        center_point_box: 0 for corners, 1 for centre and size.
        first_rows: How many rows at most are looked at; None for all.

    Returns:
        The rows, int64 ``[K, 3]``, and the symbol of K.
    """
    if any((boxes.symbols[0], scores.symbols[0], scores.symbols[1])):
        raise blocked(node, "its number of images or classes depends on the image")
    count = boxes.shape[1]
    if boxes.symbols[1] is not scores.symbols[2]:
        if boxes.symbols[1] is None or scores.symbols[2] is None:
            raise blocked(node, "boxes and scores differ in number")
        count = min(count, scores.shape[2])
        boxes, scores = rw.compacted(boxes, 1, count), rw.compacted(scores, 2, count)
    real = boxes.symbols[1]
    mask = real.mask if real else rw.emit.constant(np.ones(count), np.bool_)
    images, classes = scores.shape[0], scores.shape[1]
    per_class = max(min(per_class, count), 0)
    stated = images * classes * per_class
    if first_rows is not None:
        stated = min(stated, max(first_rows, 0))
    rows, how = stated, "by the graph"
    if rows > rw.limits.max_rows:
        # The best of every class, not the first classes only.
        per_class = max(rw.limits.max_rows // (images * classes), 1)
        rows = images * classes * per_class
        how = f"{per_class} per class, of up to {stated} (Limits.max_rows)"
    rw.notes.append(f"NonMaxSuppression {node.name!r}: at most {rows} rows, {how}")
    rows = max(rows, 1)
    selected, valid = rw.emit.call(
        _function(rw.emit.opset),
        [rw.tensor(boxes), rw.tensor(scores), mask],
        [
            helper.make_tensor_type_proto(TensorProto.INT64, [rows, 3]),
            helper.make_tensor_type_proto(TensorProto.BOOL, [rows]),
        ],
        {
            "rows": rows,
            "max_output_boxes_per_class": per_class,
            "iou_threshold": iou_threshold,
            "score_threshold": score_threshold,
            "center_point_box": center_point_box,
        },
    )
    return selected, rw.symbol(valid, prefix=True)
