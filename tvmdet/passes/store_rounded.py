"""StoreRounded: pictures that are only multiplied in 16 bits are written in 16 bits.

A convolution whose products are of bfloat16 or float16 rounds the picture that it reads. Where
every reader of a picture does that, the kernel that writes it rounds instead, once: the picture
takes half the memory, and a pointwise convolution multiplies it where it lies. The results are the
same, bit for bit.

A depthwise convolution may multiply in float32, and Winograd's products of bfloat16 round what the
picture is transformed to. Both read bfloat16 pictures too, if what writes them
has bfloat16 products of its own: its picture is a factor of products as well, behind a layer whose
error is that of 16 bits anyway. So does what adds a picture to its own bfloat16 products, as a
residual, if the picture is multiplied somewhere too: coordinates are not, and would be off by
pixels. Of float16, which ends at 65504, they would read infinity.

A kernel may only select: the greatest value of a window, the nearest pixel, the parts of a
concatenation. It commutes with rounding. Where its result is rounded, its picture may be, and both
are written in 16 bits.

A picture that is added to, averaged, resized between its pixels or transformed for Winograd's
float32 products by a kernel without products of 16 bits stays as it is.

The anchor of a kernel, by which algorithms are compared and records borrowed, does not say how its
picture is kept: which pictures are rounded depends on the algorithms that were chosen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import tvm
import tvm_ffi
from tvm import relax, te, tirx
from tvm.ir import TensorLoad
from tvm.s_tir import Schedule

from tvmdet.passes.join_calls import blocks_of, fuse_kernels, is_kernel_call
from tvmdet.passes.relax_tools import static_shape
from tvmdet.passes.selecting import selects
from tvmdet.passes.sixteen_bits import BF16, FP16, SixteenBits

__all__ = ["StoreRounded"]

_DEPTHWISE = "tvmdet.depthwise_conv2d"
_WRITE_BY_TILES = {_DEPTHWISE, "tvmdet.conv2d", "tvmdet.winograd_conv2d"}
_WIDEN, _ROUND = "widen", "round"

Loss: TypeAlias = Literal["nothing", "a factor", "a residual", "too much"]
"""What rounding a picture changes in a reader: nothing, since it rounds the picture itself; the
picture as a factor of float32 products; as what is added to products of 16 bits; or more."""


@tvm.ir.transform.module_pass(opt_level=0, name="StoreRounded")
class StoreRounded:
    """Module pass, after every other that joins kernels."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module; what is no longer called is left to dead code elimination."""
        for kept_as in (BF16, FP16):
            functions = {
                var.name_hint: func
                for var, func in mod.functions_items()
                if isinstance(func, tirx.PrimFunc)
            }
            kernels = _Kernels(functions, kept_as)
            if any(map(kernels.rounds, functions)):
                mod = _module_rounded(mod, kernels)
        return mod


def _module_rounded(mod: tvm.IRModule, kernels: _Kernels) -> tvm.IRModule:
    mutator = _Rounder(mod, kernels)
    for var, func in mod.functions_items():
        if isinstance(func, relax.Function):
            mutator.builder_.update_func(var, mutator.round_in(func))
    return mutator.builder_.get()


