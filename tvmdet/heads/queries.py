"""What DETR-like families share: one class vector and one box for each object query.

Boxes are ``cx cy w h`` as shares of the network's input (Carion et al., "End-to-End Object
Detection with Transformers", 2020, section 3.1). Nothing is suppressed: a query is an object or
none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.errors import InputError, ShapeError
from tvmdet.heads.base import Decoded, GraphSummary, MaskValues, Question
from tvmdet.heads.labels import fits_classes, labels_from_metadata
from tvmdet.heads.options import choice, refuse_unknown_options
from tvmdet.spec import DetectorSpec, MaskSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = [
    "QueryOutputs",
    "class_count",
    "decode_queries",
    "decode_queries_reference",
    "find_query_outputs",
    "has_attention",
    "has_scores",
    "mask_spec",
    "named_labels",
    "query_options",
    "question",
    "score_kind",
    "scored_background",
    "validate_queries",
]

_OPTIONS = ("activation", "background", "box_output", "class_output", "mask_output")
_ACTIVATIONS = ("none", "sigmoid", "softmax")
_BACKGROUNDS = ("first", "last", "none")

# Names in exports of Hugging Face, of the DETR authors and after, and of RF-DETR; lower case.
_BOX_NAMES = ("pred_boxes", "dets", "boxes", "bboxes")
_CLASS_NAMES = ("logits", "pred_logits", "labels", "scores")
_MASK_NAMES = ("pred_masks", "masks")


@dataclass(frozen=True, kw_only=True)
class QueryOutputs:
    """The outputs of a DETR-like network.

    Attributes:
        boxes: Name of ``[N, Q, 4]``; or of ``[N, Q, 4 + C]``, boxes first, then it is also
            that of the classes.
        classes: Name of ``[N, Q, C]``.
        masks: Name of ``[N, Q, h, w]``, or the empty string.
        queries: Q.
        columns: C, with a column for no object where there is one.
    """

    boxes: str
    classes: str
    masks: str
    queries: int
    columns: int


def find_query_outputs(summary: GraphSummary, options: Mapping[str, Any]) -> QueryOutputs | str:
    """Finds the outputs: those that the options name, else those with known names.

    Returns:
        The outputs, or one sentence that says what is missing.

    Raises:
        InputError: An option names no output.
    """
    names = tuple(summary.outputs)
    boxes = choice(options, "box_output", names) or _named(summary, _BOX_NAMES, 3, last=4)
    classes = choice(options, "class_output", names) or _named(summary, _CLASS_NAMES, 3)
    if boxes is None or classes is None:
        return (
            "no outputs are named as this family's: boxes [N, queries, 4] (pred_boxes, dets) and "
            "classes [N, queries, classes] (logits, pred_logits, labels); name them in the spec's "
            "options.box_output and options.class_output"
        )
    box, score = summary.outputs[boxes], summary.outputs[classes]
    joined = boxes == classes
    width = None if len(score.shape) != 3 else score.shape[2]
    wanted = width if joined else 4
    if len(box.shape) != 3 or width is None or box.shape != (*score.shape[:2], wanted):
        return (
            f"{boxes} is {box} and {classes} is {score}; this family's are [N, queries, 4] and "
            "[N, queries, classes]"
        )
    columns = width - 4 if joined else width
    if columns < 1:
        return f"{classes} is {score}, with no column for a class"
    masks = choice(options, "mask_output", ("", *names))  # "" says that there are none
    masks = _named(summary, _MASK_NAMES, 4) if masks is None else masks
    if masks and summary.outputs[masks].shape[:2] != box.shape[:2]:
        masks = None
    return QueryOutputs(
        boxes=boxes,
        classes=classes,
        masks=masks or "",
        queries=int(box.shape[1] or 0),
        columns=columns,
    )


def _named(
    summary: GraphSummary, known: tuple[str, ...], rank: int, last: int | None = None
) -> str | None:
    """Returns the first output with one of these names and this rank."""
    for wanted in known:
        for name, value in summary.outputs.items():
            plain = name.split(":")[0].lower()
            if plain != wanted or len(value.shape) != rank:
                continue
            if last is None or value.shape[-1] == last:
                return name
    return None


def has_attention(summary: GraphSummary) -> bool:
    """Returns whether the network can be a transformer."""
    products = sum(summary.operators.get(name, 0) for name in ("Einsum", "Gemm", "MatMul"))
    return bool(summary.operators.get("Softmax")) and products > 0


def score_kind(
    summary: GraphSummary, found: QueryOutputs, labels: tuple[str, ...] | None
) -> tuple[str, str] | str:
    """Decides how the class values become scores, on evidence.

    DETR and YOLOS train a softmax over the classes and "no object", and predict boxes by a
    perceptron alone (Carion et al., section 3.2; Fang et al., "You Only Look at One Sequence",
    2021, section 3). Families with reference points, which add them to what a layer predicts or
    sample features at them (Conditional DETR, Deformable DETR, DINO, RT-DETR), train one sigmoid a
    class with a focal loss (Zhu et al., "Deformable DETR", 2020, appendix A.4).

    Returns:
        ``softmax``, ``sigmoid`` or ``none`` (scores already) and a line that says why; or one
        sentence that says why it cannot be known.
    """
    if summary.output_traces.get(found.classes, ())[:1] == ("Softmax",):
        return "softmax", f"{found.classes} comes out of a softmax"
    if has_scores(summary, found):
        return "none", f"{found.classes} holds scores from 0 to 1"
    votes = {
        **_structure(summary, found),
        **({} if labels is None else _count(found, labels)),
    }
    kinds = set(votes)
    if len(kinds) == 1:
        ((kind, why),) = votes.items()
        return kind, why
    both = " but ".join(votes.values())
    reason = f"its signs contradict each other ({both})" if votes else "nothing in the graph says"
    return (
        f"{reason}: {found.classes} may be a softmax whose last column is no object (DETR, YOLOS: "
        f'family = "detr", {found.columns - 1} labels), or one sigmoid a class (Deformable DETR, '
        f'RT-DETR: family = "rtdetr", {found.columns} labels)'
    )


def has_scores(summary: GraphSummary, found: QueryOutputs) -> bool:
    """Returns whether the class values are scores already, as far as the graph proves it."""
    columns = summary.output_ranges.get(found.classes, ())
    if found.boxes == found.classes and len(columns) > 4:
        columns = columns[4:]
    return bool(columns) and all(one.is_unit for one in columns)


def _structure(summary: GraphSummary, found: QueryOutputs) -> dict[str, str]:
    trace = summary.output_traces.get(found.boxes, ())
    if summary.operators.get("GridSample"):
        return {"sigmoid": "features are sampled at reference points: one sigmoid a class"}
    if trace[:1] != ("Sigmoid",) or len(trace) < 2:
        return {}
    # A bias of zeros, which no training leaves, is simplified away.
    linear = trace[1].startswith(("Gemm(", "MatMul(")) or (
        trace[1] == "Add(4)" and trace[2:3] and trace[2].startswith(("MatMul(", "Gemm("))
    )
    if linear and not trace[1].endswith("*"):
        return {"softmax": "boxes come from a perceptron alone: softmax with a no-object column"}
    return {"sigmoid": "boxes are added to reference points: one sigmoid a class"}


def _count(found: QueryOutputs, labels: tuple[str, ...]) -> dict[str, str]:
    if fits_classes(labels, found.columns):
        return {"sigmoid": f"{len(labels)} labels for {found.columns} columns: no background"}
    if fits_classes(labels, found.columns - 1):
        return {"softmax": f"{len(labels)} labels for {found.columns} columns: one is no object"}
    return {}


def question(reason: str, family: str, labels: int) -> Question:
    """Returns a refusal of a network that a family and its labels would settle."""
    names = '["first class", "second class"]'
    text = f'family = "{family}"\nlabels = {names}    # {labels} names'
    return Question(reason, spec_text=text)


def scored_background(
    found: QueryOutputs, labels: tuple[str, ...] | None, family: str
) -> str | Question:
    """Returns which column of a softmax inside the graph is no class; or asks for it.

    Exports often cut the last column away (``softmax(-1)[..., :-1]``), and then none is.
    """
    for background in ("last", "none"):
        if labels is not None and fits_classes(labels, class_count(found.columns, background)):
            return background
    cut, whole = found.columns, found.columns - 1
    return Question(
        f"{found.classes} holds scores already, and nothing says whether its last column is no "
        f"object ({whole} classes) or that was cut away ({cut} classes)",
        spec_text=f'family = "{family}"\n[options]\nbackground = "last"    # {whole} classes; or '
        f'"none": {cut} classes',
    )


def named_labels(summary: GraphSummary, given: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Returns the labels that the spec or the metadata give."""
    if given.get("labels"):
        return tuple(given["labels"])
    return labels_from_metadata(summary.metadata)[0]


