"""One target of a build, checked against ONNX Runtime from a file as a user would load it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tvmdet import runtime
from tvmdet.compiler.images import NamedImage
from tvmdet.compiler.manifest import Built, write_file
from tvmdet.compiler.parity import check_detector
from tvmdet.compiler.parity_raw import check_raw
from tvmdet.compiler.reference import Reference
from tvmdet.compiler.tolerance import Tolerance

__all__ = ["Opener", "check_file"]

Opener: TypeAlias = Callable[[Path], AbstractContextManager[Any]]


def check_file(
    model: Any,
    sizes: Sequence[int],
    built: Built,
    pictures: Sequence[NamedImage],
    threads: int,
    tolerance: Tolerance,
    opened: Opener | None = None,
) -> dict[str, Any]:
    """Writes one target to a file of its own, loads and checks it; returns the certificate.

    Args:
        model: From :func:`tvmdet.import_onnx`.
        sizes: The batch buckets.
        built: What was made.
        pictures: What is detected in.
        threads: To compute with.
        tolerance: Of the differences.
        opened: Opens the file for as long as its context lasts; by default it is loaded here.

    Raises:
        ParityError: The result differs from ONNX Runtime's.
    """
    name = built.target.name
    reference = Reference(model, threads)
    with tempfile.TemporaryDirectory(prefix="tvmdet-") as folder:
        path = Path(folder) / "candidate.tvmdet"
        manifest = write_file(path, model, sizes, {name: built})
        with opened(path) if opened else runtime.load(path, threads=threads, target=name) as one:
            if manifest["raw"] is None:
                return check_detector(one, reference, pictures, tolerance)
            inputs = _random_inputs(manifest["raw"]["inputs"], sizes[-1])
            whole = {e["name"] for e in manifest["raw"]["outputs"] if not e["batched"]}
            return check_raw(one, reference, inputs, sizes, whole, tolerance)


def _random_inputs(described: Sequence[Mapping[str, Any]], rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made = {}
    for entry in described:
        shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
        if entry["batched"]:
            shape = (rows, *shape[1:])
        if dtype.kind == "f":
            made[entry["name"]] = rng.random(shape, np.float32).astype(dtype)
        elif dtype.kind == "b":
            made[entry["name"]] = rng.integers(0, 2, shape).astype(dtype)
        else:
            made[entry["name"]] = rng.integers(0, min(np.iinfo(dtype).max, 255) + 1, shape, dtype)
    return made
