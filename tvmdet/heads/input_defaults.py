"""Input defaults that families share, and what a graph itself says about its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvmdet.heads.base import GraphSummary

__all__ = ["IMAGENET", "UNIT", "detr_input", "mean_levels", "stated_input"]

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# In pixel units, RGB. ImageNet's statistics are those of torchvision's and most other backbones.
IMAGENET: dict[str, Any] = {
    "color": "rgb",
    "mean": tuple(255 * value for value in _IMAGENET_MEAN),
    "std": tuple(255 * value for value in _IMAGENET_STD),
}
UNIT: dict[str, Any] = {"color": "rgb", "mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)}
_BYTES: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

_CLOSE = 0.02  # of ImageNet's values; exporters round them


def stated_input(summary: GraphSummary) -> tuple[dict[str, Any], str] | None:
    """Returns how pictures are fed to a network that normalises by itself.

    A network that subtracts ImageNet's mean wants what that mean is of: pixels from 0 to 1, or
    from 0 to 255; the order of the mean's channels is that of the picture.

    Returns:
        ``color``, ``mean`` and ``std`` of an InputSpec, and a line for people; None when the
        network normalises nothing, or by other numbers.
    """
    inner = summary.normalisation
    if inner is None:
        return None
    for unit, table in ((1.0, UNIT), (255.0, _BYTES)):
        shown = "0 to 1" if unit == 1 else "0 to 255"
        for color, mean in (("rgb", _IMAGENET_MEAN), ("bgr", _IMAGENET_MEAN[::-1])):
            if _is_close(inner.mean, [value * unit for value in mean], unit):
                line = f"the network normalises {color.upper()} pixels of {shown} by itself"
                return {**table, "color": color}, line
        half = [unit / 2] * 3
        if _is_close(inner.mean, half, unit) and _is_close(inner.std, half, unit):
            line = f"the network turns pixels of {shown} to -1 to 1 by itself; RGB, as is usual"
            return {**table, "color": "rgb"}, line
    return None


def mean_levels(summary: GraphSummary, stated: Mapping[str, Any]) -> tuple[int, int, int]:
    """Returns the border of a network that normalises by itself: zeros, once it has done so.

    torchvision, Detectron2 and MMDetection pad after they normalise (torchvision's
    ``GeneralizedRCNNTransform.batch_images``), that is with the colour that is the mean.

    Args:
        summary: The network, which has a normalisation.
        stated: What :func:`stated_input` says of it.

    Returns:
        Three levels from 0 to 255, in the order of the input's ``color``.
    """
    assert summary.normalisation is not None
    first, second, third = (
        min(max(round(mean * scale + offset), 0), 255)
        for mean, scale, offset in zip(
            summary.normalisation.mean, stated["std"], stated["mean"], strict=True
        )
    )
    return first, second, third


def _is_close(values: Sequence[float], wanted: Sequence[float], unit: float) -> bool:
    return all(
        abs(value - want) <= _CLOSE * unit for value, want in zip(values, wanted, strict=True)
    )


def detr_input(summary: GraphSummary) -> tuple[dict[str, Any], str]:
    """Returns what DETR-like networks with a sigmoid a class are fed, by what the graph shows.

    - RT-DETR, RT-DETRv2, D-FINE, DEIM (queries chosen by a TopK, sampled features, a convolutional
      stem, an encoder with SiLU): RGB from 0 to 1, stretched to the input's size (authors'
      ``configs/*/include/dataloader.yml``; Hugging Face's ``RTDetrImageProcessor`` has no mean).
    - RF-DETR, LW-DETR (a vision transformer's patches): ImageNet's mean and deviation, stretched
      (``rfdetr/detr.py``; square resize in ``datasets/coco.py``).
    - Deformable, Conditional and DAB DETR, DINO: as DETR, ImageNet's mean and deviation, the aspect
      ratio kept (``datasets/coco.py``).
    """
    patches = summary.stem is not None and summary.stem.cuts_patches
    chosen = bool(summary.operators.get("TopK")) and bool(summary.operators.get("GridSample"))
    values: dict[str, Any]
    if patches:
        values = {**IMAGENET, "resize": "stretch"}
        line = "input RGB, ImageNet mean and deviation, stretched: a vision transformer (RF-DETR)"
    elif chosen and summary.gates:
        values = {**UNIT, "resize": "stretch"}
        line = "input RGB / 255, stretched: an encoder with SiLU (RT-DETR, D-FINE)"
    else:
        values = {**IMAGENET, "resize": "letterbox", "pad_position": "top_left"}
        line = (
            "input RGB, ImageNet mean and deviation, letterbox from the top left: as DETR "
            "(Conditional DETR, Deformable DETR, DINO)"
        )
    stated = stated_input(summary)
    if stated is not None:
        values, line = {**values, **stated[0]}, f"{line}, but {stated[1]}"
    return values, line
