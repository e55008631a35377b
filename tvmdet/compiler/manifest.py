"""What was made becomes a file, and the file says what it is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import tvmdet
from tvmdet.artifact import FORMAT_VERSION, WEIGHTS_MEMBER, write_artifact
from tvmdet.compiler.build import BuiltLibrary
from tvmdet.compiler.schedule import ScheduledKernels
from tvmdet.compiler.weights import WeightStore
from tvmdet.cuda.nvcc import CompiledCode
from tvmdet.errors import InputError
from tvmdet.sealed_zip import Chunks
from tvmdet.targets import Target

__all__ = ["Built", "write_file"]


@dataclass(frozen=True)
class Built:
    """What was made for one target.

    Attributes:
        target: The target, at the precision of the build.
        kernels: The schedules.
        library: The machine code.
        bf16_layers: Convolutions that round the factors of their products.
    """

    target: Target
    kernels: ScheduledKernels
    library: BuiltLibrary
    bf16_layers: int


def write_file(
    path: str | os.PathLike[str],
    model: Any,
    sizes: Sequence[int],
    built: Mapping[str, Built],
    parity: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes what was made to a file.

    Args:
        path: The ``.tvmdet`` file.
        model: A :class:`tvmdet.frontend.Model`.
        sizes: The batch buckets.
        built: What was made, by target name.
        parity: The certificates, by target name; None while there are none.

    Returns:
        The manifest, without ``members``.

    Raises:
        InputError: A raw network has a tensor without a batch axis, and several batch sizes.
        ArtifactError: The file cannot be written.
    """
    store = WeightStore()
    manifest = _make_manifest(model, sizes, built, store)
    manifest["parity"] = parity
    members: dict[str, Chunks] = {
        _library(name): [entry.library.data] for name, entry in built.items()
    }
    if store.chunks:
        members[WEIGHTS_MEMBER] = store.chunks
    write_artifact(path, manifest, members)
    return manifest


def _library(target: str) -> str:
    return f"lib/{target}.so"


def _make_manifest(
    model: Any, sizes: Sequence[int], built: Mapping[str, Built], store: WeightStore
) -> dict[str, Any]:
    entries = []
    for name, one in built.items():
        target, kernels, library = one.target, one.kernels, one.library
        planned = {entry.rpartition("_b")[2]: n for entry, n in library.planned_bytes.items()}
        gpu = {} if library.gpu is None else {"gpu": _gpu_facts(target, library.gpu)}
        entries.append(
            {
                **gpu,
                "name": name,
                # So that the file can be measured where its target's own file is not at hand.
                "described": {**asdict(target.at_precision("fp32")), "file": ""},
                "arch": target.arch,
                "rank": target.rank,
                "required_features": list(dict.fromkeys(target.required_features)),
                "precision": target.precision,
                "bf16_layers": one.bf16_layers,
                "library": _library(name),
                "planned_bytes": planned,
                "weights": [asdict(store.add(array)) for array in library.weights],
                "tuning": {**kernels.sources, "decisions_sha256": kernels.digest()},
                "kernels": kernels.facts,
            }
        )
    return {
        "format": FORMAT_VERSION,
        "tvmdet": tvmdet.__version__,
        "tvm": metadata.version("apache-tvm"),
        "model": {"name": model.name, "sha256": model.sha256},
        "spec": model.spec.to_dict(),
        "recognition": list(model.recognition),
        "batch_sizes": list(sizes),
        "raw": _raw_description(model, sizes) if model.spec.family == "raw" else None,
        "targets": entries,
    }


def _gpu_facts(target: Target, code: CompiledCode) -> dict[str, Any]:
    """Returns what a machine needs to run a library's kernels, and what each of them takes."""
    return {
        "sm": str(target.tvm["arch"]),
        "toolkit": code.toolkit,
        "never_run": bool(target.missing_features()),
        "kernels": {name: asdict(use) for name, use in sorted(code.kernels.items())},
    }


def _raw_description(model: Any, sizes: Sequence[int]) -> dict[str, Any]:
    single, widest = (model.onnx_at(size).graph for size in (1, sizes[-1]))
    described = {
        "inputs": _describe(single.input, widest.input, model.input_names),
        "outputs": _describe(single.output, widest.output, model.output_names),
    }
    whole = [e["name"] for group in described.values() for e in group if not e["batched"]]
    if whole and list(sizes) != [1]:
        raise InputError(
            f"{', '.join(whole)} of {model.name} has no batch axis, so that only one item can be "
            "computed at a time; compile it with --batch 1"
        )
    return described


def _describe(single: Any, widest: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    from onnx import helper

    def shapes(values: Any) -> dict[str, list[int]]:
        return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    one, many = shapes(single), shapes(widest)
    dtypes = {v.name: v.type.tensor_type.elem_type for v in single}
    return [
        {
            "name": name,
            "shape": one[name],
            "dtype": str(helper.tensor_dtype_to_np_dtype(dtypes[name])),
            # At batch 1 alone nothing tells a batch axis from another of length 1.
            "batched": one[name][:1] == [1] and (single is widest or many[name] != one[name]),
        }
        for name in names
    ]
