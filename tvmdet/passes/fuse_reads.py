"""FuseReads: slices and concatenations are read where they lie, not copied first.

A slice (of a split, say) is the reader's own index with an offset. A concatenation in front of a
pointwise convolution is gathered by that convolution, a few rows at a time, as it gathers padded
rows: from L3 into L2 instead of once through memory, and the cores wait for each other once less.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx
from tvm.ir import TensorLoad
from tvm.sym.analyzer import Analyzer

from tvmdet.passes.join_calls import Calls, blocks_of, join_calls

__all__ = ["FuseReads"]

_GATHERING = (
    "tvmdet.conv2d",
    "tvmdet.bf16_conv2d",
    "tvmdet.amx_conv2d",
    "tvmdet.fp16_conv2d",
)
_CONVOLUTIONS = (
    *_GATHERING,
    "tvmdet.depthwise_conv2d",
    "tvmdet.fp16_depthwise_conv2d",
    "tvmdet.winograd_conv2d",
    "tvmdet.bf16_winograd_conv2d",
)
_POINTWISE = {"k1x1", "s1x1", "p0.0.0.0", "g1"}


@tvm.ir.transform.module_pass(opt_level=0, name="FuseReads")
class FuseReads:
    """Module pass, after FuseTIR; what is no longer called is left to dead code elimination."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with slices and concatenations in their readers."""
        kinds: dict[str, str] = {}
        readers: dict[str, tuple[bool, int | None]] = {}

        def find(calls: Calls, call: Any) -> tuple[Any, int] | None:
            name = call.args[0].name_hint
            if name not in readers:
                readers[name] = _reader(calls.function_of(call))
            indexes, gathered = readers[name]
            if not indexes:
                return None
            for at, argument in enumerate(call.args[1]):
                first = calls.kernel_of(argument)
                if first is None:
                    continue
                producer = first.args[0].name_hint
                if producer not in kinds:
                    kinds[producer] = _kind(calls.function_of(first))
                kind = kinds[producer]
                if kind == "slice":
                    return first, at
                if kind == "concat" and at == gathered and calls.is_read_once(argument):
                    return first, at
            return None

        return join_calls(mod, find)


def _reader(func: Any) -> tuple[bool, int | None]:
    """Returns whether a function can read through an index, and the picture it can gather."""
    blocks = blocks_of(func)
    marked = [(b, key) for b in blocks for key in _CONVOLUTIONS if key in b.annotations]
    sums = [
        b for b in blocks if any(int(v.iter_type) == tirx.IterVar.CommReduce for v in b.iter_vars)
    ]
    if not all(block.writes for block in blocks):  # opaque: it does not say what it reads
        return False, None
    if not blocks or (sums and len(marked) != 1):
        return False, None
    if not marked:
        return True, None
    block, key = marked[0]
    if key not in _GATHERING or not set(str(block.annotations[key]).split()) >= _POINTWISE:
        return True, None
    pads = [b for b in blocks if b.writes[0].source.same_as(block.reads[0].source)]
    at = [i for i, p in enumerate(func.params) if p.same_as(pads[0].reads[0].source)]
    return True, at[0] if at else None


def _kind(func: Any) -> str:
    """Returns ``slice``, ``concat`` or nothing."""
    blocks = blocks_of(func)
    if not all(map(_is_elementwise, blocks)):
        return ""
    if len(blocks) == 1 and _is_slice(blocks[0]):
        return "slice"
    if blocks and blocks[-1].name_hint.startswith("T_concat") and len(blocks[-1].iter_vars) == 4:
        return "concat"
    return ""


def _is_elementwise(block: Any) -> bool:
    return all(int(var.iter_type) == tirx.IterVar.DataPar for var in block.iter_vars)


def _is_slice(block: Any) -> bool:
    body = block.body
    if not isinstance(body, tirx.BufferStore) or not isinstance(body.value, TensorLoad):
        return False
    read, written = list(body.value.indices), list(body.indices)
    if len(read) != len(written):
        return False
    analyzer = Analyzer()
    offsets = [analyzer.simplify(r - w) for r, w in zip(read, written, strict=True)]
    return all(isinstance(offset, tirx.IntImm) for offset in offsets)
