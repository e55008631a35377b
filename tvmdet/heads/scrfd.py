"""SCRFD, insightface's detector of faces: scores and distances, two predictions at a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tvmdet.heads.base import GraphSummary
from tvmdet.heads.dense import DenseHead, Options, Style
from tvmdet.heads.dense_outputs import FoundOutputs
from tvmdet.heads.grids import doubling_strides
from tvmdet.heads.landmarks import landmarks_of, without_landmarks
from tvmdet.spec import PostprocessSpec

__all__ = ["SCRFDHead"]

# Strides and predictions at a cell: by the number of outputs in SCRFD._init_vars.
_PYRAMIDS = (((8, 16, 32), 2), ((8, 16, 32, 64, 128), 1))


def _insightface(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of insightface's model_zoo/scrfd.py: distances in strides from ``i * stride``."""
    strides = given.get("strides") or doubling_strides(found.grids, size_hw)
    if strides is None:
        return "its strides double from level to level: give options.strides"
    if len(set(found.per_cell)) != 1:
        return "it has as many predictions at the cells of every level"
    return {
        "distance_activation": "none",
        "distance_unit": "strides",
        "offset": 0.0,
        "per_cell": found.per_cell[0],
        "strides": list(strides),
    }


class SCRFDHead(DenseHead):
    """One score ``[A, 1]`` and four distances ``[A, 4]`` a prediction, level by level.

    Sample and Computation Redistribution for Efficient Face Detection, Guo et al. 2021. A stride's
    distances left, top, right and bottom are multiplied by it; both predictions of a cell start
    from its corner. Claimed by the five landmarks beside the boxes, or by the names ``score_8``,
    ``bbox_8``, ...; a landmark is a shift in strides from the same corner.
    """

    name = "scrfd"
    title = "SCRFD, faces: scores and distances of two predictions a cell (insightface)"
    coding = "distances"
    styles: ClassVar[Mapping[str, Style]] = {
        "insightface": Style(
            about="insightface's SCRFD",
            # blobFromImage with 1 / 128, mean 127.5, swapRB; a black border, right and below.
            input={
                "color": "rgb",
                "mean": (127.5,) * 3,
                "std": (128.0,) * 3,
                "resize": "letterbox",
                "pad_position": "top_left",
                "pad_value": 0,
                # int() in SCRFD.detect, which then divides both axes by the ratio of the heights.
                "rounding": "down",
                "scale": "height",
            },
            postprocess=PostprocessSpec(
                score_threshold=0.5,
                iou_threshold=0.4,
                max_detections=300,
                pre_nms_top_k=5000,
            ),
            options=_insightface,
        )
    }
    pyramids = _PYRAMIDS

    def find(self, summary: GraphSummary, given: Mapping[str, Any]) -> FoundOutputs | str:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.find`; landmarks are no boxes."""
        return super().find(without_landmarks(summary)[0], given)

    def misfit(self, found: FoundOutputs, size_hw: tuple[int, int]) -> str:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.misfit`."""
        if found.columns != 1:
            return f"it has {found.columns} class columns; this family finds faces only"
        strides, counts = doubling_strides(found.grids, size_hw), set(found.per_cell)
        if (strides, counts) not in [(known, {count}) for known, count in _PYRAMIDS]:
            return (
                "this family has two predictions a cell at strides 8 to 32, or one at strides 8 to "
                "128"
            )
        return ""

    def proven_style(
        self, summary: GraphSummary, found: FoundOutputs, size_hw: tuple[int, int]
    ) -> tuple[str, str] | None:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.proven_style`."""
        strides = doubling_strides(found.grids, size_hw) or ()
        names = {"class": "score", "box": "bbox"}
        if all(
            found.names[kind] == tuple(f"{name}_{stride}" for stride in strides)
            for kind, name in names.items()
        ):
            return "insightface", "by the names of its outputs"
        if len(self.landmarks(summary, found)) == len(found.names["box"]) == len(strides):
            return "insightface", "by five landmarks and one score at each prediction of a level"
        return None

    def landmarks(self, summary: GraphSummary, found: FoundOutputs) -> tuple[str, ...]:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.landmarks`."""
        return landmarks_of(summary, found.names["box"])
