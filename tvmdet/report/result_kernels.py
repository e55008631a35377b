"""Parts of a result: kernels, timed where they run or counted under emulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tvmdet.report.result_quantities import Amount, Count, Duration, Positive

__all__ = [
    "CountedKernel",
    "Emulation",
    "Kernel",
    "Member",
    "Profile",
]


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel of the network, all its calls together.

    Attributes:
        name: Of the compiled function.
        calls: In one call of the network.
        ms: Of all of them.
        gflops: Operations per second.
        flop: Operations of all of them.
        bytes: Of all their arguments.
        attainable_ms: Least time by the roofline.
        winnable_ms: What tuning could save at the very most.
        anchor: The operator and its shape.
        template: What scheduled it.
        knobs: The decision.
        source: Where that came from: tuned, elsewhere, borrowed, near, predicted, default
            or single.
    """

    name: str
    calls: Count
    ms: Duration
    gflops: Amount | None
    flop: Amount | None
    bytes: Count
    attainable_ms: Duration
    winnable_ms: Duration
    anchor: str = ""
    template: str = ""
    knobs: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Where the time of one compiled function goes.

    Attributes:
        batch_size: Rows of one call.
        whole_ms: Of a call that nobody watches; as all here, the mean of the quietest quarter.
        watched_ms: The same while every kernel is timed.
        kernels_ms: All kernels added up.
        built_in_ms: The virtual machine's own functions, such as allocation.
        closure: The kernels' share of the whole.
        layers: Slowest first.
    """

    batch_size: Positive
    whole_ms: Duration
    watched_ms: Duration
    kernels_ms: Duration
    built_in_ms: Duration
    closure: Amount
    layers: tuple[Kernel, ...]


@dataclass(frozen=True, kw_only=True)
class CountedKernel:
    """What one kernel executes on an emulated CPU, all its calls together.

    Attributes:
        name: Of the compiled function.
        calls: In one call of the network.
        instructions: Executed, by class: ``all``, ``fma_f32``, ``loads`` and others.
        l1_misses: Lines that were not in the simulated first cache.
        l2_misses: Those of them that were not in the second either.
        predicted_cycles: By the static model and the misses; null where there is no model.
        least_cycles: Those that its operations need at the core's peak rate; null where the file
            does not say how many they are.
        flop: Operations, as the kernel does them.
        anchor: The operator and its shape.
        template: What scheduled it.
        knobs: The decision.
        source: Where that came from: tuned, elsewhere, borrowed, near, predicted, default
            or single.
    """

    name: str
    calls: Count
    instructions: Mapping[str, Count]
    l1_misses: Count
    l2_misses: Count
    predicted_cycles: Amount | None
    least_cycles: Amount | None
    flop: Count | None
    anchor: str = ""
    template: str = ""
    knobs: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Emulation:
    """What an emulated CPU counts. It is no latency, and none can be had from it.

    Attributes:
        emulator: With its version.
        model: The CPU whose cycles are predicted, such as ``cortex-a76``.
        batch_size: Rows of one call.
        instructions: Executed in one call.
        predicted_cycles: By the static model of the CPU's pipelines; null where there is none.
        how: How both were found.
        kernels: The same by kernel, the most cycles first; empty where they were not told apart.
    """

    emulator: str
    model: str
    batch_size: Positive
    instructions: Count
    predicted_cycles: Amount | None = None
    how: str = ""
    kernels: tuple[CountedKernel, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Member:
    """One target that the compiled file holds, and whether it was run.

    Attributes:
        target: Its name.
        arch: As ``platform.machine()`` names it.
        state: ``measured`` is the one that the tables are of. ``emulated`` has instruction counts
            and never a latency. ``not run`` has nothing.
        reason: Why it was not measured.
        bytes: Of its library.
        emulation: Counts of an emulated run; null unless ``state`` is ``emulated``.
    """

    target: str
    arch: str
    state: Literal["measured", "emulated", "not run"]
    reason: str = ""
    bytes: Count | None = None
    emulation: tuple[Emulation, ...] = ()
