"""What is compared: one network, as every contestant is given it.

Rivals get the ONNX file that tvmdet itself compiles from: of fixed shape, simplified, proven equal
to the original. It spares them shape arithmetic, which makes some faster and none slower.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.artifact import Artifact
from tvmdet.errors import InputError
from tvmdet.report.file_target import target_of
from tvmdet.report.worker import Arrays
from tvmdet.rows import selects
from tvmdet.spec import DetectorSpec
from tvmdet.targets import Target

if TYPE_CHECKING:
    from tvmdet.frontend import Model

__all__ = ["Network", "make_inputs", "count_other_schedules", "networks_alone", "signature_of_raw"]

Signature = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network at one batch size.

    Attributes:
        batch_size: Rows of one call.
        onnx: The file for rivals; None when there is none.
        onnx_row: The same at batch 1, for rivals without a batch dimension.
        signature: Names, shapes and types of inputs and outputs.
        flop: Multiplications and additions of its convolutions and matrix products, as the ONNX
            file defines them; None when there is no ONNX file.
        selects: Whether rounding can make entries change places in the outputs.
    """

    batch_size: int
    onnx: Path | None
    onnx_row: Path | None
    signature: Signature
    flop: int | None
    selects: bool = False


def networks_alone(
    artifact: Artifact,
    onnx: Path | None,
    batch_sizes: Sequence[int],
    folder: Path,
    *,
    target: str,
    precision: str,
    threads: int,
    logs: Path | None,
    say: Callable[[str], None],
) -> tuple[Path, dict[int, Network]]:
    """Returns tvmdet's file of the network without a head, and what rivals are given, by batch.

    Args:
        artifact: The compiled file.
        onnx: What it was compiled from; None leaves nothing for rivals.
        batch_sizes: Wanted ones.
        folder: Where to write.
        target: Whose code is measured.
        precision: That it was compiled in.
        threads: Of every contestant.
        logs: A folder of tuning records to read besides the usual ones.
        say: Called with one line at the start of each step.

    Returns:
        The file, and by batch size the network: none of a detector without an ONNX file.

    Raises:
        TvmdetError: As :func:`import_network` and :func:`compile_network`.
    """
    is_raw = artifact.manifest["raw"] is not None
    if onnx is None and not is_raw:
        return artifact.path, {}
    if onnx is None:
        return artifact.path, {
            size: Network(
                batch_size=size,
                onnx=None,
                onnx_row=None,
                signature=signature_of_raw(artifact, size),
                flop=None,
            )
            for size in batch_sizes
        }
    say(f"importing {onnx}")
    model, networks = import_network(artifact, onnx, batch_sizes, folder)
    if is_raw:
        return artifact.path, networks
    compiled = compile_network(
        model,
        target_of(artifact, target),
        batch_sizes,
        folder / "network.tvmdet",
        precision=precision,
        threads=threads,
        logs=logs,
        say=say,
    )
    return compiled, networks


def import_network(
    artifact: Artifact, onnx: Path, batch_sizes: Sequence[int], folder: Path
) -> tuple[Model, dict[int, Network]]:
    """Imports the ONNX file of an artifact, and writes what rivals are given.

    Args:
        artifact: The compiled file.
        onnx: What it was compiled from.
        batch_sizes: Wanted ones.
        folder: Where to write.

    Returns:
        The network without a head, and its forms by batch size.

    Raises:
        InputError: The artifact was not compiled from this file.
        ModelError: The file cannot be imported.
    """
    from tvmdet.frontend import import_onnx
    from tvmdet.frontend.cost import count_flops
    from tvmdet.frontend.load import load_onnx
    from tvmdet.frontend.specialise import static_values

    given, promised = load_onnx(onnx).sha256, artifact.manifest["model"].get("sha256")
    if given != promised:
        raise InputError(
            f"{artifact.path} was not compiled from {onnx}: its SHA-256 is {given}, and the "
            f"artifact names {promised}; give --onnx the file that it was compiled from, or "
            "compile it again"
        )
    spec = DetectorSpec.from_dict(artifact.manifest["spec"])
    if spec.family == "raw":
        # A network that takes no picture has the size 1x1 in its spec.
        size_hw = None if spec.input.size_hw == (1, 1) else spec.input.size_hw
        kept = {"outputs": list(spec.outputs)}
        model = import_onnx(onnx, spec=kept, raw=True, size_hw=size_hw)
    else:
        # As the detector has it, with one input; then without its head.
        model = import_onnx(onnx, spec=spec)
        model = replace(model, spec=DetectorSpec(family="raw", labels=(), input=spec.input))
    paths = {}
    for size in {1, *batch_sizes} if _has_row(model) else set(batch_sizes):
        paths[size] = folder / f"network_b{size}.onnx"
        paths[size].write_bytes(model.onnx_at(size).SerializeToString())
    networks = {}
    for size in batch_sizes:
        static = model.onnx_at(size)
        networks[size] = Network(
            batch_size=size,
            onnx=paths[size],
            onnx_row=paths.get(1),
            signature=_signature(static, model.input_names, model.output_names),
            flop=count_flops(static, static_values(static)),
            selects=selects(node.op_type for node in static.graph.node),
        )
    return model, networks


