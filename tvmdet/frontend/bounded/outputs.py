"""The outputs of a bounded network: real rows first, zeros after them, and their number."""

from __future__ import annotations

import json
from collections.abc import Sequence

import onnx
from onnx import helper

from tvmdet.frontend.bounded.rewriter import Rewriter
from tvmdet.frontend.bounded.values import Symbol, Value
from tvmdet.heads.base import ROW_COUNTS

__all__ = ["finish"]


def finish(
    rw: Rewriter, model: onnx.ModelProto, names: Sequence[str]
) -> tuple[onnx.ModelProto, dict[str, dict[int, str]]]:
    """Returns the rewritten model, and for each output which axis is counted by which output.

    An output with an open dimension gets its real rows first and zeros after them. For every
    open dimension there is one more output, int64 ``[1]``, the number of real rows: named as the
    first output with that dimension, with ``.rows`` after it (``.rows1`` for its second
    dimension).
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    outputs: list[onnx.ValueInfoProto] = []
    counts: dict[Symbol, tuple[str, str]] = {}
    opened: dict[str, dict[int, str]] = {}
    for name in names:
        value = rw.numbers(rw.values[name])
        made = _padded(rw, name, value)
        for axis, symbol in enumerate(value.symbols):
            if symbol is None:
                continue
            if symbol not in counts:
                count = rw.emit.node("Reshape", rw.count(symbol), rw.emit.constant([1]))
                count = rw.emit.node("Min", count, rw.emit.constant([rw.emit.shape(made)[axis]]))
                counts[symbol] = (f"{name}.rows{axis or ''}", count)
            opened.setdefault(name, {})[axis] = counts[symbol][0]
        _rename(rw, made, name)
        outputs.append(_info(name, rw, made))
    for name, made in counts.values():
        _rename(rw, made, name)
        outputs.append(_info(name, rw, made))
    del result.graph.node[:], result.graph.output[:], result.graph.value_info[:]
    result.graph.node.extend(rw.emit.nodes)
    result.graph.output.extend(outputs)
    result.graph.initializer.extend(rw.emit.weights())
    result.functions.extend(rw.emit.functions.values())
    _drop_unused(result)
    if rw.emit.functions:
        result.opset_import.append(helper.make_opsetid("tvmdet", 1))
        result.ir_version = max(result.ir_version, 8)
        known = {value.name for value in outputs}
        for node in result.graph.node:
            if node.domain == "tvmdet":
                result.graph.value_info.extend(
                    _info(name, rw, name) for name in node.output if name not in known
                )
    entry = result.metadata_props.add()
    entry.key, entry.value = ROW_COUNTS, json.dumps(opened, sort_keys=True)
    return result, opened


def _padded(rw: Rewriter, name: str, value: Value) -> str:
    for axis, symbol in enumerate(value.symbols):
        if symbol is None:
            continue
        rows = min(symbol.bound, rw.limits.max_rows)
        value = rw.compacted(value, axis, rows)
        how = "by the graph" if rows == symbol.bound else "Limits.max_rows"
        rw.notes.append(f"output {name!r}: at most {rows} rows ({how}), zeros past the last")
    return rw.filled(value, 0) if value.is_open else rw.tensor(value)


def _rename(rw: Rewriter, made: str, name: str) -> None:
    """Lets the network call a value by the name of an output."""
    if made == name:
        return
    rw.emit.nodes.append(helper.make_node("Identity", [made], [name], name=f"{name}.output"))


def _info(name: str, rw: Rewriter, made: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, rw.emit.dtype(made), list(rw.emit.shape(made)))


def _drop_unused(model: onnx.ModelProto) -> None:
    """Removes nodes and constants that no output needs, in place."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if any(name in needed for name in node.output):
            kept.append(node)
            needed.update(node.input)
    weights = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    kept.reverse()
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(weights)
