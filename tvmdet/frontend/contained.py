"""What the process of a contained import does (:mod:`tvmdet.untrusted`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tvmdet.frontend.import_onnx import import_onnx
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.model import Model
from tvmdet.spec import DetectorSpec

__all__ = ["import_model"]


def import_model(
    path: str | Path,
    *,
    spec: str | Path | Mapping[str, Any] | DetectorSpec | None,
    size_hw: tuple[int, int] | None,
    raw: bool,
    limits: Limits | None,
    batch_sizes: Sequence[int],
) -> Model:
    """Imports a model at every batch size, down to Relax.

    TVM's import is repeated by whoever gets the model, which is faster than handing the Relax
    module over, and cannot crash where it has not crashed here.

    Raises:
        ModelError: The file cannot be used.
        InputError: An argument cannot be used.
    """
    model = import_onnx(path, spec=spec, size_hw=size_hw, raw=raw, limits=limits or Limits())
    for batch_size in batch_sizes:
        model.relax_at(batch_size)
    return model
