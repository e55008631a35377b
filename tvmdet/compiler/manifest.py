"""What an artifact says about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import tvmdet
from tvmdet.artifact import FORMAT_VERSION
from tvmdet.compiler.build import BuiltLibrary
from tvmdet.compiler.schedule import ScheduledKernels
from tvmdet.errors import InputError
from tvmdet.targets import Target

__all__ = ["Built", "make_manifest", "make_members"]


@dataclass(frozen=True)
class Built:
    """What was made for one target.

    Attributes:
        target: The target, at the precision of the build.
        kernels: The schedules.
        library: The machine code.
        bf16_layers: Convolutions that round the factors of their products to bfloat16.
    """

    target: Target
    kernels: ScheduledKernels
    library: BuiltLibrary
    bf16_layers: int


def make_members(built: Mapping[str, Built]) -> dict[str, bytes]:
    """Returns the members beside the manifest, by name."""
    members: dict[str, bytes] = {}
    for name, one in built.items():
        members[f"lib/{name}.so"] = one.library.data
        members[f"weights/{name}.bin"] = bytes(one.library.weights.data)
    return members


def make_manifest(
    model: Any,
    sizes: Sequence[int],
    built: Mapping[str, Built],
) -> dict[str, Any]:
    """Returns the manifest without its certificate; ``members`` are filled in when writing.

    Args:
        model: A :class:`tvmdet.frontend.Model`.
        sizes: The batch buckets.
        built: What was made, by target name.

    Raises:
        InputError: A raw network has a tensor without a batch axis, and several batch sizes.
    """
    entries = []
    for name, one in built.items():
        target, kernels, library = one.target, one.kernels, one.library
        planned = {entry.rpartition("_b")[2]: n for entry, n in library.planned_bytes.items()}
        entries.append(
            {
                "name": name,
                "arch": target.arch,
                "rank": target.rank,
                "required_features": list(target.required_features),
                "precision": target.precision,
                "bf16_layers": one.bf16_layers,
                "library": f"lib/{name}.so",
                "weights": library.weights.describe(f"weights/{name}.bin"),
                "planned_bytes": planned,
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
        "parity": None,
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
