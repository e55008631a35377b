"""Hugging Face's files beside an export: preprocessor_config.json and config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvmdet.counted import counted
from tvmdet.frontend.config_values import is_three_numbers

__all__ = ["read_huggingface"]

_NEAREST = 0  # of Pillow's Image.Resampling
# Processors that resize by ``antialias=False``, which is OpenCV's filter of that number.
_PLAIN_FILTERS = {2: "bilinear", 3: "bicubic"}
_PLAIN_PROCESSORS = (
    "PPDocLayoutV2ImageProcessor",
    "PPDocLayoutV3ImageProcessor",
    "PPDocLayoutV4ImageProcessor",
    "RfDetrImageProcessor",
)

Answer = tuple[dict[str, Any], tuple[int, int] | None, dict[str, str], list[str]]


def read_huggingface(files: Mapping[str, Any]) -> Answer:
    """Reads what the files say.

    ``config.json`` has the labels (``id2label``); ``preprocessor_config.json`` has what an image
    processor does (``transformers/image_processing_utils.py``): pixels times ``rescale_factor``,
    less ``image_mean``, divided by ``image_std``, RGB; sizes as ``height`` and ``width`` stretch,
    ``shortest_edge`` keeps the aspect ratio. ``resample`` is a number of Pillow's, all of whose
    filters but the nearest weigh every pixel of what they shrink, as OpenCV's ``area`` does; some
    processors (``image_processor_type``) leave that away.

    Args:
        files: Parsed files by plain name.

    Returns:
        The spec's keys, the size, hints for the heads and lines for people.
    """
    given: dict[str, Any] = {}
    reasons: list[str] = []
    labels = _labels(files.get("config.json", {}))
    if labels:
        given["labels"] = labels
        reasons.append(f"{counted(len(labels), 'label')} (id2label)")
    processor = files.get("preprocessor_config.json", {})
    size_hw = None
    if processor:
        table, doubt = _normalisation(processor)
        reasons += [f"{doubt}; normalisation is left away"] if doubt else []
        size_hw, resize = _size(processor)
        table.update(resize)
        if resize and type(resample := processor.get("resample")) is int:
            table["interpolation"] = _interpolation(processor, resample)
        if table.get("resize") == "letterbox" and "mean" in table:
            # Zeros are written after the normalisation: the mean colour before it.
            table["pad_value"] = [min(max(round(value), 0), 255) for value in table["mean"]]
        if table:
            given["input"] = table
            reasons.append(f"input {', '.join(table)}")
    return given, size_hw, {}, reasons


def _interpolation(processor: Mapping[str, Any], resample: int) -> str:
    """Returns what OpenCV calls the filter that a processor resizes by."""
    if resample == _NEAREST:
        return "nearest"
    if str(processor.get("image_processor_type", "")).removesuffix("Fast") in _PLAIN_PROCESSORS:
        return _PLAIN_FILTERS.get(resample, "area")
    return "area"


def _labels(config: Mapping[str, Any]) -> list[str]:
    """Returns the names by number, or none where numbers are missing."""
    table = config.get("id2label")
    if not isinstance(table, Mapping):
        return []
    by_number = {int(k): v for k, v in table.items() if str(k).isdecimal() and isinstance(v, str)}
    names = [by_number.get(number, "") for number in range(len(table))]
    return names if all(name.strip() for name in names) else []


def _normalisation(processor: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Returns color, mean and std, or nothing and why."""
    factor = processor.get("rescale_factor", 1 / 255)
    if processor.get("do_rescale", True) is False:
        factor = 1.0
    if not isinstance(factor, int | float) or not math.isfinite(factor) or factor <= 0:
        return {}, f"rescale_factor is {factor!r}, no number above 0"
    mean: Any = [0.0] * 3
    std: Any = [1.0] * 3
    if processor.get("do_normalize", True) is not False:
        mean, std = processor.get("image_mean"), processor.get("image_std")
        if not is_three_numbers(mean) or not is_three_numbers(std) or 0 in std:
            return (
                {},
                "image_mean and image_std are not three numbers each, deviations other than 0",
            )
    table = {
        "color": "rgb",
        "mean": [value / factor for value in mean],
        "std": [value / factor for value in std],
    }
    return table, ""


def _size(processor: Mapping[str, Any]) -> tuple[tuple[int, int] | None, dict[str, Any]]:
    size = processor.get("size")
    if not isinstance(size, Mapping) or processor.get("do_resize", True) is False:
        return None, {}
    height, width = size.get("height"), size.get("width")
    if type(height) is int and type(width) is int and height > 0 and width > 0:
        return (height, width), {"resize": "stretch"}
    if {"shortest_edge", "longest_edge", "max_height"} & set(size):
        return None, {"resize": "letterbox", "pad_position": "top_left"}
    return None, {}
