"""``tvmdet targets``: the machines that tvmdet compiles for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmdet.cli import output
from tvmdet.cli.json_output import Json, deliver, is_printed
from tvmdet.cli.options import Debug, Logs, check_own_target, target_again
from tvmdet.counted import counted
from tvmdet.errors import TargetError

if TYPE_CHECKING:
    from pathlib import Path

    from tvmdet.targets import Target

__all__ = ["targets"]


def targets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show one target; host is this machine.")
    ] = None,
    logs: Logs = None,
    json: Json = None,
    debug: Debug = False,
) -> int:
    """List the targets, or show one."""
    from tvmdet.targets import get_target, host_targets, list_targets

    if name is not None:
        target = get_target(name)
        check_own_target(target)
        described = {**_describe(target), **_records(target.name, logs)}
        deliver(json, described, lambda: _print_one(described))
        if not is_printed(json):
            again = target_again(target.name, (name,))
            output.next_step("tvmdet", "tune", "MODEL.onnx", "--target", again)
        return 0
    every = [_describe(target) for target in list_targets() if _is_usable(target)]
    hosts = {precision: target.name for precision, target in host_targets().items()}
    best = hosts.pop("fp32", None)
    value = {"host": best, "host_at": hosts, "targets": every}
    deliver(json, value, lambda: _print_all(every, best, hosts))
    if best is not None and not is_printed(json):
        output.next_step("tvmdet", "targets", best)
    return 0


def _is_usable(target: Target) -> bool:
    """Warns of a user's own target that cannot be compiled for: of it nothing is claimed."""
    try:
        check_own_target(target)
    except TargetError as error:
        output.warning(str(error))
        return False
    return True


def _print_all(every: Sequence[dict[str, Any]], best: str | None, hosts: Mapping[str, str]) -> None:
    labels = {name: f" (host in {precision})" for precision, name in hosts.items()}
    if best is not None:
        labels[best] = " (host)"
    output.table(
        ("target", "kind", "this machine", "description"),
        [
            (
                entry["name"],
                f"{entry['kind']}, {entry['arch']}",
                _verdict(entry) + labels.get(entry["name"], ""),
                entry["description"],
            )
            for entry in every
        ],
    )


def _describe(target: Target) -> dict[str, Any]:
    missing = target.missing_features()
    return {
        **dataclasses.asdict(target),
        "family": target.family,
        "precisions": list(target.precisions),
        "runs_here": not missing,
        "missing": list(missing),
    }


def _records(name: str, logs: Path | None) -> dict[str, int]:
    from tvmdet.tuning import default_store

    records = default_store(logs).records(name)
    measured = {record.fingerprint for record in records if record.ok and not record.predicted}
    predicted = {record.fingerprint for record in records if record.predicted} - measured
    return {
        "tuning_records": sum(not record.predicted for record in records),
        "tuned_kernels": len(measured),
        "predicted_kernels": len(predicted),
    }


def _verdict(entry: dict[str, Any]) -> str:
    if entry["runs_here"]:
        return "runs it"
    lacks = entry["missing"]
    more = f" and {len(lacks) - 3} more" if len(lacks) > 4 else ""
    return f"lacks {', '.join(lacks[:3] if more else lacks)}{more}"


def _print_one(entry: dict[str, Any]) -> None:
    name = entry["name"]
    output.facts(
        [
            ("target", name),
            ("description", entry["description"]),
            ("this machine", _verdict(entry)),
            ("kind", f"{entry['kind']}, {entry['arch']}, templates of schedules/{entry['family']}"),
            ("needs", " ".join(entry["required_features"])),
            ("rank", f"{entry['rank']} (of what a machine can run, the highest is used)"),
            *(_gpu_facts(entry, entry["gpu"]) if entry["gpu"] else _cpu_facts(entry)),
            ("precisions", ", ".join(entry["precisions"])),
            ("TVM target", entry["tvm"]),
            (
                "tuned",
                f"{counted(entry['tuned_kernels'], 'kernel')}, "
                f"{counted(entry['tuning_records'], 'measurement')}"
                + (f"; {only} only predicted" if (only := entry["predicted_kernels"]) else "")
                + (f"; for others, as {other}" if (other := entry["records"]) != name else ""),
            ),
        ]
    )


def _cpu_facts(entry: dict[str, Any]) -> list[tuple[str, object]]:
    dot = "has dot products of bytes" if entry["int8_dot"] else "no dot products of bytes"
    return [
        ("vectors", f"{entry['vector_registers']} of {entry['vector_lanes_f32']} float32; {dot}"),
        ("peak", f"{entry['flop_per_cycle_f32']} float32 operations per core and cycle"),
        ("caches", f"L1d {entry['l1d_bytes'] >> 10} KiB, L2 {entry['l2_bytes'] >> 10} KiB"),
    ]


def _gpu_facts(entry: dict[str, Any], gpu: dict[str, Any]) -> list[tuple[str, object]]:
    per_cycle = {
        "float32": entry["flop_per_cycle_f32"],
        "tf32": gpu["flop_per_cycle_tf32"],
        "fp16": gpu["flop_per_cycle_f16"],
        "bf16": gpu["flop_per_cycle_bf16"],
    }
    clocks = gpu["multiprocessors"] * gpu["clock_hz"] / 1e12
    rates = [f"{name} {rate * clocks:.0f}" for name, rate in per_cycle.items() if rate]
    return [
        ("GPU", f"sm_{gpu['compute_capability']}, {gpu['multiprocessors']} multiprocessors"),
        ("peak", f"{', '.join(rates)} TFLOP/s; memory {gpu['memory_bytes_per_s'] / 1e9:.0f} GB/s"),
        (
            "on chip",
            f"shared memory {gpu['shared_bytes_per_block'] >> 10} KiB a block, L1 "
            f"{entry['l1d_bytes'] >> 10} KiB, L2 {entry['l2_bytes'] >> 20} MiB",
        ),
    ]
