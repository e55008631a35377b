"""The target that a compiled file was made for, as the file describes it."""

from __future__ import annotations

from tvmdet.artifact import Artifact
from tvmdet.errors import ArtifactError, TargetError
from tvmdet.report.typed_json import Mismatch, from_json
from tvmdet.targets import Target, get_target

__all__ = ["name_again", "target_of"]


def target_of(artifact: Artifact, name: str) -> Target:
    """Returns a target of a file, at the precision that it was compiled in.

    The file describes it, so that a target file of a user's own need not be here. A file of an
    earlier version does not, and its target is looked up by name.

    Args:
        artifact: A compiled file.
        name: Of one of its targets.

    Raises:
        ArtifactError: The description cannot be used.
        TargetError: There is none, and no target here has the name.
    """
    entry = next(entry for entry in artifact.manifest["targets"] if entry["name"] == name)
    described = entry.get("described")
    try:
        target = get_target(name) if described is None else from_json(Target, described)
        return target.at_precision(entry.get("precision", "fp32"))
    except Mismatch as error:
        raise ArtifactError(
            f"{artifact.path} has a description of target {name} that cannot be used: {error}; "
            "compile it again with this version of tvmdet"
        ) from error


def name_again(artifact: Artifact, name: str) -> str:
    """Returns what ``--target`` takes for a target of a file.

    Its name where that is the target's here; else a target file, which must be brought along.
    """
    try:
        known = get_target(name)
    except TargetError:
        return f"{name}.toml"
    same = known.tvm == target_of(artifact, name).at_precision("fp32").tvm
    return name if same else f"{name}.toml"
