"""How frameworks prepare an image, as arguments of :class:`~tvmdet.spec.InputSpec`.

torchvision, Detectron2 and MMDetection resize the shorter side, then pad to a multiple of the
stride with zeros, after normalisation. A network of fixed size sees the same pixels in a letterbox
at the top left whose border has the mean colour, rounded to whole pixels. The sides of the picture
they make whole in three ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = [
    "CAFFE_BGR",
    "DETECTRON2",
    "IMAGENET_BGR_255",
    "IMAGENET_MEAN",
    "IMAGENET_RGB",
    "IMAGENET_STD",
    "MMDETECTION",
    "MMYOLO",
    "RTMDET_BGR",
    "TORCHVISION",
    "padded",
    "stretched",
]

# Means and deviations in pixel units, in the order of "color". ImageNet's, of RGB: 0.485, 0.456,
# 0.406 and 0.229, 0.224, 0.225 times 255; of torchvision, MMDetection and most backbones.
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
IMAGENET_RGB: Mapping[str, Any] = MappingProxyType(
    {"color": "rgb", "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
)
# Detectron2's defaults.py (MODEL.PIXEL_MEAN, PIXEL_STD), for backbones converted from Caffe.
IMAGENET_BGR_255: Mapping[str, Any] = MappingProxyType(
    {"color": "bgr", "mean": IMAGENET_MEAN[::-1], "std": (1.0, 1.0, 1.0)}
)
# MMDetection's fcos_r50-caffe configs.
CAFFE_BGR: Mapping[str, Any] = MappingProxyType(
    {"color": "bgr", "mean": (102.9801, 115.9465, 122.7717), "std": (1.0, 1.0, 1.0)}
)
# MMDetection's RTMDet configs and NanoDet's: BGR means of ImageNet with its deviations.
RTMDET_BGR: Mapping[str, Any] = MappingProxyType(
    {"color": "bgr", "mean": IMAGENET_MEAN[::-1], "std": IMAGENET_STD[::-1]}
)
# MMCV's rescale_size: int(side * ratio + 0.5); boxes are divided side by side.
MMDETECTION: Mapping[str, Any] = MappingProxyType({"rounding": "half_up", "scale": "sides"})
# ResizeShortestEdge, likewise, by Pillow, which weighs all pixels of a picture that shrinks.
DETECTRON2: Mapping[str, Any] = MappingProxyType({**MMDETECTION, "interpolation": "area"})
# GeneralizedRCNNTransform: torch's interpolate cuts; resize_boxes divides side by side.
TORCHVISION: Mapping[str, Any] = MappingProxyType({"rounding": "down", "scale": "sides"})
# YOLOv5KeepRatioResize, before LetterResize.
MMYOLO: Mapping[str, Any] = MappingProxyType({**TORCHVISION, "interpolation": "area"})


def padded(
    colors: Mapping[str, Any], framework: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Returns the letterbox at the top left, padded with zeros after normalisation.

    Args:
        colors: Channel order, mean and deviation.
        framework: How it resizes, beyond that.
    """
    return {
        **colors,
        **framework,
        "resize": "letterbox",
        "pad_position": "top_left",
        "pad_value": tuple(round(value) for value in colors["mean"]),
    }


def stretched(colors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the resize that does not keep the aspect ratio."""
    return {**colors, "resize": "stretch"}
