"""SSD and SSDLite: default boxes on six or seven grids, a softmax over the classes and nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from tvmdet.heads.anchors import ssd_shapes
from tvmdet.heads.base import GraphSummary, Question, Recognition
from tvmdet.heads.dense import DenseHead, Options, Style
from tvmdet.heads.dense_inputs import IMAGENET_RGB, stretched
from tvmdet.heads.dense_outputs import FoundOutputs
from tvmdet.heads.grids import covering_grids
from tvmdet.heads.input_defaults import says_how
from tvmdet.heads.landmarks import FACE_LANDMARKS
from tvmdet.spec import PostprocessSpec

__all__ = ["SSDHead"]

_STDS = [0.1, 0.1, 0.2, 0.2]  # 1 / (10, 10, 5, 5)
_LARGEST_GROWTH = 62.5  # torchvision's BoxCoder and MMDetection's: 1000 / 16
_STEPS_300 = (8, 16, 32, 64, 100, 300)
_STEPS_512 = (8, 16, 32, 64, 128, 256, 512)
_RATIOS_300 = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
_RATIOS_512 = ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,))
_CELLS_300, _CELLS_512, _CELLS_LITE = (4, 6, 6, 6, 4, 4), (4, 6, 6, 6, 6, 4, 4), (6,) * 6
# Layers of ssd300_vgg16, whose input differs from that of other SSDs built with torchvision.
_VGG16 = {"Conv": 35, "MaxPool": 5}
_CELLS_TENSORFLOW = (3, 6, 6, 6, 6, 6)
# MMDetection's sizes in pixels of a 300 and a 512 image (SSDAnchorGenerator, COCO ratio ranges).
_SIZES_300 = (21, 45, 99, 153, 207, 261, 315)
_SIZES_512 = (20, 51, 133, 215, 296, 378, 460, 542)
_SIZES_LITE = (48, 100, 150, 202, 253, 304, 320)
_STRIDES_LITE = (16, 32, 64, 107, 160, 320)
# Pytorch_Retinaface's data/config.py: squares in pixels, two at a cell.
_SIZES_RETINAFACE = ((16, 32), (64, 128), (256, 512))
_STRIDES_RETINAFACE = (8, 16, 32)
_CELLS_RETINAFACE = (2, 2, 2)
_STRIDES_TENSORFLOW = (16, 32, 64, 128, 256, 512)  # 19, 10, 5, 3, 2 and 1 cells at 300


def _torchvision_ssd300(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of torchvision's ssd300_vgg16 (anchor_utils.DefaultBoxGenerator).

    Scales 0.07 to 1.05 of the image, steps 8 to 300, no side longer than the image.
    """
    if found.per_cell != _CELLS_300 or size_hw != (300, 300):
        return f"it takes 300x300 images and has {_counts(_CELLS_300)} boxes at a cell"
    scales = [size / 300 for size in _SIZES_300]
    return _torchvision(ssd_shapes(scales, _RATIOS_300, (300, 300)), size_hw, list(_STEPS_300))


