"""``tvmdet inspect``: what a ``.tvmdet`` file holds and where it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmdet.cli import output
from tvmdet.cli.certificate import print_certificate
from tvmdet.cli.json_output import Json, check_json, deliver, is_printed
from tvmdet.cli.options import Debug
from tvmdet.sizes import size_text

if TYPE_CHECKING:
    from tvmdet.artifact import Artifact
    from tvmdet.runtime.raw import RawSignature, RawTensor
    from tvmdet.spec import DetectorSpec

__all__ = ["inspect"]


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE.tvmdet", help="A compiled detector.")],
    here: Annotated[
        bool, typer.Option("--here", help="Only which target this machine uses, and why.")
    ] = False,
    json: Json = None,
    debug: Debug = False,
) -> int:
    """Show what a compiled file holds and where it runs."""
    from tvmdet.artifact import Artifact
    from tvmdet.runtime.loader import read_signature, read_spec

    check_json(json, (file,))
    artifact = Artifact.open(file)
    spec, signature = read_spec(artifact), read_signature(artifact)
    runs = _here(artifact)
    if here:
        return _print_here(artifact, runs, json=json)
    size = file.stat().st_size
    value = {"file": str(file), "bytes": size, "here": runs, **artifact.manifest}
    deliver(json, value, lambda: _print(artifact, size, spec, signature, runs))
    if is_printed(json):
        return 0
    if runs["target"] is None:
        output.stdout().print("nothing in this file runs on this machine")
        output.next_step("tvmdet", "compile", "MODEL.onnx", "--target", "host")
    elif artifact.manifest["raw"] is None:
        output.next_step("tvmdet", "detect", file, "IMAGE.jpg")
    return 0


def _print(
    artifact: Artifact,
    size: int,
    spec: DetectorSpec,
    signature: RawSignature | None,
    runs: Mapping[str, Any],
) -> None:
    _print_model(artifact, size, spec, signature)
    _print_targets(artifact, runs["targets"])
    print_certificate(artifact.manifest["parity"])
    members = artifact.manifest["members"]
    output.table(
        ("member", "size", "sha256"),
        [(name, output.megabytes(m["bytes"]), m["sha256"]) for name, m in members.items()],
        right=("size",),
        gap=True,
    )


def _print_here(artifact: Artifact, runs: Mapping[str, Any], *, json: str | None) -> int:
    """Explains the choice; 1 when nothing in the file runs here."""

    def tables() -> None:
        output.facts([("file", artifact.path), ("used here", runs["target"] or "nothing")])
        output.table(
            ("target", "rank", "this machine", "needs"),
            [
                (
                    target.name,
                    target.rank,
                    runs["targets"][target.name],
                    " ".join((target.arch, *target.required_features)),
                )
                for target in artifact.targets
            ],
            right=("rank",),
            gap=True,
        )

    deliver(json, runs, tables)
    if runs["target"] is None and not is_printed(json):
        output.next_step("tvmdet", "compile", "MODEL.onnx", "--target", "host")
    return 0 if runs["target"] is not None else 1


def _here(artifact: Artifact) -> dict[str, Any]:
    """Says which target this machine would use, and of each target why or why not."""
    from tvmdet.runtime.loader import Host, never_run

    host = Host.this_machine()
    runnable = [target for target in artifact.targets if not host.lacks(target)]
    best = max(runnable, key=lambda target: target.rank, default=None)
    verdicts = {}
    for target in artifact.targets:
        verdict = host.lacks(target) or (
            "runs here, used" if target is best else "runs here, a better one is used"
        )
        verdicts[target.name] = verdict + never_run(target)
    return {"target": None if best is None else best.name, "targets": verdicts}


def _print_model(
    artifact: Artifact, size: int, spec: DetectorSpec, signature: RawSignature | None
) -> None:
    manifest = artifact.manifest
    model = manifest["model"]
    rows: list[tuple[str, object]] = [
        ("file", f"{artifact.path} ({output.megabytes(size)}, format {manifest['format']})"),
        ("made by", f"tvmdet {manifest['tvmdet']}, TVM {manifest['tvm']}"),
        ("model", f"{model.get('name')} (sha256 {model.get('sha256')})"),
        ("family", spec.family),
        ("because", "\n".join(manifest["recognition"])),
        ("batch sizes", ", ".join(str(batch) for batch in manifest["batch_sizes"])),
    ]
    if signature is None:
        rows += [
            ("labels", f"{len(spec.labels)}: {', '.join(spec.labels)}"),
            ("input", _in_words(dataclasses.asdict(spec.input))),
            ("postprocess", _in_words(dataclasses.asdict(spec.postprocess))),
        ]
        if spec.masks is not None:
            rows.append(("masks", _in_words(dataclasses.asdict(spec.masks))))
        if spec.keypoints is not None:
            points = spec.keypoints
            scored = ", each with a score" if points.scored else ""
            rows.append(("keypoints", f"{len(points.names)}{scored}: {', '.join(points.names)}"))
        if spec.oriented:
            rows.append(("boxes", "oriented: each has four corners, suppressed by ProbIoU"))
    else:
        rows += [
            ("inputs", _tensors(signature.inputs)),
            ("outputs", _tensors(signature.outputs)),
        ]
    output.facts(rows)


def _print_targets(artifact: Artifact, verdicts: Mapping[str, str]) -> None:
    tuning = {entry["name"]: entry.get("tuning", {}) for entry in artifact.manifest["targets"]}
    output.table(
        ("target", "this machine", "needs", "working memory", "kernels"),
        [
            (
                target.name,
                verdicts[target.name],
                " ".join((target.arch, *target.required_features)),
                ", ".join(
                    f"batch {batch}: {output.megabytes(planned)}"
                    for batch, planned in sorted(target.planned_bytes.items())
                ),
                _provenance(tuning[target.name]),
            )
            for target in artifact.targets
        ],
        gap=True,
    )


def _provenance(counts: Mapping[str, Any]) -> str:
    shown = [f"{value} {key}" for key, value in counts.items() if isinstance(value, int)]
    return ", ".join(shown)


def _in_words(values: Mapping[str, Any]) -> str:
    parts = []
    for key, value in values.items():
        if key == "size_hw":
            parts.append(size_text(value))
        elif isinstance(value, tuple):
            parts.append(f"{key} {' '.join(f'{number:g}' for number in value)}")
        else:
            parts.append(f"{key} {value}")
    return ", ".join(parts)


def _tensors(tensors: Sequence[RawTensor]) -> str:
    return "\n".join(f"{tensor.name} {tensor}" for tensor in tensors)
