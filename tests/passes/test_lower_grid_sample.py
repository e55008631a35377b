"""GridSample through the layout pass: channels last, and only points are moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest
from assertions import assert_close
from onnx_models import Graph
from relax_nets import assert_same_as_onnx_runtime, import_raw, one_function, operators
from tvm import relax
from tvmdet.targets import get_target

from tvmdet.passes.convert_to_nhwc import ConvertToNHWC
from tvmdet.passes.lower import lowering_phases, tvm_target
from tvmdet.passes.lower_grid_sample import LowerGridSample


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_like_onnx_runtime(mode: str, padding: str, align: int, tmp_path: Path) -> None:
    graph = Graph()
    data = graph.conv("x", (3, 8), 3, pads=[1, 1, 1, 1])
    made = graph.node(
        "GridSample", data, "points", mode=mode, padding_mode=padding, align_corners=align
    )
    out = graph.conv(made, (8, 4), 1)
    model = import_raw(graph, {"x": (1, 3, 6, 7), "points": (1, 5, 9, 2)}, [out], tmp_path)
    module = LowerGridSample()(ConvertToNHWC()(model.relax_at(1)))
    channels_last = mode == "bilinear" and padding != "reflection"
    assert ("image.grid_sample" in operators(module)) != channels_last
    assert_same_as_onnx_runtime(model, module, atol=1e-4)


def _deformable_attention(module_inputs: Any) -> Any:
    """Two levels, 2 heads of 8 channels, 5 queries with 3 points each."""
    heads, depth, queries, points = 2, 8, 5, 3

    def emit(builder: relax.BlockBuilder, value: Any, grids: Any, weights: Any) -> Any:
        samples, start = [], 0
        for level, (height, width) in enumerate(((4, 6), (2, 3))):
            stop = start + height * width
            part = builder.emit(relax.op.strided_slice(value, [1], [start], [stop]))
            part = builder.emit(relax.op.permute_dims(part, [0, 2, 3, 1]))
            part = builder.emit(relax.op.reshape(part, (heads, depth, height, width)))
            at = builder.emit(relax.op.strided_slice(grids, [3], [level], [level + 1]))
            at = builder.emit(relax.op.reshape(at, (1, queries, heads, points, 2)))
            at = builder.emit(relax.op.permute_dims(at, [0, 2, 1, 3, 4]))
            at = builder.emit(relax.op.reshape(at, (heads, queries, points, 2)))
            at = builder.emit(relax.op.permute_dims(at, [0, 3, 1, 2]))
            made = builder.emit(relax.op.image.grid_sample(part, at, align_corners=False))
            made = builder.emit(relax.op.reshape(made, (heads, depth, queries, 1, points)))
            samples.append(made)
            start = stop
        every = builder.emit(relax.op.concat(samples, axis=3))
        every = builder.emit(relax.op.reshape(every, (heads, depth, queries, 2 * points)))
        share = builder.emit(relax.op.permute_dims(weights, [0, 2, 1, 3]))
        share = builder.emit(relax.op.reshape(share, (heads, 1, queries, 2 * points)))
        total = builder.emit(relax.op.sum(builder.emit(relax.op.multiply(every, share)), axis=[3]))
        total = builder.emit(relax.op.reshape(total, (1, heads * depth, queries)))
        return builder.emit(relax.op.permute_dims(total, [0, 2, 1]))

    return one_function(module_inputs, emit)


def test_deformable_attention_moves_nothing_but_points() -> None:
    shapes = [(1, 30, 2, 8), (1, 5, 2, 2, 3, 2), (1, 5, 2, 6)]
    module = _deformable_attention([(shape, "float32") for shape in shapes])
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(-1.1, 1.1, shape).astype("float32") for shape in shapes]
    (expected,) = onnx_models.run_relax(module, *inputs)
    converted = LowerGridSample()(ConvertToNHWC()(module))
    moved = [
        tuple(int(d) for d in binding.value.ty.shape)
        for block in converted["main"].body.blocks
        for binding in block.bindings
        if getattr(getattr(binding.value, "op", None), "name", "") == "relax.permute_dims"
    ]
    # The pictures' own axes change places, which is an index to the sampling kernel.
    assert sorted(moved) == sorted([(2, 2, 5, 3)] * 2 + [(4, 2, 6, 8), (2, 2, 3, 8)])
    (got,) = onnx_models.run_relax(converted, *inputs)
    assert_close(got, expected, atol=1e-5)


def test_deformable_attention_samples_in_one_kernel() -> None:
    shapes = [(1, 30, 2, 8), (1, 5, 2, 2, 3, 2), (1, 5, 2, 6)]
    module = _deformable_attention([(shape, "float32") for shape in shapes])
    target = get_target("x86-64-v3")
    with tvm_target(target):
        for _, phase in lowering_phases(target):
            module = phase(module)
    sampling = [var.name_hint for var in module.get_global_vars() if "grid_sample" in var.name_hint]
    assert len(sampling) == 1
    assert "concatenate" in sampling[0]