class _Kernels:
    """What the kernels of a module do with the pictures that they read and write, by name."""

    def __init__(self, functions: dict[str, Any], kept_as: SixteenBits) -> None:
        self.kept_as = kept_as
        self._functions = functions
        self._marks: dict[str, set[str]] = {}
        self._selects: dict[str, bool] = {}
        self._variants: dict[tuple[str, tuple[int, ...], bool], Any] = {}
        self._losses: dict[tuple[str, int], Loss] = {}

    def marks(self, name: str) -> set[str]:
        """Returns the annotations of a kernel's blocks."""
        if name not in self._marks:
            blocks = blocks_of(self._functions[name])
            self._marks[name] = {key for block in blocks for key in block.annotations}
        return self._marks[name]

    def rounds(self, name: str) -> bool:
        """Returns whether a kernel has products of 16 bits."""
        return not self.kept_as.marks.isdisjoint(self.marks(name))

    def selects(self, name: str) -> bool:
        """Returns whether each element that a kernel writes is one that it reads."""
        if name not in self._selects:
            self._selects[name] = selects(self._functions[name])
        return self._selects[name]

    def can_round(self, name: str) -> bool:
        """Returns whether a kernel writes its result once, a block that sums nothing up.

        A reshape writes nothing: it becomes a new view of the same bytes.
        """
        func = self._functions[name]
        if relax.analysis.has_reshape_pattern(func):
            return False
        if self.selects(name):
            return True
        blocks = blocks_of(func)
        result = func.params[-1]
        writers = [b for b in blocks if any(w.source.same_as(result) for w in b.writes)]
        if len(writers) != 1 or any(r.source.same_as(result) for b in blocks for r in b.reads):
            return False
        plain = all(_sums_nothing(block) for block in blocks)
        tiled = self.rounds(name) or not _WRITE_BY_TILES.isdisjoint(self.marks(name))
        return _sums_nothing(writers[0]) and (plain or tiled)

    def loses(self, call: Any, at: int) -> Loss:
        """Returns what a rounded argument changes in a kernel's result."""
        key = (call.args[0].name_hint, at)
        if key not in self._losses:
            self._losses[key] = self._find_loss(call, at)
        return self._losses[key]

    def _find_loss(self, call: Any, at: int) -> Loss:
        name = call.args[0].name_hint
        if not self.rounds(name) and _DEPTHWISE not in self.marks(name):
            return "too much"
        func = self.variant(call, (at,), stores=False)
        picture = func.params[at]
        readers = [b for b in blocks_of(func) if any(r.source.same_as(picture) for r in b.reads)]
        if len(readers) != 1:
            return "too much"
        if readers[0].name_hint == "pad" and not _is_widened(readers[0], picture):
            return "nothing"
        if not self.kept_as.holds_float32:
            return "too much"
        if readers[0].name_hint != "pad":
            added = self.rounds(name) and _is_added(readers[0], picture, self.kept_as)
            return "a residual" if added else "too much"
        rounds_again = str(readers[0].writes[0].source.dtype) == self.kept_as.dtype
        return "too much" if rounds_again else "a factor"

    def variant(self, call: Any, reads: tuple[int, ...], *, stores: bool) -> Any:
        """Returns a called kernel with arguments, and maybe its result, in 16 bits."""
        name = call.args[0].name_hint
        key = (name, reads, stores)
        if key not in self._variants:
            kept_as = self.kept_as
            func = _with_bits(self._functions[name], call, reads, kept_as, stores=stores)
            if reads and not self.selects(name):
                func = _round_where_read(func, kept_as)
            self._variants[key] = func
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
        reads = tuple(
            at
            for at, arg in enumerate(given)
            if isinstance(arg, relax.Var) and arg in self._rounded
        )
        stores = binding.var in self._rounded
        if not reads and not stores:
            super().visit_var_binding_(binding)
            return
        type_ = call.ty_args[0]
        if stores:
            type_ = relax.TensorType(static_shape(binding.var), self._kernels.kept_as.dtype)
        args = [self.visit_expr(arg) for arg in given]
        changed = relax.call_tir(self._kernel(call, reads, stores=stores), args, type_)
        inside = isinstance(binding.var, relax.DataflowVar)
        emit = self.builder_.emit if inside else self.builder_.emit_output
        self.set_var_remap(binding.var, emit(changed))

    def _kernel(self, call: Any, reads: tuple[int, ...], *, stores: bool) -> Any:
        name = call.args[0].name_hint
        key = (name, reads, stores)
        if key not in self._added:
            func = self._kernels.variant(call, reads, stores=stores)
            kept_as = self._kernels.kept_as.name
            name += f"_of_{kept_as}" * bool(reads) + f"_to_{kept_as}" * stores
            self._added[key] = self.builder_.add_func(func, name)
        return self._added[key]


