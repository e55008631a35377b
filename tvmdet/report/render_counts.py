"""Tables of instructions that were counted under emulation, for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvmdet.report.result_kernels import CountedKernel, Emulation

__all__ = ["Grid", "counted_grid", "counted_words", "schedule_text"]

_UNTUNED = ("elsewhere", "borrowed", "near", "predicted", "default")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One table.

    Attributes:
        title: A line above.
        columns: Headings.
        rows: One text per column.
        words: Columns of text; all others are numbers.
        below: Lines under it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[str, ...] = ()
    below: tuple[str, ...] = ()


def counted_grid(counts: Emulation) -> Grid:
    """Returns the kernels of an emulated call, those with the most cycles first."""
    total = counts.predicted_cycles or 0.0
    return Grid(
        title=f"kernels, batch {counts.batch_size}: counted under {counts.emulator}, never timed",
        columns=(
            "kernel",
            "calls",
            "M instructions",
            "multiply-adds",
            "loads",
            "stores",
            "M cycles predicted",
            "share",
            "of the least",
            "schedule",
            "operator",
        ),
        rows=tuple(_row(kernel, total) for kernel in counts.kernels),
        words=("kernel", "schedule", "operator"),
        below=(*counted_words(counts), counts.how),
    )


def counted_words(counts: Emulation) -> list[str]:
    """Says what all kernels come to together."""
    told = f"{counts.instructions / 1e6:,.1f} M instructions in one call"
    if not counts.predicted_cycles:
        return [told]
    told += f"; {counts.predicted_cycles / 1e6:,.1f} M cycles predicted for one {counts.model} core"
    known = [kernel for kernel in counts.kernels if kernel.least_cycles is not None]
    least = sum(kernel.least_cycles or 0.0 for kernel in known)
    words = (
        f"the operations alone need {least / 1e6:,.1f} M cycles at the core's peak, "
        f'{least / counts.predicted_cycles:.0%} of that: "of the least" is the ratio by kernel'
    )
    return [told, words]


def _row(kernel: CountedKernel, total: float) -> tuple[str, ...]:
    every, cycles = kernel.instructions["all"], kernel.predicted_cycles
    fused = sum(kernel.instructions[name] for name in ("fma_f32", "fma_f16", "fma_other"))
    ratio = cycles / kernel.least_cycles if cycles and kernel.least_cycles else None
    return (
        kernel.name,
        str(kernel.calls),
        f"{every / 1e6:.3f}",
        f"{fused / max(every, 1):.1%}",
        f"{kernel.instructions['loads'] / max(every, 1):.1%}",
        f"{kernel.instructions['stores'] / max(every, 1):.1%}",
        "" if cycles is None else f"{cycles / 1e6:.3f}",
        f"{cycles / total:.1%}" if cycles is not None and total else "",
        "" if ratio is None else f"{ratio:.2f}x",
        schedule_text(kernel.template, kernel.knobs, kernel.source),
        kernel.anchor,
    )


def schedule_text(template: str, knobs: Mapping[str, Any], source: str) -> str:
    """Writes a decision, and where it comes from unless it was tuned."""
    if not template:
        return "?"
    listed = ", ".join(f"{name}={value}" for name, value in knobs.items())
    return f"{template}({listed})" + (f" {source}" if source in _UNTUNED else "")
