"""A detector's library in which every kernel of a GPU is emulated on this machine's CPU."""

from __future__ import annotations

import tempfile
from pathlib import Path

import tvm
from tvm import tirx

from tvmdet.compiler.build import BuiltLibrary, build_library
from tvmdet.cuda.device_code import device_code
from tvmdet.cuda.emulator import compile_emulated, host_functions
from tvmdet.passes.lower import tvm_target
from tvmdet.targets import Target, get_target

__all__ = ["build_emulated_library"]


def build_emulated_library(
    module: tvm.IRModule, target: Target, *, record: bool = False
) -> BuiltLibrary:
    """Compiles a module of kernels scheduled for a GPU into a library for this machine's CPU.

    Args:
        module: Relax entry functions, and TIR functions whose loops are bound to threads.
        target: The GPU that they are scheduled for.
        record: As of :func:`build_library`; what records must be registered by the caller.

    Raises:
        ModelError: There is no g++, or something does not compile.
    """
    kernels = tvm.IRModule(
        {var: func for var, func in module.functions_items() if isinstance(func, tirx.PrimFunc)}
    )
    calling = tvm.IRModule(dict(module.functions))
    if module.attrs:
        calling = calling.with_attrs(module.attrs)
    with tempfile.TemporaryDirectory(prefix="tvmdet-") as folder:
        emulated = Path(folder, "emulated.o")
        compile_emulated(device_code(kernels, tvm_target(target)), emulated, shared=False)
        for var, func in host_functions(kernels).functions_items():
            calling[var] = func
        return build_library(calling, get_target("host"), objects=[emulated], record=record)
