"""From scheduled kernels to the bytes of one shared library."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt
import tvm
from tvm import relax

from tvmdet.board.linker import link_shared
from tvmdet.cuda.device_code import DEVICE_OPTIONS
from tvmdet.cuda.embed import EmbedKernels
from tvmdet.cuda.nvcc import CompiledCode
from tvmdet.errors import ModelError, TvmdetError
from tvmdet.passes.call_by_picture import CallByPicture
from tvmdet.passes.cpu_pipeline import PIPELINE
from tvmdet.passes.lift_weights import LiftWeights
from tvmdet.passes.lower import CODE_OPTIONS, tvm_target
from tvmdet.targets import Target

__all__ = ["BuiltLibrary", "build_library"]

_RECORD: Final = "relax.backend.use_cuda_graph"


@dataclass(frozen=True, kw_only=True)
class BuiltLibrary:
    """One target's machine code.

    Attributes:
        data: The shared library.
        weights: What its entry functions take as their last argument, if anything.
        planned_bytes: Activation memory that one call of each entry function takes.
        gpu: The kernels in it, of a library for a GPU.
    """

    data: bytes
    weights: tuple[npt.NDArray[Any], ...]
    planned_bytes: dict[str, int]
    gpu: CompiledCode | None = None


def build_library(
    module: tvm.IRModule,
    target: Target,
    *,
    objects: Sequence[Path] = (),
    record: bool | None = None,
) -> BuiltLibrary:
    """Compiles a module of scheduled kernels.

    The library is the same, byte for byte, for the same module and versions.

    Args:
        module: Relax entry functions and scheduled TIR functions.
        target: What to compile for.
        objects: Object files that its functions call, to be linked with it.
        record: Whether kernels that only read memory of the code's own are put into functions that
            TVM's CUDA runtime records, to launch them together; None: for a GPU.

    Raises:
        ModelError: TVM or the linker fails.
        TargetError: No linker for the target's architecture is installed; or the target is a
            GPU, and there is no nvcc.
    """
    kernels = EmbedKernels(target) if target.kind == "cuda" else None
    compiled_for = tvm_target(target)
    planned: dict[str, int] = {}
    try:
        recorded = {_RECORD: kernels is not None if record is None else record}
        code = {**CODE_OPTIONS, **(DEVICE_OPTIONS if kernels else {}), **recorded}
        with tvm.transform.PassContext(config=code), compiled_for:
            for phase in _memory_phases():
                module = phase(module)
            planned = _planned_bytes(module)
            for phase in _runtime_phases():
                module = phase(module)
            lift_weights: Any = LiftWeights()
            module = lift_weights(module)
            executable = relax.build(
                module, compiled_for, relax_pipeline=None, tir_pipeline=PIPELINE
            )
        with tempfile.TemporaryDirectory(prefix="tvmdet-") as folder:
            path = Path(folder) / "lib.so"
            linking: dict[str, Any] = {"fcompile": _linker_for(target.arch)}
            if target.arch == platform.machine():
                # Stripped, without a build id: nothing in it may depend on where it was built.
                linking = {"options": ["-s", "-Wl,--build-id=none"]}
            added = [str(one) for one in objects]
            executable.export_library(str(path), addons=added, fpack_imports=kernels, **linking)
            data = path.read_bytes()
    except TvmdetError:
        raise
    except Exception as error:  # TVM raises anything
        reason = (str(error).strip() or repr(error)).splitlines()[-1]
        raise ModelError(
            f"compiling for {target.name} failed: {reason}; "
            "a C compiler (gcc) must be installed to link; --debug shows the whole message"
        ) from error
    return BuiltLibrary(
        data=data,
        weights=tuple(lift_weights.weights),
        planned_bytes=planned,
        gpu=kernels.compiled if kernels else None,
    )


def _linker_for(arch: str) -> Callable[..., None]:
    """Returns what ``export_library`` takes for a compiler: it is asked to link object files."""

    def link(output: str, objects: list[str], **_options: object) -> None:
        link_shared(arch, [name for name in objects if name.endswith(".o")], output)

    link.output_format = "so"  # type: ignore[attr-defined]
    return link


def _memory_phases() -> list[Any]:
    return [
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        CallByPicture(),
        relax.transform.CallTIRRewrite(),
        # One arena, planned; nothing is allocated per operator.
        relax.transform.StaticPlanBlockMemory(),
    ]


def _runtime_phases() -> list[Any]:
    return [
        # Does nothing unless it is told to.
        relax.transform.RewriteCUDAGraph(),
        relax.transform.LowerAllocTensor(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]


def _planned_bytes(module: tvm.IRModule) -> dict[str, int]:
    """Adds up the storage of each entry function: planned arenas and returned tensors."""
    totals = {}
    for var, func in module.functions.items():
        if not isinstance(func, relax.Function):
            continue
        total = 0
        for block in func.body.blocks:
            for binding in block.bindings:
                total += _allocated_bytes(binding.value)
        totals[var.name_hint] = total
    return totals


def _allocated_bytes(expr: Any) -> int:
    if not isinstance(expr, relax.Call) or not isinstance(expr.op, tvm.ir.Op):
        return 0
    if expr.op.name == "relax.memory.alloc_storage":
        count = 1
        for dim in expr.args[0].values:
            count *= int(dim)
        return count
    if expr.op.name == "relax.builtin.alloc_tensor":
        count = int(tvm.DataType(str(expr.ty.dtype)).itemsize)
        for dim in expr.args[0].values:
            count *= int(dim)
        return count
    return 0
