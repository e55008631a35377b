"""How pictures are fed to networks that return detections: who is known, who is asked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace

import pytest
from detections_samples import (
    INSIDE,
    TOLD,
    claimed,
    easydeploy,
    tensorflow,
    torchvision,
)
from head_tools import summary_of

from tvmdet.frontend.recognise import recognise
from tvmdet.heads import GraphSummary, TensorSummary, get_head
from tvmdet.heads.base import Normalisation, Question


def test_easydeploys_pictures_lie_in_the_middle() -> None:
    answer = get_head("detections").examine(easydeploy(), (64, 96), {"labels": ["a", "b"]})
    assert isinstance(answer, Question)
    assert tomllib.loads(answer.spec_text)["input"]["pad_position"] == "center"
    fed = claimed(easydeploy(), {**TOLD, "labels": ["a", "b"]}).input
    assert fed.pad_position == "center"
    assert (fed.rounding, fed.scale, fed.interpolation) == ("down", "sides", "area")  # MMYOLO
    stretch = {**TOLD, "input": {**TOLD["input"], "resize": "stretch"}, "labels": ["a", "b"]}
    assert claimed(easydeploy(), stretch).input.interpolation == "bilinear"


def _for_tensorrt(dtype: str) -> GraphSummary:
    return summary_of(
        {"num_dets": (1, 1), "det_boxes": (1, 7, 4), "det_scores": (1, 7), "det_classes": (1, 7)},
        dtypes={"num_dets": "int32", "det_classes": "int32"},
        operators={"BoundedNonMaxSuppression": 1},
        inputs={"input": TensorSummary(shape=(1, 3, 64, 96), dtype=dtype)},
    )


def test_bytes_for_tensorrt_are_super_gradients() -> None:
    spec = claimed(_for_tensorrt("uint8"), {"labels": ["a", "b"]})
    assert spec.input.pad_position == "center"


def test_yolo_for_tensorrt_asks_for_what_its_letterbox_is_filled_in() -> None:
    """YOLOv6, YOLOv7 and YOLOv9 lay pictures into the middle; the text that is printed says so."""
    found = get_head("detections").examine(
        _for_tensorrt("float32"), (64, 96), {"labels": ["a", "b"]}
    )
    assert isinstance(found, Question)
    told = tomllib.loads(found.spec_text)
    assert told["input"].pop("pad_position") == "center"
    spec = claimed(_for_tensorrt("float32"), {**told, "labels": ["a", "b"]})
    assert spec.input.pad_position == "center"


@pytest.mark.parametrize(("reverses", "color"), [(True, "bgr"), (False, "rgb")])
def test_yolo_for_tensorrt_with_its_preprocessing_is_fed_levels(reverses: bool, color: str) -> None:
    """YOLOv6's ``--with-preprocess`` turns the channels around and divides by 255."""
    inner = Normalisation(mean=(0.0,) * 3, std=(255.0,) * 3, reverses=reverses)
    summary = replace(_for_tensorrt("float32"), normalisation=inner)
    told = claimed(summary, {"labels": ["a", "b"]}).input
    assert (told.color, told.std, told.pad_position) == (color, (1.0,) * 3, "center")


def test_other_detections_ask_where_a_picture_lies() -> None:
    summary = summary_of({"dets": (1, 7, 5), "labels": (1, 7)}, dtypes={"labels": "int64"})
    found = get_head("detections").examine(summary, (64, 96), {"labels": ["a", "b"]})
    assert isinstance(found, Question)
    assert tomllib.loads(found.spec_text)["input"]["pad_position"] == "top_left"


LABELLED = {
    "labels": ["a", "b"],
    "options": {"label_offset": 1},
    "input": {"resize": "letterbox"},
}


@pytest.mark.parametrize(
    "inner",
    [None, Normalisation(mean=(127.5,) * 3, std=(127.5,) * 3)],
    ids=["unknown", "to -1..1 inside"],
)
def test_the_resizer_of_the_object_detection_api_is_asked_for(inner: Normalisation | None) -> None:
    """Its SSDs stretch what its Faster R-CNNs and CenterNets keep the aspect ratio of."""
    network = tensorflow(normalisation=inner)
    given = {key: value for key, value in LABELLED.items() if key != "input"}
    found = get_head("detections").examine(network, (64, 96), given)
    assert isinstance(found, Question)
    told = tomllib.loads(found.spec_text)
    assert recognise(network, (64, 96), {**given, **told}).spec.input.resize == "stretch"
    spec = claimed(network, LABELLED)
    assert (spec.input.resize, spec.input.pad_position) == ("letterbox", "top_left")


@pytest.mark.parametrize(
    ("reverses", "color"), [(None, "rgb"), (False, "rgb"), (True, "bgr")], ids=str
)
def test_bytes_have_the_colours_that_the_network_takes(reverses: bool | None, color: str) -> None:
    # By numbers that say nothing of colours.
    plain = Normalisation(mean=(9.0,) * 3, std=(3.0,) * 3)
    inner = None if reverses is None else replace(plain, reverses=reverses)
    spec = claimed(tensorflow(normalisation=inner), LABELLED)
    assert spec.input.color == color


@pytest.mark.parametrize(
    ("normalisation", "operators", "border"),
    [
        (INSIDE, {"RoiAlign": 2, "Softmax": 1}, (124, 116, 104)),
        (INSIDE, {"Sigmoid": 1}, (124, 116, 104)),
        (
            Normalisation(mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0)),
            {"RoiAlign": 2, "Softmax": 1},
            (104, 116, 124),
        ),
        (Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3), {"Sigmoid": 1}, (128, 128, 128)),
        (Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3), {"Softmax": 1}, None),
        (
            Normalisation(mean=(0.48235, 0.45882, 0.40784), std=(1 / 255,) * 3),
            {"Softmax": 1},
            None,
        ),
    ],
)
def test_the_border_is_what_the_network_normalises_to_zero(
    normalisation: Normalisation,
    operators: Mapping[str, int],
    border: tuple[int, int, int] | None,
) -> None:
    counts = {"BoundedNonMaxSuppression": 1, **operators}
    spec = claimed(torchvision(normalisation=normalisation, operators=counts))
    if border is None:
        assert spec.input.resize == "stretch"
    else:
        assert (spec.input.resize, spec.input.pad_position) == ("letterbox", "top_left")
        assert spec.input.pad_value == border
