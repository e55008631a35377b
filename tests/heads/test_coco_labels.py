"""Networks with a column for each of COCO's numbers, and the names of its 80 classes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import pytest
from coco_80 import COCO_80
from dense_summaries import summary
from detections_samples import INSIDE
from head_tools import UNIT, number_range, summary_of

from tvmdet.errors import ModelError
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import GraphSummary, Question, get_head
from tvmdet.heads.base import Stem

NAMES = {"names": str(dict(enumerate(COCO_80)))}
OTHERS = {"names": str([f"thing {index}" for index in range(80)])}


def _queries(columns: int, trace: str, metadata: Mapping[str, str]) -> GraphSummary:
    """A DETR: boxes of a perceptron, or added to reference points."""
    return summary_of(
        {"logits": (1, 9, columns), "pred_boxes": (1, 9, 4)},
        operators={"Softmax": 2, "MatMul": 9},
        output_traces={"pred_boxes": ("Sigmoid", trace)},
        output_ranges={"pred_boxes": (UNIT,)},
        stem=Stem(kernel=16, stride=16),
        metadata=metadata,
    )


def _detections(highest: int, metadata: Mapping[str, str]) -> GraphSummary:
    """A torchvision detector, with class numbers up to one."""
    return summary_of(
        {"boxes": (7, 4), "labels": (7,), "scores": (7,)},
        dtypes={"labels": "int64"},
        normalisation=INSIDE,
        operators={"BoundedNonMaxSuppression": 1, "RoiAlign": 2},
        output_ranges={"labels": (number_range(highest),), "scores": (UNIT,)},
        metadata=metadata,
    )


SIZE_HW = (320, 320)
SSDLITE = {"cls_logits": (1, 3234, 91), "bbox_regression": (1, 3234, 4)}


@pytest.mark.parametrize("by_spec", [False, True], ids=["metadata", "spec"])
@pytest.mark.parametrize(
    ("network", "metadata", "family", "first"),
    [
        (_queries, (91, "Add(9x4)"), "rtdetr", 0),  # LW-DETR, RF-DETR
        (_queries, (92, "Gemm(4x32,4)"), "detr", 0),  # a column more, for no object
        (_detections, (90,), "detections", 0),
        (_detections, (89,), "detections", 1),
    ],
)
def test_names_lie_at_their_columns(
    network: Any, metadata: tuple[Any, ...], family: str, first: int, by_spec: bool
) -> None:
    built = network(*metadata, {} if by_spec else NAMES)
    found = recognise(built, (64, 96), {"labels": COCO_80} if by_spec else {})
    assert found.family == family
    labels = found.spec.labels
    assert len(labels) == 91 - first
    assert (labels[1 - first], labels[13 - first], labels[90 - first]) == (
        "person",
        "stop sign",
        "toothbrush",
    )
    assert (labels[12 - first], labels[83 - first]) == ("N/A", "N/A")
    assert any("COCO's numbers" in reason for reason in found.reasons)


@pytest.mark.parametrize("given", [{}, {"labels": COCO_80}])
def test_a_background_is_number_0(given: dict[str, Any]) -> None:
    built = summary(SSDLITE, size_hw=SIZE_HW, **({} if given else NAMES))
    found = recognise(built, SIZE_HW, given)
    assert found.spec.options["style"] == "torchvision_ssdlite320"
    assert (found.spec.labels[0], found.spec.labels[89]) == ("person", "toothbrush")
    assert len(found.spec.labels) == 90


def test_other_names_are_asked_for() -> None:
    network = _queries(91, "Add(9x4)", OTHERS)
    answer = get_head("rtdetr").examine(network, (64, 96), {})
    assert isinstance(answer, Question)
    assert "80 classes that are not COCO's, but the network scores 91" in answer
    told = tomllib.loads(answer.spec_text)
    assert list(told) == ["labels"]
    answered = {"labels": [f"class {index}" for index in range(91)]}
    assert recognise(network, (64, 96), answered).spec.labels[90] == "class 90"
    with pytest.raises(ModelError, match="the spec gives 80 labels, but the network scores 91"):
        recognise(network, (64, 96), {"labels": COCO_80[::-1]})
