"""RTMDet: class scores and distances to the sides of a box at every cell of three levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tvmdet.heads.base import GraphSummary
from tvmdet.heads.dense import DenseHead, Options, Style
from tvmdet.heads.dense_inputs import MMDETECTION, MMYOLO, RTMDET_BGR
from tvmdet.heads.dense_outputs import FoundOutputs
from tvmdet.heads.grids import doubling_strides
from tvmdet.spec import PostprocessSpec

__all__ = ["RTMDetHead"]


def _options(unit: str) -> Any:
    """Returns the options of RTMDet's head (MlvlPointGenerator with offset 0, strides 8 to 32)."""

    def options(
        found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Options | str:
        strides = given.get("strides") or doubling_strides(found.grids, size_hw)
        if strides is None:
            return "its strides double from level to level: give options.strides"
        return {
            "distance_activation": "none",  # the network has the exp, where there is one
            "distance_unit": unit,
            "offset": 0.0,
            "strides": list(strides),
        }

    return options


def _style(about: str, unit: str, pad_position: str, framework: Mapping[str, Any]) -> Style:
    return Style(
        about=about,
        input={**RTMDET_BGR, "resize": "letterbox", "pad_position": pad_position, **framework},
        postprocess=PostprocessSpec(
            # Measured at 0.001, where a picture has hundreds of boxes.
            score_threshold=0.05,
            iou_threshold=0.65,
            max_detections=300,
            pre_nms_top_k=5000,
            multi_label=True,
        ),
        options=_options(unit),
    )


class RTMDetHead(DenseHead):
    """Class logits ``[N, C, H, W]`` and distances ``[N, 4, H, W]`` (Lyu et al. 2022).

    MMDetection's network multiplies the distances by the stride itself, MMYOLO's leaves it to
    the decoding. Other heads have outputs of the same shapes (PP-YOLOE, YOLOX without
    objectness), so that it is never claimed without a spec.
    """

    name = "rtmdet"
    title = "RTMDet, class scores and distances per level (MMDetection, MMYOLO)"
    coding = "distances"
    styles: ClassVar[Mapping[str, Style]] = {
        "mmdetection": _style(
            "MMDetection's RTMDet, distances in pixels", "pixels", "top_left", MMDETECTION
        ),
        "mmyolo": _style("MMYOLO's RTMDet, distances in strides", "strides", "center", MMYOLO),
    }
    pyramids = (((8, 16, 32), 1),)

    def misfit(self, found: FoundOutputs, size_hw: tuple[int, int]) -> str:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.misfit`."""
        if set(found.per_cell) != {1}:
            return "its cells have several boxes; this family's have one"
        if len(found.grids) != 3 or doubling_strides(found.grids, size_hw) != (8, 16, 32):
            return "its levels have not strides 8, 16 and 32"
        return ""

    def proven_style(
        self, summary: GraphSummary, found: FoundOutputs, size_hw: tuple[int, int]
    ) -> tuple[str, str] | None:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.proven_style`."""
        return None
