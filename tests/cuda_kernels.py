"""Builds CUDA kernels as the compiler does, and runs them in the emulator on poisoned outputs."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tvm
from scheduled_kernels import Emit, Kernel, _Guarded, _poison, only_kernel
from tvm import tirx
from tvmdet.schedules.base import Decision
from tvmdet.targets import Target

from tvmdet.cuda.device_code import device_code
from tvmdet.cuda.emulator import compile_emulated, entry_name
from tvmdet.passes.lower import tvm_target


def run_functions(
    functions: Mapping[str, tirx.PrimFunc],
    arguments: Mapping[str, Sequence[np.ndarray]],
    outputs: Mapping[str, Sequence[tuple[tuple[int, ...], str]]],
    target: Target,
) -> dict[str, list[np.ndarray]]:
    """Runs each function once, its buffers between guard bytes; returns the outputs of each."""
    named = {name: func.with_attr("global_symbol", name) for name, func in functions.items()}
    code = device_code(tvm.IRModule(named), tvm_target(target))
    with tempfile.TemporaryDirectory(prefix="tvmdet-") as folder:
        path = Path(folder, "emulated.so")
        compile_emulated(code, path)
        library = ctypes.CDLL(str(path))
        return {
            name: _call(library[entry_name(name)], arguments[name], outputs[name])
            for name in functions
        }


def _call(
    entry: ctypes._CFuncPtr,
    inputs: Sequence[np.ndarray],
    outputs: Sequence[tuple[tuple[int, ...], str]],
) -> list[np.ndarray]:
    given = [_Guarded(array) for array in inputs]
    made = [_Guarded(_poison(shape, dtype)) for shape, dtype in outputs]
    entry(*(ctypes.c_void_p(buffer.array.ctypes.data) for buffer in (*given, *made)))
    for index, buffer in enumerate((*given, *made)):
        buffer.check(f"argument {index}")
    for buffer, array in zip(given, inputs, strict=True):
        np.testing.assert_array_equal(buffer.array, array, err_msg="an input was written")
    return [buffer.array.copy() for buffer in made]


def run_decisions_emulated(
    kernel: Kernel, decisions: Sequence[Decision], target: Target
) -> list[list[np.ndarray]]:
    """Applies each decision, runs each result once, and returns the outputs of each."""
    functions = {
        f"k{i}": kernel.template.apply(kernel.func, kernel.workload, decision).mod["main"]
        for i, decision in enumerate(decisions)
    }
    found = run_functions(
        functions,
        dict.fromkeys(functions, kernel.arguments),
        dict.fromkeys(functions, kernel.outputs),
        target,
    )
    return [found[name] for name in functions]


def run_default_emulated(
    emit: Emit, inputs: Sequence[np.ndarray], target: Target, algorithm: str = "direct"
) -> tuple[Kernel, list[np.ndarray]]:
    """Lowers to one kernel and runs its default decision."""
    kernel = only_kernel(emit, inputs, target, algorithm)
    return kernel, run_decisions_emulated(kernel, kernel.decisions[:1], target)[0]
