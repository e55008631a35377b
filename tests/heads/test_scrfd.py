"""SCRFD: distances in strides of two predictions a cell, against insightface's decoding."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from dense_summaries import assert_decodes, claim, decode, reference, summary, zeros

from tvmdet.errors import InputError
from tvmdet.heads import GraphSummary, Question, get_head
from tvmdet.heads.base import Range

SIZE_HW = (64, 96)
STRIDES = (8, 16, 32)
ROWS = (192, 48, 12)  # 2 at each of 8 x 12, 4 x 6 and 2 x 3 cells
UNIT = (Range(low=0.0, high=1.0),)
# insightface's names and shapes: numbers, all scores, all boxes, all landmarks, of one image.
NUMBERS = ("448", "471", "494", "451", "474", "497", "454", "477", "500")
FACES = dict(
    zip(NUMBERS, [(rows, columns) for columns in (1, 4, 10) for rows in ROWS], strict=True)
)
NAMED = {
    f"{kind}_{stride}": (1, rows, columns)
    for kind, columns in (("score", 1), ("bbox", 4), ("kps", 10))
    for rows, stride in zip(ROWS, STRIDES, strict=True)
}


def _network(outputs: Mapping[str, tuple[int, ...]]) -> GraphSummary:
    """A network whose scores are proven to be scores."""
    ones = [name for name, shape in outputs.items() if shape[-1] == 1]
    return replace(summary(outputs), output_ranges=dict.fromkeys(ones, UNIT))


def _published(
    outputs: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores and landmarks as ``SCRFD.forward`` finds them, prediction by prediction."""
    values = [value.reshape(-1, value.shape[-1]) for value in outputs.values()]
    boxes, scores, points = [], [], []
    for level, stride in enumerate(STRIDES):
        columns = SIZE_HW[1] // stride
        for at, (left, top, right, bottom) in enumerate(values[level + 3] * stride):
            row, column = divmod(at // 2, columns)
            x, y = column * stride, row * stride
            boxes.append([x - left, y - top, x + right, y + bottom])
            scores.append(values[level][at, 0])
            moves = values[level + 6][at] * stride  # distance2kps
            points.append([(x, y)[i % 2] + moves[i] for i in range(10)])
    return np.array(boxes), np.array(scores), np.array(points)


@pytest.mark.parametrize("outputs", [FACES, NAMED], ids=["numbers", "names"])
def test_decodes_as_insightface_does(outputs: dict[str, tuple[int, ...]]) -> None:
    network = _network(outputs)
    spec = claim(network).spec
    assert (spec.family, spec.options["strides"]) == ("scrfd", [8, 16, 32])
    assert spec.options["class_outputs"] == list(outputs)[:3]
    rng = np.random.default_rng(5)
    values = {
        name: rng.uniform(0, 1.0 if shape[-1] == 1 else 3.0, shape).astype(np.float32)
        for name, shape in outputs.items()
    }
    boxes, scores, points = decode(spec, values)
    want_boxes, want_scores, want_points = _published(values)
    want_boxes = np.clip(want_boxes, 0, [96, 64, 96, 64])
    inside = (want_boxes[:, 2:] - want_boxes[:, :2] > 0.01).all(axis=1)
    assert inside.sum() > 200
    np.testing.assert_allclose(boxes[0], want_boxes, atol=1e-4)
    np.testing.assert_allclose(scores[0, :, 0], want_scores * inside, atol=1e-6)
    np.testing.assert_allclose(reference(spec, values)[0], boxes, atol=1e-4)
    np.testing.assert_allclose(points[0], want_points, atol=1e-4)
    # The left of a picture is a face's right.
    assert spec.keypoints.names == ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth")


def test_landmarks_belong_to_the_boxes_of_their_level() -> None:
    shuffled = {name: FACES[name] for name in (*NUMBERS[:6], *reversed(NUMBERS[6:]))}
    spec = claim(_network(shuffled)).spec
    assert spec.options["landmark_outputs"] == list(NUMBERS[6:])
    left_out = claim(_network(NAMED), keypoints=False).spec
    assert left_out.keypoints is None
    assert_decodes(_network(NAMED), left_out)
    named = claim(_network(FACES), keypoints={"names": ["a", "b", "c", "d", "e"]}).spec
    assert named.keypoints.names == ("a", "b", "c", "d", "e")
    with pytest.raises(InputError, match="have 2 names and scored = false; the network has 5"):
        claim(_network(FACES), keypoints={"names": ["a", "b"]})
    with pytest.raises(InputError, match=r"has bbox_16, bbox_32, bbox_8, which holds classes"):
        outputs = [f"bbox_{stride}" for stride in STRIDES]
        claim(_network(NAMED), options={"landmark_outputs": outputs})
    boxes_alone = {n: shape for n, shape in NAMED.items() if not n.startswith("kps")}
    with pytest.raises(InputError, match="family scrfd found none in the network's outputs"):
        claim(_network(boxes_alone), keypoints={"names": ["a", "b"]})
    assert claim(_network(boxes_alone)).spec.keypoints is None


def test_decodes_batches() -> None:
    network = _network(NAMED)
    assert_decodes(network, claim(network).spec)


def test_is_fed_as_insightface_does() -> None:
    found = claim(_network(FACES))
    values = found.spec.input
    assert (values.color, values.mean, values.std) == ("rgb", (127.5,) * 3, (128.0,) * 3)
    assert (values.resize, values.pad_position, values.pad_value) == ("letterbox", "top_left", 0)
    assert (values.rounding, values.scale) == ("down", "height")
    assert found.spec.options["score_activation"] == "none"
    assert any("five landmarks" in reason for reason in found.reasons)


def test_five_levels_have_one_prediction_a_cell() -> None:
    rows = (96, 24, 6, 2, 1)
    outputs = {
        f"{kind}{level}": (count, columns)
        for kind, columns in (("a", 1), ("b", 4), ("c", 10))
        for level, count in enumerate(rows)
    }
    spec = claim(_network(outputs)).spec
    assert (spec.options["per_cell"], spec.options["strides"]) == (1, [8, 16, 32, 64, 128])
    network = _network({name: (1, *shape) for name, shape in outputs.items()})
    assert_decodes(network, claim(network).spec)


def test_maps_of_the_levels_are_read() -> None:
    grids = ((8, 12), (4, 6), (2, 3))
    outputs = {
        f"{kind}{level}": (1, 2 * columns, *grid)
        for kind, columns in (("a", 1), ("b", 4), ("c", 10))
        for level, grid in enumerate(grids)
    }
    network = summary(outputs)
    spec = claim(network).spec
    assert spec.options["score_activation"] == "sigmoid"
    assert_decodes(network, spec)
    values = zeros(network)
    values["b1"][0, 4:, 2, 3] = [0.5, 1, 1, 0.25]  # the second prediction at (48, 32)
    boxes, _ = reference(spec, values)
    np.testing.assert_allclose(boxes[0, 192 + (2 * 6 + 3) * 2 + 1], [40, 16, 64, 36], atol=1e-4)


def test_scores_and_boxes_alone_are_asked_for() -> None:
    network = _network({name: shape for name, shape in FACES.items() if shape[1] != 10})
    answer = get_head("scrfd").examine(network, SIZE_HW, {})
    assert isinstance(answer, Question)
    spec = claim(network, **tomllib.loads(answer.spec_text)).spec
    assert (spec.family, spec.options["per_cell"]) == ("scrfd", 2)


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({}, "0 outputs"),
        ({f"a{rows}": (1, rows, 4) for rows in ROWS}, "3 outputs"),
        ({**FACES, "448": (192, 2), "471": (48, 2), "494": (12, 2)}, "2 class columns"),
        ({name: (2 * rows, columns) for name, (rows, columns) in FACES.items()}, "no pyramid"),
    ],
)
def test_refuses(outputs: dict[str, tuple[int, ...]], reason: str) -> None:
    answer = get_head("scrfd").examine(summary(outputs), SIZE_HW, {})
    assert isinstance(answer, str)
    assert not isinstance(answer, Question)
    assert re.search(reason, answer), answer


def test_predictions_a_cell_are_checked() -> None:
    with pytest.raises(InputError, match=r"options.per_cell is 0; allowed: a whole number from 1"):
        claim(_network(FACES), options={"per_cell": 0})
    with pytest.raises(InputError, match="the spec needs 96 boxes of 1 numbers"):
        claim(_network(FACES), options={"per_cell": 1})
