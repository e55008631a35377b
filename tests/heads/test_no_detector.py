"""Networks without boxes are refused in one sentence."""

from __future__ import annotations

import pytest
from head_tools import summary_of

from tvmdet.errors import ModelError
from tvmdet.frontend.recognise import recognise


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"class_queries_logits": (1, 20, 6), "masks_queries_logits": (1, 20, 16, 24)},
         "a mask, and no box: .*MaskFormer"),
        ({"masks": (1, 20, 16, 24), "classes": (1, 20, 6)}, "a mask, and no box"),
        ({"logits": (1, 1000)}, "for classification"),
        ({"features": (1, 512, 1)}, "or for features"),
        ({"flat": (1, 1470)}, "if the row holds boxes"),
    ],
)  # fmt: skip
def test_what_has_no_boxes_is_said(outputs: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        recognise(summary_of(outputs), (64, 96), {})
    assert "--raw" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "outputs",
    [
        {"a": (1, 20, 4), "b": (1, 20, 16, 24)},  # may be boxes and masks
        {"a": (1, 20, 6), "b": (1, 32, 16, 24)},
        {"rows": (100, 5)},
        {"rows": (None, 9)},
        {"row": (1, 1, 9)},
        {"flat": (1, 1, 38001)},
    ],
    ids=str,
)
def test_what_may_have_boxes_is_told_of_every_family(outputs: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ModelError, match=r"(?s)no known detector family.*picodet: "):
        recognise(summary_of(outputs), (64, 96), {})
