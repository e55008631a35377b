"""Results that were never measured: small, whole, and valid."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmdet.report.result_format import Result
from tvmdet.report.result_upgrade import upgrade
from tvmdet.report.statistics import summarise
from tvmdet.report.typed_json import from_json


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


def measured(tables: dict[str, dict[str, Any]] | None = None, **changes: Any) -> Result:
    """A result of the newest schema.

    Args:
        tables: Of ``network, batch 1`` and so on: ``rounds_us`` by contestant, ``again_us``, and
            what else the table's ``disturbance`` or ``answers`` should hold.
        changes: Of the result's own keys.
    """
    value = upgrade(schema_1(), 1)
    sample = value["tables"][0]["entries"][0]
    value["tables"] = [_table(sample, name, **given) for name, given in (tables or {}).items()]
    value["setup"] = {}
    value["parity"] = {"tolerance": {"raw": 1e-3}, "images": ["a", "b"], "batch_sizes": [1]}
    return from_json(Result, {**value, **changes})


def _table(
    sample: dict[str, Any],
    name: str,
    *,
    rounds_us: dict[str, Any],
    again_us: Any = None,
    disturbance: dict[str, Any] | None = None,
    answers: dict[str, Any] | None = None,
    problems: dict[str, str] | None = None,
    versions: dict[str, str] | None = None,
) -> dict[str, Any]:
    what, _, size = name.partition(", batch ")
    entries = []
    for contestant, timed in rounds_us.items():
        seconds = np.asarray(timed, np.float64) * 1e-6
        entries.append(
            {
                **sample,
                "name": contestant,
                "version": (versions or {}).get(contestant, "1"),
                "rounds_us": [float(value) for value in timed],
                "latency": summarise(seconds).to_dict() if seconds.size else None,
                "problem": (problems or {}).get(contestant, ""),
            }
        )
    noise = None
    if again_us is not None:
        ratio = float(np.median(np.asarray(again_us) / np.asarray(rounds_us["tvmdet"])))
        noise = {"ratio": ratio, "interval_95": [ratio, ratio], "verdict": "undecided"}
        noise |= {"floor": 0.01, "rounds_us": [float(value) for value in again_us]}
    return {
        "what": what,
        "batch_size": int(size),
        "entries": entries,
        "disturbance": {"others_cpus": 0.0, "stolen_cpus": 0.0, **(disturbance or {})},
        "noise": noise,
        "answers": answers or {},
    }
