"""Raw maps with anchors: never claimed without a spec, and decoded as the networks would."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yolo_models
from yolo_cases import (
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
from tvmdet.heads import Question, get_head
from tvmdet.heads.yolo_anchors import VERSIONS

HEAD = get_head("yolo_maps")
STRIDES = (8, 16, 32)
ANCHORS = [list(row) for row in yolo_models.ANCHORS]


def _maps(form: str = "pvhw", strides: tuple[int, ...] = STRIDES) -> dict[str, tuple[int, ...]]:
    """Maps of 3 anchors with 8 values, in one of the forms that exporters write."""
    found = {}
    for stride in strides:
        height, width = SIZE[0] // stride, SIZE[1] // stride
        found[f"m{stride}"] = {
            "pvhw": (1, 24, height, width),
            "hwpv": (1, height, width, 24),
            "p v hw": (1, 3, 8, height, width),
            "p hw v": (1, 3, height, width, 8),
            "hw p v": (1, height, width, 3, 8),
        }[form]
    return found


def _given(**options: Any) -> dict[str, Any]:
    return {"family": "yolo_maps", "options": options}


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("pvhw", {"version": "yolov5"}),
        ("p hw v", {"version": "yolov7"}),
        ("hwpv", {"version": "yolov4"}),
        ("p v hw", {"version": "yolov3"}),
        ("hw p v", {"anchors": ANCHORS, "decoding": "exp", "scale_xy": [1.2, 1.1, 1.05]}),
        ("p hw v", {"version": "yolov5", "activation": "none"}),
    ],
)
def test_decodes(form: str, options: Mapping[str, Any]) -> None:
    got = summary(_maps(form))
    found = recognise(got, SIZE, _given(**options))
    assert found.spec.input.resize == (
        "stretch" if found.spec.options["decoding"] == "exp" else "letterbox"
    )
    outputs = random_outputs(got, batch=2)
    if options.get("activation") == "none":
        outputs = {name: np.abs(np.sin(value)) for name, value in outputs.items()}
    assert_decodes(found.spec, outputs)


@pytest.mark.parametrize("version", ["yolov3-tiny", "yolov4-tiny"])
def test_tiny_versions_have_two_levels(version: str) -> None:
    got = summary(_maps(strides=(16, 32)))
    found = recognise(got, SIZE, _given(version=version))
    assert found.spec.options["strides"] == [16, 32]
    assert_decodes(found.spec, random_outputs(got))


def test_decodes_a_known_box() -> None:
    got = summary(_maps("p hw v"))
    outputs = {name: np.zeros(value.shape, np.float32) for name, value in got.outputs.items()}
    outputs["m16"][0, 2, 1, 3, 4:] = [100, 100, 0, -100]
    found = recognise(got, SIZE, _given(version="yolov5"))
    boxes, scores = decode(found.spec, outputs)
    # Sigmoids of 0: the centre of cell (row 1, column 3), one anchor wide and high (59 x 119).
    row = 3 * 96 + 2 * 24 + 1 * 6 + 3
    np.testing.assert_allclose(boxes[0, row], [56 - 29.5, 24 - 59.5, 56 + 29.5, 24 + 59.5])
    np.testing.assert_allclose(scores[0, row], [1, 0.5, 0], atol=1e-6)


@pytest.mark.parametrize("apart", [False, True])
def test_maps_mean_what_the_decoded_yolov5_says(apart: bool) -> None:
    raw, decoded = (yolo_models.anchor_maps(apart=apart, decoded=full) for full in (False, True))
    found = recognise(summary_of(raw), SIZE, _given(version="yolov5"))
    want = recognise(summary_of(decoded), SIZE, {})
    assert want.family == "yolov5"
    rows = sorted_rows(HEAD.decode_reference(run_onnx(raw), found.spec))
    expected = get_head("yolov5").decode_reference(run_onnx(decoded), want.spec)
    np.testing.assert_allclose(rows, sorted_rows(expected), rtol=1e-4, atol=1e-3)


def test_maps_mean_what_the_decoded_yolov4_says() -> None:
    raw, decoded = yolo_models.darknet_maps(), yolo_models.yolov4()
    found = recognise(summary_of(raw), SIZE, _given(anchors=ANCHORS, decoding="exp"))
    want = recognise(summary_of(decoded), SIZE, {})
    assert want.family == "yolov4"
    rows = sorted_rows(HEAD.decode_reference(run_onnx(raw), found.spec))
    expected = get_head("yolov4").decode_reference(run_onnx(decoded), want.spec)
    np.testing.assert_allclose(rows, sorted_rows(expected), rtol=1e-4, atol=1e-3)


def test_nothing_is_claimed_without_a_spec() -> None:
    answer = HEAD.examine(summary(_maps()), SIZE, {})
    assert isinstance(answer, Question)
    assert 'family = "yolo_maps"' in answer.spec_text
    with pytest.raises(ModelError, match="tell neither the anchors nor the decoding"):
        recognise(summary(_maps()), SIZE, {})


@pytest.mark.parametrize("given", [{}, _given(version="yolov5")], ids=["asked", "told"])
@pytest.mark.parametrize(
    ("parts", "refused"), [((20, 4), True), ((4, 1, 19), True), ((24,), False), ((12, 12), False)]
)
def test_maps_joined_of_boxes_and_classes_are_another_family(
    given: Mapping[str, Any], parts: tuple[int, ...], refused: bool
) -> None:
    """RTMDet's, cut before its decoding, might have three anchors by their channels alone."""
    maps = _maps()
    joined = {
        name: tuple((1, channels, *shape[2:]) for channels in parts) for name, shape in maps.items()
    }
    answer = HEAD.examine(replace(summary(maps), output_maps=joined), SIZE, given)
    told = isinstance(answer, str) and not isinstance(answer, Question)
    assert told is refused
    if refused:
        shown = " and ".join(map(str, parts))
        assert answer == f"m8 joins maps of {shown} channels; 3 anchors a cell share theirs"


