"""YOLOv8's raw maps: they decode to what the network's own decoding says."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yolo_models
from yolo_cases import (
    RAW,
    SCORES,
    SIZE,
    assert_decodes,
    columns,
    compile_and_detect,
    decode,
    random_outputs,
    run_onnx,
    slow,
    sorted_rows,
    summary,
    summary_of,
)

from tvmdet.errors import InputError, ModelError, ShapeError
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import GraphSummary, Question, get_head

HEAD = get_head("yolov8_maps")


def _maps(**channels: int) -> dict[str, tuple[int, ...]]:
    """Outputs of every level, so many channels of each kind."""
    return {
        f"{kind}{stride}": (1, count, SIZE[0] // stride, SIZE[1] // stride)
        for kind, count in channels.items()
        for stride in (8, 16, 32)
    }


@pytest.mark.parametrize(
    ("channels", "given"),
    [
        ({"box": 64, "cls": 3}, {}),
        ({"cls": 3, "sum": 1, "box": 64}, {}),
        ({"m": 67}, {"labels": ["a", "b", "c"], "options": {"map_order": "boxes_first"}}),
        ({"box": 4, "cls": 3}, {"family": "yolov8_maps", "options": {"bins": 1}}),
    ],
)
def test_decodes(channels: Mapping[str, int], given: Mapping[str, Any]) -> None:
    got = summary(_maps(**channels))
    found = recognise(got, SIZE, given)
    assert found.family == "yolov8_maps"
    assert found.spec.options["score_activation"] == "sigmoid"
    assert_decodes(found.spec, random_outputs(got, batch=2))


def test_decodes_a_known_box() -> None:
    got = summary(_maps(box=64, cls=3))
    found = recognise(got, SIZE, {})
    outputs = {name: np.zeros(value.shape, np.float32) for name, value in got.outputs.items()}
    # Cell (row 1, column 2) of stride 16: centre (40, 24); distances 1, 2, 3, 0 cells.
    for side, distance in enumerate((1, 2, 3, 0)):
        outputs["box16"][0, side * 16 + distance, 1, 2] = 100
    outputs["cls16"][0, :, 1, 2] = [0, 100, -100]
    boxes, scores = decode(found.spec, outputs)
    np.testing.assert_allclose(boxes[0, 96 + 8], [24, -8, 88, 24], atol=1e-3)
    np.testing.assert_allclose(scores[0, 96 + 8], [0.5, 1, 0], atol=1e-6)


@pytest.mark.parametrize("form", ["split", "joined", "rknn"])
def test_maps_mean_what_the_decoded_export_says(form: str) -> None:
    rows = []
    for cut in (form, "rows"):
        model = yolo_models.yolov8(cut)
        found = recognise(summary_of(model), SIZE, {})
        assert found.family == ("yolov8" if cut == "rows" else "yolov8_maps")
        rows.append(
            sorted_rows(get_head(found.family).decode_reference(run_onnx(model), found.spec))
        )
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("got", "reason"),
    [
        (summary({}), "no outputs"),
        (summary({"o": (1, 7, 126)}), "raw maps are"),
        (summary(_maps(box=64)), "which are not 4 x 16 distances and classes"),
        (summary(_maps(box=32, cls=3)), "32 channels, .*this family's are 4 x 16 and classes"),
        (summary(_maps(a=64, b=64)), "a8 with 64 channels, b8 with 64 channels"),
        (summary(_maps(box=64, cls=3), task="pose"), "keypoints"),
        (summary(_maps(box=64, cls=3), names="['a']"), "name 1 classes"),
        (summary({**_maps(box=64, cls=3), "cls8": (1, 4, 8, 12)}), "different numbers of classes"),
    ],
)
def test_refuses(got: GraphSummary, reason: str) -> None:
    answer = HEAD.examine(got, SIZE, {})
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


def test_one_map_asks_for_the_classes() -> None:
    answer = HEAD.examine(summary(_maps(m=67)), SIZE, {})
    assert isinstance(answer, Question)
    assert "may be 4 x 16 distances and 3 classes" in answer


def _joined(first: int, second: int, scores: bool = False) -> GraphSummary:
    """One map a level, of two that the graph joins."""
    runs = {(f"m{s}", 1): columns((first, SCORES), (second, RAW)) for s in (8, 16, 32)}
    parts = {
        f"m{s}": tuple((1, count, SIZE[0] // s, SIZE[1] // s) for count in (first, second))
        for s in (8, 16, 32)
    }
    made = summary(_maps(m=first + second), runs if scores else {})
    return replace(made, output_maps=parts)


@pytest.mark.parametrize("scores", [False, True])
def test_classes_may_come_first_in_one_map(scores: bool) -> None:
    """MMYOLO's easydeploy with --model-only, told by the maps that the graph joins."""
    got = _joined(3, 64, scores)
    found = recognise(got, SIZE, {"family": "yolov8_maps"})
    assert found.spec.options["map_order"] == "classes_first"
    assert found.spec.options["score_activation"] == ("none" if scores else "sigmoid")
    assert_decodes(found.spec, random_outputs(got, batch=2))
    outputs = {name: np.zeros(value.shape, np.float32) for name, value in got.outputs.items()}
    for side, distance in enumerate((1, 2, 3, 0)):
        outputs["m16"][0, 3 + side * 16 + distance, 1, 2] = 100
    outputs["m16"][0, :3, 1, 2] = [0, 1, 0] if scores else [0, 100, -100]
    boxes, made = decode(found.spec, outputs)
    np.testing.assert_allclose(boxes[0, 96 + 8], [24, -8, 88, 24], atol=1e-3)
    np.testing.assert_allclose(made[0, 96 + 8], [0 if scores else 0.5, 1, 0], atol=1e-6)