def _torchvision_ssdlite320(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of torchvision's ssdlite320_mobilenet_v3_large: scales 0.2 to 0.95, no steps."""
    if found.per_cell != _CELLS_LITE:
        return f"it has {_counts(_CELLS_LITE)} boxes at a cell"
    scales = [*(0.2 + 0.75 * level / 5 for level in range(6)), 1.0]
    shapes = ssd_shapes(scales, [(2, 3)] * 6, size_hw)
    return _torchvision(shapes, size_hw, _even_strides(found, size_hw))


def _torchvision(shapes: Sequence[Any], size_hw: tuple[int, int], strides: list[Any]) -> Options:
    height, width = size_hw
    return {
        "anchors": [[[min(w, width), min(h, height)] for w, h in level] for level in shapes],
        "background": "first",
        "box_stds": _STDS,
        "offset": 0.5,
        "size_limits": [0.0, _LARGEST_GROWTH],
        "strides": strides,
    }


def _mmdetection(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of MMDetection's SSD300 and SSD512 (SSDAnchorGenerator)."""
    known = {
        (_CELLS_300, (300, 300)): (_SIZES_300, _RATIOS_300, _STEPS_300),
        (_CELLS_512, (512, 512)): (_SIZES_512, _RATIOS_512, _STEPS_512),
    }
    if (found.per_cell, size_hw) not in known:
        return (
            "they take images of 300x300 or 512x512 and have "
            f"{_counts(_CELLS_300)} or {_counts(_CELLS_512)} boxes at a cell"
        )
    return _mmdetection_boxes(found, size_hw, *known[found.per_cell, size_hw])


def _mmdetection_ssdlite(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of MMDetection's SSDLite at 320 (configs/ssd/ssdlite_mobilenetv2-*_320_coco.py)."""
    if (found.per_cell, size_hw) != (_CELLS_LITE, (320, 320)):
        return f"it takes 320x320 images and has {_counts(_CELLS_LITE)} boxes at a cell"
    return _mmdetection_boxes(found, size_hw, _SIZES_LITE, ((2, 3),) * 6, _STRIDES_LITE)


def _mmdetection_boxes(
    found: FoundOutputs,
    size_hw: tuple[int, int],
    sizes: Sequence[float],
    ratios: Sequence[Sequence[float]],
    strides: Sequence[int],
) -> Options | str:
    if found.grids != covering_grids(size_hw, [(stride, stride) for stride in strides]):
        return f"their strides are {', '.join(map(str, strides))}"
    return {
        "anchors": _mmdetection_shapes(sizes, ratios),
        "background": "last",
        "box_stds": _STDS,
        "offset": 0.5,
        "size_limits": [1 / _LARGEST_GROWTH, _LARGEST_GROWTH],
        "strides": list(strides),
    }


def _mmdetection_shapes(
    sizes: Sequence[float], ratios: Sequence[Sequence[float]]
) -> list[list[list[float]]]:
    # The order is that of the original SSD, which torchvision has too.
    return ssd_shapes(sizes, ratios, (1, 1))


def _tensorflow(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of TensorFlow's SSD MobileNet v1 and v2 (multiple_grid_anchor_generator).

    Scales 0.2 to 0.95; ratios of width to height 1, 2, 1/2, 3, 1/3, then the square in between;
    three boxes at the first level's cells. Boxes come as y, x, height, width.
    """
    if found.per_cell != _CELLS_TENSORFLOW:
        return f"they have {_counts(_CELLS_TENSORFLOW)} boxes at a cell"
    scales = [*(0.2 + 0.75 * level / 5 for level in range(6)), 1.0]
    levels = [[(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)]]
    for scale, following in itertools.pairwise(scales[1:]):
        shapes = [(scale, ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 1 / 3)]
        levels.append([*shapes, (math.sqrt(scale * following), 1.0)])
    height, width = size_hw
    return {
        "anchors": [
            [[s * math.sqrt(r) * width, s / math.sqrt(r) * height] for s, r in level]
            for level in levels
        ],
        "background": "first",
        "box_order": "yxhw",
        "box_stds": _STDS,
        "offset": 0.5,
        "score_activation": "sigmoid",
        "strides": _even_strides(found, size_hw),
    }


def _retinaface(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of biubug6's Pytorch_Retinaface (layers/functions/prior_box.py, utils/box_utils.py).

    The network has the softmax.
    """
    if found.grids != covering_grids(size_hw, [(step, step) for step in _STRIDES_RETINAFACE]):
        return f"its strides are {', '.join(map(str, _STRIDES_RETINAFACE))}"
    return {
        "anchors": [[[side, side] for side in level] for level in _SIZES_RETINAFACE],
        "background": "first",
        "box_stds": _STDS,
        "offset": 0.5,
        "strides": list(_STRIDES_RETINAFACE),
    }


def _even_strides(found: FoundOutputs, size_hw: tuple[int, int]) -> list[list[float]]:
    """Returns strides that divide the image evenly among the cells."""
    return [[size_hw[0] / grid[0], size_hw[1] / grid[1]] for grid in found.grids]


def _landmarks(summary: GraphSummary) -> tuple[str, int]:
    """Returns the output of landmarks beside boxes and two class values, and its columns; or 0."""
    widths = {
        int(value.shape[-1] or 0): name
        for name, value in summary.outputs.items()
        if len(value.shape) == 3
    }
    if len(summary.outputs) != 3 or len(widths) != 3 or not {2, 4} <= set(widths):
        return "", 0
    (columns,) = set(widths) - {2, 4}
    return (widths[columns], columns) if columns > 4 and columns % 2 == 0 else ("", 0)


def _counts(per_cell: Sequence[int]) -> str:
    return "/".join(str(count) for count in per_cell)


def _postprocess(iou_threshold: float, max_detections: int) -> PostprocessSpec:
    return PostprocessSpec(
        # Detectors are measured at 0.001 to 0.02, where a picture has hundreds of boxes.
        score_threshold=0.05,
        iou_threshold=iou_threshold,
        max_detections=max_detections,
        pre_nms_top_k=5000,
        multi_label=True,
    )


class SSDHead(DenseHead):
    """Class logits with a column for the background, and differences to default boxes.

    SSD: Single Shot MultiBox Detector, Liu et al. 2016. The frameworks agree on the order of
    boxes; they differ in where the background's column is, in whether boxes are cut to the image,
    and in colours. torchvision's are claimed by the names of their outputs (``cls_logits``,
    ``bbox_regression``) with the counts of their boxes, SSD300 with the layers of VGG16 besides:
    it has a mean of its own, where other SSDs built with torchvision have ImageNet's.
    """

    name = "ssd"
    title = "SSD and SSDLite, default boxes and a background class (torchvision, MMDetection)"
    coding = "deltas"
    pyramids = (
        (_STEPS_300, _CELLS_300),
        (_STEPS_512, _CELLS_512),
        (_STRIDES_LITE, _CELLS_LITE),
        (_STRIDES_LITE, _CELLS_TENSORFLOW),
        (_STRIDES_TENSORFLOW, _CELLS_TENSORFLOW),
        (_STRIDES_RETINAFACE, _CELLS_RETINAFACE),
    )
    activation = "softmax"
    styles: ClassVar[Mapping[str, Style]] = {
        "torchvision_ssd300": Style(
            about="torchvision's ssd300_vgg16",
            # Its image_mean 0.48235, 0.45882, 0.40784 and image_std 1 / 255, in pixel units.
            input=stretched(
                {
                    "color": "rgb",
                    "mean": (0.48235 * 255, 0.45882 * 255, 0.40784 * 255),
                    "std": (1.0, 1.0, 1.0),
                }
            ),
            postprocess=_postprocess(0.45, 200),
            options=_torchvision_ssd300,
        ),
        "torchvision": Style(
            about="torchvision's SSD with another backbone and the boxes of SSD300",
            input=stretched(IMAGENET_RGB),
            postprocess=_postprocess(0.45, 200),
            options=_torchvision_ssd300,
        ),
        "torchvision_ssdlite320": Style(
            about="torchvision's ssdlite320_mobilenet_v3_large",
            input=stretched({"color": "rgb", "mean": (127.5,) * 3, "std": (127.5,) * 3}),
            postprocess=_postprocess(0.55, 300),
            options=_torchvision_ssdlite320,
        ),
        "mmdetection": Style(
            about="MMDetection's SSD300 and SSD512 (SSDHead)",
            # configs/_base_/models/ssd300.py: the mean alone, as VGG16 of Caffe has it.
            input=stretched({**IMAGENET_RGB, "std": (1.0, 1.0, 1.0)}),
            postprocess=_postprocess(0.45, 200),
            options=_mmdetection,
        ),
        "mmdetection_ssdlite": Style(
            about="MMDetection's SSDLite with MobileNetV2",
            input=stretched(IMAGENET_RGB),
            postprocess=_postprocess(0.45, 200),
            options=_mmdetection_ssdlite,
        ),
        "tensorflow": Style(
            about="TensorFlow's SSD MobileNet v1 and v2",
            input=stretched({"color": "rgb", "mean": (127.5,) * 3, "std": (127.5,) * 3}),
            postprocess=_postprocess(0.6, 100),
            options=_tensorflow,
        ),
        "retinaface": Style(
            about="Pytorch_Retinaface, faces",
            # detect.py: BGR less a mean, not resized; its border is that of the mean.
            input={
                "color": "bgr",
                "mean": (104.0, 117.0, 123.0),
                "std": (1.0, 1.0, 1.0),
                "resize": "letterbox",
                "pad_position": "top_left",
                "pad_value": (104, 117, 123),
            },
            postprocess=_postprocess(0.4, 300),
            options=_retinaface,
        ),
    }

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`; only faces have known anchors."""
        found = super().examine(summary, size_hw, given)
        _, columns = _landmarks(summary)
        told = given.get("options", {}).get("anchors") is not None
        if columns == FACE_LANDMARKS and isinstance(found, Recognition):
            return self._ask_whose_faces(found, given) or found
        if columns in (0, FACE_LANDMARKS) or told or not isinstance(found, Recognition | Question):
            return found
        sides = [[[side, side] for side in level] for level in _SIZES_RETINAFACE]
        return Question(
            f"its boxes have {columns // 2} landmarks each, as what was made of Pytorch_Retinaface "
            "for other things than faces: its anchors are the min_sizes of its configuration",
            spec_text='family = "ssd"\n[options]\nstyle = "retinaface"\n'
            f"anchors = {sides}    # those of faces; of number plates 24 to 768",
        )

    def _ask_whose_faces(self, found: Recognition, given: Mapping[str, Any]) -> Question | None:
        """Asks how pictures are fed to faces without a softmax, which Pytorch_Retinaface's have."""
        settled = given.get("options", {}).get("style") is not None or says_how(given)
        if settled or found.spec.options["score_activation"] == "none":
            return None
        return Question(
            "its boxes are those of Pytorch_Retinaface's faces, but its scores have no softmax: so "
            "they come from the package retinaface-pytorch, which is fed otherwise, and from "
            "Pytorch_Retinaface as it is trained; say what is fed to it",
            spec_text='family = "ssd"\n[options]\nstyle = "retinaface"\n'
            "[input]    # retinaface-pytorch's; Pytorch_Retinaface: without this table\n"
            'color = "rgb"\nmean = [123.675, 116.28, 103.53]\nstd = [58.395, 57.12, 57.375]\n'
            "pad_value = [124, 116, 104]",
        )

    def find(self, summary: GraphSummary, given: Mapping[str, Any]) -> FoundOutputs | str:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.find`; a face's landmarks are no boxes."""
        landmarks, _ = _landmarks(summary)
        kept = {name: value for name, value in summary.outputs.items() if name != landmarks}
        return super().find(replace(summary, outputs=kept), given)

    def landmarks(self, summary: GraphSummary, found: FoundOutputs) -> tuple[str, ...]:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.landmarks`."""
        name, _ = _landmarks(summary)
        return (name,) if name else ()

    def misfit(self, found: FoundOutputs, size_hw: tuple[int, int]) -> str:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.misfit`."""
        counts = found.per_cell
        if counts == _CELLS_RETINAFACE and found.columns == 2:
            return ""
        if len(counts) < 2 or not set(counts) <= {3, 4, 5, 6} or max(counts) < 4:
            return (
                f"its cells have {_counts(counts)} boxes; this family's have 3 to 6, such as "
                f"{_counts(_CELLS_300)}"
            )
        return ""

    def proven_style(
        self, summary: GraphSummary, found: FoundOutputs, size_hw: tuple[int, int]
    ) -> tuple[str, str] | None:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.proven_style`."""
        if _landmarks(summary)[1] == FACE_LANDMARKS and found.per_cell == _CELLS_RETINAFACE:
            return "retinaface", "by five landmarks a box, and two boxes a cell"
        if found.names != {"class": ("cls_logits",), "box": ("bbox_regression",)}:
            return None
        if found.per_cell == _CELLS_300 and size_hw == (300, 300):
            if any(summary.operators.get(name) != count for name, count in _VGG16.items()):
                return None
            return "torchvision_ssd300", "by the names of its outputs and the layers of VGG16"
        if found.per_cell == _CELLS_LITE:
            return "torchvision_ssdlite320", "by the names of its outputs"
        return None
