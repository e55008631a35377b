"""FuseConvPairs: a depthwise convolution and the pointwise one that reads it become one kernel.

TVM's own fusion ends at the second sum. A pair is one kernel where the first result is read by
nothing but the second convolution, as its picture, and the choice says that it is worth it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm
from tvm import relax, s_tir, tirx
from tvm.s_tir import Schedule

from tvmdet.passes.relax_tools import is_call_to, static_shape

__all__ = [
    "ConvPair",
    "FuseConvPairs",
    "PairChoice",
    "pair_anchor",
    "separately",
    "split_pair",
    "usual_pairs",
]


@dataclass(frozen=True, kw_only=True)
class ConvPair:
    """A depthwise convolution and the pointwise one that reads it.

    Attributes:
        depthwise: The first one's shape as one line of text.
        pointwise: The second one's, algorithm included.
        bytes_between: Of the picture that goes from one to the other.
    """

    depthwise: str
    pointwise: str
    bytes_between: int


# Whether a pair becomes one kernel.
PairChoice: TypeAlias = Callable[[ConvPair], bool]

_LARGE = 2**20

_DEPTHWISE = "tvmdet.depthwise_conv2d"
_DENSE = ("tvmdet.conv2d", "tvmdet.bf16_conv2d")
_POINTWISE = {"k1x1", "s1x1", "p0.0.0.0", "g1"}
_JOIN = " + "


def pair_anchor(depthwise: str, pointwise: str) -> str:
    """Returns the anchor of a pair."""
    return f"{depthwise}{_JOIN}{pointwise}"


def split_pair(anchor: str) -> tuple[str, str] | None:
    """Returns the anchors of a pair's two convolutions; None if it is no pair's."""
    first, join, second = anchor.partition(_JOIN)
    return (first, second) if join else None


def separately(pair: ConvPair) -> bool:
    """Returns False: no pair is one kernel."""
    del pair
    return False


def usual_pairs(pair: ConvPair) -> bool:
    """Returns what should be faster, without a measurement.

    Pictures beyond L2 gained 3 to 50 % of both kernels' time, smaller ones nothing to 15 %, on an
    AMD Zen 4 with L2 of 1 MiB.
    """
    return pair.bytes_between >= _LARGE


@tvm.ir.transform.module_pass(opt_level=0, name="FuseConvPairs")
class FuseConvPairs:
    """Module pass, after FuseTIR; what is no longer called is left to dead code elimination."""

    def __init__(self, choose: PairChoice) -> None:
        """Fuses the pairs that ``choose`` wants."""
        self._choose = choose

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with pairs in kernels of their own."""
        mutator = _Fuser(mod, self._choose)
        for var, func in mod.functions_items():
            if isinstance(func, relax.Function):
                mutator.builder_.update_func(var, mutator.fuse_in(func))
        return mutator.builder_.get()


