"""The parity check of a target that this machine cannot run, on an emulated board."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tvmdet.board.detector import load_on_board
from tvmdet.board.emulator import Emulator, emulated_core, why_no_emulator
from tvmdet.board.session import BoardAddress
from tvmdet.runtime.detector import Detector
from tvmdet.targets import Target

__all__ = ["EMULATED_IMAGES", "emulated_detector", "why_not_emulated"]

EMULATED_IMAGES: Final = 4
"""Pictures that are compared at most: emulated, a network takes some hundred times as long."""

_LIMIT_S: Final = 3600.0


def why_not_emulated(target: Target) -> str:
    """Says why a target cannot be emulated; empty when it can."""
    if target.kind != "cpu" or target.arch != "aarch64":
        return "tvmdet emulates ARM CPUs only"
    return why_no_emulator()


@contextmanager
def emulated_detector(path: Path, target: Target, threads: int) -> Iterator[tuple[Detector, str]]:
    """Runs one target of a compiled file on an emulated board.

    Args:
        path: A ``.tvmdet`` file.
        target: One of its targets; the emulator refuses instructions that its core lacks.
        threads: Threads of the board.

    Yields:
        The detector, and what it runs on, for the certificate.

    Raises:
        TargetError: The board does not start.
    """
    core = emulated_core(target.tvm["mcpu"])
    with Emulator(core, threads=threads, limit_s=_LIMIT_S) as board:
        address = BoardAddress(host="127.0.0.1", port=board.port)
        with load_on_board(path, address, target.name) as detector:
            yield detector, f"qemu-aarch64 -cpu {core}"
