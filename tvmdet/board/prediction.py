"""Predicted cycles of emulated code: its basic blocks on a model of the core, and its memory.

Two terms, which add up:

* **pipelines**: of each basic block what llvm-mca predicts for one execution, times how often it
  was executed under QEMU. Each block is played after itself, as the body of a loop is; a block
  that others follow costs a little more or less than that.
* **memory**: the lines that missed the simulated caches, at a fixed cost each: one cycle from the
  second cache, two from beyond. A core hides most of it beneath arithmetic. What is left was
  chosen by how well it ranks kernels where times can be had, on an x86 core
  (``tests/benchmarks/prediction_rank.py``, docs/tuning.md); the memory of a small board is slower.

The blocks that hold 99 % of the executed instructions are played; the others, some hundred that
run once or twice, are taken to need as many cycles an instruction.

Not in it: mispredicted branches, the instructions of TVM's runtime and of the C library (kernels
call them for scratch memory and threads), conflicts in the caches' sets, prefetching, and other
cores. It is one thread's work on a core that is alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tvmdet.board.block_counts import BasicBlock, CacheCounts
from tvmdet.board.instructions import InstructionCounts, count_instructions
from tvmdet.board.pipeline_model import PipelineModel

__all__ = ["Prediction", "predict", "predictor_name"]

_PLAYED: Final = 0.99
_L2_CYCLES: Final = 1
_DRAM_CYCLES: Final = 2
"""For a line of 64 bytes; see the module's text."""

_METHOD: Final = 2
"""Predictions of another method do not compare: to be raised with every change of a figure."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What one call of a kernel executes on an emulated core, and what it is predicted to cost.

    Attributes:
        instructions: Executed, by class.
        caches: Lines that missed the simulated caches.
        pipeline_cycles: Predicted with every load in the first cache.
        l2_cycles: Predicted for what comes from the second cache.
        dram_cycles: Predicted for what comes from memory.
    """

    instructions: InstructionCounts
    caches: CacheCounts
    pipeline_cycles: float
    l2_cycles: float
    dram_cycles: float

    @property
    def cycles(self) -> float:
        """All terms: predicted, not measured."""
        return self.pipeline_cycles + self.l2_cycles + self.dram_cycles

    def busiest_thread(self, share: float) -> float:
        """Predicts the cycles until all threads are done.

        Args:
            share: Of the work, what the thread does that does most. Memory is shared by all.
        """
        return (self.pipeline_cycles + self.l2_cycles) * share + self.dram_cycles


def predict(blocks: Sequence[BasicBlock], caches: CacheCounts, model: PipelineModel) -> Prediction:
    """Predicts the cycles of what was executed.

    Args:
        blocks: That were executed.
        caches: Of the same call.
        model: Of the core.

    Raises:
        TargetError: The model does not know an instruction.
    """
    instructions = count_instructions(blocks)
    played, covered = _most_of(blocks, instructions.all)
    each = model.cycles([block.instructions for block in played])
    cycles = sum(per_call * block.executed for per_call, block in zip(each, played, strict=True))
    return Prediction(
        instructions=instructions,
        caches=caches,
        pipeline_cycles=cycles / covered if covered else 0.0,
        l2_cycles=(caches.l1_misses - caches.l2_misses) * _L2_CYCLES,
        dram_cycles=caches.l2_misses * _DRAM_CYCLES,
    )


def predictor_name(model: PipelineModel) -> str:
    """Returns who predicts, as records of predictions name it: equal names compare."""
    return f"{model}, method {_METHOD}"


def _most_of(blocks: Sequence[BasicBlock], total: int) -> tuple[list[BasicBlock], float]:
    """Returns the blocks that were executed most, and the share of the instructions in them."""
    ranked = sorted(blocks, key=lambda block: (-_executed(block), block.place))
    found, held = [], 0
    for block in ranked:
        if held >= _PLAYED * total:
            break
        found.append(block)
        held += _executed(block)
    return found, held / total if total else 0.0


def _executed(block: BasicBlock) -> int:
    return block.executed * len(block.instructions)
