"""A build for a GPU that is not here: its kernels are emulated and checked against ONNX Runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

from tvmdet.compiler.emulated_library import build_emulated_library
from tvmdet.compiler.emulated_work import pictures_within, too_much
from tvmdet.compiler.images import NamedImage
from tvmdet.compiler.manifest import Built
from tvmdet.compiler.parity_file import check_file
from tvmdet.compiler.tolerance import Tolerance
from tvmdet.cuda.emulator import find_compiler
from tvmdet.errors import ParityError
from tvmdet.targets import get_target

__all__ = ["MOST_FLOP", "NEVER_RUN", "check_on_cuda_emulator"]

MOST_FLOP: Final = 10e9
"""Of all calls; emulating more would take longer than minutes."""

NEVER_RUN: Final = "never run on a GPU"

_PICTURES = 2


def check_on_cuda_emulator(
    model: Any,
    sizes: Sequence[int],
    built: Built,
    pictures: Sequence[NamedImage],
    threads: int,
    tolerance: Tolerance,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Checks what a build for a GPU computes, without one.

    Args:
        model: From :func:`tvmdet.import_onnx`.
        sizes: The batch buckets.
        built: What was made for the GPU.
        pictures: What is detected in; a few of them are used.
        threads: Of the host's part; the emulation has one.
        tolerance: Of the differences.
        say: Called with one line at the start of each step.

    Returns:
        The certificate, with ``emulated`` set; or, where the network is too large to be emulated,
        or there is no g++, why it was never checked.

    Raises:
        ParityError: The result differs from ONNX Runtime's.
        ModelError: The emulation does not compile.
    """
    if find_compiler() is None:
        return {"skipped": f"{NEVER_RUN} and never checked: g++ is not installed to emulate it"}
    name = built.target.name
    flop = built.kernels.flop()
    count = pictures_within(flop, _PICTURES, MOST_FLOP)
    if not count:
        why = too_much(flop, MOST_FLOP)
        return {
            "skipped": f"{NEVER_RUN} and never checked: {why}; compile where the GPU is to check"
        }
    say(f"compiling an emulation of {name}'s kernels for this CPU")
    emulated = dataclasses.replace(
        built,
        target=get_target("host"),
        library=build_emulated_library(built.kernels.module, built.target),
    )
    say(f"checking {name} against ONNX Runtime, emulated (slow)")
    try:
        found = check_file(model, sizes, emulated, pictures[:count], threads, tolerance)
    except ParityError as error:
        raise ParityError(f"{name}, emulated on the CPU: {error}") from error
    return {**found, "emulated": f"an emulator on the CPU, {NEVER_RUN}"}
