from __future__ import annotations

import errno
import gc
import hashlib
import io
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

CONTENTS = {"lib/toy.so": bytes(range(256)) * 8, "lib/other.so": b"other"}
MEMBERS = {name: [data[:100], data[100:]] for name, data in CONTENTS.items()}


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
    blocks = [head[start : start + 2**20] for start in range(0, len(head), 2**20)]
    digests = b"".join(hashlib.sha256(block).digest() for block in blocks)
    return head + b"tvmdet-seal-3:" + hashlib.sha256(digests).hexdigest().encode()


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


def complete(members: Mapping[str, bytes] = CONTENTS, **changes: Any) -> dict[str, Any]:
    described = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in members.items()
    }
    return {**manifest(), "members": described, **changes}


def read(artifact: Artifact, name: str) -> bytes:
    file = io.BytesIO()
    artifact.copy_member(name, file)
    return file.getvalue()


def test_reads_back_what_was_written(path: Path) -> None:
    artifact = Artifact.open(path)
    assert artifact.member_names == ("lib/other.so", "lib/toy.so")
    assert {name: read(artifact, name) for name in artifact.member_names} == CONTENTS
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
    assert {info.extra for info in infos} == {b""}
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
    is_zip = content.startswith(b"PK")
    with pytest.raises(ArtifactError, match="is damaged" if is_zip else r"is no \.tvmdet file"):
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
        pytest.param("{", "is not JSON", id="no JSON"),
        pytest.param([], "not a table", id="a list"),
        pytest.param(complete(format=4), "has format 4; this tvmdet reads format 3", id="newer"),
        pytest.param({"format": 3}, "has no 'tvmdet'", id="key missing"),
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
        pytest.param(
            complete(targets=[toy_target(required_features=[1])]), "features", id="features"
        ),
        pytest.param(complete(targets=[toy_target(precision=16)]), "precision", id="precision"),
        pytest.param(
            complete(targets=[toy_target(planned_bytes={"x": 1})]), "planned_bytes", id="planned"
        ),
        pytest.param(complete(members={}), "no member", id="members empty"),
    ],
)
def test_refuses_a_manifest(tmp_path: Path, described: Any, message: str) -> None:
    path = tmp_path / "x.tvmdet"
    forge(path, described, list(CONTENTS.items()))
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
    members = {**CONTENTS, name: b"evil"}
    path = tmp_path / "x.tvmdet"
    forge(path, complete(members), list(members.items()))
    with pytest.raises(ArtifactError, match="is not safe"):
        Artifact.open(path)
    with pytest.raises(ArtifactError, match="is not safe"):
        write_artifact(path, manifest(), {name: [b"evil"] for name in members})


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        pytest.param([("lib/toy.so", b"1")], "member lib/other.so is missing", id="missing"),
        pytest.param([*CONTENTS.items(), ("x", b"1")], "not in the manifest", id="extra"),
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
    forge(path, complete(), [*CONTENTS.items(), ("lib/toy.so", b"evil")])
    with pytest.raises(ArtifactError, match="there twice"):
        Artifact.open(path)


def test_refuses_a_compressed_member(tmp_path: Path) -> None:
    path = tmp_path / "x.tvmdet"
    forge(path, complete(), list(CONTENTS.items()), zipfile.ZIP_DEFLATED)
    with pytest.raises(ArtifactError, match="is compressed"):
        Artifact.open(path)


def test_refuses_member_bytes_that_the_manifest_does_not_promise(tmp_path: Path) -> None:
    path = tmp_path / "x.tvmdet"
    forge(path, complete(), [("lib/toy.so", CONTENTS["lib/toy.so"]), ("lib/other.so", b"0ther")])
    artifact = Artifact.open(path)
    with pytest.raises(ArtifactError, match=r"SHA-256 of member lib/other\.so"):
        read(artifact, "lib/other.so")
    forge(path, complete(), [("lib/toy.so", CONTENTS["lib/toy.so"]), ("lib/other.so", b"others")])
    with pytest.raises(ArtifactError, match=r"other\.so is 6 bytes long, the manifest says 5"):
        Artifact.open(path)


def test_finds_a_file_that_is_changed_in_place(path: Path) -> None:
    artifact = Artifact.open(path)
    with path.open("r+b") as file:
        file.truncate()
    with pytest.raises(ArtifactError, match="changed after it was opened"):
        read(artifact, "lib/other.so")


def test_a_file_that_takes_its_place_changes_nothing(path: Path, tmp_path: Path) -> None:
    artifact = Artifact.open(path)
    write_artifact(path, manifest(), {name: [b"new"] for name in MEMBERS})
    assert read(artifact, "lib/other.so") == b"other"
    path.unlink()
    assert read(artifact, "lib/toy.so") == CONTENTS["lib/toy.so"]


def test_refuses_former_formats(path: Path) -> None:
    head = path.read_bytes()[:-78]
    former_seal = b"tvmdet-sha256:" + hashlib.sha256(head).hexdigest().encode()
    path.write_bytes(head + former_seal)
    with pytest.raises(ArtifactError, match="has format 1 or 2, which this tvmdet does not read"):
        Artifact.open(path)


