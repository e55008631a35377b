"""RetinaNet: nine anchors at every cell of five levels, a sigmoid for every class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tvmdet.heads.anchors import octave_sizes
from tvmdet.heads.base import GraphSummary
from tvmdet.heads.dense import DenseHead, Options, Style
from tvmdet.heads.dense_inputs import (
    DETECTRON2,
    IMAGENET_BGR_255,
    IMAGENET_RGB,
    MMDETECTION,
    TORCHVISION,
    padded,
)
from tvmdet.heads.dense_layout import stride_pairs
from tvmdet.heads.dense_outputs import FoundOutputs
from tvmdet.heads.grids import doubling_strides
from tvmdet.spec import PostprocessSpec

__all__ = ["RetinaNetHead"]

_STRIDES = (8, 16, 32, 64, 128)
_BASE_SIZES = tuple(4 * stride for stride in _STRIDES)
_RATIOS = [0.5, 1.0, 2.0]  # height / width
# torchvision's BoxCoder, Detectron2's Box2BoxTransform: no growth beyond log(1000 / 16).
_LARGEST_GROWTH = 62.5


def _torchvision(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of torchvision's retinanet_resnet50_fpn (anchor_utils.AnchorGenerator).

    Sizes are whole numbers, half anchors are rounded, a stride is the image's side divided by the
    grid's, rounded down, and the first centre lies at 0.
    """
    if given.get("strides") is None and doubling_strides(found.grids, size_hw) != _STRIDES:
        return f"its levels have strides {', '.join(map(str, _STRIDES))}"
    sizes = [[size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))] for size in _BASE_SIZES]
    return {
        "anchors": {
            "sizes": sizes,
            "ratios": _RATIOS,
            "order": "ratios_first",
            "rounded": True,
        },
        "offset": 0.0,
        "size_limits": [0.0, _LARGEST_GROWTH],
        "strides": [[size_hw[0] // grid[0], size_hw[1] // grid[1]] for grid in found.grids],
    }


def _keras_hub(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of keras_hub's RetinaNetObjectDetector: torchvision's, and growth without limits."""
    options = _torchvision(found, size_hw, given)
    return options if isinstance(options, str) else {**options, "size_limits": [0.0, 0.0]}


def _detectron2(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of Detectron2's RetinaNet (configs/common/models/retinanet.py)."""
    return _regular(found, size_hw, given, "sizes_first", [0.0, _LARGEST_GROWTH])


def _mmdetection(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of MMDetection's RetinaHead with AnchorGenerator(octave_base_scale=4).

    DeltaXYWHBBoxCoder limits the growth at both ends (wh_ratio_clip = 16 / 1000).
    """
    limits = [1 / _LARGEST_GROWTH, _LARGEST_GROWTH]
    return _regular(found, size_hw, given, "ratios_first", limits)


def _regular(
    found: FoundOutputs,
    size_hw: tuple[int, int],
    given: Mapping[str, Any],
    order: str,
    limits: list[float],
) -> Options | str:
    """Sizes of four strides and two octave steps above, centres at multiples of the stride."""
    wanted = given.get("strides")
    strides = doubling_strides(found.grids, size_hw) if wanted is None else wanted
    if strides is None:
        return "its strides double from level to level: give options.strides"
    sides = [max(pair) for pair in stride_pairs(list(strides))]
    return {
        "anchors": {
            "sizes": octave_sizes(sides, 4.0),
            "ratios": _RATIOS,
            "order": order,
            "rounded": False,
        },
        "offset": 0.0,
        "size_limits": limits,
        "strides": list(strides),
    }


_POSTPROCESS = PostprocessSpec(
    score_threshold=0.05,
    iou_threshold=0.5,
    max_detections=100,
    pre_nms_top_k=5000,
    multi_label=True,
)


class RetinaNetHead(DenseHead):
    """Class logits and differences to anchors of 32 to 512 pixels (Lin et al. 2017).

    The frameworks differ: torchvision and keras_hub round the anchors, Detectron2 lists all shapes
    of a size first, MMDetection and torchvision all sizes of a shape; so does the input. Only
    torchvision's is claimed, by the names of its outputs (``cls_logits``, ``bbox_regression``) with
    the counts of its anchors, and keras_hub's, which took those names over, where the picture has
    its channels last; of others the user must say which framework made it.

    Candidates are the best 1000 of each level there, the best 5000 of all levels here.
    """

    name = "retinanet"
    title = "RetinaNet, nine anchors a cell (torchvision, Detectron2, MMDetection, keras_hub)"
    coding = "deltas"
    styles: ClassVar[Mapping[str, Style]] = {
        "torchvision": Style(
            about="torchvision's retinanet_resnet50_fpn",
            input=padded(IMAGENET_RGB, TORCHVISION),
            postprocess=PostprocessSpec(
                score_threshold=0.05,
                iou_threshold=0.5,
                max_detections=300,
                pre_nms_top_k=5000,
                multi_label=True,
            ),
            options=_torchvision,
        ),
        "detectron2": Style(
            about="Detectron2's RetinaNet",
            input=padded(IMAGENET_BGR_255, DETECTRON2),
            postprocess=_POSTPROCESS,
            options=_detectron2,
        ),
        "mmdetection": Style(
            about="MMDetection's RetinaNet (RetinaHead)",
            input=padded(IMAGENET_RGB, MMDETECTION),
            postprocess=_POSTPROCESS,
            options=_mmdetection,
        ),
        "keras_hub": Style(
            about="keras_hub's RetinaNetObjectDetector",
            input={**IMAGENET_RGB, "resize": "letterbox", "pad_position": "center", "pad_value": 0},
            postprocess=PostprocessSpec(
                score_threshold=0.5,
                iou_threshold=0.5,
                max_detections=100,
                pre_nms_top_k=5000,
                class_agnostic=True,
            ),
            options=_keras_hub,
        ),
    }
    pyramids = ((_STRIDES, 9),)

    def misfit(self, found: FoundOutputs, size_hw: tuple[int, int]) -> str:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.misfit`."""
        if set(found.per_cell) != {9}:
            counts = "/".join(str(count) for count in found.per_cell)
            return f"its cells have {counts} boxes; this family's have 9 at every level"
        return ""

    def proven_style(
        self, summary: GraphSummary, found: FoundOutputs, size_hw: tuple[int, int]
    ) -> tuple[str, str] | None:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.proven_style`."""
        named = found.names == {"class": ("cls_logits",), "box": ("bbox_regression",)}
        if named and len(found.grids) == len(_STRIDES):
            if summary.channels_last:
                return "keras_hub", "by the names of its outputs and the channels, which come last"
            return "torchvision", "by the names of its outputs"
        return None
