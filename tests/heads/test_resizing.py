"""How frameworks lay a picture of another shape into the input, and divide boxes."""

from __future__ import annotations

import pytest

from tvmdet.heads import get_head
from tvmdet.heads.centernet import _INPUTS
from tvmdet.heads.libreyolo import libreyolo_input
from tvmdet.spec import InputSpec


def _shown(values: dict) -> tuple[str, str, str]:
    spec = InputSpec(size_hw=(64, 64), **values)
    return spec.rounding, spec.box_scale, spec.interpolation


@pytest.mark.parametrize(
    ("family", "style", "expected"),
    [
        ("retinanet", "torchvision", ("down", "sides", "bilinear")),
        ("fcos", "torchvision", ("down", "sides", "bilinear")),
        ("retinanet", "detectron2", ("half_up", "sides", "area")),  # Pillow
        ("fcos", "detectron2", ("half_up", "sides", "area")),
        ("retinanet", "mmdetection", ("half_up", "sides", "bilinear")),
        ("fcos", "mmdetection", ("half_up", "sides", "bilinear")),
        ("atss", "mmdetection", ("half_up", "sides", "bilinear")),
        ("gfl", "mmdetection", ("half_up", "sides", "bilinear")),
        ("rtmdet", "mmdetection", ("half_up", "sides", "bilinear")),
        ("rtmdet", "mmyolo", ("down", "sides", "area")),
        ("efficientdet", "tensorflow", ("down", "ratio", "bilinear")),
        ("efficientdet", "effdet", ("down", "ratio", "area")),
        ("scrfd", "insightface", ("down", "height", "bilinear")),
    ],
)
def test_styles_resize_as_their_framework(
    family: str, style: str, expected: tuple[str, str, str]
) -> None:
    assert _shown(dict(get_head(family).styles[style].input)) == expected  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(get_head("nanodet_plus").styles["nanodet_plus"].input, id="NanoDet-Plus"),
        pytest.param(get_head("gfl").styles["nanodet"].input, id="NanoDet"),
        pytest.param(_INPUTS["centernet"], id="CenterNet"),
    ],
)
def test_warped_pictures_come_out_of_black(values: dict) -> None:
    assert _shown(dict(values))[2] == "warp"
    assert values["pad_value"] == 0


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("yolo9", ("down", "ratio", "bilinear")),
        ("yolo7", ("down", "ratio", "area")),  # Pillow
        ("yolo3", ("down", "ratio", "area")),
        ("rtmdet", ("down", "ratio", "area")),
        ("efficientdet", ("down", "ratio", "area")),
        ("yolonas", ("nearest", "ratio", "area")),
    ],
)
def test_libreyolos_pictures_are_cut(family: str, expected: tuple[str, str, str]) -> None:
    told = libreyolo_input({"libreyolo_version": "1.6.0", "model_family": family})
    assert told is not None
    assert _shown(told[0]) == expected
