"""What tests of several heads share: summaries, and running a head's decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx_models import run_relax
from tvm import relax

from tvmdet.heads import GraphSummary, TensorSummary, get_head
from tvmdet.heads.base import Range
from tvmdet.spec import DetectorSpec

UNIT = Range(low=0.0, high=1.0)
ANY = Range(low=-float("inf"), high=float("inf"))


def number_range(high: int, low: int = 0) -> Range:
    """The range of whole numbers."""
    return Range(low=low, high=high, whole=True)


def summary_of(
    outputs: Mapping[str, Sequence[int]],
    *,
    dtypes: Mapping[str, str] | None = None,
    **facts: Any,
) -> GraphSummary:
    """A network of one picture 64x96."""
    types = dtypes or {}
    inputs = {"images": TensorSummary(shape=(1, 3, 64, 96), dtype="float32")}
    return GraphSummary(
        **{"inputs": inputs, **facts},
        outputs={
            name: TensorSummary(shape=tuple(shape), dtype=types.get(name, "float32"))
            for name, shape in outputs.items()
        },
    )


def decode(spec: DetectorSpec, outputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Runs a head's Relax decoding: boxes, scores, masks and keypoints where there are any."""
    bb = relax.BlockBuilder()
    params = [
        relax.Var(f"x{at}", relax.TensorType(value.shape, str(value.dtype)))
        for at, value in enumerate(outputs.values())
    ]
    with bb.function("main", params=params):
        with bb.dataflow():
            named = dict(zip(outputs, params, strict=True))
            found = get_head(spec.family).decode(bb, named, spec)
            results = [found.boxes, found.scores]
            if found.masks is not None:
                results.append(found.masks.values)
            if found.keypoints is not None:
                results.append(found.keypoints)
            result = bb.emit_output(relax.Tuple(results))
        bb.emit_func_output(result)
    module = bb.get()
    assert "call_tir" not in module.script()
    return run_relax(module, *outputs.values())


def assert_decodes_as_reference(spec: DetectorSpec, outputs: Mapping[str, np.ndarray]) -> None:
    """Holds a head's Relax decoding against its numpy one."""
    boxes, scores, *more = decode(spec, outputs)
    want = get_head(spec.family).decode_reference(outputs, spec)
    assert boxes.shape == (*scores.shape[:2], 4)
    assert scores.shape[2] == len(spec.labels)
    np.testing.assert_allclose(boxes, want.boxes, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(scores, want.scores, rtol=1e-5, atol=1e-6)
    expected = [] if want.masks is None else [want.masks.values]
    expected += [] if want.keypoints is None else [want.keypoints]
    for got, other in zip(more, expected, strict=True):
        np.testing.assert_allclose(got, other, rtol=1e-5, atol=1e-6)
