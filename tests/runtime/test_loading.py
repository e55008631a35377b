from __future__ import annotations

import os
import platform
import random
import signal
from pathlib import Path

import numpy as np
import pytest
from toy_modules import toy_spec, toy_target, write_toy

from tvmdet.artifact import TargetEntry
from tvmdet.errors import ArtifactError, InputError, TargetError
from tvmdet.runtime import native
from tvmdet.runtime.loader import Host, choose_target, explain_targets, load

X86 = Host(arch="x86_64", features=frozenset({"avx2", "fma", "sse"}))


def entry(name: str, rank: int, *features: str, arch: str = "x86_64") -> TargetEntry:
    return TargetEntry(
        name=name,
        arch=arch,
        rank=rank,
        required_features=features,
        library=f"lib/{name}.so",
        planned_bytes={},
    )


V3 = entry("v3", 30, "avx2", "fma")
V4 = entry("v4", 40, "avx2", "avx512f", "avx512bw")
ARM = entry("arm", 50, "asimd", arch="aarch64")
PLAIN = entry("plain", 10)


@pytest.mark.parametrize(
    ("targets", "wanted", "expected"),
    [
        pytest.param([PLAIN], None, PLAIN, id="the only one"),
        pytest.param([PLAIN, V3, V4, ARM], None, V3, id="the best that fits"),
        pytest.param([PLAIN, V3], "plain", PLAIN, id="by name"),
    ],
)
def test_choice(targets: list[TargetEntry], wanted: str | None, expected: TargetEntry) -> None:
    assert choose_target(targets, X86, wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        pytest.param(
            None,
            "v4: this CPU lacks avx512f, avx512bw; arm: needs aarch64, this machine is x86_64",
            id="nothing fits",
        ),
        pytest.param("v4", r"It holds v4: this CPU lacks avx512f, avx512bw\.", id="by name"),
        pytest.param("v9", "holds no target 'v9'; it holds: v4, arm", id="unknown"),
    ],
)
def test_refusal_names_what_there_is_and_what_lacks(wanted: str | None, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        choose_target([V4, ARM], X86, wanted)


def test_explanation_has_a_line_for_each_target() -> None:
    assert explain_targets([ARM, V4, V3, PLAIN], X86, V3).splitlines() == [
        "arm (rank 50): needs aarch64, this machine is x86_64",
        "v4 (rank 40): this CPU lacks avx512f, avx512bw",
        "v3 (rank 30): chosen",
        "plain (rank 10): runs here too",
    ]


def test_this_machine() -> None:
    host = Host.this_machine()
    assert host.arch == platform.machine()
    assert host.features


def test_loads_the_best_target_and_says_which(toy_library: bytes, tmp_path: Path) -> None:
    targets = [
        toy_target("low", rank=1),
        toy_target("high", rank=9, planned_bytes={"1": 5, "2": 9}),
        toy_target("never", rank=99, required_features=["no_such_flag"]),
    ]
    path = write_toy(tmp_path / "x.tvmdet", toy_library, targets=targets)
    with load(path, threads=1) as detector:
        assert detector.target == "high"
        assert detector.memory == {1: 5, 2: 9}
        assert detector.threads == 1
        assert detector.batch_sizes == (1, 2)
        assert detector.labels == ("blue", "green", "red")
        assert detector.spec == toy_spec()
        assert detector.manifest["model"]["name"] == "toy"
        assert "never (rank 99): this CPU lacks no_such_flag" in detector.explain()
        assert "yolov8 of 32x48 (height x width)" in repr(detector)
    with load(path, threads=1, target="low") as detector:
        assert detector.target == "low"


class NothingIsLoaded:
    def __init__(self, *_: object, **__: object) -> None:
        raise AssertionError("native code was loaded")


@pytest.fixture
def no_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmdet.runtime.loader.NativeModule", NothingIsLoaded)
    monkeypatch.setattr(native, "_load_and_unlink", NothingIsLoaded)


@pytest.mark.usefixtures("no_native_code")
def test_refuses_another_cpu_before_loading_code(toy_library: bytes, tmp_path: Path) -> None:
    targets = [toy_target(arch="x86_64", required_features=["avx512_future"])]
    path = write_toy(tmp_path / "x.tvmdet", toy_library, targets=targets)
    with pytest.raises(TargetError, match=r"x\.tvmdet cannot run on this machine.*avx512_future"):
        load(path, host=X86)
    with pytest.raises(TargetError, match="needs x86_64, this machine is riscv64"):
        load(path, host=Host(arch="riscv64", features=frozenset()))


@pytest.mark.usefixtures("no_native_code")
def test_refuses_a_flipped_bit_before_loading_code(toy_path: Path, tmp_path: Path) -> None:
    content = toy_path.read_bytes()
    rng = random.Random(5)
    path = tmp_path / "x.tvmdet"
    for _ in range(20):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="is damaged"):
            load(path)


