"""Peaks, attainable times, and how a profile adds up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tvmdet.report.machine import CpuClock, describe_machine
from tvmdet.report.peak import Peak
from tvmdet.report.per_layer import Layer, LayerTable, layer_of
from tvmdet.report.results import BenchReport

PEAK = Peak(threads=2, flop_per_s=100e9, bytes_per_s={1 << 20: 50e9, 1 << 25: 10e9})


@pytest.mark.parametrize(
    ("flop", "size", "seconds", "why"),
    [
        (0, 0, 0.0, "nothing to do"),
        (1e9, 1000, 0.01, "arithmetic decides"),
        (0, 1 << 20, (1 << 20) / 50e9, "a small array comes from a cache"),
        (0, (1 << 20) + 1, ((1 << 20) + 1) / 10e9, "a larger one does not"),
        (0, 1 << 30, (1 << 30) / 10e9, "larger than anything measured"),
    ],
)
def test_attainable(flop: float, size: int, seconds: float, why: str) -> None:
    assert PEAK.attainable_s(flop, size) == pytest.approx(seconds), why


def layer(seconds: float, attainable_s: float, flop: int | None = 10**6) -> Layer:
    return Layer(
        name="k",
        calls=2,
        seconds=seconds,
        flop=flop,
        bytes=100,
        attainable_s=attainable_s,
        knobs={"rows": 2},
    )


def test_a_profile_adds_up() -> None:
    layers = (layer(0.006, 0.004), layer(0.003, 0.005))
    table = LayerTable(
        batch_size=1, whole_s=0.010, watched_s=0.011, built_in_s=0.0005, layers=layers
    )
    assert table.kernels_s == pytest.approx(0.009)
    assert table.closure == pytest.approx(0.9)
    assert table.explained == pytest.approx(0.95)
    assert [one.winnable_s for one in layers] == [pytest.approx(0.002), 0.0]
    described = table.to_dict()["layers"]
    assert described[0]["gflops"] == pytest.approx(0.17, abs=0.01)
    assert layer(1.0, 0.5, None).to_dict()["gflops"] is None
    assert layer(0.0, 0.5).to_dict()["gflops"] is None


@pytest.mark.parametrize(
    ("kernels_s", "built_in_s", "warned"),
    [
        (0.0097, 0.0, False),
        (0.0104, 0.0, False),
        (0.0090, 0.0010, False),
        (0.0090, 0.0004, True),
        (0.0106, 0.0, True),
        (0.0097, 0.0030, True),
    ],
)
def test_kernels_and_built_in_functions_must_add_up(
    kernels_s: float, built_in_s: float, warned: bool
) -> None:
    table = LayerTable(
        batch_size=1,
        whole_s=0.010,
        watched_s=0.0105,
        built_in_s=built_in_s,
        layers=(layer(kernels_s, 0.001),),
    )
    alone = SimpleNamespace(remarks=(), peak=None, tables=(), layers=(table,))
    said = BenchReport.warnings.fget(alone)  # type: ignore[attr-defined]
    assert [line for line in said if "add up to" in line] == said
    assert bool(said) == warned


@pytest.mark.parametrize(
    ("template", "seconds"),
    [
        ("x86.conv2d_nhwc", 0.01),
        ("x86.bf16_conv2d_nhwc", 0.005),
        ("arm.fp16_conv2d_nhwc", 0.005),
        ("x86.amx_conv2d_nhwc", 0.01 / 16),
        ("of another version", 0.01),
    ],
)
def test_products_of_16_bits_may_hope_for_more(template: str, seconds: float) -> None:
    measured = {"calls": 3, "seconds": 0.1, "bytes": 3000}
    found = layer_of("k", measured, {"flop": 10**9, "template": template}, PEAK)
    assert found.attainable_s == pytest.approx(3 * seconds)
    assert found.flop == 3 * 10**9


def test_machine_is_described() -> None:
    found = describe_machine()
    assert found["cpus_usable"] >= 1
    assert len(found["load_average"]) == 3


def test_own_work_is_no_disturbance() -> None:
    clock = CpuClock([])
    sum(range(10**6))
    found = clock.read()
    assert found.others_cpus >= 0
    assert found.stolen_cpus >= 0
