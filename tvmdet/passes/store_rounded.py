"""StoreRounded: pictures that are only multiplied in bfloat16 are written in bfloat16.

A convolution that computes with bfloat16 products rounds the picture that it reads. Where every
reader of a picture does that, the kernel that writes it rounds instead, once: the picture takes
half the memory, and a pointwise convolution multiplies it where it lies. The results are the same,
bit for bit.

A depthwise convolution multiplies in float32. It reads rounded pictures too, if what writes them
has computed in bfloat16: its picture is a factor of products as well, in a layer whose error is
that of bfloat16 anyway.

Sums go on in float32: a picture that something is added to, is concatenated in a kernel of its own,
resized, pooled or transformed for Winograd's products, stays as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, te, tirx
from tvm.ir import Call, Op, TensorLoad
from tvm.s_tir import Schedule

from tvmdet.passes.bf16_conv2d import float_of_bits, round_to_bits
from tvmdet.passes.join_calls import blocks_of, fuse_kernels, is_kernel_call
from tvmdet.passes.relax_tools import static_shape

__all__ = ["StoreRounded"]

_ROUNDS = "tvmdet.bf16_conv2d"
_DEPTHWISE = "tvmdet.depthwise_conv2d"
_WRITES_BY_TILES = (_ROUNDS, _DEPTHWISE, "tvmdet.conv2d", "tvmdet.winograd_conv2d")
_WIDEN, _ROUND = "widen", "round_bf16"
_SUFFIX = {"reads": "_of_bf16", "stores": "_to_bf16"}


@tvm.ir.transform.module_pass(opt_level=0, name="StoreRounded")
class StoreRounded:
    """Module pass, after every other that joins kernels."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module; what is no longer called is left to dead code elimination."""
        kernels = _Kernels(
            {
                var.name_hint: func
                for var, func in mod.functions_items()
                if isinstance(func, tirx.PrimFunc)
            }
        )
        if not any(map(kernels.rounds, kernels.functions)):
            return mod
        mutator = _Rounder(mod, kernels)
        for var, func in mod.functions_items():
            if isinstance(func, relax.Function):
                mutator.builder_.update_func(var, mutator.round_in(func))
        return mutator.builder_.get()


class _Kernels:
    """What the kernels of a module do with the pictures that they read and write, by name."""

    def __init__(self, functions: dict[str, Any]) -> None:
        self.functions = functions
        self._marks: dict[str, set[str]] = {}
        self._variants: dict[tuple[str, tuple[int, ...], bool], Any] = {}
        self._losses: dict[tuple[str, int], bool | None] = {}

    def marks(self, name: str) -> set[str]:
        """Returns the annotations of a kernel's blocks."""
        if name not in self._marks:
            blocks = blocks_of(self.functions[name])
            self._marks[name] = {key for block in blocks for key in block.annotations}
        return self._marks[name]

    def rounds(self, name: str) -> bool:
        """Returns whether a kernel has bfloat16 products."""
        return _ROUNDS in self.marks(name)

    def can_round(self, name: str) -> bool:
        """Returns whether a kernel writes its result once, a block that sums nothing up."""
        func = self.functions[name]
        blocks = blocks_of(func)
        result = func.params[-1]
        writers = [b for b in blocks if any(w.source.same_as(result) for w in b.writes)]
        if len(writers) != 1 or any(r.source.same_as(result) for b in blocks for r in b.reads):
            return False
        plain = all(_sums_nothing(block) for block in blocks)
        tiled = any(mark in self.marks(name) for mark in _WRITES_BY_TILES)
        return _sums_nothing(writers[0]) and (plain or tiled)

    def loses(self, name: str, call: Any, at: int) -> bool | None:
        """Returns whether a rounded argument changes a convolution; None of any other reader."""
        key = (name, at)
        if key not in self._losses:
            self._losses[key] = self._find_loss(name, call, at)
        return self._losses[key]

    def _find_loss(self, name: str, call: Any, at: int) -> bool | None:
        marks = self.marks(name)
        if not marks & {_ROUNDS, _DEPTHWISE}:
            return None
        func = self.variant(name, call, (at,), stores=False)
        picture = func.params[at]
        readers = [b for b in blocks_of(func) if any(r.source.same_as(picture) for r in b.reads)]
        if [block.name_hint for block in readers] != ["pad"]:
            return None
        return _is_widened(readers[0], picture)

    def variant(self, name: str, call: Any, reads: tuple[int, ...], *, stores: bool) -> Any:
        """Returns a kernel with arguments, and maybe its result, in bfloat16."""
        key = (name, reads, stores)
        if key not in self._variants:
            func = _with_bits(self.functions[name], call, reads, stores=stores)
            self._variants[key] = _round_where_read(func) if reads else func
        return self._variants[key]


@relax.expr_functor.mutator
class _Rounder(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule, kernels: _Kernels) -> None:
        super().__init__(mod)
        self._kernels = kernels
        self._rounded: set[Any] = set()
        self._added: dict[tuple[str, tuple[int, ...], bool], Any] = {}

    def round_in(self, func: relax.Function) -> relax.Function:
        """Returns one function with its pictures rounded."""
        self._rounded = _rounded_pictures(func, self._kernels)
        return self.visit_expr(func)

    def visit_var_binding_(self, binding: Any) -> None:
        call = binding.value
        if not is_kernel_call(call):
            super().visit_var_binding_(binding)
            return
        given = list(call.args[1])
        reads = tuple(at for at, arg in enumerate(given) if _is_in(arg, self._rounded))
        stores = binding.var in self._rounded
        if not reads and not stores:
            super().visit_var_binding_(binding)
            return
        type_ = call.ty_args[0]
        if stores:
            type_ = relax.TensorType(static_shape(binding.var), "uint16")
        args = [self.visit_expr(arg) for arg in given]
        changed = relax.call_tir(self._kernel(call, reads, stores=stores), args, type_)
        inside = isinstance(binding.var, relax.DataflowVar)
        emit = self.builder_.emit if inside else self.builder_.emit_output
        self.set_var_remap(binding.var, emit(changed))

    def _kernel(self, call: Any, reads: tuple[int, ...], *, stores: bool) -> Any:
        name = call.args[0].name_hint
        key = (name, reads, stores)
        if key not in self._added:
            func = self._kernels.variant(name, call, reads, stores=stores)
            suffix = (_SUFFIX["reads"] if reads else "") + (_SUFFIX["stores"] if stores else "")
            self._added[key] = self.builder_.add_func(func, name + suffix)
        return self._added[key]


