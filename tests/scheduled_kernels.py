"""Builds kernels as the compiler does, and runs them between guard bytes on poisoned outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvmdet.schedules.base import Decision, Template, Workload
from tvmdet.targets import Target

from tvmdet import schedules
from tvmdet.passes.bf16_conv2d import round_to_bf16
from tvmdet.passes.conv_algorithms import Algorithm
from tvmdet.passes.cpu_pipeline import PIPELINE
from tvmdet.passes.fuse_pairs import PairChoice, separately
from tvmdet.passes.lower import CODE_OPTIONS, lowering_phases, tvm_target

GUARD_BYTES = 512
Emit = Callable[..., Any]


@dataclass(frozen=True)
class Kernel:
    """One fused kernel of a small network, its arguments in order, and what schedules it."""

    func: tirx.PrimFunc
    arguments: tuple[np.ndarray, ...]
    outputs: tuple[tuple[tuple[int, ...], str], ...]
    template: Template
    workload: Workload
    decisions: tuple[Decision, ...]


def lower_network(
    emit: Emit,
    inputs: Sequence[np.ndarray],
    target: Target,
    algorithm: str | Algorithm = "direct",
    pairs: PairChoice = separately,
) -> tvm.IRModule:
    """Lowers a function of NHWC tensors to fused kernels; ``emit(builder, *vars)`` writes it."""
    builder = relax.BlockBuilder()
    params = [
        relax.Var(f"x{i}", relax.TensorType(array.shape, str(array.dtype)))
        for i, array in enumerate(inputs)
    ]
    with builder.function("main", params):
        with builder.dataflow():
            result = emit(builder, *params)
            if isinstance(result, list):
                result = relax.Tuple(result)
            result = builder.emit_output(result)
        builder.emit_func_output(result)
    module = builder.get()
    choose = algorithm
    if isinstance(choose, str):
        choose = lambda layer: algorithm if algorithm in layer.possible else "direct"  # noqa: E731
    phases = lowering_phases(target, choose, pairs)
    names = [name for name, _ in phases]
    with tvm_target(target):
        for _, phase in phases[names.index("lower_grid_sample") :]:
            module = phase(module)
    return module


def kernels_of(
    emit: Emit,
    inputs: Sequence[np.ndarray],
    target: Target,
    algorithm: str | Algorithm = "direct",
    pairs: PairChoice = separately,
) -> list[Kernel]:
    """Lowers a network and returns its kernels in the order of their calls.

    What a kernel gets from another one is zeros among its arguments.
    """
    module = lower_network(emit, inputs, target, algorithm, pairs)
    values: Mapping[Any, np.ndarray] = dict(zip(module["main"].params, inputs, strict=True))
    kernels = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            call = binding.value
            if not isinstance(call, relax.Call) or call.op != tvm.ir.Op.get("relax.call_tir"):
                continue
            types = call.ty_args[0]
            fields = types.fields if isinstance(types, relax.TupleType) else [types]
            func = module[call.args[0]]
            template, workload = schedules.find(func, target)
            kernels.append(
                Kernel(
                    func,
                    tuple(_value(arg, values) for arg in call.args[1].fields),
                    tuple((tuple(int(d) for d in t.shape), str(t.dtype)) for t in fields),
                    template,
                    workload,
                    tuple(template.decisions(workload, target)),
                )
            )
    return kernels


def _value(arg: Any, values: Mapping[Any, np.ndarray]) -> np.ndarray:
    if not isinstance(arg, relax.Var):
        constant: np.ndarray = arg.value.numpy()
        return constant
    if arg in values:
        return values[arg]
    return np.zeros([int(side) for side in arg.ty.shape], str(arg.ty.dtype))


def only_kernel(
    emit: Emit,
    inputs: Sequence[np.ndarray],
    target: Target,
    algorithm: str | Algorithm = "direct",
    pairs: PairChoice = separately,
) -> Kernel:
    """Lowers a network that must become exactly one kernel."""
    kernels = kernels_of(emit, inputs, target, algorithm, pairs)
    assert len(kernels) == 1, f"expected one kernel: {[kernel.workload for kernel in kernels]}"
    return kernels[0]


def build(funcs: Sequence[tirx.PrimFunc], target: Target) -> tvm.runtime.Module:
    """Compiles functions as ``k0``, ``k1``, ... ."""
    named = {
        f"k{i}": func.with_attr("global_symbol", f"k{i}").with_attr("tirx.noalias", True)
        for i, func in enumerate(funcs)
    }
    with tvm.transform.PassContext(config=dict(CODE_OPTIONS)):
        return tvm.tirx.build(tvm.IRModule(named), tvm_target(target), PIPELINE)


def run_decisions(
    kernel: Kernel,
    decisions: Sequence[Decision],
    target: Target,
    instead: Mapping[int, np.ndarray] | None = None,
) -> list[list[np.ndarray]]:
    """Applies each decision, runs each result once, and returns the outputs of each.

    ``instead`` replaces arguments by their index. Where this machine cannot run the target's code,
    the test is skipped: an illegal instruction would end the process.
    """
    if missing := target.missing_features():
        pytest.skip(f"this machine lacks {', '.join(missing)}")
    arguments = [(instead or {}).get(i, array) for i, array in enumerate(kernel.arguments)]
    scheduled = [
        kernel.template.apply(kernel.func, kernel.workload, decision).mod["main"]
        for decision in decisions
    ]
    library = build(scheduled, target)
    return [
        call_guarded(library[f"k{i}"], arguments, kernel.outputs) for i in range(len(decisions))
    ]


def run_default(
    emit: Emit, inputs: Sequence[np.ndarray], target: Target
) -> tuple[Kernel, list[np.ndarray]]:
    """Lowers to one kernel and runs its default decision."""
    kernel = only_kernel(emit, inputs, target)
    return kernel, run_decisions(kernel, kernel.decisions[:1], target)[0]


def call_guarded(
    function: Any,
    inputs: Sequence[np.ndarray],
    outputs: Sequence[tuple[tuple[int, ...], str]],
) -> list[np.ndarray]:
    """Calls a kernel; outputs start as NaN, and nothing around them may be written.

    What lies before and after an input is NaN as well, so that a result which depends on it
    shows. Inputs may not be written either.
    """
    given = [_Guarded(array) for array in inputs]
    made = [_Guarded(_poison(shape, dtype)) for shape, dtype in outputs]
    function(*(tvm_ffi.from_dlpack(buffer.array) for buffer in (*given, *made)))
    for index, buffer in enumerate((*given, *made)):
        buffer.check(f"argument {index}")
    for buffer, array in zip(given, inputs, strict=True):
        np.testing.assert_array_equal(buffer.array, array, err_msg="an input was written")
    return [buffer.array.copy() for buffer in made]


def _poison(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return np.full(shape, np.nan, dtype)
    return np.full(shape, 0x55, np.uint8).astype(dtype) + np.dtype(dtype).type(17)


class _Guarded:
    """An aligned copy of an array in the middle of NaN bytes."""

    def __init__(self, array: np.ndarray) -> None:
        room = np.full(array.nbytes + 2 * GUARD_BYTES + 64, 0xFF, np.uint8)
        start = GUARD_BYTES + (-(room.ctypes.data + GUARD_BYTES)) % 64
        self.room, self.start, self.stop = room, start, start + array.nbytes
        self.array = room[start : self.stop].view(array.dtype).reshape(array.shape)
        self.array[...] = array

    def check(self, name: str) -> None:
        """Holds the bytes around the array to what they were."""
        assert np.all(self.room[: self.start] == 0xFF), f"{name}: written before its begin"
        assert np.all(self.room[self.stop :] == 0xFF), f"{name}: written past its end"


def nearest_bf16(array: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 values, as float32."""
    return (round_to_bf16(array).astype(np.uint32) << np.uint32(16)).view(np.float32)


def conv2d_reference(
    data: np.ndarray,
    weight: np.ndarray,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """Convolution of NHWC data with OHWI weights by its definition, in float64."""
    top, left, bottom, right = padding
    data = np.pad(data.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    weight = weight.astype(np.float64)
    filters, kernel_h, kernel_w, depth = weight.shape
    height = (data.shape[1] - (kernel_h - 1) * dilation[0] - 1) // strides[0] + 1
    width = (data.shape[2] - (kernel_w - 1) * dilation[1] - 1) // strides[1] + 1
    result = np.zeros((data.shape[0], height, width, filters))
    per_group = filters // groups
    for group in range(groups):
        channels = slice(group * depth, (group + 1) * depth)
        made = slice(group * per_group, (group + 1) * per_group)
        for y in range(kernel_h):
            for x in range(kernel_w):
                rows = slice(y * dilation[0], y * dilation[0] + (height - 1) * strides[0] + 1)
                columns = slice(x * dilation[1], x * dilation[1] + (width - 1) * strides[1] + 1)
                picture = data[:, rows, columns, channels][:, :: strides[0], :: strides[1]]
                result[..., made] += picture @ weight[made, y, x].T
    return result
