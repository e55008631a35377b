"""DETR and YOLOS: a softmax over the classes and no object, for each query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tvmdet.heads.base import Decoded, GraphSummary, Head, Question, Recognition
from tvmdet.heads.dense_inputs import IMAGENET_RGB, padded
from tvmdet.heads.input_defaults import fed_input
from tvmdet.heads.labels import choose_labels
from tvmdet.heads.libreyolo import libreyolo_input
from tvmdet.heads.queries import (
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
    scored_background,
    validate_queries,
)
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec

if TYPE_CHECKING:
    import numpy as np
    from tvm import relax

__all__ = ["DetrHead"]


class DetrHead(Head):
    """Class logits ``[N, Q, C + 1]``, the last column no object, and boxes ``[N, Q, 4]``.

    A query is reported for its best class, as in the authors' ``PostProcess`` and Hugging Face's
    ``post_process_object_detection``, whose score threshold of 0.5 is the default.

    Input: ImageNet's mean and deviation, RGB, the aspect ratio kept, as both train (authors'
    ``datasets/coco.py``; Hugging Face's ``DetrImageProcessor`` and ``YolosImageProcessor`` scale
    the shortest side to 800). What a fixed size leaves over lies at the right and bottom, as there,
    in the mean colour, which the normalisation turns into zero.
    """

    name = "detr"
    title = "DETR-style, a softmax with no-object column for each query (DETR, YOLOS)"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        options = given.get("options", {})
        found = find_query_outputs(summary, options)
        if isinstance(found, str):
            return found
        known = named_labels(summary, given)
        if given.get("family") == self.name:
            kind, why = "softmax", "a softmax, as the family has"
        else:
            if not has_attention(summary):
                return "it has no attention (no Softmax, no MatMul); this family is a transformer"
            decided = score_kind(summary, found, known)
            if isinstance(decided, str):
                return question(decided, self.name, found.columns - 1)
            kind, why = decided
            if kind != "softmax":
                return f"{why}; this family's class values go through a softmax"
        background = str(options.get("background", "last"))
        if has_scores(summary, found):
            kind, why = "none", f"{found.classes} holds scores: the softmax is in the graph"
            background = options.get("background") or scored_background(found, known, self.name)
            if isinstance(background, Question):
                return background
        labels = choose_labels(summary.metadata, class_count(found.columns, background), given)
        if isinstance(labels, str):
            return labels
        line = "input RGB, ImageNet mean and deviation, letterbox from the top left"
        usual = padded(IMAGENET_RGB), f"{line}: the family's default"
        usual = libreyolo_input(summary.metadata) or usual
        pixels = fed_input(summary, *usual, self.name, given)
        if isinstance(pixels, str):
            return pixels
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, **pixels[0]),
            postprocess=PostprocessSpec(
                score_threshold=0.5, iou_threshold=1.0, max_detections=min(found.queries, 300)
            ),
            options=query_options(found, kind, background),
            masks=mask_spec(found),
        )
        reasons = (
            f"{found.classes} and {found.boxes}: {found.queries} queries of {found.columns} class "
            f"values, and boxes cx cy w h from 0 to 1",
            why,
            labels[1],
            pixels[1],
            *([f"{found.masks}: one mask for each query"] if found.masks else []),
        )
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
