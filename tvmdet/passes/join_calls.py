"""Kernels that read one another's results, joined into one, after TVM's own fusion.

TVM fuses what follows a convolution. What comes before one, or is read twice, it leaves alone; a
pass that knows better names the calls to join, and TVM's FuseTIR joins their functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tvm
from tvm import relax, s_tir, tirx
from tvm.s_tir import Schedule

from tvmdet.passes.relax_tools import is_call_to

__all__ = ["Calls", "Find", "blocks_of", "fuse_kernels", "is_kernel_call", "join_calls"]

_NAME = 120  # characters of a joined function's name, which would grow with every join


class Calls:
    """The calls of one Relax function, as a pass that joins some of them sees it."""

    def __init__(self, functions: dict[str, Any]) -> None:
        """Starts with the TIR functions of a module, by name."""
        self.functions = functions
        self._values: dict[Any, Any] = {}
        self._uses: Counter[Any] = Counter()

    def read(self, func: relax.Function) -> None:
        """Reads what each variable is and how often it is used."""

        def look(node: Any) -> None:
            if isinstance(node, relax.Call):
                self._uses.update(_variables(node.args))
            if isinstance(node, relax.SeqExpr):
                self._uses.update(_variables([node.body]))
                for block in node.blocks:
                    for binding in block.bindings:
                        self._values[binding.var] = binding.value
                        if not isinstance(binding.value, relax.Call):
                            self._uses.update(_variables([binding.value]))

        relax.analysis.post_order_visit(func, look)

    def kernel_of(self, variable: Any) -> Any | None:
        """Returns the kernel call that a variable is the result of, None if it is another value."""
        if not isinstance(variable, relax.Var):
            return None
        value = self._values.get(variable)
        return value if value is not None and is_kernel_call(value) else None

    def is_read_once(self, variable: Any) -> bool:
        """Returns whether a variable has one reader."""
        return self._uses[variable] == 1

    def function_of(self, call: Any) -> Any:
        """Returns the TIR function that a kernel call runs."""
        return self.functions[call.args[0].name_hint]


# Of a kernel call: the call to join it with, and which of its arguments is that one's result.
Find: TypeAlias = Callable[[Calls, Any], tuple[Any, int] | None]


def join_calls(mod: tvm.IRModule, find: Find) -> tvm.IRModule:
    """Returns a module where calls are joined with those that ``find`` names, until it names none.

    A result that others read too is computed for them as before. What is no longer called is left
    to dead code elimination.
    """
    functions = {
        var.name_hint: func
        for var, func in mod.functions_items()
        if isinstance(func, tirx.PrimFunc)
    }
    mutator = _Joiner(mod, functions, find)
    for var, func in mod.functions_items():
        if isinstance(func, relax.Function):
            mutator.builder_.update_func(var, mutator.join_in(func))
    return mutator.builder_.get()


@relax.expr_functor.mutator
class _Joiner(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule, functions: dict[str, Any], find: Find) -> None:
        super().__init__(mod)
        self._functions = functions
        self._find = find
        self._calls = Calls(functions)
        self._joined: dict[tuple[str, str, int], Any] = {}

    def join_in(self, func: relax.Function) -> relax.Function:
        """Returns one function with its calls joined."""
        self._calls = Calls(self._functions)
        self._calls.read(func)
        return self.visit_expr(func)

    def visit_call_(self, call: Any) -> Any:
        if is_kernel_call(call):
            while (found := self._find(self._calls, call)) is not None:
                first, at = found
                args = list(call.args[1])
                call = relax.call_tir(
                    self._kernel(first, call, at),
                    [*first.args[1], *args[:at], *args[at + 1 :]],
                    call.ty_args[0],
                )
        return self.visit_expr_post_order(call)

    def _kernel(self, first: Any, second: Any, at: int) -> Any:
        names = (first.args[0].name_hint, second.args[0].name_hint, at)
        if names not in self._joined:
            func = _join(self._functions, first, second, at)
            var = self.builder_.add_func(func, f"{names[0]}_{names[1]}"[:_NAME])
            self._functions[var.name_hint] = func
            self._joined[names] = var
        return self._joined[names]


def blocks_of(func: Any) -> list[Any]:
    """Returns the blocks of a function; of one that is written as plain loops, none."""
    if not isinstance(func.body, s_tir.SBlockRealize):
        return []
    schedule = Schedule(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}))
    root = schedule.get_sblock("root")
    return [schedule.get(block) for block in schedule.get_child_blocks(root)]


def is_kernel_call(expr: Any) -> bool:
    """Returns whether an expression calls a kernel with one result."""
    return is_call_to(expr, "relax.call_tir") and isinstance(expr.ty_args[0], relax.TensorType)


def _variables(exprs: Any) -> list[Any]:
    found: list[Any] = []
    for expr in exprs:
        if isinstance(expr, relax.Tuple):
            found += _variables(expr.fields)
        elif isinstance(expr, relax.TupleGetItem):
            found += _variables([expr.tuple_value])
        elif isinstance(expr, relax.Var):
            found.append(expr)
    return found


def fuse_kernels(types: Sequence[Any], emit: Callable[[Any, list[Any]], Any]) -> tirx.PrimFunc:
    """Returns one function of several kernels.

    Args:
        types: Of its parameters but the last, which is its result.
        emit: Gets a block builder and the parameters; emits calls of kernels that it adds to the
            builder's module, and returns the last one.
    """
    builder = relax.BlockBuilder()

    def variables() -> list[Any]:
        return [relax.Var(f"p{i}", type_) for i, type_ in enumerate(types)]

    params = variables()
    with builder.function("joined", params, attrs={"Primitive": True}):
        with builder.dataflow():
            result = builder.emit_output(emit(builder, params))
        builder.emit_func_output(result)
    joined = builder.get().get_global_var("joined")
    params = variables()
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(relax.Call(joined, params))
        builder.emit_func_output(result)
    module = relax.transform.FuseTIR()(builder.get())
    calls: list[Any] = []
    relax.analysis.post_order_visit(
        module["main"],
        lambda node: (
            calls.append(node)
            if isinstance(node, relax.Call) and is_call_to(node, "relax.call_tir")
            else None
        ),
    )
    (call,) = calls
    return module[call.args[0]]


def _join(functions: dict[str, Any], first: Any, second: Any, at: int) -> tirx.PrimFunc:
    """Returns the function of two calls; its parameters are the first's, then the second's."""
    outer, inner = list(first.args[1]), list(second.args[1])
    types = [arg.ty for arg in (*outer, *inner[:at], *inner[at + 1 :])]

    def emit(builder: Any, params: list[Any]) -> Any:
        one, two = (
            builder.add_func(functions[call.args[0].name_hint], f"part{i}")
            for i, call in enumerate((first, second))
        )
        between = builder.emit(relax.call_tir(one, params[: len(outer)], first.ty_args[0]))
        rest = params[len(outer) :]
        return relax.call_tir(two, [*rest[:at], between, *rest[at:]], second.ty_args[0])

    return fuse_kernels(types, emit)
