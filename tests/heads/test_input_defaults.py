"""How pictures are fed: never normalised twice, never silently not at all."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import pytest
from dense_summaries import SIZE_HW, claim, level_maps, summary

from tvmdet.heads import GraphSummary, Question, TensorSummary, get_head
from tvmdet.heads.base import Normalisation, Stem
from tvmdet.heads.dense_inputs import IMAGENET_RGB, RTMDET_BGR, padded
from tvmdet.heads.input_defaults import UNIT, detr_input, fed_input, stated_input

BYTES_BGR = {"color": "bgr", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
STRANGE = Normalisation(mean=(9.0, 9.0, 9.0), std=(3.0, 3.0, 3.0))
NOTHING = summary({"o": (1, 4)})


def _inner(mean: float | tuple[float, ...], std: float | tuple[float, ...]) -> Normalisation:
    return Normalisation(
        mean=mean if isinstance(mean, tuple) else (mean,) * 3,
        std=std if isinstance(std, tuple) else (std,) * 3,
    )


def _fed(inner: Normalisation | None, usual: Any, **given: Any) -> dict[str, Any] | Question:
    network = replace(NOTHING, normalisation=inner)
    answer = fed_input(network, usual, "as usual", "family", given)
    return answer if isinstance(answer, Question) else answer[0]


@pytest.mark.parametrize(
    ("inner", "usual", "color", "std"),
    [
        (None, IMAGENET_RGB, "rgb", 58.395),
        (_inner(0.0, 1.0), IMAGENET_RGB, "rgb", 58.395),  # does nothing
        (_inner((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), IMAGENET_RGB, "rgb", 255),
        (_inner((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)), IMAGENET_RGB, "rgb", 1),
        (_inner((103.53, 116.28, 123.675), (57.375, 57.12, 58.395)), RTMDET_BGR, "bgr", 1),
        # Channels turned round before the network: its colours count.
        (_inner((103.53, 116.28, 123.675), (57.375, 57.12, 58.395)), IMAGENET_RGB, "bgr", 1),
        (_inner(0.0, 255.0), UNIT, "rgb", 1),
        (_inner(0.0, 1 / 255), BYTES_BGR, "bgr", 255),
    ],
)
def test_a_normalisation_that_is_explained(
    inner: Normalisation | None, usual: Any, color: str, std: float
) -> None:
    values = _fed(inner, usual)
    assert isinstance(values, dict)
    assert values["color"] == color
    assert values["std"][0] == std
    assert any(values["mean"]) == (std == 58.395)


@pytest.mark.parametrize(
    ("inner", "usual"),
    [
        (STRANGE, IMAGENET_RGB),
        (_inner(0.0, 255.0), IMAGENET_RGB),  # the first half of it, or all there is
        (_inner(0.0, 255.0), BYTES_BGR),
        (_inner((0.485, 0.456, 0.406), 1.0), IMAGENET_RGB),  # ImageNet's mean without deviation
        (STRANGE, UNIT),
    ],
)
def test_a_normalisation_that_is_not_is_asked_for(inner: Normalisation, usual: Any) -> None:
    answer = _fed(inner, usual)
    assert isinstance(answer, Question)
    assert "normalises its picture itself" in answer
    assert "[input]" in answer.spec_text
    told = {"input": {"mean": [0, 0, 0], "std": [1, 1, 1]}}
    assert _fed(inner, usual, **told) == dict(usual)


@pytest.mark.parametrize(
    ("inner", "usual", "color", "std"),
    [
        (_inner(0.0, 1.0), UNIT, "bgr", 255),
        (_inner(0.0, 255.0), UNIT, "bgr", 1),
        (_inner(0.0, 1.0), IMAGENET_RGB, "bgr", 57.375),
        (_inner(127.5, 127.5), IMAGENET_RGB, "bgr", 1),
        # By the mean the colours are known, wherever the channels are turned around.
        (_inner((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)), IMAGENET_RGB, "rgb", 1),
        (_inner((103.53, 116.28, 123.675), (57.375, 57.12, 58.395)), IMAGENET_RGB, "bgr", 1),
    ],
)
def test_a_network_that_turns_the_channels_around_is_fed_the_other_colours(
    inner: Normalisation, usual: Any, color: str, std: float
) -> None:
    values = _fed(replace(inner, reverses=True), usual)
    assert isinstance(values, dict)
    assert (values["color"], values["std"][0]) == (color, std)
    inputs = {"image": TensorSummary(shape=(1, 3, 64, 96), dtype="uint8")}
    network = replace(NOTHING, inputs=inputs, normalisation=replace(STRANGE, reverses=True))
    answer = fed_input(network, UNIT, "as usual", "family", {})
    assert not isinstance(answer, Question) and answer[0]["color"] == "bgr"


def test_what_is_computed_before_the_first_convolution_is_asked_for() -> None:
    inner = replace(_inner(0.0, 1.0), unknown=("Split", "Mul"))
    answer = _fed(inner, UNIT)
    assert isinstance(answer, Question)
    assert "before its first convolution (Split, Mul)" in answer and "[input]" in answer.spec_text
    told = {"input": {"mean": [0, 0, 0], "std": [1, 1, 1]}}
    assert _fed(inner, UNIT, **told) == dict(UNIT)
    # Bytes are fed whatever is done to them.
    inputs = {"image": TensorSummary(shape=(1, 64, 96, 3), dtype="uint8")}
    network = replace(NOTHING, inputs=inputs, normalisation=inner)
    assert fed_input(network, UNIT, "as usual", "family", {}) == (dict(UNIT), "as usual")
    assert stated_input(replace(NOTHING, normalisation=inner)) is None


@pytest.mark.parametrize(
    ("inner", "proven"),
    [
        (_inner(0.0, 255.0), True),
        (_inner(1.0, 1.0), True),
        (_inner(0.0, 1.0), False),
        (replace(_inner(0.0, 1.0), reverses=True), False),
        (replace(_inner(0.0, 255.0), unknown=("Mul",)), False),
    ],
)
def test_what_proves_that_a_network_normalises(inner: Normalisation, proven: bool) -> None:
    assert inner.is_proven is proven


def test_bytes_are_fed_as_they_are() -> None:
    inputs = {"image": TensorSummary(shape=(1, 3, 64, 96), dtype="uint8")}
    network = replace(NOTHING, inputs=inputs, normalisation=STRANGE)
    assert not isinstance(fed_input(network, UNIT, "as usual", "family", {}), Question)


@pytest.mark.parametrize("unit", [1.0, 255.0])
def test_the_border_is_what_the_network_turns_into_zero(unit: float) -> None:
    mean = tuple(value * unit for value in (0.482, 0.459, 0.408))
    values = _fed(_inner(mean, unit / 255), padded(IMAGENET_RGB))
    assert isinstance(values, dict)
    assert values["pad_value"] == (123, 117, 104)


def test_detrs_border_has_the_mean_colour() -> None:
    answer = detr_input(NOTHING)
    assert not isinstance(answer, Question)
    assert answer[0]["pad_value"] == (124, 116, 104)


@pytest.mark.parametrize(
    ("rows", "stem", "answers"),
    [
        (24, Stem(kernel=16, stride=16), True),  # 64x96 in patches of 16
        (25, Stem(kernel=16, stride=16), False),  # chosen queries, tokens beside the patches
        (300, Stem(kernel=16, stride=16), False),
        (24, Stem(kernel=7, stride=2), False),  # a convolutional stem, and as many queries
        (24, None, False),
    ],
)
def test_what_answers_for_each_patch_is_asked_about(
    rows: int, stem: Stem | None, answers: bool
) -> None:
    """OWL-ViT with its text folded in: its mean and deviation are CLIP's, which nothing shows."""
    network = replace(summary({"logits": (1, rows, 3), "boxes": (1, rows, 4)}), stem=stem)
    answer = detr_input(network)
    if not answers:
        assert not isinstance(answer, Question)
        return
    assert isinstance(answer, Question)
    assert "as OWL-ViT does" in answer
    told = tomllib.loads(answer.spec_text)
    found = claim(network, **told, labels=["a", "b", "c"]).spec
    spec = found.override(told)
    assert (spec.family, spec.input.resize) == ("rtdetr", "stretch")
    assert spec.input.std[0] == pytest.approx(255 * 0.26862954)
    assert not spec.postprocess.multi_label  # as their post-processing has it


MAPS = level_maps({"c": 3, "b": 32}, ((8, 12), (4, 6), (2, 3), (1, 2)))
NETWORKS: dict[str, GraphSummary] = {
    "gfl": summary(level_maps({"c": 3, "b": 68})),
    "picodet": summary(MAPS),
    "centernet": summary({"hm": (1, 3, 16, 24), "wh": (1, 2, 16, 24), "reg": (1, 2, 16, 24)}),
}


@pytest.mark.parametrize("family", NETWORKS)
def test_heads_ask_and_take_the_answer(family: str) -> None:
    network = replace(NETWORKS[family], normalisation=STRANGE)
    answer = get_head(family).examine(network, SIZE_HW, {})
    assert isinstance(answer, Question)
    assert f'family = "{family}"' in answer.spec_text
    told = {"color": "bgr", "mean": [0, 0, 0], "std": [1, 1, 1]}
    spec = claim(network, family=family, input=told).spec
    assert (spec.input.color, spec.input.std) == ("bgr", (1, 1, 1))
