"""The doctor down to machine code: lowered for this machine, and compared where asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvmdet.compiler.network_parity import TOLERANCE, compare_network
from tvmdet.diagnosis import Diagnosis
from tvmdet.errors import TvmdetError
from tvmdet.frontend import Limits, Model, diagnose
from tvmdet.passes import lower
from tvmdet.spec import DetectorSpec
from tvmdet.targets import get_target

__all__ = ["examine"]


def examine(
    path: str | Path,
    *,
    spec: str | Path | Mapping[str, Any] | DetectorSpec | None = None,
    size_hw: tuple[int, int] | None = None,
    limits: Limits | None = None,
    compare: bool = False,
    save_onnx: str | Path | None = None,
) -> Diagnosis:
    """Diagnoses a model as :func:`tvmdet.frontend.diagnose` does, and lowers it for this machine.

    Args:
        path: The ONNX file.
        spec: What the user knows better.
        size_hw: Height and width for an export that leaves them open.
        limits: Bounds on what the file may ask for.
        compare: Compile the network too, and compare it with ONNX Runtime on random and
            picture-like inputs.
        save_onnx: A file for the rewritten network.

    Raises:
        InputError: The spec cannot be read, or the rewritten network cannot be written.
    """
    models: list[Model] = []

    def dry_run(model: Model) -> None:
        lower(model, (1,), get_target("host"))
        models.append(model)

    found = diagnose(
        path, spec=spec, size_hw=size_hw, limits=limits, dry_run=dry_run, save_onnx=save_onnx
    )
    if not compare or not models:
        return found
    network = models[0].network
    try:
        compared = compare_network(network.at(network.fixed_batch or 1), network.loaded.opset)
    except TvmdetError as error:
        return dataclasses.replace(found, problems=(*found.problems, str(error)))
    far = {name: value for name, value in compared.items() if not value <= TOLERANCE}
    problems = [
        f"the compiled network gives other values than ONNX Runtime for output {name!r}: "
        f"{value:.3g} of its largest value, allowed {TOLERANCE:g}; `tvmdet doctor --shrink "
        "FILE.onnx` writes the smallest part that shows it, to report"
        for name, value in far.items()
    ]
    return dataclasses.replace(found, compared=compared, problems=(*found.problems, *problems))
