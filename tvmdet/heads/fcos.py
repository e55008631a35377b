"""FCOS: at every cell the distances to the sides of a box, and how central the cell is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tvmdet.heads.base import GraphSummary
from tvmdet.heads.dense import DenseHead, Options, Style
from tvmdet.heads.dense_inputs import (
    CAFFE_BGR,
    DETECTRON2,
    IMAGENET_BGR_255,
    IMAGENET_RGB,
    MMDETECTION,
    TORCHVISION,
    padded,
)
from tvmdet.heads.dense_outputs import FoundOutputs
from tvmdet.heads.grids import doubling_strides
from tvmdet.spec import PostprocessSpec

__all__ = ["FCOSHead"]

_STRIDES = (8, 16, 32, 64, 128)
_NAMES = {"class": ("cls_logits",), "box": ("bbox_regression",), "quality": ("bbox_ctrness",)}


def _torchvision(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of torchvision's fcos_resnet50_fpn.

    A cell's anchor is a square of 8 to 128 pixels at ``i * stride``, the stride being the image's
    side divided by the grid's, rounded down (AnchorGenerator); BoxLinearCoder gives the distances
    in sides of the anchor; the score is the root of class times centerness.
    """
    if given.get("strides") is None and doubling_strides(found.grids, size_hw) != _STRIDES:
        return f"its levels have strides {', '.join(map(str, _STRIDES))}"
    return {
        "distance_activation": "none",  # the head has a ReLU
        "distance_unit": list(_STRIDES),
        "offset": 0.0,
        "score_rule": "sqrt",
        "strides": [[size_hw[0] // grid[0], size_hw[1] // grid[1]] for grid in found.grids],
    }


def _detectron2(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of Detectron2's FCOS (modeling/meta_arch/fcos.py): Box2BoxTransformLinear."""
    strides = given.get("strides") or doubling_strides(found.grids, size_hw)
    if strides is None:
        return "its strides double from level to level: give options.strides"
    return {
        "distance_activation": "relu",
        "distance_unit": "strides",
        "offset": 0.5,
        "score_rule": "sqrt",
        "strides": list(strides),
    }


def _mmdetection(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of MMDetection's FCOSHead: distances in pixels, points in the middle of cells."""
    strides = given.get("strides") or doubling_strides(found.grids, size_hw)
    if strides is None:
        return "its strides double from level to level: give options.strides"
    return {
        "distance_activation": "none",  # an exp, or a ReLU and the stride, are in the network
        "distance_unit": "pixels",
        "offset": 0.5,
        "score_rule": "product",
        "strides": list(strides),
    }


def _postprocess(score_threshold: float, iou_threshold: float) -> PostprocessSpec:
    return PostprocessSpec(
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        max_detections=100,
        pre_nms_top_k=5000,
        multi_label=True,
    )


class FCOSHead(DenseHead):
    """Class logits, distances left, top, right, bottom, and centerness (Tian et al. 2019).

    torchvision's is claimed by the names of its outputs; of others the user must say which
    framework made it, for distances may be in pixels or in strides, centres in the middle of a
    cell or in its corner.
    """

    name = "fcos"
    title = "FCOS, distances and centerness (torchvision, Detectron2, MMDetection)"
    coding = "distances"
    kinds = ("class", "box", "quality")
    styles: ClassVar[Mapping[str, Style]] = {
        "torchvision": Style(
            about="torchvision's fcos_resnet50_fpn",
            input=padded(IMAGENET_RGB, TORCHVISION),
            postprocess=_postprocess(0.2, 0.6),
            options=_torchvision,
        ),
        "detectron2": Style(
            about="Detectron2's FCOS",
            input=padded(IMAGENET_BGR_255, DETECTRON2),
            postprocess=_postprocess(0.2, 0.6),
            options=_detectron2,
        ),
        "mmdetection": Style(
            about="MMDetection's FCOS (FCOSHead)",
            input=padded(CAFFE_BGR, MMDETECTION),
            postprocess=_postprocess(0.05, 0.5),
            options=_mmdetection,
        ),
    }
    pyramids = ((_STRIDES, 1),)

    def misfit(self, found: FoundOutputs, size_hw: tuple[int, int]) -> str:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.misfit`."""
        if set(found.per_cell) != {1}:
            return "its cells have several boxes; this family's have one"
        if len(found.grids) != len(_STRIDES):
            return f"it has {len(found.grids)} levels; this family has {len(_STRIDES)}"
        return ""

    def proven_style(
        self, summary: GraphSummary, found: FoundOutputs, size_hw: tuple[int, int]
    ) -> tuple[str, str] | None:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.proven_style`."""
        return ("torchvision", "by the names of its outputs") if found.names == _NAMES else None
