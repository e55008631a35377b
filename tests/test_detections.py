from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from assertions import assert_close

from tvmdet.detections import Detection, Detections
from tvmdet.errors import InputError


def two() -> Detections:
    return Detections(
        boxes_xyxy=np.array([[1, 2, 30.5, 40], [5, 6, 7, 8]], np.float32),
        scores=np.array([0.75, 0.5], np.float32),
        class_ids=np.array([1, 0], np.int32),
        labels=("cat", "dog"),
        image_size_hw=(50, 60),
        source="a.jpg",
    )


def test_empty() -> None:
    nothing = Detections.empty((3, 4), source="x", error="why")
    assert len(nothing) == 0
    assert list(nothing) == []
    assert nothing.boxes_xyxy.shape == (0, 4)
    assert nothing.to_dict() == {
        "source": "x",
        "error": "why",
        "image_size_hw": [3, 4],
        "detections": [],
    }


def test_refuses_arrays_that_do_not_belong_together() -> None:
    with pytest.raises(InputError, match=r"there are 1 labels; allowed: \(1, 4\)"):
        Detections(
            boxes_xyxy=np.zeros((2, 4), np.float32),
            scores=np.zeros(2, np.float32),
            class_ids=np.zeros(2, np.int32),
            labels=("one",),
            image_size_hw=(1, 1),
        )


def test_yields_boxes_one_by_one() -> None:
    assert list(two()) == [
        Detection((1.0, 2.0, 30.5, 40.0), 0.75, 1, "cat"),
        Detection((5.0, 6.0, 7.0, 8.0), 0.5, 0, "dog"),
    ]


def test_to_dict_survives_json() -> None:
    data = json.loads(json.dumps(two().to_dict()))
    assert data["image_size_hw"] == [50, 60]
    assert data["detections"][0] == {
        "label": "cat",
        "class_id": 1,
        "score": 0.75,
        "box_xyxy": [1.0, 2.0, 30.5, 40.0],
    }


def test_filter_keeps_what_scores_more() -> None:
    assert two().filter(score=0.5).labels == ("cat",)
    assert len(two().filter(score=0.0)) == 2
    assert len(two().filter(score=1.0)) == 0
    with pytest.raises(InputError, match=r"score is 1.5; allowed: 0 to 1"):
        two().filter(score=1.5)


@pytest.mark.parametrize("found", [Detections.empty((5, 5)), two()], ids=["none", "two"])
def test_to_supervision(found: Detections) -> None:
    converted = found.to_supervision()
    assert_close(converted.xyxy, found.boxes_xyxy)
    assert_close(converted.confidence, found.scores)
    assert converted.class_id.tolist() == found.class_ids.tolist()
    assert tuple(converted.data["class_name"]) == found.labels


def test_to_supervision_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match="pip install supervision"):
        two().to_supervision()


def test_importing_it_loads_no_opencv_and_no_tvm() -> None:
    code = (
        "import sys, tvmdet.detections;"
        "print([m for m in ('cv2', 'tvm', 'tvm_ffi', 'supervision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
