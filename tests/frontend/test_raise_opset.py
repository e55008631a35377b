"""Exports of opset 7 to 10: converted, and proven by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from onnx_models import Graph, run_relax

import tvmdet
from tvmdet.errors import ModelError
from tvmdet.frontend.bind_inputs import bind_inputs
from tvmdet.frontend.doctor import diagnose
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.network import Network
from tvmdet.frontend.prove import TOLERANCE, run_onnx
from tvmdet.frontend.raise_opset import RAISED, raise_opset

SHAPE = (1, 3, 12, 10)


def old_network(opset: int) -> onnx.ModelProto:
    """Operators as exporters wrote them then: what later are inputs are attributes."""
    graph = Graph()
    value = graph.conv("images", (3, 8), 3, pads=[1, 1, 1, 1])
    value = graph.node("Clip", value, min=-0.5, max=0.5)
    value = graph.node("Pad", value, pads=[0, 0, 1, 2, 0, 0, 3, 0], value=0.25)
    if opset < 9:
        value = graph.node("Upsample", value, scales=[1.0, 1.0, 2.0, 2.0], mode="nearest")
    else:
        scales = graph.constant([1.0, 1.0, 2.0, 2.0])
        operator = "Upsample" if opset == 9 else "Resize"
        value = graph.node(operator, value, scales, mode="nearest")
    if opset < 10:
        value = graph.node("Slice", value, axes=[2, 3], starts=[1, 2], ends=[9, -1])
    else:
        ends = [graph.constant(part, np.int64) for part in ([1, 2], [9, -1], [2, 3])]
        value = graph.node("Slice", value, *ends)
    flat = graph.node("Flatten", value)
    top = graph.node("TopK", flat, k=7, outputs=2) if opset < 10 else graph.node("Relu", flat)
    return graph.model({"images": SHAPE}, {value: None, top: None}, opset=opset)


def old_resize(opset: int, mode: str) -> onnx.ModelProto:
    """A picture in NHWC, made larger as opset 7 to 10 did."""
    graph = Graph()
    value = graph.node("Transpose", "images", perm=[0, 3, 1, 2])
    value = graph.conv(value, (3, 4), 1)
    if opset < 9:
        value = graph.node("Upsample", value, scales=[1.0, 1.0, 2.0, 2.0], mode=mode)
    else:
        scales = graph.constant([1.0, 1.0, 2.0, 2.0])
        operator = "Upsample" if opset == 9 else "Resize"
        value = graph.node(operator, value, scales, mode=mode)
    value = graph.node("Relu", value)
    return graph.model({"images": (1, 12, 10, 3)}, {value: None}, opset=opset)


@pytest.mark.parametrize("opset", [7, 8, 9, 10])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_pixels_lie_where_they_did(opset: int, mode: str, tmp_path: Path) -> None:
    proto = old_resize(opset, mode)
    proto.ir_version = 3
    proto.graph.input.extend(
        onnx.helper.make_tensor_value_info(one.name, one.data_type, list(one.dims))
        for one in proto.graph.initializer
    )
    loaded = load_onnx(onnx_models.save(proto, tmp_path / "old.onnx"))
    assert (loaded.opset, loaded.exported_opset) == (11, opset)
    data = {"images": np.random.default_rng(2).random((1, 12, 10, 3), np.float32)}
    (expected,) = run_onnx(proto, [data])
    (got,) = run_onnx(loaded.proto, [data])
    for one, wanted in zip(got.values(), expected.values(), strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-5, atol=1e-6)


def test_what_is_bound_is_proven_too(tmp_path: Path) -> None:
    loaded = load_onnx(onnx_models.save(old_resize(9, "linear"), tmp_path / "old.onnx"))
    bound = bind_inputs(loaded, (12, 10), {})
    assert [value.name for value in bound.loaded.earlier[0].model.graph.input] == [
        value.name for value in bound.loaded.proto.graph.input
    ]
    network = Network(bound.loaded, (12, 10), Limits())
    network.at(1)
    network.at(2)
    assert [proof.rewrite for proof in network.proofs].count(RAISED) == 1
    assert network.loaded.earlier == (), "not kept once it is proven"


@pytest.mark.parametrize("opset", [7, 8, 9, 10])
def test_old_operators_mean_what_they_did(opset: int, tmp_path: Path) -> None:
    proto = old_network(opset)
    model = tvmdet.import_onnx(onnx_models.save(proto, tmp_path / "old.onnx"), raw=True)
    module = model.relax_at(1)
    first = model.network.proofs[0]
    assert first.rewrite == RAISED
    assert first.largest <= TOLERANCE
    data = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)
    (expected,) = run_onnx(proto, [{"images": data}])
    got = run_relax(module, data)
    for one, wanted in zip(got, expected.values(), strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-5, atol=1e-6)


def test_the_doctor_tells_both_versions(tmp_path: Path) -> None:
    path = onnx_models.save(old_network(9), tmp_path / "old.onnx")
    found = diagnose(path, spec={"family": "raw"}).to_dict()
    assert found["opset"] == 9
    assert any(proof["rewrite"] == RAISED for proof in found["proofs"])


def test_what_cannot_be_converted_is_refused() -> None:
    graph = Graph()
    output = graph.node("Upsample", "images", mode="nearest")  # of opset 7, without its scales
    proto = graph.model({"images": SHAPE}, {output: None}, opset=9)
    with pytest.raises(
        ModelError, match=r"has opset 9, and cannot be brought to 11: .*opset_versi"
    ):
        raise_opset(Path("odd.onnx"), proto, 9)
