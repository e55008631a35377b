"""Products of matrix tiles: loops that a schedule marked become instructions of Intel AMX.

A core has eight registers of 16 rows of 64 bytes. ``TDPBF16PS`` adds to 16 by 16 float32 sums the
products of 16 rows of 32 bfloat16 numbers with 16 rows of 16 pairs of others, in 16 cycles. LLVM
is not asked to allocate the registers: the sums lie in the first ones, the factors in the others.

A schedule marks the loops of a block that sums products up (:func:`mark_products`). They stay plain
loops until :func:`use_tiles` replaces them. Where tiles do not divide the pixels, the last ones
start earlier, and are computed from some of the same pixels again.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, and
volume 2, TDPBF16PS.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import TensorLoad
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV

__all__ = ["TILE", "Tiles", "mark_products", "use_tiles"]

TILE = 16
"""Pixels of a tile, and filters."""

_REGISTERS = 8
_ROW_BYTES = 64
_PALETTE = 1
_MARK = "tvmdet.tiles"
_FILTERS, _PIXELS, _STEPS, _DEPTH = "filters", "pixels", "steps", "depth"


# A process may use the registers after it asked for them: 158 is arch_prctl, 4131 its
# ARCH_REQ_XCOMP_PERM, 18 the state of the tiles. Whoever chooses a library's code has asked
# (targets/machine.py); others load libraries too, the processes that tune, so the first task asks.
_ASK = """
@tvmdet_tiles_asked = linkonce_odr hidden global i32 0
define void @tvmdet_ask_for_tiles() {
  %seen = load atomic i32, ptr @tvmdet_tiles_asked monotonic, align 4
  %asked = icmp ne i32 %seen, 0
  br i1 %asked, label %done, label %ask
ask:
  %r = call i64 asm sideeffect "syscall", "={rax},{rax},{rdi},{rsi},~{rcx},~{r11},~{memory}"(
    i64 158, i64 4131, i64 18)
  %granted = icmp eq i64 %r, 0
  br i1 %granted, label %remember, label %done
remember:
  store atomic i32 1, ptr @tvmdet_tiles_asked monotonic, align 4
  br label %done
done:
  ret void
}
"""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Tiles whose sums are kept in registers together.

    Attributes:
        pixels: Tiles along the pixels.
        filters: Tiles along the filters.
        rows: Pixels of a tile, at most :data:`TILE`.
        pairs: Of channels in a step of the products, at most :data:`TILE`.
    """

    pixels: int
    filters: int
    rows: int
    pairs: int

    @property
    def sums(self) -> int:
        """Registers of sums."""
        return self.pixels * self.filters

    def __post_init__(self) -> None:
        """There are registers for all sums, and for one tile of each factor at least."""
        if self.sums + 2 > _REGISTERS:
            raise ValueError(f"{self.sums} tiles of sums leave no registers for their factors")

    def factors(self) -> tuple[list[int], list[int]]:
        """Returns the registers of the tiles of pixels, and of those of weights.

        The shorter side is held, as far as it fits; tiles of the other take turns.
        """
        free = list(range(self.sums, _REGISTERS))
        held = min(self.pixels, self.filters, len(free) - 1)
        if self.pixels <= self.filters:
            return free[:held], free[held : held + self.filters]
        return free[held : held + self.pixels], free[:held]

    def configuration(self) -> bytes:
        """Returns the 64 bytes that ``LDTILECFG`` loads: the sizes of the registers."""
        of_pixels, of_weights = self.factors()
        widths, heights = [0] * 16, [0] * 16
        for register in range(self.sums):
            widths[register], heights[register] = _ROW_BYTES, self.rows
        for register in of_pixels:
            widths[register], heights[register] = 4 * self.pairs, self.rows
        for register in of_weights:
            widths[register], heights[register] = _ROW_BYTES, self.pairs
        return struct.pack("<2B14x16H16B", _PALETTE, 0, *widths, *heights)

    def order(self) -> list[tuple[int, int]]:
        """Returns the tiles of sums, by pixels and filters, in the order of their products."""
        if self.pixels <= self.filters:
            return [(p, f) for f in range(self.filters) for p in range(self.pixels)]
        return [(p, f) for p in range(self.pixels) for f in range(self.filters)]


def mark_products(
    schedule: Schedule,
    filters: LoopRV,
    pixels: LoopRV,
    steps: Sequence[LoopRV],
    depth: Sequence[LoopRV],
) -> None:
    """Marks the loops around a block that sums products up.

    Args:
        schedule: Where.
        filters: The outermost of the loops: as many as a row of tiles has.
        pixels: The next one.
        steps: The next ones, over taps and steps through the channels.
        depth: The innermost ones, over a step's channels.
    """
    for kind, loops in (
        (_FILTERS, [filters]),
        (_PIXELS, [pixels]),
        (_STEPS, steps),
        (_DEPTH, depth),
    ):
        for loop in loops:
            schedule.annotate(loop, _MARK, kind)


