"""Whether a kernel of a batch does to each picture's rows what a kernel of one picture does.

It does where they are the same program but for the extents of buffers and loops: no index knows how
many pictures there are. Then the first rows of the results are the same, for both read the same
places; and so are those of every other picture, whose rows lie so many further on. A kernel that
mixes pictures, or where rows of several pictures alternate, has the batch in an index: it reads
``x[7 - n]``, or ``x[row % 8, row // 8]``. One that sums over pictures has it in the extent of a
sum, one that goes from picture to picture in that of a loop within a block: these must be equal.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from typing import Any, Final

import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad
from tvm.s_tir import SBlock

__all__ = ["is_same_program"]

_TOKEN: Final = re.compile(
    r"(?P<text>\"[^\"]*\")|(?P<name>[A-Za-z_][\w.]*)|(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)|\S"
)

# Lines of TVM's script that say how large something is.
_EXTENTS: Final = re.compile(r"\s*(def |for |\w+ = T\.(axis\.|sblock_alloc_buffer))")

# What the statements of a block say again, its name, and notes, such as operations in all.
_NOTES: Final = re.compile(r"\s*(T\.(reads|writes|sblock_attr|func_attr)|with T\.sblock)\(")

_FOR_EACH: Final = 0
"""An axis of a block whose places are computed by themselves (``kDataPar``)."""

_OPEN: Final = -1
"""The extent of a loop that is known only when it runs."""


def is_same_program(whole: tirx.PrimFunc, part: tirx.PrimFunc, times: int) -> bool:
    """Returns whether two functions differ in extents only, where the first's are so many times.

    Args:
        whole: A fused function of a batch, not scheduled.
        part: One of one picture.
        times: Pictures of the batch.
    """
    buffers = _buffers(whole), _buffers(part)
    if len(buffers[0]) != len(buffers[1]):
        return False
    in_order = _in_order(whole)
    if not in_order or in_order != _in_order(part) or any(_OPEN in one for one in in_order):
        return False
    # Each buffer, with the axes that have one place in both functions.
    single: tuple[list[Any], list[Any]] = ([], [])
    for one, other in zip(*buffers, strict=True):
        sides = [[int(n) for n in buffer.shape] for buffer in (one, other)]
        if len(sides[0]) != len(sides[1]) or one.dtype != other.dtype:
            return False
        both = [a == b == 1 for a, b in zip(*sides, strict=True)]
        single[0].append((one, both))
        single[1].append((other, both))
    lines = [_lines(func, ones) for func, ones in zip((whole, part), single, strict=True)]
    if len(lines[0]) != len(lines[1]):
        return False
    names: tuple[dict[str, str], dict[str, str]] = ({}, {})
    return all(_is_same_line(a, b, names, times) for a, b in zip(*lines, strict=True))


def _buffers(func: tirx.PrimFunc) -> list[Any]:
    found = [param for param in func.params if hasattr(param, "shape")]
    tvm_ffi.structural_walk(func.body, (SBlock, lambda block: found.extend(block.alloc_buffers)))
    return found


def _in_order(func: tirx.PrimFunc) -> list[list[int]]:
    """Returns the extents, block by block, of what is not computed for each place by itself.

    None of a function that is written as plain loops.
    """
    blocks: list[Any] = []
    tvm_ffi.structural_walk(func.body, (SBlock, blocks.append))
    found = []
    for block in blocks:
        if any(inner for inner in blocks if inner is not block and _contains(block, inner)):
            continue  # the one around all others
        loops: list[Any] = []
        tvm_ffi.structural_walk(block.body, (tirx.For, loops.append))
        sums = [axis.dom for axis in block.iter_vars if axis.iter_type != _FOR_EACH]
        found.append([_extent(one) for one in (*sums, *loops)])
    return found


def _contains(block: Any, inner: Any) -> bool:
    within: list[Any] = []
    tvm_ffi.structural_walk(block.body, (SBlock, within.append))
    return any(one.same_as(inner) for one in within)


def _extent(one: Any) -> int:
    return int(one.extent) if isinstance(one.extent, tirx.IntImm) else _OPEN


def _lines(func: tirx.PrimFunc, single: Sequence[tuple[Any, list[bool]]]) -> list[str]:
    """Returns a function as text, in which the only place of an axis is always 0.

    TVM writes it as 0 or as the loop over it, by what else has the axis.
    """

    def at_zero(buffer: Any, indices: Any) -> list[Any] | None:
        for known, ones in single:
            if known.same_as(buffer) and any(ones) and len(ones) == len(indices):
                return [
                    tirx.IntImm("int64", 0) if one else index
                    for one, index in zip(ones, indices, strict=True)
                ]
        return None

    def load(node: Any) -> Any:
        indices = at_zero(node.source, node.indices)
        return node if indices is None else tirx.BufferLoad(node.source, indices)

    def store(node: Any) -> Any:
        indices = at_zero(node.buffer, node.indices)
        return node if indices is None else tirx.BufferStore(node.buffer, node.value, indices)

    body = tvm_ffi.structural_map(func.body, [(TensorLoad, load), (tirx.BufferStore, store)])
    text = str(func.with_body(body).script(show_meta=False))
    return [line for line in text.splitlines() if not _NOTES.match(line)]


def _is_same_line(
    whole: str, part: str, names: tuple[dict[str, str], dict[str, str]], times: int
) -> bool:
    tokens = [list(_TOKEN.finditer(line)) for line in (whole, part)]
    if len(tokens[0]) != len(tokens[1]) or "metadata[" in whole:
        return False
    extents = _EXTENTS.match(whole) is not None
    for ours, theirs in zip(*tokens, strict=True):
        a, b = ours[0], theirs[0]
        if ours.lastgroup != theirs.lastgroup:
            return False
        if ours.lastgroup == "name" and _is_variable(a) and _is_variable(b):
            if names[0].setdefault(a, b) != b or names[1].setdefault(b, a) != a:
                return False
        elif a != b and not (extents and a.isdigit() and b.isdigit() and int(a) == times * int(b)):
            return False
    return True


def _is_variable(name: str) -> bool:
    return not name.startswith("T.") and name != "range" and not keyword.iskeyword(name)
