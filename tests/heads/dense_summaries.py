"""Summaries of dense heads, and what every test of one asks: decode against the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx_models import run_relax
from tvm import relax

from tvmdet.frontend.recognise import recognise
from tvmdet.heads import GraphSummary, Recognition, TensorSummary, get_head
from tvmdet.spec import DetectorSpec

Shape = tuple[int, ...]
CONV = frozenset({"Conv"})
SIZE_HW = (64, 96)
# 64x96 at strides 8 to 128: cut cells count.
PYRAMID = ((8, 12), (4, 6), (2, 3), (1, 2), (1, 1))


def summary(
    outputs: Mapping[str, Shape],
    *,
    size_hw: tuple[int, int] = SIZE_HW,
    sources: Mapping[str, frozenset[str]] | None = None,
    maps: Mapping[str, tuple[Shape, ...]] | None = None,
    operators: Mapping[str, int] | None = None,
    **metadata: str,
) -> GraphSummary:
    """A network with these outputs, straight from convolutions unless ``sources`` say else."""
    return GraphSummary(
        inputs={"images": TensorSummary(shape=(1, 3, *size_hw), dtype="float32")},
        outputs={n: TensorSummary(shape=s, dtype="float32") for n, s in outputs.items()},
        output_sources={**dict.fromkeys(outputs, CONV), **(sources or {})},
        output_maps=maps or {},
        operators=operators or {},
        metadata=metadata,
    )


def level_maps(
    channels: Mapping[str, int], grids: Sequence[tuple[int, int]] = PYRAMID
) -> dict[str, Shape]:
    """Outputs ``name0``, ``name1``, ... of one map for each level, as convolutions give them."""
    return {
        f"{name}{level}": (1, count, *grid)
        for name, count in channels.items()
        for level, grid in enumerate(grids)
    }


def claim(network: GraphSummary, size_hw: tuple[int, int] = SIZE_HW, **given: Any) -> Recognition:
    """What the frontend makes of it."""
    return recognise(network, size_hw, given)


def decode(spec: DetectorSpec, outputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Runs the compiled decoding: boxes, scores, and keypoints where there are any."""
    bb = relax.BlockBuilder()
    params = [
        relax.Var(f"x{at}", relax.TensorType(value.shape, "float32"))
        for at, value in enumerate(outputs.values())
    ]
    with bb.function("main", params=params):
        with bb.dataflow():
            named = dict(zip(outputs, params, strict=True))
            decoded = get_head(spec.family).decode(bb, named, spec)
            results = [decoded.boxes, decoded.scores]
            if decoded.keypoints is not None:
                results.append(decoded.keypoints)
            result = bb.emit_output(relax.Tuple(results))
        bb.emit_func_output(result)
    module = bb.get()
    assert "call_tir" not in module.script()
    return run_relax(module, *outputs.values())


def reference(spec: DetectorSpec, outputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Runs the decoding in numpy: boxes and scores. ``assert_decodes`` ties the two together."""
    decoded = get_head(spec.family).decode_reference(outputs, spec)
    return [decoded.boxes, decoded.scores]


def zeros(network: GraphSummary) -> dict[str, np.ndarray]:
    """Outputs of nothing but zeros."""
    return {
        name: np.zeros([dim or 0 for dim in value.shape], np.float32)
        for name, value in network.outputs.items()
    }


def assert_decodes(network: GraphSummary, spec: DetectorSpec, *, batch: int = 2) -> None:
    """The compiled decoding and the reference agree on random outputs, boxes inside the image."""
    rng = np.random.default_rng(7)
    outputs = {
        name: rng.normal(0, 2, (batch, *value.shape[1:])).astype(np.float32)
        for name, value in network.outputs.items()
    }
    boxes, scores, *points = decode(spec, outputs)
    want = get_head(spec.family).decode_reference(outputs, spec)
    assert boxes.shape == (*scores.shape[:2], 4)
    assert scores.shape == (batch, boxes.shape[1], len(spec.labels))
    np.testing.assert_allclose(boxes, want.boxes, rtol=1e-5, atol=2e-3)
    np.testing.assert_allclose(scores, want.scores, rtol=1e-5, atol=1e-6)
    assert len(points) == (spec.keypoints is not None)
    for got in points:
        assert got.shape == (*scores.shape[:2], spec.keypoints.columns)
        np.testing.assert_allclose(got, want.keypoints, rtol=1e-4, atol=2e-3)
    height, width = spec.input.size_hw
    assert boxes.min() >= 0
    assert (boxes <= [width, height, width, height]).all()
    assert (boxes[..., 2:] > boxes[..., :2]).any()
