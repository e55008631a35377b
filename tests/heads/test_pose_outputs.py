"""Keypoints beside the boxes and at the end of flat rows, as super-gradients' YoloNASPose."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from head_tools import ANY, UNIT, assert_decodes_as_reference, decode, number_range, summary_of

from tvmdet.errors import InputError
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import GraphSummary, TensorSummary, get_head
from tvmdet.heads.base import Normalisation, Question

BYTES: dict[str, Any] = {
    "inputs": {"input": TensorSummary(shape=(1, 3, 64, 96), dtype="uint8")},
    "normalisation": Normalisation(mean=(0.0,) * 3, std=(255.0,) * 3, reverses=True),
}
LAYOUT = {"columns": ["x1", "y1", "x2", "y2"], "box_frame": "pixels", "background": "none"}
FED = {"mean": [0, 0, 0], "std": [255, 255, 255], "resize": "letterbox"}
NAMES = {"graph2_num_predictions": (1, 1), "graph2_post_nms_boxes": (1, 7, 4)}


def _batch(points: int = 2) -> GraphSummary:
    outputs = {
        **NAMES,
        "graph2_post_nms_scores": (1, 7),
        "graph2_post_nms_joints": (1, 7, points, 3),
    }
    operators = {"BoundedNonMaxSuppression": 1}
    dtypes = {"graph2_num_predictions": "int64"}
    return summary_of(outputs, dtypes=dtypes, operators=operators, **BYTES)


def _flat(points: int = 2) -> GraphSummary:
    ranges = {"graph2_flat_predictions": (number_range(0), *(ANY,) * 4, UNIT, *(ANY,) * 3 * points)}
    outputs = {"graph2_flat_predictions": (7, 6 + 3 * points)}
    return summary_of(outputs, output_ranges=ranges, **BYTES)


def _raw(points: int = 2, **facts: Any) -> GraphSummary:
    outputs = {
        "a": (1, 120, 4), "b": (1, 120, 1), "c": (1, 120, points, 2), "d": (1, 120, points),
    }  # fmt: skip
    ranges = {"b": (UNIT,), "d": (UNIT,)}
    return summary_of(outputs, **{"output_ranges": ranges, **BYTES, **facts})


@pytest.mark.parametrize("summary", [_batch(), _flat()])
def test_suppressed_poses_need_no_spec(summary: GraphSummary) -> None:
    spec = recognise(summary, (64, 96), {}).spec
    assert (spec.family, spec.labels) == ("detections", ("class_0",))
    assert spec.keypoints is not None
    assert (spec.keypoints.names, spec.keypoints.scored) == (("point_0", "point_1"), True)
    assert (spec.input.color, spec.input.pad_value, spec.input.pad_position) == (
        "bgr", 127, "top_left",
    )  # fmt: skip
    assert recognise(summary, (64, 96), spec.to_dict()).spec == spec
    assert recognise(summary, (64, 96), {"keypoints": False}).spec.keypoints is None
    named = recognise(summary, (64, 96), {"keypoints": {"names": ["l", "r"], "scored": True}}).spec
    assert named.keypoints is not None
    assert named.keypoints.names == ("l", "r")


@pytest.mark.parametrize("summary", [_batch(17), _flat(17)])
def test_a_persons_points_have_names(summary: GraphSummary) -> None:
    points = recognise(summary, (64, 96), {"labels": ["person"]}).spec.keypoints
    assert points is not None
    assert points.names[:2] == ("nose", "left_eye")
    assert recognise(summary, (64, 96), {"labels": ["dog"]}).spec.keypoints.names[0] == "point_0"


def test_batch_format_decodes() -> None:
    spec = recognise(_batch(), (64, 96), {}).spec
    rng = np.random.default_rng(0)
    outputs = {
        "graph2_num_predictions": np.array([[2]], np.int64),
        "graph2_post_nms_boxes": rng.random((1, 7, 4), np.float32),
        "graph2_post_nms_scores": rng.random((1, 7), np.float32),
        "graph2_post_nms_joints": rng.random((1, 7, 2, 3), np.float32),
    }
    assert_decodes_as_reference(spec, outputs)
    _, scores, points = decode(spec, outputs)
    assert not scores[0, 2:].any()
    np.testing.assert_array_equal(points[0, 1], outputs["graph2_post_nms_joints"][0, 1].ravel())


def test_flat_format_decodes() -> None:
    spec = recognise(_flat(), (64, 96), {}).spec
    rows = np.arange(84, dtype=np.float32).reshape(7, 12) / 100
    assert_decodes_as_reference(spec, {"graph2_flat_predictions": rows})
    boxes, scores, points = decode(spec, {"graph2_flat_predictions": rows})
    np.testing.assert_array_equal(boxes[0], rows[:, 1:5])
    np.testing.assert_array_equal(scores[0, :, 0], rows[:, 5])
    np.testing.assert_array_equal(points[0], rows[:, 6:])


def test_points_that_nobody_wants_are_not_decoded() -> None:
    given = {"family": "decoded", "options": LAYOUT, "input": FED, "keypoints": False}
    spec = recognise(_raw(), (64, 96), given).spec
    rng = np.random.default_rng(0)
    outputs = {name: rng.random(value.shape, np.float32) for name, value in _raw().outputs.items()}
    assert get_head("decoded").decode_reference(outputs, spec).keypoints is None
    assert len(decode(spec, outputs)) == 2


def test_points_before_suppression_decode() -> None:
    spec = recognise(_raw(), (64, 96), {"family": "decoded", "options": LAYOUT, "input": FED}).spec
    assert (spec.options["box_output"], spec.options["score_output"]) == ("a", "b")
    assert spec.input.color == "bgr"  # the network turns the channels around
    assert spec.keypoints is not None
    assert spec.keypoints.scored
    rng = np.random.default_rng(0)
    outputs = {name: rng.random(value.shape, np.float32) for name, value in _raw().outputs.items()}
    assert_decodes_as_reference(spec, outputs)
    _, _, points = decode(spec, outputs)
    want = np.concatenate([outputs["c"], outputs["d"][..., None]], axis=3)
    np.testing.assert_array_equal(points[0, 5], want[0, 5].ravel())


def test_what_is_asked_is_fed_as_the_network_turns_its_channels() -> None:
    answer = get_head("decoded").examine(_raw(), (64, 96), {"options": LAYOUT, "family": "decoded"})
    assert isinstance(answer, Question)
    assert 'color = "bgr"' in answer.spec_text


@pytest.mark.parametrize(
    "summary",
    [
        _raw(output_ranges={"b": (UNIT,)}),  # of the points' scores nothing is proven
        _raw(points=1),  # the scores of the points may be those of the boxes
    ],
)
def test_points_that_nothing_proves_are_not_claimed(summary: GraphSummary) -> None:
    answer = get_head("decoded").examine(summary, (64, 96), {"family": "decoded"})
    assert re.search("not boxes", str(answer))


def test_outputs_that_are_no_points_are_refused() -> None:
    with pytest.raises(InputError, match=r"keypoints are .N, A, P, 2., or"):
        recognise(_batch(), (64, 96), {"options": {"keypoint_output": "graph2_post_nms_boxes"}})
    with pytest.raises(InputError, match="2 points with a score"):
        recognise(_batch(), (64, 96), {"keypoints": {"names": ["a"], "scored": True}})
    spec = recognise(_raw(), (64, 96), {"family": "decoded", "options": LAYOUT, "input": FED}).spec
    other = replace(spec, options={**spec.options, "keypoint_score_output": "b"})
    with pytest.raises(InputError, match=r"b is .* 2 keypoints of each"):
        get_head("decoded").validate(other, _raw())