# The first of TVM's own passes: from blocks to plain loops over buffers of their final shapes.
_LOWER = tvm.transform.Sequential(
    [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.LowerOpaqueBlock(),
    ]
)


def use_tiles(schedule: Schedule, tiles: Tiles) -> Schedule:
    """Returns a complete schedule's function as plain loops, the marked ones replaced.

    Raises:
        ValueError: The marked loops are not those of a tile's sums.
    """
    func = _LOWER(schedule.mod)["main"]
    writer = _Writer(tiles)
    body = tvm_ffi.structural_map(func.body, (tirx.AttrStmt, _with_pragma))
    body = tvm_ffi.structural_map(body, (tirx.For, writer.replaced))
    if writer.problem:
        raise ValueError(writer.problem)
    body = _configured(body, tiles, writer.products)
    return Schedule(tvm.IRModule({"main": func.with_body(body)}))


def _with_pragma(note: Any) -> Any:
    """Returns a loop with its pragma, which schedules have within it and TVM's passes around it."""
    loop = note.body
    if not isinstance(loop, tirx.For) or not loop.loop_var.same_as(note.node):
        return note
    return tirx.For(
        loop.loop_var,
        loop.min,
        loop.extent,
        loop.kind,
        loop.body,
        annotations={**loop.annotations, note.attr_key: note.value},
    )


