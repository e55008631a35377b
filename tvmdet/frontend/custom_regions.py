"""MMDeploy's nodes that pick rows and pool regions for TensorRT, in standard ONNX.

``GatherTopk`` takes rows of each picture by their places, ``MMCVMultiLevelRoiAlign`` pools each
region on the level of the pyramid that goes with its size (``gather_topk`` and
``multi_level_roi_align`` of MMDeploy's ``csrc/mmdeploy/backend_ops/tensorrt``; Feature Pyramid
Networks, Lin et al. 2017, equation 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tvmdet.errors import UnsupportedOperatorError
from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.onnx_tools import describe
from tvmdet.frontend.replacement import Replacement

__all__ = ["gather_top_k", "pool_levels"]

_LARGEST = 1024  # rows of bins and samples; R-CNNs have 7 or 14


def gather_top_k(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Returns the nodes of ``rows[n, places[n, k], ...]``, for opset 13 and later.

    Args:
        node: Its inputs are rows ``[N, A, ...]`` and places ``[N, K]``.
    """
    nodes = Replacement(node)
    places = nodes.node("Cast", node.input[1], to=TensorProto.INT64)
    apart = nodes.node("Unsqueeze", places, nodes.constant([-1]))
    picked = nodes.node("GatherND", node.input[0], apart, batch_dims=1)
    nodes.rename(picked, node.output[0])
    return nodes.nodes


def pool_levels(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Returns the nodes of a RoiAlign on every level and the choice of one, for opset 16 and later.

    Every level pools every region: which ones a level has is not known before the picture is.

    Args:
        node: Its inputs are regions ``[K, 5]`` (picture, two corners in pixels) and the maps.

    Raises:
        UnsupportedOperatorError: A setting is not one of those that MMDeploy gives it for RoIAlign.
    """
    regions, *maps = node.input
    strides, finest = _settings(node, len(maps))
    nodes = Replacement(node)
    boxes = nodes.node("Gather", regions, nodes.constant([1, 2, 3, 4]), axis=1)
    picture = nodes.node("Gather", regions, nodes.constant(0), axis=1)
    picture = nodes.node("Cast", picture, to=TensorProto.INT64)
    level = _level(nodes, boxes, finest, len(maps))
    is_aligned = bool(_whole(node, "aligned", 0))
    shared: dict[str, Any] = {
        "coordinate_transformation_mode": "half_pixel" if is_aligned else "output_half_pixel",
        "mode": "avg",
        "output_height": _whole(node, "output_height", 1),
        "output_width": _whole(node, "output_width", 1),
        "sampling_ratio": _whole(node, "sampling_ratio", 0),
    }
    pooled = ""
    for index, (values, stride) in enumerate(zip(maps, strides, strict=True)):
        own = nodes.node("RoiAlign", values, boxes, picture, spatial_scale=1 / stride, **shared)
        if pooled:
            is_own = nodes.node("Equal", level, nodes.constant(index, np.float32))
            own = nodes.node("Where", is_own, own, pooled)
        pooled = own
    nodes.rename(pooled, node.output[0])
    return nodes.nodes


def _level(nodes: Replacement, boxes: str, finest: float, count: int) -> str:
    """Adds the level of each region, ``[K, 1, 1, 1]``: how often its size doubles the finest."""
    # Regions may be of 16 bits, which hold no area above 65504.
    boxes = nodes.node("Cast", boxes, to=TensorProto.FLOAT)
    corners = [nodes.node("Gather", boxes, nodes.constant([at]), axis=1) for at in range(4)]
    sides = [nodes.node("Sub", corners[at + 2], corners[at]) for at in range(2)]
    area = nodes.node("Max", nodes.node("Mul", *sides), nodes.constant(0, np.float32))
    share = nodes.node("Div", nodes.node("Sqrt", area), nodes.constant(finest, np.float32))
    share = nodes.node("Add", share, nodes.constant(1e-6, np.float32))
    doubled = nodes.node("Div", nodes.node("Log", share), nodes.constant(math.log(2), np.float32))
    limits = [nodes.constant(limit, np.float32) for limit in (0, count - 1)]
    level = nodes.node("Clip", nodes.node("Floor", doubled), *limits)
    return nodes.node("Reshape", level, nodes.constant([-1, 1, 1, 1]))


def _settings(node: onnx.NodeProto, maps: int) -> tuple[Sequence[float], float]:
    """Returns the strides of the maps and the size of a region of the finest one.

    Raises:
        UnsupportedOperatorError: They are others than MMDeploy writes, or regions are to be grown.
    """
    strides, finest = attribute(node, "featmap_strides", ()), attribute(node, "finest_scale", 56)
    mode, grown = attribute(node, "pool_mode", 1), attribute(node, "roi_scale_factor", 1.0)
    listed = isinstance(strides, Sequence) and len(strides) == maps > 0
    if not listed or not all(_is_above(number, 0) for number in (*strides, finest)):
        raise UnsupportedOperatorError(
            f"{describe(node)} has featmap_strides {strides!r} and finest_scale {finest!r} for "
            f"{maps} maps; allowed: a stride above 0 for each; export it again with MMDeploy"
        )
    if mode != 1 or grown != 1:
        raise UnsupportedOperatorError(
            f"{describe(node)} has pool_mode {mode!r} and roi_scale_factor {grown!r}; allowed: 1 "
            "(average) and 1.0; export the model for ONNX Runtime"
        )
    return strides, float(finest)


def _whole(node: onnx.NodeProto, key: str, least: int) -> int:
    """Returns a setting that is a whole number; the least one where it is left away.

    Raises:
        UnsupportedOperatorError: It is something else.
    """
    value = attribute(node, key, least)
    if type(value) is not int or not least <= value <= _LARGEST:
        raise UnsupportedOperatorError(
            f"{describe(node)} has {key} {value!r}; allowed: {least} to {_LARGEST}; export it "
            "again with MMDeploy"
        )
    return value


def _is_above(number: object, least: float) -> bool:
    return isinstance(number, int | float) and least < number < math.inf
