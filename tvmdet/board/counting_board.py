"""An emulated board that counts: which instructions of a kernel run, how often, and what misses.

One thread, so that counts are exact and every call of the same kernel counts the same, whatever
is in its arrays (but for code that looks at the data, such as suppression). Misses repeat but for
a few lines: how a kernel's arguments lie besides its arrays depends on what ran before.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from tvmdet.board.block_counts import BasicBlock, CacheCounts, SharedCounts, basic_blocks
from tvmdet.board.count_plugin import count_plugin, why_no_counts
from tvmdet.board.emulator import Emulator, emulated_core
from tvmdet.board.instructions import is_branch
from tvmdet.board.session import BoardAddress, connect
from tvmdet.errors import TargetError
from tvmdet.targets import Target

__all__ = ["Counted", "CountingBoard"]

_UPLOADED: Final = "/conn-"
"""In the path of every file that the server keeps for a connection, and of no other."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What one call executed of a library.

    Attributes:
        blocks: Its basic blocks.
        caches_of: What missed the simulated caches, which are empty at the call's begin, by owner.
    """

    blocks: tuple[BasicBlock, ...]
    caches_of: Mapping[int, CacheCounts]

    @property
    def caches(self) -> CacheCounts:
        """What missed, whoever wanted it."""
        return CacheCounts(
            l1_misses=sum(one.l1_misses for one in self.caches_of.values()),
            l2_misses=sum(one.l2_misses for one in self.caches_of.values()),
        )


class CountingBoard:
    """An emulated board of a target's core, with one connection; use as a context manager.

    Attributes:
        core: As QEMU names it.
        address: Of its RPC server, for another connection in place of this one's.
        kill: Ends it at once, whatever it does.
    """

    def __init__(self, target: Target, *, limit_s: float = 600.0) -> None:
        """Starts it.

        Args:
            target: Whose core and caches are emulated.
            limit_s: Seconds after which it is ended, whatever it does.

        Raises:
            TargetError: Something is missing, or the board does not start.
        """
        if missing := why_no_counts():
            raise TargetError(f"instructions cannot be counted: {missing}")
        self._cleanup = contextlib.ExitStack()
        self._numbers = itertools.count()
        self.core = emulated_core(target.tvm["mcpu"])
        caches = f"l1={target.l1d_bytes},l2={target.l2_bytes}"
        with contextlib.ExitStack() as undo:
            plugin = f"{count_plugin()},match={_UPLOADED},{caches}"
            emulator = Emulator(self.core, limit_s=limit_s, plugin=plugin)
            undo.enter_context(emulator)
            self.address = BoardAddress(host="127.0.0.1", port=emulator.port)
            self.kill = emulator.kill
            self._counts = SharedCounts(emulator.plugin_file)
            undo.callback(self._counts.close)
            self._cleanup = undo.pop_all()
        self._session: Any = None

    def __enter__(self) -> CountingBoard:
        """Returns the board itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Ends the board."""
        self.close()

    def close(self) -> None:
        """Ends the board."""
        self._session = None
        self._cleanup.close()

    @property
    def crowded(self) -> bool:
        """Whether it is time for a new board: code that was counted takes room."""
        return self._counts.crowded

    def load(self, library: Path) -> Any:
        """Uploads and loads a library.

        Raises:
            TargetError: The board is gone.
        """
        name = f"k{next(self._numbers)}.so"  # a file that is loaded must not be written again
        self._connected().upload(bytearray(library.read_bytes()), name)
        module = self._session.load_module(name)
        self._session.remove(name)
        return module

    def tensors(self, arrays: Sequence[npt.NDArray[Any]]) -> list[Any]:
        """Copies arrays to the board."""
        import tvm

        device = self._connected().cpu(0)
        return [tvm.runtime.tensor(array, device) for array in arrays]

    def count(self, call: Callable[[], object], entries: Sequence[int] = ()) -> Counted:
        """Counts what a call executes of the library that it calls.

        Args:
            call: Runs something on the board.
            entries: Places in the library's file where kernels begin, ascending: blocks are owned
                by the kernel that called them.

        Raises:
            TargetError: The code is too large.
        """
        self._counts.set_entries(entries)
        self._counts.clear()
        call()
        blocks = basic_blocks(self._counts.blocks(), is_branch)
        return Counted(blocks=tuple(blocks), caches_of=self._counts.caches())

    def _connected(self) -> Any:
        if self._session is None:
            self._session = connect(self.address)
        return self._session
