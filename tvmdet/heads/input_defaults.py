"""Input defaults that families share, and what a graph itself says about its input."""

from __future__ import annotations

from typing import Any

from tvmdet.heads.base import GraphSummary, Normalisation

__all__ = ["IMAGENET", "UNIT", "stated_input"]

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
        for color in ("rgb", "bgr"):
            if _is_imagenet(inner, unit, color):
                shown = "0 to 1" if unit == 1 else "0 to 255"
                line = f"the network normalises {color.upper()} pixels of {shown} by itself"
                return {**table, "color": color}, line
    return None


def _is_imagenet(inner: Normalisation, unit: float, color: str) -> bool:
    order = slice(None) if color == "rgb" else slice(None, None, -1)
    wanted = [value * unit for value in _IMAGENET_MEAN[order]]
    if any(abs(got - want) > _CLOSE * unit for got, want in zip(inner.mean, wanted, strict=True)):
        return False
    # Caffe's backbones divide by 1 after subtracting the mean of bytes.
    ratios = [std / unit for std in inner.std]
    divided = [abs(got - want) < _CLOSE for got, want in zip(ratios, _IMAGENET_STD, strict=True)]
    return (
        all(divided)
        or (all(abs(std - 1) < _CLOSE for std in inner.std) and unit > 1)
        or (
            color == "bgr"
            and all(
                abs(got - want) < _CLOSE
                for got, want in zip(ratios, _IMAGENET_STD[::-1], strict=True)
            )
        )
    )