def test_order_of_one_map() -> None:
    assert _order(_joined(64, 3)) == "boxes_first"
    assert _order(summary(_maps(m=67), author="Ultralytics")) == "boxes_first"
    assert _order(_joined(3, 64), map_order="boxes_first") == "boxes_first"
    with pytest.raises(InputError, match="map_order"):
        _order(_joined(3, 64), map_order="first")


def _order(got: GraphSummary, **options: str) -> str:
    given = {"family": "yolov8_maps", "options": options}
    return str(recognise(got, SIZE, given).spec.options["map_order"])


@pytest.mark.parametrize("got", [_joined(64, 64), summary(_maps(m=128)), summary(_maps(m=67))])
def test_order_of_one_map_is_asked_for_where_nothing_says_it(got: GraphSummary) -> None:
    """As many classes as distances, or maps that the graph does not join."""
    answer = HEAD.examine(got, SIZE, {"family": "yolov8_maps"})
    assert isinstance(answer, Question)
    assert "nothing says which come first" in answer
    given = tomllib.loads(answer.spec_text)
    assert _order(got, **given["options"]) == "boxes_first"


@pytest.mark.parametrize("turned", [False, True])
def test_scores_say_the_order_of_one_map(turned: bool) -> None:
    kinds = [(64, SCORES), (64, RAW)] if turned else [(64, RAW), (64, SCORES)]
    runs = {(f"m{stride}", 1): columns(*kinds) for stride in (8, 16, 32)}
    got = replace(_joined(64, 64), columns=runs)
    assert _order(got) == ("classes_first" if turned else "boxes_first")


@pytest.mark.parametrize("bins", [1, 17])
def test_distances_of_another_number_are_asked_for_in_rknns_form(bins: int) -> None:
    """YOLOv6 and PP-YOLOE: told by the sum of the class scores, cut at 1."""
    maps = _maps(box=4 * bins, cls=3, sum=1)
    runs = {(f"cls{stride}", 1): columns((3, SCORES)) for stride in (8, 16, 32)}
    plain = summary(maps, runs)
    assert not isinstance(HEAD.examine(plain, SIZE, {}), Question)
    sources = {f"sum{stride}": frozenset({"Clip"}) for stride in (8, 16, 32)}
    got = replace(plain, output_sources=sources)
    answer = HEAD.examine(got, SIZE, {})
    assert isinstance(answer, Question)
    assert f"4 x {bins} distances of YOLOv6 or PP-YOLOE" in answer
    found = recognise(got, SIZE, tomllib.loads(answer.spec_text))
    assert (found.spec.options["bins"], found.spec.options["score_activation"]) == (bins, "none")
    assert_decodes(found.spec, random_outputs(got, batch=2))


