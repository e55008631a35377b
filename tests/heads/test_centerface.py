"""CenterFace: log sides and shifts, y first, against the authors' decoding."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from dense_summaries import SIZE_HW, assert_decodes, claim, decode, summary

from tvmdet.errors import InputError, ModelError
from tvmdet.heads import GraphSummary, Question, get_head
from tvmdet.heads.base import Range

GRID = (16, 24)
MAPS = {"537": (1, 1, *GRID), "538": (1, 2, *GRID), "539": (1, 2, *GRID), "540": (1, 10, *GRID)}
NAMED = dict(zip(("heatmap", "scale", "offset", "lms"), MAPS.values(), strict=True))


def _answers(
    names: Mapping[str, tuple[int, ...]], *, swapped: bool = False
) -> dict[str, np.ndarray]:
    """What a picture gives: log sides of 2.5 or so, shifts of less than half a cell."""
    rng = np.random.default_rng(8)
    heat, sides, shifts, landmarks = names
    if swapped:
        sides, shifts = shifts, sides
    answers = {
        heat: rng.uniform(0, 1, MAPS["537"]),
        sides: rng.normal(2.5, 0.7, MAPS["538"]),
        shifts: rng.uniform(-0.4, 0.4, MAPS["539"]),
        landmarks: rng.uniform(0, 1, MAPS["540"]),
    }
    return {name: value.astype(np.float32) for name, value in answers.items()}


def _network(
    outputs: Mapping[str, tuple[int, ...]], answers: Mapping[str, np.ndarray] | None
) -> GraphSummary:
    found = summary(outputs)
    unit = {next(iter(outputs)): (Range(low=0.0, high=1.0),)}
    sample = None if answers is None else lambda: answers
    return replace(found, output_ranges=unit, sample=sample)


def _published(
    heat: np.ndarray, scale: np.ndarray, offset: np.ndarray, landmark: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What ``CenterFace.decode`` finds, with boxes cut to the picture on all sides."""
    boxes, scores, points = [], [], []
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            height, width = np.exp(scale[0, :, row, column].astype(np.float64)) * 4
            y = (row + offset[0, 0, row, column] + 0.5) * 4
            x = (column + offset[0, 1, row, column] + 0.5) * 4
            box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            boxes.append(np.clip(box, 0, [SIZE_HW[1], SIZE_HW[0]] * 2))
            scores.append(heat[0, 0, row, column])
            points.append([])
            for j in range(5):
                points[-1].append(landmark[0, j * 2 + 1, row, column] * width + box[0])
                points[-1].append(landmark[0, j * 2, row, column] * height + box[1])
    return np.array(boxes), np.array(scores), np.array(points)


