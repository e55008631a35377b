"""One static network, compiled without a head and held against ONNX Runtime, output by output."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tvmdet import runtime
from tvmdet.compiler.build import build_library
from tvmdet.compiler.manifest import Built, write_file
from tvmdet.compiler.schedule import measured_algorithm, measured_pairs, schedule_kernels
from tvmdet.compiler.tolerance import Tolerance
from tvmdet.cpus import check_threads
from tvmdet.frontend.import_onnx import raw_recognition
from tvmdet.frontend.model import Model
from tvmdet.frontend.network import Network
from tvmdet.frontend.prove import differences, probes, run_onnx
from tvmdet.frontend.summary import summarise
from tvmdet.passes.lower import lower
from tvmdet.rows import in_reference_order, selects
from tvmdet.steps import reached
from tvmdet.targets import resolve_target
from tvmdet.tuning.store import default_store

__all__ = ["TOLERANCE", "compare_network"]

Arrays = Mapping[str, npt.NDArray[Any]]

TOLERANCE = Tolerance().raw


def compare_network(static: onnx.ModelProto, opset: int, *, seed: int = 0) -> dict[str, float]:
    """Compiles a network for this machine and runs both sides on the inputs of a proof.

    It is compiled as ``tvmdet compile --raw`` does it, with the same tuning records.

    Args:
        static: Static, simplified, every node named.
        opset: Version of its default operator set.
        seed: Of the random and the picture-like inputs.

    Returns:
        For each output the largest difference, relative to its largest value; infinite where
        shapes, types or integers differ.

    Raises:
        ModelError: ONNX Runtime cannot run the network, or it cannot be compiled.
    """
    feeds = list(probes(static, seed).values())
    expected = run_onnx(static, feeds)
    got = _run_compiled(_as_model(static, opset), feeds)
    picks = selects(node.op_type for node in static.graph.node)
    names = [value.name for value in static.graph.output]
    largest = dict.fromkeys(names, 0.0)
    for right, mine in zip(expected, got, strict=True):
        if picks:
            mine, _ = in_reference_order(mine, right, TOLERANCE)
        for name, difference in differences(right, mine, names).items():
            largest[name] = max(largest[name], difference)
    return largest


def _as_model(static: onnx.ModelProto, opset: int) -> Model:
    summary = summarise(static)
    found = raw_recognition(summary, {})
    return Model(
        name="network",
        sha256="",
        spec=found.spec,
        recognition=found.reasons,
        input_names=tuple(summary.inputs),
        output_names=tuple(summary.outputs),
        network=Network.of_static(static, opset),
    )


def _run_compiled(
    model: Model, feeds: list[dict[str, np.ndarray]]
) -> list[dict[str, npt.NDArray[Any]]]:
    target, threads, store = resolve_target("host"), check_threads(None), default_store(None)
    algorithm = measured_algorithm(target, store, threads)
    pairs = measured_pairs(target, store, threads)
    module = lower(model, (1,), target, algorithm=algorithm, pairs=pairs)
    reached("TVM schedules and compiles the kernels")
    kernels = schedule_kernels(module, target, store, threads)
    built = Built(target, kernels, build_library(kernels.module, target), 0)
    with tempfile.TemporaryDirectory(prefix="tvmdet-") as folder:
        path = Path(folder) / "network.tvmdet"
        write_file(path, model, (1,), {target.name: built})
        reached("the compiled network runs")
        with runtime.load(path, threads=threads) as network:
            return [dict(network.run(feed)) for feed in feeds]