def _is_in(expr: Any, variables: set[Any]) -> bool:
    return isinstance(expr, relax.Var) and expr in variables


def _rounded_pictures(func: relax.Function, kernels: _Kernels) -> set[Any]:
    """Returns the variables of a function that are to be bfloat16."""
    readers: dict[Any, list[tuple[Any, int]]] = defaultdict(list)
    written: dict[Any, Any] = {}
    others: set[Any] = set()

    def look(node: Any) -> None:
        if not isinstance(node, relax.SeqExpr):
            return
        others.update(_variables(node.body))
        for block in node.blocks:
            for binding in block.bindings:
                value = binding.value
                if not is_kernel_call(value):
                    others.update(_variables(value))
                    continue
                written[binding.var] = value
                for at, arg in enumerate(value.args[1]):
                    readers[arg].append((value, at))

    relax.analysis.post_order_visit(func, look)
    return {
        var
        for var, call in written.items()
        if var not in others
        and readers[var]
        and str(var.ty.dtype) == "float32"
        and _may_round(call, readers[var], kernels)
    }


def _may_round(call: Any, readers: list[tuple[Any, int]], kernels: _Kernels) -> bool:
    name = call.args[0].name_hint
    losses = {kernels.loses(r.args[0].name_hint, r, at) for r, at in readers}
    if None in losses or (True in losses and not kernels.rounds(name)):
        return False
    return kernels.can_round(name)


def _variables(expr: Any) -> list[Any]:
    found: list[Any] = []
    relax.analysis.post_order_visit(
        expr, lambda node: found.append(node) if isinstance(node, relax.Var) else None
    )
    return found


def _sums_nothing(block: Any) -> bool:
    return all(int(var.iter_type) == tirx.IterVar.DataPar for var in block.iter_vars)


def _with_bits(func: Any, call: Any, reads: tuple[int, ...], *, stores: bool) -> Any:
    """Returns a kernel between others, which widen what it reads and round what it returns."""
    given = list(call.args[1])
    types = [
        relax.TensorType(static_shape(arg), "uint16") if at in reads else arg.ty
        for at, arg in enumerate(given)
    ]

    def emit(builder: Any, params: list[Any]) -> Any:
        kernel = builder.add_func(func, "kernel")
        args = list(params)
        for at in reads:
            widened = builder.call_te(_widened, params[at], primfunc_name_hint=_WIDEN)
            args[at] = builder.emit(widened)
        result = relax.call_tir(kernel, args, call.ty_args[0])
        if not stores:
            return result
        return builder.call_te(_in_bits, builder.emit(result), primfunc_name_hint=_ROUND)

    return fuse_kernels(types, emit)


def _widened(bits: te.Tensor) -> te.Tensor:
    return te.compute(bits.shape, lambda *i: float_of_bits(bits(*i)), name=_WIDEN)


def _in_bits(data: te.Tensor) -> te.Tensor:
    return te.compute(data.shape, lambda *i: round_to_bits(data(*i)), name=_ROUND)


def _round_where_read(func: Any) -> Any:
    """Returns a convolution that takes bits as they are where it would widen and round them.

    What lies between a picture and the rows that are copied of it is computed in the copy.
    """
    schedule = Schedule(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}))
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        if schedule.get(block).name_hint == "pad":
            break
        schedule.compute_inline(block)
    func = schedule.mod["main"].without_attr("global_symbol")
    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.Cast, _without_rounding)))


def _without_rounding(cast: Any) -> Any:
    value = _argument(cast, lambda e: e.value.a.a.args[0], round_to_bits, "float32")
    return cast if value is None else _bits_of(value)


def _bits_of(value: Any) -> Any:
    """Returns the upper half of a float32 expression, rounded where it is not bfloat16 already."""
    bits = _argument(value, lambda e: e.args[0].a.value, float_of_bits, "uint16")
    if bits is not None:
        return bits
    if isinstance(value, Call) and value.op == Op.get("prim.if_then_else"):
        condition, one, other = value.args
        return tirx.if_then_else(condition, _bits_of(one), _bits_of(other))
    return round_to_bits(value)


def _argument(
    expr: Any, take: Callable[[Any], Any], make: Callable[[Any], Any], dtype: str
) -> Any | None:
    """Returns what ``make`` made an expression of, None if it did not; ``take`` knows where."""
    try:
        part = take(expr)
    except (AttributeError, IndexError):
        return None
    # Both would raise for another type, which TVM does not survive here.
    if not isinstance(part, tvm.ir.Expr) or str(part.ty) != dtype:
        return None
    return part if tvm_ffi.structural_equal(expr, make(part)) else None


def _is_widened(block: Any, picture: Any) -> bool:
    """Returns whether a block makes float32 of a picture."""
    found: list[Any] = []
    tvm_ffi.structural_walk(block.body, (tirx.Cast, found.append))
    loads = [cast.value for cast in found if isinstance(cast.value, TensorLoad)]
    return any(load.source.same_as(picture) for load in loads)
