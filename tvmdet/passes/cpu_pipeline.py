"""TVM's pipeline for scheduled functions, with six passes for CPUs.

**Parallel loops whose rounds are taken by whichever thread is free** (:func:`share_rounds`). TVM
gives each of T threads the T-th part of a parallel loop's rounds. A thread that is slower, for its
core is a small one, is shared with another program or runs at another clock, then holds the others
up: on two virtual CPUs of a server they waited for each other for 9 to 12 % of the time. Here the
rounds are cut into at most :data:`_MOST_ITEMS` runs, each with a flag. A thread begins about where
it would begin without this, goes once around all flags, and computes the runs whose flag it is the
first to set. So neighbouring rows still fall to the same core, and the last run ends the loop. The
results are the same, whoever computes them. The loop becomes::

    claims: int32[K] = 0
    launch on every thread:
        begun = 0
        for slot in parallel(_SLOTS):        # one thread's slots are neighbours
            if begun == 0:                   # its first one
                begun = 1
                for turn in range(K):
                    item = (slot * K // _SLOTS + turn) % K
                    if tvmdet_claim(&claims[item]) == 0:
                        rounds of the item

TVM has no atomic operation for CPUs; ``tvmdet_claim`` is a few lines of LLVM's language, inlined.

**Sums on the stack** (:func:`keep_in_registers`). TVM asks its pool of scratch memory for every
buffer of scope ``local``, once a round, and LLVM must then write to it what it has in registers. On
the stack it is registers.

**Borders of pictures** (:mod:`.peel_borders`) and **vectors at the end of a row**
(:mod:`.ragged_vectors`), before TVM makes vectors.

**Tensors that begin anywhere** (:mod:`.byte_offsets`), such as one picture of a batch.

**Weights that are fetched ahead** (:mod:`.fetch_ahead`).

This file is also run where the package around it is not loaded (``tvmdet/tuning/worker.py``): it
may import nothing of it but what imports nothing itself.
"""

from __future__ import annotations

import math
from typing import Any, Final

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.tirx.compilation_pipeline import get_tir_pipeline, register_tir_pipeline

from tvmdet.passes.byte_offsets import accept_byte_offsets
from tvmdet.passes.fetch_ahead import fetch_ahead
from tvmdet.passes.peel_borders import peel_borders
from tvmdet.passes.ragged_vectors import split_cases

__all__ = ["PIPELINE", "keep_in_registers", "rounds_together", "share_rounds"]

PIPELINE: Final = "tvmdet"
"""Name of TVM's usual pipeline for scheduled functions, with these passes."""

_MOST_ITEMS = 255
"""Runs of rounds, at most: threads wait for the last of them. Flags of 1 KiB would not lie on the
stack."""

_SLOTS = 1024
"""Many more than threads: each gets as many, rounded up, and the last ones may get none."""

_MOST_STACK_BYTES = 65536
"""Of all buffers of a function. Threads have 8 MiB of stack with glibc, and 128 KiB with musl."""

_CLAIM = """
define i32 @tvmdet_claim(ptr %flag) {
look:
  %seen = load atomic i32, ptr %flag monotonic, align 4
  %taken = icmp ne i32 %seen, 0
  br i1 %taken, label %late, label %set
set:
  %before = atomicrmw xchg ptr %flag, i32 1 monotonic, align 4
  ret i32 %before
late:
  ret i32 1
}
"""
"""Sets a flag; returns 0 to the one thread that found it unset. No order is needed of memory: the
flags are set to 0 before the threads are told to begin, and results are read after all have ended.
"""


