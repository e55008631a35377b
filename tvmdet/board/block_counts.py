"""What QEMU's plugin has counted: the memory that it shares, and the basic blocks in it.

QEMU translates code in blocks of its own, which begin wherever a jump has led and may overlap.
What is exact about them is how often each instruction was executed: as often as all blocks that
hold it. Basic blocks are made of that anew.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tvmdet.counted import counted
from tvmdet.errors import TargetError

__all__ = ["BasicBlock", "CacheCounts", "SharedCounts", "SourceBlock", "basic_blocks"]

_MAGIC: Final = 0x6B6C6274
_HEAD: Final = struct.Struct("<5Q")
_RECORD: Final = struct.Struct("<6Q")
_ENTRIES: Final = 8192
_MISSES_AT: Final = _HEAD.size + 8 * _ENTRIES
_RECORDS_AT: Final = _MISSES_AT + 16 * (_ENTRIES + 1)
_GENERATION_AT: Final = 3 * 8
_ENTRY_COUNT_AT: Final = 4 * 8
_EXECUTED: Final = 2 * 8
_FULL: Final = 0.6


@dataclass(frozen=True, kw_only=True)
class SourceBlock:
    """One block as QEMU has translated it.

    Attributes:
        place: Offset of its first instruction in the library's file.
        executed: How often it ran.
        owner: Index of the entry that was called last when it first ran; -1 before the first.
        instructions: The bytes of each.
    """

    place: int
    executed: int
    owner: int
    instructions: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class BasicBlock:
    """Instructions that are executed one after the other, and all as often.

    Attributes:
        place: Offset of the first in the library's file.
        executed: How often they ran.
        owner: As that of :class:`SourceBlock`.
        instructions: The bytes of each.
    """

    place: int
    executed: int
    owner: int
    instructions: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class CacheCounts:
    """What went through the simulated caches; zeros where none were asked for.

    Attributes:
        l1_misses: Lines of 64 bytes that were not in the first cache when they were wanted.
        l2_misses: Those of them that were not in the second either.
    """

    l1_misses: int = 0
    l2_misses: int = 0


class SharedCounts:
    """The file that the plugin writes; use it only while the emulated program waits."""

    def __init__(self, path: Path) -> None:
        """Maps the file.

        Raises:
            TargetError: The plugin has not written it.
        """
        try:
            with path.open("r+b") as file:
                self._memory = mmap.mmap(file.fileno(), 0)
        except (OSError, ValueError) as error:
            raise TargetError(f"QEMU's plugin has not written {path}: {error}") from error
        if self._head()[0] != _MAGIC:
            raise TargetError(f"{path} is not what QEMU's plugin writes")

    def close(self) -> None:
        """Ends the use of the file."""
        self._memory.close()

    @property
    def crowded(self) -> bool:
        """Whether the emulator should be started anew before there is no room left."""
        return self._head()[1] > _FULL * (len(self._memory) - _RECORDS_AT)

    def set_entries(self, places: Sequence[int]) -> None:
        """Says where functions begin that own what they call.

        Args:
            places: Offsets in the library's file, ascending.

        Raises:
            TargetError: They are too many.
        """
        if len(places) > _ENTRIES:
            raise TargetError(f"{len(places)} kernels are too many to count ({_ENTRIES} at most)")
        struct.pack_into(f"<{len(places)}Q", self._memory, _HEAD.size, *places)
        struct.pack_into("<Q", self._memory, _ENTRY_COUNT_AT, len(places))

    def clear(self) -> None:
        """Sets all counts to zero and empties the simulated caches."""
        for at in self._records():
            struct.pack_into("<Q", self._memory, at + _EXECUTED, 0)
        generation = self._head()[3] + 1
        struct.pack_into("<Q", self._memory, _GENERATION_AT, generation)
        self._memory[_MISSES_AT:_RECORDS_AT] = bytes(_RECORDS_AT - _MISSES_AT)

    def caches(self) -> dict[int, CacheCounts]:
        """Returns what missed the caches since the last :meth:`clear`, by owner."""
        owners = 1 + self._head()[4]
        found = struct.unpack_from(f"<{2 * owners}Q", self._memory, _MISSES_AT)
        return {
            owner - 1: CacheCounts(l1_misses=found[2 * owner], l2_misses=found[2 * owner + 1])
            for owner in range(owners)
        }

    def blocks(self) -> list[SourceBlock]:
        """Returns the blocks that were executed since the last :meth:`clear`.

        Raises:
            TargetError: There were more than there is room for.
        """
        if lost := self._head()[2]:
            raise TargetError(
                f"the code is too large to be counted: {counted(lost, 'block')} too many"
            )
        found = []
        for at in self._records():
            _, place, executed, owner, count, _ = _RECORD.unpack_from(self._memory, at)
            if not executed:
                continue
            at += _RECORD.size
            sizes = self._memory[at : at + count]
            at += count
            instructions = []
            for size in sizes:
                instructions.append(self._memory[at : at + size])
                at += size
            found.append(
                SourceBlock(
                    place=place,
                    executed=executed,
                    owner=owner - 1,
                    instructions=tuple(instructions),
                )
            )
        return found

    def _head(self) -> tuple[int, ...]:
        return _HEAD.unpack_from(self._memory)

    def _records(self) -> Iterator[int]:
        at, end = _RECORDS_AT, _RECORDS_AT + self._head()[1]
        while at < end:
            yield at
            at += int.from_bytes(self._memory[at : at + 8], "little")


def basic_blocks(
    blocks: Sequence[SourceBlock], is_branch: Callable[[bytes], bool]
) -> list[BasicBlock]:
    """Returns the basic blocks of one library, by place.

    Args:
        blocks: Of one library, in any order; they may overlap.
        is_branch: Whether an instruction may go elsewhere than to the next.
    """
    counts: dict[int, int] = {}
    found: dict[int, tuple[bytes, int]] = {}
    for block in blocks:
        place = block.place
        for code in block.instructions:
            counts[place] = counts.get(place, 0) + block.executed
            found[place] = (code, block.owner)
            place += len(code)
    made: list[BasicBlock] = []
    run: list[bytes] = []
    start = end = executed = owner = -1

    def finish() -> None:
        if run:
            made.append(
                BasicBlock(place=start, executed=executed, owner=owner, instructions=tuple(run))
            )
            run.clear()

    for place in sorted(counts):
        code, by = found[place]
        if place != end or counts[place] != executed or by != owner:
            finish()
        if not run:
            start, executed, owner = place, counts[place], by
        run.append(code)
        end = place + len(code)
        if is_branch(code):
            finish()
    finish()
    return made
