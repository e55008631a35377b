"""Proofs by ONNX Runtime that a rewritten network still computes the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime

from tvmdet.errors import ModelError
from tvmdet.frontend.onnx_tools import first_line, graph_inputs, value_summary

__all__ = ["TOLERANCE", "differing_output", "random_feeds", "run_onnx"]

# Largest difference of two equal networks, relative to the largest value of the output. Other
# blocking at another batch size changes float32 sums by about 1e-6 of that; a mixed-up batch
# or a wrong fold changes them by about 1.
TOLERANCE = 1e-4


def random_feeds(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random values for the inputs of a static model.

    Floats are uniform in [0, 1), as normalised pixels are; integers are 0 to 127 or 255.
    """
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in graph_inputs(model.graph):
        summary = value_summary(value)
        assert summary is not None and None not in summary.shape  # specialised before
        shape = tuple(int(dim or 0) for dim in summary.shape)
        dtype = np.dtype(summary.dtype)
        if dtype.kind == "f":
            feeds[value.name] = rng.random(shape).astype(dtype)
        else:
            highest = {"b": 2, "i": 128}.get(dtype.kind, 256)
            feeds[value.name] = rng.integers(0, highest, shape).astype(dtype)
    return feeds


def run_onnx(
    model: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """Runs a model on the CPU, once for each set of inputs.

    Returns:
        The outputs by name, one dictionary for each set of inputs.

    Raises:
        ModelError: ONNX Runtime cannot load or run it; names the node when it says which.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Fusions would hide a difference between two graphs behind one kernel.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    names = [value.name for value in model.graph.output]
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        results = [session.run(names, dict(feed)) for feed in feeds]
    except Exception as error:  # its own exceptions share no base but Exception
        node = re.search(r"Name:\s*'([^']*)'", str(error))
        where = f"at node {node[1]!r}: " if node else ""
        raise ModelError(
            f"ONNX Runtime cannot run the model {where}{first_line(error)}; "
            "export the model again, or check it with onnx.checker"
        ) from error
    return [dict(zip(names, map(np.asarray, result), strict=True)) for result in results]


def differing_output(
    expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], names: Sequence[str]
) -> str | None:
    """Returns the first name whose values differ beyond :data:`TOLERANCE`, or None."""
    for name in names:
        left, right = expected[name], got[name]
        if left.shape != right.shape or left.dtype != right.dtype:
            return name
        if left.dtype.kind != "f":
            if not np.array_equal(left, right):
                return name
            continue
        wide = left.astype(np.float64)
        finite = np.isfinite(wide)
        if not np.array_equal(wide[~finite], right[~finite].astype(np.float64), equal_nan=True):
            return name
        scale = max(float(np.abs(wide[finite]).max(initial=0.0)), 1e-6)
        error = np.abs(wide[finite] - right[finite]).max(initial=0.0)
        if not error <= TOLERANCE * scale:
            return name
    return None
