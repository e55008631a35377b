"""Imports torchvision's Python part beside a torch that its C++ library does not fit.

torchvision has no CPU build for every release of torch. Its detectors need three operators of the
C++ library: nms, roi_align, and a schema for those that are only declared. They are registered
here in plain torch, which is slow and enough to trace and to compare a network once. The ONNX
operators that torchvision's own symbolics write for them are the same as with the library.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["import_torchvision"]

_LIBRARY: list[torch.library.Library] = []

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor",
    "roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width) -> (Tensor, Tensor)",
    "_cuda_version() -> int",
)


def import_torchvision() -> types.ModuleType:
    """Returns torchvision, with operators that work whether or not its library fits.

    The library's own operators are kept where it loads.
    """
    if not _LIBRARY and not hasattr(torch.ops.torchvision, "nms"):
        _register()
    import torchvision
    import torchvision.extension

    if _LIBRARY:
        for place in _has_ops_users():
            place._has_ops = _has_ops
    return torchvision


def _register() -> None:
    """Declares every operator that torchvision's Python part names, and gives two a kernel."""
    library = torch.library.Library("torchvision", "DEF")
    _LIBRARY.append(library)
    for schema in _SCHEMAS:
        library.define(schema)
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("torchvision is not installed")
    source = Path(spec.submodule_search_locations[0], "_meta_registrations.py").read_text()
    names = re.findall(r'(?:torchvision::|register_meta\(")(\w+)"', source)
    for name in sorted(set(names) - {schema.split("(")[0] for schema in _SCHEMAS}):
        # Never called: importing only looks whether there is such an operator.
        library.define(f"{name}(Tensor x) -> Tensor")
    library.impl("nms", _nms, "CPU")
    library.impl("roi_align", _roi_align, "CPU")


def _has_ops() -> bool:
    return True


def _has_ops_users() -> list[types.ModuleType]:
    import torchvision.extension
    import torchvision.ops.roi_align

    # torchvision.ops.roi_align names a function as well as its module.
    return [torchvision.extension, sys.modules["torchvision.ops.roi_align"]]


def _nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression, as torchvision/csrc/ops/cpu/nms_kernel.cpp does it."""
    boxes = dets.detach().numpy()
    order = scores.argsort(descending=True, stable=True).numpy()
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        sides = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        sides -= np.maximum(boxes[best, :2], boxes[rest, :2])
        shared = sides.clip(min=0).prod(axis=1)
        # Compared without a division: two boxes without area do not suppress each other.
        order = rest[~(shared > iou_threshold * (areas[best] + areas[rest] - shared))]
    return torch.tensor(kept, dtype=torch.int64)


def _roi_align(
    features: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """torchvision's own implementation in Python, without compiling it."""
    module = sys.modules["torchvision.ops.roi_align"]
    plain = getattr(module._roi_align, "__wrapped__", module._roi_align)
    return plain(
        features, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned
    )