def class_count(columns: int, background: str) -> int:
    """Returns how many of the columns are classes."""
    return columns - (background != "none")


def query_options(found: QueryOutputs, activation: str, background: str) -> dict[str, Any]:
    """Returns the options of a spec."""
    return {
        "activation": activation,
        "background": background,
        "box_output": found.boxes,
        "class_output": found.classes,
        "mask_output": found.masks,
    }


def mask_spec(found: QueryOutputs) -> MaskSpec | None:
    """Returns how the masks lie: each spans the image, whatever its box is."""
    return MaskSpec(frame="image", cut_to_box=False) if found.masks else None


def validate_queries(spec: DetectorSpec, summary: GraphSummary) -> None:
    """Checks a whole spec against the network.

    Raises:
        InputError: An option is unknown, missing or does not fit the network.
    """
    options = spec.options
    refuse_unknown_options(options, spec.family, _OPTIONS)
    missing = [name for name in _OPTIONS if options.get(name) is None]
    if missing:
        raise InputError(f"the spec's options lack {missing[0]!r}; needed: {', '.join(_OPTIONS)}")
    choice(options, "activation", _ACTIVATIONS)
    choice(options, "background", _BACKGROUNDS)
    for name in ("box_output", "class_output"):
        choice(options, name, tuple(summary.outputs))
    choice(options, "mask_output", ("", *summary.outputs))
    if spec.masks is not None and not options["mask_output"]:
        raise InputError(
            "the spec has masks, and options.mask_output names no output of masks; name one, or "
            "leave the masks away"
        )
    try:
        boxes, classes = options["box_output"], options["class_output"]
        _check_shapes(summary.outputs[boxes].shape, summary.outputs[classes].shape, spec)
    except ShapeError as error:
        raise InputError(str(error)) from error


