"""Classes of AArch64 instructions, told by their bits.

Sources: Arm Architecture Reference Manual for A-profile, C4.1 (the top-level encodings) and the
encodings of each instruction in C7.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final

from tvmdet.board.block_counts import BasicBlock

__all__ = ["InstructionCounts", "count_instructions", "is_branch", "multiply_adds"]

# Mask, value, type of what is multiplied. By type: vectors, then by element, then scalars.
_MULTIPLY_ADDS: Final = (
    (0xBFE0FC00, 0x0E20CC00, "f32"),  # FMLA, vectors of single precision
    (0xBFE0FC00, 0x0EA0CC00, "f32"),  # FMLS
    (0xBFC0B400, 0x0F801000, "f32"),  # FMLA and FMLS by element
    (0xFFC0B400, 0x5F801000, "f32"),  # the same on scalars
    (0xFFC00000, 0x1F000000, "f32"),  # FMADD, FMSUB, FNMADD, FNMSUB
    (0xFFC00000, 0x1F200000, "f32"),
    (0xBF60FC00, 0x0E400C00, "f16"),
    (0xBFC0B400, 0x0F001000, "f16"),
    (0xFFC0B400, 0x5F001000, "f16"),
    (0xFFC00000, 0x1FC00000, "f16"),
    (0xBF60FC00, 0x0E20EC00, "f16"),  # FMLAL: products of half, sums of single precision
    (0xBF60FC00, 0x2E20CC00, "f16"),  # FMLAL2
    (0xBFC0B400, 0x0F800000, "f16"),  # by element
    (0xBFC0B400, 0x2F808000, "f16"),
    (0xBFE0FC00, 0x0E60CC00, "f64"),
    (0xBFE0FC00, 0x0EE0CC00, "f64"),
    (0xBFC0B400, 0x0FC01000, "f64"),
    (0xFFC0B400, 0x5FC01000, "f64"),
    (0xFFC00000, 0x1F400000, "f64"),
    (0xFFC00000, 0x1F600000, "f64"),
    (0x9FE0FC00, 0x0E809400, "i8"),  # SDOT, UDOT
    (0x9FC0F400, 0x0F80E000, "i8"),  # by element
    (0xBFE0FC00, 0x0E809C00, "i8"),  # USDOT
    (0xBF40F400, 0x0F00F000, "i8"),  # USDOT and SUDOT by element
    (0xDFE0F400, 0x4E80A400, "i8"),  # SMMLA, UMMLA, USMMLA
    (0xBFE0FC00, 0x2E40FC00, "bf16"),  # BFDOT
    (0xFFE0FC00, 0x6E40EC00, "bf16"),  # BFMMLA
    (0xBFE0FC00, 0x2EC0FC00, "bf16"),  # BFMLALB, BFMLALT
    (0xBF40F400, 0x0F40F000, "bf16"),  # BFDOT, BFMLALB and BFMLALT by element
    (0x9F20FC00, 0x0E209400, "int"),  # MLA, MLS
    (0xBF00B400, 0x2F000000, "int"),  # by element
    (0x9F20DC00, 0x0E208000, "int"),  # SMLAL, SMLSL, UMLAL, UMLSL
    (0x9F00B400, 0x0F002000, "int"),  # by element
)


def _word(code: bytes) -> int:
    return int.from_bytes(code, "little")


def multiply_adds(code: bytes) -> str:
    """Returns the type that an instruction multiplies and adds; empty for any other."""
    word = _word(code)
    return next((kind for mask, value, kind in _MULTIPLY_ADDS if word & mask == value), "")


def is_branch(code: bytes) -> bool:
    """Whether an instruction may go elsewhere than to the next one: jumps, calls, returns."""
    word = _word(code)
    return (word >> 26) & 7 == 5 and (word >> 22) & 0x3FF != 0x354  # less the system instructions


@dataclass(frozen=True, kw_only=True)
class InstructionCounts:
    """Instructions that were executed, by class; a class may be part of another.

    Attributes:
        all: Every instruction.
        fma_f32: Fused multiplications and additions of float32, a vector or a scalar each.
        fma_f16: Of float16.
        fma_other: Of other types; byte dot products are among them.
        other_vector: Other vector and floating-point instructions.
        loads: Of any size; a pair counts once.
        stores: Of any size; a pair counts once.
        branches: Jumps, calls and returns.
    """

    all: int = 0
    fma_f32: int = 0
    fma_f16: int = 0
    fma_other: int = 0
    other_vector: int = 0
    loads: int = 0
    stores: int = 0
    branches: int = 0

    @property
    def fma(self) -> int:
        """Fused multiplications and additions of all types."""
        return self.fma_f32 + self.fma_f16 + self.fma_other

    def to_dict(self) -> dict[str, int]:
        """Returns plain JSON values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def count_instructions(blocks: Iterable[BasicBlock]) -> InstructionCounts:
    """Adds up the instructions of blocks by class."""
    totals = {field.name: 0 for field in fields(InstructionCounts)}
    for block in blocks:
        for code in block.instructions:
            totals["all"] += block.executed
            name = _class_of(code)
            if name:
                totals[name] += block.executed
    return InstructionCounts(**totals)


def _class_of(code: bytes) -> str:
    word = _word(code)
    group = (word >> 25) & 15
    if group & 7 == 7:
        kind = multiply_adds(code)
        if not kind:
            return "other_vector"
        return f"fma_{kind}" if kind in ("f32", "f16") else "fma_other"
    if group & 5 == 4:
        return _memory_class(word)
    return "branches" if is_branch(code) else ""


def _memory_class(word: int) -> str:
    """Tells loads from stores.

    Most have a bit L at 22. Single registers have ``opc`` at 22 and 23 instead: 0 stores, and so
    does 2 of vector registers, a whole one. Literals are only loaded; PRFM is counted as a load.
    """
    kind, wide = (word >> 28) & 3, (word >> 24) & 1
    if kind == 1 and not wide:
        return "loads"
    if kind & 1:
        vector, opc = (word >> 26) & 1, (word >> 22) & 3
        return "stores" if opc == 0 or (vector and opc == 2) else "loads"
    return "loads" if (word >> 22) & 1 else "stores"