@relax.expr_functor.mutator
class _Fuser(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule, choose: PairChoice) -> None:
        super().__init__(mod)
        self._mod = mod
        self._choose = choose
        self._calls: dict[Any, Any] = {}
        self._uses: Counter[Any] = Counter()
        self._fused: dict[tuple[str, str, int], Any] = {}
        self._depthwise: dict[str, str] = {}
        self._pointwise: dict[str, tuple[str, int] | None] = {}

    def fuse_in(self, func: relax.Function) -> relax.Function:
        """Returns one function with its pairs fused."""
        self._calls.clear()
        self._uses.clear()

        def look(node: Any) -> None:
            if isinstance(node, relax.Call):
                self._uses.update(arg for arg in _flat(node.args) if isinstance(arg, relax.Var))
            if isinstance(node, relax.SeqExpr):
                for block in node.blocks:
                    for binding in block.bindings:
                        if isinstance(binding, relax.VarBinding):
                            self._calls[binding.var] = binding.value
                            if isinstance(binding.value, relax.Var | relax.Tuple):
                                self._uses.update(_flat([binding.value]))
                self._uses.update(_flat([node.body]))

        relax.analysis.post_order_visit(func, look)
        return self.visit_expr(func)

    def visit_call_(self, call: Any) -> Any:
        pair = self._pair(call)
        if pair is None:
            return self.visit_expr_post_order(call)
        first, at = pair
        fused = self._kernel(first, call, at)
        second = list(call.args[1])
        args = [*first.args[1], *second[:at], *second[at + 1 :]]
        return relax.call_tir(fused, [self.visit_expr(arg) for arg in args], call.ty_args[0])

    def _pair(self, call: Any) -> tuple[Any, int] | None:
        """Returns the depthwise call before a pointwise one, and which argument its result is."""
        if not is_call_to(call, "relax.call_tir"):
            return None
        pointwise = self._pointwise_in(call.args[0])
        if pointwise is None:
            return None
        anchor, at = pointwise
        picture = call.args[1][at]
        if not isinstance(picture, relax.Var) or self._uses[picture] != 1:
            return None
        first = self._calls.get(picture)
        if first is None or not is_call_to(first, "relax.call_tir"):
            return None
        depthwise = self._depthwise_in(first.args[0])
        if not depthwise:
            return None
        size = 4 * math.prod(static_shape(picture))
        pair = ConvPair(depthwise=depthwise, pointwise=anchor, bytes_between=size)
        return (first, at) if self._choose(pair) else None

    def _depthwise_in(self, var: Any) -> str:
        if var.name_hint not in self._depthwise:
            notes = [b.annotations for b in _blocks(self._mod[var]) if _DEPTHWISE in b.annotations]
            self._depthwise[var.name_hint] = str(notes[0][_DEPTHWISE]) if len(notes) == 1 else ""
        return self._depthwise[var.name_hint]

    def _pointwise_in(self, var: Any) -> tuple[str, int] | None:
        if var.name_hint not in self._pointwise:
            self._pointwise[var.name_hint] = _read_pointwise(self._mod[var])
        return self._pointwise[var.name_hint]

    def _kernel(self, first: Any, second: Any, at: int) -> Any:
        """Returns the function that computes both, through TVM's own joining of functions."""
        names = (first.args[0].name_hint, second.args[0].name_hint, at)
        if names not in self._fused:
            func = _join(self._mod, first, second, at)
            self._fused[names] = self.builder_.add_func(func, f"{names[0]}_{names[1]}")
        return self._fused[names]


def _flat(exprs: Any) -> list[Any]:
    found: list[Any] = []
    for expr in exprs:
        found += _flat(expr.fields) if isinstance(expr, relax.Tuple) else [expr]
    return found


def _blocks(func: Any) -> list[Any]:
    """Returns the blocks of a function; of one that is written as plain loops, none."""
    if not isinstance(func.body, s_tir.SBlockRealize):
        return []
    schedule = Schedule(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}))
    root = schedule.get_sblock("root")
    return [schedule.get(block) for block in schedule.get_child_blocks(root)]


def _read_pointwise(func: Any) -> tuple[str, int] | None:
    """Returns the anchor of a function's only pointwise convolution, and its picture's place."""
    blocks = _blocks(func)
    found = [(b, key) for b in blocks for key in _DENSE if key in b.annotations]
    if len(found) != 1:
        return None
    block, key = found[0]
    anchor = str(block.annotations[key])
    if not set(anchor.split()) >= _POINTWISE:
        return None
    (pad,) = (b for b in blocks if b.writes and b.writes[0].source.same_as(block.reads[0].source))
    for at, param in enumerate(func.params):
        if param.same_as(pad.reads[0].source):
            return anchor, at
    return None


def _join(mod: tvm.IRModule, first: Any, second: Any, at: int) -> tirx.PrimFunc:
    builder = relax.BlockBuilder(
        tvm.IRModule({call.args[0]: mod[call.args[0]] for call in (first, second)})
    )
    outer, inner = list(first.args[1]), list(second.args[1])
    others = inner[:at] + inner[at + 1 :]
    types = [arg.ty for arg in (*outer, *others)]

    def variables() -> list[Any]:
        return [relax.Var(f"p{i}", type_) for i, type_ in enumerate(types)]

    params = variables()
    with builder.function("pair", params, attrs={"Primitive": True}):
        with builder.dataflow():
            between = builder.emit(
                relax.call_tir(first.args[0], params[: len(outer)], first.ty_args[0])
            )
            rest = params[len(outer) :]
            result = builder.emit_output(
                relax.call_tir(second.args[0], [*rest[:at], between, *rest[at:]], second.ty_args[0])
            )
        builder.emit_func_output(result)
    pair = builder.get().get_global_var("pair")
    params = variables()
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(relax.Call(pair, params))
        builder.emit_func_output(result)
    joined = relax.transform.FuseTIR()(builder.get())
    (func,) = (
        joined[call.args[0]]
        for call in _calls_of(joined["main"])
        if is_call_to(call, "relax.call_tir")
    )
    return func


def _calls_of(func: Any) -> list[Any]:
    found: list[Any] = []
    relax.analysis.post_order_visit(
        func, lambda node: found.append(node) if isinstance(node, relax.Call) else None
    )
    return found
