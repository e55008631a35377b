"""``tvmdet targets``: the machines that tvmdet compiles for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmdet.cli import output
from tvmdet.cli.options import Debug, Json, Logs

if TYPE_CHECKING:
    from pathlib import Path

    from tvmdet.targets import Target

__all__ = ["targets"]


def targets(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show one target; host is this machine.")
    ] = None,
    logs: Logs = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """List the targets, or show one."""
    from tvmdet.targets import get_target, list_targets

    if name is not None:
        described = {**_describe(get_target(name)), **_records(get_target(name).name, logs)}
        if json:
            output.print_json(described)
        else:
            _print_one(described)
        return 0
    every = [_describe(target) for target in list_targets()]
    best = next((entry["name"] for entry in every if entry["runs_here"]), None)
    if json:
        output.print_json({"host": best, "targets": every})
        return 0
    output.table(
        ("target", "this machine", "lanes", "description"),
        [
            (
                entry["name"],
                _verdict(entry) + (" (host)" if entry["name"] == best else ""),
                entry["vector_lanes_f32"],
                entry["description"],
            )
            for entry in every
        ],
        right=("lanes",),
    )
    if best is not None:
        output.next_step("tvmdet", "targets", best)
    return 0


def _describe(target: Target) -> dict[str, Any]:
    missing = target.missing_features()
    return {**dataclasses.asdict(target), "runs_here": not missing, "missing": list(missing)}


def _records(name: str, logs: Path | None) -> dict[str, int]:
    from tvmdet.tuning import default_store

    records = default_store(logs).records(name)
    kernels = {record.fingerprint for record in records if record.ok}
    return {"tuning_records": len(records), "tuned_kernels": len(kernels)}


def _verdict(entry: dict[str, Any]) -> str:
    return "runs it" if entry["runs_here"] else f"lacks {', '.join(entry['missing'])}"


def _print_one(entry: dict[str, Any]) -> None:
    output.facts(
        [
            ("target", entry["name"]),
            ("description", entry["description"]),
            ("this machine", _verdict(entry)),
            ("architecture", entry["arch"]),
            ("needs", " ".join(entry["required_features"])),
            ("rank", f"{entry['rank']} (of what a machine can run, the highest is used)"),
            ("vectors", f"{entry['vector_registers']} of {entry['vector_lanes_f32']} float32"),
            ("peak", f"{entry['flop_per_cycle_f32']} float32 operations per core and cycle"),
            ("caches", f"L1d {entry['l1d_bytes'] >> 10} KiB, L2 {entry['l2_bytes'] >> 10} KiB"),
            ("TVM target", entry["tvm"]),
            (
                "tuned",
                f"{entry['tuned_kernels']} kernels, {entry['tuning_records']} measurements",
            ),
        ]
    )
    output.next_step("tvmdet", "tune", "MODEL.onnx", "--target", entry["name"])