def test_files_of_several_blocks(tmp_path: Path) -> None:
    """The seal is made of digests of blocks; the members lie across their borders."""
    path = tmp_path / "x.tvmdet"
    members = {"lib/toy.so": bytes(3 << 20), "lib/other.so": bytes(range(250)) * 9999}
    write_artifact(path, manifest(), {name: [data] for name, data in members.items()})
    content = path.read_bytes()
    assert seal(content) == content
    artifact = Artifact.open(path)
    assert {name: read(artifact, name) for name in members} == members
    for start in range(0, len(content), 1 << 20):
        damaged = bytearray(content)
        damaged[start + 12345] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="do not match the SHA-256"):
            Artifact.open(path)
    first, second = content[: 1 << 20], content[1 << 20 : 2 << 20]
    path.write_bytes(second + first + content[2 << 20 :])
    with pytest.raises(ArtifactError, match=r"is no \.tvmdet file"):
        Artifact.open(path)


WEIGHTS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "int8": np.arange(-5, 5, dtype=np.int8),
    "float16": np.zeros((0, 4), np.float16),
    "int64": np.int64(7).reshape(()),
}


@pytest.fixture
def weighted(tmp_path: Path) -> Path:
    """A file whose first target has weights, the second none."""
    stored, described = [], []
    for dtype, array in WEIGHTS.items():
        described.append({"offset": len(stored) * 64, "dtype": dtype, "shape": list(array.shape)})
        stored.append(array.tobytes().ljust(64, b"."))
    targets = [toy_target(weights=described), toy_target("other", rank=20)]
    path = tmp_path / "weighted.tvmdet"
    write_artifact(path, manifest(targets=targets), {**MEMBERS, "weights": stored})
    return path


def test_weights_are_mapped_and_not_copied(weighted: Path) -> None:
    artifact = Artifact.open(weighted)
    none, some = (artifact.map_weights(target) for target in artifact.targets)
    assert none == ()
    weighted.unlink()  # The mapping outlives the name of the file and what opened it.
    del artifact
    gc.collect()
    for array, (dtype, expected) in zip(some, WEIGHTS.items(), strict=True):
        assert (array.dtype.name, array.shape) == (dtype, expected.shape)
        assert array.tolist() == expected.tolist()
        assert array.ctypes.data % 64 == 0 or not array.size
        assert not array.flags.writeable
        assert not array.flags.owndata


def test_weights_of_a_changed_file_are_refused(weighted: Path) -> None:
    artifact = Artifact.open(weighted)
    with weighted.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ArtifactError, match="changed after it was opened"):
        artifact.map_weights(artifact.targets[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"offset": 32}, "multiple of 64", id="alignment"),
        pytest.param({"offset": -64}, "multiple of 64", id="negative"),
        pytest.param({"offset": 192}, "within the 256 bytes", id="reaches out"),
        pytest.param({"offset": 1 << 62}, "within the 256 bytes", id="far out"),
        pytest.param({"offset": True}, "'offset' of the wrong type", id="bool"),
        pytest.param({"dtype": "O"}, "dtype 'O'", id="objects"),
        pytest.param({"dtype": "float32,float32"}, "dtype", id="structure"),
        pytest.param({"shape": [-1, 3]}, r"shape \[-1, 3\]", id="negative shape"),
        pytest.param({"shape": [1.5]}, r"shape \[1.5\]", id="fraction"),
        pytest.param({"shape": [1 << 40, 1 << 40]}, "within the 256 bytes", id="overflow"),
    ],
)
def test_refuses_weights_that_do_not_lie_in_the_file(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    weight = {"offset": 0, "dtype": "float32", "shape": [17], **change}
    with pytest.raises(ArtifactError, match=message):
        write_artifact(
            tmp_path / "x.tvmdet",
            manifest(targets=[toy_target(weights=[weight])]),
            {**MEMBERS, "weights": [bytes(256)]},
        )


def test_refuses_weights_without_a_member(tmp_path: Path) -> None:
    weight = {"offset": 0, "dtype": "float32", "shape": [17]}
    with pytest.raises(ArtifactError, match="within the 0 bytes of weights"):
        write_artifact(
            tmp_path / "x.tvmdet", manifest(targets=[toy_target(weights=[weight])]), MEMBERS
        )


def test_refuses_to_map_what_another_tool_did_not_align(tmp_path: Path) -> None:
    members = {**CONTENTS, "weights": bytes(256)}
    weight = {"offset": 0, "dtype": "float32", "shape": [17]}
    path = tmp_path / "x.tvmdet"
    described = complete(members, targets=[toy_target(weights=[weight])])
    forge(path, described, list(members.items()))
    artifact = Artifact.open(path)
    with pytest.raises(ArtifactError, match="member weights is not aligned"):
        artifact.map_weights(artifact.targets[0])


def test_names_the_members_when_asked_for_another(path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no member 'x'; it holds: lib/other.so, lib/toy.so"):
        read(Artifact.open(path), "x")


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
