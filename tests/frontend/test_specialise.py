"""The static shapes that open inputs get."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from onnx import TensorProto, helper

from tvmdet.errors import ShapeError
from tvmdet.frontend.specialise import input_shapes


def _shapes(dims: Sequence[int | str], size_hw: tuple[int, int] | None = (4, 6)) -> tuple[int, ...]:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(dims))
    model = helper.make_model(helper.make_graph([], "test", [value], []))
    return input_shapes(model, batch_size=2, size_hw=size_hw)["x"]


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        ((1, 3, 4, 6), (1, 3, 4, 6)),
        (("n", 3, "h", "w"), (2, 3, 4, 6)),
        (("n", "h", "w", 3), (2, 4, 6, 3)),
        (("n", "c", "h", "w"), (2, 3, 4, 6)),  # Optimum's num_channels
        (("n", 5), (2, 5)),
    ],
)
def test_open_dimensions_are_decided(dims: Sequence[int | str], shape: Sequence[int]) -> None:
    assert _shapes(dims) == shape


def test_open_channels_of_no_picture_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"with open dimensions; give --size HxW"):
        _shapes(("n", "c", 4, 6), None)