class _Writer:
    """Writes the instructions of marked loops.

    Attributes:
        products: The variables of the loops that were written.
        problem: Why that failed: TVM does not survive exceptions in a map.
    """

    def __init__(self, tiles: Tiles) -> None:
        self._tiles = tiles
        self.products: list[Any] = []
        self.problem = ""

    def replaced(self, loop: Any) -> Any:
        """Returns the instructions in place of the outermost of the marked loops."""
        if loop.annotations.get(_MARK) != _FILTERS:
            return loop
        inner = loop
        loops: dict[str, list[Any]] = {_FILTERS: [], _PIXELS: [], _STEPS: [], _DEPTH: []}
        while isinstance(inner, tirx.For) and _MARK in inner.annotations:
            loops[str(inner.annotations[_MARK])].append(inner)
            inner = inner.body
        if isinstance(inner, tirx.IfThenElse):
            # The guard of rows behind the last one, which overlapping tasks do not have.
            inner = inner.then_case
        sums = inner.seq[-1] if isinstance(inner, tirx.SeqStmt) else inner
        if not isinstance(sums, tirx.BufferStore):
            self.problem = f"{loop.loop_var} is no loop over sums of products"
            return loop
        if int(loop.extent) != self._tiles.filters * TILE:
            self.problem = f"{loop.loop_var} is no loop over {self._tiles.filters} tiles of filters"
            return loop
        # A loop of one round is gone.
        pixels = int(loops[_PIXELS][0].extent) if loops[_PIXELS] else 1
        first, at = self._first_pixel(pixels), tirx.Var("tile", "int32")
        places = _Places(
            filters=loop.loop_var,
            pixels=loops[_PIXELS][0].loop_var if loops[_PIXELS] else None,
            depth=[one.loop_var for one in loops[_DEPTH]],
            first=first(at),
        )
        products = self._added(sums.value, places)
        for step in reversed(loops[_STEPS]):
            products = tirx.For(step.loop_var, step.min, step.extent, step.kind, products)
        zeros = [_instruction("tilezero", register) for register in range(self._tiles.sums)]
        tile = tirx.SeqStmt([*zeros, products, *self._stored(sums, places)])
        self.products.append(at)
        count = -(-pixels // (self._tiles.pixels * self._tiles.rows))
        return tirx.For(at, _number(0), _number(count), tirx.ForKind.SERIAL, tile)

    def _first_pixel(self, pixels: int) -> Callable[[Any], Any]:
        """Returns where the tiles with a number start."""
        together = self._tiles.pixels * self._tiles.rows
        if together > pixels:
            self.problem = f"tiles of {together} pixels do not fit {pixels}"
        if pixels % together == 0:
            return lambda tile: tile * together
        return lambda tile: tirx.min(tile * together, pixels - together)

    def _stored(self, sums: Any, places: _Places) -> list[Any]:
        stride = int(sums.buffer.shape[-1]) * 4
        # TVM makes a buffer as small as what it sees of it. It sees no tile, only its beginning.
        end = tirx.BufferLoad(sums.buffer, [extent - 1 for extent in sums.buffer.shape])
        return [
            tirx.Evaluate(tirx.address_of(end)),
            *(
                _instruction(
                    "tilestored64",
                    pixels * self._tiles.filters + filters,
                    places.address(sums.buffer, sums.indices, pixels * self._tiles.rows, filters),
                    stride,
                )
                for pixels, filters in self._tiles.order()
            ),
        ]

    def _added(self, value: Any, places: _Places) -> Any:
        found: list[Any] = []
        tvm_ffi.structural_walk(value, (TensorLoad, found.append))
        picture, weights = (load for load in found if str(load.source.dtype) == "uint16")
        held: dict[int, tuple[int, int]] = {}
        calls = []

        def load(register: int, factor: Any, pixels: int, filters: int, stride: int) -> None:
            if held.get(register) != (pixels, filters):
                held[register] = (pixels, filters)
                rows = pixels * self._tiles.rows
                place = places.address(factor.source, factor.indices, rows, filters)
                calls.append(_instruction("tileloadd64", register, place, stride))

        of_pixels, of_weights = self._tiles.factors()
        stride = int(picture.source.shape[-1]) * 2
        for pixels, filters in self._tiles.order():
            a = of_pixels[pixels % len(of_pixels)]
            b = of_weights[filters % len(of_weights)]
            load(a, picture, pixels, 0, stride)
            load(b, weights, 0, filters, _ROW_BYTES)
            calls.append(_instruction("tdpbf16ps", pixels * self._tiles.filters + filters, a, b))
        return _sequence(calls)


@dataclass(frozen=True, kw_only=True)
class _Places:
    """The variables of marked loops, None where there is only one round; the first pixel."""

    filters: Any
    pixels: Any
    depth: list[Any]
    first: Any

    def address(self, buffer: Any, indices: Any, pixels: int, filters: int) -> Any:
        """Returns where a tile begins in a buffer."""
        firsts = {variable: _number(0) for variable in self.depth}
        firsts[self.filters] = _number(filters * TILE)
        if self.pixels is not None:
            firsts[self.pixels] = self.first + pixels
        known = (tirx.Var, lambda variable: firsts.get(variable, variable))
        first = [tvm_ffi.structural_map(index, known) for index in indices]
        return tirx.address_of(tirx.BufferLoad(buffer, first))


def _configured(body: Any, tiles: Tiles, products: list[Any]) -> Any:
    """Returns a function's body in which each task sets the registers up and releases them."""
    found = []

    def configured_task(loop: Any) -> Any:
        if loop.kind != tirx.ForKind.PARALLEL or not _holds(loop, products):
            return loop
        found.append(loop)
        return tirx.For(
            loop.loop_var,
            loop.min,
            loop.extent,
            loop.kind,
            _with_registers(loop.body, tiles),
            annotations=loop.annotations,
        )

    changed = tvm_ffi.structural_map(body, (tirx.For, configured_task))
    if not found:
        changed = _with_registers(body, tiles)
    return tirx.AttrStmt(_number(0), "pragma_import_llvm", tvm.ir.StringImm(_ASK), changed)


def _holds(loop: Any, variables: list[Any]) -> bool:
    """Returns whether a loop holds one with one of the variables."""
    found: list[Any] = []
    tvm_ffi.structural_walk(loop.body, (tirx.For, found.append))
    return any(one.loop_var.same_as(variable) for one in found for variable in variables)


def _with_registers(body: Any, tiles: Tiles) -> Any:
    words = struct.unpack("<8q", tiles.configuration())
    sizes = tirx.decl_buffer((len(words),), "int64", name="tile_sizes", scope="local")
    stores = [
        tirx.BufferStore(sizes, tirx.IntImm("int64", word), [_number(index)])
        for index, word in enumerate(words)
    ]
    place = tirx.address_of(tirx.BufferLoad(sizes, [_number(0)]))
    ask = tirx.Evaluate(tirx.call_extern("void", "tvmdet_ask_for_tiles"))
    load = _instruction("ldtilecfg", place)
    release = _instruction("tilerelease")
    return tirx.SeqStmt([tirx.AllocBuffer(sizes), *stores, ask, load, body, release])


def _instruction(name: str, *operands: Any) -> Any:
    """Returns one instruction: registers are bytes, other numbers are strides."""
    args = []
    for index, operand in enumerate(operands):
        if not isinstance(operand, int):
            args.append(operand)
        else:
            is_stride = name in ("tileloadd64", "tilestored64") and index == 2
            args.append(tirx.IntImm("int64" if is_stride else "int8", operand))
    return tirx.Evaluate(tirx.call_llvm_intrin("void", f"llvm.x86.{name}", *args))


def _sequence(statements: list[Any]) -> Any:
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(statements)


def _number(value: int) -> Any:
    return tirx.IntImm("int32", value)