@pytest.mark.parametrize("swapped", [False, True])
def test_decodes_as_the_authors_do(swapped: bool) -> None:
    answers = _answers(MAPS, swapped=swapped)
    found = claim(_network(MAPS, answers))
    assert found.family == "centerface"
    sides, shifts = ("539", "538") if swapped else ("538", "539")
    assert found.spec.options["size_output"] == sides
    assert found.spec.options["offset_output"] == shifts
    assert any("by what a picture gives" in reason for reason in found.reasons)
    boxes, scores, points = decode(found.spec, answers)
    want_boxes, want_scores, want_points = _published(
        answers["537"], answers[sides], answers[shifts], answers["540"]
    )
    np.testing.assert_allclose(points[0], want_points, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(boxes[0], want_boxes, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(scores[0, :, 0], want_scores, atol=1e-6)
    assert (want_boxes[:, :2] > 0).all(axis=1).any()


def test_names_tell_the_roles_where_nothing_can_be_run() -> None:
    spec = claim(_network(NAMED, None)).spec
    assert (spec.options["size_output"], spec.options["offset_output"]) == ("scale", "offset")
    assert (spec.input.color, spec.input.std, spec.input.pad_value) == ("rgb", (1.0,) * 3, 0)
    assert (spec.postprocess.score_threshold, spec.postprocess.iou_threshold) == (0.5, 0.3)
    assert spec.labels == ("class_0",)
    assert_decodes(_network(NAMED, None), spec)


def test_logits_get_their_sigmoid() -> None:
    network = replace(_network(NAMED, None), output_ranges={})
    spec = claim(network).spec
    assert spec.options["score_activation"] == "sigmoid"
    assert_decodes(network, spec)


@pytest.mark.parametrize(
    ("names", "answers", "reason"),
    [
        (MAPS, None, "nothing can be run"),
        (MAPS, {**_answers(MAPS), "538": _answers(MAPS)["538"] * 8}, "sides in cells"),
        (MAPS, {**_answers(MAPS), "539": _answers(MAPS)["539"] + 0.4}, "shifts from the corner"),
        (NAMED, _answers(NAMED, swapped=True), "names that say the opposite"),
    ],
)
def test_asks_where_nothing_tells(
    names: dict[str, tuple[int, ...]], answers: dict[str, np.ndarray] | None, reason: str
) -> None:
    network = _network(names, answers)
    answer = get_head("centerface").examine(network, SIZE_HW, {})
    assert isinstance(answer, Question), reason
    spec = claim(network, **tomllib.loads(answer.spec_text)).spec
    assert spec.options["size_output"] == list(names)[1]


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({"a": (1, 100, 4)}, "maps at stride 4"),
        ({**MAPS, "537": (1, 3, *GRID)}, "a heat map of one class"),
        ({n: shape for n, shape in MAPS.items() if n != "540"}, "five landmarks"),
        ({n: (1, shape[1], 8, 12) for n, shape in MAPS.items()}, "maps at stride 4"),
    ],
)
def test_refuses(outputs: dict[str, tuple[int, ...]], reason: str) -> None:
    answer = get_head("centerface").examine(summary(outputs), SIZE_HW, {})
    assert isinstance(answer, str)
    assert not isinstance(answer, Question)
    assert re.search(reason, answer), answer


def test_one_map_of_landmarks_is_told_and_its_shape_is_checked() -> None:
    options = {"heatmap_output": "heatmap", "size_output": "scale", "offset_output": "offset"}
    given = {"family": "centerface", "options": options}
    two = _network({**NAMED, "more": (1, 10, *GRID)}, None)
    assert claim(two, **given).spec.keypoints is None, "either may be it"
    named = {**given, "options": {**options, "landmark_output": "more"}}
    assert claim(two, **named).spec.options["landmark_output"] == "more"
    wrong = {**given, "options": {**options, "landmark_output": "scale"}}
    with pytest.raises(InputError, match=r"scale is .*the spec needs \[N, 10, 16, 24\]"):
        claim(two, **wrong)


def test_roles_alone_leave_it_with_centernet() -> None:
    # A spec that names outputs and no family settles CenterNet's three maps, as it did.
    outputs = {"a": (1, 1, *GRID), "b": (1, 2, *GRID), "c": (1, 2, *GRID)}
    options = {"heatmap_output": "a", "size_output": "b", "offset_output": "c"}
    assert claim(summary(outputs), options=options).family == "centernet"
    assert claim(summary(outputs), options=options, family="centerface").family == "centerface"
    with_landmarks = summary({**outputs, "d": (1, 10, *GRID)})
    answer = get_head("centerface").examine(with_landmarks, SIZE_HW, {"options": options})
    assert not isinstance(answer, str)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"labels": ["a", "b"]}, "the spec gives 2 labels"),
        ({"options": {"stride": 4}}, "unknown options.stride"),
        ({"options": {"heatmap_output": "lms"}}, r"lms is \[1, 10, 16, 24\]; the spec needs"),
        ({"options": {"heatmap_output": "x"}}, "options.heatmap_output is 'x'; allowed"),
    ],
)
def test_says_what_of_a_spec_does_not_fit(given: dict[str, object], reason: str) -> None:
    names = {f"{key}_output": name for key, name in (("size", "scale"), ("offset", "offset"))}
    given = {
        "family": "centerface",
        **given,
        "options": {"heatmap_output": "heatmap", **names, **given.get("options", {})},
    }
    with pytest.raises((InputError, ModelError), match=reason):
        claim(_network(NAMED, None), **given)
