"""MNN: the ONNX file converted by its own tool, run through the module interface."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import MNN
import numpy as np

__all__ = ["load", "settings", "version"]

# The native converter. Its command, and `import MNN.tools.mnnconvert`, must not be used: a logger
# there runs `pip install` for whatever Python comes first on PATH, and reports to a server.
_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"


def load(
    model: str, signature: Mapping[str, Any], *, threads: int, precision: str, mode: str
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Converts the network and makes a runtime for it."""
    inputs = [entry["name"] for entry in signature["inputs"]]
    outputs = [entry["name"] for entry in signature["outputs"]]
    manager = MNN.nn.create_runtime_manager((_options(threads, precision),))
    with tempfile.TemporaryDirectory(prefix="tvmdet-mnn-") as folder:
        converted = Path(folder) / "model.mnn"
        command = [sys.executable, "-c", _CONVERT, "-f", "ONNX", "--bizCode", "bench"]
        command += ["--modelFile", model, "--MNNModel", str(converted)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not converted.is_file():
            lines = (done.stdout + done.stderr).strip().splitlines()
            raise RuntimeError(f"MNNConvert failed: {' | '.join(lines[-3:])}")
        network = MNN.nn.load_module_from_file(
            str(converted), inputs, outputs, runtime_manager=manager, shape_mutable=False
        )
    shapes = {entry["name"]: entry["shape"] for entry in signature["inputs"]}
    made = {name: MNN.expr.placeholder(shapes[name], MNN.expr.NCHW) for name in inputs}

    def run(arrays: dict[str, Any]) -> dict[str, Any]:
        for name, place in made.items():
            place.write(arrays[name])
        found = network.forward([made[name] for name in inputs])
        results = {}
        for name, value in zip(outputs, found, strict=True):
            if value.data_format == MNN.expr.NC4HW4:
                value = MNN.expr.convert(value, MNN.expr.NCHW)
            results[name] = np.array(value.read(), copy=True)
        return results

    return run


def _options(threads: int, precision: str) -> dict[str, Any]:
    level = {"fp32": "normal", "bf16": "low"}[precision]
    return {"backend": "CPU", "numThread": threads, "precision": level}


def version() -> str:
    """Returns name and version."""
    return f"MNN {metadata.version('MNN')}"


def settings(threads: int, precision: str, mode: str) -> str:
    """Says how it was set up."""
    return ", ".join(f"{key}={value}" for key, value in _options(threads, precision).items())
