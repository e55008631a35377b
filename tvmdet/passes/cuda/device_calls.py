"""TIR functions that launch a helper written in CUDA C++, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax, tirx

__all__ = ["Tensor", "emit_device_call"]

Tensor = tuple[Sequence[int], str]
"""Shape and type."""

_OPAQUE = 8  # tvm::relax::OpPatternKind::kOpaque: never fused with a neighbour


def emit_device_call(
    builder: relax.BlockBuilder,
    helper: str,
    arguments: Sequence[Any],
    outputs: Sequence[Tensor],
    scalars: Sequence[Any],
    *,
    grid: tuple[int, int] = (1, 1),
    threads: int,
) -> list[Any]:
    """Emits a call of a helper by every thread of a grid.

    Args:
        builder: Where to emit.
        helper: ``tvmdet_name``, with template arguments if it has any.
        arguments: Tensors that it reads.
        outputs: Tensors that it writes, its parameters after the arguments.
        scalars: Its last parameters: whole numbers, floats, truth values.
        grid: Blocks along x and y.
        threads: Of a block.

    Returns:
        The outputs.
    """
    inputs = [(tuple(int(d) for d in arg.ty.shape), str(arg.ty.dtype)) for arg in arguments]
    func = _function(helper, [*inputs, *outputs], scalars, grid, threads)
    name = helper.partition("<")[0].removeprefix("tvmdet_")
    types = [relax.TensorType(tuple(shape), dtype) for shape, dtype in outputs]
    var = builder.add_func(func, name)
    made = builder.emit(relax.call_tir(var, list(arguments), types if len(types) > 1 else types[0]))
    return [builder.emit(made[i]) for i in range(len(types))] if len(types) > 1 else [made]


def _function(
    helper: str,
    tensors: Sequence[Tensor],
    scalars: Sequence[Any],
    grid: tuple[int, int],
    threads: int,
) -> tirx.PrimFunc:
    parameters = ", ".join(
        f'p{i}: T.Buffer({tuple(shape)}, "{dtype}")' for i, (shape, dtype) in enumerate(tensors)
    )
    given = ", ".join([*(f"p{i}.data" for i in range(len(tensors))), *map(_literal, scalars)])
    text = f'''
# from tvm.script import tirx as T

@T.prim_func(s_tir=True, private=True)
def main({parameters}):
    T.func_attr({{"op_pattern": {_OPAQUE}, "tirx.noalias": True}})
    with T.sblock("root"):
        T.reads()
        T.writes()
        for x in T.thread_binding({grid[0]}, thread="blockIdx.x"):
            for y in T.thread_binding({grid[1]}, thread="blockIdx.y"):
                for thread in T.thread_binding({threads}, thread="threadIdx.x"):
                    T.evaluate(T.call_extern("int32", "{helper}", {given}))
'''
    return tvm.script.from_source(text, s_tir=True)


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return f"T.bool({value})"
    return f"T.float32({value!r})" if isinstance(value, float) else repr(value)
