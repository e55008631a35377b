"""The table of kernels that were counted under emulation."""

from __future__ import annotations

from tvmdet.counted import counted
from tvmdet.report.pages.sheets import Cell, Column, Sheet
from tvmdet.report.render_counts import counted_words, schedule_text
from tvmdet.report.result_kernels import CountedKernel, Emulation

__all__ = ["counted_sheet"]

_KERNELS = 20


def counted_sheet(counts: Emulation) -> Sheet:
    """Returns the kernels of an emulated call, those with the most predicted cycles first."""
    shown, left_out = counts.kernels[:_KERNELS], counts.kernels[_KERNELS:]
    below = [*counted_words(counts), counts.how]
    if left_out:
        rest = sum(kernel.instructions["all"] for kernel in left_out)
        below.append(
            f"{counted(len(left_out), 'more kernel')}, {rest / 1e6:,.1f} M instructions, left out"
        )
    return Sheet(
        title="Kernels, counted",
        columns=(
            Column(name="no."),
            Column(name="operator", is_number=False, is_wide=True),
            Column(name="calls"),
            Column(name="M instructions", hint="executed in all calls"),
            Column(name="multiply-adds", hint="fused, of all instructions"),
            Column(name="loads", hint="of all instructions"),
            Column(name="stores", hint="of all instructions"),
            Column(name="L1 misses", hint="thousands of lines, simulated"),
            Column(name="M cycles predicted", hint="by a model of the core: not measured"),
            Column(name="of the least", hint="over the cycles that its operations need at peak"),
            Column(name="schedule", hint="and whether it was tuned", is_number=False, is_wide=True),
        ),
        rows=tuple(_row(rank, kernel) for rank, kernel in enumerate(shown, 1)),
        below=tuple(below),
    ).without_empty_columns()


def _row(rank: int, kernel: CountedKernel) -> tuple[Cell, ...]:
    every, cycles = kernel.instructions["all"], kernel.predicted_cycles
    fused = sum(kernel.instructions[name] for name in ("fma_f32", "fma_f16", "fma_other"))
    shares = [fused, kernel.instructions["loads"], kernel.instructions["stores"]]
    ratio = cycles / kernel.least_cycles if cycles and kernel.least_cycles else None
    return (
        Cell.of(str(rank), rank),
        Cell.of(kernel.anchor or kernel.name),
        Cell.of(str(kernel.calls), kernel.calls),
        Cell.of(f"{every / 1e6:.2f}", every),
        *(Cell.of(f"{count / max(every, 1):.0%}", count / max(every, 1)) for count in shares),
        Cell.of(f"{kernel.l1_misses / 1e3:.1f}", kernel.l1_misses),
        Cell.of("" if cycles is None else f"{cycles / 1e6:.3f}", cycles),
        Cell.of("" if ratio is None else f"{ratio:.2f}x", ratio),
        Cell.of(schedule_text(kernel.template, kernel.knobs, kernel.source)),
    )
