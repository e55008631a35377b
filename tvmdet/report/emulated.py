"""What a compiled file executes on an ARM core that nobody has at hand: counted, never timed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from tvmdet.artifact import Artifact, TargetEntry
from tvmdet.board.count_plugin import qemu_version
from tvmdet.board.counting_board import Counted, CountingBoard
from tvmdet.board.instructions import count_instructions
from tvmdet.board.kernel_places import kernel_places
from tvmdet.board.module import BoardModule
from tvmdet.board.pipeline_model import PipelineModel, find_model, why_no_model
from tvmdet.board.prediction import predict
from tvmdet.report.file_target import target_of
from tvmdet.report.result_kernels import CountedKernel, Emulation
from tvmdet.report.serve_profile import entry_of
from tvmdet.targets import Target

__all__ = ["count_network"]

_LIMIT_S: Final = 3600.0
_REST: Final = "between kernels"


def count_network(
    artifact: Artifact,
    entry: TargetEntry,
    batch_sizes: Sequence[int],
    say: Callable[[str], None] = lambda _line: None,
) -> tuple[Emulation, ...]:
    """Runs the code for an ARM core once under QEMU and counts what each kernel executes.

    Args:
        artifact: A compiled file.
        entry: One of its targets, of aarch64.
        batch_sizes: Rows of one call, each counted by itself.
        say: Called with one line at the start of each step.

    Raises:
        TargetError: QEMU or something that it needs is missing; or a file of an earlier version
            names a target that is not known here.
        ArtifactError: The code fails under emulation.
    """
    target = target_of(artifact, entry.name)
    model = None if why_no_model() else find_model(target.tvm["mcpu"], target.tvm["mtriple"])
    library = io.BytesIO()
    artifact.copy_member(entry.library, library)
    places = kernel_places(library.getvalue())
    names = sorted(places, key=lambda name: (places[name], name))
    entries = sorted(set(places.values()))
    at = {places[name]: name for name in reversed(names)}
    facts = _facts_of(artifact, entry.name)
    found = []
    for size in batch_sizes:
        say(f"counting what {entry.name} executes at batch {size}, emulated (slow)")
        with CountingBoard(target, limit_s=_LIMIT_S) as board:
            module = BoardModule(artifact, entry, board.address)
            function, arguments = entry_of(artifact, size)
            counted = board.count(lambda: module.call(function, arguments), entries)  # noqa: B023
            module.close()
            core = board.core
        kernels = _kernels(counted, [at[place] for place in entries], places, facts, target, model)
        found.append(_emulation(kernels, core, target, model, size))
    return tuple(found)


def _facts_of(artifact: Artifact, target: str) -> Mapping[str, Any]:
    entries = {entry["name"]: entry for entry in artifact.manifest["targets"]}
    facts: Mapping[str, Any] = entries[target].get("kernels", {})
    return facts


def _kernels(
    counted: Counted,
    names: Sequence[str],
    places: Mapping[str, int],
    facts: Mapping[str, Any],
    target: Target,
    model: PipelineModel | None,
) -> list[CountedKernel]:
    kernels = []
    for owner in sorted({block.owner for block in counted.blocks}):
        blocks = [block for block in counted.blocks if block.owner == owner]
        caches = counted.caches_of[owner]
        name = names[owner] if owner >= 0 else _REST
        calls = sum(block.executed for block in blocks if block.place == places.get(name))
        known = facts.get(name, {})
        flop = known.get("flop")
        cycles = None if model is None else predict(blocks, caches, model).cycles
        instructions = count_instructions(blocks)
        # Twice as many values of half the size are multiplied at a time.
        halves = instructions.fma_f16 > instructions.fma_f32
        peak = target.flop_per_cycle_f32 * (2 if halves else 1)
        kernels.append(
            CountedKernel(
                name=name,
                calls=calls,
                instructions=instructions.to_dict(),
                l1_misses=caches.l1_misses,
                l2_misses=caches.l2_misses,
                predicted_cycles=cycles,
                least_cycles=None if flop is None else flop * calls / peak,
                flop=None if flop is None else flop * calls,
                anchor=known.get("anchor", ""),
                template=known.get("template", ""),
                knobs=known.get("knobs", {}),
                source=known.get("source", ""),
            )
        )
    kernels.sort(key=lambda one: (-(one.predicted_cycles or 0.0), -one.instructions["all"]))
    return kernels


def _emulation(
    kernels: Sequence[CountedKernel],
    core: str,
    target: Target,
    model: PipelineModel | None,
    batch_size: int,
) -> Emulation:
    how = (
        "one call with one thread; instructions of the compiled file's own code, counted by a "
        f"plugin; caches of {target.l1d_bytes >> 10} and {target.l2_bytes >> 10} KiB simulated. "
    )
    if model is None:
        how += f"No cycles are predicted: {why_no_model()}"
    else:
        how += f"Cycles are predicted by {model}, plus a fixed cost for each line that missed"
    return Emulation(
        emulator=f"{qemu_version()} -cpu {core}",
        model=target.tvm["mcpu"],
        batch_size=batch_size,
        instructions=sum(kernel.instructions["all"] for kernel in kernels),
        predicted_cycles=_sum(kernel.predicted_cycles for kernel in kernels),
        how=how,
        kernels=tuple(kernels),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    found = [value for value in known if value is not None]
    return sum(found) if len(found) == len(known) else None