def rounds_together(rounds: int) -> int:
    """Returns how many rounds of a parallel loop a thread takes at a time."""
    return -(-rounds // _MOST_ITEMS)


def share_rounds(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Returns a lowered function of a CPU whose parallel loops are shared as described above.

    Loops of one round, or of a number that is known only when they run, stay as they are.

    Raises:
        ValueError: A parallel loop is in another.
    """
    if any(_parallel_loops(loop.body) for loop in _parallel_loops(func.body)):
        raise ValueError("a parallel loop is in another")
    changed = False

    def shared(loop: Any) -> Any:
        nonlocal changed
        if loop.kind != tirx.ForKind.PARALLEL or not isinstance(loop.extent, tirx.IntImm):
            return loop
        if int(loop.extent) == 1:
            return loop
        changed = True
        return _shared(loop)

    body = tvm_ffi.structural_map(func.body, (tirx.For, shared))
    if not changed:
        return func
    code = tvm.ir.StringImm(_CLAIM)
    return func.with_body(tirx.AttrStmt(_number(0), "pragma_import_llvm", code, body))


def _parallel_loops(body: Any) -> list[Any]:
    found = []

    def look(loop: Any) -> None:
        if loop.kind == tirx.ForKind.PARALLEL:
            found.append(loop)

    tvm_ffi.structural_walk(body, (tirx.For, look))
    return found


def _shared(loop: Any) -> Any:
    rounds = int(loop.extent)
    each = rounds_together(rounds)
    items = -(-rounds // each)
    claims = tirx.decl_buffer((items,), "int32", name="claims")
    begun = tirx.decl_buffer((1,), "int32", name="begun")
    z, slot, turn, item = (tirx.Var(name, "int32") for name in ("z", "slot", "turn", "item"))
    flag = tirx.address_of(tirx.BufferLoad(claims, [item]))
    is_ours = tirx.call_extern("int32", "tvmdet_claim", flag) == 0
    around = tirx.SeqStmt(
        [
            tirx.Bind(item, tirx.floormod(tirx.floordiv(slot * items, _SLOTS) + turn, items)),
            tirx.IfThenElse(is_ours, _rounds(loop, item, each), None),
        ]
    )
    first = tirx.SeqStmt([_store(begun, 0, 1), _serial(turn, items, around)])
    if_first = tirx.IfThenElse(tirx.BufferLoad(begun, [_number(0)]) == 0, first, None)
    slots = tirx.For(slot, _number(0), _number(_SLOTS), tirx.ForKind.PARALLEL, if_first)
    threads = tirx.SeqStmt([tirx.AllocBuffer(begun), _store(begun, 0, 0), slots])
    launch = tirx.AttrStmt(_number(0), "pragma_parallel_launch_point", _number(1), threads)
    return tirx.SeqStmt([tirx.AllocBuffer(claims), _serial(z, items, _store(claims, z, 0)), launch])


def _rounds(loop: Any, item: Any, each: int) -> Any:
    """Returns the rounds ``item * each`` and on, of which the last item may have fewer."""
    kind = str(loop.loop_var.ty)
    if each == 1:
        return tirx.SeqStmt([tirx.Bind(loop.loop_var, item.astype(kind)), loop.body])
    step = tirx.Var("step", "int32")
    index = item * each + step
    one = tirx.SeqStmt([tirx.Bind(loop.loop_var, index.astype(kind)), loop.body])
    if int(loop.extent) % each:
        one = tirx.IfThenElse(index < int(loop.extent), one, None)
    return _serial(step, each, one)


def _serial(variable: Any, extent: int, body: Any) -> Any:
    return tirx.For(variable, _number(0), _number(extent), tirx.ForKind.SERIAL, body)


def _store(buffer: Any, index: Any, value: int) -> Any:
    place = _number(index) if isinstance(index, int) else index
    return tirx.BufferStore(buffer, _number(value), [place])


def _number(value: int) -> Any:
    return tirx.IntImm("int32", value)


def keep_in_registers(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Returns a lowered function of a CPU whose ``local`` buffers lie on the stack, if small."""
    left = _MOST_STACK_BYTES

    def on_stack(alloc: Any) -> Any:
        nonlocal left
        buffer = alloc.buffer
        if buffer.scope() != "local" or not all(isinstance(n, tirx.IntImm) for n in buffer.shape):
            return alloc
        kind = tvm.DataType(str(buffer.dtype))
        size = math.prod(int(n) for n in buffer.shape) * kind.bits * kind.lanes // 8
        if size > left:
            return alloc
        left -= size
        return tirx.AllocBuffer(buffer, {**alloc.annotations, "disable_lower_builtin": _number(1)})

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.AllocBuffer, on_stack)))


def _is_for_cpu(func: Any) -> bool:
    target = func.attrs.get("target") if isinstance(func, tirx.PrimFunc) else None
    return target is not None and target.kind.name == "llvm"


@tirx.transform.prim_func_pass(opt_level=0)  # type: ignore[untyped-decorator]
def _peel_borders(func: tirx.PrimFunc, _mod: tvm.IRModule, _context: Any) -> tirx.PrimFunc:
    return peel_borders(func)


@tirx.transform.prim_func_pass(opt_level=0)  # type: ignore[untyped-decorator]
def _split_cases(func: tirx.PrimFunc, _mod: tvm.IRModule, _context: Any) -> tirx.PrimFunc:
    return split_cases(func)


def _for_cpu() -> list[Any]:
    """Returns the passes of TVM's own pipeline that our kernels need on CPUs, and ours.

    They are in TVM's order. What is for GPUs, for numbers of eight bits and for TVM's options is
    left out.
    """
    scheduled, plain = s_tir.transform, tirx.transform
    return [
        scheduled.CanonicalizeLoop(),
        scheduled.LowerInitBlock(),
        scheduled.PlanAndUpdateBufferAllocationLocation(),
        scheduled.ConvertBlocksToOpaque(),
        scheduled.CompactBufferAllocation(),
        scheduled.LowerMatchBuffer(),
        scheduled.StmtSimplify(),
        scheduled.LowerOpaqueBlock(),
        plain.FlattenBuffer(),
        plain.BF16ComputeLegalize(),
        plain.NarrowDataType(32),
        _peel_borders,
        _split_cases,
        plain.VectorizeLoop(),
        plain.StorageRewrite(),
        scheduled.HoistIfThenElse(),
        plain.UnrollLoop(),
        scheduled.RenormalizeSplitPattern(),
        plain.StmtSimplify(),
        plain.RemoveNoOp(),
        scheduled.RewriteUnsafeSelect(),
        plain.VerifyMemory(),
        plain.AnnotateEntryFunc(),
        plain.SplitHostDevice(),
        plain.MakePackedAPI(),
        plain.BF16StorageLegalize(),
        _finish,
    ]


@tirx.transform.prim_func_pass(opt_level=0)  # type: ignore[untyped-decorator]
def _finish(func: tirx.PrimFunc, _mod: tvm.IRModule, _context: Any) -> tirx.PrimFunc:
    if not _is_for_cpu(func):
        return func
    return share_rounds(keep_in_registers(fetch_ahead(accept_byte_offsets(func))))


def _pipeline() -> tuple[Any, Any, Any]:
    usual, finalize_host, finalize_device = get_tir_pipeline("s_tir")

    @tvm.transform.module_pass(opt_level=0)  # type: ignore[untyped-decorator]
    def lower(mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        cpu = all(_is_for_cpu(func) for func in mod.functions.values())
        return tvm.transform.Sequential(_for_cpu() if cpu else [usual, _finish])(mod)

    return lower, finalize_host, finalize_device


register_tir_pipeline(PIPELINE, _pipeline)
