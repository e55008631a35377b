"""ATSS: one square anchor at every cell, and how central the cell is in its box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tvmdet.heads.anchors import octave_sizes
from tvmdet.heads.base import GraphSummary
from tvmdet.heads.dense import DenseHead, Options, Style
from tvmdet.heads.dense_inputs import IMAGENET_RGB, MMDETECTION, padded
from tvmdet.heads.dense_layout import stride_pairs
from tvmdet.heads.dense_outputs import FoundOutputs
from tvmdet.heads.grids import doubling_strides
from tvmdet.spec import PostprocessSpec

__all__ = ["ATSSHead"]

_LEVELS = 5


def _options(score_rule: str) -> Any:
    """Returns the options of MMDetection's ATSSHead, DDODHead and PAAHead.

    AnchorGenerator with octave_base_scale 8 and one ratio, centres at multiples of the stride;
    DeltaXYWHBBoxCoder with deviations 0.1 and 0.2.
    """

    def options(
        found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Options | str:
        strides = given.get("strides") or doubling_strides(found.grids, size_hw)
        if strides is None:
            return "its strides double from level to level: give options.strides"
        sides = [max(pair) for pair in stride_pairs(list(strides))]
        return {
            "anchors": {"sizes": octave_sizes(sides, 8.0, octaves=1), "ratios": [1.0]},
            "box_stds": [0.1, 0.1, 0.2, 0.2],
            "offset": 0.0,
            "score_rule": score_rule,
            "size_limits": [16 / 1000, 1000 / 16],
            "strides": list(strides),
        }

    return options


def _style(about: str, score_rule: str) -> Style:
    return Style(
        about=about,
        input=padded(IMAGENET_RGB, MMDETECTION),
        postprocess=PostprocessSpec(
            score_threshold=0.05,
            iou_threshold=0.6,
            max_detections=100,
            pre_nms_top_k=5000,
            multi_label=True,
        ),
        options=_options(score_rule),
    )


class ATSSHead(DenseHead):
    """Class logits, differences to an anchor of 8 strides, and centerness (Zhang et al. 2020).

    Its outputs have the shapes of FCOS's, so that it is never claimed without a spec.
    """

    name = "atss"
    title = "ATSS, DDOD, PAA: one anchor a cell and a quality (MMDetection)"
    coding = "deltas"
    kinds = ("class", "box", "quality")
    styles: ClassVar[Mapping[str, Style]] = {
        "mmdetection": _style("MMDetection's ATSS and DDOD", "product"),
        "mmdetection_paa": _style("MMDetection's PAA, the root of class times IoU", "sqrt"),
    }
    pyramids = (((8, 16, 32, 64, 128), 1),)

    def misfit(self, found: FoundOutputs, size_hw: tuple[int, int]) -> str:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.misfit`."""
        if set(found.per_cell) != {1}:
            return "its cells have several boxes; this family's have one"
        if len(found.grids) != _LEVELS:
            return f"it has {len(found.grids)} levels; this family has {_LEVELS}"
        return ""

    def proven_style(
        self, summary: GraphSummary, found: FoundOutputs, size_hw: tuple[int, int]
    ) -> tuple[str, str] | None:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.proven_style`."""
        return None
