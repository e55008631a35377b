"""The walk over the original network: each node through the rule of its operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.reference
from onnx import TensorProto, helper

from tvmdet.errors import ModelError, UnsupportedOperatorError
from tvmdet.frontend.bounded.emitter import Emitter
from tvmdet.frontend.bounded.errors import blocked
from tvmdet.frontend.bounded.sizes import compute_sizes
from tvmdet.frontend.bounded.values import Extent, Lanes, Size, Symbol, Value, extent_of
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.onnx_tools import DEFAULT_DOMAINS, describe, unforeseen, value_summary

__all__ = ["RULES", "SOURCES", "Rewriter", "Rule", "rule"]

Rule = Callable[["Rewriter", onnx.NodeProto, "list[Value | None]"], "list[Value]"]
RULES: dict[str, Rule] = {}

# Always through their rule: what they return depends on the image even when their inputs' sizes
# do not.
SOURCES = ("Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Range", "Scan", "Unique")
_READ_SIZES = ("Shape", "Size")
_LARGEST_SIZES = 64  # elements: longer vectors of integers are no shapes


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Registers the rule of operators; custom ones as ``domain.operator``."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            RULES[operator] = function
        return function

    return register


class Rewriter:
    """One rewriting of one network.

    Attributes:
        emit: The network being built.
        limits: Bounds on rows that the graph does not bound.
        notes: What was bounded and how, one fact a line.
        rests: Sizes that are a fixed number less another size: the number and that size.
        least: Of symbols whose count may be below 0, as a difference of sizes may, its least value.
        first_rows: Of how many rows at most the consumers of a value look at the first ones.
    """

    def __init__(
        self, model: onnx.ModelProto, limits: Limits, first_rows: Callable[[str], int | None]
    ) -> None:
        """Prepares the constants and inputs of the model."""
        self.emit = Emitter(model)
        self.limits = limits
        self.first_rows = first_rows
        self.notes: list[str] = []
        self.scope: Mapping[str, Value] = {}
        # Sizes that are a fixed number less another size, as a padding to that number is.
        self.rests: dict[Extent, tuple[int, Size]] = {}
        self.least: dict[Symbol, int] = {}
        self._symbols: dict[tuple[Any, ...], Symbol] = {}
        self._counts: dict[Symbol, str] = {}
        self.values: dict[str, Value] = {}
        weights = {tensor.name for tensor in model.graph.initializer}
        for tensor in model.graph.initializer:
            self.values[tensor.name] = self.plain(tensor.name)
        for value in model.graph.input:
            if value.name in weights:
                continue
            summary = value_summary(value)
            assert summary is not None  # specialised before
            shape = tuple(int(dim or 0) for dim in summary.shape)
            self.emit.declare(value.name, value.type.tensor_type.elem_type, shape)
            self.values[value.name] = self.plain(value.name)

    # Running nodes.

    def run(
        self, nodes: Sequence[onnx.NodeProto], scope: dict[str, Value], *, inner: bool = False
    ) -> None:
        """Rewrites nodes in order; their outputs are added to the scope.

        Args:
            nodes: The nodes, in topological order.
            scope: Values by original name.
            inner: Whether the nodes come from a subgraph, whose names may repeat outer ones.

        Raises:
            ShapeError: A node's sizes cannot be bounded; names it.
            UnsupportedOperatorError: A node of another kind depends on open sizes.
        """
        for node in nodes:
            try:
                inputs = [scope[name] if name else None for name in node.input]
                outputs = self._outputs(node, inputs, scope, inner=inner)
            except ModelError as error:
                if "node '" in str(error):
                    raise
                raise blocked(node, str(error)) from error
            except Exception as error:  # a rule on a node that breaks the standard; ONNX itself
                raise unforeseen(f"{describe(node)} cannot be bounded", error) from error
            scope.update(
                (name, value) for name, value in zip(node.output, outputs, strict=False) if name
            )

    def _outputs(
        self,
        node: onnx.NodeProto,
        inputs: list[Value | None],
        scope: Mapping[str, Value],
        *,
        inner: bool,
    ) -> list[Value]:
        if node.op_type == "Constant" and node.domain in DEFAULT_DOMAINS:
            return [self.plain(self._constant_node(node))]
        given = [value for value in inputs if value is not None]
        standard = node.domain in DEFAULT_DOMAINS
        operator = node.op_type if standard else f"{node.domain}.{node.op_type}"
        symbolic = any(v.sizes is not None or v.comparisons is not None for v in given)
        if standard and (symbolic or node.op_type in _READ_SIZES):
            sizes = compute_sizes(self, node, inputs)
            if sizes is not None:
                return [sizes]
        plain = all(value.is_plain for value in given) and not symbolic
        if standard and plain and node.op_type not in SOURCES:
            return self._copied(node, inputs, inner=inner)
        found = RULES.get(operator)
        fixed = standard and not any(value.is_open or value.space for value in given)
        if found is None and fixed and operator not in SOURCES:
            names = [self.tensor(value) if value is not None else "" for value in inputs]
            return [self.plain(name) for name in self.emit.copy(node, names)]
        if found is None:
            if operator in SOURCES or not standard:
                raise blocked(node, "the size of its output depends on the image")
            raise UnsupportedOperatorError(
                f"{describe(node)} takes a value whose size depends on the image, and is not "
                "among the operators that tvmdet can bound; export with fixed-size outputs"
            )
        if operator in ("If", "Loop"):
            self.scope = scope
        return found(self, node, inputs)

    def _copied(
        self, node: onnx.NodeProto, inputs: Sequence[Value | None], *, inner: bool
    ) -> list[Value]:
        names = ["" if value is None else self.tensor(value) for value in inputs]
        if inner:
            return [self.plain(name) for name in self.emit.copy(node, names)]
        self.emit.keep(node, names)
        used = next(name for name in node.output if name)
        return [self.plain(name or used) for name in node.output]

    def _constant_node(self, node: onnx.NodeProto) -> str:
        known = self.emit.constant_of(node.output[0])
        if known is None:
            graph = helper.make_graph(
                [node], "constant", [], [helper.make_value_info(node.output[0], onnx.TypeProto())]
            )
            model = helper.make_model(
                graph, opset_imports=[helper.make_opsetid("", self.emit.opset)]
            )
            (known,) = list(onnx.reference.ReferenceEvaluator(model).run(None, {}))
            known = np.asarray(known)
        return self.emit.constant(known, known.dtype)

    # Making values.

    def plain(self, name: str) -> Value:
        """Returns a value whose shape is static."""
        shape = self.emit.shape(name)
        return Value(
            name=name, dtype=self.emit.dtype(name), shape=shape, symbols=(None,) * len(shape)
        )

    def value(self, name: str, symbols: Sequence[Symbol | None], **facts: Any) -> Value:
        """Returns a value that was emitted, with symbols and further facts."""
        shape = self.emit.shape(name)
        assert len(shape) == len(symbols)
        return Value(
            name=name, dtype=self.emit.dtype(name), shape=shape, symbols=tuple(symbols), **facts
        )

    def tensor(self, value: Value) -> str:
        """Returns the name of a value, computing it when it is sizes that nothing needed yet."""
        if value.name is not None:
            return value.name
        assert value.sizes is not None
        dtype = helper.tensor_dtype_to_np_dtype(value.dtype)
        parts = [
            self.emit.node("Reshape", self.size_scalar(size, value.dtype), self.emit.constant([1]))
            if isinstance(size, Extent)
            else self.emit.constant([size], dtype)
            for size in value.sizes.reshape(-1)
        ]
        flat = self.emit.node("Concat", *parts, axis=0) if parts else self.emit.constant([], dtype)
        return self.emit.node("Reshape", flat, self.emit.constant(list(value.shape)))

    def array(self, value: Value) -> np.ndarray | None:
        """Returns the numbers of a constant, or None; rows that are not real are no constants."""
        return self.emit.constant_of(value.name) if value.is_plain and value.name else None

    def sizes(self, value: Value | None) -> np.ndarray | None:
        """Returns the elements of a value that holds sizes, or None when they are unknown.

        Sizes that were cast to floats are none, except to the arithmetic that casts them back.
        """
        if value is None:
            return None
        if value.sizes is not None:
            whole = np.dtype(helper.tensor_dtype_to_np_dtype(value.dtype)).kind in "biu"
            return value.sizes if whole else None
        array = self.array(value)
        if array is None or array.size > _LARGEST_SIZES or array.dtype.kind not in "biu":
            return None
        return np.array([element.item() for element in array.reshape(-1)], object).reshape(
            array.shape
        )

    # Symbols.

    def symbol(
        self,
        mask: str,
        *,
        prefix: bool,
        count: str | None = None,
        parts: tuple[int | Symbol, ...] = (),
        at_least: int = 0,
    ) -> Symbol:
        """Returns the symbol of a mask, the same one for the same mask."""
        key = (mask,)
        if key not in self._symbols:
            (bound,) = self.emit.shape(mask)
            self._symbols[key] = Symbol(
                bound=bound, mask=mask, prefix=prefix, count=count, parts=parts, at_least=at_least
            )
        return self._symbols[key]

    def first(self, count: str, bound: int) -> Symbol:
        """Returns the symbol of the first rows, their number computed by the network."""
        iota = self.emit.constant(np.arange(bound))
        return self.symbol(self.emit.node("Less", iota, count), prefix=True, count=count)

    def count(self, symbol: Symbol) -> str:
        """Returns the name of the number of real rows, an int64 scalar."""
        if symbol.count is not None:
            return symbol.count
        if symbol not in self._counts:
            numbers = self.emit.node("Cast", symbol.mask, to=TensorProto.INT64)
            self._counts[symbol] = self.reduce("ReduceSum", numbers, [0], keepdims=False)
        return self._counts[symbol]

    def size_scalar(self, size: Size, dtype: int = TensorProto.INT64) -> str:
        """Returns the name of a size as a scalar."""
        if isinstance(size, int):
            return self.emit.constant(size, helper.tensor_dtype_to_np_dtype(dtype))
        name = None
        for symbol in size.symbols:
            count = self.count(symbol)
            name = count if name is None else self.emit.node("Mul", name, count)
        assert name is not None
        if size.factor != 1:
            name = self.emit.node("Mul", name, self.emit.constant(size.factor))
        return name if dtype == TensorProto.INT64 else self.emit.node("Cast", name, to=dtype)

    def dimension(self, size: Size) -> tuple[int, Symbol | None]:
        """Returns the bound and symbol of a new dimension of a size."""
        if isinstance(size, int):
            return size, None
        found = self.flattened((*size.symbols, size.factor))
        return found.bound, found

    def flattened(self, parts: Sequence[int | Symbol]) -> Symbol:
        """Returns the symbol of dimensions that become one, outer first."""
        atoms = [part for part in parts if part != 1]
        symbols = [atom for atom in atoms if isinstance(atom, Symbol)]
        if len(atoms) == 1 and symbols:
            return symbols[0]
        shape = [atom if isinstance(atom, int) else atom.bound for atom in atoms]
        mask = None
        for axis, atom in enumerate(atoms):
            if isinstance(atom, Symbol):
                place = [1] * len(atoms)
                place[axis] = atom.bound
                here = self.emit.node("Reshape", atom.mask, self.emit.constant(place))
                mask = here if mask is None else self.emit.node("And", mask, here)
        assert mask is not None
        mask = self.emit.node("Expand", mask, self.emit.constant(shape))
        mask = self.emit.node("Reshape", mask, self.emit.constant([-1]))
        prefix = isinstance(atoms[0], Symbol) and atoms[0].prefix and len(symbols) == 1
        return self.symbol(mask, prefix=prefix, parts=tuple(atoms))

    def mask_for(self, value: Value, axes: Sequence[int] | None = None) -> str | None:
        """Returns a bool value that broadcasts to a value: where all its open axes are real."""
        mask = None
        for axis, symbol in enumerate(value.symbols):
            if symbol is None or (axes is not None and axis not in axes):
                continue
            place = [1] * value.rank
            place[axis] = symbol.bound
            here = symbol.mask
            if value.rank > 1:
                here = self.emit.node("Reshape", here, self.emit.constant(place))
            mask = here if mask is None else self.emit.node("And", mask, here)
        return mask

    def filled(self, value: Value, fill: Any, axes: Sequence[int] | None = None) -> str:
        """Returns the value with every row that is not real replaced by a number."""
        mask = self.mask_for(value, axes)
        name = self.tensor(value)
        if mask is None:
            return name
        dtype = helper.tensor_dtype_to_np_dtype(value.dtype)
        return self.where(mask, name, self.emit.constant(fill, dtype))

    def where(self, condition: str, left: str, right: str) -> str:
        """Emits a choice between two values; ONNX Runtime's Where takes no bools."""
        if self.emit.dtype(left) != TensorProto.BOOL:
            return self.emit.node("Where", condition, left, right)
        left = self.emit.node("And", condition, left)
        right = self.emit.node("And", self.emit.node("Not", condition), right)
        return self.emit.node("Or", left, right)

    def reduce(
        self, operator: str, name: str, axes: Sequence[int], *, keepdims: bool, **more: Any
    ) -> str:
        """Emits a reduction in the form of the model's opset."""
        by_input = self.emit.opset >= (13 if operator == "ReduceSum" else 18)
        if by_input:
            return self.emit.node(
                operator, name, self.emit.constant(list(axes)), keepdims=int(keepdims), **more
            )
        return self.emit.node(operator, name, axes=list(axes), keepdims=int(keepdims), **more)

    # Positions.

    def ranks(self, symbol: Symbol) -> str:
        """Returns int64 ``[B]``: which real row, counted from 0, each masked row is."""
        numbers = self.emit.node("Cast", symbol.mask, to=TensorProto.INT64)
        running = self.emit.node("CumSum", numbers, self.emit.constant(0))
        return self.emit.node("Sub", running, self.emit.constant(1))

    def order(self, symbol: Symbol) -> str:
        """Returns int64 ``[B]``: where the first, second, ... real row is; 0 past the last."""
        bound = symbol.bound
        trash = self.emit.constant(bound)
        places = self.emit.node("Where", symbol.mask, self.ranks(symbol), trash)
        zeros = self.emit.constant(np.zeros(bound + 1))
        iota = self.emit.constant(np.arange(bound))
        moved = self.emit.node("ScatterElements", zeros, places, iota, axis=0)
        return self.sliced(moved, 0, 0, bound)

    def sliced(self, name: str, axis: int, start: int, stop: int) -> str:
        """Emits a slice along one axis."""
        bounds = [self.emit.constant([at]) for at in (start, stop, axis)]
        return self.emit.node("Slice", name, *bounds)

    def compacted(self, value: Value, axis: int, rows: int | None = None) -> Value:
        """Returns a value with the real rows of an axis first, and only the first ``rows``."""
        symbol = value.symbols[axis]
        assert symbol is not None
        rows = symbol.bound if rows is None else min(rows, symbol.bound)
        if symbol.prefix and rows == symbol.bound:
            return value
        name = self.tensor(value)
        if symbol.prefix:
            name = self.sliced(name, axis, 0, rows)
            found = self.symbol(self.sliced(symbol.mask, 0, 0, rows), prefix=True)
        else:
            order = self.sliced(self.order(symbol), 0, 0, rows)
            name = self.emit.node("Gather", name, order, axis=axis)
            count = self.emit.node("Min", self.count(symbol), self.emit.constant(rows))
            found = self.first(self.count(symbol) if rows == symbol.bound else count, rows)
        symbols = [found if at == axis else other for at, other in enumerate(value.symbols)]
        return self.value(name, symbols, space=value.space, in_range=value.in_range)

    def numbers(self, value: Value) -> Value:
        """Returns a value whose positions are the numbers that the original computes."""
        if value.space is None:
            return value
        if isinstance(value.space, Lanes):
            return self._lane_numbers(value, value.space)
        name = self.emit.node("Gather", self.ranks(value.space), self._safe(value), axis=0)
        if value.dtype != TensorProto.INT64:
            name = self.emit.node("Cast", name, to=value.dtype)
        return self.value(name, value.symbols)

    def _lane_numbers(self, value: Value, lanes: Lanes) -> Value:
        parts = []
        for at, space in enumerate(lanes.spaces):
            part = self.sliced(self._safe(value), lanes.axis, at, at + 1)
            if space is not None:
                part = self.emit.node("Gather", self.ranks(space), part, axis=0)
            parts.append(part)
        name = self.emit.node("Concat", *parts, axis=lanes.axis)
        return self.value(name, value.symbols)

    def _safe(self, value: Value) -> str:
        return self.tensor(value) if value.in_range else self.filled(value, 0)

    def positions(self, value: Value, symbol: Symbol | None) -> str:
        """Returns indices as positions in a dimension, valid in rows that are not real too."""
        target = None if symbol is None or symbol.prefix else symbol
        if value.space is target and not isinstance(value.space, Lanes):
            return self._safe(value)
        plain = self.numbers(value)
        name = self._safe(plain)
        array = self.array(plain)
        if array is not None and symbol is not None and (array < 0).any():
            count = self.size_scalar(extent_of(symbol.bound, symbol), plain.dtype)
            name = self.emit.node("Add", name, count)
        if target is None:
            return name
        return self.emit.node("Gather", self.order(target), name, axis=0)
