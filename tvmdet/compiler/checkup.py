"""The doctor down to machine code: lowered for this machine, compared and shrunk where asked."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from tvmdet.compiler.network_parity import TOLERANCE, compare_network
from tvmdet.compiler.shrink import find_failure, shrink
from tvmdet.counted import counted
from tvmdet.diagnosis import Diagnosis, Shrunk
from tvmdet.errors import InputError, TvmdetError
from tvmdet.files import whole_file
from tvmdet.frontend import Limits, Model, diagnose
from tvmdet.frontend.onnx_tools import first_line
from tvmdet.frontend.user_spec import read_spec
from tvmdet.passes import lower
from tvmdet.spec import DetectorSpec
from tvmdet.targets import get_target

__all__ = ["examine"]

_SEED = 0


def examine(
    path: str | Path,
    *,
    spec: str | Path | Mapping[str, Any] | DetectorSpec | None = None,
    size_hw: tuple[int, int] | None = None,
    raw: bool = False,
    limits: Limits | None = None,
    compare: bool = False,
    shrink_to: str | Path | None = None,
    shrink_budget_s: float = 300.0,
    save_onnx: str | Path | None = None,
) -> Diagnosis:
    """Diagnoses a model as :func:`tvmdet.frontend.diagnose` does, and lowers it for this machine.

    Args:
        path: The ONNX file.
        spec: What the user knows better.
        size_hw: Height and width for an export that leaves them open.
        raw: Examine it as a network without a head.
        limits: Bounds on what the file may ask for.
        compare: Compile the network too, and compare it with ONNX Runtime on random and
            picture-like inputs.
        shrink_to: A file for the smallest part that cannot be compiled or that differs;
            compares too.
        shrink_budget_s: Seconds that the search for it may take.
        save_onnx: A file for the rewritten network.

    Raises:
        InputError: The spec cannot be read, or a file cannot be written.
    """
    given = {**read_spec(spec), "family": "raw"} if raw else spec
    static: list[tuple[onnx.ModelProto, int]] = []

    def dry_run(model: Model) -> None:
        lower(model, (1,), get_target("host"))

    def keep(network: onnx.ModelProto, opset: int) -> None:
        static.append((network, opset))

    found = diagnose(
        path, spec=given, size_hw=size_hw, limits=limits, dry_run=dry_run, on_static=keep
    )
    if not static:
        return found
    network, opset = static[0]
    if save_onnx is not None:
        found = replace(found, saved=_write(network, Path(save_onnx), "--save-onnx"))
    if compare or shrink_to is not None:
        found = _compare(found, network, opset)
    if shrink_to is not None:
        found = replace(found, shrunk=_shrink(network, opset, Path(shrink_to), shrink_budget_s))
    return found


def _compare(found: Diagnosis, network: onnx.ModelProto, opset: int) -> Diagnosis:
    try:
        compared = compare_network(network, opset, seed=_SEED)
    except TvmdetError as error:
        known = any(str(error) in problem or problem in str(error) for problem in found.problems)
        return found if known else replace(found, problems=(*found.problems, str(error)))
    problems = [
        f"the compiled network gives other values than ONNX Runtime for output {name!r}: "
        f"{value:.3g} of its largest value, allowed {TOLERANCE:g}; `tvmdet doctor --shrink "
        "PART.onnx` writes the smallest part that shows it, to report"
        for name, value in compared.items()
        if not value <= TOLERANCE
    ]
    return replace(found, compared=compared, problems=(*found.problems, *problems))


def _shrink(network: onnx.ModelProto, opset: int, path: Path, budget_s: float) -> Shrunk:
    if find_failure(network, opset, _SEED) is None:
        return Shrunk(summary="nothing to shrink: the network compiles and agrees")
    part = shrink(network, opset, budget_s=budget_s, seed=_SEED)
    if part is None:
        return Shrunk(
            summary="nothing was written: with random weights the failure does not show, so that "
            "it cannot be shown without your weights"
        )
    _write(part.model, path, "--shrink")
    operators = [node.op_type for node in part.model.graph.node]
    rest = "" if part.complete else "; the budget was spent, --budget with more time may find less"
    return Shrunk(
        path=str(path),
        operators=tuple(operators),
        failure=part.failure.detail,
        seed=_SEED,
        attempts=part.attempts,
        complete=part.complete,
        summary=f"{counted(len(network.graph.node), 'node')} to {len(operators)} "
        f"({', '.join(operators)}) in {counted(part.attempts, 'attempt')}, weights random, "
        f"written to {path}: {part.failure.detail}{rest}",
        command=f"tvmdet doctor {shlex.quote(str(path))} --raw --compare",
    )


def _write(model: onnx.ModelProto, path: Path, option: str) -> str:
    try:
        with whole_file(path) as temporary:
            temporary.write_bytes(model.SerializeToString())
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot write {path}: {first_line(error)}; give {option} a file in a folder that "
            "exists (networks of 2 GiB and more cannot be written)"
        ) from error
    return str(path)
