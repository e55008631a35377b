"""GFL and the first NanoDet: box sides as distributions, one class tensor and one box tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tvmdet.heads.base import GraphSummary
from tvmdet.heads.dense import DenseHead, Options, Style
from tvmdet.heads.dense_inputs import IMAGENET_RGB, MMDETECTION, RTMDET_BGR, padded, stretched
from tvmdet.heads.dense_outputs import FoundOutputs
from tvmdet.heads.grids import doubling_strides
from tvmdet.spec import PostprocessSpec

__all__ = ["GFLHead", "is_nanodet"]

_STRIDES = (8, 16, 32, 64, 128)
_LEAST_BOX_CHANNELS = 40  # 36 are the nine boxes of RetinaNet
_BOX_CHANNELS = 68  # 4 sides, distances 0 to 16


def is_nanodet(names: tuple[str, ...]) -> bool:
    """Returns whether box outputs are named as NanoDet's export names them."""
    return all(name.startswith("dis_pred_stride") for name in names)


def _options(offset: float) -> Any:
    def options(
        found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Options | str:
        strides = given.get("strides") or doubling_strides(found.grids, size_hw)
        if strides is None:
            return "its strides double from level to level: give options.strides"
        return {
            "offset": offset,
            "reg_max": found.box_channels // 4 - 1,
            "strides": list(strides),
        }

    return options


def _postprocess(iou_threshold: float) -> PostprocessSpec:
    return PostprocessSpec(
        score_threshold=0.05,
        iou_threshold=iou_threshold,
        max_detections=100,
        pre_nms_top_k=5000,
        multi_label=True,
    )


class GFLHead(DenseHead):
    """Class logits and ``4 * (reg_max + 1)`` box channels per level (Li et al. 2020).

    MMDetection's GFL has five levels and a reg_max of 16, and its centres lie at multiples of the
    stride: claimed by that. NanoDet's (before NanoDet-Plus) has centres in the middle of cells:
    claimed by the names of its outputs. PicoDet, with the same kinds of output, has a head of its
    own.
    """

    name = "gfl"
    title = "GFL, LD and NanoDet, class scores and box distributions per level (MMDetection)"
    coding = "distribution"
    styles: ClassVar[Mapping[str, Style]] = {
        "mmdetection": Style(
            about="MMDetection's GFL (GFLHead)",
            input=padded(IMAGENET_RGB, MMDETECTION),
            postprocess=_postprocess(0.6),
            options=_options(0.0),
        ),
        "nanodet": Style(
            about="NanoDet-m",
            # cv2.warpPerspective in nanodet/data/transform/warp.py.
            input={**stretched(RTMDET_BGR), "interpolation": "warp", "pad_value": 0},
            postprocess=_postprocess(0.6),
            options=_options(0.5),
        ),
    }
    pyramids = ((_STRIDES, 1), ((8, 16, 32), 1))
    usual_channels = _BOX_CHANNELS

    def misfit(self, found: FoundOutputs, size_hw: tuple[int, int]) -> str:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.misfit`."""
        if is_nanodet(found.names["box"]):
            return ""
        if found.columns == 4 and found.box_channels != _BOX_CHANNELS:
            boxes, classes = found.names["class"][0], found.names["box"][0]
            return (
                f"{boxes} has 4 channels, which are a box rather than classes, and {classes} has "
                f"{found.box_channels}; this family's boxes have usually 68"
            )
        if len(found.grids) != len(_STRIDES):
            return f"it has {len(found.grids)} levels, as PicoDet may; this family has five"
        if found.box_channels < _LEAST_BOX_CHANNELS:
            return f"{found.box_channels} box channels are few; this family's are usually 68"
        return ""

    def proven_style(
        self, summary: GraphSummary, found: FoundOutputs, size_hw: tuple[int, int]
    ) -> tuple[str, str] | None:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.proven_style`."""
        if is_nanodet(found.names["box"]):
            return "nanodet", "by the names of its outputs"
        usual = doubling_strides(found.grids, size_hw) == _STRIDES
        if usual and found.box_channels == _BOX_CHANNELS:
            return "mmdetection", "by five levels and distances 0 to 16"
        return None
