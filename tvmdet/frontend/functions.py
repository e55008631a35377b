"""Model-local functions, written out; how much that is, is computed before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.checker
import onnx.inliner

from tvmdet.errors import ModelError
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.onnx_tools import DEFAULT_DOMAINS, first_line

__all__ = ["inline_functions"]

_Key = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class _Body:
    """What a function or graph holds: its own nodes, and how often it calls each function."""

    nodes: int
    size: int
    calls: Mapping[_Key, int]


def inline_functions(path: Path, model: onnx.ModelProto, limits: Limits) -> onnx.ModelProto:
    """Returns the model with its own functions (torch's newer exporter) written out.

    Functions that call each other twice grow twofold with every level, so a small file can
    ask for any number of nodes.

    Raises:
        ModelError: The functions call themselves, or the model would exceed a limit, or the
            functions cannot be written out.
    """
    bodies = {(_domain(f.domain), f.name, f.overload): f.node for f in reversed(model.functions)}
    nodes, size = _expanded(path, model, bodies)
    if nodes > limits.max_nodes:
        raise ModelError(
            f"{path} has {_count(nodes)} nodes with its functions written out; allowed: "
            f"{limits.max_nodes} (Limits.max_nodes); export it without nested functions"
        )
    if size > limits.max_file_bytes:
        raise ModelError(
            f"{path} has {_count(size)} bytes of nodes with its functions written out; allowed: "
            f"{limits.max_file_bytes} (Limits.max_file_bytes); export it without nested functions"
        )
    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{path}: its functions cannot be written out: {first_line(error)}; "
            "export it again without functions"
        ) from error


def _expanded(
    path: Path, model: onnx.ModelProto, functions: Mapping[_Key, Iterable[onnx.NodeProto]]
) -> tuple[int, int]:
    """Returns the number of nodes, and their bytes, with every call written out."""
    bodies = {key: _read(nodes, functions) for key, nodes in functions.items()}
    main = _read(model.graph.node, functions)
    done: dict[_Key, tuple[int, int]] = {}
    stack, waiting = list(main.calls), set[_Key]()
    while stack:  # without recursion: the depth is the file's choice
        key = stack[-1]
        missing = [called for called in bodies[key].calls if called not in done]
        if key in done or not missing:
            stack.pop()
            waiting.discard(key)
            done.setdefault(key, _sum(bodies[key], done))
            continue
        waiting.add(key)
        circular = next((called for called in missing if called in waiting), None)
        if circular is not None:
            raise ModelError(
                f"{path}: function {circular[1]!r} calls itself; ONNX does not allow that: "
                "export the model again"
            )
        stack.extend(missing)
    return _sum(main, done)


def _sum(body: _Body, done: Mapping[_Key, tuple[int, int]]) -> tuple[int, int]:
    nodes, size = body.nodes, body.size
    for key, times in body.calls.items():
        nodes += times * done[key][0]
        size += times * done[key][1]
    return nodes, size


def _read(
    nodes: Iterable[onnx.NodeProto], functions: Mapping[_Key, Iterable[onnx.NodeProto]]
) -> _Body:
    """Counts the nodes of a body, those in subgraphs too."""
    count = size = 0
    calls: dict[_Key, int] = {}
    stack = list(nodes)
    for node in stack:
        size += node.ByteSize()
    while stack:
        node = stack.pop()
        key = (_domain(node.domain), node.op_type, node.overload)
        if key in functions:
            calls[key] = calls.get(key, 0) + 1
        else:
            count += 1
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else []
            for graph in (*graphs, *attribute.graphs):
                stack.extend(graph.node)
    return _Body(nodes=count, size=size, calls=calls)


def _domain(domain: str) -> str:
    return "" if domain in DEFAULT_DOMAINS else domain


def _count(value: int) -> str:
    """Returns a number in digits, or its magnitude where that is longer than a line."""
    return str(value) if value < 10**15 else f"more than 10^{int(value.bit_length() * 0.30102)}"