def decode_queries(
    bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
) -> Decoded:
    """Emits the decoding; see :meth:`tvmdet.heads.base.Head.decode`."""
    from tvm import relax

    boxes, classes = _pick(outputs, spec, "box_output"), _pick(outputs, spec, "class_output")
    _check_shapes(_static(boxes), _static(classes), spec)
    if spec.options["box_output"] == spec.options["class_output"]:
        parts = bb.emit(relax.op.split(boxes, [4], axis=2))
        boxes, classes = (bb.emit(relax.TupleGetItem(parts, at)) for at in range(2))
    centers_and_sizes = bb.emit(relax.op.split(boxes, [2], axis=2))
    center = bb.emit(relax.TupleGetItem(centers_and_sizes, 0))
    size = bb.emit(relax.TupleGetItem(centers_and_sizes, 1))
    half = bb.emit(relax.op.multiply(size, relax.const(0.5, "float32")))
    corners = [bb.emit(relax.op.subtract(center, half)), bb.emit(relax.op.add(center, half))]
    shares = bb.emit(relax.op.concat(corners, axis=2))
    pixels = relax.const(_sides(spec).reshape(1, 1, 4))
    return Decoded(
        boxes=bb.emit(relax.op.multiply(shares, pixels)),
        scores=_emit_scores(bb, classes, spec),
        masks=_emit_masks(bb, outputs, spec),
    )