def test_a_map_of_one_convolution_is_judged_by_its_channels() -> None:
    maps = {name: (1, 25, *shape[2:]) for name, shape in _maps().items()}
    network = replace(summary(maps), output_maps={name: (shape,) for name, shape in maps.items()})
    answer = HEAD.examine(network, SIZE, _given(version="yolov5"))
    assert isinstance(answer, str)
    assert "25" in answer
    assert "joins" not in answer


def test_maps_through_a_sigmoid_are_seen() -> None:
    runs = {(f"m{stride}", 1): columns((24, SCORES)) for stride in STRIDES}
    found = recognise(summary(_maps(), runs), SIZE, _given(version="yolov7"))
    assert found.spec.options["activation"] == "none"
    with pytest.raises(InputError, match="'none' with decoding 'exp'"):
        recognise(summary(_maps(), runs), SIZE, _given(version="yolov4"))


@pytest.mark.parametrize(
    ("outputs", "given", "reason"),
    [
        ({}, {}, "no outputs"),
        ({"o": (1, 378, 8)}, {}, "raw maps are"),
        ({**_maps(), "n8": (1, 24, 8, 12)}, _given(version="yolov5"), "several maps are of one"),
        (_maps(strides=(8, 16)), _given(version="yolov5"), "not of strides 8, 16, 32"),
        (_maps(), _given(), "raw maps need anchors"),
        (_maps(), _given(anchors=ANCHORS), "need options.decoding"),
        (_maps(), _given(anchors=ANCHORS[:2], decoding="exp"), "but anchors for 2 levels"),
        (
            {name: (1, 25, *shape[2:]) for name, shape in _maps().items()},
            _given(version="yolov5"),
            r"need 3 x \(5 \+ classes\) values",
        ),
        ({"m8": (1, 70, 8, 12)}, {}, "three anchors a cell have"),
        ({"m4": (1, 2, 16, 24)}, {}, "three anchors a cell have"),  # 24 are columns of cells
        ({"m4": (1, 16, 24, 2)}, {}, "three anchors a cell have"),
        ({**_maps(), "m8": (1, 27, 8, 12)}, _given(version="yolov5"), "different numbers of cl"),
    ],
)
def test_refuses(
    outputs: Mapping[str, tuple[int, ...]], given: Mapping[str, Any], reason: str
) -> None:
    answer = HEAD.examine(summary(outputs), SIZE, given)
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "yolov9"}, "options.version is 'yolov9'; allowed: yolov2, yolov2-tiny"),
        ({"anchors": [[1, 2, 3]]}, "options.anchors is .*; allowed: for each level"),
        ({"anchors": [[1, -2]]}, "options.anchors is"),
        ({"anchors": [[1, 2], [1, 2, 3, 4]]}, "options.anchors is"),
        ({"anchors": 3}, "options.anchors is 3"),
        ({"version": "yolov5", "decoding": "dfl"}, "allowed: exp, sigmoid"),
        ({"version": "yolov5", "scale_xy": [2.0]}, "scale_xy has 1 entries for 3 outputs"),
        ({"version": "yolov5", "scale_xy": 2.0}, "a list of positive numbers"),
        ({"version": "yolov5", "outputs": ["x"]}, "a list of different outputs"),
        ({"version": "yolov5", "anchor": 1}, "unknown options.anchor"),
    ],
)
def test_options_are_checked(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recognise(summary(_maps()), SIZE, _given(**options))


def test_wrong_outputs_are_refused() -> None:
    found = recognise(summary(_maps()), SIZE, _given(version="yolov5"))
    with pytest.raises(ShapeError, match="the network's outputs: other"):
        decode(found.spec, {"other": np.zeros((1, 24, 8, 12), np.float32)})
    wrong = {name: np.zeros((1, 27, *s[2:]), np.float32) for name, s in _maps().items()}
    with pytest.raises(ShapeError, match=r"need \[N, 24, 8, 12\]"):
        decode(found.spec, wrong)


@pytest.mark.parametrize("name", sorted(VERSIONS))
def test_versions_are_whole(name: str) -> None:
    version = VERSIONS[name]
    assert len(version.anchors) == len(version.strides) == len(version.scale_xy)
    assert {len(row) for row in version.anchors} == {10 if "v2" in name else 6}


REGION = {"grid": (1, 40, SIZE[0] // 32, SIZE[1] // 32)}


@pytest.mark.parametrize("version", ["yolov2", "yolov2-tiny", "yolov2-voc", "yolov2-tiny-voc"])
def test_classes_of_yolov2_share_one(version: str) -> None:
    got = summary(REGION)
    spec = recognise(got, SIZE, _given(version=version)).spec
    assert (spec.options["class_activation"], spec.input.resize) == ("softmax", "stretch")
    assert_decodes(spec, random_outputs(got, batch=2))
    outputs = {"grid": np.zeros((1, 40, SIZE[0] // 32, SIZE[1] // 32), np.float32)}
    outputs["grid"][0, 8 + 4 : 16, 1, 2] = [100, 100, 100, 0]  # of the second anchor
    boxes, scores = decode(spec, outputs)
    row = (1 * (SIZE[1] // 32) + 2) * 5 + 1
    np.testing.assert_allclose(scores[0, row], [0.5, 0.5, 0], atol=1e-6)
    width, height = VERSIONS[version].anchors[0][2:4]
    want = [80 - width / 2, 48 - height / 2, 80 + width / 2, 48 + height / 2]
    np.testing.assert_allclose(boxes[0, row], want, rtol=1e-5)


def test_one_map_without_a_version_asks_for_the_classes() -> None:
    told = {"anchors": [[35, 38, 110, 141, 213, 372, 302, 163, 532, 337]], "decoding": "exp"}
    answer = HEAD.examine(summary(REGION), SIZE, _given(**told))
    assert isinstance(answer, Question)
    assert 'class_activation = "softmax"' in answer.spec_text
    for name in ("softmax", "sigmoid"):
        spec = recognise(summary(REGION), SIZE, _given(**told, class_activation=name)).spec
        assert_decodes(spec, random_outputs(summary(REGION)))
    with pytest.raises(InputError, match="have none left to do"):
        recognise(
            summary(_maps()),
            SIZE,
            _given(version="yolov5", class_activation="softmax", activation="none"),
        )


@pytest.mark.parametrize(
    ("channels", "version"), [(125, "yolov2-tiny-voc"), (425, "yolov2"), (25, None), (126, None)]
)
def test_a_map_of_five_anchors_may_be_yolov2s(channels: int, version: str | None) -> None:
    shape = (1, channels, SIZE[0] // 32, SIZE[1] // 32)
    got = replace(summary({"grid": shape}), output_sources={"grid": frozenset(("Conv",))})
    answer = HEAD.examine(got, SIZE, {})
    text = answer.spec_text if isinstance(answer, Question) else ""
    assert (f'version = "{version}"' in text) == (version is not None)


@slow
@pytest.mark.parametrize("apart", [False, True])
def test_end_to_end(apart: bool, tmp_path: Path) -> None:
    model = yolo_models.anchor_maps(apart=apart)
    compile_and_detect(model, tmp_path, _given(version="yolov5"))
