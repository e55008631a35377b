"""DeformConv becomes samples and a product, with the numbers of ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_models import Graph, run_relax

from tvmdet.frontend.importer import import_relax
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.onnx_tools import name_nodes
from tvmdet.frontend.prove import run_onnx
from tvmdet.frontend.specialise import specialise

OPSET = 19
CHANNELS, FILTERS = 8, 12


@pytest.mark.parametrize(
    ("kernel", "attributes", "extras"),
    [
        ((3, 3), {"pads": [1, 1, 1, 1]}, ("bias", "mask")),  # Deformable ConvNets v2
        ((3, 3), {"pads": [1, 1, 1, 1]}, ()),  # v1
        ((3, 3), {"pads": [0, 1, 2, 1], "strides": [2, 1]}, ("mask",)),
        ((1, 3), {"dilations": [1, 2]}, ("bias",)),
        ((3, 2), {"pads": [1, 1, 1, 1], "group": 4, "offset_group": 2}, ("bias", "mask")),
    ],
)
def test_equals_onnx_runtime(
    kernel: tuple[int, int], attributes: dict[str, Any], extras: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(3)
    group, parts = attributes.get("group", 1), attributes.get("offset_group", 1)
    graph = Graph()
    weight = graph.constant(rng.normal(size=(FILTERS, CHANNELS // group, *kernel)))
    rows, columns = _size_of_output((9, 7), kernel, attributes)
    points = kernel[0] * kernel[1]
    inputs = {
        "x": (2, CHANNELS, 9, 7),
        "offset": (2, parts * points * 2, rows, columns),
        "mask": (2, parts * points, rows, columns),
    }
    names = ["x", weight, graph.node("Mul", "offset", graph.constant(4.0))]
    names.append(graph.constant(rng.normal(size=FILTERS)) if "bias" in extras else "")
    if "mask" in extras:
        names.append("mask")
    else:
        del inputs["mask"]
    output = graph.node("DeformConv", *names, kernel_shape=list(kernel), **attributes)
    model = graph.model(inputs, {output: None}, opset=OPSET)
    name_nodes(model.graph)
    static = specialise(model, inputs, Limits())
    # Offsets of up to four pixels, so that many places lie outside.
    feeds = {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in inputs.items()}
    (expected,) = run_onnx(static, [feeds])
    (got,) = run_relax(import_relax(static, OPSET), *feeds.values())
    np.testing.assert_allclose(got, *expected.values(), rtol=1e-4, atol=1e-4)


def _size_of_output(
    size_hw: tuple[int, int], kernel: tuple[int, int], attributes: dict[str, Any]
) -> list[int]:
    pads = attributes.get("pads", [0, 0, 0, 0])
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    return [
        (size_hw[at] + pads[at] + pads[at + 2] - dilations[at] * (kernel[at] - 1) - 1)
        // strides[at]
        + 1
        for at in range(2)
    ]
