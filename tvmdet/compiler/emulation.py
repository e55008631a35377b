"""The parity check of a target that this machine cannot run, on an emulated board."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tvmdet.board.detector import load_on_board
from tvmdet.board.emulator import Emulator, emulated_core, why_no_emulator
from tvmdet.board.session import BoardAddress
from tvmdet.compiler.images import NamedImage
from tvmdet.compiler.manifest import Built, write_file
from tvmdet.compiler.parity_file import check_loaded
from tvmdet.compiler.reference import Reference
from tvmdet.compiler.tolerance import Tolerance
from tvmdet.runtime.detector import Detector
from tvmdet.targets import Target

__all__ = ["check_on_emulated_board", "why_not_emulated"]

_PICTURES: Final = 4
"""Pictures that are compared at most: emulated, a network takes some hundred times as long."""

_LIMIT_S: Final = 3600.0


def why_not_emulated(target: Target) -> str:
    """Says why a target cannot be emulated; empty when it can."""
    if target.kind != "cpu" or target.arch != "aarch64":
        return "tvmdet emulates ARM CPUs only"
    return why_no_emulator()


def check_on_emulated_board(
    model: Any,
    sizes: Sequence[int],
    built: Built,
    pictures: Sequence[NamedImage],
    threads: int,
    tolerance: Tolerance,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Checks what a build for an ARM CPU computes, without one.

    Args:
        model: From :func:`tvmdet.import_onnx`.
        sizes: The batch buckets.
        built: What was made for the target.
        pictures: What is detected in; a few of them are used.
        threads: Of the board, and of ONNX Runtime.
        tolerance: Of the differences.
        say: Called with one line at the start.

    Returns:
        The certificate; its ``emulated`` names the emulator and the core.

    Raises:
        ParityError: The result differs from ONNX Runtime's.
        TargetError: The board does not start.
    """
    target = built.target
    reference = Reference(model, threads)
    with tempfile.TemporaryDirectory(prefix="tvmdet-") as folder:
        path = Path(folder) / "candidate.tvmdet"
        manifest = write_file(path, model, sizes, {target.name: built})
        say(f"checking {target.name} against ONNX Runtime, emulated (slow)")
        with _emulated_detector(path, target, threads) as (detector, where):
            few = pictures[:_PICTURES]
            found = check_loaded(detector, reference, manifest, sizes, few, tolerance)
            return {**found, "emulated": where}


@contextmanager
def _emulated_detector(path: Path, target: Target, threads: int) -> Iterator[tuple[Detector, str]]:
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
