"""Kernels that are called once a picture are profiled so; a slow network ends in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_models

import tvmdet
from tvmdet.artifact import Artifact
from tvmdet.report.peak import Peak
from tvmdet.report.per_layer import profile_layers
from tvmdet.report.serve_profile import _between, _without_the_clock, entry_of
from tvmdet.runtime.loader import load_native
from tvmdet.runtime.native import configure_workers
from tvmdet.runtime.threads import native_thread

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


def test_the_quickest_function_takes_nothing() -> None:
    seconds = _between([0.0, 0.25, 1.0, 1.75, 2.0, 4.25])
    assert seconds.tolist() == [0.25, 0.75, 2.25]
    assert _without_the_clock(seconds).tolist() == [0.0, 0.5, 2.0]


def test_every_function_has_two_stamps_and_no_argument_is_looked_at(tmp_path: Path) -> None:
    graph = onnx_models.Graph()
    value = graph.conv("picture", (3, 16), 3, pads=[1, 1, 1, 1])
    for _ in range(5):
        value = graph.node("Relu", graph.conv(value, (16, 16), 1))
    proto = graph.model({"picture": ["n", 3, 4, 4]}, {value: None})
    model = tvmdet.import_onnx(onnx_models.save(proto, tmp_path / "m.onnx"), raw=True)
    tvmdet.compile(model, output=tmp_path / "m.tvmdet", threads=1)
    artifact = Artifact.open(tmp_path / "m.tvmdet")
    function, arguments = entry_of(artifact, 1)
    named: list[str] = []
    stamps: list[float] = []

    def note(_func: Any, name: str, before: bool, *_given: Any) -> int:
        named.extend([name] if before else [])
        return 0

    def watch() -> tuple[Any, Any]:
        module = load_native(artifact, artifact.targets[0])
        module.watch(note)
        want = module.call(function, arguments)
        module.watch_clock(stamps)
        return want, module.call(function, arguments)

    want, got = native_thread(1, configure_workers).submit(watch).result()
    np.testing.assert_array_equal(got[0], want[0])
    assert len(stamps) == 2 * len(named) > 12
    assert (np.diff(stamps) >= 0).all()