@pytest.mark.parametrize("order", ["boxes_first", "classes_first"])
def test_the_sigmoid_is_looked_for_where_a_spec_puts_the_classes(order: str) -> None:
    """Also where the graph does not say of what maps an output was joined."""
    parts = (64, 3) if order == "boxes_first" else (3, 64)
    got = replace(_joined(*parts), output_maps={})
    kinds = {64: RAW, 3: SCORES}
    runs = {(f"m{s}", 1): columns(*((part, kinds[part]) for part in parts)) for s in (8, 16, 32)}
    given = {"family": "yolov8_maps", "options": {"map_order": order}}
    assert recognise(got, SIZE, given).spec.options["score_activation"] == "sigmoid"
    found = recognise(replace(got, columns=runs), SIZE, given)
    assert found.spec.options["score_activation"] == "none"


def test_one_map_of_other_parts_is_not_asked_about() -> None:
    """RTMDet of MMYOLO's easydeploy: 80 classes and four distances, not 20 and four times 16."""
    answer = HEAD.examine(_joined(80, 4), SIZE, {})
    assert not isinstance(answer, Question)
    assert "m8 joins 80 and 4 channels; this family's are 4 x 16 and classes" in answer


def test_sixty_four_classes_are_told_by_their_sigmoid() -> None:
    runs = {(f"cls{s}", 1): columns((64, SCORES)) for s in (8, 16, 32)}
    runs |= {(f"box{s}", 1): columns((64, RAW)) for s in (8, 16, 32)}
    options = recognise(summary(_maps(box=64, cls=64), runs), SIZE, {}).spec.options
    assert options["class_outputs"] == ["cls8", "cls16", "cls32"]
    assert options["score_activation"] == "none"


def test_picodet_does_not_claim_sixteen_distances() -> None:
    answer = get_head("picodet").examine(summary(_maps(box=64, cls=3)), SIZE, {})
    assert isinstance(answer, str)
    assert "as YOLOv8's are" in answer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 0}, "options.bins is 0; allowed: a whole number from 1 to 64"),
        ({"strides": [8, 16]}, "strides has 2 entries for 3 box_outputs"),
        ({"strides": [8, 16, 64]}, r"the spec needs \[N, 64, 1, 1\]"),
        ({"score_activation": "softmax"}, "allowed: none, sigmoid"),
        ({"reg_max": 16}, "unknown options.reg_max"),
        ({"box_outputs": ["box8", "box8"]}, "a list of different outputs"),
    ],
)
def test_options_are_checked(options: Mapping[str, Any], message: str) -> None:
    given = {"family": "yolov8_maps", "options": options}
    with pytest.raises(InputError, match=message):
        recognise(summary(_maps(box=64, cls=3)), SIZE, given)


def test_wrong_outputs_are_refused() -> None:
    found = recognise(summary(_maps(box=64, cls=3)), SIZE, {})
    with pytest.raises(ShapeError, match="the network's outputs: other"):
        decode(found.spec, {"other": np.zeros((1, 64, 8, 12), np.float32)})


def test_unknown_pyramids_are_not_claimed() -> None:
    levels = {
        f"{k}{s}": (1, n, 64 // s, 96 // s) for k, n in (("b", 64), ("c", 3)) for s in (8, 16)
    }
    with pytest.raises(ModelError, match=r"its levels have strides \(8, 16\)"):
        recognise(summary(levels), SIZE, {})


@slow
@pytest.mark.parametrize("form", ["joined", "rknn"])
def test_end_to_end(form: str, tmp_path: Path) -> None:
    compile_and_detect(yolo_models.yolov8(form), tmp_path)


def test_one_map_alone_is_no_yolov8() -> None:
    """A YOLOv2 of 20 classes has 125 channels, which would be 64 distances and 61 classes."""
    network = summary({"grid": (1, 125, SIZE[0] // 32, SIZE[1] // 32)})
    answer = HEAD.examine(network, SIZE, {})
    assert isinstance(answer, str) and not isinstance(answer, Question)
    assert "of one stride, 32; this family's are of several" in answer
    options = {"map_order": "boxes_first"}
    told = HEAD.examine(network, SIZE, {"family": "yolov8_maps", "options": options})
    assert not isinstance(told, str) and len(told.spec.labels) == 61
