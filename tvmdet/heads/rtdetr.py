"""RT-DETR and other DETRs with a sigmoid for each class and query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.heads.base import Decoded, GraphSummary, Head, Question, Recognition
from tvmdet.heads.dense_inputs import stretched
from tvmdet.heads.detection_frames import ends_in_scores
from tvmdet.heads.input_defaults import UNIT, detr_input, fed_input
from tvmdet.heads.labels import choose_labels
from tvmdet.heads.queries import (
    QueryOutputs,
    class_count,
    decode_queries,
    decode_queries_reference,
    find_query_outputs,
    has_attention,
    has_scores,
    mask_spec,
    named_labels,
    query_options,
    question,
    score_kind,
    validate_queries,
)
from tvmdet.heads.ultralytics import is_rtdetr
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["RtDetrHead"]

_TOKENS = (
    "columns that are never a class end its rows: the others are tokens of a text, as in "
    "Grounding DINO, and a box is reported once, for its best token; labels in a spec name the "
    "tokens, in order, and the columns that are none"
)


class RtDetrHead(Head):
    """Class logits ``[N, Q, C]`` and boxes ``[N, Q, 4]``, or both in one output (Ultralytics).

    The best pairs of query and class are reported, so that one query may have several classes, as
    the authors' post-processors do (RT-DETR ``rtdetr_postprocessor.py``, Deformable DETR
    ``PostProcess``); the score threshold of 0.5 is that of Hugging Face's ``RTDetrImageProcessor``.

    Values of a text's tokens (Grounding DINO, its text folded in) are told by the columns that the
    text leaves free: a query is reported once, for its best token, as ``GroundingDinoProcessor``
    has it.

    Input: see :func:`tvmdet.heads.input_defaults.detr_input`.
    """

    name = "rtdetr"
    title = "RT-DETR-style, one sigmoid for each class and query (RT-DETR, D-FINE, RF-DETR, DINO)"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        options = dict(given.get("options", {}))
        ultralytics = _ultralytics_output(summary)
        if ultralytics is not None:
            options = {"box_output": ultralytics, "class_output": ultralytics, **options}
        found = find_query_outputs(summary, options)
        if isinstance(found, str):
            return found
        if ultralytics is not None and _is_chosen(summary, ultralytics):
            return f"{ultralytics} ends in class numbers, not in scores: its detections are chosen"
        background = str(options.get("background", "none"))
        decided = score_kind(summary, found, named_labels(summary, given))
        if given.get("family") == self.name:
            kind, why = _as_given(summary, found, options)
        elif not has_attention(summary):
            return "it has no attention (no Softmax, no MatMul); this family is a transformer"
        elif isinstance(decided, str):
            return question(decided, self.name, found.columns)
        else:
            kind, why = decided
            if kind == "softmax":
                return f"{why}; this family has one sigmoid a class"
            if kind == "none" and ultralytics is None:
                return Question(
                    f"{why}, not logits: are the rows a DETR's queries, of which none is "
                    "suppressed, or boxes that still are?",
                    spec_text=f'family = "{self.name}"    # or another, such as "decoded"',
                )
        labels = choose_labels(summary.metadata, class_count(found.columns, background), given)
        if isinstance(labels, Question):
            return labels
        if isinstance(labels, str):
            return f"{labels}; options.background says which column is no class, if one is"
        pixels = _input(summary, ultralytics is not None, given)
        if isinstance(pixels, str):
            return pixels
        values, line = pixels
        rows = min(max(found.queries, 100), 300)
        tokens = _are_tokens(summary, found, kind)
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, **values),
            postprocess=PostprocessSpec(
                score_threshold=0.25 if tokens else 0.5,
                iou_threshold=1.0,
                max_detections=rows,
                multi_label=not tokens,
            ),
            options=query_options(found, kind, background),
            masks=mask_spec(found),
        )
        reasons = (_outputs_line(found), *((_TOKENS,) if tokens else ()), why, labels[1], line)
        return Recognition(family=self.name, reasons=reasons, spec=spec)

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Implements :meth:`tvmdet.heads.base.Head.validate`."""
        validate_queries(spec, summary)

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        return decode_queries(bb, outputs, spec)

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        return decode_queries_reference(outputs, spec)


def _as_given(
    summary: GraphSummary, found: QueryOutputs, options: Mapping[str, Any]
) -> tuple[str, str]:
    """Returns how class values become scores in a network that the spec calls this family."""
    if options.get("activation"):
        return str(options["activation"]), "options.activation from the spec"
    if has_scores(summary, found):
        return "none", f"{found.classes} holds scores from 0 to 1"
    return "sigmoid", "one sigmoid a class, as the family has"


def _ultralytics_output(summary: GraphSummary) -> str | None:
    """Returns the only output of an RT-DETR exported by Ultralytics, which says so."""
    if not is_rtdetr(summary.metadata):
        return None
    return next(iter(summary.outputs)) if len(summary.outputs) == 1 else None


def _is_chosen(summary: GraphSummary, output: str) -> bool:
    """Returns whether an output has rows of a box, a score and a class number, as since 8.4."""
    return summary.outputs[output].shape[-1] == 6 and not ends_in_scores(summary, output)


def _are_tokens(summary: GraphSummary, found: QueryOutputs, kind: str) -> bool:
    """Returns whether the last class values are nothing, of every query: -inf, or scores of 0."""
    if summary.sample is None or found.boxes == found.classes:
        return False
    nothing = 0 if kind == "none" else -np.inf
    return bool((summary.sample()[found.classes][..., -1] == nothing).all())


def _outputs_line(found: QueryOutputs) -> str:
    masks = f" and masks in {found.masks}" if found.masks else ""
    return (
        f"{found.classes} and {found.boxes}: {found.queries} queries of {found.columns} class "
        f"values, and boxes cx cy w h from 0 to 1{masks}"
    )


def _input(
    summary: GraphSummary, ultralytics: bool, given: Mapping[str, Any]
) -> tuple[dict[str, Any], str] | Question:
    """Returns the input's defaults, and a line that says why these; or what to ask."""
    if ultralytics:
        line = "input RGB / 255, stretched: as Ultralytics trains RT-DETR"
        return fed_input(summary, stretched(UNIT), line, RtDetrHead.name, given)
    return detr_input(summary, RtDetrHead.name, given)
