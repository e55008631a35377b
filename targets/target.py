"""What tvmdet knows of a machine that it compiles for."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from tvmdet.targets import machine

from tvmdet import gpus
from tvmdet.errors import TargetError

__all__ = ["GpuFacts", "Kind", "Precision", "Target"]

Kind: TypeAlias = Literal["cpu", "cuda"]
Precision: TypeAlias = Literal["fp32", "bf16", "fp16", "tf32"]

_TEMPLATES_FOR = {"x86": ("bf16",), "arm": ("fp16",), "cuda": ("fp16", "tf32")}
"""By family, the precisions other than float32 that its templates compute in."""


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """What only a GPU has. Rates are those of one multiprocessor.

    Attributes:
        compute_capability: Major version times 10 plus minor version: 90 is sm_90.
        multiprocessors: Of the card that the file describes.
        clock_hz: Of the multiprocessors, boosted.
        memory_bytes: Of the card.
        memory_bytes_per_s: Peak rate of the card's memory.
        warp_size: Threads that run in step.
        registers_per_multiprocessor: 32-bit registers.
        threads_per_multiprocessor: Threads that can be resident.
        shared_bytes_per_block: Shared memory of one block at most, after opting in.
        flop_per_cycle_f16: Dense tensor-core operations on float16, summed in float32; 0 for none.
        flop_per_cycle_bf16: The same on bfloat16.
        flop_per_cycle_tf32: The same on float32 rounded to 10 bits of mantissa.
    """

    compute_capability: int
    multiprocessors: int
    clock_hz: int
    memory_bytes: int
    memory_bytes_per_s: int
    warp_size: int
    registers_per_multiprocessor: int
    threads_per_multiprocessor: int
    shared_bytes_per_block: int
    flop_per_cycle_f16: int
    flop_per_cycle_bf16: int
    flop_per_cycle_tf32: int


@dataclass(frozen=True, kw_only=True)
class Target:
    """One machine that tvmdet compiles for.

    Attributes:
        name: File name without ``.toml``.
        description: One line for people.
        kind: What computes: the ``cpu``, or a GPU through ``cuda``.
        arch: Of the CPU that the program runs on, as ``platform.machine()`` names it.
        rank: Of the targets that a machine can run, the one with the highest rank is best.
        tvm: The TVM target, as ``tvm.target.Target`` takes it.
        required_features: What the machine must have: CPU flags as ``/proc/cpuinfo`` names them,
            and ``sm_90`` and the like for a GPU.
        vector_lanes_f32: float32 lanes of one vector register; of a GPU, of one memory access of
            a thread.
        vector_registers: Architectural vector registers; of a GPU, registers that one thread can
            have.
        flop_per_cycle_f32: Peak float32 operations of one core, or of one multiprocessor without
            its tensor cores, per clock cycle.
        l1d_bytes: Level-1 data cache of one core or multiprocessor.
        l2_bytes: Level-2 cache of one core, or of the whole GPU.
        clock_hz: Of one core; 0 where the file does not say.
        bf16: What products of bfloat16 need besides, ``required_features`` and TVM's ``mattr``;
            empty when the target has no instruction for them.
        fp16: The same for arithmetic on float16.
        tf32: The same for products of float32 rounded to 10 bits of mantissa.
        int8_dot: The same for dot products of bytes.
        gpu: What only a GPU has; None for a CPU.
        records: A target whose tuning records speak for it where it has none of its own; itself by
            default.
        named_only: Whether it is compiled for only when it is named: ``host`` does not mean it.
        host_at: Precisions in which ``host`` means it all the same.
        file: Of a user's own target, the path; empty for one that comes with tvmdet.
        also_called: Machines that it is right for, each with what else people type for it: no names
            of the target, which is offered where one of these is unknown.
        precision: ``bf16``, ``fp16`` or ``tf32`` when layers may round the factors of their
            products so.
    """

    name: str
    description: str
    kind: Kind = "cpu"
    arch: str
    rank: int
    tvm: dict[str, Any]
    required_features: tuple[str, ...]
    vector_lanes_f32: int
    vector_registers: int
    flop_per_cycle_f32: int
    l1d_bytes: int
    l2_bytes: int
    clock_hz: int = 0
    bf16: dict[str, Any] = dataclasses.field(default_factory=dict)
    fp16: dict[str, Any] = dataclasses.field(default_factory=dict)
    tf32: dict[str, Any] = dataclasses.field(default_factory=dict)
    int8_dot: dict[str, Any] = dataclasses.field(default_factory=dict)
    gpu: GpuFacts | None = None
    records: str = ""
    named_only: bool = False
    host_at: tuple[str, ...] = ()
    file: str = dataclasses.field(default="", compare=False)
    also_called: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        """A target has its own records unless it is told of others."""
        if not self.records:
            object.__setattr__(self, "records", self.name)

    def __hash__(self) -> int:
        """Targets are told apart by name."""
        return hash(self.name)

    @property
    def family(self) -> str:
        """The family of schedule templates: ``cuda``, ``x86``, ``arm``, or the architecture."""
        if self.kind == "cuda":
            return "cuda"
        return {"x86_64": "x86", "aarch64": "arm"}.get(self.arch, self.arch)

    @property
    def precisions(self) -> tuple[str, ...]:
        """What the target can compute in, and has templates for."""
        return ("fp32", *(p for p in _TEMPLATES_FOR.get(self.family, ()) if getattr(self, p)))

    @property
    def has_amx(self) -> bool:
        """Whether its code may use matrix tiles of bfloat16, Intel AMX."""
        return "+amx-bf16" in self.tvm.get("mattr", ())

    def at_precision(self, precision: str) -> Target:
        """Returns the target with what it may compute in.

        Args:
            precision: ``fp32``, or one of ``bf16``, ``fp16`` and ``tf32``: each layer may then
                round the factors of its products to that, where it is faster.

        Raises:
            TargetError: The precision is unknown, or the target has no instruction or no templates
                for it.
        """
        if precision == self.precision:
            return self
        if precision not in self.precisions:
            raise TargetError(
                f"target {self.name} cannot compute in {precision!r}; it can in "
                f"{' and '.join(self.precisions)}"
            )
        plain = self._without_precision()
        if precision == "fp32":
            return plain
        needs = getattr(self, precision)
        tvm = dict(plain.tvm)
        if needs["mattr"]:
            tvm["mattr"] = [*plain.tvm.get("mattr", ()), *needs["mattr"]]
        return dataclasses.replace(
            plain,
            tvm=tvm,
            required_features=(*plain.required_features, *needs["required_features"]),
            precision=precision,  # type: ignore[arg-type]
        )

    def _without_precision(self) -> Target:
        if self.precision == "fp32":
            return self
        needs, tvm = getattr(self, self.precision), dict(self.tvm)
        if needs["mattr"]:
            tvm["mattr"] = tvm["mattr"][: -len(needs["mattr"])]
        added = len(needs["required_features"])
        kept = self.required_features[: len(self.required_features) - added]
        return dataclasses.replace(self, tvm=tvm, required_features=kept, precision="fp32")

    def missing_features(self) -> tuple[str, ...]:
        """Returns what this machine lacks to run the target; empty when it can.

        Flags as ``/proc/cpuinfo`` names them; then, for a GPU, ``sm_90`` and the like where there
        is none that runs it, or the driver that is too old.
        """
        if platform.machine() != self.arch:
            return (self.arch,)
        have = machine.host_features()
        sm = f"sm_{self.gpu.compute_capability}" if self.gpu else ""
        missing = [f for f in self.required_features if f not in have and f != sm]
        if sm and (on_gpu := gpus.find_gpus().missing(gpus.GpuNeeds(sm=sm))):
            missing.append(on_gpu)
        return tuple(missing)
