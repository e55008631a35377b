"""Targets as data: one TOML file per machine that tvmdet compiles for.

Code asks a :class:`Target` for a fact (vector lanes, L2 bytes, required features); no code
outside this folder and the schedule folders asks for a target's name.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tvmdet.cpus import cpuinfo
from tvmdet.errors import TargetError

__all__ = ["Precision", "Target", "get_target", "host_features", "list_targets", "resolve_target"]

Precision: TypeAlias = Literal["fp32", "bf16"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Target:
    """One machine that tvmdet compiles for.

    Attributes:
        name: File name without ``.toml``; also the folder under ``tuning_logs/``.
        description: One line for people.
        arch: As ``platform.machine()`` names it.
        rank: Of the targets that a machine can run, the one with the highest rank is best.
        tvm: The TVM target, as ``tvm.target.Target`` takes it.
        required_features: CPU flags, as ``/proc/cpuinfo`` names them, that must be there.
        vector_lanes_f32: float32 lanes of one vector register.
        vector_registers: Architectural vector registers.
        flop_per_cycle_f32: Peak float32 operations of one core per clock cycle.
        l1d_bytes: Level-1 data cache of one core.
        l2_bytes: Level-2 cache of one core.
        bf16: What products of bfloat16 need besides, ``required_features`` and TVM's ``mattr``;
            empty when the target has no instruction for them.
        precision: ``bf16`` when layers may round the factors of their products to bfloat16.
    """

    name: str
    description: str
    arch: str
    rank: int
    tvm: dict[str, Any]
    required_features: tuple[str, ...]
    vector_lanes_f32: int
    vector_registers: int
    flop_per_cycle_f32: int
    l1d_bytes: int
    l2_bytes: int
    bf16: dict[str, Any] = dataclasses.field(default_factory=dict)
    precision: Precision = "fp32"

    def at_precision(self, precision: str) -> Target:
        """Returns the target with what it may compute in.

        Args:
            precision: ``fp32``, or ``bf16``: each layer may then round the factors of its
                products to bfloat16, where that is faster. Sums are float32 in either.

        Raises:
            TargetError: The precision is unknown, or the target has no instruction for it.
        """
        if precision == self.precision:
            return self
        if precision == "bf16" and self.bf16:
            return dataclasses.replace(
                self,
                tvm={**self.tvm, "mattr": [*self.tvm.get("mattr", ()), *self.bf16["mattr"]]},
                required_features=(*self.required_features, *self.bf16["required_features"]),
                precision="bf16",
            )
        if precision == "fp32":
            return get_target(self.name)
        raise TargetError(
            f"target {self.name} cannot compute in {precision!r}; it can in "
            f"{'fp32 and bf16' if self.bf16 else 'fp32'}"
        )

    def __hash__(self) -> int:
        """Targets are told apart by name."""
        return hash(self.name)

    def missing_features(self) -> tuple[str, ...]:
        """Returns what this machine lacks to run the target; empty when it can."""
        if platform.machine() != self.arch:
            return (self.arch,)
        have = host_features()
        return tuple(f for f in self.required_features if f not in have)


@functools.cache
def host_features() -> frozenset[str]:
    """Returns the CPU flags of this machine, as the kernel names them."""
    for key, value in cpuinfo():
        if key in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


@functools.cache
def list_targets() -> tuple[Target, ...]:
    """Returns every known target, best first."""
    found = [_read(path) for path in sorted(_FOLDER.glob("*.toml"))]
    return tuple(sorted(found, key=lambda target: -target.rank))


def get_target(name: str) -> Target:
    """Returns the target of that name; ``host`` is the best that this machine can run.

    Raises:
        TargetError: No target has that name, or this machine can run none.
    """
    if name == "host":
        for target in list_targets():
            if not target.missing_features():
                return target
        raise TargetError(f"no target fits this machine ({platform.machine()}); known: {_names()}")
    for target in list_targets():
        if target.name == name:
            return target
    raise TargetError(f"unknown target {name!r}; known: host, {_names()}")


def resolve_target(target: str | Target) -> Target:
    """Returns ``target`` itself, or the target of that name.

    Raises:
        TargetError: No target has that name.
    """
    return target if isinstance(target, Target) else get_target(target)


def _names() -> str:
    return ", ".join(target.name for target in list_targets())


def _read(path: Path) -> Target:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        cpu = data["cpu"]
        return Target(
            name=path.stem,
            description=data["description"],
            arch=data["arch"],
            rank=data["rank"],
            tvm=data["tvm"],
            required_features=tuple(cpu["required_features"]),
            vector_lanes_f32=cpu["vector_lanes_f32"],
            vector_registers=cpu["vector_registers"],
            flop_per_cycle_f32=cpu["flop_per_cycle_f32"],
            l1d_bytes=cpu["l1d_bytes"],
            l2_bytes=cpu["l2_bytes"],
            bf16=data.get("bf16", {}),
        )
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise TargetError(f"target file {path.name} cannot be read: {error!r}") from error
