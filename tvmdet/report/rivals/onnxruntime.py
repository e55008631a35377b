"""ONNX Runtime: all graph optimisations, one session, its own thread pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnxruntime

__all__ = ["load", "settings", "version"]


def load(
    model: str, signature: Mapping[str, Any], *, threads: int, precision: str, mode: str
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Opens a session."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [entry["name"] for entry in signature["outputs"]]

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run


def version() -> str:
    """Returns name and version."""
    return f"onnxruntime {onnxruntime.__version__}"


def settings(threads: int, precision: str, mode: str) -> str:
    """Says how it was set up."""
    return f"CPU provider, ORT_ENABLE_ALL, sequential, intra_op_num_threads={threads}"
