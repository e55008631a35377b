"""The ``.tvmdet`` file: a manifest, one compiled library per target, and the weights of all.

They are members of a sealed archive (:mod:`tvmdet.sealed_zip`). Weights are a member of their own,
so that they are used where they lie: no process copies them, and all that run the same file share
one copy.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from tvmdet.errors import ArtifactError
from tvmdet.sealed_zip import ALIGNMENT_BYTES, Chunks, SealedZip, damaged, write_sealed_zip

__all__ = [
    "FORMAT_VERSION",
    "WEIGHTS_MEMBER",
    "WEIGHT_DTYPES",
    "Artifact",
    "TargetEntry",
    "WeightEntry",
    "write_artifact",
]

FORMAT_VERSION: Final = 3
"""Version of the layout that this module writes, and the only one that it reads."""

WEIGHTS_MEMBER: Final = "weights"
"""Name of the member that holds the weights of all targets; absent when there are none."""

WEIGHT_DTYPES: Final = frozenset(
    {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
    | {"float16", "float32", "float64"}
)
"""Types that a weight may have."""

_MANIFEST: Final = "manifest.json"
_MANIFEST_LIMIT_BYTES: Final = 64 << 20
_MEMBER_NAME: Final = re.compile(r"[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*)*", re.ASCII)

_MANIFEST_KEYS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "tvmdet": str,
    "tvm": str,
    "model": dict,
    "spec": dict,
    "recognition": list,
    "batch_sizes": list,
    "raw": (dict, type(None)),
    "targets": list,
    "parity": (dict, type(None)),
    "members": dict,
}
_TARGET_KEYS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "name": str,
    "arch": str,
    "rank": int,
    "required_features": list,
    "library": str,
    "planned_bytes": dict,
    "weights": list,
}
_GPU_KEYS: Final[Mapping[str, type | tuple[type, ...]]] = {"sm": str, "toolkit": str}
_GPU_VERSIONS: Final = {
    "sm": re.compile(r"sm_\d{2,3}", re.ASCII),
    "toolkit": re.compile(r"\d{1,3}\.\d{1,3}", re.ASCII),
}
_WEIGHT_KEYS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "offset": int,
    "dtype": str,
    "shape": list,
}


@dataclass(frozen=True, kw_only=True)
class WeightEntry:
    """One array among the weights.

    Attributes:
        offset: Where it starts in the member, in bytes; a multiple of 64.
        dtype: As numpy names it.
        shape: Lengths of its axes.
    """

    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its length in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, kw_only=True)
class TargetEntry:
    """One compiled library of an artifact, and the machine it needs.

    Attributes:
        name: The target that it was compiled for.
        arch: As ``platform.machine()`` names it.
        rank: Of the targets that a machine can run, the one with the highest rank is best.
        required_features: CPU flags, as ``/proc/cpuinfo`` names them, that must be there.
        library: Name of the member with the compiled code.
        planned_bytes: Working memory that was planned at compile time, by batch size.
        weights: What every entry function of the library takes as its last argument, an array of
            tensors; when there are none, it takes no such argument.
        gpu: What its kernels need, when they run on a GPU: ``sm``, ``toolkit``, ``never_run``.
        precision: What its kernels may round the factors of products to: ``fp32``, ``bf16``,
            ``fp16``, ``tf32``.
    """

    name: str
    arch: str
    rank: int
    required_features: tuple[str, ...]
    library: str
    planned_bytes: Mapping[int, int]
    weights: tuple[WeightEntry, ...] = ()
    gpu: Mapping[str, Any] | None = None
    precision: str = "fp32"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """An opened ``.tvmdet`` file, its seal and its manifest verified.

    Attributes:
        path: Where the file is.
        manifest: The whole manifest, as plain JSON values.
        targets: The compiled libraries in it, best rank first.
    """

    path: Path
    manifest: Mapping[str, Any]
    targets: tuple[TargetEntry, ...]
    _container: SealedZip = field(repr=False, compare=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Artifact:
        """Reads the manifest of a file after checking the whole file against its seal.

        Args:
            path: A ``.tvmdet`` file.

        Raises:
            ArtifactError: The file cannot be read, is damaged, holds unsafe or unexpected
                members, or was written in another format version.
        """
        path = Path(path)
        container = SealedZip(path)
        manifest = _read_manifest(path, container)
        _check_members(path, container.members, manifest)
        return cls(
            path=path,
            manifest=manifest,
            targets=_target_entries(path, manifest),
            _container=container,
        )

    @property
    def member_names(self) -> tuple[str, ...]:
        """Names of the members beside the manifest."""
        return tuple(self.manifest["members"])

    def copy_member(self, name: str, file: BinaryIO) -> None:
        """Writes the bytes of a member to a file, and checks their SHA-256 on the way.

        Raises:
            ArtifactError: No member has that name, its bytes are not those that the manifest
                promises, or the artifact was changed since it was opened.
            OSError: The file cannot be written.
        """
        promised = self._promised(name)
        digest = hashlib.sha256()
        for block in self._container.blocks(name):
            digest.update(block)
            file.write(block)
        if digest.hexdigest() != promised["sha256"]:
            raise damaged(self.path, f"the SHA-256 of member {name} is not the manifest's")

    def map_weights(self, target: TargetEntry) -> tuple[npt.NDArray[Any], ...]:
        """Returns the weights that a target's library is called with, without reading them.

        They lie where the system caches the file, shared with every process that uses it, and
        cannot be written to. The file must not be written to in place while they are in use;
        replacing it by another of its name does no harm.

        Raises:
            ArtifactError: The artifact was changed since it was opened.
        """
        if not target.weights:
            return ()
        stored = self._container.map(WEIGHTS_MEMBER)
        return tuple(
            stored[weight.offset : weight.offset + weight.nbytes]
            .view(weight.dtype)
            .reshape(weight.shape)
            for weight in target.weights
        )

    def _promised(self, name: str) -> Mapping[str, Any]:
        promised: Mapping[str, Any] | None = self.manifest["members"].get(name)
        if promised is None:
            raise ArtifactError(
                f"{self.path} has no member {name!r}; it holds: {', '.join(self.member_names)}"
            )
        return promised


def write_artifact(
    path: str | os.PathLike[str], manifest: Mapping[str, Any], members: Mapping[str, Chunks]
) -> None:
    """Writes a ``.tvmdet`` file, all of it or nothing.

    Args:
        path: Where to write; an older file there is replaced when the new one is complete.
        manifest: Everything but ``members``, which is filled in here.
        members: Contents by member name, in the order in which they are stored.

    Raises:
        ArtifactError: The manifest or a name would be refused by :meth:`Artifact.open`, or
            the file cannot be written.
    """
    path = Path(path)
    described = {name: _describe(chunks) for name, chunks in members.items()}
    try:
        encoded = json.dumps(
            {**manifest, "members": described},
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
        ).encode()
    except (TypeError, ValueError) as error:
        raise ArtifactError(
            f"the manifest of {path} is not plain JSON ({error}); "
            "use str, int, finite float, bool, None, list and dict"
        ) from error
    _check_manifest(path, json.loads(encoded))
    write_sealed_zip(path, {_MANIFEST: [encoded], **members})


def _describe(chunks: Chunks) -> dict[str, Any]:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return {"bytes": sum(len(chunk) for chunk in chunks), "sha256": digest.hexdigest()}


def _read_manifest(path: Path, container: SealedZip) -> dict[str, Any]:
    if _MANIFEST not in container.members:
        raise damaged(path, f"member {_MANIFEST} is missing")
    if container.members[_MANIFEST] > _MANIFEST_LIMIT_BYTES:
        raise damaged(path, f"{_MANIFEST} is larger than {_MANIFEST_LIMIT_BYTES} bytes")
    try:
        manifest = json.loads(b"".join(bytes(part) for part in container.blocks(_MANIFEST)))
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"{_MANIFEST} is not JSON ({error})") from error
    _check_manifest(path, manifest)
    return dict(manifest)


def _check_members(path: Path, stored: Mapping[str, int], manifest: Mapping[str, Any]) -> None:
    promised = manifest["members"]
    if missing := sorted(set(promised).difference(stored)):
        raise damaged(path, f"member {missing[0]} is missing")
    if extra := sorted(set(stored).difference(promised, [_MANIFEST])):
        raise damaged(path, f"member {extra[0]!r} is not in the manifest")
    for name, described in promised.items():
        if stored[name] != described["bytes"]:
            raise damaged(
                path,
                f"member {name} is {stored[name]} bytes long, "
                f"the manifest says {described['bytes']}",
            )


def _check_manifest(path: Path, manifest: object) -> None:
    if not isinstance(manifest, dict):
        raise damaged(path, f"{_MANIFEST} is not a table")
    version = manifest.get("format")
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format {version!r}; this tvmdet reads format {FORMAT_VERSION}; "
            "compile it again with this version, or use the version that wrote it"
        )
    _check_keys(path, _MANIFEST, manifest, _MANIFEST_KEYS)
    if not all(isinstance(line, str) for line in manifest["recognition"]):
        raise damaged(path, f"{_MANIFEST} has a recognition that is not text")
    if not all(isinstance(checked, dict) for checked in (manifest["parity"] or {}).values()):
        raise damaged(path, f"{_MANIFEST} has a parity that is not a table of tables")
    sizes = manifest["batch_sizes"]
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise damaged(path, f"{_MANIFEST} has batch_sizes {sizes!r}")
    for name, promised in manifest["members"].items():
        if not _MEMBER_NAME.fullmatch(name) or name == _MANIFEST:
            raise damaged(path, f"member name {name!r} is not safe")
        _check_keys(path, f"member {name}", promised, {"bytes": int, "sha256": str})
    _check_targets(path, manifest)


def _check_targets(path: Path, manifest: Mapping[str, Any]) -> None:
    if not manifest["targets"]:
        raise damaged(path, f"{_MANIFEST} names no target")
    for entry in manifest["targets"]:
        _check_keys(path, "a target", entry, _TARGET_KEYS)
        if entry["library"] not in manifest["members"]:
            raise damaged(
                path, f"target {entry['name']} names {entry['library']!r}, which is no member"
            )
        if not all(isinstance(flag, str) for flag in entry["required_features"]):
            raise damaged(path, f"target {entry['name']} has features that are not text")
        if not all(
            key.isdecimal() and type(planned) is int
            for key, planned in entry["planned_bytes"].items()
        ):
            raise damaged(path, f"target {entry['name']} has malformed planned_bytes")
        _check_weights(path, entry, manifest["members"])
        if "gpu" in entry:
            _check_gpu(path, entry)
        if not isinstance(entry.get("tuning", {}), dict):
            raise damaged(path, f"target {entry['name']} has a tuning that is not a table")
        if not isinstance(entry.get("precision", "fp32"), str):
            raise damaged(path, f"target {entry['name']} has a precision that is not text")


def _check_gpu(path: Path, target: Mapping[str, Any]) -> None:
    where = f"the gpu of target {target['name']}"
    _check_keys(path, where, target["gpu"], _GPU_KEYS)
    for key, form in _GPU_VERSIONS.items():
        if not form.fullmatch(target["gpu"][key]):
            raise damaged(path, f"{where} has {key} {target['gpu'][key]!r}")
    if not isinstance(target["gpu"].get("never_run"), bool):
        raise damaged(path, f"{where} does not say whether it was never_run")


def _check_weights(
    path: Path, target: Mapping[str, Any], members: Mapping[str, Mapping[str, Any]]
) -> None:
    room = members.get(WEIGHTS_MEMBER, {"bytes": 0})["bytes"]
    for described in target["weights"]:
        where = f"a weight of target {target['name']}"
        _check_keys(path, where, described, _WEIGHT_KEYS)
        if described["dtype"] not in WEIGHT_DTYPES:
            raise damaged(path, f"{where} has dtype {described['dtype']!r}")
        if any(type(side) is not int or side < 0 for side in described["shape"]):
            raise damaged(path, f"{where} has shape {described['shape']!r}")
        weight = _weight_entry(described)
        if weight.offset % ALIGNMENT_BYTES or not 0 <= weight.offset <= room - weight.nbytes:
            raise damaged(
                path,
                f"{where} has {weight.nbytes} bytes at {weight.offset}, which is not a multiple "
                f"of {ALIGNMENT_BYTES} within the {room} bytes of {WEIGHTS_MEMBER}",
            )


def _weight_entry(described: Mapping[str, Any]) -> WeightEntry:
    return WeightEntry(
        offset=described["offset"], dtype=described["dtype"], shape=tuple(described["shape"])
    )


def _check_keys(
    path: Path, where: str, table: object, keys: Mapping[str, type | tuple[type, ...]]
) -> None:
    if not isinstance(table, dict):
        raise damaged(path, f"{where} is not a table")
    for key, kinds in keys.items():
        if key not in table:
            raise damaged(path, f"{where} has no {key!r}")
        if not isinstance(table[key], kinds) or isinstance(table[key], bool):
            raise damaged(path, f"{where} has {key!r} of the wrong type: {table[key]!r}")


def _target_entries(path: Path, manifest: Mapping[str, Any]) -> tuple[TargetEntry, ...]:
    entries = [
        TargetEntry(
            name=entry["name"],
            arch=entry["arch"],
            rank=entry["rank"],
            required_features=tuple(entry["required_features"]),
            library=entry["library"],
            planned_bytes={int(key): value for key, value in entry["planned_bytes"].items()},
            weights=tuple(_weight_entry(described) for described in entry["weights"]),
            gpu={key: entry["gpu"][key] for key in (*_GPU_KEYS, "never_run")}
            if "gpu" in entry
            else None,
            precision=entry.get("precision", "fp32"),
        )
        for entry in manifest["targets"]
    ]
    if len({entry.name for entry in entries}) != len(entries):
        raise damaged(path, "a target is there twice")
    return tuple(sorted(entries, key=lambda entry: -entry.rank))
