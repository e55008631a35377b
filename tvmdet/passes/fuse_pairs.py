"""FuseConvPairs: a depthwise convolution and the pointwise one that reads it become one kernel.

TVM's own fusion ends at the second sum. A pair is one kernel where the first result is read by
nothing but the second convolution, as its picture, and the choice says that it is worth it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm

from tvmdet.passes.join_calls import Calls, blocks_of, join_calls
from tvmdet.passes.relax_tools import static_shape

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
        bytes_between: Of one picture that goes from one to the other.
    """

    depthwise: str
    pointwise: str
    bytes_between: int


# Whether a pair becomes one kernel.
PairChoice: TypeAlias = Callable[[ConvPair], bool]

_L2_SIZES = 8
"""Of a core, in a picture between two convolutions, from which on they are one kernel."""

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


def usual_pairs(pair: ConvPair, l2_bytes: int) -> bool:
    """Returns what should be faster, without a measurement.

    On an AMD Zen 4 with L2 of 1 MiB pictures of 12 to 50 MiB gained 8 to 27 % of both kernels'
    time, those of 3 to 7 MiB lost 9 % to gained 10.

    Args:
        pair: Of two convolutions.
        l2_bytes: Of a core.
    """
    return pair.bytes_between >= _L2_SIZES * l2_bytes


@tvm.ir.transform.module_pass(opt_level=0, name="FuseConvPairs")
class FuseConvPairs:
    """Module pass, after FuseTIR; what is no longer called is left to dead code elimination."""

    def __init__(self, choose: PairChoice) -> None:
        """Fuses the pairs that ``choose`` wants."""
        self._choose = choose

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with pairs in kernels of their own."""
        depthwise: dict[str, str] = {}
        pointwise: dict[str, tuple[str, int] | None] = {}

        def find(calls: Calls, call: Any) -> tuple[Any, int] | None:
            name = call.args[0].name_hint
            if name not in pointwise:
                pointwise[name] = _read_pointwise(calls.function_of(call))
            found = pointwise[name]
            if found is None:
                return None
            anchor, at = found
            picture = call.args[1][at]
            first = calls.kernel_of(picture)
            if first is None or not calls.is_read_once(picture):
                return None
            name = first.args[0].name_hint
            if name not in depthwise:
                depthwise[name] = _read_depthwise(calls.function_of(first))
            if not depthwise[name]:
                return None
            size = 4 * math.prod(static_shape(picture)[1:])
            pair = ConvPair(depthwise=depthwise[name], pointwise=anchor, bytes_between=size)
            return (first, at) if self._choose(pair) else None

        return join_calls(mod, find)


def _read_depthwise(func: Any) -> str:
    """Returns the anchor of a function's only depthwise convolution, empty if there is none."""
    notes = [block.annotations for block in blocks_of(func)]
    if any(key in note for note in notes for key in _DENSE):
        return ""
    found = [str(note[_DEPTHWISE]) for note in notes if _DEPTHWISE in note]
    return found[0] if len(found) == 1 else ""


def _read_pointwise(func: Any) -> tuple[str, int] | None:
    """Returns the anchor of a function's only pointwise convolution, and its picture's place."""
    blocks = blocks_of(func)
    found = [(b, key) for b in blocks for key in _DENSE if key in b.annotations]
    if len(found) != 1 or any(_DEPTHWISE in b.annotations for b in blocks):
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
