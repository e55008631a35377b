"""EfficientDet: nine anchors at every cell of five levels, boxes as y, x, height, width."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from tvmdet.heads.base import GraphSummary
from tvmdet.heads.dense import DenseHead, Options, Style
from tvmdet.heads.dense_inputs import IMAGENET_RGB, padded
from tvmdet.heads.dense_outputs import FoundOutputs
from tvmdet.heads.grids import doubling_strides
from tvmdet.spec import PostprocessSpec

__all__ = ["EfficientDetHead"]

_STRIDES = (8, 16, 32, 64, 128)
_HALVES: Mapping[str, Any] = {"color": "rgb", "mean": (127.5,) * 3, "std": (127.5,) * 3}
# Widths and heights of a square of side 1, by source.
_TENSORFLOW = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))
_EFFDET = ((1.0, 1.0), (2**0.5, 0.5**0.5), (0.5**0.5, 2**0.5))


def _options(
    aspects: Sequence[tuple[float, float]], anchor_scale: float
) -> Callable[[FoundOutputs, tuple[int, int], Mapping[str, Any]], Options | str]:
    """Returns the options of EfficientDet with these anchors.

    automl/efficientdet/tf2/anchors.py and effdet/anchors.py: at each cell, for three steps of an
    octave, the shapes in turn, ``anchor_scale`` strides large; a stride is the image's side
    divided by the grid's.
    """

    def options(
        found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Options | str:
        if given.get("strides") is None and doubling_strides(found.grids, size_hw) != _STRIDES:
            return f"its levels have strides {', '.join(map(str, _STRIDES))}"
        strides = [[size_hw[0] / grid[0], size_hw[1] / grid[1]] for grid in found.grids]
        anchors = [
            [
                [
                    anchor_scale * stride_x * 2 ** (octave / 3) * aspect_x,
                    anchor_scale * stride_y * 2 ** (octave / 3) * aspect_y,
                ]
                for octave, (aspect_x, aspect_y) in itertools.product(range(3), aspects)
            ]
            for stride_y, stride_x in strides
        ]
        return {"anchors": anchors, "box_order": "yxhw", "offset": 0.5, "strides": strides}

    return options


def _style(
    about: str,
    aspects: Sequence[tuple[float, float]],
    anchor_scale: float = 4.0,
    pixels: Mapping[str, Any] = IMAGENET_RGB,
    interpolation: str = "bilinear",
) -> Style:
    return Style(
        about=about,
        # int() in google/automl's dataloader.py, which then divides by the ratio.
        input=padded(pixels, {"rounding": "down", "interpolation": interpolation}),
        postprocess=PostprocessSpec(
            # Measured at 0.001, where a picture has hundreds of boxes.
            score_threshold=0.05,
            iou_threshold=0.5,
            max_detections=100,
            pre_nms_top_k=5000,
            multi_label=True,
        ),
        options=_options(aspects, anchor_scale),
    )


class EfficientDetHead(DenseHead):
    """Class logits and differences to anchors of 4 strides (Tan et al. 2020).

    Its outputs have the shapes of RetinaNet's and no names of their own, so that it is never
    claimed without a spec. The models differ in the shapes of anchors: those converted from
    TensorFlow (``tf_efficientdet_*`` and most other ports) have 1.4 by 0.7, effdet's own have
    the root of 2 by its inverse; D7 has anchors of 5 strides, the Lite models of 3, and pixels
    from -1 to 1.
    """

    name = "efficientdet"
    title = "EfficientDet, nine anchors a cell, boxes as y x h w (automl, effdet and ports)"
    coding = "deltas"
    styles: ClassVar[Mapping[str, Style]] = {
        "tensorflow": _style("EfficientDet of automl, tf_efficientdet_d0 to d6", _TENSORFLOW),
        # Its ResizePad resizes with Pillow, which weighs all pixels of a picture that shrinks.
        "effdet": _style("effdet's own efficientdet_d0 and later", _EFFDET, interpolation="area"),
        "tensorflow_d7": _style("EfficientDet D7 of automl", _TENSORFLOW, 5.0),
        "tensorflow_lite": _style(
            "EfficientDet-Lite of automl, tf_efficientdet_lite0 to lite2 and lite3x",
            _TENSORFLOW,
            3.0,
            _HALVES,
        ),
    }
    pyramids = ((_STRIDES, 9),)

    def misfit(self, found: FoundOutputs, size_hw: tuple[int, int]) -> str:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.misfit`."""
        if set(found.per_cell) != {9}:
            return "its cells have not 9 boxes at every level, which this family's have"
        return ""

    def proven_style(
        self, summary: GraphSummary, found: FoundOutputs, size_hw: tuple[int, int]
    ) -> tuple[str, str] | None:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.proven_style`."""
        return None
