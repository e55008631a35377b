"""Every dense family from an ONNX file: recognised, and decoded from what its graph computes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from dense_networks import SIZE_HW, blaze_face, dense_network, face_network, nanodet_plus
from onnx_models import save

import tvmdet
from tvmdet.heads import get_head

JOINED = {"cls_logits": 3, "bbox_regression": 4}
LOGITS_9 = {"cls_logits": 27, "bbox_regression": 36}
NETWORKS: dict[str, tuple[onnx.ModelProto, dict[str, Any]]] = {
    "retinanet": (dense_network(LOGITS_9, numbers=JOINED), {}),
    "ssd": (
        dense_network(
            {"cls_logits": 18, "bbox_regression": 24}, levels=6, numbers=JOINED, first_stride=4
        ),
        {},
    ),
    "fcos": (
        dense_network({**JOINED, "bbox_ctrness": 1}, numbers={**JOINED, "bbox_ctrness": 1}),
        {},
    ),
    "gfl": (dense_network({"cls": 3, "bbox": 68}), {}),
    "nanodet_plus": (nanodet_plus(), {}),
    "efficientdet": (
        dense_network({"classification": 27, "regression": 36}, activated=("classification",)),
        {"family": "efficientdet", "options": {"style": "tensorflow"}},
    ),
    "atss": (
        dense_network({"cls": 3, "bbox": 4, "centerness": 1}),
        {"family": "atss", "options": {"style": "mmdetection"}},
    ),
    "rtmdet": (
        dense_network({"cls": 3, "bbox": 4}, levels=3),
        {"family": "rtmdet", "options": {"style": "mmdetection"}},
    ),
    "scrfd": (
        face_network(
            {"score": 1, "bbox": 4, "kps": 10}, per_cell=2, scores=("score",), images=False
        ),
        {},
    ),
    "yunet": (face_network({"cls": 1, "obj": 1, "bbox": 4, "kps": 10}, scores=("cls", "obj")), {}),
}
CLASSES = {"blazeface": 1, "centerface": 1, "scrfd": 1, "ssd": 2, "yunet": 1}


def _centernet() -> onnx.ModelProto:
    model = dense_network({"hm": 3, "wh": 2, "reg": 2}, levels=1, first_stride=4, activated=("wh",))
    text = {"hm0": "hm", "wh0": "wh", "reg0": "reg"}
    for node in model.graph.node:
        node.output[:] = [text.get(name, name) for name in node.output]
    for value in model.graph.output:
        value.name = text[value.name]
    return model


NETWORKS["centernet"] = (_centernet(), {})
NETWORKS["centerface"] = (
    dense_network(
        {"heatmap": 1, "scale": 2, "offset": 2, "lms": 10},
        levels=1,
        first_stride=4,
        activated=("heatmap",),
    ),
    {},
)

NETWORKS["blazeface"] = (blaze_face(), {})
SIZES = {"blazeface": (128, 128)}


@pytest.mark.parametrize("family", NETWORKS)
def test_is_recognised(family: str, tmp_path: Path) -> None:
    network, given = NETWORKS[family]
    path = save(network, tmp_path / "detector.onnx")
    model = tvmdet.import_onnx(path, spec=given)
    assert model.spec.family == family
    size_hw = SIZES.get(family, SIZE_HW)
    assert model.spec.input.size_hw == size_hw
    assert len(model.spec.labels) == CLASSES.get(family, 3)
    # What ONNX Runtime computes decodes, too: the shapes of the spec are those of the graph.
    picture = np.random.default_rng(0).normal(0, 1, (1, 3, *size_hw)).astype(np.float32)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {"images": picture}), strict=True))
    decoded = get_head(family).decode_reference(outputs, model.spec)
    assert decoded.scores.shape[2] == len(model.spec.labels)
    assert 0 < decoded.scores.max() <= 1


@pytest.mark.parametrize("operator", ["Mul", "Sqrt"])
def test_scores_made_of_several_sigmoids_get_no_second_one(operator: str, tmp_path: Path) -> None:
    # As GFLv2's product with a quality, or the root of one.
    network = dense_network({"cls": 3, "bbox": 68}, activated=("cls",))
    for node in network.graph.node:
        if node.name.startswith("as_cls"):
            node.op_type = operator
            node.input[:] = list(node.input) * (2 if operator == "Mul" else 1)
    model = tvmdet.import_onnx(save(network, tmp_path / "detector.onnx"))
    assert model.spec.family == "gfl"
    assert model.spec.options["score_activation"] == "none"


@pytest.mark.parametrize("family", ["retinanet", "efficientdet", "atss", "rtmdet"])
def test_maps_without_names_are_asked_for_with_the_text_to_write(
    family: str, tmp_path: Path
) -> None:
    channels, levels = {
        "retinanet": ({"a": 27, "b": 36}, 5),
        "efficientdet": ({"a": 27, "b": 36}, 5),
        "atss": ({"a": 3, "b": 4, "c": 1}, 5),
        "rtmdet": ({"a": 3, "b": 4}, 3),
    }[family]
    path = save(dense_network(channels, levels=levels), tmp_path / "detector.onnx")
    with pytest.raises(tvmdet.ModelError, match=f'family = "{family}"') as caught:
        tvmdet.import_onnx(path)
    text = re.search(
        rf'^  family = "{family}"\n  \[options\]\n  style = "\w+"', str(caught.value), re.MULTILINE
    )
    assert text is not None
    # The text works as it is written there.
    spec = tmp_path / "answer.toml"
    spec.write_text(text[0])
    assert tvmdet.import_onnx(path, spec=spec).spec.family == family


@pytest.mark.parametrize(
    "family",
    [
        "centernet",
        "rtmdet",
        "scrfd",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in NETWORKS
            if name not in ("centernet", "rtmdet", "scrfd")
        ),
    ],
)
def test_compiles_and_agrees_with_onnx_runtime(family: str, tmp_path: Path) -> None:
    network, given = NETWORKS[family]
    path = save(network, tmp_path / "detector.onnx")
    low = {**given, "postprocess": {"score_threshold": 0.3}}
    model = tvmdet.import_onnx(path, spec=low)
    artifact = tmp_path / "detector.tvmdet"
    report = tvmdet.compile(model, target="host", output=artifact)
    assert all(isinstance(proof, dict) for proof in report.parity.values()), report.parity
    image = np.random.default_rng(1).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    with tvmdet.load(artifact) as detector:
        (found,) = detector.detect([image])
    assert len(found.scores) > 0
    assert (found.boxes_xyxy >= 0).all()
