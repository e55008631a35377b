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
        ({"box": (1, 4), "face": (1, 2), "points": (1, 10)}, "in each output: .*of a crop"),
        ({"lit": (1, 1, 64, 96)}, "segmentation, or one that finds text"),
        ({"lit": (1, 64, 96)}, "pixel by pixel"),
        ({"classes": (1, 21, 64, 96), "other": (1, 64, 96, 3)}, "pixel by pixel"),
        ({"heat": (1, 2, 16, 24)}, "a cell of its maps has 2 values, which is too few"),
        ({"heat": (1, 8, 12, 1)}, "a cell of its maps has 1 value, which is too few"),
    ],
)  # fmt: skip
def test_what_has_no_boxes_is_said(outputs: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        recognise(summary_of(outputs), (64, 96), {})
    assert "--raw" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_shares_of_characters_are_no_boxes() -> None:
    rows = {"rows": (1, 40, 97)}
    for last in ("Softmax", "LogSoftmax"):
        traced = summary_of(rows, output_traces={"rows": (last, "Gemm(97x120)")})
        with pytest.raises(ModelError, match=r"reads text .*--raw"):
            recognise(traced, (64, 96), {})
    others = summary_of({**rows, "a": (1, 20, 4)}, output_traces={"rows": ("Softmax",)})
    for one in (others, summary_of(rows, output_traces={"rows": ("Sigmoid", "Softmax")})):
        with pytest.raises(ModelError, match="no known detector family"):
            recognise(one, (64, 96), {})


@pytest.mark.parametrize(
    "outputs",
    [
        {"a": (1, 20, 4), "b": (1, 20, 16, 24)},  # may be boxes and masks
        {"a": (1, 20, 6), "b": (1, 32, 16, 24)},
        {"rows": (100, 5)},
        {"rows": (None, 9)},
        {"row": (1, 1, 9)},
        {"flat": (1, 1, 38001)},
        {"rows": (1, 8, 12)},  # as long and wide as the cells of stride 8
        {"map": (1, 4, 16, 24)},
        {"heat": (1, 2, 16, 24), "size": (1, 2, 16, 24)},
        {"heat": (1, 2, 15, 23)},
        {"picture": (1, 1, 64, 96), "rows": (1, 20, 9)},
    ],
    ids=str,
)
def test_what_may_have_boxes_is_told_of_every_family(outputs: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ModelError, match=r"(?s)no known detector family.*picodet: "):
        recognise(summary_of(outputs), (64, 96), {})
