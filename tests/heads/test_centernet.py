"""CenterNet: peaks of a heat map, sizes and offsets in cells."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from dense_summaries import SIZE_HW, claim, decode, reference, summary, zeros

from tvmdet.errors import InputError, ModelError, ShapeError
from tvmdet.heads import GraphSummary, Question, get_head

MAPS = {"hm": (1, 3, 16, 24), "wh": (1, 2, 16, 24), "reg": (1, 2, 16, 24)}
NETWORK = summary(MAPS)


def test_is_claimed_by_the_authors_names() -> None:
    found = claim(NETWORK)
    assert found.family == "centernet"
    assert found.spec.options["size_output"] == "wh"
    assert found.spec.options["score_activation"] == "sigmoid"
    assert found.spec.postprocess.iou_threshold == 1.0
    assert found.spec.postprocess.multi_label
    done = summary(MAPS, sources={"hm": frozenset({"Sigmoid"})})
    assert claim(done).spec.options["score_activation"] == "none"


def test_decodes() -> None:
    spec = claim(NETWORK).spec
    rng = np.random.default_rng(3)
    outputs = {
        name: rng.normal(0, 2, (2, *shape[1:])).astype(np.float32) for name, shape in MAPS.items()
    }
    outputs["wh"] = np.abs(outputs["wh"]) + 0.1
    boxes, scores = decode(spec, outputs)
    want = get_head("centernet").decode_reference(outputs, spec)
    np.testing.assert_allclose(boxes, want.boxes, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(scores, want.scores, rtol=1e-5, atol=1e-6)
    # About one cell of nine is the largest of its neighbours.
    assert 0.08 < (scores > 0).mean() < 0.16


def test_decodes_a_known_box() -> None:
    spec = claim(NETWORK).spec
    outputs = zeros(NETWORK)
    outputs["hm"][:] = -9
    outputs["hm"][0, 1, 5, 7] = math.log(3)
    outputs["hm"][0, 1, 5, 8] = 0  # beside the peak
    outputs["hm"][0, 2, 5, 8] = 0  # a peak of its own class
    outputs["wh"][0, :, 5, 7] = [4, 2]
    outputs["wh"][0, :, 5, 8] = 1
    outputs["reg"][0, :, 5, 7] = [0.5, 0.25]
    boxes, scores = reference(spec, outputs)
    row = 5 * 24 + 7
    np.testing.assert_allclose(boxes[0, row], [22, 17, 38, 25], atol=1e-5)
    np.testing.assert_allclose(scores[0, row], [0, 0.75, 0], atol=2e-4)
    np.testing.assert_allclose(scores[0, row + 1], [0, 0, 0.5], atol=2e-4)


def test_names_settle_sizes_and_offsets() -> None:
    other = summary({"a": MAPS["hm"], "b": MAPS["wh"], "c": MAPS["reg"]})
    answer = get_head("centernet").examine(other, SIZE_HW, {})
    assert isinstance(answer, Question)
    assert 'size_output = "b"    # or "c"' in answer.spec_text
    options = {"heatmap_output": "a", "size_output": "c", "offset_output": "b"}
    spec = claim(other, options=options).spec
    assert spec.options["size_output"] == "c"
    two_classes = summary({"a": MAPS["wh"], "b": MAPS["wh"], "c": MAPS["reg"]})
    assert isinstance(get_head("centernet").examine(two_classes, SIZE_HW, {}), Question)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (summary({"hm": MAPS["hm"]}), "1 outputs"),
        (summary({**MAPS, "reg": (1, 2, 8, 12)}), "different grids"),
        (summary({**MAPS, "reg": (1, 384, 2)}), "not maps"),
        (summary({**MAPS, "reg": (1, 4, 16, 24)}), "two outputs of two channels"),
        (summary(MAPS, names="['a']"), "metadata name 1 classes"),
    ],
)
def test_refuses(network: GraphSummary, reason: str) -> None:
    answer = get_head("centernet").examine(network, SIZE_HW, {})
    assert not isinstance(answer, Question)
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size_output": "hm"}, "needs \\[N, 2, H, W\\]|do not say"),
        ({"heatmap_output": "nowhere"}, "allowed: hm, wh, reg"),
        ({"score_activation": "softmax"}, "allowed: none, sigmoid"),
        ({"stride": 4}, "unknown options.stride"),
        ({"style": "keras"}, "allowed: centernet, mmdetection"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises((InputError, ModelError), match=message):
        claim(NETWORK, family="centernet", options=options)


def test_wrong_outputs_are_refused() -> None:
    spec = claim(NETWORK).spec
    with pytest.raises(ShapeError, match="the network's outputs: other"):
        decode(spec, {"other": np.zeros((1, 3, 3), np.float32)})


def test_maps_with_channels_last_are_named() -> None:
    network = summary({"hm": (1, 16, 24, 6), "wh": (1, 16, 24, 2), "reg": (1, 16, 24, 2)})
    assert "its maps are [N, H, W, C]" in str(get_head("centernet").examine(network, (64, 96), {}))
    answer = get_head("yolo_maps").examine(network, (64, 96), {})
    assert "all of its outputs have one grid" in str(answer)
