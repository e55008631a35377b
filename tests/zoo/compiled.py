"""Compiled detectors that cases of the zoo share, where their files import as the same module.

Most opsets of one network differ in how ONNX spells an operator, which the simplifier and the
importer undo. A module that equals one that was compiled in this session, weights and spec
included and but for the order of independent operators, would give the same detector again: it is
compiled once. Every case is still imported, and held to what ONNX Runtime and its framework make
of its own file, by itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm_ffi
from tvm import relax

import tvmdet
from tvmdet.errors import ParityError
from tvmdet.frontend import Model

__all__ = ["Compiled", "Compiler"]


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """One compiled file.

    Attributes:
        name: The case that it was compiled for.
        path: The ``.tvmdet`` file.
        certificate: Of the build's parity check.
    """

    name: str
    path: Path
    certificate: dict[str, Any]


class Compiler:
    """Compiles for this machine what it has not compiled yet."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder that receives the files."""
        self._folder = folder
        self._known: list[tuple[str, Any, Compiled | ParityError]] = []

    def compile(self, model: Model, name: str) -> Compiled:
        """Returns the compiled file of an imported model.

        Raises:
            ParityError: The build's own check fails; again for every model that is equal.
            TvmdetError: The model cannot be compiled.
        """
        spec = json.dumps(model.spec.to_dict(), sort_keys=True)
        around = f"{spec} {model.input_names} {model.output_names}"
        order = relax.transform.TopologicalSort("depth-first", "from-outputs")
        module = order(model.relax_at(model.network.fixed_batch or 1))
        for other, its_module, made in self._known:
            # Constants are compared too.
            if other == around and tvm_ffi.structural_equal(module, its_module):
                if isinstance(made, ParityError):
                    raise made
                return made
        path = self._folder / f"{name}.tvmdet"
        try:
            report = tvmdet.compile(model, target="host", output=path)
        except ParityError as error:
            self._known.append((around, module, error))
            raise
        (certificate,) = report.parity.values()
        made = Compiled(name=name, path=path, certificate=dict(certificate))
        self._known.append((around, module, made))
        return made
