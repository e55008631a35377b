"""Scores or logits: nothing gets a second sigmoid, and what is not proven is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dense_summaries import SIZE_HW, claim, level_maps, summary

from tvmdet.heads import ColumnRun, GraphSummary, Question, TensorSummary, get_head
from tvmdet.heads.base import Range
from tvmdet.heads.score_evidence import are_logits, are_scores, find_activation

UNIT = (Range(low=0.0, high=1.0),)
QUALITY = frozenset({"Conv", "Mul", "Sigmoid"})


def _one(*runs: ColumnRun, ranges: tuple[Range, ...] = (), source: str = "Mul") -> GraphSummary:
    return GraphSummary(
        inputs={},
        outputs={"o": TensorSummary(shape=(1, 4, 8, 12), dtype="float32")},
        output_sources={"o": frozenset({source})},
        columns={("o", 1): runs} if runs else {},
        output_ranges={"o": ranges},
    )


def _run(*operators: str, stop: int = 4, low: float = -float("inf")) -> ColumnRun:
    high = 1.0 if low == 0 else float("inf")
    return ColumnRun(start=0, stop=stop, operators=frozenset(operators), low=low, high=high)


@pytest.mark.parametrize(
    ("network", "left"),
    [
        (_one(), None),
        (_one(source="Sigmoid"), "none"),
        (_one(source="Softmax"), "none"),
        (_one(source="Conv"), "sigmoid"),
        (_one(source="Relu"), None),
        (_one(ranges=UNIT), "none"),
        (_one(ranges=(Range(low=0.0, high=2.0),)), None),
        (_one(_run(*QUALITY, low=0.0)), "none"),
        (_one(_run(*QUALITY)), None),
        (_one(_run(*QUALITY, stop=3, low=0.0)), None),  # of the last column nothing is known
        (_one(_run("MatMul", "Add"), source="Add"), "sigmoid"),
        (_one(_run("Conv", "Mul")), "sigmoid"),
        (_one(_run("Add"), source="Add"), None),
        (_one(_run("Conv", "Clip", low=0.0), source="Clip"), "none"),
        (_one(_run("Conv", "Clip"), source="Clip"), None),
    ],
)
def test_what_is_left_to_do(network: GraphSummary, left: str | None) -> None:
    assert find_activation(network, ["o"], "sigmoid") == left


def test_columns_of_an_output_that_holds_more() -> None:
    scores = ColumnRun(start=0, stop=3, operators=QUALITY, low=0.0, high=1.0)
    boxes = ColumnRun(start=3, stop=4, operators=frozenset({"Conv"}))
    network = _one(scores, boxes)
    assert find_activation(network, ["o"], "sigmoid") is None
    assert are_scores(network, "o", axis=1, stop=3)
    assert not are_scores(network, "o", axis=1, stop=4)
    assert not are_logits(network, "o", axis=1, stop=3)


def _with_scores(network: GraphSummary, prefix: str, proven: bool) -> GraphSummary:
    """The network with a product of two sigmoids in its class outputs."""
    names = [name for name in network.outputs if name.startswith(prefix)]
    sources = {**network.output_sources, **dict.fromkeys(names, frozenset({"Mul"}))}
    ranges = dict.fromkeys(names, UNIT) if proven else {}
    return replace(network, output_sources=sources, output_ranges=ranges)


NETWORKS = {
    "gfl": (summary(level_maps({"c": 3, "b": 68})), "c", {}),
    "picodet": (
        summary(level_maps({"c": 3, "b": 32}, ((8, 12), (4, 6), (2, 3), (1, 2)))),
        "c",
        {},
    ),
    "centernet": (
        summary({"hm": (1, 3, 16, 24), "wh": (1, 2, 16, 24), "reg": (1, 2, 16, 24)}),
        "hm",
        {},
    ),
}


@pytest.mark.parametrize("family", NETWORKS)
def test_heads_add_no_second_sigmoid(family: str) -> None:
    network, prefix, given = NETWORKS[family]
    assert claim(network, **given).spec.options["score_activation"] == "sigmoid"
    proven = claim(_with_scores(network, prefix, proven=True), **given)
    assert proven.family == family
    assert proven.spec.options["score_activation"] == "none"
    open_one = _with_scores(network, prefix, proven=False)
    answer = get_head(family).examine(open_one, SIZE_HW, given)
    assert isinstance(answer, Question)
    assert "Mul, which proves neither scores from 0 to 1 nor logits" in answer
    assert 'score_activation = "none"   # or "sigmoid"' in answer.spec_text
    settled = claim(open_one, family=family, options={"score_activation": "none"})
    assert settled.spec.options["score_activation"] == "none"


def test_a_quality_that_is_done_is_not_done_again() -> None:
    network = summary(level_maps({"cls": 3, "bbox": 4, "centerness": 1}))
    given = {"family": "atss", "options": {"style": "mmdetection"}}
    assert claim(network, **given).spec.options["quality_activation"] == "sigmoid"
    done = _with_scores(network, "centerness", proven=True)
    assert claim(done, **given).spec.options["quality_activation"] == "none"
    answer = get_head("atss").examine(
        _with_scores(network, "centerness", proven=False), SIZE_HW, given
    )
    assert isinstance(answer, Question)
    assert 'quality_activation = "none"' in answer.spec_text


def test_the_style_says_what_logits_need_and_no_more() -> None:
    grids = ((20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))
    outputs = {}
    for level, (count, grid) in enumerate(zip((3, 6, 6, 6, 6, 6), grids, strict=True)):
        outputs[f"score{level}"] = (1, count * 4, *grid)
        outputs[f"loc{level}"] = (1, count * 4, *grid)
    given = {
        "family": "ssd",
        "labels": ["a", "b", "c"],
        "options": {
            "style": "tensorflow",
            "class_outputs": [f"score{level}" for level in range(6)],
        },
    }
    network = summary(outputs, size_hw=(320, 320))
    assert claim(network, (320, 320), **given).spec.options["score_activation"] == "sigmoid"
    done = _with_scores(network, "score", proven=True)
    assert claim(done, (320, 320), **given).spec.options["score_activation"] == "none"
