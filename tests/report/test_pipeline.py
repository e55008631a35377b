"""What surrounds a rival's network finds what the parity check's reference finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tvmdet.boxes import ImageTransform
from tvmdet.heads import MaskValues, get_head
from tvmdet.report.end_to_end import compare_found
from tvmdet.report.pipeline import Found, Pipeline
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec

SIZE_HW = (32, 48)


def make_spec(**post: object) -> DetectorSpec:
    return DetectorSpec(
        family="yolov8",
        labels=("a", "b", "c"),
        input=InputSpec(size_hw=SIZE_HW, mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0)),
        postprocess=PostprocessSpec(
            **{"score_threshold": 0.3, "iou_threshold": 0.5, "max_detections": 20, **post}
        ),
        options={"layout": "channels_first", "output": "y", "strides": [8]},
    )


def test_input_is_normalised_in_the_order_of_the_spec(tmp_path: Path) -> None:
    picture = np.zeros((*SIZE_HW, 3), np.uint8)
    picture[...] = (50, 100, 150)  # blue, green, red
    path = tmp_path / "plain.png"
    assert cv2.imwrite(str(path), picture)
    blob, _, seconds = Pipeline(make_spec()).prepare(str(path))
    assert blob.shape == (1, 3, *SIZE_HW)
    red, green, blue = blob[0, :, 5, 5]
    assert (red, green, blue) == pytest.approx(((150 - 10) / 2, (100 - 20) / 4, (50 - 30) / 8))
    assert set(seconds) == {"decode", "resize"}


def test_pictures_are_resized_as_the_spec_says(tmp_path: Path) -> None:
    rows = np.tile(np.array([250, 0, 0, 250], np.uint8), SIZE_HW[0])
    path = tmp_path / "rows.png"
    assert cv2.imwrite(str(path), np.tile(rows[:, None], (1, 4 * SIZE_HW[1])))
    plain = InputSpec(size_hw=SIZE_HW, std=(1.0,) * 3, resize="stretch")
    for interpolation, level in (("bilinear", 0), ("area", 125)):
        fed = replace(plain, interpolation=interpolation)
        blob, _, _ = Pipeline(replace(make_spec(), input=fed)).prepare(str(path))
        assert set(blob.ravel().tolist()) == {level}


@pytest.mark.parametrize(
    "post", [{}, {"multi_label": True}, {"class_agnostic": True}, {"pre_nms_top_k": 5}]
)
def test_boxes_are_those_of_the_reference(post: dict[str, object]) -> None:
    from tvmdet.compiler.reference import Candidates, suppress

    spec = make_spec(**post)
    rng = np.random.default_rng(0)
    output = rng.random((1, 7, 24), np.float32)
    output[:, :4] = output[:, :4] * 20 + 8
    output[:, 3, ::5] *= -1  # boxes turned inside out
    transform = ImageTransform.for_image(SIZE_HW, spec.input)
    found, _ = Pipeline(spec).finish({"y": output}, transform)

    x, y, w, h = output[0, :4]
    h = np.maximum(h, 0)  # a box turned inside out is a line in its centre
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
    scores = output[0, 4:].T
    if spec.postprocess.multi_label:
        flat = np.argsort(-scores.ravel(), kind="stable")
        rows, classes = flat // 3, flat % 3
    else:
        rows = np.argsort(-scores.max(axis=1), kind="stable")
        classes = scores[rows].argmax(axis=1)
    every = Candidates(
        boxes_xyxy=boxes[rows], scores=scores[rows, classes], class_ids=classes.astype(np.int32)
    )
    right = every.take(suppress(every, spec.postprocess, 0.3, 0.5))
    np.testing.assert_array_equal(found.class_ids, right.class_ids)
    np.testing.assert_allclose(found.scores, right.scores)
    limits = np.array([SIZE_HW[1], SIZE_HW[0]] * 2, np.float32)
    np.testing.assert_allclose(found.boxes_xyxy, np.clip(right.boxes_xyxy, 0, limits), rtol=1e-6)


@pytest.mark.parametrize("mixed", [False, True], ids=["own masks", "mixed from prototypes"])
def test_masks_are_those_of_the_boxes(mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec(multi_label=True).override({"masks": {"frame": "image"}})
    rng = np.random.default_rng(1)
    output = rng.random((1, 7, 24), np.float32)
    output[:, :4] = output[:, :4] * 20 + 8
    if mixed:
        values = rng.normal(0, 50, (1, 24, 6)).astype(np.float32)
        masks = MaskValues(values=values, prototypes=rng.normal(0, 1, (1, 6, 4, 5)))
        want = 1 / (1 + np.exp(-np.einsum("ap,phw->ahw", values[0], masks.prototypes[0])))
    else:
        masks = MaskValues(values=rng.random((1, 24, 4, 5), np.float32))
        want = masks.values[0]
    head = type(get_head("yolov8"))
    right = head.decode_reference
    monkeypatch.setattr(head, "decode_reference", lambda *args: replace(right(*args), masks=masks))
    transform = ImageTransform.for_image(SIZE_HW, spec.input)
    found, _ = Pipeline(spec).finish({"y": output}, transform)
    assert len(found.scores) == 20 > len(set(found.rows.tolist()))
    scores = output[0, 4:].T[found.rows, found.class_ids]
    np.testing.assert_array_equal(scores, found.scores)
    np.testing.assert_allclose(found.masks, want[found.rows], rtol=1e-4, atol=1e-6)
    assert Pipeline(make_spec()).finish({"y": output}, transform)[0].masks is None


def boxes(*rows: tuple[float, float, float, float], class_id: int = 0) -> Found:
    return Found(
        boxes_xyxy=np.array(rows, np.float32).reshape(-1, 4),
        scores=np.ones(len(rows), np.float32),
        class_ids=np.full(len(rows), class_id),
    )


@pytest.mark.parametrize(
    ("got", "right", "ok", "why"),
    [
        (boxes(), boxes(), True, "nothing found by either"),
        (boxes((0, 0, 9, 9)), boxes(), False, "a box too many"),
        (boxes((0, 0, 9, 9)), boxes((0, 0, 9, 9)), True, "the same"),
        (boxes((0, 0, 9, 9)), boxes((0, 0, 9, 8)), False, "not quite the same place"),
        (boxes((0, 0, 9, 9)), boxes((0, 0, 9, 9), class_id=1), False, "another class"),
        (boxes((0, 0, 9, 0)), boxes((0, 0, 9, 0.1)), True, "no area, the same place"),
        (
            boxes((0, 0, 9, 9), (0, 0, 9, 9)),
            boxes((0, 0, 9, 9), (20, 20, 30, 30)),
            False,
            "one box twice",
        ),
    ],
)
def test_boxes_are_compared(got: Found, right: Found, ok: bool, why: str) -> None:
    assert compare_found(got, right, 0.01).ok == ok, why