def signature_of_raw(artifact: Artifact, batch_size: int) -> Signature:
    """Returns inputs and outputs of a network that was compiled without a head."""
    described = artifact.manifest["raw"]
    return {
        group: [
            {
                "name": entry["name"],
                "dtype": entry["dtype"],
                "shape": [batch_size, *entry["shape"][1:]]
                if entry.get("batched", entry["shape"][:1] == [1])
                else list(entry["shape"]),
            }
            for entry in described[group]
        ]
        for group in ("inputs", "outputs")
    }


def make_inputs(signature: Signature, seed: int = 0) -> Arrays:
    """Returns inputs for a network: floats from 0 to 1, small whole numbers; seeded."""
    rng = np.random.default_rng(seed)
    made: Arrays = {}
    for entry in signature["inputs"]:
        shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
        if dtype.kind == "f":
            made[entry["name"]] = rng.random(shape, np.float32).astype(dtype)
        elif dtype.kind == "b":
            made[entry["name"]] = rng.integers(0, 2, shape).astype(dtype)
        else:
            made[entry["name"]] = rng.integers(0, 128, shape).astype(dtype)
    return made


def compile_network(
    model: Model,
    target: Target,
    batch_sizes: Sequence[int],
    output: Path,
    *,
    precision: str,
    threads: int,
    logs: Path | None,
    say: Callable[[str], None],
) -> Path:
    """Compiles the network of a detector without its head, with the records that it was built from.

    In a detector's file the head is part of the one compiled function, so that the network alone
    cannot be called.

    Raises:
        TvmdetError: As :func:`tvmdet.compile`.
    """
    from tvmdet.compiler import compile as compile_model

    compile_model(
        model,
        target=target,
        batch_sizes=batch_sizes,
        output=output,
        precision=precision,
        threads=threads,
        logs=logs,
        progress=lambda line: say(f"the network alone: {line}"),
    )
    return output


def count_other_schedules(artifact: Artifact, network: Path, target: str) -> int:
    """Returns how many kernels have other schedules in a detector's file than in its network alone.

    Args:
        artifact: The detector's file.
        network: What :func:`compile_network` wrote for it.
        target: Whose code counts.
    """
    first, second = (_schedules(one, target) for one in (artifact, Artifact.open(network)))
    return sum(first[anchor] != second[anchor] for anchor in first.keys() & second.keys())


def _schedules(artifact: Artifact, target: str) -> dict[str, set[str]]:
    """Returns the templates and knobs of each kind of kernel that has a choice of them."""
    found: dict[str, set[str]] = {}
    kernels = [one["kernels"] for one in artifact.manifest["targets"] if one["name"] == target]
    for kernel in (kernel for held in kernels for kernel in held.values()):
        if kernel["source"] != "single":
            chosen = json.dumps([kernel["template"], kernel["knobs"]], sort_keys=True)
            found.setdefault(kernel["anchor"], set()).add(chosen)
    return found


def _has_row(model: Model) -> bool:
    fixed = model.network.fixed_batch
    return fixed in (None, 1)


def _signature(static: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Signature:
    from onnx import helper

    def describe(values: Any, names: Sequence[str]) -> list[dict[str, Any]]:
        by_name = {value.name: value.type.tensor_type for value in values}
        return [
            {
                "name": name,
                "shape": [dim.dim_value for dim in by_name[name].shape.dim],
                "dtype": str(helper.tensor_dtype_to_np_dtype(by_name[name].elem_type)),
            }
            for name in names
        ]

    return {
        "inputs": describe(static.graph.input, inputs),
        "outputs": describe(static.graph.output, outputs),
    }
