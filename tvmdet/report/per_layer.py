"""Where the time of a network goes, kernel by kernel, and what is left to win."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmdet.artifact import Artifact
from tvmdet.errors import TuningError
from tvmdet.report.environments import environment_variables
from tvmdet.report.peak import Peak
from tvmdet.report.worker import Worker

__all__ = ["Layer", "LayerTable", "layer_of", "profile_layers"]

_SERVED = Path(__file__).with_name("serve_profile.py")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One kernel of a network, all its calls together.

    Attributes:
        name: Of the compiled function.
        calls: In one call of the network.
        seconds: Of all of them.
        flop: Operations of all of them, as the kernel does them (a Winograd convolution does
            fewer than the direct one); None where the file does not say.
        bytes: Of all their arguments, weights and results included.
        attainable_s: Least seconds by the roofline.
        anchor: The operator and its shape.
        template: What scheduled it.
        knobs: The decision.
        source: Where that came from: tuned, elsewhere, borrowed, near, predicted, default
            or single.
    """

    name: str
    calls: int
    seconds: float
    flop: int | None
    bytes: int
    attainable_s: float
    anchor: str = ""
    template: str = ""
    knobs: Mapping[str, int | str]
    source: str = ""

    @property
    def winnable_s(self) -> float:
        """Seconds that tuning could save at the very most."""
        return max(self.seconds - self.attainable_s, 0.0)

    @property
    def flop_per_s(self) -> float | None:
        """Operations per second; None where they or the time are not known."""
        # The quickest function of a network takes nothing, as the clock's own time is taken off.
        return None if self.flop is None or self.seconds <= 0 else self.flop / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        rate = None if self.flop_per_s is None else round(self.flop_per_s / 1e9, 2)
        return {
            "name": self.name,
            "calls": self.calls,
            "ms": round(self.seconds * 1e3, 5),
            "gflops": rate,
            "flop": self.flop,
            "bytes": self.bytes,
            "attainable_ms": round(self.attainable_s * 1e3, 5),
            "winnable_ms": round(self.winnable_s * 1e3, 5),
            "anchor": self.anchor,
            "template": self.template,
            "knobs": dict(self.knobs),
            "source": self.source,
        }


@dataclass(frozen=True, kw_only=True)
class LayerTable:
    """The profile of one compiled function.

    Attributes:
        batch_size: Rows of one call.
        whole_s: Seconds of a call that nobody watches, copies of outputs included, as all here the
            mean of the quietest quarter of the calls.
        watched_s: The same while every kernel is timed.
        built_in_s: What the virtual machine's own functions took, such as allocation.
        layers: Slowest first.
    """

    batch_size: int
    whole_s: float
    watched_s: float
    built_in_s: float
    layers: tuple[Layer, ...]

    @property
    def kernels_s(self) -> float:
        """Seconds of all kernels."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def closure(self) -> float:
        """The kernels' share of the whole."""
        return self.kernels_s / self.whole_s

    @property
    def explained(self) -> float:
        """The same with the virtual machine's own functions: what the profile adds up to."""
        return (self.kernels_s + self.built_in_s) / self.whole_s

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "batch_size": self.batch_size,
            "whole_ms": round(self.whole_s * 1e3, 5),
            "watched_ms": round(self.watched_s * 1e3, 5),
            "kernels_ms": round(self.kernels_s * 1e3, 5),
            "built_in_ms": round(self.built_in_s * 1e3, 5),
            "closure": round(self.closure, 4),
            "layers": [layer.to_dict() for layer in self.layers],
        }


def profile_layers(
    artifact: Artifact,
    target: str,
    batch_size: int,
    peak: Peak,
    *,
    rounds: int = 40,
    seconds: float = 60,
) -> LayerTable:
    """Times every kernel of a compiled file.

    Args:
        artifact: The file, with or without a head.
        target: Whose code to run.
        batch_size: One of those that the file has.
        peak: Of this machine, with the number of threads to run on.
        rounds: Calls that are timed, at most.
        seconds: After which no more calls of a slow network are timed; eight are in any case.

    Raises:
        WorkerError: The file cannot be run.
    """
    python = Path(sys.executable)
    environment = environment_variables(python)
    with Worker(python, _SERVED, threads=peak.threads, environment=environment) as worker:
        found = worker.call(
            "profile",
            artifact=str(artifact.path),
            target=target,
            batch_size=batch_size,
            threads=peak.threads,
            rounds=rounds,
            seconds=seconds,
        )
    entries = {entry["name"]: entry for entry in artifact.manifest["targets"]}
    facts = entries[target].get("kernels", {})
    layers = [
        layer_of(name, measured, facts.get(name, {}), peak)
        for name, measured in found["kernels"].items()
    ]
    return LayerTable(
        batch_size=batch_size,
        whole_s=found["whole_s"],
        watched_s=found["watched_s"],
        built_in_s=found["built_in_s"],
        layers=tuple(sorted(layers, key=lambda layer: -layer.seconds)),
    )


def _rate(template: str) -> int:
    """Returns the operations a cycle of a template, as a multiple of those of float32 vectors."""
    from tvmdet.schedules import get_template

    try:
        return get_template(template).rate
    except TuningError:  # of a file that another version compiled
        return 1


def layer_of(name: str, measured: Mapping[str, Any], facts: Mapping[str, Any], peak: Peak) -> Layer:
    """Returns one kernel with what it may hope for.

    Args:
        name: Of the compiled function.
        measured: Its ``calls``, and ``seconds`` and ``bytes`` of them all.
        facts: What the file says of it.
        peak: Of this machine.
    """
    calls = measured["calls"]
    flop = facts.get("flop")
    rate = _rate(facts.get("template", ""))
    each = peak.attainable_s((flop or 0) / rate, measured["bytes"] // calls)
    return Layer(
        name=name,
        calls=calls,
        seconds=measured["seconds"],
        flop=None if flop is None else flop * calls,
        bytes=measured["bytes"],
        attainable_s=each * calls,
        anchor=facts.get("anchor", ""),
        template=facts.get("template", ""),
        knobs=facts.get("knobs", {}),
        source=facts.get("source", ""),
    )
