"""The parity check of a target that this machine cannot run, on an emulated board."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tvmdet.board.detector import load_on_board
from tvmdet.board.emulator import Emulator, emulated_core, why_no_emulator
from tvmdet.board.session import BoardAddress
from tvmdet.compiler.emulated_work import pictures_within, too_much
from tvmdet.compiler.images import NamedImage
from tvmdet.compiler.manifest import Built
from tvmdet.compiler.parity_file import check_file
from tvmdet.compiler.tolerance import Tolerance
from tvmdet.errors import ArtifactError, ParityError
from tvmdet.runtime.detector import Detector
from tvmdet.targets import Target

__all__ = ["check_on_arm_emulator", "why_not_emulated"]

_PICTURES: Final = 4
"""Pictures that are compared at most: emulated, a network takes some hundred times as long."""

_MOST_FLOP: Final = 150e9
"""Of all calls: ten minutes at the 4 ns that QEMU took for an operation."""

_LIMIT_S: Final = 3600.0
_QEMU: Final = "qemu-aarch64"


def why_not_emulated(target: Target) -> str:
    """Says why a target cannot be emulated; empty when it can."""
    if target.kind != "cpu" or target.arch != "aarch64":
        return "tvmdet emulates ARM CPUs only"
    return why_no_emulator()


def check_on_arm_emulator(
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
        The certificate, whose ``emulated`` names the emulator and the core; or, where the network
        is too large to be emulated, that it was never run.

    Raises:
        ParityError: The result differs from ONNX Runtime's, or the emulated core cannot run the
            code.
        TargetError: The board does not start.
    """
    target, flop = built.target, built.kernels.flop()
    count = pictures_within(flop, _PICTURES, _MOST_FLOP)
    if not count:
        why = too_much(flop, _MOST_FLOP)
        return {"skipped": f"never run: {why}"}
    core = emulated_core(target.tvm["mcpu"])
    say(f"checking {target.name} against ONNX Runtime, emulated (slow)")
    try:
        found = check_file(
            model,
            sizes,
            built,
            pictures[:count],
            threads,
            tolerance,
            lambda path: _emulated_detector(path, target.name, core, threads),
        )
    except ArtifactError as error:  # an illegal instruction, or no end in sight
        raise ParityError(f"{target.name} under {_QEMU} -cpu {core}: {error}") from error
    return {**found, "emulated": f"{_QEMU} -cpu {core}"}


@contextmanager
def _emulated_detector(path: Path, name: str, core: str, threads: int) -> Iterator[Detector]:
    """Runs one target of a compiled file on an emulated board."""
    with Emulator(core, threads=threads, limit_s=_LIMIT_S) as board:
        address = BoardAddress(host="127.0.0.1", port=board.port)
        with load_on_board(path, address, name) as detector:
            yield detector
