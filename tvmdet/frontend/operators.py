"""Which nodes cannot be imported, found before anything is tried, all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import onnx

from tvmdet.counted import counted
from tvmdet.errors import UnsupportedOperatorError
from tvmdet.frontend.keep_outputs import without
from tvmdet.frontend.onnx_tools import DEFAULT_DOMAINS, constants_of, describe, iter_graphs

__all__ = ["INTEGER_OPERATORS", "Block", "find_blocks", "find_foreign", "refuse"]

_EXPORT_OFF = "export the detector without its non-maximum suppression (Ultralytics: nms=False)"
_QDQ = "export the float model, or quantise it to QuantizeLinear and DequantizeLinear (QDQ)"
_OPTIMISED = (
    "where ONNX Runtime has optimised the model, give the file that it was made from, or save it "
    "with ORT_ENABLE_BASIC; else export with standard ONNX operators"
)
_FIXES = {
    "If": "export with constant conditions (torch: eval mode and static shapes)",
    "Loop": f"{_EXPORT_OFF}, or without the loop",
    "Scan": "export without the loop",
}
INTEGER_OPERATORS = (
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QGemm",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMatMul",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QLinearWhere",
    "QuantizeLinear",
)
"""What :mod:`tvmdet.frontend.quantised` writes as operators of floats, in whatever domain."""

_INTEGERS = (
    "its integers cannot be taken as floats: their steps are not constants of the file, or no "
    "operator of floats has this form"
)
_DATA_DEPENDENT = {
    "Compress": "export fixed-size outputs (TopK, or masks by multiplication)",
    "NonMaxSuppression": _EXPORT_OFF,
    "NonZero": "export fixed-size outputs (TopK, or masks by multiplication)",
    "Unique": "export fixed-size outputs",
}


@dataclass(frozen=True, kw_only=True)
class Block:
    """A node that keeps the network from being imported.

    Attributes:
        node: The node's name.
        operator: Its operator type, with the domain unless that is the default one.
        reason: Why it blocks.
        fix: What to do in the exporter.
    """

    node: str
    operator: str
    reason: str
    fix: str

    def __str__(self) -> str:
        """Returns ``node 'x' (Loop): why; what to do``."""
        return f"node {self.node!r} ({self.operator}): {self.reason}; {self.fix}"


def find_foreign(graph: onnx.GraphProto) -> list[Block]:
    """Returns the nodes that are no standard ONNX operators, subgraphs included."""
    blocks = []
    for inner in iter_graphs(graph):
        for node in inner.node:
            if node.domain not in DEFAULT_DOMAINS and node.op_type in INTEGER_OPERATORS:
                blocks.append(_block(node, _INTEGERS, _QDQ))
            elif node.domain not in DEFAULT_DOMAINS:
                reason = f"an operator of the custom domain {node.domain!r}"
                fix = "export with standard ONNX operators, or cut the model before this node"
                if node.domain.split(".")[:2] == ["com", "microsoft"]:
                    fix = _OPTIMISED
                blocks.append(_block(node, reason, fix))
            elif not onnx.defs.has(node.op_type):
                reason = "no operator of standard ONNX"
                fix = "export with standard ONNX operators"
                blocks.append(_block(node, reason, fix))
    return blocks


def find_blocks(
    graph: onnx.GraphProto, converters: Collection[str], *, but: Collection[str] = ()
) -> list[Block]:
    """Returns the nodes that block the import of a simplified graph.

    Args:
        graph: The graph, with static shapes and constants folded.
        converters: Operator types that the importer converts.
        but: Operator types that are left out.
    """
    constants = set(constants_of(graph))
    blocks, nodes = [], []
    for node in graph.node:
        block = None if node.op_type in but else _find_block(node, converters, constants)
        if block is not None:
            blocks.append(block)
            nodes.append(node)
    way = without(graph, nodes)
    return [replace(block, fix=f"{block.fix}; {way}") for block in blocks] if way else blocks


def _find_block(
    node: onnx.NodeProto, converters: Collection[str], constants: Collection[str]
) -> Block | None:
    if node.op_type == "Constant":
        return None
    if node.op_type not in converters and node.op_type in INTEGER_OPERATORS:
        return _block(node, _INTEGERS, _QDQ)
    if node.op_type not in converters:
        fix = _FIXES.get(node.op_type, "export the model without it")
        return _block(node, "TVM has no converter for it", fix)
    check = _CHECKS.get(node.op_type)
    return check(node, constants) if check else None


def refuse(blocks: Sequence[Block], longest: int = 20) -> None:
    """Raises when there are blocks.

    Raises:
        UnsupportedOperatorError: With every block, up to ``longest`` of them spelled out.
    """
    if not blocks:
        return
    lines = [f"  {block}" for block in blocks[:longest]]
    if len(blocks) > longest:
        lines.append(f"  and {len(blocks) - longest} more; `tvmdet doctor` lists them all")
    count = counted(len(blocks), "node")
    raise UnsupportedOperatorError("\n".join([f"{count} cannot be imported:", *lines]))


def _block(node: onnx.NodeProto, reason: str, fix: str) -> Block:
    standard = node.domain in DEFAULT_DOMAINS
    operator = node.op_type if standard else f"{node.domain}.{node.op_type}"
    name = node.name or describe(node).split("'")[1]
    return Block(node=name, operator=operator, reason=reason, fix=fix)


def _data_dependent(node: onnx.NodeProto, constants: Collection[str]) -> Block | None:
    if node.op_type == "NonMaxSuppression":
        names = ("max_output_boxes_per_class", "iou_threshold", "score_threshold")
        for name, value in zip(names, node.input[2:5], strict=False):
            if value and value not in constants:
                # TVM's importer would take iou 0.5, score 0 and no boxes instead, in silence.
                reason = f"its {name} is not a constant"
                return _block(node, reason, f"export it as a constant, or {_EXPORT_OFF}")
    reason = "the size of its output depends on the image"
    return _block(node, reason, _DATA_DEPENDENT[node.op_type])


def _top_k(node: onnx.NodeProto, constants: Collection[str]) -> Block | None:
    if len(node.input) > 1 and node.input[1] not in constants:
        return _block(node, "its k is not a constant", "export it with a constant k")
    return None


def _resize(node: onnx.NodeProto, constants: Collection[str]) -> Block | None:
    for name in node.input[1:]:
        if name and name not in constants:
            return _block(node, "its target size is not a constant", "export with static shapes")
    return None


def _roi_align(node: onnx.NodeProto, _constants: Collection[str]) -> Block | None:
    if any(a.name == "mode" and a.s == b"max" for a in node.attribute):
        # ONNX Runtime takes the maximum of unfinished sums, and says that it will change.
        return _block(node, "its mode 'max' is not settled", "export it with averages")
    return None


_CHECKS: dict[str, Callable[[onnx.NodeProto, Collection[str]], Block | None]] = {
    **dict.fromkeys(_DATA_DEPENDENT, _data_dependent),
    "Resize": _resize,
    "RoiAlign": _roi_align,
    "TopK": _top_k,
    "Upsample": _resize,
}
