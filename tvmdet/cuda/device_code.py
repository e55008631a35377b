"""Scheduled kernels become CUDA C++, and the host's calls of them become a plain list."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import tvm
from tvm import tirx

__all__ = ["DEVICE_OPTIONS", "DeviceCode", "Launch", "Scratch", "device_code", "with_helpers"]

HELPERS = Path(__file__).with_name("device")
"""Functions written in CUDA C++ that kernels call by name; one file per subject."""

DEVICE_OPTIONS: Final = {"tirx.disable_storage_rewrite": True, "tirx.disable_cse_tir": True}
"""TVM's options for GPU kernels, wherever they are compiled: what is emulated and timed is what is
shipped. Compilers find common subexpressions themselves. TVM's general pass for scratch memory
would share it between buffers of different types, which the pointers of tensor-core calls do not
survive; dynamic shared memory has a pass of its own."""

_AXES = ("blockIdx.x", "blockIdx.y", "blockIdx.z", "threadIdx.x", "threadIdx.y", "threadIdx.z")
_DYNAMIC = "tirx.use_dyn_shared_memory"

Argument: TypeAlias = "int | Scratch"
"""Of a launch: which parameter of the function, or memory between two launches."""


@dataclass(frozen=True)
class Scratch:
    """Memory that a function needs between its launches.

    Attributes:
        name: Tells it from others of the function.
        nbytes: Its length.
    """

    name: str
    nbytes: int


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        kernel: Its name in the source.
        arguments: In their order.
        grid: Blocks along x, y and z.
        block: Threads of a block along x, y and z.
        dynamic_shared_bytes: Of a block, besides what the kernel declares.
    """

    kernel: str
    arguments: tuple[Argument, ...]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    dynamic_shared_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class DeviceCode:
    """What a module of scheduled functions becomes on a GPU.

    Attributes:
        source: CUDA C++, as TVM's code generator writes it.
        launches: What the host does for each function, by its name.
    """

    source: str
    launches: dict[str, tuple[Launch, ...]]


def device_code(functions: tvm.IRModule, target: tvm.target.Target) -> DeviceCode:
    """Generates the CUDA C++ of scheduled functions.

    Args:
        functions: TIR functions whose loops are bound to threads.
        target: TVM's target, of kind ``cuda``.
    """
    split = _Split()
    with tvm.transform.PassContext(config=dict(DEVICE_OPTIONS), instruments=[split]):
        library = tvm.tirx.build(functions, target)
    assert split.module is not None, "TVM's pipeline splits host and device"
    launches = {
        var.name_hint: _launches(func)
        for var, func in split.module.functions.items()
        if isinstance(func, tirx.PrimFunc) and not _is_kernel(func)
    }
    source = "".join(m.inspect_source() for m in library.imports if m.kind == "cuda")
    return DeviceCode(source=source, launches=launches)


@tvm.ir.instrument.pass_instrument
class _Split:
    """Keeps the module as it is right after host and device were split."""

    def __init__(self) -> None:
        self.module: tvm.IRModule | None = None

    def run_after_pass(self, module: tvm.IRModule, info: Any) -> None:
        if str(info.name).endswith("SplitHostDevice"):
            self.module = module


def _is_kernel(func: tirx.PrimFunc) -> bool:
    return bool(func.attrs and "tirx.kernel_launch_params" in func.attrs)


def _launches(func: tirx.PrimFunc) -> tuple[Launch, ...]:
    """Reads the launches in a host function."""
    return tuple(_Reader(func).launches)


class _Reader:
    """Follows the statements of one host function."""

    def __init__(self, func: tirx.PrimFunc) -> None:
        # What is known of a buffer: other buffers share its memory under names of their own.
        self._places: list[tuple[Any, Argument]] = [(p, i) for i, p in enumerate(func.params)]
        self.launches: list[Launch] = []
        self._visit(func.body)

    def _visit(self, stmt: Any) -> None:
        if isinstance(stmt, tirx.SeqStmt):
            for one in stmt.seq:
                self._visit(one)
        elif isinstance(stmt, tirx.AllocBuffer):
            buffer = stmt.buffer
            bits = int(tvm.DataType(str(buffer.dtype)).bits)
            nbytes = math.prod(int(d) for d in buffer.shape) * max(bits // 8, 1)
            name = f"{buffer.name}_{len(self._places)}"
            self._places.append((buffer, Scratch(name, nbytes)))
        elif isinstance(stmt, tirx.DeclBuffer):
            self._places.append((stmt.buffer, self._place_of(stmt.data)))
        elif isinstance(stmt, tirx.Evaluate):
            self._launch(stmt.value)
        if hasattr(stmt, "body"):
            self._visit(stmt.body)

    def _place_of(self, pointer: Any) -> Argument:
        buffer = pointer.args[0] if isinstance(pointer, tvm.ir.Call) else pointer
        place: Argument
        for known, place in reversed(self._places):
            if known.same_as(buffer):
                return place
        raise AssertionError(f"{pointer} is no memory that the host function knows")

    def _launch(self, call: Any) -> None:
        if not isinstance(call, tvm.ir.Call) or call.op.name != "tirx.call_ffi_kernel":
            return
        axes = [str(axis) for axis in call.attrs.launch_params]
        name, *arguments = call.args
        pointers = arguments[: len(arguments) - len(axes)]
        sizes = dict(zip(axes, arguments[len(pointers) :], strict=True))
        shared_bytes = int(sizes.pop(_DYNAMIC, 0))
        extents = [int(sizes.pop(axis, 1)) for axis in _AXES]
        assert not sizes, f"{name} is launched with {', '.join(sizes)}"
        self.launches.append(
            Launch(
                kernel=str(name.value),
                arguments=tuple(self._place_of(pointer) for pointer in pointers),
                grid=(extents[0], extents[1], extents[2]),
                block=(extents[3], extents[4], extents[5]),
                dynamic_shared_bytes=shared_bytes,
            )
        )


def with_helpers(source: str) -> str:
    """Returns CUDA C++ with the definitions of every helper that it calls in front of it.

    Helpers are in the namespace-less form ``tvmdet_<name>``; a file of helpers is taken whole, with
    the files that it includes.
    """
    taken: dict[str, str] = {}

    def take(path: Path) -> None:
        if path.name in taken:
            return
        text = path.read_text(encoding="utf-8")
        for included in re.findall(r'^#include "(\w+\.cuh)"$', text, re.MULTILINE):
            take(path.with_name(included))
        taken[path.name] = re.sub(r'^#(include "\w+\.cuh"|pragma once)$', "", text, flags=re.M)

    called = set(re.findall(r"\btvmdet_\w+", source))
    for path in sorted(HELPERS.glob("*.cuh")):
        defined = set(re.findall(r"\b(tvmdet_\w+)\(", path.read_text(encoding="utf-8")))
        if called & defined:
            take(path)
    return "\n".join([*taken.values(), source])
