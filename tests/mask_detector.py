"""A small detector with masks, and a family for it that exists in tests only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest

import tvmdet
from tvmdet import heads
from tvmdet.frontend import recognise
from tvmdet.heads import Decoded, GraphSummary, Head, MaskValues, Recognition
from tvmdet.spec import DetectorSpec, InputSpec, MaskSpec, PostprocessSpec

SIZE_HW = (64, 96)
LABELS = ("a", "b")
MASK_HW = (7, 7)


def mask_network(frame: str, path: Path) -> Path:
    """Writes a network with 96 candidates whose masks span their boxes, or the image."""
    # Seeds at which masks are neither empty nor full.
    graph = onnx_models.Graph(seed=4 if frame == "box" else 8)
    features = graph.node("Tanh", graph.conv("images", (3, 16), 8, strides=[8, 8]))
    features = graph.node("Relu", graph.conv(features, (16, 16), 3, pads=[1, 1, 1, 1]))
    count = 8 * 12

    def rows(channels: int) -> str:
        flat = graph.node(
            "Reshape",
            graph.conv(features, (16, channels), 1),
            graph.constant([0, channels, count], np.int64),
        )
        return graph.node("Transpose", flat, perm=[0, 2, 1])

    y, x = np.mgrid[:8, :12].reshape(2, 1, count, 1) * 8.0 + 4
    center = graph.node("Add", graph.constant(np.concatenate([x, y], axis=-1)), rows(2))
    half = graph.node("Mul", graph.node("Sigmoid", rows(2)), graph.constant([30.0]))
    boxes = graph.node(
        "Concat", graph.node("Sub", center, half), graph.node("Add", center, half), axis=2
    )
    outputs = {"boxes": boxes, "scores": graph.node("Sigmoid", rows(len(LABELS)))}
    steep = graph.constant([8.0])
    if frame == "box":
        logits = graph.node("Mul", rows(MASK_HW[0] * MASK_HW[1]), steep)
        shape = graph.constant([0, count, *MASK_HW], np.int64)
        outputs["masks"] = graph.node("Reshape", graph.node("Sigmoid", logits), shape)
    else:
        outputs["coefficients"] = graph.node("Mul", rows(6), steep)
        # Twice as fine as the candidates.
        wide = graph.node(
            "Resize", features, "", graph.constant([1.0, 1.0, 2.0, 2.0]), mode="nearest"
        )
        outputs["prototypes"] = graph.conv(wide, (16, 6), 3, pads=[1, 1, 1, 1])
    for name, value in outputs.items():
        graph.node("Identity", value)
        graph.nodes[-1].output[0] = name
    model = graph.model({"images": ["n", 3, *SIZE_HW]}, dict.fromkeys(outputs))
    return onnx_models.save(model, path)


class MaskToyHead(Head):
    """Outputs that are candidates already."""

    name = "masktoy"
    title = "a toy with masks"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        names = set(summary.outputs)
        if not {"boxes", "scores"} <= names:
            return "its outputs are not boxes and scores"
        spec = DetectorSpec(
            family=self.name,
            labels=LABELS,
            input=InputSpec(size_hw=size_hw),
            postprocess=PostprocessSpec(score_threshold=0.4, max_detections=50),
            masks=MaskSpec(frame="box" if "masks" in names else "image"),
        )
        return Recognition(family=self.name, reasons=("named outputs",), spec=spec)

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        pass

    def decode(self, bb: Any, outputs: Mapping[str, Any], spec: DetectorSpec) -> Decoded:
        return self.decode_reference(outputs, spec)

    def decode_reference(self, outputs: Mapping[str, Any], spec: DetectorSpec) -> Decoded:
        if "masks" in outputs:
            masks = MaskValues(values=outputs["masks"])
        else:
            masks = MaskValues(values=outputs["coefficients"], prototypes=outputs["prototypes"])
        return Decoded(boxes=outputs["boxes"], scores=outputs["scores"], masks=masks)


@contextmanager
def family_known() -> Iterator[None]:
    """Within it, tvmdet knows the family."""
    known = (*heads.all_heads(), MaskToyHead())
    with pytest.MonkeyPatch.context() as patch:
        for module in (heads, recognise):
            patch.setattr(module, "all_heads", lambda: known)
        yield


def import_mask_network(frame: str, folder: Path) -> Any:
    """Imports the network; within :func:`family_known`."""
    return tvmdet.import_onnx(mask_network(frame, folder / f"{frame}.onnx"))
