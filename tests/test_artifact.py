from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_modules import toy_manifest, toy_target

from tvmdet.artifact import Artifact, write_artifact
from tvmdet.errors import ArtifactError

MEMBERS = {"lib/toy.so": bytes(range(256)) * 8, "lib/other.so": b"other"}


def manifest(**changes: Any) -> dict[str, Any]:
    targets = [toy_target(), toy_target("other", rank=20)]
    return toy_manifest(**{"targets": targets, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.tvmdet"
    write_artifact(path, manifest(), MEMBERS)
    return path


def seal(content: bytes) -> bytes:
    """Makes a valid seal again after a test changed something before it."""
    head = content[:-78]
    return head + b"tvmdet-sha256:" + hashlib.sha256(head).hexdigest().encode()


def forge(
    path: Path,
    described: Any,
    members: list[tuple[str, bytes]],
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """Writes a sealed zip that the writer would refuse to write."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        if described is not None:
            text = described if isinstance(described, str) else json.dumps(described)
            archive.writestr("manifest.json", text)
        for name, data in members:
            archive.writestr(name, data)
        archive.comment = bytes(78)
    path.write_bytes(seal(path.read_bytes()))


def complete(members: Mapping[str, bytes] = MEMBERS, **changes: Any) -> dict[str, Any]:
    described = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in members.items()
    }
    return {**manifest(), "members": described, **changes}


def weights(**changes: Any) -> dict[str, Any]:
    """A target's table of weights in the member that holds most bytes."""
    return {
        "member": "lib/toy.so",
        "tensors": [[0, "float32", [2, 3]]],
        "functions": {"detect_b1": [0]},
        **changes,
    }


BAD_WEIGHTS = [
    ("weights of no member", weights(member="weights/none.bin"), "which is no member"),
    ("weights without functions", {"member": "lib/toy.so", "tensors": []}, "no 'functions'"),
    ("a weight too many", weights(functions={"detect_b1": [1]}), "that are not there"),
    ("a weight as text", weights(functions={"detect_b1": "0"}), "that are not there"),
    *(
        (f"weight {index}", weights(tensors=[tensor]), "malformed tensor")
        for index, tensor in enumerate(
            (
                [0, "float32"],
                [-64, "float32", [1]],
                [4, "float32", [1]],
                [0, "object", [1]],
                [0, "float32", [-1]],
                [0, "float32", 3],
                [0, "float32", [1 << 40]],
                [1 << 20, "uint8", [1]],
            )
        )
    ),
]


def test_a_mapped_member_is_aligned_and_private(tmp_path: Path) -> None:
    path = tmp_path / "model.tvmdet"
    members = {"a": b"x", "lib/toy.so": b"1", "weights/toy.bin": bytes(range(250)), "empty": b""}
    targets = [toy_target(weights=weights(member="weights/toy.bin"))]
    write_artifact(path, manifest(targets=targets), members)
    before = path.read_bytes()
    artifact = Artifact.open(path)
    for name, data in members.items():
        assert artifact.map_member(name) == data == artifact.read_member(name)
    for name in ("a", "lib/toy.so", "weights/toy.bin"):
        mapped = np.frombuffer(artifact.map_member(name), np.uint8)
        assert mapped.ctypes.data % 64 == 0
    mapped[:] = 7
    assert path.read_bytes() == before
    (entry,) = artifact.targets
    assert entry.weights is not None
    assert entry.weights.tensors == ((0, "float32", (2, 3)),)
    assert entry.weights.functions == {"detect_b1": (0,)}


def test_a_member_that_changed_since_it_was_opened_is_not_mapped(path: Path) -> None:
    artifact = Artifact.open(path)
    data = bytearray(path.read_bytes())
    data[data.index(MEMBERS["lib/toy.so"])] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"SHA-256 of member lib/toy\.so"):
        artifact.map_member("lib/toy.so")
    with pytest.raises(ArtifactError, match="no member 'x'"):
        artifact.map_member("x")


def test_reads_back_what_was_written(path: Path) -> None:
    artifact = Artifact.open(path)
    assert artifact.member_names == ("lib/other.so", "lib/toy.so")
    assert {name: artifact.read_member(name) for name in artifact.member_names} == MEMBERS
    without_members = {k: v for k, v in artifact.manifest.items() if k != "members"}
    assert without_members == json.loads(json.dumps(manifest()))
    assert [target.name for target in artifact.targets] == ["other", "toy"]
    assert artifact.targets[0].planned_bytes == {1: 1000, 2: 2000}


def test_equal_contents_make_equal_bytes(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tvmdet"
    write_artifact(again, dict(reversed(manifest().items())), MEMBERS)
    assert again.read_bytes() == path.read_bytes()


def test_is_a_zip_that_other_tools_read(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
    assert [info.filename for info in infos] == ["manifest.json", *MEMBERS]
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}


def test_file_mode_follows_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_artifact(tmp_path / "x.tvmdet", manifest(), MEMBERS)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x.tvmdet").stat().st_mode) == 0o640


def test_every_flipped_bit_is_found(path: Path) -> None:
    content = path.read_bytes()
    rng = random.Random(7)
    # Everywhere, and densely where the headers, the central directory and the seal are.
    positions = [rng.randrange(len(content)) for _ in range(100)]
    positions += list(range(40)) + list(range(len(content) - 350, len(content)))
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="compile it again or copy it again"):
            Artifact.open(path)


def test_every_truncation_is_found(path: Path) -> None:
    content = path.read_bytes()
    lengths = [*range(100), *range(100, len(content), 97), *range(len(content) - 90, len(content))]
    for length in lengths:
        path.write_bytes(content[:length])
        with pytest.raises(ArtifactError, match="compile it again or copy it again"):
            Artifact.open(path)


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x7fELF" + bytes(500), b"PK\x03\x04", b"PK\x03\x04" + bytes(500)]
)
def test_refuses_what_is_no_artifact(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tvmdet"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="is damaged"):
        Artifact.open(path)


def test_refuses_bytes_added_at_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ArtifactError, match="no seal at its end"):
        Artifact.open(path)


def test_refuses_a_sealed_file_that_is_no_zip(tmp_path: Path) -> None:
    path = tmp_path / "x.tvmdet"
    path.write_bytes(seal(b"PK\x03\x04" + bytes(500)))
    with pytest.raises(ArtifactError, match="zip structure"):
        Artifact.open(path)


@pytest.mark.parametrize("name", ["missing.tvmdet", "."])
def test_says_why_a_file_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match=r"cannot be read: (No such file|Is a directory)"):
        Artifact.open(tmp_path / name)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        pytest.param(None, "manifest.json", id="no manifest"),
        pytest.param("{", "zip structure", id="no JSON"),
        pytest.param([], "not a table", id="a list"),
        pytest.param(complete(format=3), "has format 3; this tvmdet reads format 2", id="newer"),
        pytest.param(complete(format=1), "has format 1; this tvmdet reads format 2", id="older"),
        pytest.param({"format": 2}, "has no 'tvmdet'", id="key missing"),
        pytest.param(complete(batch_sizes=[]), "batch_sizes", id="no batch size"),
        pytest.param(complete(batch_sizes=[0]), "batch_sizes", id="batch size 0"),
        pytest.param(complete(batch_sizes=["1"]), "batch_sizes", id="batch size as text"),
        pytest.param(complete(spec=[]), "'spec' of the wrong type", id="wrong type"),
        pytest.param(complete(targets=[]), "names no target", id="no target"),
        pytest.param(complete(targets=[1]), "not a table", id="target is no table"),
        pytest.param(
            complete(targets=[toy_target(), toy_target()]), "there twice", id="target twice"
        ),
        pytest.param(
            complete(targets=[toy_target(library="lib/none.so")]), "no member", id="no library"
        ),
        *(
            pytest.param(complete(targets=[toy_target(weights=table)]), message, id=why)
            for why, table, message in BAD_WEIGHTS
        ),
        pytest.param(
            complete(targets=[toy_target(required_features=[1])]), "features", id="features"
        ),
        pytest.param(
            complete(targets=[toy_target(planned_bytes={"x": 1})]), "planned_bytes", id="planned"
        ),
        pytest.param(complete(members={}), "no member", id="members empty"),
    ],
)
def test_refuses_a_manifest(tmp_path: Path, described: Any, message: str) -> None:
    path = tmp_path / "x.tvmdet"
    forge(path, described, list(MEMBERS.items()))
    with pytest.raises(ArtifactError, match=message):
        Artifact.open(path)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.so",
        "/etc/evil.so",
        "lib/../../evil.so",
        "a\\b",
        "lib//x",
        "lib/",
        ".hidden",
        "a/./b",
    ],
)
def test_refuses_an_unsafe_member_name(tmp_path: Path, name: str) -> None:
    members = {**MEMBERS, name: b"evil"}
    path = tmp_path / "x.tvmdet"
    forge(path, complete(members), list(members.items()))
    with pytest.raises(ArtifactError, match="is not safe"):
        Artifact.open(path)
    with pytest.raises(ArtifactError, match="is not safe"):
        write_artifact(path, manifest(), members)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        pytest.param([("lib/toy.so", b"1")], "member lib/other.so is missing", id="missing"),
        pytest.param([*MEMBERS.items(), ("x", b"1")], "not in the manifest", id="extra"),
    ],
)
def test_refuses_other_members(
    tmp_path: Path, stored: list[tuple[str, bytes]], message: str
) -> None:
    path = tmp_path / "x.tvmdet"
    forge(path, complete(), stored)
    with pytest.raises(ArtifactError, match=message):
        Artifact.open(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_refuses_a_member_that_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "x.tvmdet"
    forge(path, complete(), [*MEMBERS.items(), ("lib/toy.so", b"evil")])
    with pytest.raises(ArtifactError, match="there twice"):
        Artifact.open(path)


def test_refuses_a_compressed_member(tmp_path: Path) -> None:
    path = tmp_path / "x.tvmdet"
    forge(path, complete(), list(MEMBERS.items()), zipfile.ZIP_DEFLATED)
    with pytest.raises(ArtifactError, match="is compressed"):
        Artifact.open(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"0ther", "SHA-256 of member lib/other.so"), (b"others", "is 6 bytes long")],
)
def test_refuses_member_bytes_that_the_manifest_does_not_promise(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "x.tvmdet"
    forge(path, complete(), [*list(MEMBERS.items())[:1], ("lib/other.so", data)])
    artifact = Artifact.open(path)
    with pytest.raises(ArtifactError, match=message):
        artifact.read_member("lib/other.so")


def test_finds_damage_done_after_opening(path: Path) -> None:
    artifact = Artifact.open(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"other\x50", b"0ther\x50"))
    with pytest.raises(ArtifactError, match="compile it again or copy it again"):
        artifact.read_member("lib/other.so")
    path.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        artifact.read_member("lib/other.so")


def test_names_the_members_when_asked_for_another(path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no member 'x'; it holds: lib/other.so, lib/toy.so"):
        Artifact.open(path).read_member("x")


@pytest.mark.parametrize("value", [float("nan"), b"bytes", {1, 2}])
def test_refuses_a_manifest_that_is_not_json(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ArtifactError, match="not plain JSON"):
        write_artifact(tmp_path / "x.tvmdet", manifest(parity={"x": value}), MEMBERS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("older", [None, b"older"])
def test_a_full_disk_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, older: bytes | None
) -> None:
    path = tmp_path / "x.tvmdet"
    if older is not None:
        path.write_bytes(older)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ArtifactError, match="No space left on device; free some space"):
        write_artifact(path, manifest(), MEMBERS)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if older is None else [older])


def test_an_interrupt_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_artifact(tmp_path / "x.tvmdet", manifest(), MEMBERS)
    assert not list(tmp_path.iterdir())


def test_says_why_a_file_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file or directory"):
        write_artifact(tmp_path / "no" / "x.tvmdet", manifest(), MEMBERS)
