"""On how many pictures a build is checked where it is emulated."""

from __future__ import annotations

from pathlib import Path

import onnx_models
import pytest
from tvmdet.targets import get_target

import tvmdet
from tvmdet.compiler.emulated_work import pictures_within, too_much
from tvmdet.compiler.schedule import schedule_kernels
from tvmdet.passes.lower import lower
from tvmdet.tuning.store import TuningStore


@pytest.mark.parametrize(
    ("flop", "limit", "pictures"),
    [
        ({1: 10}, 40, 4),
        ({1: 10}, 39, 3),
        ({1: 10}, 9, 0),
        ({1: 10, 4: 40}, 80, 4),  # four calls of one, and one of four
        ({1: 10, 4: 40}, 79, 3),
        ({1: 10, 4: 40}, 49, 0),
    ],
)
def test_as_many_as_fit(flop: dict[int, int], limit: float, pictures: int) -> None:
    assert pictures_within(flop, 4, limit) == pictures


def test_what_is_too_much_is_said() -> None:
    said = too_much({1: 2 * 10**9, 4: 8 * 10**9}, 5e9)
    assert said == "10.0 GFLOP are too many to emulate (at most 5)"


def test_every_call_counts(tmp_path: Path) -> None:
    """Three layers of one shape may share a kernel; a batch of two is twice the work."""
    graph = onnx_models.Graph(seed=1)
    data = "images"
    for _ in range(3):
        data = graph.node("Relu", graph.conv(data, (8, 8), 3, pads=[1, 1, 1, 1]))
    exported = graph.model({"images": ["n", 8, 16, 16]}, {data: ["n", 8, 16, 16]})
    path = onnx_models.save(exported, tmp_path / "m.onnx")
    target = get_target("x86-64-v3")
    network = tvmdet.import_onnx(path, raw=True)
    module = lower(network, [1, 2], target, algorithm=lambda _layer: "direct")
    flop = schedule_kernels(module, target, TuningStore(tmp_path), 1).flop()
    one = 2 * 16 * 16 * 8 * 8 * 9
    assert set(flop) == {1, 2}
    assert 3 * one <= flop[1] < 4 * one
    assert flop[2] == 2 * flop[1]