def _emit_scores(bb: relax.BlockBuilder, classes: Any, spec: DetectorSpec) -> Any:
    from tvm import relax

    if spec.options["activation"] == "softmax":
        classes = bb.emit(relax.op.nn.softmax(classes, axis=-1))
    kept = _columns(_static(classes)[2], spec)
    if kept != slice(0, None):
        end = _static(classes)[2] if kept.stop is None else kept.stop
        classes = bb.emit(relax.op.strided_slice(classes, axes=[2], begin=[kept.start], end=[end]))
    if spec.options["activation"] == "sigmoid":
        classes = bb.emit(relax.op.sigmoid(classes))
    return classes


def _emit_masks(
    bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
) -> MaskValues | None:
    from tvm import relax

    if spec.masks is None:
        return None
    masks = _pick(outputs, spec, "mask_output")
    return MaskValues(values=bb.emit(relax.op.sigmoid(masks)))


def decode_queries_reference(outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
    """Does the same in numpy; see :meth:`tvmdet.heads.base.Head.decode_reference`."""
    boxes = np.asarray(_pick(outputs, spec, "box_output"), np.float64)
    classes = np.asarray(_pick(outputs, spec, "class_output"), np.float64)
    _check_shapes(boxes.shape, classes.shape, spec)
    if spec.options["box_output"] == spec.options["class_output"]:
        classes = classes[..., 4:]
    height, width = spec.input.size_hw
    x, y, w, h = (boxes[..., column] for column in range(4))
    corners = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
    if spec.options["activation"] == "softmax":
        power = np.exp(classes - classes.max(axis=-1, keepdims=True))
        classes = power / power.sum(axis=-1, keepdims=True)
    elif spec.options["activation"] == "sigmoid":
        classes = 1 / (1 + np.exp(-classes))
    scores = classes[..., _columns(classes.shape[2], spec)]
    masks = None
    if spec.masks is not None:
        logits = np.asarray(_pick(outputs, spec, "mask_output"), np.float64)
        masks = MaskValues(values=(1 / (1 + np.exp(-logits))).astype(np.float32))
    return Decoded(
        boxes=np.stack(corners, axis=-1).astype(np.float32),
        scores=np.ascontiguousarray(scores, np.float32),
        masks=masks,
    )


def _sides(spec: DetectorSpec) -> np.ndarray:
    height, width = spec.input.size_hw
    return np.array([width, height, width, height], np.float32)


def _columns(width: int, spec: DetectorSpec) -> slice:
    """Returns which columns are classes."""
    background = spec.options["background"]
    if background == "first":
        return slice(1, None)
    return slice(0, width - 1 if background == "last" else None)


def _static(value: Any) -> tuple[int, ...]:
    return tuple(int(dim) for dim in value.ty.shape)


def _pick(outputs: Mapping[str, Any], spec: DetectorSpec, key: str) -> Any:
    name = spec.options[key]
    if name not in outputs:
        raise ShapeError(
            f"the spec's options.{key} is {name!r}; the network's outputs: {', '.join(outputs)}"
        )
    return outputs[name]


def _check_shapes(
    boxes: tuple[int | None, ...], classes: tuple[int | None, ...], spec: DetectorSpec
) -> None:
    options = spec.options
    joined = options["box_output"] == options["class_output"]
    columns = len(spec.labels) + (options["background"] != "none")
    width = columns + 4 if joined else columns
    fits = len(boxes) == len(classes) == 3 and boxes[:2] == classes[:2]
    if not fits or classes[2] != width or (boxes[2] != 4 and not joined):
        raise ShapeError(
            f"{options['box_output']} is {list(boxes)} and {options['class_output']} is "
            f"{list(classes)}; {len(spec.labels)} labels with options.background "
            f"{options['background']} need [N, queries, 4] and [N, queries, {width}]: correct the "
            "spec's labels or options"
        )
