"""ByPicture: of a batch, kernels on large maps are called for one picture after the other.

A kernel that computes the maps of a whole batch writes more than the caches hold, and the next one
reads it from memory. Called for one picture, a row of kernels finds each map where the one before
left it, in the same few megabytes for every picture. Kernels on small maps, or with more weights
than maps, stay kernels of the batch: they read their weights once, and share more rounds among the
threads.

Here such calls are only marked: a kernel for one picture is called with tensors of the whole batch.
:mod:`.call_by_picture` writes them out before memory is planned.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from typing import Any, Final

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.s_tir import SBlock

from tvmdet.passes.join_calls import is_kernel_call
from tvmdet.passes.relax_tools import is_call_to, static_shape

__all__ = ["ByPicture", "pictures_of", "tensor_bytes"]

_L2_SIZES: Final = 4
"""Of a core, in what a kernel reads and writes of a batch, from which on it is called by picture.

On two cores of an AMD Zen 4 with L2 of 1 MiB, batches of 8 of four detectors took 0.73 to 1.02 of
the time of kernels for the whole batch from 1 on, 0.74 to 0.96 from 4 on, 0.76 to 0.98 from 16 on.
"""

_ALIGNED: Final = 64
"""Bytes, at a multiple of which a picture's part of a tensor must begin: kernels read vectors."""


@tvm.ir.transform.module_pass(opt_level=0, name="ByPicture")
class ByPicture:
    """Module pass, last of the lowering: marks the calls of one entry function."""

    def __init__(self, entry: str, one: str, batch: int, l2_bytes: int) -> None:
        """Takes kernels from another function of the module.

        Args:
            entry: The function of the batch.
            one: The same network's function of one picture.
            batch: Pictures of the batch.
            l2_bytes: Of a core.
        """
        self._entry = entry
        self._one = one
        self._batch = batch
        self._least = _L2_SIZES * l2_bytes

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with calls marked; kernels that nothing calls any more remain."""
        func = mod[self._entry]
        marked = dict(self._calls(mod))

        def block_of(block: Any) -> Any:
            bindings = [(b.var, marked.get(b.var, b.value)) for b in block.bindings]
            return type(block)([relax.VarBinding(var, value) for var, value in bindings])

        body = relax.SeqExpr([block_of(block) for block in func.body.blocks], func.body.body)
        changed = mod.clone()
        changed.update_func(
            mod.get_global_var(self._entry),
            relax.Function(func.params, body, func.ret_ty, func.is_pure, func.attrs),
        )
        return changed

    def _calls(self, mod: tvm.IRModule) -> Iterator[tuple[Any, Any]]:
        """Yields the variables whose kernel is called by picture, and the marked calls."""
        many, one = _bindings(mod[self._entry]), _bindings(mod[self._one])
        same = dict(zip(mod[self._entry].params, mod[self._one].params, strict=True))
        for ours, theirs in _aligned(mod, many, one, self._batch):
            same[ours.var] = theirs.var
            call, kernel = ours.value, theirs.value
            if not is_kernel_call(call) or not is_kernel_call(kernel):
                continue
            maps, weights = _bytes_read_and_written(kernel)
            if self._batch * maps < self._least or weights > maps:
                continue
            if _computes_part(call, kernel, same, self._batch):
                args = [
                    arg if isinstance(arg, relax.Var) else constant
                    for arg, constant in zip(call.args[1], kernel.args[1], strict=True)
                ]
                yield ours.var, relax.call_tir(kernel.args[0], args, call.ty_args[0])


def pictures_of(mod: tvm.IRModule, call: Any) -> int:
    """Returns how often a ``call_tir`` calls its kernel: once, or once a picture if marked."""
    if not is_kernel_call(call):
        return 1
    own, given = mod[call.args[0]].params[-1].shape, call.ty_args[0].shape
    return int(given[0]) // int(own[0]) if len(own) else 1


def tensor_bytes(type_: Any) -> int:
    """Returns the bytes of a static tensor type."""
    elements = math.prod(int(dim) for dim in type_.shape)
    return elements * int(tvm.DataType(str(type_.dtype)).itemsize)


def _bindings(func: relax.Function) -> list[Any]:
    return [binding for block in func.body.blocks for binding in block.bindings]


def _aligned(
    mod: tvm.IRModule, many: list[Any], one: list[Any], batch: int
) -> Iterator[tuple[Any, Any]]:
    """Yields bindings of two functions that may be the same, of a batch and of one picture."""
    keys = [_key(mod, binding, batch) for binding in many]
    others = [_key(mod, binding, 1) for binding in one]
    matcher = difflib.SequenceMatcher(None, keys, others, autojunk=False)
    for block in matcher.get_matching_blocks():
        yield from zip(many[block.a :][: block.size], one[block.b :][: block.size], strict=True)


def _key(mod: tvm.IRModule, binding: Any, batch: int) -> tuple[Any, ...]:
    """Returns what is the same of a binding at every batch size: what it computes, and its size."""
    value, type_ = binding.value, binding.var.ty
    if not isinstance(type_, relax.TensorType) or not isinstance(value, relax.Call):
        return (type(value).__name__,)
    shape = static_shape(binding.var)
    elements = math.prod(shape)
    part = elements // batch if elements % batch == 0 else None
    what: Any = str(value.op)
    if is_call_to(value, "relax.call_tir"):
        what = (_blocks(mod[value.args[0]]), len(value.args[1]))
    return (what, str(type_.dtype), part, shape[1:])


def _blocks(func: tirx.PrimFunc) -> tuple[str, ...]:
    """Returns the names of a function's blocks; TVM numbers those that are alike."""
    found: list[str] = []
    tvm_ffi.structural_walk(func.body, (SBlock, lambda block: found.append(block.name_hint)))
    return tuple(name.rstrip("_0123456789") for name in found)


def _bytes_read_and_written(kernel: Any) -> tuple[int, int]:
    """Returns the bytes of the maps of a call, its result included, and of its constants."""
    sizes = {True: tensor_bytes(kernel.ty_args[0]), False: 0}
    for arg in kernel.args[1]:
        sizes[isinstance(arg, relax.Var)] += tensor_bytes(arg.ty)
    return sizes[True], sizes[False]


def _computes_part(call: Any, kernel: Any, same: dict[Any, Any], batch: int) -> bool:
    """Returns whether a kernel of one picture computes a picture's part of what a call does."""
    if len(call.args[1]) != len(kernel.args[1]):
        return False
    if not _is_part(call.ty_args[0], kernel.ty_args[0], batch):
        return False
    for whole, part in zip(call.args[1], kernel.args[1], strict=True):
        if isinstance(whole, relax.Var) != isinstance(part, relax.Var):
            return False
        if isinstance(whole, relax.Var) and not _is_read_alike(whole, part, same, batch):
            return False
    return True


def _is_read_alike(whole: Any, part: Any, same: dict[Any, Any], batch: int) -> bool:
    """Returns whether what a kernel of one picture reads is a part of a tensor, or all of it."""
    if whole not in same or not same[whole].same_as(part):
        return False
    return _is_part(whole.ty, part.ty, batch) or static_shape(whole) == static_shape(part)


def _is_part(whole: Any, part: Any, batch: int) -> bool:
    """Returns whether a tensor is so many parts one after the other, each of whole vectors."""
    if len(whole.shape) != len(part.shape) or not len(part.shape) or whole.dtype != part.dtype:
        return False
    rows = [int(dim) for dim in part.shape]
    together = [batch * rows[0], *rows[1:]]
    return [int(dim) for dim in whole.shape] == together and tensor_bytes(part) % _ALIGNED == 0
