"""The page of layers, from a result as ``tvmdet bench --per-layer --json`` writes it."""

from __future__ import annotations

from typing import Any

from write_layers import page


def _layer(anchor: str, ms: float, gflops: float | None) -> dict[str, Any]:
    more = {"calls": 2, "attainable_ms": 0.8 * ms, "template": "x86.conv2d_nhwc"}
    return {"anchor": anchor, "ms": ms, "gflops": gflops, **more}


def test_small_kernels_are_left_out() -> None:
    layers = [
        _layer("conv2d n1", 9.0, 201.4),
        _layer("pool", 0.95, None),
        _layer("add", 0.05, None),
    ]
    result = {
        "target": {"precision": "bf16"},
        "peak": {"f32_gflops": 235.6},
        "layers": [{"whole_ms": 10.2, "kernels_ms": 10.0, "layers": layers}],
    }
    text = page("1234567", "a machine", [("YOLO, 320x320", result)])
    _, section = text.split("## YOLO, 320x320, bf16\n")
    assert "commit 1234567 on a machine." in text
    assert "Kernels 10.0 ms of 10.2 ms; float32 peak 236 GFLOP/s." in section
    assert section.splitlines()[-2:] == [
        "| conv2d n1 | 2 | 9.00 | 90% | 201 | 7.20 | 80% | x86.conv2d_nhwc |",
        "| pool | 2 | 0.95 | 10% |  | 0.76 | 80% | x86.conv2d_nhwc |",
    ]
