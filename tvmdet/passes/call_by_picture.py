"""CallByPicture: the calls that :mod:`.by_picture` marked become one call a picture.

Marked calls that follow one another become a run: all of them for the first picture, then all for
the second. What only the run reads exists for one picture at a time; what others read too is
allocated for the batch, and written through a view of a picture's part. A view costs half a
microsecond.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from tvmdet.passes.by_picture import pictures_of, tensor_bytes
from tvmdet.passes.relax_tools import is_call_to, static_shape

__all__ = ["CallByPicture"]


@tvm.ir.transform.module_pass(opt_level=0, name="CallByPicture")
class CallByPicture:
    """Module pass over functions without dataflow blocks, before memory is allocated."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module without marked calls."""
        changed = mod.clone()
        for var, func in mod.functions_items():
            if isinstance(func, relax.Function):
                changed.update_func(var, _Writer(mod, func).write())
        return changed


class _Writer:
    """Writes one function anew."""

    def __init__(self, mod: tvm.IRModule, func: relax.Function) -> None:
        self._mod = mod
        self._func = func
        self._bindings = [binding for block in func.body.blocks for binding in block.bindings]
        self._last_use: dict[Any, int] = {}
        for index, binding in enumerate(self._bindings):
            self._note_uses(binding.value, index)
        self._note_uses(func.body.body, len(self._bindings))
        self._out: list[Any] = []

    def _note_uses(self, expr: Any, index: int) -> None:
        def look(node: Any) -> None:
            if isinstance(node, relax.Var):
                self._last_use[node] = index

        relax.analysis.post_order_visit(expr, look)

    def write(self) -> relax.Function:
        """Returns the function with one call a picture."""
        func, at = self._func, 0
        while at < len(self._bindings):
            pictures = pictures_of(self._mod, self._bindings[at].value)
            if pictures == 1:
                self._out.append(self._bindings[at])
                at += 1
                continue
            end = self._end_of_run(at, pictures)
            self._write_run(self._bindings[at:end], end, pictures)
            at = end
        body = relax.SeqExpr([relax.BindingBlock(self._out)], func.body.body)
        return relax.Function(func.params, body, func.ret_ty, func.is_pure, func.attrs)

    def _end_of_run(self, begin: int, pictures: int) -> int:
        inside: set[Any] = set()
        for at in range(begin, len(self._bindings)):
            binding = self._bindings[at]
            if pictures_of(self._mod, binding.value) != pictures and not (
                _is_reshape(binding)
                and binding.value.args[0] in inside
                and static_shape(binding.var)[0] % pictures == 0
            ):
                return at
            inside.add(binding.var)
        return len(self._bindings)

    def _write_run(self, run: list[Any], end: int, pictures: int) -> None:
        # What others read, too. A reshape of it is one of the whole, after the run.
        left = {binding.var for binding in run if self._last_use.get(binding.var, 0) >= end}
        whole = []
        for binding in reversed(run):
            if _is_reshape(binding) and binding.var in left:
                left.add(binding.value.args[0])
                whole.append(binding)
        for binding in run:
            if binding.var in left and not _is_reshape(binding):
                self._out.append(relax.VarBinding(binding.var, _allocate(binding.var.ty)))
        for picture in range(pictures):
            self._write_picture(run, left, picture, pictures)
        self._out += reversed(whole)

    def _write_picture(self, run: list[Any], left: set[Any], picture: int, pictures: int) -> None:
        parts: dict[Any, Any] = {}

        def part_of(var: Any) -> Any:
            if var not in parts:
                type_ = _part(var.ty, pictures)
                offset = picture * tensor_bytes(type_)
                view = relax.op.memory.view(var, _shape(type_), str(type_.dtype), offset)
                parts[var] = self._emit(view, type_)
            return parts[var]

        for binding in run:
            type_ = _part(binding.var.ty, pictures)
            if _is_reshape(binding):
                source = part_of(binding.value.args[0])
                parts[binding.var] = self._emit(relax.op.reshape(source, _shape(type_)), type_)
                continue
            kernel, given = binding.value.args
            args = [
                part_of(arg) if _is_whole(arg, own) else arg
                for arg, own in zip(given, self._mod[kernel].params, strict=False)
            ]
            if binding.var not in left:
                parts[binding.var] = self._emit(_allocate(type_), type_)
            self._emit(relax.Call(kernel, [*args, part_of(binding.var)]), relax.TupleType([]))

    def _emit(self, value: Any, type_: Any) -> Any:
        var = relax.Var("part", type_)
        self._out.append(relax.VarBinding(var, value))
        return var


def _is_reshape(binding: Any) -> bool:
    return is_call_to(binding.value, "relax.reshape")


def _is_whole(arg: Any, own: Any) -> bool:
    """Returns whether an argument is of the batch where the kernel takes a picture's part."""
    return isinstance(arg, relax.Var) and static_shape(arg) != tuple(int(n) for n in own.shape)


def _part(type_: Any, pictures: int) -> Any:
    rows, *rest = (int(dim) for dim in type_.shape)
    return relax.TensorType([rows // pictures, *rest], str(type_.dtype))


def _shape(type_: Any) -> Any:
    return relax.ShapeExpr([int(dim) for dim in type_.shape])


def _allocate(type_: Any) -> Any:
    return relax.op.builtin.alloc_tensor(_shape(type_), str(type_.dtype), 0)
