"""Kernels that are called once a picture are profiled so; a slow network ends in time."""

from __future__ import annotations

from pathlib import Path

import onnx_models

import tvmdet
from tvmdet.artifact import Artifact
from tvmdet.report.peak import Peak
from tvmdet.report.per_layer import profile_layers

BATCH = 4


def test_a_profile_of_calls_by_picture_ends_with_its_time(tmp_path: Path) -> None:
    graph = onnx_models.Graph()
    first = graph.node("Relu", graph.conv("picture", (3, 16), 3, pads=[1, 1, 1, 1]))
    second = graph.node("Relu", graph.conv(first, (16, 16), 1))
    proto = graph.model({"picture": ["n", 3, 160, 160]}, {second: None})
    model = tvmdet.import_onnx(onnx_models.save(proto, tmp_path / "m.onnx"), raw=True)
    tvmdet.compile(model, batch_sizes=BATCH, output=tmp_path / "m.tvmdet", threads=1)
    artifact = Artifact.open(tmp_path / "m.tvmdet")
    peak = Peak(threads=1, flop_per_s=1e11, bytes_per_s={1 << 20: 1e10})
    name = artifact.targets[0].name
    found = profile_layers(artifact, name, BATCH, peak, rounds=10**9, seconds=0)
    convolutions = [layer for layer in found.layers if "conv2d" in layer.anchor]
    assert [layer.calls for layer in convolutions] == [BATCH, BATCH]
    assert sum(layer.flop for layer in convolutions) >= BATCH * 2 * 160 * 160 * 16 * (27 + 16)
    assert not [layer.name for layer in found.layers if "View" in layer.name]
    assert found.built_in_s > 0  # views of the pictures among them


def test_small_functions_add_up_to_the_call(tmp_path: Path) -> None:
    """Of hundreds that take a microsecond each, what reading the clock takes would be a third."""
    graph = onnx_models.Graph()
    value = graph.conv("picture", (3, 16), 3, pads=[1, 1, 1, 1])
    for _ in range(60):
        value = graph.node("Relu", graph.conv(value, (16, 16), 1))
    proto = graph.model({"picture": ["n", 3, 4, 4]}, {value: None})
    model = tvmdet.import_onnx(onnx_models.save(proto, tmp_path / "m.onnx"), raw=True)
    tvmdet.compile(model, output=tmp_path / "m.tvmdet", threads=1)
    artifact = Artifact.open(tmp_path / "m.tvmdet")
    peak = Peak(threads=1, flop_per_s=1e11, bytes_per_s={1 << 20: 1e10})
    name = artifact.targets[0].name
    sums = []
    for _ in range(5):  # a busy machine disturbs some
        found = profile_layers(artifact, name, 1, peak, rounds=200)
        sums.append((found.kernels_s + found.built_in_s) / found.whole_s)
    assert 0.7 < sorted(sums)[2] < 1.15, sums
    assert found.watched_s > found.whole_s
