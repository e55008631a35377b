"""MarkByPicture: of a batch, kernels on large maps are called for one picture after the other.

A kernel that computes the maps of a whole batch writes more than the caches hold, and the next one
reads it from memory. Called for one picture, a row of kernels finds each map where the one before
left it, in the same few megabytes for every picture. Kernels on small maps, or with more weights
than maps, stay kernels of the batch: they read their weights once, and share more rounds among the
threads.

Here such calls are only marked: a kernel for one picture is called with tensors of the whole batch.
:mod:`.call_by_picture` writes them out before memory is planned.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import tvm
from tvm import relax

from tvmdet.passes.byte_offsets import ALIGNED_BYTES
from tvmdet.passes.join_calls import is_kernel_call
from tvmdet.passes.same_program import is_same_program

__all__ = ["MarkByPicture", "pictures_of", "tensor_bytes"]

_L2_SIZES: Final = 4
"""Of a core, in what a kernel reads and writes of a batch, from which on it is called by picture.

On two cores of an AMD Zen 4 with L2 of 1 MiB, batches of 8 of four detectors took 0.73 to 1.02 of
the time of kernels for the whole batch from 1 on, 0.74 to 0.96 from 4 on, 0.76 to 0.98 from 16 on.
"""


@tvm.ir.transform.module_pass(opt_level=0, name="MarkByPicture")
class MarkByPicture:
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
            return type(block)(
                [
                    relax.VarBinding(b.var, marked[b.var]) if b.var in marked else b
                    for b in block.bindings
                ]
            )

        body = relax.SeqExpr([block_of(block) for block in func.body.blocks], func.body.body)
        changed = mod.clone()
        changed.update_func(
            mod.get_global_var(self._entry),
            relax.Function(func.params, body, func.ret_ty, func.is_pure, func.attrs),
        )
        return changed

    def _calls(self, mod: tvm.IRModule) -> Iterator[tuple[Any, Any]]:
        """Yields the variables whose kernel is called by picture, and the marked calls."""
        kernels: defaultdict[tuple[Any, ...], dict[str, Any]] = defaultdict(dict)
        for binding in _kernel_calls(mod[self._one]):
            var = binding.value.args[0]
            kernels[_key(binding.value, 1)][var.name_hint] = var
        found: dict[str, Any] = {}
        for binding in _kernel_calls(mod[self._entry]):
            call = binding.value
            maps, weights = _bytes_of_maps_and_weights(call)
            # Kernels of one picture read their weights as often as there are pictures.
            if maps < self._least or self._batch * weights > maps:
                continue
            name = call.args[0].name_hint
            if name not in found:
                alike = kernels[_key(call, self._batch)].values()
                found[name] = next((k for k in alike if self._computes_part(mod, call, k)), None)
            if found[name] is not None:
                yield binding.var, relax.call_tir(found[name], call.args[1], call.ty_args[0])

    def _computes_part(self, mod: tvm.IRModule, call: Any, kernel: Any) -> bool:
        """Returns whether a kernel of one picture computes a picture's part of what a call does."""
        *params, result = mod[kernel].params
        if len(params) != len(call.args[1]) or not _is_part(call.ty_args[0], result, self._batch):
            return False
        for arg, own in zip(call.args[1], params, strict=True):
            if _sides(arg.ty) != _sides(own) and not (
                isinstance(arg, relax.Var) and _is_part(arg.ty, own, self._batch)
            ):
                return False
        return is_same_program(mod[call.args[0]], mod[kernel], self._batch)


def pictures_of(mod: tvm.IRModule, call: Any) -> int:
    """Returns how often a ``call_tir`` calls its kernel: once, or once a picture if marked."""
    if not is_kernel_call(call):
        return 1
    own, given = _sides(mod[call.args[0]].params[-1]), _sides(call.ty_args[0])
    return given[0] // own[0] if own and own[0] else 1


def tensor_bytes(type_: Any) -> int:
    """Returns the bytes of a static tensor type."""
    return math.prod(_sides(type_)) * int(tvm.DataType(str(type_.dtype)).itemsize)


def _sides(tensor: Any) -> list[int]:
    return [int(side) for side in tensor.shape]


def _kernel_calls(func: relax.Function) -> Iterator[Any]:
    """Yields the bindings of kernel calls with one result."""
    for block in func.body.blocks:
        for binding in block.bindings:
            if is_kernel_call(binding.value):
                yield binding


def _key(call: Any, batch: int) -> tuple[Any, ...]:
    """Returns what a call for a batch and the same for one picture have in common at least."""
    type_ = call.ty_args[0]
    rows, *rest = _sides(type_) or [0]
    return (len(call.args[1]), str(type_.dtype), rows / batch, *rest)


def _bytes_of_maps_and_weights(call: Any) -> tuple[int, int]:
    """Returns the bytes of a call's variables, its result among them, and of its constants."""
    sizes = {True: tensor_bytes(call.ty_args[0]), False: 0}
    for arg in call.args[1]:
        sizes[isinstance(arg, relax.Var)] += tensor_bytes(arg.ty)
    return sizes[True], sizes[False]


def _is_part(whole: Any, part: Any, batch: int) -> bool:
    """Returns whether a tensor is so many parts in turn, and a kernel can begin at each."""
    rows, *rest = _sides(part) or [0]
    if not rows or _sides(whole) != [batch * rows, *rest]:
        return False
    return tensor_bytes(whole) // batch % ALIGNED_BYTES == 0