def test_refuses_a_library_that_does_not_load(tmp_path: Path) -> None:
    path = write_toy(tmp_path / "x.tvmdet", b"\x7fELF but not really")
    with pytest.raises(ArtifactError, match=r"x\.tvmdet \(toy\) cannot be loaded"):
        load(path)


@pytest.mark.usefixtures("no_native_code")
def test_refuses_a_spec_that_it_does_not_know(toy_library: bytes, tmp_path: Path) -> None:
    spec = {**toy_spec().to_dict(), "novelty": 1}
    path = write_toy(tmp_path / "x.tvmdet", toy_library, spec=spec)
    with pytest.raises(ArtifactError, match="unknown key 'novelty'"):
        load(path)


def tensor(**changes: object) -> dict[str, object]:
    return {"name": "x", "shape": [1, 3], "dtype": "float32", **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"spec": {}}, "the spec has no 'family'", id="empty spec"),
        pytest.param({"spec": {**toy_spec().to_dict(), "labels": 5}}, "a spec that", id="labels"),
        pytest.param({"spec": {**toy_spec().to_dict(), "options": 5}}, "a spec that", id="options"),
        pytest.param({"raw": {}}, "no 'inputs'", id="empty raw"),
        pytest.param({"raw": {"inputs": 5, "outputs": []}}, "not iterable", id="no list"),
        pytest.param({"raw": {"inputs": [5], "outputs": []}}, "cannot be used", id="no tensor"),
        pytest.param(
            {"raw": {"inputs": [tensor(dtype="odd")], "outputs": []}}, "'odd'", id="dtype"
        ),
        pytest.param(
            {"raw": {"inputs": [tensor(shape=["n"])], "outputs": []}}, r"shape \['n'\]", id="shape"
        ),
        pytest.param(
            {"raw": {"inputs": [tensor(batched=1)], "outputs": []}}, "batched 1", id="batched"
        ),
        pytest.param(
            {"raw": {"inputs": [tensor(shape=[], batched=True)], "outputs": []}},
            "a batch of 1",
            id="batched scalar",
        ),
        pytest.param(
            {"raw": {"inputs": [tensor(batched=False)], "outputs": []}, "batch_sizes": [2, 4]},
            r"x has no batch dimension, and the batch sizes are \[2, 4\] without 1",
            id="no batch of 1",
        ),
    ],
)
@pytest.mark.usefixtures("no_native_code")
def test_refuses_a_malformed_manifest_before_loading_code(
    toy_library: bytes, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = write_toy(tmp_path / "x.tvmdet", toy_library, **changes)
    with pytest.raises(ArtifactError, match=message):
        load(path)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_must_load_its_own(toy_path: Path) -> None:
    image = np.full((4, 4, 3), 255, np.uint8)
    with load(toy_path, threads=1) as detector:
        expected = detector.detect(image).to_dict()
        child = os.fork()
        if child == 0:
            code = 1
            signal.alarm(20)  # a child that hangs ends by the signal
            try:
                try:
                    detector.detect(image)
                except InputError as error:
                    code = 0 if "load it after the fork" in str(error) else 2
                detector.close()
                with load(toy_path, threads=1) as own:
                    if own.detect(image).to_dict() != expected:
                        code = 3
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert detector.detect(image).to_dict() == expected


def test_refuses_a_thread_count(toy_path: Path) -> None:
    with pytest.raises(InputError, match="threads is 0; allowed: 1 to"):
        load(toy_path, threads=0)


def test_a_closed_detector_says_so(toy_path: Path) -> None:
    detector = load(toy_path)
    detector.close()
    detector.close()
    with pytest.raises(InputError, match="is closed; load it again"):
        detector.detect(np.zeros((4, 4, 3), np.uint8))