def _rounded_pictures(func: relax.Function, kernels: _Kernels) -> set[Any]:
    """Returns the variables of a function that are to be 16 bits."""
    readers: dict[Any, list[tuple[Any, Any, int]]] = defaultdict(list)
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
                    readers[arg].append((binding.var, value, at))

    relax.analysis.post_order_visit(func, look)
    rounded: set[Any] = set()
    # Readers first: what is selected from is rounded where the selection is.
    for var, call in reversed(written.items()):
        if var in others or not readers[var] or str(var.ty.dtype) != "float32":
            continue
        losses: set[Loss] = {
            ("nothing" if result in rounded else "too much")
            if kernels.selects(reader.args[0].name_hint)
            else kernels.loses(reader, at)
            for result, reader, at in readers[var]
        }
        if _may_round(call, losses, kernels):
            rounded.add(var)
    return rounded


def _may_round(call: Any, losses: set[Loss], kernels: _Kernels) -> bool:
    name = call.args[0].name_hint
    if "too much" in losses or losses == {"a residual"}:
        return False
    exact = losses == {"nothing"}
    return (exact or kernels.rounds(name)) and kernels.can_round(name)


def _variables(expr: Any) -> list[Any]:
    found: list[Any] = []
    relax.analysis.post_order_visit(
        expr, lambda node: found.append(node) if isinstance(node, relax.Var) else None
    )
    return found


def _sums_nothing(block: Any) -> bool:
    return all(int(var.iter_type) == tirx.IterVar.DataPar for var in block.iter_vars)


def _with_bits(
    func: Any, call: Any, reads: tuple[int, ...], kept_as: SixteenBits, *, stores: bool
) -> Any:
    """Returns a kernel between others, which widen what it reads and round what it returns."""
    given = list(call.args[1])
    types = [
        relax.TensorType(static_shape(arg), kept_as.dtype) if at in reads else arg.ty
        for at, arg in enumerate(given)
    ]

    def each(change: Callable[[Any], Any], name: str) -> Callable[[te.Tensor], te.Tensor]:
        return lambda x: te.compute(x.shape, lambda *i: change(x(*i)), name=name)

    def emit(builder: Any, params: list[Any]) -> Any:
        kernel = builder.add_func(func, "kernel")
        args = list(params)
        for at in reads:
            widen = each(kept_as.widen, _WIDEN)
            args[at] = builder.emit(builder.call_te(widen, params[at], primfunc_name_hint=_WIDEN))
        result = relax.call_tir(kernel, args, call.ty_args[0])
        if not stores:
            return result
        narrow = each(kept_as.narrow, _ROUND)
        return builder.call_te(narrow, builder.emit(result), primfunc_name_hint=_ROUND)

    return fuse_kernels(types, emit)


def _round_where_read(func: Any, kept_as: SixteenBits) -> Any:
    """Returns a convolution that takes 16 bits as they are where it would widen and round them.

    What lies between a picture and the rows that are copied of it is computed in the copy.
    """
    schedule = Schedule(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}))
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        if schedule.get(block).name_hint == "pad":
            break
        schedule.compute_inline(block)
    func = schedule.mod["main"].without_attr("global_symbol")

    def simplified(cast: Any) -> Any:
        value = kept_as.value_of(cast)
        return cast if value is None else kept_as.bits_of(value)

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.Cast, simplified)))


def _is_added(block: Any, picture: Any, kept_as: SixteenBits) -> bool:
    """Returns whether a block adds a picture as it is to something else."""
    if not isinstance(block.body, tirx.BufferStore) or not isinstance(block.body.value, tirx.Add):
        return False
    total = block.body.value
    loads: list[Any] = []
    tvm_ffi.structural_walk(total, (TensorLoad, loads.append))
    mine = [load for load in loads if load.source.same_as(picture)]
    return len(mine) == 1 and any(
        tvm_ffi.structural_equal(operand, kept_as.widen(mine[0])) for operand in (total.a, total.b)
    )


def _is_widened(block: Any, picture: Any) -> bool:
    """Returns whether a block makes float32 of a picture."""
    found: list[Any] = []
    tvm_ffi.structural_walk(block.body, (tirx.Cast, found.append))
    loads = [cast.value for cast in found if isinstance(cast.value, TensorLoad)]
    return any(load.source.same_as(picture) for load in loads)
