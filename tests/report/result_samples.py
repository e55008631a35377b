"""Results that were never measured: small, whole, and valid."""

from __future__ import annotations

from typing import Any


def schema_1() -> dict[str, Any]:
    """What the first ``bench --json`` wrote, of a network against one rival, with a profile."""

    def entry(name: str, rounds_us: list[float], **more: Any) -> dict[str, Any]:
        latency = {"count": len(rounds_us), "median_ms": 2.0, "p90_ms": 2.8, "p99_ms": 2.98}
        latency |= {"min_ms": 1.0, "mean_ms": 2.0}
        agreement = {"ok": True, "worst_relative": 1e-6, "output": "y", "tolerance": 1e-3}
        agreement |= {"off_share": 0.0, "spared_share": 0.0, "reason": ""}
        return {
            "name": name,
            "precision": "fp32",
            "version": f"{name} 1.0",
            "settings": "threads=1",
            "latency": latency,
            "tvmdet_over_this": None,
            "agreement": agreement,
            "gflops": 10.0,
            "share_of_f32_peak": 0.1,
            "phases_ms": {},
            "problem": "",
            "rounds_us": rounds_us,
            **more,
        }

    ratio = {"ratio": 0.5, "interval_95": [0.4, 0.6], "verdict": "undecided"}
    kernel = {"name": "conv", "calls": 1, "ms": 1.5, "gflops": 5.0, "flop": 10, "bytes": 10}
    kernel |= {"attainable_ms": 1.0, "winnable_ms": 0.5, "anchor": "conv2d", "template": "t"}
    kernel |= {"knobs": {"tile": 4}, "source": "tuned"}
    return {
        "artifact": "m.tvmdet",
        "model": {"name": "m.onnx", "sha256": "ab"},
        "target": "x86-64-v3",
        "threads": 1,
        "machine": {
            "cpu": "A CPU",
            "arch": "x86_64",
            "cpus_usable": 1,
            "cpus_online": 2,
            "features": ["avx2"],
            "virtual": True,
            "system": "Linux 6",
            "python": "3.11.7",
            "load_average": [0.0, 0.1, 0.2],
        },
        "peak": {
            "threads": 1,
            "disturbed": False,
            "f32_gflops": 100.0,
            "read_gb_per_s": {"131072": 50.0},
        },
        "tables": [
            {
                "what": "network",
                "batch_size": 1,
                "entries": [
                    entry("tvmdet", [1000.0, 2000.0, 3000.0], phases_ms={"network": 2.0}),
                    entry("onnxruntime", [2000.0, 4000.0, 6000.0], tvmdet_over_this=ratio),
                    entry("ncnn", [], latency=None, agreement=None, problem="failed: no"),
                ],
                "disturbance": {"others_cpus": 0.0, "stolen_cpus": 0.0},
                "restless": [],
                "note": "",
            }
        ],
        "layers": [
            {
                "batch_size": 1,
                "whole_ms": 2.0,
                "watched_ms": 2.1,
                "kernels_ms": 1.9,
                "built_in_ms": 0.05,
                "closure": 0.95,
                "layers": [kernel],
            }
        ],
        "command": ["tvmdet", "bench", "m.tvmdet"],
    }
