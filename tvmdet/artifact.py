"""The ``.tvmdet`` file: a sealed zip with a manifest, and per target a library and its weights.

Members are stored without compression, in a fixed order with fixed timestamps, so that equal
contents make equal bytes. The contents of each begin at a multiple of 64 bytes: weights are used
where they lie, in the mapped file. The archive comment is the seal: the SHA-256 of every byte
before it. Zip headers carry fields that no reader looks at; the seal covers those too, so that a
file either is what was written or is refused. It guards against damage, not against forgery.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import mmap
import os
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from tvmdet.errors import ArtifactError
from tvmdet.files import whole_file

__all__ = ["FORMAT_VERSION", "Artifact", "TargetEntry", "WeightTable", "write_artifact"]

FORMAT_VERSION: Final = 2
"""Version of the layout that this module writes, and the only one that it reads."""

_MANIFEST: Final = "manifest.json"
_MANIFEST_LIMIT_BYTES: Final = 64 << 20
_SEAL_MARK: Final = b"tvmdet-sha256:"
_SEAL_BYTES: Final = len(_SEAL_MARK) + 64
_ALIGNMENT_BYTES: Final = 64
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field
_PADDING_ID: Final = 0xD935
"""Of the extra field that moves a member's contents, as Android's zipalign names it."""
_TIMESTAMP: Final = (1980, 1, 1, 0, 0, 0)
_MEMBER_NAME: Final = re.compile(r"[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*)*", re.ASCII)
_REMEDY: Final = "compile it again or copy it again"

_ITEM_BYTES: Final[Mapping[str, int]] = {
    "bool": 1,
    **{f"{kind}{bits}": bits // 8 for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": bits // 8 for bits in (16, 32, 64)},
}
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
    "weights": (dict, type(None)),
    "planned_bytes": dict,
}


@dataclass(frozen=True, kw_only=True)
class WeightTable:
    """Where the weights of a target are.

    Attributes:
        member: Name of the member that holds them.
        tensors: Offset in the member, type and shape of each.
        functions: Which of them each compiled function is given after its own arguments.
    """

    member: str
    tensors: tuple[tuple[int, str, tuple[int, ...]], ...]
    functions: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class TargetEntry:
    """One compiled library of an artifact, and the machine it needs.

    Attributes:
        name: The target that it was compiled for.
        arch: As ``platform.machine()`` names it.
        rank: Of the targets that a machine can run, the one with the highest rank is best.
        required_features: CPU flags, as ``/proc/cpuinfo`` names them, that must be there.
        library: Name of the member with the compiled code.
        weights: What its functions are given after their own arguments, if anything.
        planned_bytes: Working memory that was planned at compile time, by batch size.
    """

    name: str
    arch: str
    rank: int
    required_features: tuple[str, ...]
    library: str
    weights: WeightTable | None
    planned_bytes: Mapping[int, int]


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
        try:
            with path.open("rb") as file:
                _check_seal(path, file)
                with zipfile.ZipFile(file) as archive:
                    manifest = _read_manifest(path, archive)
                    _check_members(path, archive, manifest)
        except OSError as error:
            raise ArtifactError(
                f"{path} cannot be read: {error.strerror or error}; give the path of a .tvmdet file"
            ) from error
        except _ZIP_ERRORS as error:
            raise _damaged(path, f"its zip structure is broken ({error})") from error
        return cls(path=path, manifest=manifest, targets=_target_entries(path, manifest))

    @property
    def member_names(self) -> tuple[str, ...]:
        """Names of the members beside the manifest."""
        return tuple(self.manifest["members"])

    def read_member(self, name: str) -> bytes:
        """Returns the bytes of a member, after checking their length and SHA-256.

        Raises:
            ArtifactError: No member has that name, or its bytes are not those that the
                manifest promises.
        """
        promised = self.manifest["members"].get(name)
        if promised is None:
            raise ArtifactError(
                f"{self.path} has no member {name!r}; it holds: {', '.join(self.member_names)}"
            )
        try:
            with zipfile.ZipFile(self.path) as archive:
                info = archive.getinfo(name)
                if info.file_size != promised["bytes"]:
                    raise _damaged(
                        self.path,
                        f"member {name} is {info.file_size} bytes long, "
                        f"the manifest says {promised['bytes']}",
                    )
                data = archive.read(info)
        except OSError as error:
            raise ArtifactError(
                f"{self.path} cannot be read: {error.strerror or error}; {_REMEDY}"
            ) from error
        except _ZIP_ERRORS as error:
            raise _damaged(self.path, f"member {name} cannot be read ({error})") from error
        if hashlib.sha256(data).hexdigest() != promised["sha256"]:
            raise _damaged(self.path, f"the SHA-256 of member {name} is not the manifest's")
        return data

    def map_member(self, name: str) -> memoryview:
        """Maps a member into memory, after checking its SHA-256.

        Pages are read when they are touched, and shared with other processes. What is written to
        them stays in this process.

        Raises:
            ArtifactError: As for :meth:`read_member`.
        """
        promised = self.manifest["members"].get(name)
        if promised is None:
            raise ArtifactError(
                f"{self.path} has no member {name!r}; it holds: {', '.join(self.member_names)}"
            )
        try:
            with self.path.open("rb") as file, zipfile.ZipFile(file) as archive:
                start, length = archive.getinfo(name).header_offset, promised["bytes"]
                file.seek(start)
                _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
                start += _LOCAL_HEADER.size + name_bytes + extra_bytes
                file.seek(start)
                if _sha256(file, length) != promised["sha256"]:
                    raise _damaged(self.path, f"the SHA-256 of member {name} is not the manifest's")
                if not length:
                    return memoryview(b"")
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise ArtifactError(
                f"{self.path} cannot be read: {error.strerror or error}; {_REMEDY}"
            ) from error
        except (*_ZIP_ERRORS, struct.error) as error:
            raise _damaged(self.path, f"member {name} cannot be read ({error})") from error
        return memoryview(mapped)[start : start + length]


# What zipfile lets out when the archive is malformed: its own error, a missing name, an
# unknown compression or flag, a field cut short or an offset out of range.
_ZIP_ERRORS: Final = (
    zipfile.BadZipFile,
    KeyError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
)


def write_artifact(
    path: str | os.PathLike[str], manifest: Mapping[str, Any], members: Mapping[str, bytes]
) -> None:
    """Writes a ``.tvmdet`` file, all of it or nothing.

    The file appears under its name only when complete: it is written beside it, flushed to
    the disk and then renamed. Whatever interrupts that, the temporary file is removed and
    an older file of the same name stays as it was.

    Args:
        path: Where to write; an older file there is replaced.
        manifest: Everything but ``members``, which is filled in here.
        members: Contents by member name, in the order in which they are stored.

    Raises:
        ArtifactError: The manifest or a name would be refused by :meth:`Artifact.open`, or
            the file cannot be written.
    """
    path = Path(path)
    data = _pack(path, manifest, members)
    try:
        with whole_file(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path} ({len(data)} bytes): {error.strerror or error}; "
            "free some space or choose another place with --output"
        ) from error


def _pack(path: Path, manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> bytes:
    described = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in members.items()
    }
    complete = {**manifest, "members": described}
    try:
        encoded = json.dumps(
            complete, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode()
    except (TypeError, ValueError) as error:
        raise ArtifactError(
            f"the manifest of {path} is not plain JSON ({error}); "
            "use str, int, finite float, bool, None, list and dict"
        ) from error
    _check_manifest(path, json.loads(encoded))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {_MANIFEST: encoded, **members}.items():
            info = zipfile.ZipInfo(name, _TIMESTAMP)
            info.create_system = 3  # Unix, on every machine
            info.external_attr = 0o100644 << 16
            info.extra = _padding(buffer.tell() + _LOCAL_HEADER.size + len(name.encode()))
            archive.writestr(info, data)
        archive.comment = bytes(_SEAL_BYTES)  # room for the seal
    content = buffer.getvalue()[:-_SEAL_BYTES]
    return content + _SEAL_MARK + hashlib.sha256(content).hexdigest().encode()


def _padding(start: int) -> bytes:
    """Returns an extra field after which the contents of a member are aligned."""
    header = struct.Struct("<HH")
    length = -(start + header.size) % _ALIGNMENT_BYTES
    return header.pack(_PADDING_ID, length) + bytes(length)


def _check_seal(path: Path, file: BinaryIO) -> None:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if not file.read(4).startswith(b"PK\x03\x04"):
        raise _damaged(path, f"it is not a .tvmdet file ({size} bytes, no zip header)")
    if size < _SEAL_BYTES:
        raise _damaged(path, f"it is cut short ({size} bytes)")
    file.seek(size - _SEAL_BYTES)
    seal = file.read(_SEAL_BYTES)
    if not seal.startswith(_SEAL_MARK):
        raise _damaged(path, "it is cut short, or was changed: no seal at its end")
    file.seek(0)
    if _sha256(file, size - _SEAL_BYTES).encode() != seal[len(_SEAL_MARK) :]:
        raise _damaged(path, "its bytes do not match the SHA-256 at its end")
    file.seek(0)


def _sha256(file: BinaryIO, length: int) -> str:
    """Returns the digest of the next bytes of a file, of which few are in memory at a time."""
    digest = hashlib.sha256()
    while length and (block := file.read(min(length, 1 << 20))):
        digest.update(block)
        length -= len(block)
    return digest.hexdigest()


def _read_manifest(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    if archive.getinfo(_MANIFEST).file_size > _MANIFEST_LIMIT_BYTES:
        raise _damaged(path, f"{_MANIFEST} is larger than {_MANIFEST_LIMIT_BYTES} bytes")
    manifest = json.loads(archive.read(_MANIFEST))
    _check_manifest(path, manifest)
    return dict(manifest)


def _check_manifest(path: Path, manifest: object) -> None:
    if not isinstance(manifest, dict):
        raise _damaged(path, f"{_MANIFEST} is not a table")
    version = manifest.get("format")
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format {version!r}; this tvmdet reads format {FORMAT_VERSION}; "
            "compile it again with this version, or use the version that wrote it"
        )
    _check_keys(path, _MANIFEST, manifest, _MANIFEST_KEYS)
    if not all(isinstance(line, str) for line in manifest["recognition"]):
        raise _damaged(path, f"{_MANIFEST} has a recognition that is not text")
    if not all(isinstance(checked, dict) for checked in (manifest["parity"] or {}).values()):
        raise _damaged(path, f"{_MANIFEST} has a parity that is not a table of tables")
    sizes = manifest["batch_sizes"]
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise _damaged(path, f"{_MANIFEST} has batch_sizes {sizes!r}")
    for name, promised in manifest["members"].items():
        if not _MEMBER_NAME.fullmatch(name) or name == _MANIFEST:
            raise _damaged(path, f"member name {name!r} is not safe")
        _check_keys(path, f"member {name}", promised, {"bytes": int, "sha256": str})
    _check_targets(path, manifest)


def _check_targets(path: Path, manifest: Mapping[str, Any]) -> None:
    if not manifest["targets"]:
        raise _damaged(path, f"{_MANIFEST} names no target")
    for entry in manifest["targets"]:
        _check_keys(path, "a target", entry, _TARGET_KEYS)
        if entry["library"] not in manifest["members"]:
            raise _damaged(
                path, f"target {entry['name']} names {entry['library']!r}, which is no member"
            )
        _check_weights(path, manifest, entry)
        if not all(isinstance(flag, str) for flag in entry["required_features"]):
            raise _damaged(path, f"target {entry['name']} has features that are not text")
        if not all(
            key.isdecimal() and type(planned) is int
            for key, planned in entry["planned_bytes"].items()
        ):
            raise _damaged(path, f"target {entry['name']} has malformed planned_bytes")
        if not isinstance(entry.get("tuning", {}), dict):
            raise _damaged(path, f"target {entry['name']} has a tuning that is not a table")


def _check_weights(path: Path, manifest: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    where, weights = f"the weights of target {entry['name']}", entry["weights"]
    if weights is None:
        return
    _check_keys(path, where, weights, {"member": str, "tensors": list, "functions": dict})
    promised = manifest["members"].get(weights["member"])
    if promised is None:
        raise _damaged(path, f"{where} are {weights['member']!r}, which is no member")
    for tensor in weights["tensors"]:
        if not _is_tensor(tensor, promised["bytes"]):
            raise _damaged(path, f"{where} have a malformed tensor: {tensor!r}")
    count = len(weights["tensors"])
    for name, taken in weights["functions"].items():
        if not isinstance(taken, list) or any(
            type(index) is not int or not 0 <= index < count for index in taken
        ):
            raise _damaged(path, f"{where} name tensors of {name} that are not there")


def _is_tensor(tensor: object, room: int) -> bool:
    """Returns whether a value is the offset, type and shape of a tensor in so many bytes."""
    if not isinstance(tensor, list) or len(tensor) != 3:
        return False
    offset, dtype, shape = tensor
    if type(offset) is not int or offset < 0 or offset % _ALIGNMENT_BYTES:
        return False
    if not isinstance(shape, list) or any(type(side) is not int or side < 0 for side in shape):
        return False
    itemsize = _ITEM_BYTES.get(dtype) if isinstance(dtype, str) else None
    return itemsize is not None and offset + itemsize * math.prod(shape) <= room


def _check_keys(
    path: Path, where: str, table: object, keys: Mapping[str, type | tuple[type, ...]]
) -> None:
    if not isinstance(table, dict):
        raise _damaged(path, f"{where} is not a table")
    for key, kinds in keys.items():
        if key not in table:
            raise _damaged(path, f"{where} has no {key!r}")
        if not isinstance(table[key], kinds) or isinstance(table[key], bool):
            raise _damaged(path, f"{where} has {key!r} of the wrong type: {table[key]!r}")


def _check_members(path: Path, archive: zipfile.ZipFile, manifest: Mapping[str, Any]) -> None:
    names = [info.filename for info in archive.infolist()]
    if len(set(names)) != len(names):
        raise _damaged(path, "a member is there twice")
    promised = {_MANIFEST, *manifest["members"]}
    if missing := sorted(promised.difference(names)):
        raise _damaged(path, f"member {missing[0]} is missing")
    if extra := sorted(set(names).difference(promised)):
        raise _damaged(path, f"member {extra[0]!r} is not in the manifest")
    for info in archive.infolist():
        # A stored member cannot expand to more than the file holds.
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
            raise _damaged(path, f"member {info.filename} is compressed or encrypted")


def _target_entries(path: Path, manifest: Mapping[str, Any]) -> tuple[TargetEntry, ...]:
    entries = [
        TargetEntry(
            name=entry["name"],
            arch=entry["arch"],
            rank=entry["rank"],
            required_features=tuple(entry["required_features"]),
            library=entry["library"],
            weights=_weight_table(entry["weights"]),
            planned_bytes={int(key): value for key, value in entry["planned_bytes"].items()},
        )
        for entry in manifest["targets"]
    ]
    if len({entry.name for entry in entries}) != len(entries):
        raise _damaged(path, "a target is there twice")
    return tuple(sorted(entries, key=lambda entry: -entry.rank))


def _weight_table(described: Mapping[str, Any] | None) -> WeightTable | None:
    if described is None:
        return None
    tensors = [(offset, dtype, tuple(shape)) for offset, dtype, shape in described["tensors"]]
    return WeightTable(
        member=described["member"],
        tensors=tuple(tensors),
        functions={name: tuple(taken) for name, taken in described["functions"].items()},
    )


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path} is damaged: {what}; {_REMEDY}")
