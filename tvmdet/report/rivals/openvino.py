"""OpenVINO: the latency hint, one stream, arrays shared instead of copied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import openvino

__all__ = ["load", "settings", "version"]

_TYPES = {"fp32": "f32", "bf16": "bf16"}


def load(
    model: str, signature: Mapping[str, Any], *, threads: int, precision: str, mode: str
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Compiles for the CPU plug-in."""
    compiled = openvino.Core().compile_model(model, "CPU", _options(threads, precision))
    request = compiled.create_infer_request()
    names = [entry["name"] for entry in signature["outputs"]]

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = request.infer(inputs, share_inputs=True, share_outputs=True)
        return {name: found[name] for name in names}

    return run


def _options(threads: int, precision: str) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # Left open it takes bfloat16 where the CPU has it.
        "INFERENCE_PRECISION_HINT": _TYPES[precision],
    }


def version() -> str:
    """Returns name and version."""
    return f"openvino {openvino.__version__.partition('-')[0]}"


def settings(threads: int, precision: str, mode: str) -> str:
    """Says how it was set up."""
    options = ", ".join(f"{key}={value}" for key, value in _options(threads, precision).items())
    return f"CPU, {options}, share_inputs, share_outputs"
