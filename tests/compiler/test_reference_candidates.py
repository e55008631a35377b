"""What the reference offers of each box: its best class, and those that rounding may prefer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_modules import toy_spec

from tvmdet.boxes import ImageTransform
from tvmdet.compiler import reference as module
from tvmdet.compiler.reference import Candidates, Reference
from tvmdet.compiler.tolerance import Tolerance
from tvmdet.heads import Decoded

SCORES = np.array([[0.5, 1.0, 0.9999, 1.0], [0.1, 0.2, 0.7, 0.3], [0.4, 0.4, 0.4, 0.4]], np.float32)


def _candidates(
    monkeypatch: pytest.MonkeyPatch, scores: np.ndarray, **arguments: Any
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Box and class of the candidates and of the other choices, in order of boxes."""
    boxes = np.arange(4 * len(scores), dtype=np.float32).reshape(1, -1, 4)
    head = SimpleNamespace(
        decode_reference=lambda _outputs, _spec: Decoded(boxes=boxes, scores=scores[None])
    )
    monkeypatch.setattr(module, "get_head", lambda _family: head)
    reference = Reference.__new__(Reference)
    reference.spec = toy_spec()
    reference.input_names, reference._dtype = ("images",), np.dtype("float32")
    monkeypatch.setattr(reference, "run", lambda _inputs: {})
    size = reference.spec.input.size_hw
    transform = ImageTransform.for_image(size, reference.spec.input)
    found = reference.candidates(np.zeros((*size, 3), np.uint8), transform, **arguments)
    return _pairs(found[0]), _pairs(found[1])


def _pairs(found: Candidates) -> list[tuple[int, int]]:
    return sorted(zip(found.anchors.tolist(), found.class_ids.tolist(), strict=True))


def test_the_second_best_class_is_always_there(monkeypatch: pytest.MonkeyPatch) -> None:
    best, others = _candidates(monkeypatch, SCORES)
    assert best == [(0, 1), (1, 2), (2, 0)]
    assert others == [(0, 3), (1, 3), (2, 1), (2, 2), (2, 3)]


def test_every_class_that_scores_about_as_much_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    best, others = _candidates(monkeypatch, SCORES, alike=Tolerance().score_near)
    assert best == [(0, 1), (1, 2), (2, 0)]
    assert others == [(0, 2), (0, 3), (1, 3), (2, 1), (2, 2), (2, 3)]


def test_one_class_has_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    best, others = _candidates(monkeypatch, SCORES[:, :1], alike=Tolerance().score_near)
    assert best == [(0, 0), (1, 0), (2, 0)]
    assert others == []


def test_of_next_to_nothing_not_every_class_is_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    low = np.array([[9e-4, 1e-4, 2e-4, 8.9e-4]], np.float32)
    best, others = _candidates(monkeypatch, low, alike=Tolerance().score_near)
    assert (best, others) == ([(0, 0)], [(0, 3)])


@pytest.mark.parametrize(("interpolation", "level"), [("bilinear", 0), ("area", 125)])
def test_pictures_are_resized_as_the_spec_says(
    monkeypatch: pytest.MonkeyPatch, interpolation: str, level: int
) -> None:
    """Of four rows that become one, the inner two count bilinearly, and all four by area."""
    decoded = Decoded(boxes=np.zeros((1, 1, 4), np.float32), scores=np.ones((1, 1, 1), np.float32))
    head = SimpleNamespace(decode_reference=lambda _outputs, _spec: decoded)
    monkeypatch.setattr(module, "get_head", lambda _family: head)
    reference = Reference.__new__(Reference)
    fed = {"resize": "stretch", "std": [1, 1, 1], "interpolation": interpolation}
    reference.spec = toy_spec(input=fed)
    reference.input_names, reference._dtype = ("images",), np.dtype("float32")
    seen: list[Any] = []
    monkeypatch.setattr(reference, "run", lambda inputs: seen.append(inputs) or {})
    height, width = reference.spec.input.size_hw
    rows = np.tile(np.array([250, 0, 0, 250], np.uint8), height)
    picture = np.repeat(np.repeat(rows[:, None], 4 * width, axis=1)[..., None], 3, axis=2)
    transform = ImageTransform.for_image(picture.shape[:2], reference.spec.input)
    reference.candidates(picture, transform)
    (inputs,) = seen
    (fed_values,) = inputs.values() if isinstance(inputs, dict) else inputs
    assert set(np.unique(fed_values)) == {level}
