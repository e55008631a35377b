"""Transposed convolutions become convolutions; the numbers stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest
from relax_nets import assert_same_as_onnx_runtime, import_raw, operators

from tvmdet.passes.convert_to_nhwc import ConvertToNHWC

RNG = np.random.default_rng(0)


def _net(
    folder: Path,
    channels: int,
    filters: int,
    kernel: tuple[int, int],
    *,
    size: tuple[int, int] = (5, 7),
    groups: int = 1,
    biased: bool = True,
    **attributes: Any,
) -> Any:
    graph = onnx_models.Graph()
    weight = RNG.standard_normal((channels, filters // groups, *kernel)).astype("float32")
    inputs = ["x", graph.constant(weight)]
    if biased:
        inputs.append(graph.constant(RNG.standard_normal(filters).astype("float32")))
    up = graph.node("ConvTranspose", *inputs, group=groups, kernel_shape=kernel, **attributes)
    result = graph.node("Relu", up)
    return import_raw(graph, {"x": (1, channels, *size)}, [result], folder)


@pytest.mark.parametrize(
    ("channels", "filters", "kernel", "attributes"),
    [
        (8, 5, (2, 2), {"strides": [2, 2]}),
        (7, 16, (4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        (3, 17, (3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
        (3, 4, (2, 2), {"strides": [2, 2], "output_padding": [1, 0]}),
        (5, 3, (3, 3), {"strides": [1, 1], "pads": [1, 1, 1, 1]}),
        (5, 3, (1, 1), {"strides": [1, 1]}),
        (5, 3, (1, 2), {"strides": [3, 2]}),
        (5, 3, (5, 4), {"strides": [3, 2], "pads": [2, 1, 0, 1]}),
        (5, 3, (5, 5), {"strides": [2, 2], "pads": [4, 3, 4, 3]}),
        (5, 3, (3, 2), {"strides": [2, 1], "dilations": [2, 3], "pads": [1, 0, 2, 1]}),
        (6, 9, (4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1], "groups": 3}),
        (6, 6, (4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1], "groups": 6}),
        (4, 4, (3, 3), {"strides": [4, 4], "output_padding": [3, 2]}),
        (4, 2, (2, 2), {"strides": [2, 2], "biased": False, "size": (1, 1)}),
        (4, 2, (7, 7), {"strides": [2, 2], "pads": [6, 6, 6, 6]}),
    ],
    ids=str,
)
def test_as_onnx_runtime(
    tmp_path: Path,
    channels: int,
    filters: int,
    kernel: tuple[int, int],
    attributes: dict[str, Any],
) -> None:
    model = _net(tmp_path, channels, filters, kernel, **attributes)
    module = ConvertToNHWC()(model.relax_at(1))
    counts = operators(module)
    assert counts["nn.conv2d"] == 1 and counts["nn.conv2d_transpose"] == 0
    assert_same_as_onnx_runtime(model, module)


def test_a_neighbour_reads_the_picture_as_it_lies(tmp_path: Path) -> None:
    graph = onnx_models.Graph()

    def weight(*shape: int) -> str:
        return graph.constant(RNG.standard_normal(shape).astype("float32"))

    first = graph.node("Conv", "x", weight(8, 4, 1, 1))
    up = graph.node("ConvTranspose", first, weight(8, 6, 2, 2), strides=[2, 2])
    result = graph.node("Conv", up, weight(4, 6, 1, 1))
    model = import_raw(graph, {"x": (1, 4, 5, 3)}, [result], tmp_path)
    module = ConvertToNHWC()(model.relax_at(1))
    # Into the first convolution, out of the last, and the interleaving.
    assert operators(module)["permute_dims"] == 3
    assert_same_as_onnx_runtime(model, module)
