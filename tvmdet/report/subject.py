"""What was measured: a compiled file, and the code in it that ran."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmdet.artifact import WEIGHTS_MEMBER, Artifact
from tvmdet.errors import ArtifactError
from tvmdet.report.result_kernels import Member
from tvmdet.report.result_subject import ArtifactFacts, ModelFacts, TargetFacts
from tvmdet.report.typed_json import to_json
from tvmdet.runtime.loader import Host

__all__ = ["Subject", "describe_subject", "sha256_of"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A compiled file as a result describes it.

    Attributes:
        artifact: The file.
        model: What it was compiled from.
        target: Whose code ran.
        members: All targets in the file.
        parity: The file's certificate for that target; None when it has none.
    """

    artifact: ArtifactFacts
    model: ModelFacts
    target: TargetFacts
    members: tuple[Member, ...]
    parity: Mapping[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "artifact": to_json(self.artifact),
            "model": to_json(self.model),
            "target": to_json(self.target),
            "members": to_json(self.members),
            "parity": to_json(self.parity),
        }


def describe_subject(artifact: Artifact, target: str, host: Host) -> Subject:
    """Reads what a result says of a compiled file.

    Args:
        artifact: The file.
        target: The one of its targets that is measured.
        host: This machine.

    Raises:
        ArtifactError: The file cannot be read.
    """
    manifest = artifact.manifest
    sizes = {name: member["bytes"] for name, member in manifest["members"].items()}
    entry = next(entry for entry in manifest["targets"] if entry["name"] == target)
    chosen = next(one for one in artifact.targets if one.name == target)
    members = tuple(
        Member(
            target=one.name,
            arch=one.arch,
            state="measured" if one.name == target else "not run",
            reason="" if one.name == target else _why_not(host.lacks(one), one.gpu),
            bytes=sizes[one.library],
        )
        for one in artifact.targets
    )
    try:
        size, digest = artifact.path.stat().st_size, sha256_of(artifact.path)
    except OSError as error:
        raise ArtifactError(
            f"cannot read {artifact.path}: {error.strerror or error}; it was there a moment ago, "
            "keep it in place while it is measured"
        ) from error
    return Subject(
        artifact=ArtifactFacts(
            path=str(artifact.path),
            sha256=digest,
            bytes=size,
            target_bytes=sizes[chosen.library] + sizes.get(WEIGHTS_MEMBER, 0),
            family="raw" if manifest["raw"] is not None else str(manifest["spec"].get("family")),
            batch_sizes=tuple(sorted(manifest["batch_sizes"])),
            made_by={"tvmdet": manifest["tvmdet"], "tvm": manifest["tvm"]},
        ),
        model=ModelFacts(
            name=str(manifest["model"].get("name", "")), sha256=manifest["model"].get("sha256")
        ),
        target=TargetFacts(
            name=target,
            arch=chosen.arch,
            required_features=chosen.required_features,
            precision=chosen.precision,
            bf16_layers=entry.get("bf16_layers"),
        ),
        members=members,
        parity=(manifest["parity"] or {}).get(target),
    )


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _why_not(lacks: str, gpu: Mapping[str, Any] | None) -> str:
    if gpu is not None and gpu["never_run"]:
        return f"never run, nor when it was compiled: {lacks or 'another target was measured'}"
    return f"never run here: {lacks}" if lacks else "never run here: another target was measured"
